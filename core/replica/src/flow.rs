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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::{Collection, Incarnation, LogId, NodeId};
    use crate::ledger::Taken;
    use crate::session::tests::{NOW, Talk};
    use crate::version::{Hash, Head, Seq};
    use crate::wire::{Ack, VectorPart};

    const REST_MS: u64 = 4_000;

    /// Peers by number; each has entries of an author of its own.
    struct Peers {
        sessions: BTreeMap<LinkId, Session>,
        own: Talk,
        limits: Limits,
    }

    impl Peers {
        fn new(push_links: usize, catch_up_entries: u64, claims: &[u64]) -> Self {
            let limits = Limits { push_links, catch_up_entries, ..Limits::default() };
            let mut peers = Self { sessions: BTreeMap::new(), own: Talk::new(), limits };
            for (number, claimed) in (1..).zip(claims) {
                peers.greet(number);
                peers.claim(number, *claimed);
            }
            peers
        }

        /// Adds one that has not told yet what it has.
        fn greet(&mut self, number: u64) {
            let mut talk = Talk::greeted();
            talk.session.link.id = LinkId(number);
            self.sessions.insert(LinkId(number), talk.session);
        }

        fn claim(&mut self, number: u64, entries: u64) {
            let author = NodeId([u8::try_from(number).unwrap(); 32]);
            let collection = Collection::new("t").unwrap();
            let log = LogId { author, incarnation: Incarnation(1), collection };
            let heads = vec![(log, Head { seq: Seq(entries), hash: Hash([1; 32]) })];
            let vector = Message::Vector(VectorPart { heads, last: true, ..VectorPart::default() });
            let session = self.sessions.get_mut(&LinkId(number)).unwrap();
            session.handle_message(NOW, &self.own.local, &self.own.logs, vector).unwrap();
        }

        fn brings(&mut self, number: u64, ms: u64, bytes: usize) {
            let ack = Ack { page: 1, results: Vec::new() };
            let taken =
                Taken { ends: Vec::new(), ack, entries: 0, bytes, forked: Vec::new(), rolled_back: None };
            let session = self.sessions.get_mut(&LinkId(number)).unwrap();
            session.page_taken(NOW.mono.plus(ms), &self.own.logs, taken);
        }

        /// Whose flow is opened, and whose closed, so long after the start.
        fn regulate(&mut self, ms: u64) -> Vec<(u64, bool)> {
            let (logs, now) = (&self.own.logs, NOW.mono.plus(ms));
            let messages = regulate(&mut self.sessions, logs, &self.limits, (REST_MS, None), now);
            let told = |(link, message): (LinkId, Message)| match message {
                Message::Flow { open } => (link.0, open),
                other => panic!("{other:?}"),
            };
            messages.into_iter().map(told).collect()
        }
    }

    #[test]
    fn so_many_flows_are_opened_and_two_more_to_peers_that_have_what_is_lacking() {
        let mut peers = Peers::new(3, 10, &[0, 0, 0, 0, 1, 1, 1]);
        peers.greet(0);
        assert_eq!(peers.regulate(0), [(1, true), (2, true), (3, true), (5, true), (6, true)]);
        assert_eq!(peers.regulate(1), []);
    }

    #[test]
    fn one_long_history_is_on_its_way_at_a_time_and_short_ones_beside_it() {
        let mut peers = Peers::new(6, 10, &[11, 11, 10]);
        assert_eq!(peers.regulate(0), [(1, true), (3, true)]);
        assert_eq!(peers.regulate(1), []);
        let mut peers = Peers::new(6, 10, &[10]);
        assert_eq!(peers.regulate(0), [(1, true)]);
        peers.greet(2);
        peers.claim(2, 11);
        assert_eq!(peers.regulate(1), [(2, true)], "a short history keeps no long one waiting");
    }

    #[test]
    fn a_flow_beyond_the_limit_is_closed_when_it_has_rested_and_nothing_is_lacking() {
        let mut peers = Peers::new(1, 10, &[0, 1, 1]);
        assert_eq!(peers.regulate(0), [(1, true), (2, true), (3, true)]);
        peers.claim(3, 0);
        assert_eq!(peers.regulate(REST_MS - 1), []);
        assert_eq!(peers.regulate(REST_MS), [(1, false), (3, false)], "number 2 still has what is lacking");
        let mut peers = Peers::new(1, 10, &[0, 1, 1]);
        peers.regulate(0);
        peers.claim(2, 0);
        peers.claim(3, 0);
        assert_eq!(peers.regulate(REST_MS), [(1, false), (2, false)], "one stays open");
    }

    #[test]
    fn a_peer_that_promises_much_and_brings_nothing_does_not_keep_others_waiting() {
        let mut peers = Peers::new(6, 10, &[1_000_000, 1_000_000, 1_000_000]);
        assert_eq!(peers.regulate(0), [(1, true)]);
        peers.brings(1, 9_999, 0);
        assert_eq!(peers.regulate(9_999), []);
        assert_eq!(peers.regulate(STALLED_MS), [(2, true)], "empty pages are no reason to wait");
        peers.brings(2, 15_000, 1 << 20);
        assert_eq!(peers.regulate(24_999), [], "but entries are");
        assert_eq!(peers.regulate(25_000), [(3, true)]);
    }

    #[test]
    fn with_all_flows_taken_those_that_bring_nothing_make_room_for_those_that_have_waited_longest() {
        let mut peers = Peers::new(1, 10, &[1, 1, 1, 1, 1]);
        assert_eq!(peers.regulate(0), [(1, true), (2, true), (3, true)]);
        // Neither one that has not told what it has, nor one that has nothing, waits for anything.
        peers.greet(0);
        peers.claim(4, 0);
        peers.greet(6);
        peers.claim(6, 1);
        peers.brings(1, 5_000, 1 << 20);
        assert_eq!(peers.regulate(STALLED_MS - 1), []);
        assert_eq!(peers.regulate(STALLED_MS), [(2, false), (5, true)]);
        assert_eq!(peers.regulate(STALLED_MS), [(3, false), (6, true)]);
        assert_eq!(peers.regulate(14_999), []);
        assert_eq!(
            peers.regulate(15_000),
            [(1, false), (2, true)],
            "the first to be closed is the first to go on"
        );
        assert_eq!(peers.regulate(15_001), []);
        let mut peers = Peers::new(3, 10, &[1, 1, 1, 1, 1, 1]);
        assert_eq!(peers.regulate(0).len(), 5);
        assert_eq!(peers.regulate(STALLED_MS), [(1, false), (6, true)]);
    }
}
