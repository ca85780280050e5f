//! The sending half of a session: what the peer holds, what is on its way to it, and what waits.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

use crate::blocked::Place;
use crate::clock::Mono;
use crate::follow::{Follower, Kept};
use crate::id::{Collection, Incarnation, LogId, NodeId};
use crate::limits::{ACK_MS, BAD_LOG_RETRY_MS, SKEW_RETRY_MS};
use crate::oplog::Logs;
use crate::version::{Head, Seq};
use crate::wire::{Ack, Code, Run, RunResult};

/// Wait before entries are offered again that a busy receiver could not take.
const BUSY_RETRY_MS: u64 = 500;

/// An acknowledgement that does not fit what was sent.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum AckError {
    #[error("the peer acknowledged page {0}, which is not the oldest on its way")]
    Order(u64),
    #[error("the peer acknowledged {found} runs of a page that has {expected}")]
    Length { expected: usize, found: usize },
}

#[derive(Debug)]
struct InFlight {
    id: u64,
    ends: Vec<(LogId, Seq)>,
    sent: Mono,
}

/// What a peer holds, and what is on its way to it.
#[derive(Debug, Default)]
pub(crate) struct Outgoing {
    /// What the peer is known to hold durably.
    theirs: BTreeMap<LogId, Seq>,
    /// All of it together.
    total: u128,
    /// What was sent, beyond `theirs`.
    sent: BTreeMap<LogId, Seq>,
    in_flight: VecDeque<InFlight>,
    /// Logs that the peer found bad, and until when they wait.
    held: BTreeMap<LogId, Mono>,
    /// Authors whose entries the peer can't take yet. All their logs wait together: a unit may lie in several.
    held_authors: BTreeMap<(NodeId, Incarnation), Mono>,
    /// Whether the peer has refused entries because their time was too far ahead for it.
    is_behind_in_time: bool,
    pages_sent: u64,
    /// How often anything of this has changed.
    changes: u64,
    /// An answer that holds as long as neither our heads nor this change: every input asks, most change nothing.
    settled: Cell<Option<(u64, u64)>>,
    lacking: Kept<Lacking>,
    behind: Kept<Behind>,
}

/// Shared logs of which more is here than was sent to the peer or is known to be there.
#[derive(Debug, Default)]
struct Lacking {
    follower: Follower,
    logs: BTreeSet<LogId>,
}

/// Logs of which the peer holds more than is here, with how much, and sums over all.
#[derive(Debug, Default)]
struct Behind {
    follower: Follower,
    logs: BTreeMap<LogId, u64>,
    behind: u128,
}

impl Outgoing {
    /// The peer's whole vector, as far as it is shared. What is on its way stays so.
    pub(crate) fn learn_all(&mut self, heads: impl Iterator<Item = (LogId, Head)>) {
        self.changes += 1;
        self.start_over();
        self.theirs = heads.map(|(log, head)| (log, head.seq)).collect();
        self.total = self.theirs.values().map(|seq| u128::from(seq.0)).sum();
        let ends = self.in_flight.iter().flat_map(|page| page.ends.iter().map(|(log, _)| log));
        let on_its_way: BTreeSet<&LogId> = ends.collect();
        self.sent.retain(|log, _| on_its_way.contains(log));
    }

    /// The peer holds a log at least up to there.
    pub(crate) fn learn(&mut self, log: LogId, seq: Seq) {
        self.changes += 1;
        self.touch(&log);
        let theirs = self.theirs.entry(log).or_default();
        self.total += u128::from(seq.0.saturating_sub(theirs.0));
        *theirs = (*theirs).max(seq);
    }

    /// What is known of a log at the peer, or sent of it, has changed.
    fn touch(&mut self, log: &LogId) {
        self.lacking.with(|lacking| lacking.follower.touch(log));
        self.behind.with(|behind| behind.follower.touch(log));
    }

    fn start_over(&mut self) {
        self.lacking.with(|lacking| lacking.follower.start_over());
        self.behind.with(|behind| behind.follower.start_over());
    }

