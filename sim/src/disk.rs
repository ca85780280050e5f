//! What is durable on one simulated machine: oplog, rows and outbox of the engine, and the application's documents.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::hash::{DefaultHasher, Hash, Hasher};

use bytes::Bytes;
use entgldb_replica::clock::{Hlc, Stamp, WallMillis};
use entgldb_replica::entry::SignedHead;
use entgldb_replica::fingerprint::Tally;
use entgldb_replica::id::{Collection, DocId, Incarnation, LogId, NodeId, PublicKey};
use entgldb_replica::resolve::{Conflict, Row};
use entgldb_replica::store::{Commit, ConflictWrite, Problem, ProblemKind, RowWrite, Stored};
use entgldb_replica::version::{Head, Seq};

use crate::seen::Committed;

/// A note of a change that the application made.
#[derive(Clone, Debug)]
pub(crate) struct Outboxed {
    pub(crate) id: u64,
    /// Of the application; what it wrote at once stays in one unit.
    pub(crate) transaction: u64,
    pub(crate) doc: DocId,
    pub(crate) written: WallMillis,
    /// Whether it is none of the application's changes but an applied one that came back.
    pub(crate) echo: bool,
}

/// See the module's documentation.
#[derive(Clone, Debug, Default)]
pub(crate) struct Disk {
    pub(crate) owner: Option<(NodeId, Incarnation)>,
    pub(crate) clock: Hlc,
    /// Every entry that was ever here. What the engine has forgotten is kept for the checkers, and not given to it.
    pub(crate) log: BTreeMap<LogId, BTreeMap<Seq, Stored>>,
    /// What is forgotten, or stands for entries that never came: up to these heads.
    pub(crate) floors: BTreeMap<LogId, SignedHead>,
    /// The engine's notes for itself.
    pub(crate) notes: BTreeMap<String, Bytes>,
    pub(crate) signed: BTreeMap<LogId, BTreeMap<Seq, SignedHead>>,
    pub(crate) rows: BTreeMap<DocId, Row>,
    /// States of documents that merge.
    pub(crate) merged: BTreeMap<DocId, Bytes>,
    pub(crate) authors: Vec<PublicKey>,
    pub(crate) tallies: BTreeMap<Collection, Tally>,
    pub(crate) conflicts: BTreeMap<(DocId, Stamp, Stamp), Conflict>,
    /// Where the version of a document with a stamp is.
    pub(crate) versions: BTreeMap<(DocId, Stamp), (LogId, Seq)>,
    /// The application's documents.
    pub(crate) docs: BTreeMap<DocId, Bytes>,
    /// Documents that the application's schema would not take; `None` for a delete.
    pub(crate) aside: BTreeMap<DocId, Option<Bytes>>,
    pub(crate) outbox: VecDeque<Outboxed>,
    next_outbox: u64,
    /// A commit of a store in two parts that has begun: its entries are durable, the rest of it is not, or in part.
    pub(crate) pending: Option<Box<Committed>>,
    /// Greatest time of an entry held.
    pub(crate) latest: Hlc,
    /// Sum over the hashes of (log, head); kept apart from the engine's own fingerprints on purpose.
    pub(crate) vector_sum: u64,
    /// Sum over the hashes of (document, row).
    pub(crate) rows_sum: u64,
}

fn hash_of(value: &impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}

fn hash_row(doc: &DocId, row: &Row) -> u64 {
    hash_of(&(doc, row.stamp, row.content))
}

/// Whether strict schemas refuse a document.
pub(crate) fn is_poison(content: &Bytes) -> bool {
    content.first() == Some(&b'!')
}

impl Disk {
    pub(crate) fn head(&self, log: &LogId) -> (Head, Hlc) {
        let floor = self.floors.get(log).map(|signed| (signed.head, signed.hlc)).unwrap_or_default();
        let last = self.log.get(log).and_then(|entries| entries.last_key_value());
        let last = last.filter(|(seq, _)| **seq > floor.0.seq);
        last.map_or(floor, |(seq, last)| (Head { seq: *seq, hash: last.hash }, last.entry.hlc))
    }

    /// The last position of a log that is forgotten.
    pub(crate) fn floor(&self, log: &LogId) -> Seq {
        self.floors.get(log).map(|signed| signed.head.seq).unwrap_or_default()
    }

