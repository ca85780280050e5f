//! The engine's own file: for applications whose documents are not in a watched table.
//!
//! It has the same tables for oplog, rows and conflicts as an application's database, and no table of anybody else's. Either
//! the documents are in it too ([`Keeps::Documents`]), or the application keeps them in a store of its own
//! ([`Keeps::Host`]). `docs/protocol/own-file.md` describes the tables.
//!
//! Changes come in through an [`Intake`], from any thread, as notes in the same outbox that triggers write to.

mod canonical;
mod compare;
mod content;
mod documents;
mod drain;
mod intake;
mod intent;
mod opening;
mod placing;
mod quarantine;
mod shown;
mod store;
pub(crate) mod tables;

use std::collections::BTreeSet;

use bytes::Bytes;
use entgldb_replica::clock::{Hlc, Stamp, WallMillis};
use entgldb_replica::entry::SignedHead;
use entgldb_replica::id::{Collection, DocId, Key, LogId};
use entgldb_replica::resolve::{Row, Version};
use entgldb_replica::store::{
    Commit, Committed, Drain, Durable, Problem, ReadLimits, Scan, ScanLimits, Store, Stored, UnitLimits,
};
use entgldb_replica::version::{Hash, Seq};

pub use canonical::{canonical, is_lossy_image};
pub use compare::{Compared, Missing};
pub use intake::{Intake, Recorded, RecordedDoc};
pub use placing::{Placed, Refused};
pub use quarantine::QuarantineItem;
pub use shown::Shown;
pub use store::{Keeps, Look, Number, OwnStore};

use crate::failed::{Outcome, SqliteFailed, While};

/// The whole store of a node whose documents are in the file. Where the application keeps them, this is the part of a store
/// that needs no hook.
impl Store for OwnStore {
    type Error = SqliteFailed;

    fn load(&mut self) -> Outcome<Durable> {
        self.journal.load()
    }

    fn captured(&mut self, limits: &UnitLimits) -> Outcome<Drain> {
        self.journal.look_at_file()?;
        self.journal.connection.execute_batch("BEGIN").doing("beginning to read")?;
        let drain = self.drain(limits, &mut |store, docs| store.documents_now(docs));
        self.journal.connection.execute_batch("COMMIT").doing("ending to read")?;
        drain
    }

    fn rows(&mut self, docs: &[DocId]) -> Outcome<Vec<Option<Row>>> {
        self.journal.rows(docs)
    }

    fn merged(&mut self, docs: &[DocId]) -> Outcome<Vec<Option<Bytes>>> {
        self.journal.merged(docs)
    }

    fn json_fields(&self, _: &Collection) -> BTreeSet<String> {
        BTreeSet::new()
    }

    fn version(&mut self, doc: &DocId, stamp: &Stamp) -> Outcome<Option<Version>> {
        if let Some(version) = self.journal.version(doc, stamp)? {
            return Ok(Some(version));
        }
        self.standing_version(doc, stamp, &mut |store, docs| store.documents_now(docs))
    }

    fn read_log(&mut self, log: &LogId, after: Seq, limits: &ReadLimits) -> Outcome<Vec<Stored>> {
        self.journal.read_log(log, after, limits)
    }

    fn last_at(&mut self, log: &LogId, hlc: Hlc) -> Outcome<Seq> {
        self.journal.last_at(log, hlc)
    }

    fn hash_at(&mut self, log: &LogId, seq: Seq) -> Outcome<Option<Hash>> {
        self.journal.hash_at(log, seq)
    }

    fn signed_until(&mut self, log: &LogId, seq: Seq) -> Outcome<Option<SignedHead>> {
        self.journal.signed_until(log, seq)
    }

    fn signed_from(&mut self, log: &LogId, seq: Seq) -> Outcome<Option<SignedHead>> {
        self.journal.signed_from(log, seq)
    }

    fn scan(&mut self, collection: &Collection, after: Option<&Key>, limits: &ScanLimits) -> Outcome<Scan> {
        self.scan_with(collection, after, limits, &mut |store, docs| store.documents_now(docs))
    }

    fn commit(&mut self, commit: &Commit) -> Outcome<Committed> {
        self.commit_with(commit, commit.guard, &mut |_| Ok(()))
    }

    fn tend(&mut self, conflicts_before: WallMillis) -> Outcome<Vec<Problem>> {
        self.tend_all(conflicts_before)
    }
}
