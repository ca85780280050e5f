//! Frames: the messages inside the stream of decrypted records.
//!
//! ```text
//! length  u32, big endian: bytes that follow
//! kind    varint (LEB128, shortest form)
//! flags   one byte: the codec of the body (0 none, 1 brotli, 2 zstd); other bits are 0
//! raw     varint: bytes of the body once decompressed
//! body    the rest
//! ```
//!
//! A frame may span records, and a record may carry many frames. Every length is checked as soon as it is there, before
//! anything is allocated for it; the buffer grows with bytes that were really received.

use bytes::{Buf, Bytes, BytesMut};
use entgldb_replica::limits::expanded_bytes_max;

use crate::config::Codec;

/// The responder's first record: it has accepted the initiator.
pub(crate) const READY: u64 = 0;
/// The sender has nothing to say and is alive. Not answered.
pub(crate) const ALIVE: u64 = 1;
/// The last frame of a stream; its body is the reason in UTF-8.
pub(crate) const CLOSE: u64 = 2;
/// The first kind of the session layer.
pub(crate) const SESSION_KINDS: u64 = 16;

const LENGTH_BYTES: usize = 4;
const VARINT_BYTES_MAX: usize = 10;
/// kind, flags, raw length.
const HEADER_BYTES_MAX: usize = VARINT_BYTES_MAX + 1 + VARINT_BYTES_MAX;
/// Smaller bodies are copied out of the receive buffer, so that a frame that is kept does not pin the whole buffer.
const COPY_BELOW_BYTES: usize = 4096;

/// What a peer may not send. The link is closed; nothing of the frame was delivered.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FrameError {
    /// A frame is larger than we said that we take.
    #[error("a frame of {bytes} bytes is over the limit of {max} (frame_bytes_max)")]
    TooLarge {
        /// What it declares.
        bytes: u64,
        /// What we take.
        max: usize,
    },
    /// A compressed frame declares more content than its size may hold: a decompression bomb.
    #[error("a frame of {compressed} bytes declares {raw} (EXPANSION_RATIO_MAX)")]
    Expansion {
        /// Bytes received.
        compressed: usize,
        /// Bytes declared.
        raw: u64,
    },
    /// The header of a frame cannot be read.
    #[error("the header of a frame is malformed")]
    Header,
    /// Flags that we do not know, or a codec that we did not offer.
    #[error("a frame has the flags {0:#04x}, which were not agreed on")]
    Flags(u8),
    /// The body does not have, or does not decompress to, the length that was declared.
    #[error("the body of a frame does not have its declared length")]
    BodyLength,
    /// The body does not decompress.
    #[error("the body of a frame does not decompress")]
    Body,
    /// A kind below 16 that this version does not have, or not at this place.
    #[error("the transport has no frame of kind {0} here")]
    Kind(u64),
    /// A record with nothing in it, or too short to be one.
    #[error("a record is too short")]
    Record,
}

/// A frame as it was on the wire: its body is still compressed if `codec` says so.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct WireFrame {
    pub(crate) kind: u64,
    pub(crate) codec: Option<Codec>,
    pub(crate) raw_bytes: usize,
    pub(crate) body: Bytes,
}

/// Puts everything before the body at the end of `out`.
pub(crate) fn put_header(
    out: &mut Vec<u8>,
    kind: u64,
    codec: Option<Codec>,
    raw_bytes: usize,
    body_bytes: usize,
) {
    let start = out.len();
    out.extend_from_slice(&[0; LENGTH_BYTES]);
    put_varint(out, kind);
    out.push(codec.map_or(0, Codec::wire));
    put_varint(out, raw_bytes as u64);
    let length = out.len() - start - LENGTH_BYTES + body_bytes;
    let length = u32::try_from(length).expect("a frame is below 4 GiB by its limit");
    out[start..start + LENGTH_BYTES].copy_from_slice(&length.to_be_bytes());
}

fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Reads a varint in its shortest form off the front.
fn take_varint(bytes: &mut &[u8]) -> Result<u64, FrameError> {
    let mut value = 0u64;
    for place in 0..VARINT_BYTES_MAX {
        let (&byte, rest) = bytes.split_first().ok_or(FrameError::Header)?;
        *bytes = rest;
        let part = u64::from(byte & 0x7f);
        let shift = 7 * place as u32;
        if shift == 63 && part > 1 {
            return Err(FrameError::Header);
        }
        value |= part << shift;
        if byte < 0x80 {
            let shortest = place == 0 || byte != 0;
            return if shortest { Ok(value) } else { Err(FrameError::Header) };
        }
    }
    Err(FrameError::Header)
}

/// Cuts the stream of decrypted bytes into frames.
pub(crate) struct FrameDecoder {
    received: BytesMut,
    frame_bytes_max: usize,
    codecs: Vec<Codec>,
}

impl FrameDecoder {
    /// For bodies up to `frame_bytes_max`, plain or in one of the codecs.
    pub(crate) fn new(frame_bytes_max: usize, codecs: Vec<Codec>) -> Self {
        Self { received: BytesMut::new(), frame_bytes_max, codecs }
    }

    /// Whether a frame has begun and is not complete.
    pub(crate) fn is_mid_frame(&self) -> bool {
        !self.received.is_empty()
    }

    /// Bytes of the frame that has begun, as far as they are here.
    pub(crate) fn buffered(&self) -> usize {
        self.received.len()
    }

