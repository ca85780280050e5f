//! The application's store and the engine's own file as one store for the replica.
//!
//! What a commit brings into the application's store is done in three durable steps: the whole commit is kept as an intent
//! in the engine's file; the application's store takes the documents; the engine's file takes entries, rows and heads, and
//! forgets the intent. Whatever step a process ends at, the next start does the rest again, or, if the application has
//! written meanwhile, forgets the intent: then nothing was acknowledged, and the peers send the entries again.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use bytes::Bytes;
use entgldb_replica::clock::{Hlc, Stamp, WallMillis};
use entgldb_replica::entry::SignedHead;
use entgldb_replica::id::{Collection, DocId, Key, LogId, sha256};
use entgldb_replica::limits::HOOK_DOCUMENTS_MAX;
use entgldb_replica::member::members;
use entgldb_replica::resolve::{Row, Version};
use entgldb_replica::store::{
    Commit, Committed, Drain, Durable, Guard, Problem, ReadLimits, RowWrite, Scan, ScanLimits, Store, Stored,
    UnitLimits,
};
use entgldb_replica::version::{Hash, Seq};
use entgldb_sqlite::own::{Keeps, Number, OwnStore, Shown, canonical, is_lossy_image};
use entgldb_sqlite::{OpenError, SqliteConfig};
use tracing::{info, warn};

use super::HostCell;
use super::place::Placing;
use super::reconcile::Reconciling;
use crate::hub::Hub;
use crate::store::{StoreError, StoreOpenError};

/// Notes of the application's outbox that are taken over in one look.
const OUTBOX_AT_ONCE: usize = 4096;

/// See the module's documentation.
pub(crate) struct HostedStore {
    pub(crate) own: OwnStore,
    pub(super) host: HostCell,
    pub(super) hub: Hub,
    pub(super) stop: Arc<AtomicBool>,
    pub(super) reconciling: Reconciling,
    /// Whether documents in quarantine are to be tried again.
    pub(super) retries: Option<Retry>,
    /// Documents that were set aside outside of a commit's answer: nobody has been told yet.
    pub(super) untold: Vec<Problem>,
    /// Whether documents are in quarantine since others are in their way: any change may make room for them.
    pub(super) is_crowded: bool,
    /// Whether all in quarantine is to be tried once more when that is done with.
    pub(super) retries_again: bool,
}

/// Where the documents in quarantine are tried again.
#[derive(Clone, Debug, Default)]
pub(crate) struct Retry {
    pub(super) collection: usize,
    pub(super) after: Option<Key>,
}

impl HostedStore {
    /// Opens the engine's file, and does again what a crash has left half done.
    pub(crate) fn open(config: SqliteConfig, host: HostCell, hub: Hub) -> Result<Self, StoreOpenError> {
        let stop = Arc::clone(&config.stop);
        let own = OwnStore::open(config, Keeps::Host)?;
        let retries = Some(Retry::default());
        let (reconciling, untold) = (Reconciling::default(), Vec::new());
        let mut store = Self {
            own,
            host,
            hub,
            stop,
            reconciling,
            retries,
            untold,
            is_crowded: false,
            retries_again: false,
        };
        store.begin()?;
        Ok(store)
    }

    fn begin(&mut self) -> Result<(), StoreError> {
        let was_in_use = self.own.number(Number::InUse)? == 1;
        self.own.put_number(Number::InUse, 1)?;
        self.redo()?;
        // With an outbox every write is noted in its own transaction: there is nothing to look for.
        if was_in_use && !self.host.capabilities.outbox {
            info!(
                "the last end was not a clean one: the application's store is compared with what is known of it"
            );
            return self.compare_all();
        }
        self.reconciling = Reconciling::of(&self.own)?;
        Ok(())
    }

    /// All collections are to be compared with what is known of them.
    pub(crate) fn compare_all(&mut self) -> Result<(), StoreError> {
        for collection in self.own.collections().to_vec() {
            self.own.begin_compare(&collection)?;
        }
        self.reconciling = Reconciling::of(&self.own)?;
        Ok(())
    }

    /// Does a unit again that was begun before a crash, unless the application has written to its documents since.
    fn redo(&mut self) -> Result<(), StoreError> {
        let Some(commit) = self.own.intended()? else { return Ok(()) };
        let guarded = Commit { guard: Guard::OutboxDisjoint, ..commit.clone() };
        let noted = !self.own.guard_holds(&guarded)? || self.take_outbox()? > 0;
        let (untouched, shown) = self.examine(&commit)?;
        // Where every write is noted, only a note tells of one.
        let stands = !noted && (untouched || self.host.capabilities.outbox);
        if stands
            && let Some(placed) = self.place(&commit)?
            && let Committed::Done(problems) = self.own.commit_placed(&commit, &placed)?
        {
            self.untold = problems;
            return Ok(());
        }
        warn!("the application has written while a unit was being applied: it is decided again");
        self.own.drop_intent(&commit, &shown)?;
        Ok(())
    }

