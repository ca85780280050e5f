//! Decompression bombs: bodies that are small on the wire and pretend to be, or would become, something large. Each one is
//! refused before it has cost memory or time worth mentioning.
//!
//! Memory is measured as the peak of a process's resident set while it handles one bomb. Where the system can't tell (no
//! `/proc`), the outcome is checked and the memory is not. Times are told, not checked: they are the machine's business.

#![allow(clippy::print_stdout, reason = "it tells what was measured")]

use std::fs;
use std::process::Command;
use std::time::Instant;

use brotli::enc::BrotliEncoderParams;
use entgldb_net::Codec;
use entgldb_net::fuzzing::{Frames, compress, decompress, frame};
use entgldb_replica::limits::{EXPANSION_BASE_BYTES, EXPANSION_RATIO_MAX, FRAME_BYTES_DEFAULT};

const MIB: usize = 1 << 20;
/// What one bomb may cost at its peak. One that may declare more because it is large itself may cost the content that it
/// declares, and a window for it.
const PEAK_BYTES_MAX: usize = MIB;
const BOMBS_MIN: usize = 50;
/// How often the time of each is taken.
const TIMES: usize = 7;
/// Where the process that measures finds the bombs.
const FOLDER: &str = "ENTGLDB_BOMBS";

struct Bomb {
    name: String,
    /// The frame, header and all.
    wire: Vec<u8>,
    /// What it declares.
    declared: u64,
    /// Where it must be refused at the latest.
    before_decoding: bool,
}

/// Where and how a frame was refused; `Err` with what came out if it was not.
fn refusal(wire: &[u8]) -> Result<&'static str, usize> {
    let mut frames = Frames::new(FRAME_BYTES_DEFAULT, &[Codec::Zstd, Codec::Brotli]);
    frames.receive(wire);
    match frames.next_frame() {
        Err(_) => Ok("header"),
        Ok(None) => panic!("the bomb is not complete"),
        Ok(Some(frame)) => {
            let codec = frame.codec.expect("bombs are compressed");
            assert!(frame.raw_bytes <= EXPANSION_BASE_BYTES + EXPANSION_RATIO_MAX * frame.body.len());
            match decompress(codec, &frame.body, frame.raw_bytes) {
                Err(_) => Ok("decoder"),
                Ok(body) => Err(body.len()),
            }
        }
    }
}

/// A number of the kernel's about this process, in bytes.
fn memory(field: &str) -> Option<usize> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|line| line.starts_with(field))?;
    Some(line.split_whitespace().nth(1)?.parse::<usize>().ok()? * 1024)
}

/// The shortest of several times that one refusal took, in microseconds: the others had to wait for somebody.
fn micros(wire: &[u8]) -> u128 {
    let once = || {
        let begun = Instant::now();
        std::hint::black_box(refusal(wire).is_ok());
        begun.elapsed().as_micros()
    };
    (0..TIMES).map(|_| once()).min().unwrap_or_default()
}

/// The most that the process held beyond what it holds, while `work` ran. `None` where the system can't tell.
fn peak_of<T>(work: impl FnOnce() -> T) -> (T, Option<usize>) {
    // Makes the kernel forget the peak so far.
    let is_reset = fs::write("/proc/self/clear_refs", "5").is_ok();
    let before = memory("VmRSS:");
    let done = work();
    let peak = memory("VmHWM:").zip(before).map(|(peak, before)| peak.saturating_sub(before));
    (done, peak.filter(|_| is_reset))
}

#[test]
fn every_bomb_is_refused_within_a_mebibyte() {
    let bombs = bombs();
    assert!(bombs.len() >= BOMBS_MIN, "only {} bombs", bombs.len());
    let folder = tempfile::tempdir().unwrap();
    for (number, bomb) in bombs.iter().enumerate() {
        let first_line = format!("{} {} {}\n", u8::from(bomb.before_decoding), bomb.declared, bomb.name);
        let file = [first_line.as_bytes(), &bomb.wire].concat();
        fs::write(folder.path().join(format!("{number:03}")), file).unwrap();
    }
    // A process of its own: in this one, the heap has room left over from making the bombs, which would hide what they cost.
    let outcome = Command::new(std::env::current_exe().unwrap())
        .args(["--ignored", "--exact", "refuse_the_bombs_in_a_folder", "--nocapture"])
        .env(FOLDER, folder.path())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&outcome.stdout);
    let complained = String::from_utf8_lossy(&outcome.stderr);
    assert!(outcome.status.success(), "{said}{complained}");
    assert!(said.contains("bombs; the slowest"), "it tells what the bombs cost");
    println!("{said}");
}

