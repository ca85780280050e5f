//! From the application's writes to changes.

pub(crate) mod named;
pub(crate) mod notes;
pub(crate) mod outbox;
pub(crate) mod scan;
pub(crate) mod triggers;
pub(crate) mod watched;
