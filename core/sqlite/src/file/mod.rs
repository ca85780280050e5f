//! The database file: which file it is, who works on it, and whether it is still the same.

pub(crate) mod binding;
pub(crate) mod challenge;
pub(crate) mod change;
pub(crate) mod file_system;
pub(crate) mod holder;
pub(crate) mod identity;
