//! What a caller says of the database to open.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use crate::file::holder::Holder;

/// When a commit counts as durable.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Durability {
    /// Once it is synced to disk: it survives a power cut.
    #[default]
    Full,
    /// Once it is written: it survives the end of any process, but a power cut may take the last commits back. Peers give
    /// back what they have. Unless it was closed, the oplog goes on in a new incarnation when it is opened again.
    Normal,
}

/// How a database is opened.
pub struct SqliteConfig {
    /// The application's database file. It must exist.
    pub path: PathBuf,
    /// The tables to watch. At least one; each needs a primary key.
    pub watch: Vec<String>,
    /// When a commit counts as durable.
    pub durability: Durability,
    /// Largest document, in bytes; at most [`PAYLOAD_BYTES_HARD`](entgldb_replica::limits::PAYLOAD_BYTES_HARD).
    pub payload_bytes_max: usize,
    /// Set by another thread to make a wait for a locked database give up.
    pub stop: Arc<AtomicBool>,
    /// Who opens it.
    pub holder: Holder,
    /// Called about once a second, on the store's thread, while the database stays locked by another program, with the
    /// time waited so far.
    pub on_busy: Option<Box<dyn FnMut(Duration) + Send>>,
}

impl std::fmt::Debug for SqliteConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SqliteConfig")
            .field("path", &self.path)
            .field("watch", &self.watch)
            .finish_non_exhaustive()
    }
}
