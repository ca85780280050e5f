//! Ways into the parts of this crate that read what others wrote, for fuzzers. No part of the public interface: it may
//! change at any time.

use crate::config::{self, Config, ConfigError};

/// Checks a configuration as the start of a node does.
///
/// # Errors
/// When no node can have it.
pub fn check_config(config: &Config) -> Result<(), ConfigError> {
    config.check().map(drop)
}

/// Checks the address of a peer.
///
/// # Errors
/// When it is not `host:port`.
pub fn check_target(target: &str) -> Result<(), ConfigError> {
    config::check_target(target)
}