    /// What the peer lacks and may be sent now: logs with the position after which to send. Empty if nothing.
    pub(crate) fn to_send(
        &self,
        logs: &Logs,
        shared: &BTreeSet<Collection>,
        pages_in_flight: usize,
        now: Mono,
    ) -> BTreeMap<LogId, Seq> {
        if self.in_flight.len() >= pages_in_flight {
            return BTreeMap::new();
        }
        let state = (logs.moves(), self.changes);
        if self.settled.get() == Some(state) {
            return BTreeMap::new();
        }
        let may_go = |log: &LogId| {
            let until = self.held.get(log).max(self.held_authors.get(&(log.author, log.incarnation)));
            if until.is_some_and(|until| *until > now) {
                return None;
            }
            let after = self.position(log);
            // What is forgotten here is not sent; the peer asks for a snapshot.
            (after >= logs.floor(log)).then(|| (log.clone(), after))
        };
        let positions: BTreeMap<LogId, Seq> = self.lacking.with(|lacking| {
            self.follow_lacking(lacking, logs, shared);
            lacking.logs.iter().filter_map(may_go).collect()
        });
        if positions.is_empty() && self.held() == 0 {
            self.settled.set(Some(state));
        }
        positions
    }

    /// What the peer is known to hold durably.
    pub(crate) fn theirs(&self) -> &BTreeMap<LogId, Seq> {
        &self.theirs
    }

    fn follow_lacking(&self, lacking: &mut Lacking, logs: &Logs, shared: &BTreeSet<Collection>) {
        let is_lacking =
            |log: &LogId, head: Seq| shared.contains(&log.collection) && head > self.position(log);
        let Some(changed) = logs.changed(&mut lacking.follower) else {
            let all = logs.vector().iter().filter(|(log, head)| is_lacking(log, head.seq));
            lacking.logs = all.map(|(log, _)| log.clone()).collect();
            return;
        };
        for log in changed {
            if is_lacking(&log, logs.vector().head(&log).seq) {
                lacking.logs.insert(log);
            } else {
                lacking.logs.remove(&log);
            }
        }
    }

    fn position(&self, log: &LogId) -> Seq {
        let theirs = self.theirs.get(log).copied().unwrap_or_default();
        theirs.max(self.sent.get(log).copied().unwrap_or_default())
    }

    /// The entry that is next to get through: the first on its way, else the first that this node lacks.
    pub(crate) fn place(&self, logs: &Logs) -> Place {
        let first_on_its_way = self.in_flight.front().and_then(|page| page.ends.first());
        if let Some((log, _)) = first_on_its_way {
            return Some((log.clone(), self.theirs.get(log).copied().unwrap_or_default().next()));
        }
        let ours = |log: &LogId| logs.vector().head(log).seq;
        let (log, _) = self.theirs.iter().find(|(log, seq)| **seq > ours(log))?;
        Some((log.clone(), ours(log).next()))
    }

    /// Whether both sides hold an entry.
    pub(crate) fn is_past(&self, (log, seq): &(LogId, Seq), logs: &Logs) -> bool {
        let theirs = self.theirs.get(log).copied().unwrap_or_default();
        theirs >= *seq && logs.vector().head(log).seq >= *seq
    }

    /// The number of the next page.
    pub(crate) fn next_page(&self) -> u64 {
        self.pages_sent + 1
    }

    /// Remembers that the next page is on its way.
    pub(crate) fn page_out(&mut self, runs: &[Run], now: Mono) {
        self.changes += 1;
        self.pages_sent += 1;
        let ends: Vec<(LogId, Seq)> = runs.iter().map(|run| (run.log.clone(), run.signed.head.seq)).collect();
        ends.iter().for_each(|(log, _)| self.touch(log));
        self.sent.extend(ends.iter().cloned());
        self.in_flight.push_back(InFlight { id: self.pages_sent, ends, sent: now });
    }

