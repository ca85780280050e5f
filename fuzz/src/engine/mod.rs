//! What people and hosts write for a node.

pub mod config;

/// Every check, by the name of its target.
pub const CHECKS: [(&str, fn(&[u8])); 1] = [("config", config::check)];
