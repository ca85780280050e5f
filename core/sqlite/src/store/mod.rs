//! The store of a replica in the application's own database.

mod reading;
mod tables;
mod tend;
mod watching;

use std::collections::BTreeSet;

use bytes::Bytes;
use entgldb_replica::clock::{Hlc, Stamp, WallMillis};
use entgldb_replica::entry::SignedHead;
use entgldb_replica::id::{Collection, DocId, Key, LogId};
use entgldb_replica::resolve::{Row, Version};
use entgldb_replica::store::{
    Commit, Committed, Drain, Durable, Guard, Problem, ReadLimits, Scan, ScanLimits, Store, Stored,
    UnitLimits,
};
use entgldb_replica::version::{Hash, Seq};

pub use tables::SqliteStore;

use crate::capture::outbox::Look;
use crate::failed::{Outcome, SqliteFailed};
use crate::journal::commit::carry_out;

impl Store for SqliteStore {
    type Error = SqliteFailed;

    fn load(&mut self) -> Outcome<Durable> {
        self.journal.load()
    }

    fn captured(&mut self, limits: &UnitLimits) -> Outcome<Drain> {
        self.journal.look_at_file()?;
        self.refresh()?;
        let scanning = self.scan_on()?;
        let Self { journal, watched, .. } = self;
        let look = Look { connection: &journal.connection, names: &journal.names, watched, limits };
        let mut drain = journal.read(|| look.drain())?;
        drain.more |= scanning;
        self.journal.keep_refused(&drain);
        Ok(drain)
    }

    fn rows(&mut self, docs: &[DocId]) -> Outcome<Vec<Option<Row>>> {
        self.journal.rows(docs)
    }

    fn merged(&mut self, docs: &[DocId]) -> Outcome<Vec<Option<Bytes>>> {
        self.journal.merged(docs)
    }

    fn json_fields(&self, collection: &Collection) -> BTreeSet<String> {
        let columns = self.watched.table(collection).into_iter().flat_map(|table| &table.columns);
        columns.filter(|column| column.is_json).map(|column| column.name.clone()).collect()
    }

    fn version(&mut self, doc: &DocId, stamp: &Stamp) -> Outcome<Option<Version>> {
        match self.journal.version(doc, stamp)? {
            None => self.standing_version(doc, stamp),
            found => Ok(found),
        }
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
        self.scan_rows(collection, after, limits)
    }

    fn commit(&mut self, commit: &Commit) -> Outcome<Committed> {
        let guard = commit.guard;
        // To the replica this is a guard that does not hold: the peer is told to come again.
        if guard != Guard::None && !self.journal.has_room() {
            return Ok(Committed::OutboxMoved);
        }
        let refused = self.journal.take_refused(commit.drained);
        let problems = self.transact(commit.wall, |applying| {
            carry_out(applying, commit, guard)?;
            applying.step.note_refused(&refused, &commit.rows)?;
            Ok(true)
        });
        self.journal.committed(guard, refused, problems)
    }

    fn tend(&mut self, conflicts_before: WallMillis) -> Outcome<Vec<Problem>> {
        self.tend_all(conflicts_before)
    }
}
