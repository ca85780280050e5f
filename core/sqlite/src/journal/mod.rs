//! What the engine keeps of its own in a database: oplog, rows, conflicts, and the step that makes them durable.

pub(crate) mod aside;
pub(crate) mod commit;
pub(crate) mod conflicts;
pub(crate) mod forget;
#[allow(clippy::module_inception, reason = "the room is named for the type that is in it")]
pub(crate) mod journal;
pub(crate) mod member;
pub(crate) mod names;
pub(crate) mod note;
pub(crate) mod opening;
pub(crate) mod oplog;
pub(crate) mod outbox;
pub(crate) mod problems;
pub(crate) mod schema;
pub(crate) mod tend;
pub(crate) mod unnumbered;
pub(crate) mod unsynced;
