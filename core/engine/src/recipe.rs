//! What is needed to open a node's store and replica, again and again if need be.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use entgldb_replica::Config as ReplicaConfig;
use entgldb_replica::entry::AuthorKey;
use entgldb_sqlite::{SqliteConfig, SqliteStore};
use tracing::warn;

use crate::event::Event;
use crate::hub::Hub;

/// See the module's documentation.
pub(crate) struct Recipe {
    pub(crate) store: SqliteRecipe,
    pub(crate) replica: ReplicaConfig,
    pub(crate) key: AuthorKey,
    pub(crate) peers: Vec<String>,
}

/// What is needed to open the store.
pub(crate) struct SqliteRecipe {
    pub(crate) path: PathBuf,
    pub(crate) watch: Vec<String>,
    pub(crate) durability: entgldb_sqlite::Durability,
    pub(crate) payload_bytes_max: usize,
    pub(crate) stop: Arc<AtomicBool>,
    pub(crate) hub: Hub,
}

impl SqliteRecipe {
    pub(crate) fn open(&self) -> Result<SqliteStore, entgldb_sqlite::OpenError> {
        let hub = self.hub.clone();
        SqliteStore::open(SqliteConfig {
            path: self.path.clone(),
            watch: self.watch.clone(),
            durability: self.durability,
            payload_bytes_max: self.payload_bytes_max,
            stop: Arc::clone(&self.stop),
            on_busy: Some(Box::new(move |waited| {
                let for_ms = u64::try_from(waited.as_millis()).unwrap_or(u64::MAX);
                warn!(for_ms, "the database is locked by another program; waiting");
                hub.tell(&Event::StoreBusy { for_ms });
            })),
        })
    }
}
