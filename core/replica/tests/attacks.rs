//! What a member that keeps to the letter of the protocol and means harm can make a node do: work is counted, not timed.

#[allow(unreachable_pub, dead_code)]
mod mesh;

use bytes::Bytes;
use entgldb_replica::clock::{Hlc, Mono, Now, Stamp, WallMillis};
use entgldb_replica::entry::{AuthorKey, Chain, Entry, Op, SignedHead};
use entgldb_replica::id::{Collection, Incarnation, Key, LinkId, LogId, NodeId, sha256};
use entgldb_replica::limits::{FRAME_OVERHEAD_BYTES, PAGE_ENTRIES_MAX, VERSIONS_OF_AUTHOR_MAX};
use entgldb_replica::merge::Merged;
use entgldb_replica::resolve::{Document, Row};
use entgldb_replica::version::{Hash, Head, Seq};
use entgldb_replica::wire::{
    Ack, Chunk, Code, Cursor, Hello, Message, Page, Part, Pull, RowsHeld, Run, VERSION, VectorPart, check_of,
};
use entgldb_replica::{Config, Input, Link, Output, Replica};
use mesh::interests;
use mesh::memory::MemoryStore;

const START_MS: u64 = 1_800_000_000_000;
const LINK: LinkId = LinkId(1);

/// A node, and a member that is linked with it and says what it likes.
struct Attack {
    victim: Replica<MemoryStore>,
    key: AuthorKey,
    mono: u64,
    pages: u64,
}

impl Attack {
    fn new() -> Self {
        Self::with(Config::default())
    }

    fn with(config: Config) -> Self {
        let config = Config { interests: interests(&["t"]), ..config };
        let now = Now { mono: Mono(0), wall: WallMillis(START_MS) };
        let own = AuthorKey::from_seed(&[1; 32]);
        let victim = Replica::open(config, MemoryStore::default(), own, 1, now).unwrap();
        Self { victim, key: AuthorKey::from_seed(&[66; 32]), mono: 0, pages: 0 }
    }

    fn now(&self) -> Now {
        Now { mono: Mono(self.mono), wall: WallMillis(START_MS + self.mono) }
    }

    fn input(&mut self, input: Input) -> Vec<Output> {
        let now = self.now();
        self.victim.handle(now, input).unwrap()
    }

    /// The application of the victim writes, and its engine sees it.
    fn write(&mut self, key: &str, content: &str) {
        self.mono += 1;
        let wall = self.now().wall;
        self.victim.store().write("t", key, Some(content), wall);
        self.input(Input::LocalChange);
    }

    fn say(&mut self, message: &Message) -> Vec<Output> {
        self.say_over(LINK, message)
    }

    fn say_over(&mut self, link: LinkId, message: &Message) -> Vec<Output> {
        let (kind, body) = message.encode();
        self.input(Input::Frame { link, kind, body })
    }

    fn link(&mut self) {
        self.link_with(LINK, self.key.node_id());
    }

    fn link_with(&mut self, id: LinkId, peer: NodeId) {
        self.input(Input::LinkUp(Link {
            id,
            peer,
            name: "mallory".into(),
            instance: 1,
            we_dialled: false,
            target: None,
            frame_bytes_max: 4 << 20,
        }));
        let hello = Hello {
            version: VERSION,
            incarnation: Incarnation(1),
            interests: vec![Collection::new("t").unwrap()],
            wall: self.now().wall,
            frame_bytes_max: 4 << 20,
        };
        self.say_over(id, &Message::Hello(hello));
        self.say_over(id, &Message::Vector(VectorPart { last: true, ..VectorPart::default() }));
    }

    fn log(&self, incarnation: u64) -> LogId {
        let collection = Collection::new("t").unwrap();
        LogId { author: self.key.node_id(), incarnation: Incarnation(incarnation), collection }
    }

    /// A log of the attacker's own, signed as it should be.
    fn run(&self, incarnation: u64, entries: impl Iterator<Item = Entry>) -> Run {
        let log = self.log(incarnation);
        let mut chain = Chain::resume(log.clone(), Head::default(), Hlc::default());
        let mut hlc = Hlc::default();
        let entries = entries.map(|entry| {
            hlc = entry.hlc;
            let linked = chain.link(entry.clone()).unwrap();
            (entry, check_of(&linked.hash()))
        });
        let entries: Vec<_> = entries.collect();
        let signed = SignedHead::sign(&self.key, &log, chain.head(), hlc);
        Run { log, public_key: self.key.public_key(), previous: Head::default().hash, entries, signed }
    }

