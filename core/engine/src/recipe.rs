//! What is needed to open a node's store and replica, again and again if need be.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use entgldb_replica::Config as ReplicaConfig;
use entgldb_replica::entry::AuthorKey;
use entgldb_sqlite::own::{Keeps, OwnStore};
use entgldb_sqlite::{Holder, SqliteConfig, SqliteStore};
use tracing::warn;

use crate::data_dir::create_if_missing;
use crate::documents::Watchers;
use crate::event::Event;
use crate::host::{HostCell, HostedStore};
use crate::hub::Hub;
use crate::store::{AnyStore, StoreOpenError};

/// See the module's documentation.
pub(crate) struct Recipe {
    pub(crate) store: SqliteRecipe,
    pub(crate) keeping: Keeping,
    pub(crate) replica: ReplicaConfig,
    pub(crate) key: AuthorKey,
    pub(crate) peers: Vec<String>,
}

/// Who keeps the documents.
#[derive(Clone)]
pub(crate) enum Keeping {
    /// The application, in watched tables of its SQLite database.
    Tables,
    /// The engine.
    Documents(Watchers),
    /// The application, in a store of its own.
    Host(HostCell),
}

impl Recipe {
    pub(crate) fn open_store(&self) -> Result<AnyStore, StoreOpenError> {
        Ok(match &self.keeping {
            Keeping::Tables => AnyStore::Tables(Box::new(self.store.open()?)),
            Keeping::Documents(watchers) => {
                self.store.make_private()?;
                let store = OwnStore::open(self.store.config(), Keeps::Documents)?;
                AnyStore::Documents(Box::new(store), watchers.clone())
            }
            Keeping::Host(host) => {
                self.store.make_private()?;
                let store = HostedStore::open(self.store.config(), host.clone(), self.store.hub.clone())?;
                AnyStore::Host(Box::new(store))
            }
        })
    }
}

/// What is needed to open the store.
pub(crate) struct SqliteRecipe {
    pub(crate) path: PathBuf,
    pub(crate) watch: Vec<String>,
    pub(crate) durability: entgldb_sqlite::Durability,
    pub(crate) payload_bytes_max: usize,
    pub(crate) stop: Arc<AtomicBool>,
    pub(crate) holder: Holder,
    pub(crate) hub: Hub,
}

impl SqliteRecipe {
    pub(crate) fn open(&self) -> Result<SqliteStore, entgldb_sqlite::OpenError> {
        SqliteStore::open(self.config())
    }

    /// The engine's own file holds all documents, or all of the history: it is made for this user only.
    fn make_private(&self) -> Result<(), StoreOpenError> {
        create_if_missing(&self.path)
            .map_err(|source| StoreOpenError::File { path: self.path.clone(), source })
    }

    fn config(&self) -> SqliteConfig {
        let hub = self.hub.clone();
        SqliteConfig {
            path: self.path.clone(),
            watch: self.watch.clone(),
            durability: self.durability,
            payload_bytes_max: self.payload_bytes_max,
            stop: Arc::clone(&self.stop),
            holder: self.holder.clone(),
            on_busy: Some(Box::new(move |waited| {
                let for_ms = u64::try_from(waited.as_millis()).unwrap_or(u64::MAX);
                warn!(for_ms, "the database is locked by another program; waiting");
                hub.tell(&Event::StoreBusy { for_ms });
            })),
        }
    }
}
