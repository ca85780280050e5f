//! What was really written, kept apart from everything that the nodes believe.

use std::collections::{BTreeMap, BTreeSet};

use entgldb_replica::clock::{Hlc, Stamp};
use entgldb_replica::entry::{Entry, Op};
use entgldb_replica::id::{DocId, Incarnation, LogId, NodeId};
use entgldb_replica::merge::Merged;
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
    /// What it says of a document that merges.
    pub(crate) said: Merged,
}

/// A unit: whose, since which birth of the oplog, and when.
pub(crate) type UnitId = (NodeId, Incarnation, Hlc);

fn said(entry: &Entry, stamp: Stamp) -> Merged {
    match entry.op {
        Op::Put => Merged::replaced(stamp, Some(&entry.payload)),
        Op::Delete => Merged::replaced(stamp, None),
        // A member that lies may write what nobody can read.
        Op::Edit => Merged::decode_edit(entry.payload.clone(), stamp).unwrap_or_default(),
    }
}

/// See the module's documentation.
#[derive(Debug, Default)]
pub(crate) struct Oracle {
    /// Of each position what was written there: one entry, or one for each branch of a log that forked.
    entries: BTreeMap<LogId, BTreeMap<Seq, Vec<Authored>>>,
    units: BTreeMap<UnitId, usize>,
    /// Entries that were on one machine only when that was lost.
    perhaps_lost: BTreeSet<(LogId, Seq)>,
    /// Births of oplogs whose logs a fault may have made fork.
    may_fork: BTreeSet<(NodeId, Incarnation)>,
    /// Members that sign whatever they like.
    forkers: BTreeSet<NodeId>,
    /// Logs that a clone wrote in.
    passing: BTreeSet<LogId>,
    /// Logs that did fork, with the first position at which branches differ.
    forked: BTreeMap<LogId, Seq>,
    /// Of each document the versions by their stamps.
    versions: BTreeMap<(DocId, Stamp), Hash>,
    /// Whether one stamp was given to two versions of a document.
    has_twins: bool,
}

impl Oracle {
    /// What was written at a position, with this hash.
    pub(crate) fn authored(&self, log: &LogId, seq: Seq, hash: Hash) -> Option<&Authored> {
        self.entries.get(log)?.get(&seq)?.iter().find(|authored| authored.hash == hash)
    }

    /// Whether anything was written at a position.
    pub(crate) fn is_authored(&self, log: &LogId, seq: Seq) -> bool {
        self.entries.get(log).is_some_and(|entries| entries.contains_key(&seq))
    }

    /// From now on the logs of this birth of an oplog may fork: it has lost what others may have, or runs twice.
    pub(crate) fn let_fork(&mut self, owner: (NodeId, Incarnation)) {
        self.may_fork.insert(owner);
    }

    /// This member's logs may fork in any way.
    pub(crate) fn let_sign_anything(&mut self, member: NodeId) {
        self.forkers.insert(member);
    }

    pub(crate) fn may_fork(&self, log: &LogId) -> bool {
        self.is_doubtful(log.author, log.incarnation)
    }

    /// Whether the member itself makes up the entries of this log.
    pub(crate) fn is_made_up(&self, log: &LogId) -> bool {
        self.forkers.contains(&log.author)
    }

    /// Notes that a clone wrote in these logs: whom that reached before the clone was switched off is chance.
    pub(crate) fn note_passing(&mut self, seen: &Committed) {
        if seen.commit.guard == Guard::None {
            self.passing.extend(seen.commit.appended.iter().map(|run| run.log.clone()));
        }
    }

    /// Whether a clone wrote in a log.
    pub(crate) fn is_passing(&self, log: &LogId) -> bool {
        self.passing.contains(log)
    }

    /// Where a log forked, if it did.
    pub(crate) fn fork_of(&self, log: &LogId) -> Option<Seq> {
        self.forked.get(log).copied()
    }

    /// All logs that forked.
    pub(crate) fn forked(&self) -> impl Iterator<Item = (&LogId, &Seq)> {
        self.forked.iter()
    }

    /// Whether what this birth of an oplog wrote may be in two branches.
    pub(crate) fn is_doubtful(&self, author: NodeId, incarnation: Incarnation) -> bool {
        self.may_fork.contains(&(author, incarnation)) || self.forkers.contains(&author)
    }

    /// Entries in a unit.
    pub(crate) fn unit(&self, unit: &UnitId) -> Option<usize> {
        self.units.get(unit).copied()
    }

    /// Whether one stamp was given to two versions of a document: by a machine and its copy, after their clock was set back.
    pub(crate) fn has_twins(&self) -> bool {
        self.has_twins
    }

    pub(crate) fn has_lost(&self) -> bool {
        !self.perhaps_lost.is_empty()
    }

    pub(crate) fn is_perhaps_lost(&self, log: &LogId, seq: Seq) -> bool {
        self.perhaps_lost.contains(&(log.clone(), seq))
    }

    pub(crate) fn entries(&self) -> impl Iterator<Item = (&LogId, &BTreeMap<Seq, Vec<Authored>>)> {
        self.entries.iter()
    }

    /// Notes a commit of local changes, or of what a member made up.
    pub(crate) fn note(&mut self, seen: &Committed) {
        let local = seen.commit.guard == Guard::None;
        for run in &seen.commit.appended {
            if !local && !self.is_made_up(&run.log) {
                continue;
            }
            let log = self.entries.entry(run.log.clone()).or_default();
            for linked in &run.entries {
                let entry = linked.entry();
                let stamp: Stamp = entry.stamp(run.log.author);
                let content = entry.content().map(|_| linked.payload_hash());
                let doc = (run.log.collection.clone(), entry.key.clone());
                let row = Row { stamp, content };
                let branches = log.entry(entry.seq).or_default();
                if branches.iter().any(|authored| authored.hash == linked.hash()) {
                    continue;
                }
                let payload = linked.payload_hash();
                let first = *self.versions.entry((doc.clone(), stamp)).or_insert(payload);
                self.has_twins |= first != payload;
                branches.push(Authored { hash: linked.hash(), doc, row, said: said(entry, stamp) });
                if branches.len() > 1 {
                    let first = self.forked.entry(run.log.clone()).or_insert(entry.seq);
                    *first = entry.seq.min(*first);
                }
                let unit = (run.log.author, run.log.incarnation, entry.hlc);
                *self.units.entry(unit).or_default() += 1;
            }
        }
    }

    /// Entries are gone from one machine, and nobody else who counts has them. They may still be on their way.
    pub(crate) fn lose(&mut self, entries: Vec<(LogId, Seq)>) {
        self.perhaps_lost.extend(entries);
    }
}
