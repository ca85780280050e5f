//! From whom to take pages.

use std::collections::BTreeMap;

use crate::clock::Mono;
use crate::id::LinkId;
use crate::limits::PUSH_LINKS_MAX;
use crate::oplog::Logs;
use crate::session::Session;
use crate::wire::Message;

/// A node that lacks more than this of a peer takes it from one peer at a time.
const CATCH_UP_ENTRIES: u64 = 2_000;
/// A peer from which nothing came for so long is no longer waited for by a catch-up.
const STALLED_MS: u64 = 10_000;
/// Links beyond [`PUSH_LINKS_MAX`] that may be open to repair what digests found missing.
const REPAIR_LINKS: usize = 2;

/// Opens and closes the peers' flows: a few at a time, and a long catch-up from one at a time, so that the same history
/// does not come in several times. A flow that was opened beyond the limit is closed again after `rest_ms`.
pub(crate) fn regulate(
    sessions: &mut BTreeMap<LinkId, Session>,
    logs: &Logs,
    rest_ms: u64,
    now: Mono,
) -> Vec<(LinkId, Message)> {
    let mut granted = 0;
    let mut catching_up = false;
    for session in sessions.values().filter(|session| session.granted().is_some()) {
        granted += 1;
        let flowing = now.since(session.last_sign_of_flow()) < STALLED_MS;
        catching_up |= flowing && session.behind(logs).0 > CATCH_UP_ENTRIES;
    }
    let mut messages = Vec::new();
    for (link, session) in sessions.iter_mut().filter(|(_, session)| session.is_ready()) {
        let behind = session.behind(logs).0;
        if let Some(since) = session.granted() {
            if granted > PUSH_LINKS_MAX && behind == 0 && now.since(since) >= rest_ms {
                granted -= 1;
                messages.push((*link, session.grant(false, now)));
            }
            continue;
        }
        let room = if behind > 0 { PUSH_LINKS_MAX + REPAIR_LINKS } else { PUSH_LINKS_MAX };
        if granted < room && !(catching_up && behind > CATCH_UP_ENTRIES) {
            granted += 1;
            catching_up |= behind > CATCH_UP_ENTRIES;
            messages.push((*link, session.grant(true, now)));
        }
    }
    messages
}