    /// Whether the application's store has of each document either what it had before the unit, or what the unit brings;
    /// and how it shows those of which it has what the unit brings.
    fn examine(&mut self, commit: &Commit) -> Result<(bool, Vec<Shown>), StoreError> {
        let writes: Vec<&RowWrite> = to_place(commit).collect();
        let docs: Vec<DocId> = writes.iter().map(|write| write.doc.clone()).collect();
        let now = self.read(&docs)?;
        let (mut untouched, mut already) = (true, Vec::new());
        for (write, now) in writes.into_iter().zip(now) {
            let new = write.apply.as_ref().and_then(Option::as_ref);
            let is_new = match (&now, new) {
                (Some(now), Some(new)) => now == new || is_lossy_image(now, new),
                (now, new) => now.is_none() && new.is_none(),
            };
            let hash = canonical_hash(now.as_ref());
            if is_new {
                already.push(Shown { doc: write.doc.clone(), hash, content: None });
                continue;
            }
            let before = write.before.and_then(|row| row.content);
            let is_before = now.as_ref().map(|now| sha256(now)) == before.map(|hash| hash.0)
                || self.own.shown(&write.doc)?.is_some_and(|shown| shown.hash == hash);
            untouched &= is_before;
        }
        Ok((untouched, already))
    }

    pub(crate) fn collections(&self) -> &[Collection] {
        self.own.collections()
    }

    pub(crate) fn watch(&mut self, name: &str) -> Result<Collection, OpenError> {
        let collection = self.own.watch(name)?;
        self.reconciling.add(self.own.to_compare()?);
        Ok(collection)
    }

    pub(crate) fn unwatch(&mut self, name: &str) -> bool {
        self.reconciling.remove(name);
        self.own.unwatch(name)
    }

    pub(crate) fn is_short_of_room(&self) -> bool {
        self.own.is_short_of_room()
    }

    /// Documents in quarantine, and changes that can't travel.
    pub(crate) fn problem_count(&mut self) -> Result<u64, StoreError> {
        Ok(self.own.problem_count()?)
    }

    /// Whether no change of the application's waits.
    pub(crate) fn outbox_is_empty(&mut self) -> Result<bool, StoreError> {
        Ok(self.own.outbox_is_empty()? && self.host_outbox_is_empty()?)
    }

    /// Whether the application's store is being compared, or documents in quarantine are tried again.
    pub(crate) fn is_scanning(&self) -> bool {
        !self.reconciling.is_done() || self.retries.is_some()
    }

    /// Leaves the engine's file as after a clean end.
    pub(crate) fn close(mut self) -> Result<(), StoreError> {
        self.own.put_number(Number::InUse, 0)?;
        Ok(self.own.close()?)
    }

    fn host_outbox_is_empty(&mut self) -> Result<bool, StoreError> {
        if !self.host.capabilities.outbox {
            return Ok(true);
        }
        let after = self.own.number(Number::OutboxAfter)?;
        let found = self.ask("outbox", |host| host.outbox(after, 1))?;
        Ok(found.is_empty())
    }

    /// Takes notes of the application's outbox over. Answers how many.
    fn take_outbox(&mut self) -> Result<usize, StoreError> {
        let mut taken = 0;
        while self.host.capabilities.outbox && taken < OUTBOX_AT_ONCE {
            let after = self.own.number(Number::OutboxAfter)?;
            let items = self.ask("outbox", |host| host.outbox(after, HOOK_DOCUMENTS_MAX))?;
            let Some(last) = items.last().map(|item| item.id) else { break };
            if items.windows(2).any(|pair| pair[0].id >= pair[1].id) || items[0].id <= after {
                return Err(StoreError::host("outbox", "its numbers do not rise"));
            }
            taken += items.len();
            let notes = items.into_iter().map(|item| (item.doc, item.written_ms)).collect::<Vec<_>>();
            self.own.take_notes(&notes, last)?;
        }
        Ok(taken)
    }

    /// Calls a hook that only reads.
    pub(super) fn ask<T>(
        &self,
        hook: &'static str,
        work: impl FnMut(&mut dyn super::HostStore) -> super::HostResult<T>,
    ) -> Result<T, StoreError> {
        self.placing().ask(hook, work)
    }

    /// What documents are now in the application's store.
    pub(super) fn read(&self, docs: &[DocId]) -> Result<Vec<Option<Bytes>>, StoreError> {
        self.placing().read(docs)
    }

    /// Whether a change leaves its document as the engine knows it: an echo of what was applied, perhaps in the way in which
    /// the application's store shows it.
    pub(super) fn is_echo(&mut self, doc: &DocId, content: Option<&Bytes>) -> Result<bool, StoreError> {
        let row = self.own.rows(std::slice::from_ref(doc))?.pop().flatten();
        let Some(row) = row else { return Ok(content.is_none()) };
        if content.map(|content| sha256(content)) == row.content.map(|hash| hash.0) {
            return Ok(true);
        }
        let hash = canonical_hash(content);
        if self.own.shown(doc)?.is_some_and(|shown| shown.hash == hash) {
            return Ok(true);
        }
        if let Some(has) = self.own.refused_in_place_of(doc)?
            && has == hash
        {
            return Ok(true);
        }
        let (Some(content), Some(_)) = (content, row.content) else { return Ok(false) };
        let mut nowhere = |_: &mut OwnStore, docs: &[DocId]| Ok::<_, StoreError>(vec![None; docs.len()]);
        let standing = self.own.standing_version(doc, &row.stamp, &mut nowhere)?;
        Ok(standing.is_some_and(|standing| canonical(&standing.payload) == canonical(content)))
    }
}

