//! From remote changes to rows of the application's tables.

pub(crate) mod applying;
mod collide;
mod proving;
pub(crate) mod putback;
mod retry;
