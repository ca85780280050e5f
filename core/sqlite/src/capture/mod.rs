//! From the application's writes to changes.

pub(crate) mod clock;
pub(crate) mod displaced;
pub(crate) mod named;
pub(crate) mod noted;
pub(crate) mod notes;
pub(crate) mod outbox;
pub(crate) mod progress;
pub(crate) mod rebuild;
pub(crate) mod scan;
pub(crate) mod texts;
pub(crate) mod triggers;
pub(crate) mod trouble;
pub(crate) mod watched;
