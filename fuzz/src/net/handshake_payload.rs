//! Target `handshake_payload`: what peers say of themselves inside the handshake.
//!
//! Input: flags, the rest: a payload as it came, or a hello that is signed first, so that what is behind the signature is
//! reached too.

use std::sync::OnceLock;

use entgldb_net::fuzzing::{believe_introduction, close_text, hello, sign_introduction};
use entgldb_net::{Codec, Identity, NetConfig, PeerInfo};
use entgldb_replica::id::NodeId;
use entgldb_replica::limits::{FRAME_BYTES_HARD, NAME_BYTES_MAX, PRE_AUTH_BYTES_MAX};

const NOISE_STATIC: [u8; 32] = [1; 32];
const HANDSHAKE_HASH: [u8; 32] = [2; 32];
/// The signing key of the one who introduces itself.
pub const SIGNING_KEY: [u8; 32] = [3; 32];
/// Longest reason in a close frame, in bytes.
const CLOSE_TEXT_BYTES_MAX: usize = 256;

/// Nobody is believed whose signature is not there, and nobody with values out of their limits.
///
/// # Panics
/// When that does not hold.
pub fn check(data: &[u8]) {
    let [flags, rest @ ..] = data else { return };
    let rest = &rest[..rest.len().min(PRE_AUTH_BYTES_MAX)];
    let is_initiator = flags & 1 != 0;
    let believe =
        |payload: &[u8]| believe_introduction(payload, is_initiator, &NOISE_STATIC, &HANDSHAKE_HASH);
    if flags & 2 == 0 {
        // The only genuine introduction that an input can know is the one in the seeds.
        if let Ok((peer, codecs)) = believe(rest) {
            assert_eq!((&peer, &codecs), (&genuine().0, &genuine().1), "a forged introduction was believed");
        }
        let shown = close_text(rest);
        assert!(shown.chars().count() <= CLOSE_TEXT_BYTES_MAX && !shown.contains(char::is_control));
        return;
    }
    let payload =
        sign_introduction(rest.to_vec(), &SIGNING_KEY, is_initiator, &NOISE_STATIC, &HANDSHAKE_HASH);
    let Ok((peer, codecs)) = believe(&payload) else { return };
    assert_eq!(peer.node, NodeId::of(&peer.public_key));
    assert!(peer.name.len() <= NAME_BYTES_MAX && !peer.name.contains(char::is_control));
    assert!((1..=FRAME_BYTES_HARD).contains(&peer.frame_bytes_max));
    assert!(codecs.len() <= rest.len());
    let elsewhere = believe_introduction(&payload, !is_initiator, &NOISE_STATIC, &HANDSHAKE_HASH);
    assert!(elsewhere.is_err(), "an introduction was carried over to the other role");
}

/// The introduction in the seeds, and what is to be believed of it.
fn genuine() -> &'static (PeerInfo, Vec<Codec>) {
    static GENUINE: OnceLock<(PeerInfo, Vec<Codec>)> = OnceLock::new();
    GENUINE.get_or_init(|| {
        believe_introduction(&genuine_payload(), true, &NOISE_STATIC, &HANDSHAKE_HASH).expect("it is genuine")
    })
}

/// A hello as a node makes it, of the key that signs here.
#[must_use]
pub fn genuine_hello() -> Vec<u8> {
    let mut hello = hello(&NetConfig::new("till", 7), &Identity::generate());
    // The first field is the public key: a tag, its length, 32 bytes.
    let key = entgldb_replica::entry::AuthorKey::from_seed(&SIGNING_KEY).public_key();
    hello[2..34].copy_from_slice(&key.0);
    hello
}

/// The payload with that hello, as an initiator sends it.
#[must_use]
pub fn genuine_payload() -> Vec<u8> {
    sign_introduction(genuine_hello(), &SIGNING_KEY, true, &NOISE_STATIC, &HANDSHAKE_HASH)
}
