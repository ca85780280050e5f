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
//! # Contract
//!
//! - One process runs a node at a time; any number of processes may use the database meanwhile.
//! - Within *this* process, open the database only through the same `rusqlite` that this crate uses: two copies of SQLite
//!   in one process drop each other's file locks.
//! - A node has threads of its own. Nothing it does waits for its owner; events that are not read are counted and dropped.

mod attention;
mod clocks;
mod config;
mod data_dir;
mod driver;
mod event;
// Fuzzers reach the checks of a configuration through this.
#[doc(hidden)]
pub mod fuzzing;
mod hub;
mod mark;
mod node;
mod publish;
mod recipe;
mod resolver;
mod status;
mod trust;

pub use config::{Config, ConfigError, Durability, default_data_dir};
pub use data_dir::DataDirError;
pub use driver::SyncError;
pub use entgldb_net::{ClusterSecret, SecretError};
pub use entgldb_replica::LawBroken;
pub use entgldb_replica::custom::{Resolver, ResolverFailed};
pub use entgldb_replica::id::{Collection, DocId, Key, NodeId};
pub use entgldb_replica::resolve::Side;
pub use entgldb_sqlite::{
    Fault, OpenError as StoreOpenError, Progress, Report, RestoreError, Restored, SqliteFailed, VerifyError,
    inspect, restore, verify,
};
pub use event::{Event, Version, problem_kind};
pub use hub::{Events, NoEvent};
pub use node::{AddPeerError, Node, OpenError};
pub use resolver::check_laws;
pub use status::{PeerHealth, State, Status, StatusError, TargetHealth, TrafficCounts, read_status};
pub use trust::{KnownPeer, TrustError, forget_peer, known_peers};
