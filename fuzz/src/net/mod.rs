//! Bytes of peers, before and inside a link.

pub mod decompress;
pub mod frame;
pub mod handshake_payload;
pub mod secret;

/// Every check, by the name of its target.
pub const CHECKS: [(&str, fn(&[u8])); 4] = [
    ("decompress", decompress::check),
    ("frame", frame::check),
    ("handshake_payload", handshake_payload::check),
    ("secret", secret::check),
];
