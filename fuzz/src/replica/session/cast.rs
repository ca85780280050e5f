//! Who takes part, and what they have written: made once, because signatures are slow.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::OnceLock;

use bytes::Bytes;
use entgldb_replica::clock::{Hlc, Mono, Now, Stamp, WallMillis};
use entgldb_replica::entry::{AuthorKey, Chain, Entry, Op, SignedHead};
use entgldb_replica::id::{Collection, Incarnation, Key, LinkId, LogId};
use entgldb_replica::version::{Hash, Head, Seq};
use entgldb_replica::wire::{Hello, Message, Page, Run, VectorPart, check_of};
use entgldb_replica::{Config, Input, Link, Output, Replica};

use super::memory::MemoryStore;

/// Wall time at which a script begins, in milliseconds.
pub const WALL_START: u64 = 1_800_000_000_000;
/// Monotonic time at which a script begins, in milliseconds.
pub const MONO_START: u64 = 10_000_000;
/// Seed of the victim's randomness.
pub const SEED: u64 = 7;
/// How many entries of the honest author the victim holds from the beginning, in each of two logs.
pub const HELD: usize = 3;
/// How many there are.
pub const HONEST_ENTRIES: usize = 6;
const MINUTE: u64 = 60_000;

/// A log, with a signature over every prefix.
#[derive(Clone)]
pub struct History {
    pub run: Run,
    pub hashes: Vec<Hash>,
    pub signed: Vec<SignedHead>,
}

impl History {
    /// The entries from position `from` to position `to`, both counted from 0 and within the log.
    pub fn part(&self, from: usize, to: usize) -> Run {
        let mut run = self.run.clone();
        run.previous = if from == 0 { Hash::default() } else { self.hashes[from - 1] };
        run.entries = self.run.entries[from..=to].to_vec();
        run.signed = self.signed[to].clone();
        run
    }

    pub fn head(&self, at: usize) -> Head {
        self.signed[at].head
    }
}

/// Everything that scripts share.
pub struct Cast {
    pub victim: AuthorKey,
    pub honest: AuthorKey,
    pub liar: AuthorKey,
    /// What the victim holds at the beginning.
    pub store: MemoryStore,
    /// The honest author's logs, the first two of which the victim syncs.
    pub honest_logs: Vec<History>,
    /// All logs that a liar can send, the honest author's among them.
    pub histories: Vec<History>,
    /// Messages as a real node sends them, to be changed.
    pub hello: Hello,
    pub vector: VectorPart,
}

/// The cast.
pub fn cast() -> &'static Cast {
    static CAST: OnceLock<Cast> = OnceLock::new();
    CAST.get_or_init(make)
}

pub fn collection(name: &str) -> Collection {
    Collection::new(name).expect("a valid name")
}

pub fn config() -> Config {
    let interests: BTreeSet<Collection> = ["a", "b"].into_iter().map(collection).collect();
    Config { interests, ..Config::default() }
}

pub fn start() -> Now {
    Now { mono: Mono(MONO_START), wall: WallMillis(WALL_START) }
}

pub fn link_to(peer: &AuthorKey, id: u64, instance: u64, we_dialled: bool, frame_bytes_max: usize) -> Link {
    Link {
        id: LinkId(id),
        peer: peer.node_id(),
        name: "peer".to_owned(),
        instance,
        we_dialled,
        target: we_dialled.then(|| "peer:7700".to_owned()),
        frame_bytes_max,
    }
}

struct Draft {
    hlc: u64,
    key: &'static str,
    payload: Option<Bytes>,
    replaces: Option<Stamp>,
}

fn put(hlc: u64, key: &'static str, payload: &str) -> Draft {
    Draft { hlc, key, payload: Some(Bytes::from(payload.to_owned())), replaces: None }
}

