//! More than 500 malformed streams, thrown at one live listener: before the handshake by strangers, after it by a member of
//! the cluster. Each is refused, nothing of it is delivered, memory stays where it was, and an honest peer is served all
//! the while.

#![allow(clippy::print_stdout, reason = "it tells what was measured")]

mod common;

use std::fs;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use common::{Node, SOON, compressible, documents, hasty, listening, plain, rand64};
use entgldb_net::fuzzing::{Member, compress, frame};
use entgldb_net::{CloseReason, ClusterSecret, Codec, Identity, NetConfig, NetEvent, Timing};
use entgldb_replica::id::LinkId;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// Largest frame that the victim takes.
const FRAME_BYTES_MAX: usize = 100_000;
/// What all of it together may leave behind.
const GROWTH_BYTES_MAX: usize = 16 << 20;
const CASES_MIN: usize = 500;
/// Cases after which memory is measured for the first time: by then everything has been used once.
const WARM_UP: usize = 100;

/// When the bytes are sent.
#[derive(Clone, Copy, PartialEq, Debug)]
enum When {
    /// Instead of a handshake.
    Before,
    /// Sealed, on a link that is up.
    After,
    /// On a link that is up, as they are.
    Unsealed,
}

struct Case {
    name: String,
    when: When,
    bytes: Vec<u8>,
}

/// A fixed sequence of numbers that look like chance (Marsaglia's xorshift), so that the cases are always the same.
struct Numbers(u64);

impl Numbers {
    fn bytes(&mut self, count: usize) -> Vec<u8> {
        let mut next = || {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            (self.0 >> 32) as u8
        };
        (0..count).map(|_| next()).collect()
    }
}

fn varint(mut value: u64) -> Vec<u8> {
    let mut out = Vec::new();
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
    out
}

/// A frame of these parts, with its true length before it.
fn parts(parts: &[&[u8]]) -> Vec<u8> {
    let rest = parts.concat();
    [&u32::try_from(rest.len()).unwrap().to_be_bytes()[..], &rest].concat()
}

fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    strangers(&mut cases);
    lengths(&mut cases);
    kinds_and_flags(&mut cases);
    numbers(&mut cases);
    bodies(&mut cases);
    cut_short(&mut cases);
    records(&mut cases);
    cases
}

fn push(cases: &mut Vec<Case>, when: When, name: String, bytes: Vec<u8>) {
    cases.push(Case { name, when, bytes });
}

fn strangers(cases: &mut Vec<Case>) {
    let mut numbers = Numbers(1);
    for length in [0usize, 1, 2, 31, 32, 47, 48, 49, 64, 96, 1023, 1024, 1025, 4096, 65_535] {
        let claim = u16::try_from(length).unwrap().to_be_bytes();
        push(cases, When::Before, format!("a claim of {length} bytes and nothing"), claim.to_vec());
        let bytes = [&claim[..], &numbers.bytes(length)].concat();
        push(cases, When::Before, format!("a first message of {length} bytes"), bytes);
        let bytes = [&claim[..], &numbers.bytes(length / 2)].concat();
        push(cases, When::Before, format!("half a first message of {length} bytes"), bytes);
    }
    for number in 0..20 {
        let bytes = [&[0, 48][..], &numbers.bytes(48)].concat();
        push(cases, When::Before, format!("stranger {number}"), bytes);
    }
    for at in 0..16 {
        // Curve points of low order and other special keys: all bits zero, one bit, all bits.
        let mut key = vec![if at == 15 { 0xff } else { 0 }; 48];
        key[at] ^= 1;
        push(cases, When::Before, format!("special key {at}"), [&[0, 48][..], &key].concat());
    }
    for words in
        ["GET / HTTP/1.1\r\n\r\n", "SSH-2.0-x\r\n", "\x16\x03\x01\x02\x00\x01\x00\x01\x7c\x03\x03", "\0", ""]
    {
        push(cases, When::Before, format!("{words:?}"), words.as_bytes().to_vec());
    }
    push(cases, When::Before, "a frame".to_owned(), frame(16, None, 5, b"hello"));
}

