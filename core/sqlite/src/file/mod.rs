//! The database file: how it is opened, watched, and how much room it has.

pub(crate) mod config;
pub(crate) mod connection;
pub(crate) mod error;
pub(crate) mod quiet;
pub(crate) mod room;
pub(crate) mod wal;
pub(crate) mod watch;