    fn send(&mut self, runs: Vec<Run>) -> Ack {
        self.pages += 1;
        let outputs = self.say(&Message::Page(Page { id: self.pages, runs }));
        let closed = outputs.iter().find(|output| matches!(output, Output::Close { .. }));
        assert_eq!(closed, None);
        let ack = outputs.into_iter().find_map(|output| match output {
            Output::Send { kind, body, .. } => match Message::decode(kind, body) {
                Ok(Some(Message::Ack(ack))) => Some(ack),
                _ => None,
            },
            _ => None,
        });
        ack.expect("the page is answered in the same step")
    }
}

fn put(seq: u64, hlc: u64, key: &str) -> Entry {
    let (key, payload) = (Key::new(key).unwrap(), Bytes::from(format!("{{\"n\":{seq}}}")));
    Entry { seq: Seq(seq), hlc: Hlc(hlc), replaces: None, op: Op::Put, key, payload }
}

#[test]
fn a_page_of_old_versions_of_a_document_that_was_rewritten_often_is_compared_in_one_walk() {
    let mut attack = Attack::new();
    for number in 0..1_100 {
        attack.write("k", &format!("{{\"edit\":{number}}}"));
    }
    attack.link();
    let old = Hlc::from_wall(WallMillis(START_MS - 1_000_000)).0;
    let most = PAGE_ENTRIES_MAX as u64;
    let run = attack.run(1, (1..=most).map(|seq| put(seq, old + seq, "k")));
    attack.victim.store().versions_read = 0;
    let ack = attack.send(vec![run]);
    assert_eq!(ack.results[0].code, Code::Taken);
    let read = attack.victim.store().versions_read;
    // Of each entry the version that stands, and the way back from it once.
    assert!(read <= most + 2_000, "{read} versions were looked at for one page");
}

#[test]
fn many_documents_that_were_rewritten_often_are_compared_within_the_budget_of_a_page() {
    let mut attack = Attack::new();
    for number in 0..40 * 700 {
        attack.write(&format!("k{}", number % 40), &format!("{{\"edit\":{number}}}"));
    }
    attack.link();
    let old = Hlc::from_wall(WallMillis(START_MS - 1_000_000)).0;
    let run = attack.run(1, (1..=400).map(|seq| put(seq, old + seq, &format!("k{}", seq % 40))));
    attack.victim.store().versions_read = 0;
    attack.send(vec![run]);
    let read = attack.victim.store().versions_read;
    assert!(read <= 17_000, "{read} versions were looked at for one page");
}

#[test]
fn logs_beyond_the_limit_are_not_taken_and_the_link_and_all_else_stay() {
    let mut attack = Attack::new();
    attack.link();
    let now = Hlc::from_wall(WallMillis(START_MS)).0;
    let (mut taken, mut refused) = (0, 0);
    for page in 0..9u64 {
        let runs = (0..4_096).map(|number| {
            let incarnation = 1 + page * 4_096 + number;
            attack.run(incarnation, std::iter::once(put(1, now, &format!("k{incarnation}"))))
        });
        let runs = runs.collect();
        for result in attack.send(runs).results {
            match result.code {
                Code::Taken => taken += 1,
                Code::Bad => refused += 1,
                other => panic!("{other:?}"),
            }
        }
    }
    assert_eq!((taken, refused), (1 << 15, 4_096));
    attack.write("own", "{}");
    let status = attack.victim.status();
    assert_eq!((status.peers.len(), status.captured), (1, 1));
    // Of a log that is known more is taken.
    let more = (1..=2).map(|seq| put(seq, now + seq - 1, "k1"));
    let run = attack.run(1, more);
    assert_eq!(attack.send(vec![run]).results[0].code, Code::Taken);
}

fn chunks(outputs: &[Output]) -> usize {
    let is_chunk = |output: &&Output| matches!(output, Output::Send { kind, .. } if *kind == Message::CHUNK);
    outputs.iter().filter(is_chunk).count()
}

fn pull() -> Message {
    Message::Pull(Pull { collection: Collection::new("t").unwrap(), from: Cursor::Rows(None) })
}

