//! The store under a node's replica: an application's database, the engine's own file with documents in it, or that beside a
//! store of the application's.

use std::collections::BTreeSet;
use std::io;
use std::path::PathBuf;

use bytes::Bytes;
use entgldb_replica::clock::{Hlc, Stamp, WallMillis};
use entgldb_replica::entry::SignedHead;
use entgldb_replica::id::{Collection, DocId, Key, LogId, NodeId};
use entgldb_replica::resolve::{Row, Version};
use entgldb_replica::store::{
    Commit, Committed, Drain, Durable, Problem, ReadLimits, Scan, ScanLimits, Store, Stored, UnitLimits,
};
use entgldb_replica::version::{Hash, Seq};
use entgldb_sqlite::own::OwnStore;
use entgldb_sqlite::{FileChange, OpenError, SqliteFailed, SqliteStore};

use crate::documents::Watchers;
use crate::host::HostedStore;
use crate::status::{HostHealth, TableStatus};

/// The store under a node failed. It is opened again unless that can't help.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// The database, or the engine's own file.
    #[error(transparent)]
    Sqlite(#[from] SqliteFailed),
    /// The application's store.
    #[error("the {hook} hook: {message}")]
    Host {
        /// The hook.
        hook: &'static str,
        /// The application's words.
        message: String,
    },
}

impl StoreError {
    pub(crate) fn host(hook: &'static str, message: impl Into<String>) -> Self {
        Self::Host { hook, message: message.into() }
    }

    /// Whether opening the store again cannot help: the disk, the file or its permissions must be mended first.
    #[must_use]
    pub fn is_final(&self) -> bool {
        match self {
            Self::Sqlite(failed) => failed.is_final(),
            Self::Host { .. } => false,
        }
    }
}

