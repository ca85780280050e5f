//! Target `session`: a victim that talks to members of its cluster who say anything, in any order, at any time, and never
//! mind whether they may.
//!
//! Input: a script, a byte for each step and more for what it needs (see [`step`]). The members have real keys and sign
//! what they send, so that a script gets past the signatures. Nothing is written to a disk.

mod cast;
#[allow(
    dead_code,
    unreachable_pub,
    missing_docs,
    reason = "it belongs to the replica's own tests, which use more of it"
)]
#[path = "../../../../core/replica/tests/mesh/memory.rs"]
mod memory;
mod promises;
mod world;

use entgldb_replica::clock::WallMillis;
use entgldb_replica::id::{Collection, LogId};
use entgldb_replica::version::{Hash, Head, Seq};
use entgldb_replica::wire::{Ack, Code, Message, Page, RunResult};

use super::Choices;
use cast::{WALL_START, cast};
use world::World;

/// Most steps of a script.
const STEPS_MAX: usize = 60;
/// What time may jump by, in milliseconds.
const JUMPS_MS: [u64; 8] = [1, 100, 500, 2_000, 5_000, 30_000, 120_000, 86_400_000];
/// Frames that a peer says it takes.
const FRAMES_BYTES_MAX: [usize; 4] = [1 << 20, 16 << 20, 2_000, 300];

/// Whatever is said to it: the victim does not panic, comes to rest, keeps all its promises, and still serves an honest peer.
///
/// # Panics
/// When that does not hold.
pub fn check(data: &[u8]) {
    let mut choices = Choices(data);
    let mut world = World::new();
    for _ in 0..STEPS_MAX {
        if choices.is_empty() {
            break;
        }
        step(&mut world, &mut choices);
    }
    world.settle();
    promises::hold(&mut world);
    if data.len().is_multiple_of(4) {
        world.meet_an_honest_peer();
        promises::hold(&mut world);
    }
}

fn step(world: &mut World, choices: &mut Choices<'_>) {
    match choices.byte() % 16 {
        0 => {
            let shape = choices.byte();
            let peer = if shape & 1 == 0 { &cast().liar } else { &cast().honest };
            let frame_bytes_max = FRAMES_BYTES_MAX[usize::from(shape >> 4 & 3)];
            world.link(peer, (shape >> 1 & 3).into(), shape & 8 != 0, frame_bytes_max);
        }
        1 => world.unlink(choices.byte()),
        2 => {
            let (link, kind, length) = (choices.byte(), choices.byte(), choices.byte());
            world.deliver(link, kind.into(), choices.bytes(length.into()).to_vec());
        }
        3 => {
            let link = choices.byte();
            let message = say_hello(choices);
            world.say(link, &message);
        }
        4 | 5 => {
            let link = choices.byte();
            let message = say_vector(world, choices);
            world.say(link, &message);
        }
        6 => {
            let (link, equal) = (choices.byte(), choices.byte());
            let message = world.digest(equal);
            world.say(link, &message);
        }
        7 => {
            let (link, open) = (choices.byte(), choices.byte() & 1 == 0);
            world.say(link, &Message::Flow { open });
        }
        8..=10 => {
            let link = choices.byte();
            let page = say_page(world, link, choices);
            send_page(world, link, &page, choices);
        }
        11 => {
            let link = choices.byte();
            let ack = say_ack(world, link, choices);
            world.say(link, &Message::Ack(ack));
        }
        12 => {
            let shape = choices.byte();
            world.pass_time(JUMPS_MS[usize::from(shape & 7)], shape >> 3);
        }
        13 => world.write(choices.byte(), false),
        14 => world.write(choices.byte(), true),
        _ => world.nudge(choices.byte()),
    }
    world.settle();
}

/// A hello as a node says it.
#[must_use]
pub fn hello(interests: Vec<Collection>, wall: WallMillis) -> Message {
    let mut hello = cast().hello.clone();
    (hello.interests, hello.wall) = (interests, wall);
    Message::Hello(hello)
}

/// A part of a vector as a node sends it.
#[must_use]
pub fn vector(heads: Vec<(LogId, Head)>, last: bool) -> Message {
    let mut part = cast().vector.clone();
    (part.heads, part.last) = (heads, last);
    Message::Vector(part)
}