    /// Makes room for so many decrypted bytes and lets `fill` write them in place.
    pub(crate) fn receive<E>(
        &mut self,
        bytes: usize,
        fill: impl FnOnce(&mut [u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        let start = self.received.len();
        self.received.resize(start + bytes, 0);
        fill(&mut self.received[start..])
    }

    /// The next complete frame.
    ///
    /// # Errors
    /// When the peer broke a rule. The stream has no meaning after that.
    pub(crate) fn next(&mut self) -> Result<Option<WireFrame>, FrameError> {
        let Some(length) = self.received.first_chunk::<LENGTH_BYTES>() else { return Ok(None) };
        let length = u32::from_be_bytes(*length);
        if length as usize > HEADER_BYTES_MAX + self.frame_bytes_max {
            return Err(FrameError::TooLarge { bytes: length.into(), max: self.frame_bytes_max });
        }
        let total = LENGTH_BYTES + length as usize;
        let have = self.received.len().min(total);
        let (kind, codec, raw_bytes, header_bytes) = match self.header(have, length as usize) {
            Ok(header) => header,
            // The header itself may still be on its way; a wrong one shows as soon as it is whole.
            Err(FrameError::Header) if have < total && have < LENGTH_BYTES + HEADER_BYTES_MAX => {
                return Ok(None);
            }
            Err(error) => return Err(error),
        };
        if self.received.len() < total {
            return Ok(None);
        }
        self.received.advance(header_bytes);
        let body_bytes = total - header_bytes;
        let body = if body_bytes < COPY_BELOW_BYTES {
            let body = Bytes::copy_from_slice(&self.received[..body_bytes]);
            self.received.advance(body_bytes);
            body
        } else {
            self.received.split_to(body_bytes).freeze()
        };
        Ok(Some(WireFrame { kind, codec, raw_bytes, body }))
    }

    /// Reads and checks the header of the frame at the front, of which `have` bytes are there.
    fn header(&self, have: usize, length: usize) -> Result<(u64, Option<Codec>, usize, usize), FrameError> {
        let mut rest = &self.received[LENGTH_BYTES..have];
        let kind = take_varint(&mut rest)?;
        let (&flags, after_flags) = rest.split_first().ok_or(FrameError::Header)?;
        rest = after_flags;
        let codec = match flags {
            0 => None,
            number => match Codec::from_wire(number) {
                Some(codec) if self.codecs.contains(&codec) => Some(codec),
                _ => return Err(FrameError::Flags(flags)),
            },
        };
        let raw = take_varint(&mut rest)?;
        let header_bytes = have - rest.len();
        let body_bytes = LENGTH_BYTES + length - header_bytes;
        let raw_bytes = self.checked_raw_length(codec, raw, body_bytes)?;
        Ok((kind, codec, raw_bytes, header_bytes))
    }

    fn checked_raw_length(
        &self,
        codec: Option<Codec>,
        raw: u64,
        body_bytes: usize,
    ) -> Result<usize, FrameError> {
        let too_large = FrameError::TooLarge { bytes: raw, max: self.frame_bytes_max };
        let raw_bytes = usize::try_from(raw).map_err(|_| too_large.clone())?;
        if raw_bytes > self.frame_bytes_max {
            return Err(too_large);
        }
        match codec {
            None if raw_bytes != body_bytes => Err(FrameError::BodyLength),
            Some(_) if raw_bytes > expanded_bytes_max(body_bytes) => {
                Err(FrameError::Expansion { compressed: body_bytes, raw })
            }
            _ => Ok(raw_bytes),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MAX: usize = 100_000;

    fn decoder() -> FrameDecoder {
        FrameDecoder::new(MAX, vec![Codec::Zstd, Codec::Brotli])
    }

    fn feed(decoder: &mut FrameDecoder, bytes: &[u8]) {
        decoder
            .receive(bytes.len(), |room| {
                room.copy_from_slice(bytes);
                Ok::<_, ()>(())
            })
            .unwrap();
    }

    fn encode(kind: u64, codec: Option<Codec>, raw_bytes: usize, body: &[u8]) -> Vec<u8> {
        let mut wire = Vec::new();
        put_header(&mut wire, kind, codec, raw_bytes, body.len());
        wire.extend_from_slice(body);
        wire
    }

    /// What the decoder says of these bytes.
    fn first(bytes: &[u8]) -> Result<Option<WireFrame>, FrameError> {
        let mut decoder = decoder();
        feed(&mut decoder, bytes);
        decoder.next()
    }

    #[test]
    fn a_frame_has_the_documented_bytes() {
        assert_eq!(encode(16, None, 2, b"hi"), b"\0\0\0\x05\x10\x00\x02hi");
        assert_eq!(encode(300, Some(Codec::Zstd), 1000, b"z"), b"\0\0\0\x06\xac\x02\x02\xe8\x07z");
        assert_eq!(encode(ALIVE, None, 0, b""), b"\0\0\0\x03\x01\x00\x00");
    }

    #[test]
    fn a_length_over_the_limit_is_refused_from_its_four_bytes_alone_and_nothing_is_allocated() {
        for length in [u32::MAX, 1 << 31, (MAX + HEADER_BYTES_MAX + 1) as u32] {
            let mut decoder = decoder();
            feed(&mut decoder, &length.to_be_bytes());
            let error = FrameError::TooLarge { bytes: length.into(), max: MAX };
            assert_eq!(decoder.next(), Err(error));
            assert!(decoder.received.capacity() < 1024);
        }
    }

    #[test]
    fn a_body_at_the_limit_passes_and_one_byte_more_is_refused() {
        let body = vec![7; MAX + 1];
        assert!(first(&encode(16, None, MAX, &body[1..])).unwrap().is_some());
        assert!(matches!(first(&encode(16, None, MAX + 1, &body)), Err(FrameError::TooLarge { .. })));
        assert!(matches!(
            first(&encode(16, Some(Codec::Zstd), MAX + 1, &body[..5000])),
            Err(FrameError::TooLarge { .. })
        ));
        let mut endless = encode(16, Some(Codec::Zstd), 0, b"");
        endless.truncate(endless.len() - 1);
        put_varint(&mut endless, u64::MAX);
        endless[3] = (endless.len() - LENGTH_BYTES) as u8;
        assert!(matches!(first(&endless), Err(FrameError::TooLarge { bytes: u64::MAX, .. })));
    }

    #[test]
    fn a_declared_expansion_beyond_the_ratio_is_refused_before_the_body_is_there() {
        const LIMIT: usize = expanded_bytes_max(10);
        assert!(first(&encode(16, Some(Codec::Brotli), LIMIT, &[0; 10])).unwrap().is_some());
        let bomb = encode(16, Some(Codec::Brotli), LIMIT + 1, &[0; 10]);
        let error = FrameError::Expansion { compressed: 10, raw: LIMIT as u64 + 1 };
        assert_eq!(first(&bomb), Err(error.clone()));
        assert_eq!(first(&bomb[..bomb.len() - 10]), Err(error));
    }

    #[test]
    fn headers_that_were_not_agreed_on_are_refused() {
        let frame = encode(16, None, 3, b"abc");
        let with = |at: usize, byte: u8| {
            let mut frame = frame.clone();
            frame[at] = byte;
            first(&frame)
        };
        assert_eq!(with(5, 3), Err(FrameError::Flags(3)));
        assert_eq!(with(5, 0x80), Err(FrameError::Flags(0x80)));
        assert_eq!(with(6, 2), Err(FrameError::BodyLength));
        assert_eq!(with(6, 4), Err(FrameError::BodyLength));
        for length in 0..3 {
            assert_eq!(first(&[&[0, 0, 0, length], &frame[4..]].concat()), Err(FrameError::Header));
        }
        let mut brotli_only = FrameDecoder::new(MAX, vec![Codec::Brotli]);
        feed(&mut brotli_only, &encode(16, Some(Codec::Zstd), 3, b"abc"));
        assert_eq!(brotli_only.next(), Err(FrameError::Flags(2)));
    }

    #[test]
    fn a_number_has_one_form_only() {
        let number = |bytes: &[u8]| take_varint(&mut &*bytes);
        assert_eq!(number(&[0]), Ok(0));
        assert_eq!(number(&[0x80, 0]), Err(FrameError::Header));
        assert_eq!(number(&[0xff, 0x80, 0]), Err(FrameError::Header));
        assert_eq!(number(&[0xff; 10]), Err(FrameError::Header));
        let mut largest = vec![0xff; 9];
        largest.push(1);
        assert_eq!(number(&largest), Ok(u64::MAX));
        largest[9] = 2;
        assert_eq!(number(&largest), Err(FrameError::Header));
        assert_eq!(number(&[0x80]), Err(FrameError::Header));
    }

    fn any_codec() -> impl Strategy<Value = Option<Codec>> {
        prop_oneof![Just(None), Just(Some(Codec::Brotli)), Just(Some(Codec::Zstd))]
    }

    proptest! {
        #[test]
        fn frames_come_out_as_they_went_in_however_the_stream_is_cut(
            frames in prop::collection::vec((any::<u64>(), any_codec(), prop::collection::vec(any::<u8>(), 0..6000)), 1..8),
            piece in 1usize..9000,
        ) {
            let mut wire = Vec::new();
            for (kind, codec, body) in &frames {
                wire.extend(encode(*kind, *codec, body.len(), body));
            }
            let mut decoder = decoder();
            let mut decoded = Vec::new();
            for piece in wire.chunks(piece) {
                feed(&mut decoder, piece);
                while let Some(frame) = decoder.next().unwrap() {
                    decoded.push((frame.kind, frame.codec, frame.body.to_vec()));
                    prop_assert_eq!(frame.raw_bytes, frame.body.len());
                }
            }
            prop_assert_eq!(decoded, frames);
            prop_assert!(!decoder.is_mid_frame());
        }

        #[test]
        fn any_bytes_give_frames_within_the_limits_or_an_error(
            pieces in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..300), 0..20),
            length in 0u32..400,
        ) {
            let mut decoder = decoder();
            // A believable length lets the rest of the header be reached too.
            feed(&mut decoder, &length.to_be_bytes());
            for piece in pieces {
                feed(&mut decoder, &piece);
                loop {
                    match decoder.next() {
                        Ok(Some(frame)) => prop_assert!(frame.raw_bytes <= MAX && frame.body.len() <= MAX),
                        Ok(None) => break,
                        Err(_) => return Ok(()),
                    }
                }
            }
        }
    }
}