    /// A unit that can't be sent to this peer: its author's entries wait, and so do no others.
    pub(crate) fn hold_unit(&mut self, log: &LogId, now: Mono) {
        self.hold_author(log, now.plus(BAD_LOG_RETRY_MS));
    }

    /// These logs can't be sent for now.
    pub(crate) fn hold(&mut self, logs: impl IntoIterator<Item = LogId>, now: Mono) {
        self.changes += 1;
        self.held.extend(logs.into_iter().map(|log| (log, now.plus(BAD_LOG_RETRY_MS))));
    }

    /// Nothing of these logs is old enough for the peer yet.
    pub(crate) fn hold_for_their_time(&mut self, logs: impl IntoIterator<Item = LogId>, now: Mono) {
        logs.into_iter().for_each(|log| self.hold_author(&log, now.plus(SKEW_RETRY_MS)));
    }

    /// Whether the peer has refused entries because their time was too far ahead for it.
    pub(crate) fn is_behind_in_time(&self) -> bool {
        self.is_behind_in_time
    }

    /// Takes an acknowledgement; answers what the peer refused and why.
    pub(crate) fn acknowledged(
        &mut self,
        ack: Ack,
        now: Mono,
    ) -> Result<Vec<(LogId, Code, String)>, AckError> {
        self.changes += 1;
        let page = match self.in_flight.front() {
            Some(page) if page.id == ack.page => self.in_flight.pop_front().expect("it was just seen"),
            _ => return Err(AckError::Order(ack.page)),
        };
        if page.ends.len() != ack.results.len() {
            return Err(AckError::Length { expected: page.ends.len(), found: ack.results.len() });
        }
        let mut refused = Vec::new();
        let mut back = BTreeSet::new();
        for ((log, _), RunResult { code, seq, detail }) in page.ends.into_iter().zip(ack.results) {
            if code == Code::Taken {
                self.learn(log, seq);
                continue;
            }
            // Back to what the peer says it holds; the rest is sent again when its time has come.
            self.touch(&log);
            let before = self.theirs.insert(log.clone(), seq).unwrap_or_default();
            self.total = self.total - u128::from(before.0) + u128::from(seq.0);
            self.sent.remove(&log);
            match code {
                Code::ClockSkew => {
                    self.is_behind_in_time = true;
                    self.hold_author(&log, now.plus(SKEW_RETRY_MS));
                }
                Code::Busy => self.hold_author(&log, now.plus(BUSY_RETRY_MS)),
                Code::Bad => drop(self.held.insert(log.clone(), now.plus(BAD_LOG_RETRY_MS))),
                Code::Gap | Code::Taken => {}
            }
            if code != Code::Bad {
                back.insert((log.author, log.incarnation));
            }
            refused.push((log, code, detail));
        }
        // A unit may lie in several logs: they go back together, or a part of one would be sent without the rest.
        let goes_back = |log: &LogId| back.contains(&(log.author, log.incarnation));
        let sent: Vec<LogId> = self.sent.keys().filter(|log| goes_back(log)).cloned().collect();
        for log in sent {
            self.touch(&log);
            self.sent.remove(&log);
        }
        Ok(refused)
    }

    fn hold_author(&mut self, log: &LogId, until: Mono) {
        self.changes += 1;
        let held = self.held_authors.entry((log.author, log.incarnation)).or_default();
        *held = until.max(*held);
    }

    /// Forgets waits that are over.
    pub(crate) fn release(&mut self, now: Mono) {
        self.held.retain(|_, until| *until > now);
        self.held_authors.retain(|_, until| *until > now);
    }

    /// Forgets all waits.
    pub(crate) fn release_all(&mut self) {
        self.held.clear();
        self.held_authors.clear();
    }

    /// Whether the peer has refused a log.
    pub(crate) fn is_held(&self, log: &LogId) -> bool {
        self.held.contains_key(log)
    }

    /// Logs, and authors with all their logs, that wait.
    pub(crate) fn held(&self) -> usize {
        self.held.len() + self.held_authors.len()
    }

