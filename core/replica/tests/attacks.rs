//! What a member that keeps to the letter of the protocol and means harm can make a node do: work is counted, not timed.

#[allow(unreachable_pub, dead_code)]
mod mesh;

use bytes::Bytes;
use entgldb_replica::clock::{Hlc, Mono, Now, WallMillis};
use entgldb_replica::entry::{AuthorKey, Chain, Entry, Op, SignedHead};
use entgldb_replica::id::{Collection, Incarnation, Key, LinkId, LogId};
use entgldb_replica::limits::PAGE_ENTRIES_MAX;
use entgldb_replica::version::{Head, Seq};
use entgldb_replica::wire::{Ack, Code, Hello, Message, Page, Run, VERSION, VectorPart, check_of};
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
        let config = Config { interests: interests(&["t"]), ..Config::default() };
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
        let (kind, body) = message.encode();
        self.input(Input::Frame { link: LINK, kind, body })
    }

    fn link(&mut self) {
        self.input(Input::LinkUp(Link {
            id: LINK,
            peer: self.key.node_id(),
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
        self.say(&Message::Hello(hello));
        self.say(&Message::Vector(VectorPart { last: true, ..VectorPart::default() }));
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
