//! The replication state machine of EntglDb.

mod apply;
pub mod clock;
pub mod entry;
pub mod event;
pub mod fingerprint;
pub mod id;
pub mod limits;
mod oplog;
mod peers;
mod replica;
pub mod resolve;
mod session;
pub mod store;
pub mod version;
pub mod wire;

pub use oplog::RunError;
pub use peers::{TargetStatus, TooManyPeers};
pub use replica::{Config, Input, Output, Replica, Status, StoreFailed};
pub use session::{Link, PeerStatus};
