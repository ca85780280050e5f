//! The database file: how it is opened, watched, and how much room it has; which file it is, and who works on it.

pub(crate) mod binding;
pub(crate) mod challenge;
pub(crate) mod change;
pub(crate) mod config;
pub(crate) mod connection;
pub(crate) mod error;
pub(crate) mod file_system;
pub(crate) mod holder;
pub(crate) mod identity;
pub(crate) mod quiet;
pub(crate) mod room;
pub(crate) mod wal;
pub(crate) mod watch;