#[test]
fn who_asks_for_a_piece_of_a_snapshot_before_the_last_one_was_answered_is_cut_off() {
    let mut attack = Attack::new();
    (0..1_000).for_each(|number| attack.write(&format!("k{number}"), "{}"));
    attack.link();
    let before = attack.victim.store().scans;
    assert_eq!(chunks(&attack.say(&pull())), 0, "what waits on other links comes first");
    let closed = attack.say(&pull());
    assert!(closed.iter().any(|output| matches!(output, Output::Close { .. })), "{closed:?}");
    (0..1_000).for_each(|_| drop(attack.say(&pull())));
    assert_eq!(attack.victim.store().scans - before, 0);
}

#[test]
fn pieces_of_snapshots_are_given_when_nothing_else_waits_and_else_at_a_pace_to_all_links_in_turn() {
    let mut attack = Attack::new();
    (0..1_000).for_each(|number| attack.write(&format!("k{number}"), "{}"));
    let links: Vec<LinkId> = (1..=20).map(LinkId).collect();
    for link in &links {
        attack.link_with(*link, NodeId([100 + link.0 as u8; 32]));
    }
    let honest = LinkId(50);
    attack.link_with(honest, NodeId([200; 32]));
    let before = attack.victim.store().scans;
    // Whoever is answered asks again at once, and between any two frames there is one of another link.
    let mut answered = std::collections::BTreeMap::new();
    for link in &links {
        attack.say_over(*link, &pull());
    }
    for _ in 0..1_000 {
        attack.mono += 1;
        let outputs = attack.say_over(honest, &Message::Flow { open: true });
        for output in outputs {
            if let Output::Send { link, kind: Message::CHUNK, .. } = output {
                *answered.entry(link).or_insert(0) += 1;
                attack.say_over(link, &pull());
            }
        }
    }
    let scans = attack.victim.store().scans - before;
    assert!((40..=51).contains(&scans), "{scans} pieces were read in a second in which there was else to do");
    assert!(links.iter().all(|link| (2..=3).contains(&answered[link])), "{answered:?}");
    // With nothing else to do they are given as fast as they are asked for.
    assert_eq!(chunks(&attack.input(Input::Tick)), 1);
    assert_eq!(chunks(&attack.input(Input::Tick)), 1);
}

/// A member that gives a snapshot: so many rows, so many of them in a piece.
struct Giver {
    link: LinkId,
    key: AuthorKey,
    rows: u64,
    piece: usize,
    /// Milliseconds until it answers.
    takes: u64,
}

impl Giver {
    fn new(number: u8, rows: u64, piece: usize, takes: u64) -> Self {
        let key = AuthorKey::from_seed(&[number; 32]);
        Self { link: LinkId(u64::from(number)), key, rows, piece, takes }
    }

    fn log(&self) -> LogId {
        let collection = Collection::new("t").unwrap();
        LogId { author: self.key.node_id(), incarnation: Incarnation(1), collection }
    }

    fn head(&self) -> Head {
        Head { seq: Seq(self.rows), hash: Hash([1; 32]) }
    }

    /// Says that it has forgotten the history of its rows.
    fn vector(&self) -> Message {
        let (heads, floors) = (vec![(self.log(), self.head())], vec![(self.log(), Seq(self.rows))]);
        let held = RowsHeld { count: self.rows, fingerprint: None };
        let rows = vec![(Collection::new("t").unwrap(), held)];
        Message::Vector(VectorPart { heads, floors, rows, last: true, ..VectorPart::default() })
    }

    fn answer(&self, pull: &Pull) -> Message {
        let chunk = |part, last| {
            let collection = pull.collection.clone();
            Message::Chunk(Chunk { collection, part, last, refused: String::new(), ahead: false })
        };
        let hlc = Hlc::from_wall(WallMillis(START_MS - 1));
        match &pull.from {
            Cursor::Held(heads) => chunk(Part::Held(vec![false; heads.len()]), true),
            Cursor::Heads(_) => {
                let signed = SignedHead::sign(&self.key, &self.log(), self.head(), hlc);
                chunk(Part::Heads(vec![(self.log(), self.key.public_key(), signed)]), true)
            }
            Cursor::Rows(after) => {
                let name = |number: u64| Key::new(&format!("{}-{number:06}", self.link.0)).unwrap();
                let keys = (0..self.rows).map(name).filter(|key| after.as_ref().is_none_or(|a| key > a));
                let keys: Vec<Key> = keys.collect();
                let content = Bytes::from(format!("{{\"by\":{}}}", self.link.0));
                let stamp = Stamp { hlc, node: self.key.node_id() };
                let row = Row { stamp, content: Some(Hash(sha256(&content))) };
                let rows = keys.iter().take(self.piece).map(|key| Document {
                    key: key.clone(),
                    row,
                    content: Some(content.clone()),
                    merged: None,
                });
                chunk(Part::Rows(rows.collect()), keys.len() <= self.piece)
            }
        }
    }
}

