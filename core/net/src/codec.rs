//! Compressing and decompressing frame bodies.
//!
//! Contexts belong to threads, not to links: a zstd context is about a megabyte, and there may be 256 links.

use std::cell::RefCell;

use brotli::enc::{BrotliEncoderParams, StandardAlloc};
use brotli::{Allocator, BrotliDecompressStream, BrotliResult, BrotliState};
use bytes::Bytes;
use entgldb_replica::limits::expanded_bytes_max;
use zstd::bulk::{Compressor, Decompressor};

use crate::config::Codec;
use crate::frame::FrameError;

/// Measured best for batches of documents: higher levels cost more than a LAN gives back.
const ZSTD_LEVEL: i32 = 1;
/// The lowest level that finds repetitions beyond a few bytes.
const BROTLI_QUALITY: i32 = 2;
/// A brotli stream may have a window of this many bytes however little it holds.
const BROTLI_WINDOW_BYTES_LEAST: usize = 64 << 10;
/// What the decoder needs beside the window, at most.
const BROTLI_SLACK_BYTES: usize = 1 << 10;

thread_local! {
    static ZSTD_IN: RefCell<Option<Decompressor<'static>>> = const { RefCell::new(None) };
    static ZSTD_OUT: RefCell<Option<Compressor<'static>>> = const { RefCell::new(None) };
}

/// Whether work on so many bytes takes long enough (about a millisecond) to hold up other links of the same thread. Of
/// what goes in and what comes out, the larger counts: a long body can hold next to nothing and still has to be read.
pub(crate) fn is_slow(codec: Codec, bytes: usize) -> bool {
    match codec {
        Codec::Brotli => bytes >= 128 << 10,
        Codec::Zstd => bytes >= 1 << 20,
    }
}

/// Compresses a body for a peer; `None` if it has to be sent as it is: because it does not get smaller, or because it
/// gets so small that the peer must take it for a decompression bomb.
pub(crate) fn compress_for_peer(codec: Codec, body: &[u8]) -> Option<Vec<u8>> {
    compress(codec, body).filter(|compressed| body.len() <= expanded_bytes_max(compressed.len()))
}

/// Compresses a body however small it gets; `None` if it does not get smaller.
pub(crate) fn compress(codec: Codec, body: &[u8]) -> Option<Vec<u8>> {
    let compressed = match codec {
        Codec::Brotli => compress_brotli(body),
        Codec::Zstd => compress_zstd(body),
    };
    compressed.filter(|compressed| compressed.len() < body.len())
}

fn compress_brotli(body: &[u8]) -> Option<Vec<u8>> {
    let window_bits = body.len().next_power_of_two().trailing_zeros().clamp(10, 22);
    let params = BrotliEncoderParams {
        quality: BROTLI_QUALITY,
        lgwin: i32::try_from(window_bits).expect("10 to 22"),
        size_hint: body.len(),
        large_window: false,
        ..BrotliEncoderParams::default()
    };
    let mut out = Vec::with_capacity(body.len() / 3);
    brotli::BrotliCompress(&mut &*body, &mut out, &params).ok()?;
    Some(out)
}

fn compress_zstd(body: &[u8]) -> Option<Vec<u8>> {
    ZSTD_OUT.with_borrow_mut(|context| {
        if context.is_none() {
            *context = Compressor::new(ZSTD_LEVEL).ok();
        }
        context.as_mut()?.compress(body).ok()
    })
}

/// Decompresses a body to exactly its declared length, which was checked against the limits before.
///
/// # Errors
/// When it does not decompress, or not to that length, or has something after its end.
pub(crate) fn decompress(codec: Codec, body: &[u8], raw_bytes: usize) -> Result<Bytes, FrameError> {
    match codec {
        Codec::Brotli => decompress_brotli(body, raw_bytes),
        Codec::Zstd => decompress_zstd(body, raw_bytes),
    }
}

/// Gives the decoder no more for its window than the content can need. A stream may name any window up to 16 MiB; the
/// decoder would get it, and fill it, before it gives out the first byte.
struct WindowAlloc {
    bytes_max: usize,
}

impl Allocator<u8> for WindowAlloc {
    type AllocatedMemory = <StandardAlloc as Allocator<u8>>::AllocatedMemory;

    fn alloc_cell(&mut self, len: usize) -> Self::AllocatedMemory {
        // None at all is how the decoder learns that there is not enough.
        if len > self.bytes_max { Self::AllocatedMemory::default() } else { StandardAlloc {}.alloc_cell(len) }
    }

    fn free_cell(&mut self, data: Self::AllocatedMemory) {
        StandardAlloc {}.free_cell(data);
    }
}

