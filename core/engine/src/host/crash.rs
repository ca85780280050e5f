//! Two replicas, each beside a store of the application's that is cut off at every step in turn: before a hook did anything,
//! in the middle of it, after it and before anything else. Between two hooks the engine's file makes at most one durable
//! step, so these are all the places where a process can end.

#[path = "../../tests/common/mod.rs"]
pub(super) mod common;

use std::collections::{BTreeMap, VecDeque};
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use common::{Cut, Manners, Memory, collection, doc, lossy, now_ms};
use entgldb_replica::clock::{Mono, Now, WallMillis};
use entgldb_replica::entry::AuthorKey;
use entgldb_replica::event::Event;
use entgldb_replica::id::{DocId, LinkId};
use entgldb_replica::limits::{FRAME_BYTES_DEFAULT, PAYLOAD_BYTES_DEFAULT};
use entgldb_replica::store::{Problem, Store};
use entgldb_replica::{Config, Input, Link, Output, Replica};
use entgldb_sqlite::own::{Intake, Keeps, Recorded};
use entgldb_sqlite::{Durability, Holder, SqliteConfig};
use tempfile::TempDir;

use super::{HostCell, HostedStore};
use crate::hub::Hub;

/// Steps of the clock until two nodes that nobody disturbs must hold the same.
const SETTLE_STEPS: usize = 24;
const STEP_MS: u64 = 400;

/// A random number generator of which nothing is asked but to be repeatable.
pub(super) struct Dice(pub(super) u64);

impl Dice {
    pub(super) fn roll(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % sides
    }
}

pub(super) struct Side {
    path: PathBuf,
    pub(super) memory: Memory,
    key: AuthorKey,
    pub(super) replica: Option<Replica<HostedStore>>,
    intake: Option<Intake>,
    crashes: usize,
}

pub(super) struct World {
    _dir: TempDir,
    pub(super) sides: [Side; 2],
    wires: [VecDeque<(u64, Bytes)>; 2],
    links: u64,
    is_closed: bool,
    pub(super) mono: u64,
    start_ms: u64,
    /// What each document was last written as, and how many writes there were.
    last: BTreeMap<DocId, Option<String>>,
    writes: usize,
    /// What was told of documents that were set aside.
    pub(super) problems: Vec<Problem>,
}

