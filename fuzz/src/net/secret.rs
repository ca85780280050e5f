//! Target `secret`: texts that people copy from one machine to another: cluster secrets and node ids.
//!
//! Input: the text.

use entgldb_net::ClusterSecret;
use entgldb_replica::id::NodeId;

/// A text that is taken means one thing, and its own written form means the same.
///
/// # Panics
/// When that does not hold.
pub fn check(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Ok(secret) = ClusterSecret::parse(text) {
        let written = secret.to_text();
        let again = ClusterSecret::parse(&written).expect("a written secret reads back");
        assert_eq!(*again.to_text(), *written);
        let letters = |text: &str| -> String {
            let kept = text.chars().filter(|c| !c.is_whitespace() && *c != '-');
            kept.map(|c| c.to_ascii_lowercase()).collect()
        };
        assert_eq!(letters(text), letters(&written), "a secret was read from another text");
    } else if let Ok(node) = text.parse::<NodeId>() {
        let written = node.to_string();
        assert_eq!(written.parse::<NodeId>(), Ok(node));
    }
}
