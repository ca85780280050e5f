//! Attacks on links, each test named for what is tried. SECURITY.md says which threat each of them stands for.
//!
//! The attacker here has no cluster secret, unless the test says so, but can do all that a network lets it do. Members that
//! break the protocol are in `src/misbehaviour.rs`, for they need the crate's inside.

#[path = "../common/mod.rs"]
mod common;

mod by_hand;
mod compression;
mod floods;
mod listed;
mod man_in_the_middle;
mod records;
mod strangers;