/// Why a store could not be opened.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StoreOpenError {
    #[error(transparent)]
    Open(#[from] OpenError),
    #[error(transparent)]
    Failed(#[from] StoreError),
    #[error("{path}: {source}")]
    File { path: PathBuf, source: io::Error },
}

impl StoreOpenError {
    pub(crate) fn is_final(&self) -> bool {
        match self {
            Self::Open(error) => error.is_final(),
            Self::Failed(failed) => failed.is_final(),
            Self::File { .. } => false,
        }
    }
}

impl From<SqliteFailed> for StoreOpenError {
    fn from(failed: SqliteFailed) -> Self {
        Self::Failed(failed.into())
    }
}

/// How a store stands.
pub(crate) struct StoreHealth {
    pub(crate) problems: u64,
    pub(crate) tables: Vec<TableStatus>,
    /// How the application's own store is, if this is one.
    pub(crate) host: Option<HostHealth>,
}

/// See the module's documentation.
pub(crate) enum AnyStore {
    Tables(Box<SqliteStore>),
    Documents(Box<OwnStore>, Watchers),
    Host(Box<HostedStore>),
}

/// Calls the same method of whichever store it is.
macro_rules! each {
    ($self:ident, $store:ident => $call:expr) => {
        match $self {
            AnyStore::Tables($store) => $call.map_err(StoreError::from),
            AnyStore::Documents($store, _) => $call.map_err(StoreError::from),
            AnyStore::Host($store) => $call.map_err(StoreError::from),
        }
    };
}

impl AnyStore {
    /// The collections that are synced.
    pub(crate) fn collections(&self) -> &[Collection] {
        match self {
            Self::Tables(store) => store.collections(),
            Self::Documents(store, _) => store.collections(),
            Self::Host(store) => store.collections(),
        }
    }

    pub(crate) fn outbox_is_empty(&mut self) -> Result<bool, StoreError> {
        each!(self, store => store.outbox_is_empty())
    }

    /// Whether there is more to look through for changes.
    pub(crate) fn is_scanning(&mut self) -> Result<bool, StoreError> {
        match self {
            Self::Tables(store) => Ok(store.is_scanning()?),
            Self::Documents(..) => Ok(false),
            Self::Host(store) => Ok(store.is_scanning()),
        }
    }

    /// How it stands now.
    pub(crate) fn health(&mut self) -> Result<StoreHealth, StoreError> {
        let problems = each!(self, store => store.problem_count())?;
        let host = match self {
            Self::Tables(_) | Self::Documents(..) => None,
            Self::Host(store) => Some(store.health()),
        };
        let tables = match self {
            Self::Tables(store) => store.table_health()?.into_iter().map(TableStatus::of).collect(),
            Self::Documents(..) | Self::Host(_) => {
                self.collections().iter().map(|collection| TableStatus::synced(collection.as_str())).collect()
            }
        };
        Ok(StoreHealth { problems, tables, host })
    }

    /// Whether members sync one of the tables under another name: it has to be opened again.
    pub(crate) fn is_known_otherwise(&self) -> bool {
        matches!(self, Self::Tables(store) if store.is_known_otherwise())
    }

    pub(crate) fn is_short_of_room(&self) -> bool {
        match self {
            Self::Tables(store) => store.is_short_of_room(),
            Self::Documents(store, _) => store.is_short_of_room(),
            Self::Host(store) => store.is_short_of_room(),
        }
    }

    /// How the file differs from the one that was opened, which may have caused any error.
    pub(crate) fn file_change(&self) -> Option<FileChange> {
        match self {
            Self::Tables(store) => store.file_change(),
            Self::Documents(store, _) => store.file_change(),
            Self::Host(store) => store.own.file_change(),
        }
    }

    /// The file is another one than before: what it says is compared with the tables, or with the application's store.
    pub(crate) fn look_through(&mut self) -> Result<(), StoreError> {
        match self {
            Self::Tables(store) => store.look_all_through(),
            // Documents and notes of them are written together: there is nothing else to compare with.
            Self::Documents(..) => {}
            Self::Host(store) => store.compare_all()?,
        }
        Ok(())
    }

    pub(crate) fn watch(&mut self, name: &str) -> Result<Collection, OpenError> {
        match self {
            Self::Tables(store) => store.watch(name),
            Self::Documents(store, _) => store.watch(name),
            Self::Host(store) => store.watch(name),
        }
    }

    pub(crate) fn unwatch(&mut self, name: &str) -> Result<bool, StoreError> {
        match self {
            Self::Tables(store) => Ok(store.unwatch(name)?),
            Self::Documents(store, _) => Ok(store.unwatch(name)),
            Self::Host(store) => Ok(store.unwatch(name)),
        }
    }

    pub(crate) fn close(self) -> Result<(), StoreError> {
        each!(self, store => store.close())
    }

    /// Whether names are those of tables, of which SQLite takes no notice of the case.
    pub(crate) fn has_tables(&self) -> bool {
        matches!(self, Self::Tables(_))
    }

    /// The application's store beside the engine's file, if there is one.
    pub(crate) fn hosted(&mut self) -> Option<&mut HostedStore> {
        match self {
            Self::Host(store) => Some(store),
            _ => None,
        }
    }
}

impl Store for AnyStore {
    type Error = StoreError;

    fn load(&mut self) -> Result<Durable, StoreError> {
        each!(self, store => store.load())
    }

    fn captured(&mut self, limits: &UnitLimits) -> Result<Drain, StoreError> {
        each!(self, store => store.captured(limits))
    }

    fn rows(&mut self, docs: &[DocId]) -> Result<Vec<Option<Row>>, StoreError> {
        each!(self, store => store.rows(docs))
    }

    fn merged(&mut self, docs: &[DocId]) -> Result<Vec<Option<Bytes>>, StoreError> {
        each!(self, store => store.merged(docs))
    }

    fn json_fields(&self, collection: &Collection) -> BTreeSet<String> {
        match self {
            Self::Tables(store) => store.json_fields(collection),
            Self::Documents(..) | Self::Host(_) => BTreeSet::new(),
        }
    }

    fn version(&mut self, doc: &DocId, stamp: &Stamp) -> Result<Option<Version>, StoreError> {
        each!(self, store => store.version(doc, stamp))
    }

    fn read_log(&mut self, log: &LogId, after: Seq, limits: &ReadLimits) -> Result<Vec<Stored>, StoreError> {
        each!(self, store => store.read_log(log, after, limits))
    }

    fn last_at(&mut self, log: &LogId, hlc: Hlc) -> Result<Seq, StoreError> {
        each!(self, store => store.last_at(log, hlc))
    }

    fn hash_at(&mut self, log: &LogId, seq: Seq) -> Result<Option<Hash>, StoreError> {
        each!(self, store => store.hash_at(log, seq))
    }

    fn signed_until(&mut self, log: &LogId, seq: Seq) -> Result<Option<SignedHead>, StoreError> {
        each!(self, store => store.signed_until(log, seq))
    }

    fn signed_from(&mut self, log: &LogId, seq: Seq) -> Result<Option<SignedHead>, StoreError> {
        each!(self, store => store.signed_from(log, seq))
    }

    fn scan(
        &mut self,
        collection: &Collection,
        after: Option<&Key>,
        limits: &ScanLimits,
    ) -> Result<Scan, StoreError> {
        each!(self, store => store.scan(collection, after, limits))
    }

    fn commit(&mut self, commit: &Commit) -> Result<Committed, StoreError> {
        let committed = each!(self, store => store.commit(commit))?;
        if let (Self::Documents(_, watchers), Committed::Done(_)) = (self, &committed) {
            watchers.applied(commit);
        }
        Ok(committed)
    }

    fn about(&mut self, node: &NodeId) -> Result<Vec<(Key, Bytes)>, StoreError> {
        match self {
            Self::Tables(store) => Ok(store.about(node)?),
            Self::Documents(..) | Self::Host(_) => Ok(Vec::new()),
        }
    }

    fn tend(&mut self, conflicts_before: WallMillis) -> Result<Vec<Problem>, StoreError> {
        each!(self, store => store.tend(conflicts_before))
    }
}
