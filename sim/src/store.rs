//! A simulated store: a durable disk, and every way in which a store can fail while it keeps its contract.
//!
//! There are two kinds behind the one trait. In the first, one transaction holds oplog, rows, documents and outbox, as in
//! the built-in SQLite store. The second is in two parts, as a store with hooks is: a commit makes the oplog durable first,
//! with the whole commit as a note of what is to follow; then it brings the documents into the application's store, one by one;
//! then it writes the rows and removes the note. A process may end between any two of these steps. What the note says is done
//! again when the store is opened, so nobody above sees half a commit: the trait needs nothing for it.

use std::cell::{Ref, RefCell, RefMut};
use std::collections::BTreeMap;
use std::rc::Rc;

use bytes::Bytes;
use entgldb_replica::clock::{Hlc, Stamp, WallMillis};
use entgldb_replica::entry::SignedHead;
use entgldb_replica::id::{Collection, DocId, Key, LogId};
use entgldb_replica::member::members;
use entgldb_replica::resolve::{Row, Version};
use entgldb_replica::store::{
    Commit, Committed, Drain, Durable, Guard, Problem, ReadLimits, Scan, ScanLimits, Store, Stored,
    UnitLimits,
};
use entgldb_replica::version::{Hash, Seq};

use crate::application::Application;
use crate::disk::Disk;
use crate::mutation::Mutation;
use crate::options::{Fault, Options};
use crate::rng::Rng;
use crate::seen::{self, Seen};

/// The simulated machine's disk did not do what it was asked for, or did not say that it did.
#[derive(Debug, thiserror::Error)]
#[error("the simulated disk failed: {0}")]
pub(crate) struct DiskFailed(pub(crate) &'static str);

/// What a store is made of. It outlives the processes that use it.
#[derive(Debug)]
pub(crate) struct Inner {
    pub(crate) disk: Disk,
    /// What a power cut would leave, if that is less.
    pub(crate) synced: Option<Box<Disk>>,
    pub(crate) application: Application,
    /// Whether the application's schema refuses poison.
    pub(crate) strict: bool,
    /// Whether faults happen.
    pub(crate) armed: bool,
    /// Whether there is no room on the disk.
    pub(crate) full: bool,
    /// Whether the application holds still.
    pub(crate) paused: bool,
    /// What the node's wall clock shows.
    pub(crate) wall: WallMillis,
    /// What happened since the world last asked.
    pub(crate) seen: Vec<Seen>,
    /// How often each fault happened since the world last asked.
    pub(crate) happened: BTreeMap<Fault, u64>,
    pub(crate) options: Rc<Options>,
    rng: Rng,
    pub(crate) looked: Option<Drain>,
    /// Whether the engine is about to commit what it saw in the outbox.
    pub(crate) capturing: bool,
}

/// A handle on a store; the world keeps one and gives one to the replica.
#[derive(Clone, Debug)]
pub(crate) struct SimStore(Rc<RefCell<Inner>>);

impl SimStore {
    pub(crate) fn new(options: Rc<Options>, application: Application, node: usize) -> Self {
        let rng = Rng::of(options.seed, "store", node as u64);
        Self(Rc::new(RefCell::new(Inner {
            disk: Disk::default(),
            synced: None,
            application,
            strict: false,
            armed: true,
            full: false,
            paused: false,
            wall: WallMillis(0),
            seen: Vec::new(),
            happened: BTreeMap::new(),
            options,
            rng,
            looked: None,
            capturing: false,
        })))
    }

    pub(crate) fn disk(&self) -> Ref<'_, Disk> {
        Ref::map(self.0.borrow(), |inner| &inner.disk)
    }

    pub(crate) fn inner(&self) -> RefMut<'_, Inner> {
        self.0.borrow_mut()
    }
}

impl Inner {
    pub(crate) fn strikes(&mut self, fault: Fault) -> bool {
        let strikes = self.armed && self.rng.chance(self.options.chance(fault));
        if strikes {
            *self.happened.entry(fault).or_default() += 1;
        }
        strikes
    }