fn decompress_brotli(body: &[u8], raw_bytes: usize) -> Result<Bytes, FrameError> {
    let window = raw_bytes.next_power_of_two().max(BROTLI_WINDOW_BYTES_LEAST);
    let windows = WindowAlloc { bytes_max: window + BROTLI_SLACK_BYTES };
    // "strict" is what turns windows above 16 MiB off.
    let mut state = BrotliState::new_strict(windows, StandardAlloc::default(), StandardAlloc::default());
    let mut out = vec![0; raw_bytes];
    let (mut available_in, mut input_at) = (body.len(), 0);
    let (mut available_out, mut output_at, mut total) = (raw_bytes, 0, 0);
    let result = BrotliDecompressStream(
        &mut available_in,
        &mut input_at,
        body,
        &mut available_out,
        &mut output_at,
        &mut out,
        &mut total,
        &mut state,
    );
    match result {
        BrotliResult::ResultSuccess if output_at == raw_bytes && available_in == 0 => Ok(out.into()),
        BrotliResult::ResultSuccess | BrotliResult::NeedsMoreOutput => Err(FrameError::BodyLength),
        BrotliResult::NeedsMoreInput | BrotliResult::ResultFailure => Err(FrameError::Body),
    }
}

fn decompress_zstd(body: &[u8], raw_bytes: usize) -> Result<Bytes, FrameError> {
    let mut out = Vec::with_capacity(raw_bytes);
    let written = ZSTD_IN.with_borrow_mut(|context| {
        if context.is_none() {
            *context = Decompressor::new().ok();
        }
        context.as_mut()?.decompress_to_buffer(body, &mut out).ok()
    });
    match written {
        Some(written) if written == raw_bytes => Ok(out.into()),
        Some(_) => Err(FrameError::BodyLength),
        None => Err(FrameError::Body),
    }
}

#[cfg(test)]
mod tests {
    use entgldb_replica::limits::FRAME_BYTES_HARD;

    use super::*;
    use crate::frame::{FrameDecoder, put_header};

    const CODECS: [Codec; 2] = [Codec::Brotli, Codec::Zstd];

    fn text(bytes: usize) -> Vec<u8> {
        (0u32..)
            .flat_map(|n| format!("{{\"id\":{n},\"price\":{}}}", n * 31 % 97).into_bytes())
            .take(bytes)
            .collect()
    }

    /// Zeros, compressed without regard to the receiver's limits.
    fn bomb(codec: Codec, raw_bytes: usize) -> Vec<u8> {
        compress(codec, &vec![0; raw_bytes]).unwrap()
    }

    #[test]
    fn bodies_of_all_sizes_come_back_and_get_smaller() {
        for codec in CODECS {
            for bytes in [1024, 1025, 65_535, 65_536, 1 << 20, 5 << 20] {
                let body = text(bytes);
                let compressed = compress(codec, &body).unwrap();
                assert!(compressed.len() < bytes / 2);
                assert_eq!(decompress(codec, &compressed, bytes).unwrap(), body);
            }
        }
    }

    #[test]
    fn what_does_not_get_smaller_is_not_compressed() {
        let mut noise = vec![0; 10_000];
        getrandom::fill(&mut noise).unwrap();
        assert!(CODECS.into_iter().all(|codec| compress(codec, &noise).is_none()));
    }

    #[test]
    fn a_bomb_that_lies_about_its_length_is_not_unpacked_beyond_it() {
        for codec in CODECS {
            for raw_bytes in [70_000, 1 << 20, 16 << 20, 64 << 20] {
                let bomb = bomb(codec, raw_bytes);
                for declared in [0, 1, 1000, EXPANDED_MAX.min(raw_bytes - 1)] {
                    assert!(
                        decompress(codec, &bomb, declared).is_err(),
                        "{codec:?} {raw_bytes} as {declared}"
                    );
                }
            }
        }
    }

    /// What the frame decoder lets a small body declare.
    const EXPANDED_MAX: usize = entgldb_replica::limits::EXPANSION_BASE_BYTES;

    #[test]
    fn a_body_must_fill_its_declared_length_exactly_and_end_there() {
        for codec in CODECS {
            let body = text(5000);
            let compressed = compress(codec, &body).unwrap();
            for declared in [0, 4999, 5001, 50_000] {
                assert!(decompress(codec, &compressed, declared).is_err(), "{codec:?} {declared}");
            }
            for cut in [0, 1, compressed.len() / 2, compressed.len() - 1] {
                assert!(decompress(codec, &compressed[..cut], 5000).is_err(), "{codec:?} cut at {cut}");
            }
            let longer = [&compressed[..], b"x"].concat();
            assert!(decompress(codec, &longer, 5000).is_err(), "{codec:?} with something after its end");
            let twice = [&compressed[..], &compressed[..]].concat();
            assert!(decompress(codec, &twice, 5000).is_err(), "{codec:?} twice");
        }
    }

    #[test]
    fn a_brotli_stream_whose_window_is_larger_than_its_content_needs_is_refused() {
        let with_window = |lgwin: i32, body: &[u8]| {
            let params = BrotliEncoderParams { quality: 2, lgwin, ..Default::default() };
            let mut out = Vec::new();
            brotli::BrotliCompress(&mut &*body, &mut out, &params).unwrap();
            out
        };
        // More than one block, so that the decoder cannot make the window smaller by itself.
        let bomb = with_window(24, &vec![0; 32 << 20]);
        for declared in [0, 1000, EXPANDED_MAX] {
            assert_eq!(decompress(Codec::Brotli, &bomb, declared), Err(FrameError::Body), "{declared}");
        }
        for lgwin in 10..=16 {
            let body = text(70_000);
            assert_eq!(decompress(Codec::Brotli, &with_window(lgwin, &body), body.len()).unwrap(), body);
        }
    }