/// Lets givers answer, each in its time, until so much of it has passed; tells how many rows of whom the victim has.
fn take_snapshots(attack: &mut Attack, givers: &[Giver], ms: u64) -> Vec<usize> {
    let mut first = Vec::new();
    for giver in givers {
        attack.link_with(giver.link, giver.key.node_id());
        first.extend(attack.say_over(giver.link, &giver.vector()));
    }
    let mut answers: Vec<(u64, LinkId, Message)> = Vec::new();
    let until = attack.mono + ms;
    while attack.mono < until {
        let mut outputs = std::mem::take(&mut first);
        outputs.extend(attack.input(Input::Tick));
        let due = answers.iter().position(|(at, ..)| *at <= attack.mono);
        if let Some(due) = due {
            let (_, link, answer) = answers.remove(due);
            outputs.extend(attack.say_over(link, &answer));
        } else if attack.victim.next_wake() > Mono(attack.mono) {
            attack.mono += 10;
        }
        for output in outputs {
            if let Output::Send { link, kind, body, .. } = output
                && let Ok(Some(Message::Pull(pull))) = Message::decode(kind, body)
            {
                let giver = givers.iter().find(|giver| giver.link == link).unwrap();
                answers.push((attack.mono + giver.takes, link, giver.answer(&pull)));
            }
        }
    }
    let docs = &attack.victim.store().docs;
    let of = |giver: &Giver| {
        let start = format!("{}-", giver.link.0);
        docs.keys().filter(|(_, key)| key.as_str().starts_with(&start)).count()
    };
    givers.iter().map(of).collect()
}

#[test]
fn a_giver_of_a_snapshot_that_brings_next_to_nothing_makes_room_for_another() {
    let mut attack = Attack::new();
    let slow = Giver::new(10, 1_000_000, 1, 25_000);
    let honest = Giver::new(11, 2_000, 500, 100);
    assert_eq!(take_snapshots(&mut attack, &[slow, honest], 30_000)[1], 2_000);
}

#[test]
fn a_slow_giver_is_kept_where_there_is_no_other_and_two_slow_ones_do_not_take_turns() {
    let mut attack = Attack::new();
    let slow = |number| Giver::new(number, 100, 1, 2_000);
    assert_eq!(take_snapshots(&mut attack, &[slow(10)], 250_000), [100]);
    let mut attack = Attack::new();
    let rows = take_snapshots(&mut attack, &[slow(10), slow(11)], 500_000);
    assert_eq!(rows, [100, 100]);
}

#[test]
fn versions_of_a_row_that_nobody_has_seen_do_not_pile_up_and_their_author_pushes_no_other_out() {
    let mut attack = Attack::new();
    attack.link();
    let now = Hlc::from_wall(WallMillis(START_MS)).0;
    let version = |author: NodeId, seq: u64| {
        let own = Stamp { hlc: Hlc(now + seq), node: author };
        let content = Bytes::from(format!("{{\"n\":{seq}}}"));
        Entry {
            op: Op::Edit,
            payload: Merged::default().version(Some(content), own, 0).encode(own),
            ..put(seq, own.hlc.0, "k")
        }
    };
    let other = Attack { key: AuthorKey::from_seed(&[67; 32]), ..Attack::new() };
    let honest = other.run(1, std::iter::once(version(other.key.node_id(), 1)));
    assert_eq!(attack.send(vec![honest]).results[0].code, Code::Taken);
    let node = attack.key.node_id();
    for (incarnation, page) in (1..).zip(0..3u64) {
        let first = 2 + page * 1_000;
        let entries = (first..first + 1_000).map(|n| Entry { seq: Seq(n - first + 1), ..version(node, n) });
        let run = attack.run(incarnation, entries);
        assert_eq!(attack.send(vec![run]).results[0].code, Code::Taken);
    }
    let store = attack.victim.store();
    let (doc, row) = store.rows.iter().find(|(doc, _)| doc.1.as_str() == "k").unwrap();
    let state = Merged::decode(store.merged[doc].clone(), row.stamp).unwrap();
    assert_eq!(state.sides().len(), VERSIONS_OF_AUTHOR_MAX + 1);
    assert_eq!(state.sides()[0].stamp.node, other.key.node_id());
}