#[test]
#[ignore = "the other test runs it, in a process of its own"]
fn refuse_the_bombs_in_a_folder() {
    let folder = std::env::var_os(FOLDER).expect("the folder is named by the other test");
    let mut paths: Vec<_> = fs::read_dir(folder).unwrap().map(|file| file.unwrap().path()).collect();
    paths.sort();
    // Each thread has its contexts from the first body on.
    for codec in [Codec::Zstd, Codec::Brotli] {
        let body = compress(codec, &vec![b'x'; 1 << 16]).unwrap();
        assert_eq!(refusal(&frame(16, Some(codec), 1 << 16, &body)), Err(1 << 16), "an honest body passes");
    }
    let (_, seen) = peak_of(|| std::hint::black_box(vec![1u8; 2 * MIB]));
    assert!(seen.is_none_or(|seen| seen >= 3 * MIB / 2), "the measure does not see 2 MiB: {seen:?}");
    let (mut slowest, mut largest, mut within) = ((0, String::new()), (0, String::new()), 0);
    for path in &paths {
        let file = fs::read(path).unwrap();
        let end = file.iter().position(|byte| *byte == b'\n').unwrap();
        let (first_line, wire) = (String::from_utf8_lossy(&file[..end]).into_owned(), &file[end + 1..]);
        let mut words = first_line.splitn(3, ' ');
        let mut word = || words.next().unwrap();
        let (must_be_early, declared, name) = (word(), word().parse::<u64>().unwrap(), word());
        let (refused, peak) = peak_of(|| refusal(wire));
        let micros = micros(wire);
        let place = refused.unwrap_or_else(|bytes| panic!("{name} gave {bytes} bytes"));
        assert!(place == "header" || must_be_early == "0", "{name} came as far as the decoder");
        let peak = peak.unwrap_or_default();
        println!("{name}: {} bytes, {place}, {micros} us, {peak} bytes of memory", wire.len());
        let is_large = place == "decoder" && declared > PEAK_BYTES_MAX as u64 / 3;
        let allowed = if is_large { 3 * usize::try_from(declared).unwrap() } else { PEAK_BYTES_MAX };
        assert!(peak <= allowed, "{name} cost {peak} bytes");
        within += usize::from(!is_large);
        slowest = slowest.max((micros, name.to_owned()));
        largest = largest.max((peak, name.to_owned()));
    }
    assert!(within >= BOMBS_MIN, "only {within} bombs are held to {PEAK_BYTES_MAX} bytes");
    let (count, (micros, slow), (bytes, large)) = (paths.len(), slowest, largest);
    println!("{count} bombs; the slowest took {micros} us ({slow}), the largest {bytes} bytes ({large})");
}

fn bombs() -> Vec<Bomb> {
    let mut bombs = Vec::new();
    for codec in [Codec::Zstd, Codec::Brotli] {
        lengths_that_are_true(&mut bombs, codec);
        lengths_that_lie(&mut bombs, codec);
        bodies_in_pieces(&mut bombs, codec);
    }
    declared_lengths_beyond_all(&mut bombs);
    zstd_by_hand(&mut bombs);
    brotli_by_hand(&mut bombs);
    bombs
}

fn push(
    bombs: &mut Vec<Bomb>,
    name: String,
    codec: Codec,
    declared: usize,
    body: &[u8],
    before_decoding: bool,
) {
    let wire = frame(16, Some(codec), declared, body);
    bombs.push(Bomb { name, wire, declared: declared as u64, before_decoding });
}

/// As much as the frame decoder lets a body declare.
fn most(body: &[u8]) -> usize {
    (EXPANSION_BASE_BYTES + EXPANSION_RATIO_MAX * body.len()).min(FRAME_BYTES_DEFAULT)
}

fn zeros(codec: Codec, bytes: usize) -> Vec<u8> {
    compress(codec, &vec![0; bytes]).unwrap()
}

fn lengths_that_are_true(bombs: &mut Vec<Bomb>, codec: Codec) {
    for mebibytes in [1, 2, 3, 4, 8, 16, 64] {
        let body = zeros(codec, mebibytes * MIB);
        let name = format!("{codec:?} {mebibytes} MiB of zeros, declared as that");
        push(bombs, name, codec, mebibytes * MIB, &body, true);
    }
}

fn lengths_that_lie(bombs: &mut Vec<Bomb>, codec: Codec) {
    for mebibytes in [1, 16, 64] {
        let body = zeros(codec, mebibytes * MIB);
        for declared in [0, 1, EXPANSION_BASE_BYTES, most(&body)] {
            let name = format!("{codec:?} {mebibytes} MiB of zeros, declared as {declared}");
            push(bombs, name, codec, declared, &body, false);
        }
    }
    // A bomb in a bomb: what comes out is small, and would be one itself.
    let twice = compress(codec, &zeros(codec, 64 * MIB)).unwrap_or_else(|| zeros(codec, 64 * MIB));
    push(bombs, format!("{codec:?} twice"), codec, most(&twice), &twice, false);
}

