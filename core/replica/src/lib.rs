//! The replication state machine of EntglDb.

mod apply;
pub mod clock;
mod contract;
pub mod entry;
pub mod event;
pub mod fingerprint;
mod flow;
pub mod id;
mod ledger;
pub mod limits;
mod oplog;
mod outgoing;
mod page;
mod peers;
mod replica;
pub mod resolve;
mod session;
pub mod store;
pub mod version;
pub mod wire;

pub use contract::{Config, Input, Link, Output, PeerStatus, Status, StoreFailed};
pub use oplog::RunError;
pub use peers::{TargetStatus, TooManyPeers};
pub use replica::Replica;
