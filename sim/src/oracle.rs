//! What was really written, kept apart from everything that the nodes believe.

use std::collections::{BTreeMap, BTreeSet};

use entgldb_replica::clock::{Hlc, Stamp};
use entgldb_replica::id::{DocId, Incarnation, LogId, NodeId};
use entgldb_replica::resolve::Row;
use entgldb_replica::store::Guard;
use entgldb_replica::version::{Hash, Seq};

use crate::seen::Committed;

/// An entry as its author made it durable.
#[derive(Clone, Debug)]
pub(crate) struct Authored {
    pub(crate) hash: Hash,
    pub(crate) doc: DocId,
    pub(crate) row: Row,
}

/// A unit: whose, since which birth of the oplog, and when.
pub(crate) type UnitId = (NodeId, Incarnation, Hlc);

/// See the module's documentation.
#[derive(Debug, Default)]
pub(crate) struct Oracle {
    entries: BTreeMap<LogId, BTreeMap<Seq, Authored>>,
    units: BTreeMap<UnitId, usize>,
    /// Entries that were on one machine only when that was lost.
    perhaps_lost: BTreeSet<(LogId, Seq)>,
}

impl Oracle {
    pub(crate) fn authored(&self, log: &LogId, seq: Seq) -> Option<&Authored> {
        self.entries.get(log)?.get(&seq)
    }

    /// Entries in a unit.
    pub(crate) fn unit(&self, unit: &UnitId) -> Option<usize> {
        self.units.get(unit).copied()
    }

    pub(crate) fn is_perhaps_lost(&self, log: &LogId, seq: Seq) -> bool {
        self.perhaps_lost.contains(&(log.clone(), seq))
    }

    pub(crate) fn entries(&self) -> impl Iterator<Item = (&LogId, &BTreeMap<Seq, Authored>)> {
        self.entries.iter()
    }

    /// Notes a commit of local changes.
    pub(crate) fn note(&mut self, seen: &Committed) {
        if seen.commit.guard != Guard::None {
            return;
        }
        for run in &seen.commit.appended {
            let log = self.entries.entry(run.log.clone()).or_default();
            for linked in &run.entries {
                let entry = linked.entry();
                let stamp: Stamp = entry.stamp(run.log.author);
                let content = entry.content().map(|_| linked.payload_hash());
                let doc = (run.log.collection.clone(), entry.key.clone());
                let row = Row { stamp, content };
                log.insert(entry.seq, Authored { hash: linked.hash(), doc, row });
                let unit = (run.log.author, run.log.incarnation, entry.hlc);
                *self.units.entry(unit).or_default() += 1;
            }
        }
    }

    /// Entries are gone from one machine and were on no other. Those that may still be on their way are kept in mind;
    /// the positions of the others may be given out again.
    pub(crate) fn lose(&mut self, entries: Vec<(LogId, Seq)>, on_their_way: bool) {
        for (log, seq) in entries {
            if on_their_way {
                self.perhaps_lost.insert((log, seq));
                continue;
            }
            let gone = self.entries.get_mut(&log).and_then(|entries| entries.remove(&seq));
            if let Some(gone) = gone {
                self.units.remove(&(log.author, log.incarnation, gone.row.stamp.hlc));
            }
        }
    }
}
