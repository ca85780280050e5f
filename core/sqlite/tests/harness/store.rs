//! The store under test with the world around it: before and after each of its calls something may happen.

use std::cell::RefCell;
use std::collections::{BTreeSet, VecDeque};
use std::rc::Rc;

use bytes::Bytes;
use entgldb_replica::clock::{Hlc, Stamp, WallMillis};
use entgldb_replica::entry::SignedHead;
use entgldb_replica::id::{Collection, DocId, Key, LogId, NodeId};
use entgldb_replica::resolve::{Row, Version};
use entgldb_replica::store::{
    Commit, Committed, Drain, Durable, Problem, ReadLimits, Scan, ScanLimits, Store, Stored, UnitLimits,
};
use entgldb_replica::version::{Hash, Seq};
use entgldb_sqlite::{SqliteFailed, SqliteStore};

use super::app::App;

/// What happens between two calls.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Deed {
    /// The application writes.
    Write,
    /// The application writes without triggers.
    WriteSilently,
    /// The application migrates by one step.
    Migrate,
    /// The process ends.
    Kill,
}

/// The places between two calls of a node's store.
#[derive(Debug, Default)]
pub struct Gaps {
    /// What happens next, each after so many places more.
    pub armed: VecDeque<(u64, Deed)>,
}

/// Why a call did not come back.
#[derive(Debug, thiserror::Error)]
pub enum Ended {
    /// The process was ended here.
    #[error("killed")]
    Killed,
    /// The store has failed.
    #[error(transparent)]
    Failed(#[from] SqliteFailed),
}

/// See the module's documentation.
pub struct Gapped {
    pub inner: SqliteStore,
    pub gaps: Rc<RefCell<Gaps>>,
    pub app: Rc<RefCell<App>>,
}

impl Gapped {
    fn gap(&self, place: &str, call: &str) -> Result<(), Ended> {
        let deed = {
            let mut gaps = self.gaps.borrow_mut();
            match gaps.armed.front_mut() {
                Some((0, deed)) => {
                    let deed = *deed;
                    gaps.armed.pop_front();
                    deed
                }
                Some((places, _)) => {
                    *places -= 1;
                    return Ok(());
                }
                None => return Ok(()),
            }
        };
        let mut app = self.app.borrow_mut();
        app.trace.borrow_mut().push(format!("  {place} {call} of store {}: {deed:?}", app.node));
        match deed {
            Deed::Write => app.write(),
            Deed::WriteSilently => app.write_silently(),
            Deed::Migrate => app.migrate(),
            Deed::Kill => return Err(Ended::Killed),
        }
        Ok(())
    }

    fn call<T>(
        &mut self,
        name: &str,
        call: impl FnOnce(&mut SqliteStore) -> Result<T, SqliteFailed>,
    ) -> Result<T, Ended> {
        self.gap("before", name)?;
        let answer = call(&mut self.inner)?;
        self.gap("after", name)?;
        Ok(answer)
    }
}

impl Store for Gapped {
    type Error = Ended;

    fn load(&mut self) -> Result<Durable, Ended> {
        self.call("load", SqliteStore::load)
    }

    fn captured(&mut self, limits: &UnitLimits) -> Result<Drain, Ended> {
        self.call("captured", |store| store.captured(limits))
    }

    fn rows(&mut self, docs: &[DocId]) -> Result<Vec<Option<Row>>, Ended> {
        self.call("rows", |store| store.rows(docs))
    }

    fn merged(&mut self, docs: &[DocId]) -> Result<Vec<Option<Bytes>>, Ended> {
        self.call("merged", |store| store.merged(docs))
    }

    fn json_fields(&self, collection: &Collection) -> BTreeSet<String> {
        self.inner.json_fields(collection)
    }

    fn version(&mut self, doc: &DocId, stamp: &Stamp) -> Result<Option<Version>, Ended> {
        self.call("version", |store| store.version(doc, stamp))
    }

    fn read_log(&mut self, log: &LogId, after: Seq, limits: &ReadLimits) -> Result<Vec<Stored>, Ended> {
        self.call("read_log", |store| store.read_log(log, after, limits))
    }

    fn last_at(&mut self, log: &LogId, hlc: Hlc) -> Result<Seq, Ended> {
        self.call("last_at", |store| store.last_at(log, hlc))
    }

    fn hash_at(&mut self, log: &LogId, seq: Seq) -> Result<Option<Hash>, Ended> {
        self.call("hash_at", |store| store.hash_at(log, seq))
    }

    fn signed_until(&mut self, log: &LogId, seq: Seq) -> Result<Option<SignedHead>, Ended> {
        self.call("signed_until", |store| store.signed_until(log, seq))
    }

    fn signed_from(&mut self, log: &LogId, seq: Seq) -> Result<Option<SignedHead>, Ended> {
        self.call("signed_from", |store| store.signed_from(log, seq))
    }

    fn scan(
        &mut self,
        collection: &Collection,
        after: Option<&Key>,
        limits: &ScanLimits,
    ) -> Result<Scan, Ended> {
        self.call("scan", |store| store.scan(collection, after, limits))
    }

    fn commit(&mut self, commit: &Commit) -> Result<Committed, Ended> {
        self.call("commit", |store| store.commit(commit))
    }

    fn about(&mut self, node: &NodeId) -> Result<Vec<(Key, Bytes)>, Ended> {
        self.call("about", |store| store.about(node))
    }

    fn tend(&mut self, conflicts_before: WallMillis) -> Result<Vec<Problem>, Ended> {
        self.call("tend", |store| store.tend(conflicts_before))
    }
}
