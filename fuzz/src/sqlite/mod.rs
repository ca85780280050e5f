//! Documents of other nodes.

pub mod json;
pub mod mapping;

/// Every check, by the name of its target.
pub const CHECKS: [(&str, fn(&[u8])); 2] = [("json", json::check), ("mapping", mapping::check)];
