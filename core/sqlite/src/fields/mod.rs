//! What documents call the columns of a table, and how that is kept when the schema changes (`docs/protocol/fields.md`).

pub(crate) mod by_hand;
pub(crate) mod gone;
pub(crate) mod map;
pub(crate) mod names;
pub(crate) mod problems;
pub(crate) mod reconcile;
pub(crate) mod renames;
pub(crate) mod said;
pub(crate) mod tables;