/// Many small bodies one after another, each within its limits.
fn bodies_in_pieces(bombs: &mut Vec<Bomb>, codec: Codec) {
    let one = zeros(codec, 1 << 17);
    for count in [2, 10, 100] {
        let body = one.repeat(count);
        push(bombs, format!("{codec:?} {count} bodies of 128 KiB"), codec, most(&body), &body, false);
        push(bombs, format!("{codec:?} {count} bodies, the first declared"), codec, 1 << 17, &body, false);
    }
}

fn declared_lengths_beyond_all(bombs: &mut Vec<Bomb>) {
    for raw in [FRAME_BYTES_DEFAULT as u64 + 1, 1 << 31, 1 << 32, 1 << 63, u64::MAX] {
        let mut rest = vec![16, 2];
        let mut left = raw;
        while left >= 0x80 {
            rest.push(left as u8 | 0x80);
            left >>= 7;
        }
        rest.push(left as u8);
        rest.extend(zeros(Codec::Zstd, MIB));
        let length = u32::try_from(rest.len()).unwrap().to_be_bytes();
        let name = format!("a frame that declares {raw} bytes");
        let wire = [&length[..], &rest].concat();
        bombs.push(Bomb { name, wire, declared: raw, before_decoding: true });
    }
}

/// A zstd frame with this header, of blocks that each repeat one byte 128 KiB times from four bytes.
fn zstd_frame(descriptor: u8, header: &[u8], blocks: usize) -> Vec<u8> {
    const REPEAT: u32 = 1 << 1;
    let mut body = vec![0x28, 0xb5, 0x2f, 0xfd, descriptor];
    body.extend_from_slice(header);
    for number in 0..blocks {
        let is_last = u32::from(number + 1 == blocks);
        body.extend_from_slice(&((1 << 17) << 3 | REPEAT | is_last).to_le_bytes()[..3]);
        body.push(b'x');
    }
    body
}

fn zstd_by_hand(bombs: &mut Vec<Bomb>) {
    let mut push = |name: &str, body: Vec<u8>| {
        push(bombs, format!("zstd: {name}"), Codec::Zstd, most(&body), &body, false);
    };
    for (log, window) in [(27, 0x88u8), (31, 0xa8), (41, 0xf8)] {
        push(&format!("a window of 2^{log} bytes"), zstd_frame(0, &[window], 1000));
    }
    push("1,000 blocks that repeat a byte", zstd_frame(0, &[0x70], 1000));
    push("40 such blocks", zstd_frame(0, &[0x70], 40));
    push("a content size of 2^64 - 1", zstd_frame(0xe0, &[0xff; 8], 1000));
    push("a content size of 2^40 in one segment", zstd_frame(0xe0, &(1u64 << 40).to_le_bytes(), 1000));
    push("a dictionary that nobody has", zstd_frame(0x03, &[0x70, 1, 2, 3, 4], 1000));
    push("a piece to skip of 4 GiB", [&[0x50, 0x2a, 0x4d, 0x18][..], &[0xff; 4], &[0; 100]].concat());
    push("10,000 pieces to skip", [0x50, 0x2a, 0x4d, 0x18, 0, 0, 0, 0].repeat(10_000));
    push("10,000 empty blocks", [&zstd_frame(0, &[0x70], 0)[..], &[0, 0, 0].repeat(10_000)].concat());
}

fn brotli_by_hand(bombs: &mut Vec<Bomb>) {
    for window in [25, 28, 30] {
        let params =
            BrotliEncoderParams { quality: 2, lgwin: window, large_window: true, ..Default::default() };
        let mut body = Vec::new();
        brotli::BrotliCompress(&mut &vec![0; 16 * MIB][..], &mut body, &params).unwrap();
        let name = format!("brotli: a window of 2^{window} bytes");
        push(bombs, name, Codec::Brotli, most(&body), &body, false);
    }
    for window in [16, 22, 24] {
        let params = BrotliEncoderParams { quality: 2, lgwin: window, ..Default::default() };
        let mut body = Vec::new();
        brotli::BrotliCompress(&mut &vec![0; 64 * MIB][..], &mut body, &params).unwrap();
        let name = format!("brotli: 64 MiB over a window of 2^{window} bytes");
        push(bombs, name, Codec::Brotli, most(&body), &body, false);
    }
    // An empty block of metadata is two bytes here; a decoder may read them for ever.
    let idle = [&[0x0c][..], &[0x06].repeat(100_000)].concat();
    push(
        bombs,
        "brotli: 100,000 blocks of nothing".to_owned(),
        Codec::Brotli,
        FRAME_BYTES_DEFAULT,
        &idle,
        false,
    );
    let ones = vec![0xff; 100_000];
    push(bombs, "brotli: 100,000 bytes of ones".to_owned(), Codec::Brotli, FRAME_BYTES_DEFAULT, &ones, false);
}
