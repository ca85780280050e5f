//! The replication state machine of EntglDb.

pub mod clock;
pub mod entry;
pub mod fingerprint;
pub mod id;
pub mod limits;
pub mod resolve;
pub mod store;
pub mod version;
