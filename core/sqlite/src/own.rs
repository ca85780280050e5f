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
mod drain;
mod intake;
mod intent;
mod place;
mod shown;
mod tables;

use std::collections::BTreeSet;
use std::fs::File;
use std::io;

use bytes::Bytes;
use entgldb_replica::clock::{Hlc, Stamp, WallMillis};
use entgldb_replica::entry::SignedHead;
use entgldb_replica::id::{Collection, DocId, Key, LogId};
use entgldb_replica::limits::INTEREST_MAX;
use entgldb_replica::resolve::{Row, Version};
use entgldb_replica::store::{
    Commit, Committed, Drain, Durable, Problem, ReadLimits, Scan, ScanLimits, Store, Stored, UnitLimits,
};
use entgldb_replica::version::{Hash, Seq};

pub use canonical::{canonical, is_lossy_image};
pub use compare::{Compared, Missing};
pub use intake::{Intake, Recorded, RecordedDoc};
pub use place::{Placed, QuarantineItem, Refused};
pub(crate) use place::{outbox_names_any, place};
pub use shown::Shown;
pub(crate) use shown::remove as remove_shown;
pub(crate) use tables::is_own;

use crate::failed::{Outcome, SqliteFailed, While};
use crate::names::Names;
use crate::open::{self, OpenError, SqliteConfig};
use crate::store::SqliteStore;
use crate::watched::Watched;
use crate::{schema, unsynced};

/// Answers what documents are now where they are kept, in order.
pub type Look<'l, E> = dyn FnMut(&mut OwnStore, &[DocId]) -> Result<Vec<Option<Bytes>>, E> + 'l;

/// Who keeps the documents of an own file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Keeps {
    /// They are in it.
    Documents,
    /// The application, in a store of its own.
    Host,
}

impl Keeps {
    fn number(self) -> i64 {
        match self {
            Self::Documents => 1,
            Self::Host => 2,
        }
    }
}

/// A replica's store in the engine's own file. Used from one thread, like [`SqliteStore`].
#[derive(Debug)]
pub struct OwnStore {
    pub(crate) sqlite: SqliteStore,
    keeps: Keeps,
    collections: Vec<Collection>,
}

impl OwnStore {
    /// Opens the file, which is made if it is not there. `config.watch` names the collections.
    ///
    /// # Errors
    /// Why it can't be opened, and what to do about it. See [`OpenError`].
    pub fn open(mut config: SqliteConfig, keeps: Keeps) -> Result<Self, OpenError> {
        let collections = collections(&config.watch)?;
        if let Err(source) = File::options().append(true).create(true).open(&config.path) {
            return Err(match source.kind() {
                io::ErrorKind::PermissionDenied => OpenError::ReadOnly { path: config.path },
                _ => OpenError::NotMade { path: config.path, source },
            });
        }
        tables::check_empty_or_own(&config.path, keeps)?;
        let connection = open::connection(&mut config)?;
        open::in_transaction(&connection, |connection| tables::create(connection, keeps))?;
        let mut names = Names::load(&connection)?;
        let (watched, _) =
            open::in_transaction(&connection, |connection| Watched::read(connection, &mut names, &[]))?;
        let mut store = SqliteStore::of(connection, names, watched, config.path);
        store.home = Some(keeps);
        let mut own = Self { sqlite: store, keeps, collections: Vec::new() };
        for collection in collections {
            own.add(collection)?;
        }
        Ok(own)
    }

    fn add(&mut self, collection: Collection) -> Outcome<()> {
        let (names, keeps) = (&mut self.sqlite.names, self.keeps);
        open::in_transaction(&self.sqlite.connection, |connection| {
            let is_new = names.known_collection(&collection).is_none();
            let no = names.collection_no(connection, &collection)?;
            if is_new && keeps == Keeps::Host {
                compare::begin(connection, no)?;
            }
            Ok(())
        })?;
        self.collections.push(collection);
        Ok(())
    }

    /// Syncs one more collection.
    ///
    /// # Errors
    /// When its name is none, or the file failed.
    pub fn watch(&mut self, name: &str) -> Result<Collection, OpenError> {
        let collection = collections(&[name.to_owned()])?.remove(0);
        if !self.collections.contains(&collection) {
            self.add(collection.clone())?;
            if self.keeps == Keeps::Host {
                self.begin_compare(&collection)?;
            }
        }
        Ok(collection)
    }

    /// Syncs a collection no longer. Its documents stay. Answers whether it was synced.
    pub fn unwatch(&mut self, name: &str) -> bool {
        let before = self.collections.len();
        self.collections.retain(|collection| collection.as_str() != name);
        self.collections.len() < before
    }

    /// The collections that are synced.
    #[must_use]
    pub fn collections(&self) -> &[Collection] {
        &self.collections
    }

    /// Whether no note of a local change waits.
    ///
    /// # Errors
    /// When the file can't be read.
    pub fn outbox_is_empty(&mut self) -> Result<bool, SqliteFailed> {
        self.sqlite.outbox_is_empty()
    }

    /// Whether remote changes have to wait because the disk is nearly full.
    #[must_use]
    pub fn is_short_of_room(&self) -> bool {
        self.sqlite.is_short_of_room()
    }

