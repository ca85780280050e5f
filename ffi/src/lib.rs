//! The C ABI of EntglDb. What it promises stands in `include/entgldb.h`, which is generated from this crate; here is only
//! how it is kept.
//!
//! - Every function catches panics, checks what it is passed, and leaves its results untouched unless it succeeds.
//! - Callers hold numbers, not pointers (`registry`), so that a late or double use is an error with a text.
//! - What a hook is lent and what `destroy` frees live as long as a call of a hook is in flight (`reply`, `host`).
//! - Guards that all bindings need (calls from inside of hooks, forks, closing) are the engine's.
//!
//! This is the only crate with `unsafe`: reading what callers lend (`input`), calling their hooks (`host`), and giving
//! memory back (`buffer`).

// Its functions are documented for C, in the header.
#![allow(clippy::missing_safety_doc)]

mod buffer;
mod failure;
mod faults;
mod host;
mod input;
mod node;
mod registry;
mod reply;
pub mod status;
pub mod types;
mod version;