fn lengths(cases: &mut Vec<Case>) {
    let mut push = |name: String, bytes: Vec<u8>| push(cases, When::After, name, bytes);
    let good = frame(16, None, 5, b"hello");
    for bit in 17..32 {
        let length = (1u32 << bit).to_be_bytes();
        push(format!("a length of 2^{bit} and nothing"), length.to_vec());
        push(format!("a length of 2^{bit} before a frame"), [&length[..], &good[4..]].concat());
        push(format!("a length of 2^{bit} - 1"), ((1u32 << bit) - 1 + (1 << 17)).to_be_bytes().to_vec());
    }
    for length in [u32::MAX, i32::MAX as u32, FRAME_BYTES_MAX as u32 + 22] {
        push(format!("a length of {length}"), length.to_be_bytes().to_vec());
    }
    for length in 0..8u8 {
        if usize::from(length) + 4 != good.len() {
            let bytes = [&[0, 0, 0, length][..], &good[4..]].concat();
            push(format!("a length of {length} before a frame of 8"), bytes);
        }
    }
}

fn kinds_and_flags(cases: &mut Vec<Case>) {
    let mut push = |name: String, bytes: Vec<u8>| push(cases, When::After, name, bytes);
    for kind in [0, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15] {
        push(format!("kind {kind}"), frame(kind, None, 0, b""));
        push(format!("kind {kind} with a body"), frame(kind, None, 4, b"body"));
        push(format!("kind {kind}, compressed"), frame(kind, Some(Codec::Zstd), 4, b"body"));
    }
    push("alive with a body".to_owned(), frame(1, None, 4, b"body"));
    push("alive, compressed".to_owned(), frame(1, Some(Codec::Brotli), 4, b"body"));
    push("close, compressed".to_owned(), frame(2, Some(Codec::Zstd), 4, b"body"));
    for flags in 3..=255u8 {
        push(format!("flags {flags}"), parts(&[&[16, flags, 5], b"hello"]));
    }
}

fn numbers(cases: &mut Vec<Case>) {
    let mut push = |name: String, bytes: Vec<u8>| push(cases, When::After, name, bytes);
    for length in 2..=10 {
        let mut padded = vec![0x90; length - 1];
        padded.push(0);
        push(format!("a kind in {length} bytes that needs fewer"), parts(&[&padded, &[0, 5], b"hello"]));
        let mut padded = vec![0x85];
        padded.extend(vec![0x80; length - 2]);
        padded.push(0);
        push(format!("a raw length in {length} bytes that needs one"), parts(&[&[16, 0], &padded, b"hello"]));
    }
    for last in [2, 3, 0x7f, 0x80, 0xff] {
        let over = [&[0xff; 9][..], &[last]].concat();
        push(format!("a kind over 64 bits ({last})"), parts(&[&over, &[0, 5], b"hello"]));
        push(format!("a raw length over 64 bits ({last})"), parts(&[&[16, 0], &over, b"hello"]));
    }
    for bit in 3..64 {
        let raw = varint(1 << bit);
        push(format!("a raw length of 2^{bit}, plain"), parts(&[&[16, 0], &raw, b"hello"]));
        if bit > 16 {
            push(format!("a raw length of 2^{bit}, zstd"), parts(&[&[16, 2], &raw, b"hello"]));
            push(format!("a raw length of 2^{bit}, brotli"), parts(&[&[16, 1], &raw, b"hello"]));
        }
    }
    for raw in [0, 1, 4, 6, 7] {
        push(format!("a raw length of {raw} for 5 bytes"), parts(&[&[16, 0], &varint(raw), b"hello"]));
    }
}

