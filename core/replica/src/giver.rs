//! A peer as a giver of snapshots: what it has forgotten, what rows it has, and when it is to be asked for some.
//!
//! A snapshot is asked for in three cases. The peer has forgotten what this node lacks. What this node lacks is so much more
//! than the peer has rows that the rows are the shorter way. Or neither can give the other more history, and yet the rows
//! differ: then each joins the other's, and both have the same ([`Purpose::Repair`]).
//!
//! Rows differ in that way after entries were lost with the only machine that had them while rows of them had got away in a
//! snapshot, and where a log has forked, so that each side refuses the other's branch.

use std::collections::{BTreeMap, BTreeSet};

use crate::clock::Mono;
use crate::id::{Collection, LogId};
use crate::limits::Limits;
use crate::oplog::Logs;
use crate::snapshot::Purpose;
use crate::version::{Head, Seq};
use crate::wire::RowsHeld;

/// Wait before a snapshot of a collection is asked again of the same peer.
const AGAIN_MS: u64 = 5_000;
/// How often that wait is doubled at most.
const AGAIN_DOUBLED: u32 = 6;
/// After so many snapshots of a collection from one peer the rows should be equal.
const ENOUGH: u32 = 4;

/// See the module's documentation.
#[derive(Debug, Default)]
pub(crate) struct Giver {
    floors: BTreeMap<LogId, Seq>,
    rows: BTreeMap<Collection, RowsHeld>,
    /// Logs of which it has another branch.
    forked: BTreeSet<LogId>,
    /// Collections that are to be repaired.
    unequal: BTreeSet<Collection>,
    /// Until when it is not asked for these, and how often it has been.
    asked: BTreeMap<Collection, (Mono, u32)>,
    /// Whether it has yet to answer a question for a piece of a snapshot, and to be answered one.
    pub(crate) owes: bool,
    pub(crate) is_owed: bool,
    /// Bytes that it brought in a second when a snapshot was last taken from it.
    pub(crate) pace: Option<u64>,
}

impl Giver {
    /// Takes in what the peer says of itself beside its heads.
    pub(crate) fn learn(&mut self, floors: Vec<(LogId, Seq)>, rows: Vec<(Collection, RowsHeld)>) {
        self.floors = floors.into_iter().collect();
        self.rows = rows.into_iter().collect();
    }

    /// The peer has another branch of a log.
    pub(crate) fn forked(&mut self, log: LogId) {
        self.forked.insert(log);
    }

    /// Finds the shared collections to repair, now that the peer's whole vector is known. `is_held` tells of a log that the
    /// peer has refused.
    pub(crate) fn compare(
        &mut self,
        logs: &Logs,
        shared: &BTreeSet<Collection>,
        heads: &[(LogId, Head)],
        is_held: impl Fn(&LogId) -> bool,
    ) {
        let differs = |(collection, held): &(&Collection, &RowsHeld)| {
            let ours = logs.tally(collection).fingerprint;
            shared.contains(*collection) && held.fingerprint.is_some_and(|theirs| theirs != ours)
        };
        let unequal = self.rows.iter().filter(differs).map(|(collection, _)| collection.clone());
        self.unequal = unequal.collect();
        for (_, (_, times)) in self.asked.iter_mut().filter(|(name, _)| !self.unequal.contains(*name)) {
            // It was of use. In a log that has forked, what its author writes next may come this way again.
            *times = (*times).min(1);
        }
        if self.unequal.is_empty() {
            return;
        }
        let theirs: BTreeMap<&LogId, Seq> = heads.iter().map(|(log, head)| (log, head.seq)).collect();
        let comes = |(log, seq): (&&LogId, &Seq)| {
            let more = *seq > logs.vector().head(log).seq && !self.forked.contains(*log);
            more.then(|| log.collection.clone())
        };
        let goes = |(log, head): (&LogId, &Head)| {
            let more = head.seq > theirs.get(log).copied().unwrap_or_default() && !is_held(log);
            more.then(|| log.collection.clone())
        };
        let coming = theirs.iter().filter_map(comes);
        let history: BTreeSet<Collection> = coming.chain(logs.vector().iter().filter_map(goes)).collect();
        self.unequal.retain(|collection| !history.contains(collection));
    }

