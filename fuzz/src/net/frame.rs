//! Target `frame`: the stream of decrypted bytes, cut into frames, decompressed.
//!
//! Input: largest frame (choice), codecs (bits), size of the pieces in which the stream comes, the stream.

use entgldb_net::fuzzing::{self, Frames, RawFrame};
use entgldb_net::{Codec, FrameError};
use entgldb_replica::limits::{EXPANSION_BASE_BYTES, EXPANSION_RATIO_MAX};

const FRAME_BYTES_MAX: [usize; 4] = [1, 200, 5000, 100_000];
const HEADER_BYTES_MAX: usize = 21;

#[derive(Debug, PartialEq)]
struct Outcome {
    frames: Vec<RawFrame>,
    error: Option<FrameError>,
}

/// Any stream gives frames within the limits, the same ones however it is cut into pieces, and then perhaps an error.
///
/// # Panics
/// When that does not hold.
pub fn check(data: &[u8]) {
    let [max, codecs, piece, stream @ ..] = data else { return };
    let max = FRAME_BYTES_MAX[usize::from(max % 4)];
    let codecs: Vec<Codec> = [(1, Codec::Brotli), (2, Codec::Zstd)]
        .into_iter()
        .filter(|(bit, _)| codecs & bit != 0)
        .map(|(_, codec)| codec)
        .collect();
    let whole = decode(Frames::new(max, &codecs), stream.chunks(stream.len().max(1)));
    let pieces = decode(Frames::new(max, &codecs), stream.chunks(usize::from(*piece) + 1));
    assert_eq!(whole, pieces, "the frames depend on how the stream is cut");

    let mut again = Vec::new();
    for frame in &whole.frames {
        assert!(frame.raw_bytes <= max && frame.body.len() <= max + HEADER_BYTES_MAX);
        again.extend(fuzzing::frame(frame.kind, frame.codec, frame.raw_bytes, &frame.body));
        match frame.codec {
            None => assert_eq!(frame.raw_bytes, frame.body.len()),
            Some(codec) => {
                assert!(codecs.contains(&codec), "a codec that was not agreed on");
                assert!(frame.raw_bytes <= EXPANSION_BASE_BYTES + EXPANSION_RATIO_MAX * frame.body.len());
                if let Ok(body) = fuzzing::decompress(codec, &frame.body, frame.raw_bytes) {
                    assert_eq!(body.len(), frame.raw_bytes);
                }
            }
        }
    }
    assert!(stream.starts_with(&again), "a frame has one form only");
}

fn decode<'a>(mut frames: Frames, pieces: impl Iterator<Item = &'a [u8]>) -> Outcome {
    let mut outcome = Outcome { frames: Vec::new(), error: None };
    for piece in pieces {
        frames.receive(piece);
        loop {
            match frames.next_frame() {
                Ok(Some(frame)) => outcome.frames.push(frame),
                Ok(None) => break,
                Err(error) => {
                    outcome.error = Some(error);
                    return outcome;
                }
            }
        }
    }
    outcome
}