fn say_hello(choices: &mut Choices<'_>) -> Message {
    let shape = choices.byte();
    let names = ["a", "b", "c"].into_iter().zip([1, 2, 4]);
    let interests =
        names.filter(|(_, bit)| shape & bit != 0).map(|(name, _)| cast::collection(name)).collect();
    let wall = if shape & 8 == 0 { WALL_START } else { choices.number() };
    let mut message = hello(interests, WallMillis(wall));
    if let Message::Hello(hello) = &mut message {
        hello.version += u32::from(shape >> 4 & 1);
        if shape & 32 != 0 {
            hello.frame_bytes_max = choices.number();
        }
    }
    message
}

fn say_vector(world: &World, choices: &mut Choices<'_>) -> Message {
    let shape = choices.byte();
    let heads = (0..shape & 7).map(|_| {
        let what = choices.byte();
        let known = world.known_logs();
        if what & 1 == 0 && !known.is_empty() {
            let (log, head) = known[usize::from(what >> 1) % known.len()].clone();
            return (log, changed_head(head, choices));
        }
        let history = &cast().histories[usize::from(what >> 1) % cast().histories.len()];
        let head = history.head(choices.one_of(history.signed.len()));
        (history.run.log.clone(), changed_head(head, choices))
    });
    let heads = heads.collect();
    vector(heads, shape & 8 == 0)
}

fn changed_head(head: Head, choices: &mut Choices<'_>) -> Head {
    match choices.byte() % 8 {
        0..=3 => head,
        4 => Head { seq: Seq(head.seq.0 + 1), hash: Hash([choices.byte(); 32]) },
        5 => Head { seq: Seq(choices.number()), hash: head.hash },
        6 => Head { seq: Seq(u64::MAX), hash: Hash([choices.byte(); 32]) },
        _ => Head { hash: Hash([choices.byte(); 32]), ..head },
    }
}

fn say_page(world: &World, link: u8, choices: &mut Choices<'_>) -> Page {
    let shape = choices.byte();
    let next = world.next_page(link);
    let id =
        if shape & 0x70 != 0x70 { next } else { next.wrapping_add(choices.byte().into()).wrapping_sub(3) };
    let runs = (0..=shape & 3).map(|_| {
        let histories = &cast().histories;
        let history = &histories[choices.one_of(histories.len())];
        let held = usize::try_from(world.held(&history.run.log)).unwrap_or(usize::MAX);
        let extent = choices.byte();
        // Mostly what comes next, so that it is taken.
        let from = if extent & 1 == 0 { held } else { usize::from(extent >> 1 & 7) };
        let from = from.min(history.signed.len() - 1);
        let to = (from + usize::from(extent >> 4)).min(history.signed.len() - 1);
        let mut run = history.part(from, to);
        if shape & 4 != 0 {
            spoil(&mut run, choices);
        }
        run
    });
    Page { id, runs: runs.collect() }
}

/// Changes one thing of a run.
fn spoil(run: &mut entgldb_replica::wire::Run, choices: &mut Choices<'_>) {
    let (what, value) = (choices.byte(), choices.byte());
    let at = usize::from(value) % run.entries.len();
    let (entry, check) = &mut run.entries[at];
    match what % 14 {
        0 => entry.payload = vec![value; 3].into(),
        1 => entry.op = entgldb_replica::entry::Op::Delete,
        2 => entry.replaces = None,
        3 => entry.hlc.0 = entry.hlc.0.saturating_add(value.into()),
        4 => *check ^= 1 << (value % 32),
        5 => run.signed.signature[usize::from(value % 64)] ^= 1,
        6 => run.signed.head.hash.0[usize::from(value % 32)] ^= 1,
        7 => run.previous.0[usize::from(value % 32)] ^= 1,
        8 => run.log.incarnation.0 ^= u64::from(value) + 1,
        9 => run.log.collection = cast::collection(["a", "b", "c"][usize::from(value % 3)]),
        10 => {
            run.public_key =
                [&cast().honest, &cast().liar, &cast().victim][usize::from(value % 3)].public_key()
        }
        11 => run.entries.truncate(at + 1),
        12 => drop(run.entries.drain(..at)),
        _ => run.entries.swap(0, at),
    }
    run.log.author = entgldb_replica::id::NodeId::of(&run.public_key);
}