    /// Whether nothing is on its way.
    pub(crate) fn is_idle(&self) -> bool {
        self.in_flight.is_empty()
    }

    /// Whether the oldest page should have been acknowledged by now.
    pub(crate) fn is_overdue(&self, now: Mono) -> bool {
        self.in_flight.front().is_some_and(|page| now.since(page.sent) >= ACK_MS)
    }

    /// When a wait or a deadline ends.
    pub(crate) fn next_wake(&self) -> Option<Mono> {
        let ack = self.in_flight.front().map(|page| page.sent.plus(ACK_MS));
        let held = self.held.values().chain(self.held_authors.values()).copied();
        ack.into_iter().chain(held).min()
    }

    /// Entries that the peer is known to hold: how many of them this node lacks, and all of them.
    pub(crate) fn behind(&self, logs: &Logs) -> (u64, u64) {
        let behind = self.behind.with(|behind| self.follow_behind(behind, logs));
        (u64::try_from(behind).unwrap_or(u64::MAX), u64::try_from(self.total).unwrap_or(u64::MAX))
    }

    fn follow_behind(&self, state: &mut Behind, logs: &Logs) -> u128 {
        let missing = |log: &LogId, theirs: Seq| theirs.0.saturating_sub(logs.vector().head(log).seq.0);
        let Some(changed) = logs.changed(&mut state.follower) else {
            let all = self.theirs.iter().map(|(log, theirs)| (log, missing(log, *theirs)));
            let all = all.filter(|(_, missing)| *missing > 0);
            state.logs = all.map(|(log, missing)| (log.clone(), missing)).collect();
            // A peer may claim anything.
            state.behind = state.logs.values().map(|missing| u128::from(*missing)).sum();
            return state.behind;
        };
        for log in changed {
            let theirs = self.theirs.get(&log).copied().unwrap_or_default();
            let before = state.logs.remove(&log).unwrap_or_default();
            let now = missing(&log, theirs);
            state.behind = state.behind - u128::from(before) + u128::from(now);
            if now > 0 {
                state.logs.insert(log, now);
            }
        }
        state.behind
    }