fn bodies(cases: &mut Vec<Case>) {
    let mut numbers = Numbers(2);
    let text = documents(5000);
    for codec in [Codec::Zstd, Codec::Brotli] {
        let mut push = |name: &str, raw: usize, body: &[u8]| {
            push(cases, When::After, format!("{codec:?}: {name}"), frame(16, Some(codec), raw, body));
        };
        for length in [0, 1, 2, 3, 4, 8, 16, 100, 1000, 50_000] {
            push(&format!("{length} bytes of noise"), 5000, &numbers.bytes(length));
            push(&format!("{length} zeros"), 5000, &vec![0; length]);
        }
        let good = compress(codec, &text).unwrap();
        for raw in [0, 1, 4999, 5001, 60_000] {
            push(&format!("5,000 bytes that are declared as {raw}"), raw, &good);
        }
        for cut in 1..10 {
            push(&format!("cut {cut} from the end"), 5000, &good[..good.len() - cut]);
        }
        push("with a byte after its end", 5000, &[&good[..], b"x"].concat());
        let bomb = compress(codec, &vec![0; 64 << 20]).unwrap();
        for raw in [0, 1000, 65_536, FRAME_BYTES_MAX] {
            push(
                &format!("64 MiB that are declared as {raw}"),
                raw,
                &bomb[..bomb.len().min(FRAME_BYTES_MAX)],
            );
        }
    }
}

/// Streams that end in the middle of a frame.
fn cut_short(cases: &mut Vec<Case>) {
    let good = frame(16, None, 5, b"hello");
    for end in 1..good.len() {
        push(cases, When::After, format!("{end} bytes of a frame, then the end"), good[..end].to_vec());
    }
}

fn records(cases: &mut Vec<Case>) {
    let mut numbers = Numbers(3);
    for length in [0usize, 1, 15, 16, 17, 100, 1000, 65_535] {
        let claim = u16::try_from(length).unwrap().to_be_bytes();
        push(
            cases,
            When::Unsealed,
            format!("a record of {length} zeros"),
            [&claim[..], &vec![0; length]].concat(),
        );
        push(
            cases,
            When::Unsealed,
            format!("a record of {length} bytes of noise"),
            [&claim[..], &numbers.bytes(length)].concat(),
        );
    }
    push(cases, When::Unsealed, "a frame in plain text".to_owned(), frame(16, None, 5, b"hello"));
}

/// Bytes that this process holds in memory; `None` where the system does not tell.
fn held() -> Option<usize> {
    let pages: usize = fs::read_to_string("/proc/self/statm").ok()?.split(' ').nth(1)?.parse().ok()?;
    Some(pages * 4096)
}

/// Sends what a case says, closes, and reads what comes back.
async fn attack(case: &Case, address: SocketAddr, secret: &ClusterSecret, identity: &Identity) {
    let mut stream = match case.when {
        When::Before => TcpStream::connect(address).await.unwrap(),
        When::After | When::Unsealed => {
            let mut member = Member::connect(address, &NetConfig::new("member", rand64()), secret, identity)
                .await
                .unwrap_or_else(|error| panic!("{}: no link: {error}", case.name));
            if case.when == When::After {
                let _ = member.send(&case.bytes).await;
            }
            member.stream
        }
    };
    if case.when != When::After {
        // It may have been closed before we are done.
        let _ = stream.write_all(&case.bytes).await;
    }
    let _ = stream.shutdown().await;
    let mut answer = Vec::new();
    let _ = timeout(SOON, stream.read_to_end(&mut answer)).await.expect("the victim closes");
    assert!(case.when != When::Before || answer.is_empty(), "{}: a stranger got an answer", case.name);
}