/// Sends a page as it is, or with one byte changed.
fn send_page(world: &mut World, link: u8, page: &Page, choices: &mut Choices<'_>) {
    // What a spoiled run says of times and positions may be more than the wire can carry.
    let carried =
        |run: &entgldb_replica::wire::Run| run.entries.windows(2).all(|pair| pair[0].0.hlc <= pair[1].0.hlc);
    if !page.runs.iter().all(carried) {
        return;
    }
    let (kind, body) = Message::Page(page.clone()).encode();
    let mut body = body.to_vec();
    let change = choices.byte();
    if change & 7 == 7 && !body.is_empty() {
        let at = (usize::from(change >> 3) << 8 | usize::from(choices.byte())) % body.len();
        body[at] ^= choices.byte();
    }
    world.deliver(link, kind, body);
}

fn say_ack(world: &World, link: u8, choices: &mut Choices<'_>) -> Ack {
    let shape = choices.byte();
    let (page, ends) = world.oldest_in_flight(link);
    let page = if shape & 1 == 0 { page } else { page.wrapping_add(u64::from(shape >> 4)) };
    let count = if shape & 2 == 0 { ends.len() } else { choices.one_of(6) };
    let results = (0..count).map(|at| {
        let code = if shape & 4 == 0 { 0 } else { i32::from(choices.byte() % 5) };
        let end = ends.get(at).copied().unwrap_or(Seq(1));
        let seq = if shape & 8 == 0 { end } else { Seq(choices.number()) };
        let code = Code::try_from(code).unwrap_or(Code::Taken);
        RunResult { code, seq, detail: "so".to_owned() }
    });
    Ack { page, results: results.collect() }
}

/// Scripts to begin with.
#[must_use]
pub fn seeds() -> Vec<(&'static str, Vec<u8>)> {
    // A link to the liar, and its hello for all collections.
    let greet = [0, 0, 3, 0, 7];
    let open = [7, 0, 0];
    let script = |parts: &[&[u8]]| parts.concat();
    let histories = u8::try_from(cast().histories.len()).unwrap_or(u8::MAX);
    let take = |history: u8| [8, 0, 0, history, 0xf0, 0];
    let everything: Vec<u8> = (0..histories).filter(|at| *at != 7 && *at != 10).flat_map(take).collect();
    vec![
        ("greeting", script(&[&greet, &open, &[12, 3, 15, 0]])),
        ("one-page", script(&[&greet, &take(0)])),
        ("every-history", script(&[&greet, &open, &everything])),
        ("fork", script(&[&greet, &take(0), &take(1), &[12, 5], &take(1)])),
        (
            "catch-up-and-ack",
            script(&[&greet, &[4, 0, 0], &open, &[11, 0, 0], &[11, 0, 0], &[13, 1, 11, 0, 0]]),
        ),
        (
            "refusals",
            script(&[&greet, &[4, 0, 0], &open, &[11, 0, 4, 1, 2], &[12, 4], &[11, 0, 4, 3, 4], &[12, 6]]),
        ),
        ("vectors", script(&[&greet, &[4, 0, 3, 0, 0, 3, 4, 9, 5, 6, 1], &[6, 0, 1], &[6, 0, 0]])),
        ("own-log-ahead", script(&[&greet, &[4, 0, 1, 23, 5, 0, 13, 3, 8, 0, 0, 12, 0xf0, 0, 13, 4]])),
        (
            "spoiled",
            script(&[&greet, &[8, 0, 4, 8, 0xf0, 0, 2, 0, 0, 1, 3, 0, 7, 8, 0, 4, 8, 0xf0, 5, 9, 0]]),
        ),
        (
            "writes",
            script(&[&greet, &[13, 0, 14, 1, 14, 2, 8, 0, 0, 0, 0xf0, 0, 15, 2, 13, 5, 15, 3, 13, 6]]),
        ),
        ("raw", script(&[&greet, &[2, 0, 18, 4, 10, 2, 1, 1, 2, 0, 99, 1, 0]])),
        ("clock", script(&[&greet, &[12, 7, 8, 0, 0, 3, 0xf0, 0, 12, 0xff, 13, 1, 8, 0, 0, 0, 0xf0, 0]])),
        ("two-links", script(&[&greet, &[0, 1, 3, 1, 7, 4, 1, 0, 7, 1, 0, 8, 0, 0, 0, 0xf0, 0, 1, 0, 0, 9]])),
    ]
}