#[test]
fn a_page_that_fills_what_a_frame_has_for_pages_is_passed_on_and_one_with_a_byte_more_is_not_taken() {
    const FRAME: usize = 64 << 10;
    let peer = LinkId(2);
    let sent = |over: usize| {
        let mut attack = Attack::with(Config { frame_bytes_max: FRAME, ..Config::default() });
        attack.link();
        attack.link_with(peer, NodeId([3; 32]));
        attack.say_over(peer, &Message::Flow { open: true });
        let hlc = Hlc::from_wall(WallMillis(START_MS)).0;
        let page = |attack: &Attack, bytes: usize| {
            let entry = Entry { payload: vec![b'7'; bytes].into(), ..put(1, hlc, "k") };
            Message::Page(Page { id: 1, runs: vec![attack.run(1, std::iter::once(entry))] })
        };
        let rest = page(&attack, FRAME / 2).encode().1.len() - FRAME / 2;
        // Without the two bytes of its number, which may be as long as it likes.
        let page = page(&attack, FRAME - FRAME_OVERHEAD_BYTES + 2 - rest + over);
        assert_eq!(page.encode().1.len(), FRAME - FRAME_OVERHEAD_BYTES + 2 + over);
        let outputs = attack.say(&page);
        let closed = outputs.iter().any(|output| matches!(output, Output::Close { link: LINK, .. }));
        let mut outputs = outputs;
        outputs.extend(attack.input(Input::Tick));
        let is_passed_on = |output: &Output| matches!(output, Output::Send { link, kind: Message::PAGE, .. } if *link == peer);
        (closed, outputs.iter().any(is_passed_on))
    };
    assert_eq!(sent(0), (false, true));
    assert_eq!(sent(1), (true, false));
    assert_eq!(sent(FRAME_OVERHEAD_BYTES - 2), (true, false), "it fills the frame");
}

#[test]
fn small_edits_of_a_large_document_are_joined_within_the_budget_of_a_page() {
    const FIELDS: usize = 20_000;
    let mut attack = Attack::with(Config { merging: interests(&["t"]), ..Config::default() });
    let fields: Vec<String> = (0..FIELDS).map(|number| format!("\"f{number}\":{number}")).collect();
    attack.write("k", &format!("{{{}}}", fields.join(",")));
    attack.link();
    let now = Hlc::from_wall(WallMillis(START_MS)).0;
    let node = attack.key.node_id();
    let edit = |seq: u64| {
        let own = Stamp { hlc: Hlc(now + 100_000 + seq), node };
        let content = Bytes::from(format!("{{\"f1\":\"late {seq}\"}}"));
        let edit = Merged::default().edit(Some(&content), &Default::default(), own).unwrap().edit;
        Entry { op: Op::Edit, payload: edit.encode(own), ..put(seq, own.hlc.0, "k") }
    };
    let most = PAGE_ENTRIES_MAX as u64;
    let run = attack.run(1, (1..=most).map(edit));
    let before = attack.victim.status().work;
    assert_eq!(attack.send(vec![run]).results[0].code, Code::Taken);
    let work = attack.victim.status().work - before;
    // Each of them looks at all of the document, if nothing stops it.
    assert!(work < (1 << 20) + (1 << 15), "{work} places were looked at for one page");
    let doc = attack.victim.store().docs.values().next().unwrap().clone();
    let doc: serde_json::Value = serde_json::from_slice(&doc).unwrap();
    assert_eq!(doc["f1"], format!("late {most}"), "all are joined");
    assert_eq!(doc["f19999"], 19_999);
    let noted = attack.victim.store().conflicts.values();
    let lost: Vec<_> = noted.filter_map(|conflict| conflict.loser.content.clone()).collect();
    assert!(lost.iter().any(|content| content.len() > FIELDS), "what stood before is noted");
    let name = format!("\"late {}\"", most - 7);
    assert!(lost.iter().any(|content| String::from_utf8_lossy(content).contains(&name)));
}
