//! What people and hosts write for a node.

pub mod config;

/// The name of a target, and its check.
pub type Check = (&'static str, fn(&[u8]));

/// Every check.
pub const CHECKS: [Check; 1] = [("config", config::check)];