fn history(author: &AuthorKey, incarnation: u64, name: &str, drafts: Vec<Draft>) -> History {
    let log = LogId {
        author: author.node_id(),
        incarnation: Incarnation(incarnation),
        collection: collection(name),
    };
    let mut chain = Chain::resume(log.clone(), Head::default(), Hlc::default());
    let (mut entries, mut hashes, mut signed) = (Vec::new(), Vec::new(), Vec::new());
    for (seq, draft) in (1..).zip(drafts) {
        let entry = Entry {
            seq: Seq(seq),
            hlc: Hlc(draft.hlc),
            replaces: draft.replaces,
            op: if draft.payload.is_some() { Op::Put } else { Op::Delete },
            key: Key::new(draft.key).expect("a valid key"),
            payload: draft.payload.unwrap_or_default(),
        };
        let linked = chain.link(entry.clone()).expect("a history is in order");
        signed.push(SignedHead::sign(author, &log, linked.head(), entry.hlc));
        hashes.push(linked.hash());
        entries.push((entry, check_of(&linked.hash())));
    }
    let last = signed[signed.len() - 1].clone();
    let run = Run { log, public_key: author.public_key(), previous: Hash::default(), entries, signed: last };
    History { run, hashes, signed }
}

fn at(ms_before_start: u64) -> u64 {
    (WALL_START - ms_before_start) << 16
}

/// Units that lie in two logs: the same times in both.
fn honest_logs(honest: &AuthorKey) -> Vec<History> {
    let node = honest.node_id();
    let keys = ["k0", "k1", "k2", "k3"];
    let log = |name: &'static str, replaces: bool| {
        let drafts = (0..HONEST_ENTRIES).map(|n| {
            let hlc = at(MINUTE - n as u64 * 1000);
            let replaced =
                (replaces && n >= 4).then(|| Stamp { hlc: Hlc(at(MINUTE - (n as u64 - 4) * 1000)), node });
            let payload = (n != 3).then(|| Bytes::from(format!("{{\"honest\":\"{name}{n}\"}}")));
            Draft { hlc, key: keys[n % 4], payload, replaces: replaced }
        });
        history(honest, 11, name, drafts.collect())
    };
    vec![log("a", true), log("b", false), log("c", false)]
}

/// What a member may sign: forks, times from everywhere, versions that replace what nobody has.
fn liar_logs(liar: &AuthorKey, honest: &AuthorKey) -> Vec<History> {
    let (node, theirs) = (liar.node_id(), honest.node_id());
    let same = || vec![put(at(50_000), "k0", "{\"l\":1}"), put(at(40_000), "k1", "{\"l\":2}")];
    let with = |mut drafts: Vec<Draft>, more: Vec<Draft>| {
        drafts.extend(more);
        drafts
    };
    let gone = |hlc, key| Draft { hlc, key, payload: None, replaces: None };
    let over = |hlc, key, stamp| Draft {
        hlc,
        key,
        payload: Some(Bytes::from_static(b"{\"over\":1}")),
        replaces: Some(stamp),
    };
    let long =
        (0..20).map(|n| over(at(30_000) + n + 1, "k2", Stamp { hlc: Hlc(at(30_000) + n), node })).collect();
    let unheard = Stamp { hlc: Hlc(at(90_000)), node: theirs };
    vec![
        history(
            liar,
            21,
            "a",
            with(same(), vec![put(at(30_000), "k2", "{\"fork\":1}"), gone(at(20_000), "k0")]),
        ),
        history(
            liar,
            21,
            "a",
            with(same(), vec![put(at(30_000), "k2", "{\"fork\":2}"), gone(at(20_000), "k1")]),
        ),
        history(
            liar,
            21,
            "b",
            vec![put(at(50_000), "k0", "[not a document"), put(at(50_000), "k0", "\u{1}")],
        ),
        history(
            liar,
            22,
            "a",
            vec![put(0, "k3", "{}"), put((WALL_START + 864_000_000) << 16, "k3", "{\"far\":1}")],
        ),
        history(liar, 23, "a", vec![put(u64::MAX, "k3", "{\"last\":1}")]),
        history(liar, 24, "b", long),
        history(
            liar,
            25,
            "a",
            vec![over(at(10_000), "k1", unheard), gone(at(10_000), "k1"), put(at(9_000), "k1", "{}")],
        ),
        history(liar, 26, "c", vec![put(at(10_000), "k1", "{}")]),
    ]
}

fn make() -> Cast {
    let [victim, honest, liar] = [1, 2, 3].map(|seed| AuthorKey::from_seed(&[seed; 32]));
    let honest_logs = honest_logs(&honest);
    let (store, hello, vector) = template(&victim, &honest, &honest_logs);
    let mut histories = liar_logs(&liar, &honest);
    histories.extend(honest_logs.iter().cloned());
    histories.extend(rolled_back(&victim, &store));
    Cast { victim, honest, liar, store, honest_logs, histories, hello, vector }
}

