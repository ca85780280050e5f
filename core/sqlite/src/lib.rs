//! EntglDb's built-in store: a replica's oplog, rows and outbox in the application's own SQLite database, which other
//! programs read and write at the same time.
//!
//! # The model
//!
//! A watched table is a collection, its rows are documents (`docs/protocol/mapping.md`). Triggers note in the application's
//! own transaction which rows it changes. [`SqliteStore`] reads those rows back, and makes durable in one transaction what
//! the replica makes of them: entries, rows, and the notes that are done with. Changes of other nodes go the other way,
//! into the tables, in one transaction with their entries. `docs/protocol/sqlite.md` describes the tables and the rules.
//!
//! # The loop
//!
//! ```
//! use std::sync::Arc;
//!
//! use entgldb_replica::limits;
//! use entgldb_replica::store::{Store, UnitLimits};
//! use entgldb_sqlite::{Durability, Holder, SqliteConfig, SqliteStore, Waker};
//!
//! # let folder = tempfile::tempdir()?;
//! # let path = folder.path().join("shop.db");
//! # let application = rusqlite::Connection::open(&path)?;
//! # application.execute_batch("CREATE TABLE products(id INTEGER PRIMARY KEY, name TEXT)")?;
//! let mut store = SqliteStore::open(SqliteConfig {
//!     path: path.clone(),
//!     watch: vec!["products".into()],
//!     durability: Durability::Full,
//!     payload_bytes_max: limits::PAYLOAD_BYTES_DEFAULT,
//!     stop: Arc::default(),
//!     holder: Holder::unnamed(),
//!     on_busy: None,
//! })?;
//! let (sender, woken) = std::sync::mpsc::channel();
//! let mut waker = Waker::start(&path, move || {
//!     let _ = sender.send(());
//! });
//!
//! application.execute("INSERT INTO products VALUES(1, 'pear')", [])?;
//!
//! woken.recv()?;
//! waker.rearm();
//! let unit = store.captured(&UnitLimits {
//!     changes: limits::UNIT_CHANGES_MAX,
//!     bytes: limits::UNIT_BYTES_MAX,
//!     gap_ms: limits::UNIT_GAP_MS,
//!     payload_bytes: limits::PAYLOAD_BYTES_DEFAULT,
//! })?;
//! assert_eq!(unit.changes[0].content.as_deref(), Some(br#"{"id":1,"name":"pear"}"#.as_slice()));
//! // ... the replica links entries for the changes, and `store.commit` makes them durable.
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # The contract
//!
//! - One thread uses a store; every call may wait for another program's lock.
//! - An error is final: drop the store and open it again. Nothing of the step that failed is in the file.
//! - The process MUST NOT have a second copy of SQLite that opens the same file: POSIX locks belong to the process, and
//!   one copy's close drops the other's. Programs that share this `rusqlite` share one copy.
//! - [`inspect`] and [`verify()`] only read and may run beside an engine in another process; [`restore()`] writes to the
//!   application's table, as the application itself may.

mod apply;
mod capture;
mod detach;
pub mod doctor;
mod failed;
mod fields;
mod file;
// Fuzzers reach the readers of other nodes' documents through this.
#[doc(hidden)]
pub mod fuzzing;
pub mod inspect;
mod journal;
mod json;
pub mod own;
mod quote;
mod reading;
mod repair;
mod restore;
mod store;
mod table;
mod verify;

pub use detach::{Attached, Detached, attached, detach};
pub use doctor::doctor;
pub use failed::{Cause, SqliteFailed};
pub use fields::by_hand::{AliasError, register_alias};
pub use file::change::FileChange;
pub use file::config::{Durability, SqliteConfig};
pub use file::error::OpenError;
pub use file::file_system::{FileSystem, file_system};
pub use file::holder::{HeldBy, Holder};
pub use file::watch::Waker;
pub use inspect::export::{KnownHead, ListedMember};
pub use repair::{RepairError, Repaired, repair};
pub use restore::{LosingVersion, RestoreError, Restored, losing_version, restore};
pub use store::{LookedThrough, SqliteStore, TableHealth};
pub use verify::{Fault, Progress, Report, VerifyError, verify};