    pub(crate) fn read(&mut self) -> Result<(), DiskFailed> {
        if self.strikes(Fault::ReadFails) { Err(DiskFailed("a read failed")) } else { Ok(()) }
    }

    pub(crate) fn is_mutated(&self, mutation: Mutation) -> bool {
        self.options.mutation == mutation && self.armed
    }

    /// The application writes where it is least welcome. Bounded: what one node writes makes all others commit, and so on.
    pub(crate) fn ambush(&mut self) {
        let most = self.options.load.transactions_max.saturating_mul(2);
        if self.application.transactions() < most && self.strikes(Fault::Ambush) {
            self.transact();
        }
    }

    /// One transaction of the application.
    pub(crate) fn transact(&mut self) {
        if self.paused || self.full {
            return;
        }
        let transaction = self.application.transaction(&self.disk);
        if transaction.is_empty() {
            return;
        }
        let number = self.application.transactions();
        let docs = transaction.iter().map(|(doc, _)| doc.clone()).collect();
        for (doc, content) in transaction {
            self.disk.write(number, doc, content, self.wall);
        }
        self.seen.push(Seen::Written(docs));
    }

    /// A power cut: what was not synced is gone. `false` if nothing was lost.
    pub(crate) fn lose_unsynced(&mut self) -> bool {
        let Some(synced) = self.synced.take() else { return false };
        let lost = synced.entries() < self.disk.entries();
        if lost {
            self.disk = *synced;
            // What the store does that ships: after such an end it can't say whose positions were given out.
            self.disk.owner = None;
        }
        lost
    }

    fn observe(&mut self, commit: &Commit) -> seen::Committed {
        let disk = &self.disk;
        let drained = commit.drained.map_or(0, |mark| mark.0);
        let is_uncaptured =
            |doc: &DocId| disk.outbox.iter().any(|item| item.doc == *doc && !item.echo && item.id > drained);
        let applied = commit.rows.iter().filter(|write| write.apply.is_some());
        let again = disk.outbox.iter().filter(|item| commit.drained.is_some() && item.id > drained);
        seen::Committed {
            commit: commit.clone(),
            drain: commit.drained.and_then(|_| self.looked.clone()),
            drain_rows: self.drain_rows(),
            noted_again: again.map(|item| item.doc.clone()).collect(),
            drained: disk.outbox.iter().filter(|item| item.id <= drained).cloned().collect(),
            uncaptured: applied.map(|write| write.doc.clone()).filter(|doc| is_uncaptured(doc)).collect(),
            rows_before: commit.rows.iter().map(|write| disk.rows.get(&write.doc).copied()).collect(),
            floor_times: commit
                .floors
                .iter()
                .filter_map(|(log, seq)| Some((log.clone(), disk.log.get(log)?.get(seq)?.entry.hlc)))
                .collect(),
            heads_before: commit.appended.iter().map(|run| disk.head(&run.log)).collect(),
            clock_before: disk.clock,
            latest_before: disk.latest,
            vector_sum: 0,
            rows_sum: 0,
            is_ahead: false,
            was_ahead: disk.is_ahead_of_vector(),
            wall: self.wall,
        }
    }

    fn drain_rows(&self) -> Vec<Option<Row>> {
        let changes = self.looked.iter().flat_map(|drain| &drain.changes);
        changes.map(|change| self.disk.rows.get(&change.doc).copied()).collect()
    }

    fn guard_holds(&self, commit: &Commit) -> bool {
        let outbox = &self.disk.outbox;
        match commit.guard {
            Guard::None => true,
            _ if self.is_mutated(Mutation::GuardIgnored) => true,
            Guard::OutboxEmpty => outbox.is_empty(),
            Guard::OutboxDisjoint => {
                commit.rows.iter().all(|write| outbox.iter().all(|item| item.doc != write.doc))
            }
        }
    }

