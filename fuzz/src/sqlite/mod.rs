//! Documents of other nodes.

pub mod json;
pub mod mapping;

/// The name of a target, and its check.
pub type Check = (&'static str, fn(&[u8]));

/// Every check.
pub const CHECKS: [Check; 2] = [("json", json::check), ("mapping", mapping::check)];
