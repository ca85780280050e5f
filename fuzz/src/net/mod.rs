//! Bytes of peers, before and inside a link.

pub mod decompress;
pub mod frame;
pub mod handshake_payload;
pub mod secret;

/// The name of a target, and its check.
pub type Check = (&'static str, fn(&[u8]));

/// Every check.
pub const CHECKS: [Check; 4] = [
    ("decompress", decompress::check),
    ("frame", frame::check),
    ("handshake_payload", handshake_payload::check),
    ("secret", secret::check),
];