    /// All logs that anything is known of.
    pub(crate) fn logs(&self) -> BTreeSet<&LogId> {
        self.log.keys().chain(self.floors.keys()).collect()
    }

    /// Whether it has an entry, or a snapshot in its place.
    pub(crate) fn has(&self, log: &LogId, seq: Seq, hash: Option<entgldb_replica::version::Hash>) -> bool {
        match (self.hash_at(log, seq), hash) {
            (Some(found), Some(hash)) => found == hash,
            (Some(_), None) => true,
            (None, _) => seq <= self.floor(log),
        }
    }

    /// Whether rows are here that the vector does not stand for yet.
    pub(crate) fn is_ahead_of_vector(&self) -> bool {
        self.notes.contains_key("snapshot.debt")
    }

    /// The hash of an entry; `None` if it is not held.
    pub(crate) fn hash_at(&self, log: &LogId, seq: Seq) -> Option<entgldb_replica::version::Hash> {
        if let Some(stored) = self.log.get(log).and_then(|entries| entries.get(&seq)) {
            return Some(stored.hash);
        }
        self.signed.get(log)?.get(&seq).map(|signed| signed.head.hash)
    }

    /// The application changes a document, in a transaction of its own.
    pub(crate) fn write(
        &mut self,
        transaction: u64,
        doc: DocId,
        content: Option<Bytes>,
        written: WallMillis,
    ) {
        match content {
            Some(content) => drop(self.docs.insert(doc.clone(), content)),
            None => drop(self.docs.remove(&doc)),
        }
        self.note(transaction, doc, written, false);
    }

    /// Puts a change into the outbox.
    pub(crate) fn note(&mut self, transaction: u64, doc: DocId, written: WallMillis, echo: bool) {
        self.next_outbox += 1;
        self.outbox.push_back(Outboxed { id: self.next_outbox, transaction, doc, written, echo });
    }

    /// Carries out a commit whose guard holds.
    pub(crate) fn commit(&mut self, commit: &Commit, strict: bool) -> Vec<Problem> {
        self.append(commit);
        let writes = commit.rows.iter();
        let problems = writes.filter_map(|write| self.bring_in(write, strict)).collect();
        self.write_rows(commit);
        problems
    }

    /// First part of a commit: what belongs to the oplog.
    pub(crate) fn append(&mut self, commit: &Commit) {
        self.owner = Some(commit.owner);
        self.clock = commit.clock;
        self.authors.extend(&commit.authors);
        for run in &commit.appended {
            let before = self.head(&run.log).0;
            self.vector_sum = self.vector_sum.wrapping_sub(hash_of(&(&run.log, before)));
            let entries = self.log.entry(run.log.clone()).or_default();
            for linked in &run.entries {
                let entry = linked.entry();
                let doc = (run.log.collection.clone(), entry.key.clone());
                self.versions.insert((doc, entry.stamp(run.log.author)), (run.log.clone(), entry.seq));
                self.latest = self.latest.max(entry.hlc);
                entries.insert(entry.seq, Stored { entry: entry.clone(), hash: linked.hash() });
            }
            self.signed.entry(run.log.clone()).or_default().insert(run.signed.head.seq, run.signed.clone());
            let after = self.head(&run.log).0;
            self.vector_sum = self.vector_sum.wrapping_add(hash_of(&(&run.log, after)));
        }
    }

    /// Undoes [`Disk::append`]: the application's store has moved on, and nothing was told to anybody.
    pub(crate) fn take_back(&mut self, commit: &Commit, clock: Hlc, latest: Hlc, authors: usize) {
        (self.clock, self.latest) = (clock, latest);
        self.authors.truncate(authors);
        for run in &commit.appended {
            let after = self.head(&run.log).0;
            self.vector_sum = self.vector_sum.wrapping_sub(hash_of(&(&run.log, after)));
            let entries = self.log.entry(run.log.clone()).or_default();
            for linked in &run.entries {
                entries.remove(&linked.entry().seq);
                let doc = (run.log.collection.clone(), linked.entry().key.clone());
                self.versions.remove(&(doc, linked.entry().stamp(run.log.author)));
            }
            if entries.is_empty() {
                self.log.remove(&run.log);
            }
            if let Some(signed) = self.signed.get_mut(&run.log) {
                signed.remove(&run.signed.head.seq);
            }
            let before = self.head(&run.log).0;
            self.vector_sum = self.vector_sum.wrapping_add(hash_of(&(&run.log, before)));
        }
    }