    /// Entries that this node holds and the peer is not known to hold.
    pub(crate) fn ahead(&self, logs: &Logs, shared: &BTreeSet<Collection>) -> u64 {
        let shared = logs.vector().iter().filter(|(log, _)| shared.contains(&log.collection));
        let lead = shared.map(|(log, head)| {
            head.seq.0.saturating_sub(self.theirs.get(log).copied().unwrap_or_default().0)
        });
        lead.sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Hlc;
    use crate::entry::SignedHead;
    use crate::id::PublicKey;
    use crate::store::Durable;
    use crate::version::Hash;

    const NOW: Mono = Mono(1_000);

    fn log(author: u8, collection: &str) -> LogId {
        let (author, collection) = (NodeId([author; 32]), Collection::new(collection).unwrap());
        LogId { author, incarnation: Incarnation(1), collection }
    }

    fn head(seq: u64) -> Head {
        Head { seq: Seq(seq), hash: Hash([1; 32]) }
    }

    fn logs(held: &[(LogId, u64)]) -> Logs {
        let heads = held.iter().map(|(log, seq)| (log.clone(), head(*seq), Hlc(1)));
        Logs::from_durable(&Durable { heads: heads.collect(), ..Durable::default() })
    }

    fn run(log: &LogId, end: u64) -> Run {
        let signed = SignedHead { head: head(end), hlc: Hlc(1), signature: [0; 64] };
        let (public_key, previous) = (PublicKey([0; 32]), Hash::default());
        Run { log: log.clone(), public_key, previous, entries: Vec::new(), signed }
    }

    fn ack(page: u64, results: &[(Code, u64)]) -> Ack {
        let result = |(code, seq): &(Code, u64)| RunResult {
            code: *code,
            seq: Seq(*seq),
            detail: format!("up to {seq}"),
        };
        Ack { page, results: results.iter().map(result).collect() }
    }

    /// A peer that holds so much of some logs, and what this node has of them.
    struct Peer {
        outgoing: Outgoing,
        logs: Logs,
    }

    impl Peer {
        fn new(ours: &[(LogId, u64)], theirs: &[(LogId, u64)]) -> Self {
            let mut outgoing = Outgoing::default();
            outgoing.learn_all(theirs.iter().map(|(log, seq)| (log.clone(), head(*seq))));
            Self { outgoing, logs: logs(ours) }
        }

        fn to_send_at(&self, ms: u64) -> Vec<(LogId, u64)> {
            let shared = ["s", "t"].map(|name| Collection::new(name).unwrap()).into();
            let positions = self.outgoing.to_send(&self.logs, &shared, 2, NOW.plus(ms));
            positions.into_iter().map(|(log, seq)| (log, seq.0)).collect()
        }
    }

    #[test]
    fn what_is_sent_again_is_sent_again_of_all_logs_that_a_unit_may_lie_in() {
        let (s, t, other) = (log(1, "s"), log(1, "t"), log(2, "t"));
        let ours = [(s.clone(), 9), (t.clone(), 9), (other.clone(), 9)];
        let mut peer = Peer::new(&ours, &[]);
        peer.outgoing.page_out(&[run(&s, 3)], NOW);
        peer.outgoing.page_out(&[run(&s, 6), run(&t, 6), run(&other, 6)], NOW);
        peer.outgoing.acknowledged(ack(1, &[(Code::Gap, 0)]), NOW).unwrap();
        assert_eq!(peer.to_send_at(0), [(s, 0), (t, 0), (other, 6)]);
    }

    #[test]
    fn sent_is_what_the_peer_neither_holds_nor_will_get_of_what_both_sync() {
        let (a, b, c) = (log(1, "t"), log(2, "t"), log(3, "other"));
        let mut peer = Peer::new(&[(a.clone(), 5), (b.clone(), 3), (c, 2)], &[(a.clone(), 2)]);
        assert_eq!(peer.to_send_at(0), [(a.clone(), 2), (b.clone(), 0)]);
        assert_eq!((peer.outgoing.next_page(), peer.outgoing.is_idle()), (1, true));
        peer.outgoing.page_out(&[run(&a, 5)], NOW);
        assert_eq!((peer.outgoing.next_page(), peer.outgoing.is_idle()), (2, false));
        assert_eq!(peer.to_send_at(0), [(b.clone(), 0)]);
        peer.outgoing.page_out(&[run(&b, 2)], NOW);
        assert_eq!(peer.to_send_at(0), [], "two pages are on their way");
        assert_eq!(peer.outgoing.acknowledged(ack(1, &[(Code::Taken, 5)]), NOW), Ok(Vec::new()));
        assert_eq!(peer.to_send_at(0), [(b.clone(), 2)]);
        // A vector that was sent before the page arrived does not bring it back.
        peer.outgoing.learn_all([(a.clone(), head(4))].into_iter());
        assert_eq!(peer.to_send_at(0), [(a, 4), (b, 2)]);
    }

    #[test]
    fn a_vector_that_falls_short_is_believed_of_what_is_not_on_its_way() {
        let a = log(1, "t");
        let mut peer = Peer::new(&[(a.clone(), 5)], &[]);
        peer.outgoing.page_out(&[run(&a, 5)], NOW);
        peer.outgoing.learn_all([].into_iter());
        assert_eq!(peer.to_send_at(0), []);
        peer.outgoing.acknowledged(ack(1, &[(Code::Taken, 5)]), NOW).unwrap();
        assert_eq!(peer.to_send_at(0), []);
        peer.outgoing.learn_all([].into_iter());
        assert_eq!(peer.to_send_at(0), [(a, 0)]);
    }

    #[test]
    fn an_acknowledgement_is_of_the_oldest_page_and_of_all_its_runs() {
        let (a, b) = (log(1, "t"), log(2, "t"));
        let mut peer = Peer::new(&[(a.clone(), 5), (b.clone(), 5)], &[]);
        peer.outgoing.page_out(&[run(&a, 5)], NOW);
        peer.outgoing.page_out(&[run(&b, 5)], NOW);
        let second = ack(2, &[(Code::Taken, 5)]);
        assert_eq!(peer.outgoing.acknowledged(second, NOW), Err(AckError::Order(2)));
        let short = ack(1, &[]);
        assert_eq!(peer.outgoing.acknowledged(short, NOW), Err(AckError::Length { expected: 1, found: 0 }));
    }

    #[test]
    fn refused_entries_are_offered_again_from_where_the_peer_says_once_their_time_has_come() {
        let (a, sibling, b) = (log(1, "s"), log(1, "t"), log(2, "t"));
        let ours = [(a.clone(), 5), (sibling.clone(), 5), (b.clone(), 5)];
        let (all, others) = (
            vec![(a.clone(), 3), (sibling.clone(), 0), (b.clone(), 0)],
            vec![(sibling.clone(), 0), (b.clone(), 0)],
        );
        let waits = [
            (Code::Gap, 0, all.clone()),
            (Code::Busy, BUSY_RETRY_MS, vec![(b.clone(), 0)]),
            (Code::ClockSkew, SKEW_RETRY_MS, vec![(b.clone(), 0)]),
            (Code::Bad, BAD_LOG_RETRY_MS, others),
        ];
        for (code, wait, meanwhile) in waits {
            let mut peer = Peer::new(&ours, &[]);
            peer.outgoing.page_out(&[run(&a, 5)], NOW);
            let refused = peer.outgoing.acknowledged(ack(1, &[(code, 3)]), NOW);
            assert_eq!(refused, Ok(vec![(a.clone(), code, "up to 3".to_owned())]));
            assert_eq!(peer.outgoing.held(), usize::from(wait > 0), "{code:?}");
            assert_eq!(peer.outgoing.next_wake(), (wait > 0).then(|| NOW.plus(wait)), "{code:?}");
            if wait > 0 {
                peer.outgoing.release(NOW.plus(wait - 1));
                assert_eq!(peer.to_send_at(wait - 1), meanwhile, "{code:?}");
            }
            assert_eq!(peer.to_send_at(wait), all, "{code:?}");
            assert_eq!(peer.outgoing.held(), usize::from(wait > 0), "nothing was forgotten yet");
            peer.outgoing.release(NOW.plus(wait));
            assert_eq!((peer.outgoing.held(), peer.to_send_at(wait)), (0, all.clone()), "{code:?}");
        }
    }

    #[test]
    fn what_was_refused_is_offered_again_though_nothing_else_has_changed() {
        for (code, wait) in [(Code::Busy, BUSY_RETRY_MS), (Code::ClockSkew, SKEW_RETRY_MS)] {
            let a = log(1, "t");
            let mut peer = Peer::new(&[(a.clone(), 5)], &[]);
            peer.outgoing.page_out(&[run(&a, 5)], NOW);
            assert_eq!(peer.to_send_at(0), [], "all of it is on its way");
            peer.outgoing.acknowledged(ack(1, &[(code, 3)]), NOW).unwrap();
            peer.outgoing.release(NOW.plus(wait));
            assert_eq!(peer.to_send_at(wait), [(a, 3)], "{code:?}");
        }
    }

    #[test]
    fn what_waits_goes_at_once_when_all_waits_are_over() {
        let (a, b, c) = (log(1, "t"), log(2, "t"), log(2, "s"));
        let mut peer = Peer::new(&[(a.clone(), 5), (b.clone(), 5), (c.clone(), 5)], &[]);
        peer.outgoing.hold([a.clone()], NOW);
        assert_eq!(peer.to_send_at(0), [(c.clone(), 0), (b.clone(), 0)]);
        peer.outgoing.hold_unit(&b, NOW);
        assert_eq!((peer.to_send_at(0), peer.outgoing.held()), (vec![], 2));
        assert_eq!(peer.outgoing.next_wake(), Some(NOW.plus(BAD_LOG_RETRY_MS)));
        assert_eq!(peer.to_send_at(BAD_LOG_RETRY_MS).len(), 3, "nobody has to say so");
        peer.outgoing.release_all();
        assert_eq!((peer.to_send_at(0), peer.outgoing.held()), (vec![(a, 0), (c, 0), (b, 0)], 0));
    }

    #[test]
    fn a_page_is_overdue_after_its_time_and_an_earlier_wait_wakes_earlier() {
        let (a, b) = (log(1, "t"), log(2, "t"));
        let mut peer = Peer::new(&[(a.clone(), 5), (b.clone(), 5)], &[]);
        assert!(!peer.outgoing.is_overdue(NOW.plus(ACK_MS)));
        assert_eq!(peer.outgoing.next_wake(), None);
        peer.outgoing.page_out(&[run(&a, 5)], NOW);
        assert!(!peer.outgoing.is_overdue(NOW.plus(ACK_MS - 1)));
        assert!(peer.outgoing.is_overdue(NOW.plus(ACK_MS)));
        assert_eq!(peer.outgoing.next_wake(), Some(NOW.plus(ACK_MS)));
        peer.outgoing.hold([b], NOW);
        assert_eq!(peer.outgoing.next_wake(), Some(NOW.plus(BAD_LOG_RETRY_MS)));
    }

    #[test]
    fn what_is_lacking_on_either_side_is_counted_anew_after_each_change() {
        let (a, b, c) = (log(1, "t"), log(2, "t"), log(3, "t"));
        let mut peer = Peer::new(&[(a.clone(), 5), (b.clone(), 1)], &[(a.clone(), 3)]);
        let shared = [Collection::new("t").unwrap()].into();
        let lacking =
            |peer: &Peer| (peer.outgoing.behind(&peer.logs), peer.outgoing.ahead(&peer.logs, &shared));
        assert_eq!(lacking(&peer), ((0, 3), 3));
        peer.outgoing.learn(c.clone(), Seq(7));
        assert_eq!(lacking(&peer), ((7, 10), 3));
        peer.outgoing.learn(c.clone(), Seq(6));
        assert_eq!(lacking(&peer), ((7, 10), 3), "what it holds it does not lose");
        peer.outgoing.learn_all([(b.clone(), head(4))].into_iter());
        assert_eq!(lacking(&peer), ((3, 4), 5));
        peer.logs = logs(&[(a, 5), (b, 1), (c, 1)]);
        peer.outgoing.learn(log(3, "t"), Seq(2));
        assert_eq!(lacking(&peer), ((4, 6), 5));
        assert_eq!(peer.outgoing.ahead(&peer.logs, &BTreeSet::new()), 0, "nothing is shared");
    }

    #[test]
    fn a_peer_that_has_everything_is_asked_again_only_after_a_change() {
        let (a, b) = (log(1, "t"), log(2, "t"));
        let mut peer = Peer::new(&[(a.clone(), 5)], &[(a.clone(), 5)]);
        assert_eq!(peer.to_send_at(0), []);
        peer.outgoing.learn_all([(a.clone(), head(4))].into_iter());
        assert_eq!(peer.to_send_at(0), [(a.clone(), 4)], "its vector is another one");
        peer.outgoing.page_out(&[run(&a, 5)], NOW);
        assert_eq!(peer.to_send_at(0), []);
        peer.outgoing.acknowledged(ack(1, &[(Code::Gap, 4)]), NOW).unwrap();
        assert_eq!(peer.to_send_at(0), [(a.clone(), 4)], "it refused what was on its way");
        peer.outgoing.learn(a.clone(), Seq(5));
        assert_eq!(peer.to_send_at(0), []);
        peer.logs = logs(&[(a, 5), (b.clone(), 1)]);
        assert_eq!(peer.to_send_at(0), [(b, 0)], "this node has more");
    }
}
