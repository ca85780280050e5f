//! What must hold of everything in EntglDb that reads what others wrote: one function for each fuzz target, which takes
//! any bytes and panics when a promise is broken.
//!
//! The folders are by crate, because the ordinary tests of the crates include them too and replay the committed inputs
//! (`core/*/tests/corpus.rs`). So they use nothing of this crate outside their folder, and no dependency that the crate's
//! tests do not have.

pub mod engine;
pub mod net;
pub mod replica;
pub mod sqlite;