/// Carries out an attack while the victim serves the honest peer. Nothing of the attack may be delivered; a link that it
/// had must have ended by its fault.
async fn withstand(victim: &mut Node, honest: LinkId, case: &Case, attack: impl Future<Output = ()>) {
    let mut attack = std::pin::pin!(attack);
    let (mut is_over, mut is_down) = (false, case.when == When::Before);
    while !(is_over && is_down) {
        let event = tokio::select! {
            () = &mut attack, if !is_over => {
                is_over = true;
                continue;
            }
            event = victim.event() => event,
        };
        match event {
            NetEvent::Frame { link, frame, .. } if link == honest => {
                victim.send(honest, compressible(17, frame.body)).await;
            }
            NetEvent::LinkUp { .. } if case.when != When::Before => {}
            NetEvent::LinkDown { link, reason } => {
                assert_ne!(link, honest, "{}: the honest peer was cut off: {reason:?}", case.name);
                let is_its_fault = matches!(
                    reason,
                    CloseReason::Protocol(_) | CloseReason::Tampered | CloseReason::Truncated
                );
                assert!(is_its_fault, "{}: {reason:?}", case.name);
                is_down = true;
            }
            // Told for a few strangers each second only; all are counted.
            NetEvent::Refused { .. } => {}
            other => panic!("{}: {other:?}", case.name),
        }
    }
}

/// Sends a document after the other and wants each of them back, until told to stop; how many there were.
async fn chat(mut peer: Node, link: LinkId, stop: Arc<AtomicBool>) -> (Node, usize) {
    for count in 0.. {
        if stop.load(Ordering::Relaxed) {
            return (peer, count);
        }
        let body = [&count.to_be_bytes()[..], &documents(2000)].concat();
        peer.send(link, compressible(16, body.clone())).await;
        let back = peer.frame().await;
        assert_eq!((back.kind, &back.body[..]), (17, &body[..]), "document {count} came back as another");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    unreachable!("the count does not end")
}

#[tokio::test(flavor = "multi_thread")]
async fn five_hundred_malformed_streams_harm_nobody() {
    let cases = cases();
    assert!(cases.len() >= CASES_MIN, "only {} cases", cases.len());
    let patient = Timing { drop_after: SOON * 8, frame: SOON, handshake: SOON, ping_after: SOON, ..hasty() };
    let secret = ClusterSecret::generate();
    let (mut config, mut other) = (listening("victim"), NetConfig::new("honest", rand64()));
    (config.timing, config.frame_bytes_max, other.timing) = (patient, FRAME_BYTES_MAX, patient);
    let mut victim = Node::start(&config, &secret);
    let mut honest = Node::start(&other, &secret);
    honest.dial(victim.address());
    let (to_victim, _) = honest.link_up().await;
    let (to_honest, _) = victim.link_up().await;
    let stop = Arc::new(AtomicBool::new(false));
    let chatter = tokio::spawn(chat(honest, to_victim, Arc::clone(&stop)));

    let member = Identity::generate();
    let mut before = None;
    for (number, case) in cases.iter().enumerate() {
        if number == WARM_UP {
            before = held();
        }
        let attack = attack(case, victim.address(), &secret, &member);
        withstand(&mut victim, to_honest, case, attack).await;
    }
    let growth = held().zip(before).map(|(after, before)| after.saturating_sub(before));
    assert!(growth.is_none_or(|growth| growth < GROWTH_BYTES_MAX), "it holds {growth:?} bytes more");

    let strangers = cases.iter().filter(|case| case.when == When::Before).count() as u64;
    let traffic = victim.net.traffic();
    assert_eq!(traffic.handshakes_refused, strangers, "strangers refused");
    assert_eq!(traffic.links_up, 1 + cases.len() as u64 - strangers, "links that a member had");

    stop.store(true, Ordering::Relaxed);
    let mut ends = chatter;
    let (mut honest, exchanged) = loop {
        tokio::select! {
            ended = &mut ends => break ended.unwrap(),
            event = victim.event() => match event {
                NetEvent::Frame { link, frame, .. } if link == to_honest => {
                    victim.send(to_honest, compressible(17, frame.body)).await;
                }
                NetEvent::Refused { .. } => {}
                other => panic!("after all: {other:?}"),
            },
        }
    };
    assert!(exchanged > cases.len() / 50, "only {exchanged} documents were exchanged meanwhile");
    honest.send(to_victim, plain(16, "still here")).await;
    assert_eq!(victim.frame().await.body, "still here");
    assert!(honest.event_now().is_none(), "the honest peer saw nothing of it");
    println!("{} streams, {exchanged} documents exchanged meanwhile, {growth:?} bytes more", cases.len());
}
