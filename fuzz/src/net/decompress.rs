//! Target `decompress`: bodies of compressed frames.
//!
//! Input: flags (codec, and whether the rest is a compressed body or is to be compressed and then damaged), declared
//! length, damage, the rest.

use entgldb_net::Codec;
use entgldb_net::fuzzing::{compress, decompress};
use entgldb_replica::limits::{EXPANSION_BASE_BYTES, EXPANSION_RATIO_MAX};

const WELL_KNOWN: &[u8; 2000] = &[b'x'; 2000];

/// A body decompresses to exactly what was declared, or not at all; and the next body does not feel it.
///
/// # Panics
/// When that does not hold.
pub fn check(data: &[u8]) {
    let [flags, low, high, at_low, at_high, damage, rest @ ..] = data else { return };
    let codec = if flags & 1 == 0 { Codec::Zstd } else { Codec::Brotli };
    let is_asked_again = flags & 8 != 0;
    let declared = usize::from(u16::from_le_bytes([*low, *high])) << (flags >> 6);
    if flags & 2 == 0 {
        // The frame decoder lets nothing larger come here.
        let declared = declared.min(EXPANSION_BASE_BYTES + EXPANSION_RATIO_MAX * rest.len());
        expect_exact(codec, rest, declared, is_asked_again);
    } else if let Some(mut body) = compress(codec, rest) {
        let back = decompress(codec, &body, rest.len()).expect("what was compressed comes back");
        assert_eq!(back, rest, "{codec:?} changed a body");
        for wrong in [rest.len() - 1, rest.len() + 1, declared] {
            let taken = decompress(codec, &body, wrong).is_ok();
            assert!(wrong == rest.len() || !taken, "a wrong length was taken");
        }
        let at = usize::from(u16::from_le_bytes([*at_low, *at_high])) % body.len();
        body[at] ^= damage;
        expect_exact(codec, &body, rest.len(), is_asked_again);
        expect_exact(codec, &body[..at], rest.len(), false);
    }
    if flags & 4 != 0 {
        let known = compress(codec, WELL_KNOWN).expect("it gets smaller");
        assert_eq!(decompress(codec, &known, WELL_KNOWN.len()).as_deref(), Ok(&WELL_KNOWN[..]));
    }
}

fn expect_exact(codec: Codec, body: &[u8], declared: usize, is_asked_again: bool) {
    let once = decompress(codec, body, declared);
    if let Ok(out) = &once {
        assert_eq!(out.len(), declared);
    }
    if is_asked_again {
        assert_eq!(once, decompress(codec, body, declared), "{codec:?} remembers the body before");
    }
}