impl World {
    pub(super) fn new(manners: &Manners) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let side = |number: u8| Side {
            path: dir.path().join(format!("{number}.entgldb")),
            memory: Memory::new(manners.clone()),
            key: AuthorKey::from_seed(&[number + 1; 32]),
            replica: None,
            intake: None,
            crashes: 0,
        };
        let sides = [side(0), side(1)];
        let mut world = Self {
            _dir: dir,
            sides,
            wires: Default::default(),
            links: 0,
            is_closed: false,
            mono: 0,
            start_ms: now_ms(),
            last: BTreeMap::new(),
            writes: 0,
            problems: Vec::new(),
        };
        world.open(0);
        world.open(1);
        world.link();
        world
    }

    fn now(&self) -> Now {
        Now { mono: Mono(self.mono), wall: WallMillis(self.start_ms + self.mono) }
    }

    /// Opens a side, again and again while its store is cut off.
    fn open(&mut self, at: usize) {
        let now = self.now();
        for _ in 0..50 {
            let side = &mut self.sides[at];
            {
                let mut state = side.memory.state();
                (state.is_cut, state.begun, state.dropped) = (false, None, 0);
            }
            let stop = Arc::default();
            let holder = Holder::new("side", "side", side.path.parent().unwrap());
            let config = SqliteConfig {
                path: side.path.clone(),
                watch: vec!["notes".into()],
                durability: Durability::Normal,
                payload_bytes_max: PAYLOAD_BYTES_DEFAULT,
                stop,
                holder: holder.clone(),
                on_busy: None,
            };
            let opened = HostedStore::open(config, HostCell::new(side.memory.host()), Hub::default());
            let replica = opened.map_err(|error| error.to_string()).and_then(|store| {
                let config = Config {
                    name: format!("side {at}"),
                    interests: [collection("notes")].into(),
                    ..Config::default()
                };
                Replica::open(config, store, side.key.clone(), now.mono.0, now)
                    .map_err(|error| error.to_string())
            });
            match replica {
                Ok(replica) => {
                    side.replica = Some(replica);
                    let intake =
                        Intake::open(&side.path, Keeps::Host, Durability::Normal, Arc::default(), &holder);
                    side.intake = Some(intake.unwrap());
                    return;
                }
                Err(error) => assert!(error.contains("cut off"), "{error}"),
            }
            side.crashes += 1;
        }
        panic!("the store could not be opened");
    }

    /// The process of a side ends without a word, and is started again.
    pub(super) fn crash(&mut self, at: usize) {
        self.sides[at].crashes += 1;
        self.sides[at].replica = None;
        self.sides[at].intake = None;
        self.unlink(1 - at);
        self.open(at);
        self.link();
    }

    fn unlink(&mut self, at: usize) {
        let link = LinkId(self.links * 2 + at as u64);
        self.input(at, Input::LinkDown { link, reason: "crash".into(), is_fault: false });
    }

    fn link(&mut self) {
        self.links += 1;
        self.wires = Default::default();
        let generation = self.links;
        for at in 0..2 {
            if self.links != generation {
                // It was cut off in the middle of this, and is linked anew.
                return;
            }
            let link = Link {
                id: LinkId(self.links * 2 + at as u64),
                peer: self.sides[1 - at].key.node_id(),
                name: format!("side {}", 1 - at),
                instance: self.sides[1 - at].crashes as u64,
                we_dialled: at == 0,
                target: None,
                frame_bytes_max: FRAME_BYTES_DEFAULT,
            };
            self.input(at, Input::LinkUp(link));
        }
    }

    fn input(&mut self, at: usize, input: Input) {
        let now = self.now();
        let Some(replica) = &mut self.sides[at].replica else { return };
        match replica.handle(now, input) {
            Ok(outputs) => {
                for output in outputs {
                    match output {
                        Output::Send { kind, body, .. } => self.wires[1 - at].push_back((kind, body)),
                        Output::Event(Event::Problem(problem)) => self.problems.push(problem),
                        Output::Close { link, .. } => self.is_closed |= link.0 / 2 == self.links,
                        _ => {}
                    }
                }
            }
            Err(failed) => {
                assert!(failed.to_string().contains("cut off"), "{failed}");
                self.crash(at);
            }
        }
    }

    /// Delivers frames until there are none, or so many.
    pub(super) fn deliver(&mut self, most: usize) {
        for _ in 0..most {
            let Some(at) = (0..2).find(|at| !self.wires[*at].is_empty()) else { return };
            let (kind, body) = self.wires[at].pop_front().unwrap();
            let link = LinkId(self.links * 2 + at as u64);
            self.input(at, Input::Frame { link, kind, body });
        }
    }

    pub(super) fn step(&mut self) {
        self.mono += STEP_MS;
        if std::mem::take(&mut self.is_closed) {
            self.unlink(0);
            self.unlink(1);
            self.link();
        }
        for at in 0..2 {
            self.input(at, Input::LocalChange);
            self.input(at, Input::Tick);
        }
        self.deliver(10_000);
    }

    pub(super) fn settle(&mut self) {
        for _ in 0..SETTLE_STEPS {
            self.step();
        }
    }

    /// The application of a side writes a document of its own, and tells of it or not.
    fn write(&mut self, at: usize, dice: &mut Dice, tells: bool) {
        let name = doc(&format!("{at}/{}", dice.roll(4)));
        self.writes += 1;
        let content = match dice.roll(4) {
            0 => None,
            _ => Some(format!(r#"{{"w":{}.0,"unknown":{at},"a":"x"}}"#, self.writes)),
        };
        let memory = self.sides[at].memory.clone();
        memory.write(name.clone(), content.as_deref());
        self.last.insert(name.clone(), content.clone());
        if !tells || memory.state().manners.outbox {
            return;
        }
        let recorded = match (dice.roll(2), content) {
            (0, _) => Recorded::Look,
            (_, Some(content)) => Recorded::Put(content.into()),
            (_, None) => Recorded::Gone,
        };
        let intake = self.sides[at].intake.as_mut().unwrap();
        intake.record(&[(name, recorded, self.start_ms + self.mono)]).unwrap();
    }

    /// The application of a side writes these documents in one go, and tells of them.
    fn write_all(&mut self, at: usize, docs: &[DocId]) {
        let now = self.start_ms + self.mono;
        let side = &mut self.sides[at];
        for doc in docs {
            side.memory.write(doc.clone(), Some("1"));
        }
        let notes: Vec<_> = docs.iter().map(|doc| (doc.clone(), Recorded::Look, now)).collect();
        side.intake.as_mut().unwrap().record(&notes).unwrap();
    }

    /// From now on a side's hooks are counted, and one of them cuts its store off.
    pub(super) fn cut_off(&mut self, at: usize, cut: Option<(usize, Cut)>) {
        let mut state = self.sides[at].memory.state();
        state.calls.clear();
        state.cut = cut;
    }

    /// Tells of all that a store has as if the application had written it.
    fn echo(&mut self, at: usize) {
        let now = self.start_ms + self.mono;
        let docs = self.sides[at].memory.all();
        let notes: Vec<_> = docs
            .iter()
            .flat_map(|(doc, content)| {
                [(doc.clone(), Recorded::Look, now), (doc.clone(), Recorded::Put(content.clone()), now)]
            })
            .collect();
        self.sides[at].intake.as_mut().unwrap().record(&notes).unwrap();
    }

    fn entries(&self) -> [u64; 2] {
        [0, 1].map(|at| {
            let replica = self.sides[at].replica.as_ref().unwrap();
            replica.status().entries
        })
    }

    /// Entries about the documents.
    fn captured(&mut self) -> u64 {
        self.captured_at(0)
    }

    fn captured_at(&mut self, at: usize) -> u64 {
        let store = self.sides[at].replica.as_mut().unwrap().store();
        let heads = store.load().unwrap().heads;
        heads
            .iter()
            .filter(|(log, ..)| log.collection == collection("notes"))
            .map(|(_, head, _)| head.seq.0)
            .sum()
    }

    fn check(&mut self, what: &str) {
        for at in 0..2 {
            self.sides[at].memory.state().cut = None;
            assert!(!self.sides[at].memory.state().is_cut);
        }
        self.settle();
        let (left, right) = (self.sides[0].memory.all(), self.sides[1].memory.all());
        let is_lossy = self.sides[0].memory.state().manners.lossy;
        let shown = |doc: &DocId, at: usize, content: &String| {
            // What an application has written itself stays as it wrote it.
            let is_own = doc.1.as_str().starts_with(&at.to_string());
            let content = Bytes::from(content.clone());
            if is_lossy && !is_own { lossy(&content) } else { content }
        };
        let expected = |at: usize| -> BTreeMap<DocId, Bytes> {
            let there = self.last.iter().filter_map(|(doc, content)| Some((doc, content.as_ref()?)));
            there.map(|(doc, content)| (doc.clone(), shown(doc, at, content))).collect()
        };
        assert_eq!(left, expected(0), "{what}: the left store");
        assert_eq!(right, expected(1), "{what}: the right store");
        let captured = self.captured();
        assert!(captured <= self.writes as u64, "{what}: {captured} entries of {} writes", self.writes);
        let entries = self.entries();
        assert_eq!(entries[0], entries[1], "{what}");
        for round in 0..2 {
            self.echo(0);
            self.echo(1);
            self.settle();
            assert_eq!(self.entries(), entries, "{what}: echoes became changes in round {round}");
        }
        assert_eq!((left, right), (self.sides[0].memory.all(), self.sides[1].memory.all()), "{what}");
    }
}

#[test]
fn what_the_application_writes_in_the_middle_of_a_unit_is_captured_first() {
    for number in 1..12 {
        let manners = Manners { transactions: true, outbox: true, ..Manners::default() };
        let mut world = World::new(&manners);
        world.settle();
        let (from, to) = (world.sides[0].memory.clone(), world.sides[1].memory.clone());
        from.write(doc("one"), Some("1"));
        {
            let mut state = to.state();
            state.calls.clear();
            state.meddle = Some((number, doc("one"), "\"in the middle\""));
        }
        world.settle();
        let all = [from.all(), to.all()];
        assert_eq!(all[0], all[1], "before hook {number}");
        let is_written = to.state().meddle.is_none();
        if is_written {
            assert_eq!(to.get(&doc("one")).as_deref(), Some("\"in the middle\""), "before hook {number}");
        }
    }
}

#[test]
fn a_unit_that_was_begun_is_finished_at_the_next_start_without_the_peer() {
    for transactions in [false, true] {
        let mut cuts = 0;
        for number in 1.. {
            let mut world = World::new(&Manners { transactions, ..Manners::default() });
            world.settle();
            let before = world.captured_at(1);
            let memory = world.sides[0].memory.clone();
            world.write_all(0, &[0, 1, 2].map(|at| doc(&format!("0/{at}"))));
            world.cut_off(1, Some((number, Cut::After)));
            world.input(0, Input::LocalChange);
            while world.sides[1].crashes == 0 && !world.wires.iter().all(VecDeque::is_empty) {
                world.deliver(1);
            }
            if world.sides[1].crashes == 0 {
                break;
            }
            cuts += 1;
            // Nothing was delivered since.
            assert_eq!(world.captured_at(1), before + 3, "cut at {number}");
            assert_eq!(world.sides[1].memory.all(), memory.all(), "cut at {number}");
        }
        assert!(cuts >= 2, "only {cuts} cuts");
    }
}

#[test]
fn what_is_refused_when_a_unit_is_done_again_is_told_like_any_other() {
    let mut cuts = 0;
    for number in 1.. {
        let mut world = World::new(&Manners { transactions: true, ..Manners::default() });
        world.settle();
        let docs = ["bad", "good"].map(doc);
        world.write_all(0, &docs);
        world.sides[1].memory.state().manners.poison = Some("bad");
        world.cut_off(1, Some((number, Cut::Before)));
        world.settle();
        let told: Vec<&str> = world.problems.iter().map(|problem| problem.key.as_str()).collect();
        assert_eq!(told, ["bad"], "cut at {number}");
        assert!(world.sides[1].memory.get(&docs[1]).is_some());
        if world.sides[1].crashes == 0 {
            break;
        }
        cuts += 1;
    }
    assert!(cuts > 4, "only {cuts} cuts");
}

/// One schedule with the hook of a number cut off on one side. Answers how many hooks were called there.
fn run(manners: &Manners, seed: u64, cut: Option<(usize, Cut)>) -> usize {
    let what = format!("seed {seed}, cut {cut:?}");
    let mut world = World::new(manners);
    let mut dice = Dice(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1);
    let victim = (seed % 2) as usize;
    world.cut_off(victim, cut);
    for _ in 0..20 {
        for _ in 0..dice.roll(4) {
            world.write(dice.roll(2) as usize, &mut dice, true);
        }
        if dice.roll(8) == 0 {
            // A write that nobody hears of, and the end of the process.
            let at = dice.roll(2) as usize;
            world.write(at, &mut dice, false);
            world.crash(at);
        }
        world.mono += 50;
        match dice.roll(3) {
            0 => world.deliver(1 + dice.roll(4) as usize),
            1 => world.input(dice.roll(2) as usize, Input::LocalChange),
            _ => world.step(),
        }
    }
    let calls = world.sides[victim].memory.state().calls.len();
    for at in 0..2 {
        // The last write of each is one that nobody hears of.
        world.write(at, &mut dice, false);
        world.crash(at);
    }
    world.check(&what);
    calls
}

fn cut_everywhere(manners: &Manners, seeds: std::ops::Range<u64>) {
    let mut cuts = 0;
    for seed in seeds {
        let calls = run(manners, seed, None);
        for number in 1..=calls {
            let cut = [Cut::Before, Cut::Middle, Cut::After][(number + seed as usize) % 3];
            run(manners, seed, Some((number, cut)));
            cuts += 1;
        }
    }
    assert!(cuts > 20, "only {cuts} places were cut at");
    tracing::info!(cuts, "a store was cut off");
}

#[test]
fn a_store_with_transactions_and_an_outbox_loses_nothing_wherever_it_is_cut_off() {
    let manners = Manners { transactions: true, outbox: true, ..Manners::default() };
    cut_everywhere(&manners, seeds());
}

#[test]
fn a_store_with_transactions_loses_nothing_wherever_it_is_cut_off() {
    cut_everywhere(&Manners { transactions: true, ..Manners::default() }, seeds());
}

#[test]
fn a_store_without_transactions_loses_nothing_wherever_it_is_cut_off() {
    cut_everywhere(&Manners { keys_only: true, ..Manners::default() }, seeds());
}

#[test]
fn a_lossy_store_comes_to_rest_wherever_it_is_cut_off() {
    for transactions in [false, true] {
        cut_everywhere(&Manners { lossy: true, transactions, ..Manners::default() }, seeds());
    }
}

/// More on demand: ENTGLDB_CRASH_SEEDS.
pub(super) fn seeds() -> std::ops::Range<u64> {
    let count = std::env::var("ENTGLDB_CRASH_SEEDS").ok().and_then(|count| count.parse().ok());
    0..count.unwrap_or(2)
}