    fn commit(&mut self, commit: &Commit) -> Result<Committed, DiskFailed> {
        self.capturing = false;
        self.ambush();
        self.room()?;
        if self.strikes(Fault::CommitFails) {
            return Err(DiskFailed("a commit failed"));
        }
        if !self.guard_holds(commit) {
            return Ok(Committed::OutboxMoved);
        }
        if self.is_mutated(Mutation::CommitLost) && !commit.appended.is_empty() {
            return Ok(Committed::Done(Vec::new()));
        }
        let mut seen = self.observe(commit);
        let strict = self.strict && self.armed;
        let problems = if self.options.split_stores {
            match self.commit_in_parts(commit, &seen, strict)? {
                Some(problems) => problems,
                None => return Ok(Committed::OutboxMoved),
            }
        } else {
            self.disk.commit(commit, strict)
        };
        if !problems.is_empty() {
            *self.happened.entry(Fault::Poison).or_default() += problems.len() as u64;
        }
        self.spoil(commit);
        self.echo(commit);
        (seen.vector_sum, seen.rows_sum) = (self.disk.vector_sum, self.disk.rows_sum);
        seen.is_ahead = self.disk.is_ahead_of_vector();
        self.seen.push(Seen::Committed(Box::new(seen)));
        if self.strikes(Fault::OutcomeUnknown) {
            return Err(DiskFailed("the outcome of a commit is not known"));
        }
        Ok(Committed::Done(problems))
    }

    /// A commit of a store in two parts; `None` if the application wrote after the first of them.
    fn commit_in_parts(
        &mut self,
        commit: &Commit,
        seen: &seen::Committed,
        strict: bool,
    ) -> Result<Option<Vec<Problem>>, DiskFailed> {
        let authors = self.disk.authors.len();
        self.disk.append(commit);
        self.disk.pending = Some(Box::new(seen.clone()));
        self.crash_point("after the oplog")?;
        self.ambush();
        if !self.guard_holds(commit) {
            self.disk.take_back(commit, seen.clock_before, seen.latest_before, authors);
            self.disk.pending = None;
            return Ok(None);
        }
        let mut problems = Vec::new();
        for write in &commit.rows {
            problems.extend(self.disk.bring_in(write, strict));
            self.crash_point("between documents")?;
        }
        self.disk.write_rows(commit);
        self.disk.pending = None;
        Ok(Some(problems))
    }

    fn crash_point(&mut self, place: &'static str) -> Result<(), DiskFailed> {
        if self.strikes(Fault::CrashInCommit) { Err(DiskFailed(place)) } else { Ok(()) }
    }

    /// Does again what a commit had begun. What the application has written meanwhile stays, and is captured after.
    pub(crate) fn redo(&mut self) {
        let Some(mut seen) = self.disk.pending.take() else { return };
        if self.is_mutated(Mutation::RedoForgotten) {
            return;
        }
        let strict = self.strict && self.armed;
        for write in &seen.commit.rows {
            let drained = seen.commit.drained.map_or(0, |mark| mark.0);
            let is_newer = self.disk.outbox.iter().any(|item| item.id > drained && item.doc == write.doc);
            if !(is_newer && write.apply.is_some()) {
                self.disk.bring_in(write, strict);
            }
        }
        self.disk.write_rows(&seen.commit);
        (seen.vector_sum, seen.rows_sum) = (self.disk.vector_sum, self.disk.rows_sum);
        seen.is_ahead = self.disk.is_ahead_of_vector();
        self.seen.push(Seen::Committed(seen));
    }

    fn room(&self) -> Result<(), DiskFailed> {
        if self.full { Err(DiskFailed("there is no room")) } else { Ok(()) }
    }

    /// Reports applied documents back, as a store with simple-minded triggers would.
    fn echo(&mut self, commit: &Commit) {
        let altered = self.is_mutated(Mutation::EchoAltered);
        // Documents about members are the engine's own: no store of an application's has them.
        for write in commit.rows.iter().filter(|write| write.doc.0 != *members()) {
            let is_aside = self.disk.aside.contains_key(&write.doc);
            if write.apply.is_none() || is_aside || !(altered || self.strikes(Fault::Echo)) {
                continue;
            }
            if altered && let Some(content) = self.disk.docs.get_mut(&write.doc) {
                *content = [content.as_ref(), b" "].concat().into();
            }
            let transaction = self.application.next_transaction();
            self.disk.note(transaction, write.doc.clone(), self.wall, true);
        }
    }