    /// Closes the file with everything on the disk.
    ///
    /// # Errors
    /// When it is not certain that everything is on the disk.
    pub fn close(self) -> Result<(), SqliteFailed> {
        unsynced::end(&self.sqlite.connection)?;
        self.sqlite.connection.release()
    }

    /// One of the numbers that are kept for the engine.
    ///
    /// # Errors
    /// When the file can't be read.
    pub fn number(&self, name: Number) -> Result<u64, SqliteFailed> {
        Ok(schema::get::<i64>(&self.sqlite.connection, name.name())?.unwrap_or_default().cast_unsigned())
    }

    /// Keeps a number.
    ///
    /// # Errors
    /// When it is not certain that it is durable.
    pub fn put_number(&mut self, name: Number, value: u64) -> Result<(), SqliteFailed> {
        open::in_transaction(&self.sqlite.connection, |connection| {
            schema::put(connection, name.name(), value.cast_signed())
        })
    }

    fn no(&self, collection: &Collection) -> Outcome<i64> {
        let known = self.sqlite.names.known_collection(collection);
        known.ok_or_else(|| SqliteFailed::damaged(format!("the collection {collection} has no number")))
    }
}

/// A number that an own file keeps for the engine.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Number {
    /// 1 while a node with a store of the application's has it open.
    InUse,
    /// How far the application's outbox has been read.
    OutboxAfter,
}

impl Number {
    fn name(self) -> &'static str {
        match self {
            Self::InUse => "in_use",
            Self::OutboxAfter => "outbox_after",
        }
    }
}

fn collections(names: &[String]) -> Result<Vec<Collection>, OpenError> {
    let mut collections: Vec<Collection> = Vec::new();
    for name in names {
        let bad = |reason: String| OpenError::BadName { table: name.clone(), reason };
        if name.to_ascii_lowercase().starts_with("_entgldb_") {
            return Err(bad("such names belong to the engine".into()));
        }
        let collection = Collection::new(name).map_err(|error| bad(error.to_string()))?;
        if !collections.contains(&collection) {
            collections.push(collection);
        }
    }
    if collections.is_empty() {
        return Err(OpenError::NothingToWatch { available: Vec::new() });
    }
    if collections.len() > INTEREST_MAX {
        let reason = format!("the limit INTEREST_MAX allows {INTEREST_MAX} collections");
        return Err(OpenError::BadName { table: names[INTEREST_MAX].clone(), reason });
    }
    Ok(collections)
}

/// The whole store of a node whose documents are in the file. Where the application keeps them, this is the part of a store
/// that needs no hook.
impl Store for OwnStore {
    type Error = SqliteFailed;

    fn load(&mut self) -> Outcome<Durable> {
        self.sqlite.load()
    }

    fn captured(&mut self, limits: &UnitLimits) -> Outcome<Drain> {
        self.sqlite.connection.execute_batch("BEGIN").doing("beginning to read")?;
        let drain = self.drain(limits, &mut |store, docs| {
            docs.iter().map(|(collection, key)| content::document(&store.sqlite, collection, key)).collect()
        });
        self.sqlite.connection.execute_batch("COMMIT").doing("ending to read")?;
        drain
    }

    fn rows(&mut self, docs: &[DocId]) -> Outcome<Vec<Option<Row>>> {
        self.sqlite.rows(docs)
    }

    fn merged(&mut self, docs: &[DocId]) -> Outcome<Vec<Option<Bytes>>> {
        self.sqlite.merged(docs)
    }

    fn json_fields(&self, _: &Collection) -> BTreeSet<String> {
        BTreeSet::new()
    }

    fn version(&mut self, doc: &DocId, stamp: &Stamp) -> Outcome<Option<Version>> {
        if let Some(version) = self.sqlite.version(doc, stamp)? {
            return Ok(Some(version));
        }
        self.standing_version(doc, stamp, &mut |store, docs| store.documents_now(docs))
    }

    fn read_log(&mut self, log: &LogId, after: Seq, limits: &ReadLimits) -> Outcome<Vec<Stored>> {
        self.sqlite.read_log(log, after, limits)
    }

    fn last_at(&mut self, log: &LogId, hlc: Hlc) -> Outcome<Seq> {
        self.sqlite.last_at(log, hlc)
    }

    fn hash_at(&mut self, log: &LogId, seq: Seq) -> Outcome<Option<Hash>> {
        self.sqlite.hash_at(log, seq)
    }

    fn signed_until(&mut self, log: &LogId, seq: Seq) -> Outcome<Option<SignedHead>> {
        self.sqlite.signed_until(log, seq)
    }

    fn signed_from(&mut self, log: &LogId, seq: Seq) -> Outcome<Option<SignedHead>> {
        self.sqlite.signed_from(log, seq)
    }

    fn scan(&mut self, collection: &Collection, after: Option<&Key>, limits: &ScanLimits) -> Outcome<Scan> {
        self.scan_with(collection, after, limits, &mut |store, docs| store.documents_now(docs))
    }

    fn commit(&mut self, commit: &Commit) -> Outcome<Committed> {
        self.sqlite.commit(commit)
    }

    fn tend(&mut self, conflicts_before: WallMillis) -> Outcome<Vec<Problem>> {
        self.sqlite.tend(conflicts_before)
    }
}
