//! Target `config`: the configuration of a node, as JSON.
//!
//! Input: the text.

use entgldb::Config;
use entgldb::fuzzing::{check_config, check_target};
use entgldb_replica::limits::{FRAME_BYTES_HARD, INTEREST_MAX, PAYLOAD_BYTES_HARD};

/// A configuration that is taken survives being written, and one that passes the check is within the limits.
///
/// # Panics
/// When that does not hold.
pub fn check(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let config = match Config::from_json(text) {
        Ok(config) => config,
        Err(error) => return assert!(!error.to_string().is_empty()),
    };
    let written = serde_json::to_string(&config).expect("a configuration is always JSON");
    assert_eq!(Config::from_json(&written).expect("it reads what it wrote"), config);
    if check_config(&config).is_ok() {
        assert!((1..=INTEREST_MAX).contains(&config.watch.len()));
        assert!((1..=PAYLOAD_BYTES_HARD).contains(&config.payload_bytes_max));
        assert!(config.payload_bytes_max < config.frame_bytes_max);
        assert!(config.frame_bytes_max <= FRAME_BYTES_HARD);
        for peer in &config.peers {
            let (host, port) = peer.rsplit_once(':').expect("host:port");
            assert!(!host.is_empty() && port.parse::<u16>().is_ok_and(|port| port > 0));
        }
        assert!(config.peers.iter().all(|peer| check_target(peer).is_ok()));
    }
    assert!(config.data_dir().as_os_str().len() >= config.data_dir.map_or(0, |dir| dir.as_os_str().len()));
}