    /// Nothing is to be repaired, or it has been tried often enough.
    pub(crate) fn is_equal(&self) -> bool {
        let times = |collection| self.asked.get(collection).map_or(0, |(_, times)| *times);
        self.unequal.iter().all(|collection| times(collection) >= ENOUGH)
    }

    /// Rows are equal, or can't be compared now.
    pub(crate) fn set_equal(&mut self) {
        self.unequal.clear();
    }

    /// Whether rows have been joined so often that they should be equal.
    pub(crate) fn has_given_enough(&self) -> bool {
        self.asked.values().any(|(_, times)| *times == ENOUGH)
    }

    /// The peer could not give a snapshot, or has given one. It is not asked again for a while, each time a longer one: what
    /// it says of itself may not be true.
    pub(crate) fn was_asked(&mut self, collection: Collection, now: Mono) {
        self.unequal.remove(&collection);
        let (until, times) = self.asked.entry(collection).or_insert((now, 0));
        *until = now.plus(AGAIN_MS << (*times).min(AGAIN_DOUBLED));
        *times += 1;
    }

    /// Whether it may be asked for a snapshot of a collection now.
    pub(crate) fn may_be_asked(&self, collection: &Collection, now: Mono) -> bool {
        !self.owes && self.asked.get(collection).is_none_or(|(until, _)| now >= *until)
    }

    /// A collection of which a snapshot is to be asked for, and why. `theirs` is what the peer holds.
    pub(crate) fn wanted(
        &self,
        theirs: &BTreeMap<LogId, Seq>,
        logs: &Logs,
        limits: &Limits,
        now: Mono,
    ) -> Option<(Collection, Purpose)> {
        let history = self.wanted_instead_of_history(theirs, logs, limits, now);
        let repair = || self.unequal.iter().find(|collection| self.may_be_asked(collection, now)).cloned();
        let history = history.map(|collection| (collection, Purpose::History));
        history.or_else(|| repair().map(|collection| (collection, Purpose::Repair)))
    }

    fn wanted_instead_of_history(
        &self,
        theirs: &BTreeMap<LogId, Seq>,
        logs: &Logs,
        limits: &Limits,
        now: Mono,
    ) -> Option<Collection> {
        let mut missing: BTreeMap<&Collection, u64> = BTreeMap::new();
        for (log, theirs) in theirs {
            let ours = logs.vector().head(log).seq;
            if *theirs <= ours || !self.may_be_asked(&log.collection, now) {
                continue;
            }
            if self.floors.get(log).is_some_and(|floor| *floor > ours) {
                return Some(log.collection.clone());
            }
            let missing = missing.entry(&log.collection).or_default();
            *missing = missing.saturating_add(theirs.0 - ours.0);
        }
        let is_longer = |(collection, missing): &(&Collection, u64)| {
            let rows = self.rows.get(*collection).map_or(u64::MAX, |held| held.count);
            *missing >= limits.snapshot_entries && *missing / 2 > rows
        };
        missing.into_iter().find(is_longer).map(|(collection, _)| collection.clone())
    }

    /// The more, the rather it is asked: the fastest as far as is known, and who is not known first.
    pub(crate) fn rank(&self) -> u64 {
        self.pace.unwrap_or(u64::MAX)
    }

