//! EntglDb: sync beside the database that an application already has.
//!
//! A [`Node`] sits beside one SQLite database. It notices what any program writes to the watched tables, keeps a
//! hash-chained journal of it in the same file, and replicates it with other nodes over encrypted links. Conflicts are
//! resolved the same way on every node.
//!
//! ```no_run
//! use std::time::Duration;
//! use entgldb::{Config, Node};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let mut config = Config::new("shop.db", "cluster.secret");
//! config.watch = vec!["products".into(), "orders".into()];
//! config.peers = vec!["office.local:7700".into()];
//! let node = Node::open(config)?;
//! node.sync_now(Duration::from_secs(10))?;
//! println!("{} entries", node.status().entries);
//! node.close();
//! # Ok(())
//! # }
//! ```
//!
//! # Other stores
//!
//! Without a database of its own, an application gives its documents to the node ([`Node::documents`]). With any other store
//! it implements [`HostStore`], and tells the node of its writes.
//!
//! ```no_run
//! use entgldb::{Collection, Config, Key, Node};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let mut config = Config::new("notes.entgldb", "cluster.secret");
//! config.watch = vec!["notes".into()];
//! let (node, _events) = Node::open_with_host(config, None)?;
//! let notes = node.documents().expect("the node was opened without a store");
//! notes.put(&Collection::new("notes")?, &Key::new("today")?, r#"{"text":"buy pears"}"#)?;
//! # Ok(())
//! # }
//! ```
//!
//! # Contract
//!
//! - One process runs a node at a time; any number of processes may use the database meanwhile.
//! - Within *this* process, open the database only through the same `rusqlite` that this crate uses: two copies of SQLite
//!   in one process drop each other's file locks.
//! - A node has threads of its own. Nothing it does waits for its owner; events that are not read are counted and dropped.

// The tests inside and outside of this crate share a store in memory.
#[cfg(test)]
extern crate self as entgldb;

mod answer;
mod attention;
mod clocks;
mod command;
mod config;
mod control;
mod data_dir;
mod detaching;
mod documents;
mod driver;
mod ending;
mod event;
// Fuzzers reach the checks of a configuration through this.
#[doc(hidden)]
pub mod fuzzing;
mod guard;
mod held;
mod host;
mod hub;
mod import;
mod json_command;
mod json_schema;
mod mark;
mod member;
mod node;
mod offline;
mod opening;
mod portable;
mod progress;
mod publish;
mod recipe;
mod recording;
mod reopening;
mod resolver;
mod restoring;
mod retention;
mod stalled;
mod standing;
mod status;
mod store;
mod sync_now;
mod sync_with;
mod trust;
mod turns;

pub use command::CommandError;
pub use config::{Config, ConfigError, Durability, default_data_dir};
pub use control::{Answer, ControlError, Request, request};
pub use data_dir::{DataDirError, node_runs};
pub use detaching::{DetachError, detach};
pub use documents::{DocumentChange, DocumentError, DocumentWatch, Documents};
pub use entgldb_net::{ClusterSecret, SecretError};
pub use entgldb_replica::LawBroken;
pub use entgldb_replica::custom::{Resolver, ResolverFailed};
pub use entgldb_replica::id::{Collection, DocId, Key, NodeId};
pub use entgldb_replica::limits::{HOOK_BYTES_MAX, HOOK_DOCUMENTS_MAX};
pub use entgldb_replica::resolve::Side;
pub use entgldb_sqlite::{
    AliasError, Attached, Cause, Detached, Fault, FileChange, FileSystem, HeldBy,
    OpenError as StoreOpenError, Progress, RepairError, Repaired, Report, RestoreError, Restored,
    SqliteFailed, VerifyError, attached, doctor, file_system, inspect, register_alias, repair, restore,
    verify,
};
pub use event::{Event, Version, listed_problem_kind, problem_kind};
pub use guard::GuardError;
pub use host::{
    HookScope, HostCapabilities, HostChange, HostDocument, HostError, HostResult, HostStore, OutboxItem,
    in_hook,
};
pub use hub::{Events, NoEvent};
pub use import::{ImportError, ImportSummary};
pub use json_command::{Command, JsonCommandError};
pub use json_schema::json_schemas;
pub use member::{MemberInfo, read_members};
pub use node::{AddPeerError, CloseError, Node};
pub use offline::{Offline, OfflineError};
pub use opening::OpenError;
pub use portable::{Exported, FileError, PortableError, export_snapshot};
pub use recording::RecordError;
pub use resolver::check_laws;
pub use retention::{NotARetention, Retention};
pub use status::{
    BlockedHealth, Comparing, HookHealth, HostHealth, PeerHealth, SnapshotProgress, State, Status,
    StatusError, TableState, TableStatus, TargetHealth, TrafficCounts, Unconfirmed, read_status,
};
pub use store::StoreError;
pub use sync_now::SyncError;
pub use sync_with::SyncWithError;
pub use trust::{KnownPeer, TrustError, forget_peer, known_peers};
