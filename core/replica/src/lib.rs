//! The replication state machine of EntglDb.
pub mod id;
pub mod limits;