    /// Rows that it said it has of a collection.
    pub(crate) fn rows_of(&self, collection: &Collection) -> u64 {
        self.rows.get(collection).map_or(0, |held| held.count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Hlc;
    use crate::fingerprint::Fingerprint;
    use crate::id::{Incarnation, NodeId};
    use crate::store::Durable;
    use crate::version::Hash;

    const NOW: Mono = Mono(1_000);

    fn name() -> Collection {
        Collection::new("t").unwrap()
    }

    fn log(author: u8) -> LogId {
        LogId { author: NodeId([author; 32]), incarnation: Incarnation(1), collection: name() }
    }

    fn head(seq: u64) -> Head {
        Head { seq: Seq(seq), hash: Hash([1; 32]) }
    }

    fn holding(held: &[(u8, u64)]) -> Logs {
        let heads = held.iter().map(|(author, seq)| (log(*author), head(*seq), Hlc(1)));
        Logs::from_durable(&Durable { heads: heads.collect(), ..Durable::default() })
    }

    /// What is wanted of a peer that has so many rows, other ones than are here.
    fn wanted(
        giver: &mut Giver,
        ours: &[(u8, u64)],
        theirs: &[(u8, u64)],
        held: &[u8],
        ms: u64,
    ) -> Option<Purpose> {
        let (logs, shared) = (holding(ours), BTreeSet::from([name()]));
        let heads: Vec<(LogId, Head)> =
            theirs.iter().map(|(author, seq)| (log(*author), head(*seq))).collect();
        giver.compare(&logs, &shared, &heads, |log| held.contains(&log.author.0[0]));
        let theirs = heads.into_iter().map(|(log, head)| (log, head.seq)).collect();
        giver.wanted(&theirs, &logs, &Limits::default(), NOW.plus(ms)).map(|(_, purpose)| purpose)
    }

    fn other_rows() -> RowsHeld {
        RowsHeld { count: 3, fingerprint: Some(Fingerprint::from_bytes([7; 32])) }
    }

    #[test]
    fn rows_are_joined_where_they_differ_and_no_more_history_comes_or_goes() {
        let mut giver = Giver::default();
        giver.learn(vec![], vec![(name(), other_rows())]);
        assert_eq!(wanted(&mut giver, &[(1, 5)], &[(1, 5)], &[], 0), Some(Purpose::Repair));
        assert_eq!(wanted(&mut giver, &[(1, 5)], &[(1, 6)], &[], 0), None, "history comes");
        assert_eq!(wanted(&mut giver, &[(1, 6), (2, 1)], &[(1, 6)], &[], 0), None, "history goes");
        assert_eq!(wanted(&mut giver, &[(1, 6), (2, 1)], &[(1, 6)], &[2], 0), Some(Purpose::Repair));
        giver.forked(log(1));
        assert_eq!(wanted(&mut giver, &[(1, 5)], &[(1, 6)], &[], 0), Some(Purpose::Repair), "another branch");
        giver.learn(vec![], vec![(name(), RowsHeld { fingerprint: None, ..other_rows() })]);
        assert_eq!(wanted(&mut giver, &[(1, 5)], &[(1, 5)], &[], 0), None, "it is taking a snapshot itself");
        giver.learn(vec![], vec![(name(), RowsHeld { count: 0, fingerprint: Some(Fingerprint::default()) })]);
        assert_eq!(wanted(&mut giver, &[(1, 5)], &[(1, 5)], &[], 0), None, "the same rows: none");
    }

    #[test]
    fn a_peer_is_asked_again_after_a_wait_that_doubles() {
        let mut giver = Giver::default();
        giver.learn(vec![(log(1), Seq(9))], vec![(name(), other_rows())]);
        let mut asked_at = |ms: u64| wanted(&mut giver, &[(1, 5)], &[(1, 9)], &[], ms);
        assert_eq!(asked_at(0), Some(Purpose::History), "what is missing is forgotten there");
        let mut until = 0;
        for times in 0..9 {
            giver.was_asked(name(), NOW.plus(until));
            until += AGAIN_MS << times.min(AGAIN_DOUBLED);
            let mut asked_at = |ms: u64| wanted(&mut giver, &[(1, 5)], &[(1, 9)], &[], ms);
            assert_eq!((asked_at(until - 1), asked_at(until)), (None, Some(Purpose::History)), "{times}");
            assert_eq!(giver.has_given_enough(), times + 1 == ENOUGH, "{times}");
        }
    }
}