pub(super) fn canonical_hash(content: Option<&Bytes>) -> Option<[u8; 32]> {
    content.map(|content| sha256(&canonical(content)))
}

/// The rows of a commit that change documents of the application's.
pub(super) fn to_place(commit: &Commit) -> impl Iterator<Item = &RowWrite> {
    commit.rows.iter().filter(|write| write.apply.is_some() && write.doc.0 != *members())
}

impl Store for HostedStore {
    type Error = StoreError;

    fn load(&mut self) -> Result<Durable, StoreError> {
        Ok(self.own.load()?)
    }

    fn captured(&mut self, limits: &UnitLimits) -> Result<Drain, StoreError> {
        let more = self.take_outbox()? >= OUTBOX_AT_ONCE;
        let scanning = self.reconcile_on()?;
        let host = self.host.clone();
        let stop = Arc::clone(&self.stop);
        let mut drain = self.own.drain(limits, &mut |_, docs| read_with(&host, &stop, docs))?;
        if drain.mark.is_none() {
            drain.refused.extend(self.retry_quarantine()?);
        }
        drain.refused.append(&mut self.untold);
        drain.more |= more || scanning || self.retries.is_some();
        let mut changes = Vec::with_capacity(drain.changes.len());
        for change in drain.changes {
            if !self.is_echo(&change.doc, change.content.as_ref())? {
                changes.push(change);
            }
        }
        drain.changes = changes;
        Ok(drain)
    }

    fn rows(&mut self, docs: &[DocId]) -> Result<Vec<Option<Row>>, StoreError> {
        Ok(self.own.rows(docs)?)
    }

    fn merged(&mut self, docs: &[DocId]) -> Result<Vec<Option<Bytes>>, StoreError> {
        Ok(self.own.merged(docs)?)
    }

    fn version(&mut self, doc: &DocId, stamp: &Stamp) -> Result<Option<Version>, StoreError> {
        if let Some(version) = self.own.version(doc, stamp)? {
            return Ok(Some(version));
        }
        let (host, stop) = (self.host.clone(), Arc::clone(&self.stop));
        self.own.standing_version(doc, stamp, &mut |_, docs| read_with(&host, &stop, docs))
    }

    fn read_log(&mut self, log: &LogId, after: Seq, limits: &ReadLimits) -> Result<Vec<Stored>, StoreError> {
        Ok(self.own.read_log(log, after, limits)?)
    }

    fn last_at(&mut self, log: &LogId, hlc: Hlc) -> Result<Seq, StoreError> {
        Ok(self.own.last_at(log, hlc)?)
    }

    fn hash_at(&mut self, log: &LogId, seq: Seq) -> Result<Option<Hash>, StoreError> {
        Ok(self.own.hash_at(log, seq)?)
    }

    fn signed_until(&mut self, log: &LogId, seq: Seq) -> Result<Option<SignedHead>, StoreError> {
        Ok(self.own.signed_until(log, seq)?)
    }

    fn signed_from(&mut self, log: &LogId, seq: Seq) -> Result<Option<SignedHead>, StoreError> {
        Ok(self.own.signed_from(log, seq)?)
    }

    fn scan(
        &mut self,
        collection: &Collection,
        after: Option<&Key>,
        limits: &ScanLimits,
    ) -> Result<Scan, StoreError> {
        let (host, stop) = (self.host.clone(), Arc::clone(&self.stop));
        self.own.scan_with(collection, after, limits, &mut |_, docs| read_with(&host, &stop, docs))
    }

    fn commit(&mut self, commit: &Commit) -> Result<Committed, StoreError> {
        if self.is_crowded && !commit.rows.is_empty() {
            self.retry_after_all();
        }
        if to_place(commit).next().is_none() {
            return Ok(self.own.commit(commit)?);
        }
        if commit.guard != Guard::None && self.take_outbox()? > 0 {
            return Ok(Committed::OutboxMoved);
        }
        if !self.own.intend(commit)? {
            return Ok(Committed::OutboxMoved);
        }
        match self.place(commit)? {
            Some(placed) => Ok(self.own.commit_placed(commit, &placed)?),
            None => {
                // Without transactions, or piece by piece, some of it may be there.
                let (_, shown) = self.examine(commit)?;
                self.own.drop_intent(commit, &shown)?;
                Ok(Committed::OutboxMoved)
            }
        }
    }

    fn tend(&mut self, conflicts_before: WallMillis) -> Result<Vec<Problem>, StoreError> {
        Ok(self.own.tend(conflicts_before)?)
    }
}

/// [`HostedStore::read`] for where the rest of the store is in use.
fn read_with(host: &HostCell, stop: &AtomicBool, docs: &[DocId]) -> Result<Vec<Option<Bytes>>, StoreError> {
    Placing { host, stop }.read(docs)
}