const KEYS: [&str; 6] = ["k0", "k1", "k2", "k3", "own0", "own1"];

/// The victim's logs as they were before it lost its last entries, and one of an earlier life.
fn rolled_back(victim: &AuthorKey, store: &MemoryStore) -> Vec<History> {
    let mut logs: BTreeMap<LogId, Vec<Draft>> = BTreeMap::new();
    for (log, entries) in store.log.iter().filter(|(log, _)| log.author == victim.node_id()) {
        for stored in entries {
            let key = KEYS.iter().copied().find(|key| *key == stored.entry.key.as_str()).unwrap_or("k0");
            let (hlc, payload) = (stored.entry.hlc.0, stored.entry.content().cloned());
            logs.entry(log.clone()).or_default().push(Draft {
                hlc,
                key,
                payload,
                replaces: stored.entry.replaces,
            });
        }
    }
    let mut histories = vec![history(victim, 5, "a", vec![put(at(80_000), "own1", "{\"earlier\":1}")])];
    for (log, mut drafts) in logs {
        let last = drafts.last().map_or(0, |draft| draft.hlc);
        drafts.push(put(last + 1, "own0", "{\"lost\":1}"));
        drafts.push(put(last + (1 << 16), "k0", "{\"lost\":2}"));
        histories.push(history(victim, log.incarnation.0, log.collection.as_str(), drafts));
    }
    histories
}

/// A victim that has written something itself and taken half of what the honest author wrote.
fn template(victim: &AuthorKey, honest: &AuthorKey, logs: &[History]) -> (MemoryStore, Hello, VectorPart) {
    let now = Now { mono: Mono(1_000), wall: WallMillis(WALL_START - 1_000) };
    let mut store = MemoryStore::default();
    store.write("a", "own0", Some("{\"own\":0}"), now.wall);
    store.write("b", "own1", Some("{\"own\":1}"), now.wall);
    let opened = Replica::open(config(), store, victim.clone(), SEED, now);
    let mut replica = opened.unwrap_or_else(|error| panic!("{error}"));
    let mut said = Vec::new();
    let mut tell = |replica: &mut Replica<MemoryStore>, input| {
        let outputs = replica.handle(now, input).unwrap_or_else(|error| panic!("{error}"));
        said.extend(outputs.into_iter().filter_map(|output| match output {
            Output::Send { kind, body, .. } => Message::decode(kind, body).expect("it reads what it wrote"),
            _ => None,
        }));
    };
    tell(&mut replica, Input::LocalChange);
    let link = link_to(honest, 1, 1, false, 1 << 20);
    let id = link.id;
    tell(&mut replica, Input::LinkUp(link));
    let frame = |message: &Message| {
        let (kind, body) = message.encode();
        Input::Frame { link: id, kind, body }
    };
    let Some(Message::Hello(hello)) = replica_hello(victim, now) else { panic!("the first word is hello") };
    tell(&mut replica, frame(&Message::Hello(hello.clone())));
    let runs = logs[..2].iter().map(|log| log.part(0, HELD - 1)).collect();
    tell(&mut replica, frame(&Message::Page(Page { id: 1, runs })));
    tell(&mut replica, Input::LinkDown { link: id, reason: "done".to_owned(), is_fault: false });
    while replica.next_wake() <= now.mono {
        tell(&mut replica, Input::Tick);
    }
    let vector = said.into_iter().find_map(|message| match message {
        Message::Vector(part) => Some(part),
        _ => None,
    });
    (replica.into_store(), hello, vector.expect("the answer to hello is the vector"))
}

/// What a fresh replica says first.
fn replica_hello(key: &AuthorKey, now: Now) -> Option<Message> {
    let replica = Replica::open(config(), MemoryStore::default(), key.clone(), SEED + 1, now);
    let mut replica = replica.unwrap_or_else(|error| panic!("{error}"));
    let peer = AuthorKey::from_seed(&[8; 32]);
    let outputs = replica.handle(now, Input::LinkUp(link_to(&peer, 1, 1, false, 1 << 20)));
    outputs.unwrap_or_else(|error| panic!("{error}")).into_iter().find_map(|output| match output {
        Output::Send { kind, body, .. } => Message::decode(kind, body).expect("it reads what it wrote"),
        _ => None,
    })
}
