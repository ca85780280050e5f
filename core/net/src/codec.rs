//! Compressing and decompressing frame bodies.
//!
//! Contexts belong to threads, not to links: a zstd context is about a megabyte, and there may be 256 links.

use std::cell::RefCell;

use brotli::enc::{BrotliEncoderParams, StandardAlloc};
use brotli::{BrotliDecompressStream, BrotliResult, BrotliState};
use bytes::Bytes;
use zstd::bulk::{Compressor, Decompressor};

use crate::config::Codec;
use crate::frame::FrameError;

/// Measured best for batches of documents: higher levels cost more than a LAN gives back.
const ZSTD_LEVEL: i32 = 1;
/// The lowest level that finds repetitions beyond a few bytes.
const BROTLI_QUALITY: i32 = 2;

thread_local! {
    static ZSTD_IN: RefCell<Option<Decompressor<'static>>> = const { RefCell::new(None) };
    static ZSTD_OUT: RefCell<Option<Compressor<'static>>> = const { RefCell::new(None) };
}

/// Whether work on so many bytes takes long enough (about a millisecond) to hold up other links of the same thread.
pub(crate) fn is_slow(codec: Codec, raw_bytes: usize) -> bool {
    match codec {
        Codec::Brotli => raw_bytes >= 128 << 10,
        Codec::Zstd => raw_bytes >= 1 << 20,
    }
}

/// Compresses a body; `None` if that does not make it smaller.
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

fn decompress_brotli(body: &[u8], raw_bytes: usize) -> Result<Bytes, FrameError> {
    // "strict" is what turns windows above 16 MiB off.
    let mut state =
        BrotliState::new_strict(StandardAlloc::default(), StandardAlloc::default(), StandardAlloc::default());
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