    #[test]
    fn a_brotli_stream_with_a_window_over_16_mib_is_refused() {
        let params = BrotliEncoderParams { quality: 2, lgwin: 28, large_window: true, ..Default::default() };
        let body = text(100_000);
        let mut large = Vec::new();
        brotli::BrotliCompress(&mut &body[..], &mut large, &params).unwrap();
        // An ordinary decoder takes it, so it is only the window that is refused.
        let mut lax = Vec::new();
        brotli::BrotliDecompress(&mut &large[..], &mut lax).unwrap();
        assert_eq!(lax, body);
        assert!(decompress(Codec::Brotli, &large, body.len()).is_err());
    }

    /// Contents that compress well: one byte, one text, equal rows, a text with noise in it.
    fn contents(kind: usize, bytes: usize, seed: u8) -> Vec<u8> {
        let text = b"the same long text in every row, ";
        match kind {
            0 => vec![0; bytes],
            1 => vec![seed; bytes],
            2 => text.iter().copied().cycle().take(bytes).collect(),
            3 => format!("{{\"id\":{seed},\"note\":\"{}\"}}", "x".repeat(500))
                .into_bytes()
                .into_iter()
                .cycle()
                .take(bytes)
                .collect(),
            _ => (0..bytes)
                .map(|at| if at % 20_011 == 0 { (at / 20_011) as u8 ^ seed } else { text[at % text.len()] })
                .collect(),
        }
    }

    /// What a receiver makes of a frame that a sender sends with this body.
    fn through_a_frame(codec: Codec, body: &[u8]) -> Result<Bytes, FrameError> {
        let compressed = compress_for_peer(codec, body);
        let sent = compressed.as_deref().unwrap_or(body);
        let mut wire = Vec::new();
        put_header(&mut wire, 16, compressed.as_ref().map(|_| codec), body.len(), sent.len());
        wire.extend_from_slice(sent);
        let mut receiver = FrameDecoder::new(FRAME_BYTES_HARD, CODECS.to_vec());
        let copied: Result<(), std::convert::Infallible> = receiver.receive(wire.len(), |room| {
            room.copy_from_slice(&wire);
            Ok(())
        });
        let Ok(()) = copied;
        let frame = receiver.next()?.expect("the frame is whole");
        match frame.codec {
            Some(codec) => decompress(codec, &frame.body, frame.raw_bytes),
            None => Ok(frame.body),
        }
    }

    #[test]
    fn a_body_at_the_limit_of_expansion_is_sent_compressed_and_one_over_it_as_it_is() {
        for codec in CODECS {
            let mut largest = None;
            for bytes in (60_000..200_000).step_by(997) {
                let body = vec![0; bytes];
                let bomb = compress(codec, &body).unwrap();
                let is_sent = compress_for_peer(codec, &body).is_some();
                assert_eq!(is_sent, bytes <= expanded_bytes_max(bomb.len()), "{codec:?} {bytes}");
                largest = if is_sent { Some(bytes) } else { largest };
            }
            assert!(
                largest.is_some_and(|bytes| (60_000..190_000).contains(&bytes)),
                "{codec:?}: {largest:?}"
            );
        }
    }

    proptest::proptest! {
        #![proptest_config(proptest::prelude::ProptestConfig::with_cases(32))]
        #[test]
        fn what_a_sender_makes_of_contents_that_compress_well_every_receiver_takes(
            kind in 0usize..5,
            base in proptest::sample::select(vec![1_024, 64 << 10, 95_000, 180_000, 1 << 20, 4 << 20]),
            off in -40_000i64..40_000,
            seed in 1u8..255,
        ) {
            let bytes = usize::try_from((base + off).max(1)).unwrap();
            let body = contents(kind, bytes, seed);
            for codec in CODECS {
                let taken = through_a_frame(codec, &body);
                let is_whole = taken.as_ref().is_ok_and(|taken| *taken == body);
                proptest::prop_assert!(is_whole, "{:?}: {:?}", codec, taken.map(|taken| taken.len()));
            }
        }
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_decompress_to_the_declared_length_or_not_at_all(
            body in proptest::collection::vec(proptest::arbitrary::any::<u8>(), 0..400),
            raw_bytes in 0usize..3000,
        ) {
            for codec in CODECS {
                if let Ok(out) = decompress(codec, &body, raw_bytes) {
                    proptest::prop_assert_eq!(out.len(), raw_bytes);
                }
            }
        }

        #[test]
        fn a_compressed_body_with_a_flipped_bit_does_no_harm(at in 0usize..10_000, bit in 0u8..8) {
            for codec in CODECS {
                let mut compressed = compress(codec, &text(3000)).unwrap();
                let at = at % compressed.len();
                compressed[at] ^= 1 << bit;
                if let Ok(out) = decompress(codec, &compressed, 3000) {
                    proptest::prop_assert_eq!(out.len(), 3000);
                }
            }
        }
    }
}