    /// Breaks what a mutation says must be broken.
    fn spoil(&mut self, commit: &Commit) {
        if self.is_mutated(Mutation::RowAltered)
            && let Some(write) = commit.rows.iter().find(|write| write.apply.is_some())
        {
            let row = Row { content: Some(Hash([7; 32])), ..write.row };
            self.disk.corrupt_row(&write.doc, row);
        }
    }
}

impl Store for SimStore {
    type Error = DiskFailed;

    fn load(&mut self) -> Result<Durable, DiskFailed> {
        self.inner().load()
    }

    fn captured(&mut self, limits: &UnitLimits) -> Result<Drain, DiskFailed> {
        self.inner().captured(limits)
    }

    fn rows(&mut self, docs: &[DocId]) -> Result<Vec<Option<Row>>, DiskFailed> {
        self.inner().rows(docs)
    }

    fn merged(&mut self, docs: &[DocId]) -> Result<Vec<Option<Bytes>>, DiskFailed> {
        let mut inner = self.inner();
        inner.read()?;
        let forgotten = inner.is_mutated(Mutation::StatesForgotten);
        let state = |doc: &DocId| inner.disk.merged.get(doc).filter(|_| !forgotten).cloned();
        Ok(docs.iter().map(state).collect())
    }

    fn version(&mut self, doc: &DocId, stamp: &Stamp) -> Result<Option<Version>, DiskFailed> {
        self.inner().version(doc, stamp)
    }

    fn read_log(&mut self, log: &LogId, after: Seq, limits: &ReadLimits) -> Result<Vec<Stored>, DiskFailed> {
        self.inner().read_log(log, after, limits)
    }

    fn last_at(&mut self, log: &LogId, hlc: Hlc) -> Result<Seq, DiskFailed> {
        let mut inner = self.inner();
        inner.read()?;
        let floor = inner.disk.floor(log);
        // What is forgotten may be of another branch than what came after it, with other times.
        let entries = inner.disk.log.get(log).into_iter().flat_map(|entries| entries.range(floor.next()..));
        let last = entries.take_while(|(_, stored)| stored.entry.hlc <= hlc).last();
        Ok(last.map_or(Seq(0), |(seq, _)| *seq).max(floor))
    }

    fn hash_at(&mut self, log: &LogId, seq: Seq) -> Result<Option<Hash>, DiskFailed> {
        let mut inner = self.inner();
        inner.read()?;
        Ok(if seq >= inner.disk.floor(log) { inner.disk.hash_at(log, seq) } else { None })
    }

    fn signed_until(&mut self, log: &LogId, seq: Seq) -> Result<Option<SignedHead>, DiskFailed> {
        let mut inner = self.inner();
        inner.read()?;
        let signed = inner.disk.signed.get(log).and_then(|signed| signed.range(..=seq).next_back());
        Ok(signed.map(|(_, head)| head.clone()))
    }

    fn signed_from(&mut self, log: &LogId, seq: Seq) -> Result<Option<SignedHead>, DiskFailed> {
        let mut inner = self.inner();
        inner.read()?;
        let signed = inner.disk.signed.get(log).and_then(|signed| signed.range(seq..).next());
        Ok(signed.map(|(_, head)| head.clone()))
    }

    fn scan(
        &mut self,
        collection: &Collection,
        after: Option<&Key>,
        limits: &ScanLimits,
    ) -> Result<Scan, DiskFailed> {
        self.inner().scan(collection, after, limits)
    }

    fn commit(&mut self, commit: &Commit) -> Result<Committed, DiskFailed> {
        self.inner().commit(commit)
    }

    fn tend(&mut self, conflicts_before: WallMillis) -> Result<Vec<Problem>, DiskFailed> {
        let mut inner = self.inner();
        inner.read()?;
        inner.room()?;
        inner.disk.conflicts.retain(|_, conflict| conflict.winner.stamp.hlc.wall() >= conflicts_before);
        let strict = inner.strict && inner.armed;
        Ok(if strict { Vec::new() } else { inner.disk.retry_aside() })
    }
}
