//! From whom to take pages.

use std::collections::BTreeMap;

use crate::clock::Mono;
use crate::id::LinkId;
use crate::limits::Limits;
use crate::oplog::Logs;
use crate::session::Session;
use crate::wire::Message;

/// A peer that brought nothing worth waiting for in so long does not keep a catch-up to itself any more.
const STALLED_MS: u64 = 10_000;
/// Links beyond [`Limits::push_links`] that may be open to repair what digests found missing.
const REPAIR_LINKS: usize = 2;

/// Opens and closes the peers' flows: a few at a time, and a long catch-up from one at a time, so that the same history
/// does not come in several times. A flow that was opened beyond the limit is closed again after `rest_ms`.
pub(crate) fn regulate(
    sessions: &mut BTreeMap<LinkId, Session>,
    logs: &Logs,
    limits: &Limits,
    (rest_ms, snapshot): (u64, Option<LinkId>),
    now: Mono,
) -> Vec<(LinkId, Message)> {
    let mut granted = 0;
    // A snapshot is a catch-up too, and who gives it need not send the history as well.
    let mut catching_up = snapshot.is_some();
    for session in sessions.values().filter(|session| session.granted().is_some()) {
        granted += 1;
        let flowing = now.since(session.last_gain()) < STALLED_MS;
        catching_up |= flowing && session.behind(logs).0 > limits.catch_up_entries;
    }
    let mut messages = Vec::new();
    for (link, session) in sessions.iter_mut().filter(|(_, session)| session.is_ready()) {
        let behind = session.behind(logs).0;
        if let Some(since) = session.granted() {
            if granted > limits.push_links && behind == 0 && now.since(since) >= rest_ms {
                granted -= 1;
                messages.push((*link, session.grant(false, now)));
            }
            continue;
        }
        let room = limits.push_links + if behind > 0 { REPAIR_LINKS } else { 0 };
        let catch_up = behind > limits.catch_up_entries;
        if granted < room && !(catching_up && catch_up) && snapshot != Some(*link) {
            granted += 1;
            catching_up |= catch_up;
            messages.push((*link, session.grant(true, now)));
        }
    }
    if granted >= limits.push_links + REPAIR_LINKS {
        messages.extend(take_turns(sessions, logs, now));
    }
    messages
}

/// With all flows taken, one that has brought nothing for long makes room for the peer that has waited longest. So no
/// number of peers that promise entries and send none can keep this node from those who have some.
fn take_turns(sessions: &mut BTreeMap<LinkId, Session>, logs: &Logs, now: Mono) -> Vec<(LinkId, Message)> {
    let is_waiting =
        |session: &&Session| session.is_ready() && session.granted().is_none() && session.behind(logs).0 > 0;
    let waiting = sessions.values().filter(is_waiting).min_by_key(|session| session.closed());
    let stalled = sessions.values().filter(|session| session.granted().is_some());
    let stalled = stalled.min_by_key(|session| session.last_gain());
    let (Some(waiting), Some(stalled)) = (waiting, stalled) else { return Vec::new() };
    if now.since(stalled.last_gain()) < STALLED_MS {
        return Vec::new();
    }
    let turns = [(stalled.link.id, false), (waiting.link.id, true)];
    let turn = |(link, open)| Some((link, sessions.get_mut(&link)?.grant(open, now)));
    turns.into_iter().filter_map(turn).collect()
}