    /// Last part of a commit: rows, conflicts, and the drained part of the outbox.
    pub(crate) fn write_rows(&mut self, commit: &Commit) {
        for write in &commit.rows {
            if let Some(before) = self.rows.insert(write.doc.clone(), write.row) {
                self.rows_sum = self.rows_sum.wrapping_sub(hash_row(&write.doc, &before));
            }
            self.rows_sum = self.rows_sum.wrapping_add(hash_row(&write.doc, &write.row));
            if let Some(state) = &write.merged {
                self.merged.insert(write.doc.clone(), state.clone());
            }
        }
        self.tallies.extend(commit.tallies.iter().cloned());
        for (log, signed) in &commit.adopted {
            let before = self.head(log).0;
            self.vector_sum = self.vector_sum.wrapping_sub(hash_of(&(log, before)));
            self.vector_sum = self.vector_sum.wrapping_add(hash_of(&(log, signed.head)));
            self.signed.entry(log.clone()).or_default().insert(signed.head.seq, signed.clone());
            self.floors.insert(log.clone(), signed.clone());
            self.latest = self.latest.max(signed.hlc);
        }
        self.clock = self.clock.max(commit.clock);
        for (log, floor) in &commit.floors {
            if let Some(signed) = self.signed.get(log).and_then(|signed| signed.get(floor)) {
                self.floors.insert(log.clone(), signed.clone());
            }
        }
        for (name, note) in &commit.notes {
            match note {
                Some(note) => drop(self.notes.insert(name.clone(), note.clone())),
                None => drop(self.notes.remove(name)),
            }
        }
        for write in &commit.conflicts {
            match write {
                ConflictWrite::Put(conflict) => {
                    let key = (conflict.doc.clone(), conflict.winner.stamp, conflict.loser.stamp);
                    self.conflicts.insert(key, conflict.clone());
                }
                ConflictWrite::Remove { doc, winner, loser } => {
                    self.conflicts.remove(&(doc.clone(), *winner, *loser));
                }
            }
        }
        if let Some(mark) = commit.drained {
            self.outbox.retain(|item| item.id > mark.0);
        }
    }

    /// Middle part of a commit: brings one remote document into the application's store. Doing it again changes nothing.
    pub(crate) fn bring_in(&mut self, write: &RowWrite, strict: bool) -> Option<Problem> {
        self.aside.remove(&write.doc);
        match &write.apply {
            Some(Some(content)) if strict && is_poison(content) => {
                self.aside.insert(write.doc.clone(), Some(content.clone()));
                return Some(problem(&write.doc, ProblemKind::SetAside));
            }
            Some(Some(content)) => drop(self.docs.insert(write.doc.clone(), content.clone())),
            Some(None) => drop(self.docs.remove(&write.doc)),
            None => {}
        }
        None
    }

    /// Tries again what was set aside, except where the application has changed something since.
    pub(crate) fn retry_aside(&mut self) -> Vec<Problem> {
        let mut problems = Vec::new();
        for (doc, content) in std::mem::take(&mut self.aside) {
            if self.outbox.iter().any(|item| item.doc == doc) {
                self.aside.insert(doc, content);
                continue;
            }
            problems.push(problem(&doc, ProblemKind::CameBack));
            match content {
                Some(content) => drop(self.docs.insert(doc, content)),
                None => drop(self.docs.remove(&doc)),
            }
        }
        problems
    }

    /// Puts another row in the place of one, as a fault would.
    pub(crate) fn corrupt_row(&mut self, doc: &DocId, row: Row) {
        if let Some(before) = self.rows.insert(doc.clone(), row) {
            self.rows_sum = self.rows_sum.wrapping_sub(hash_row(doc, &before));
        }
        self.rows_sum = self.rows_sum.wrapping_add(hash_row(doc, &row));
    }

    /// The entries that it holds.
    pub(crate) fn entries(&self) -> usize {
        self.log.values().map(BTreeMap::len).sum()
    }
}

fn problem(doc: &DocId, kind: ProblemKind) -> Problem {
    Problem {
        collection: doc.0.clone(),
        key: doc.1.as_str().to_owned(),
        kind,
        message: "the simulated schema".to_owned(),
    }
}
