//! Nodes over real files, and a network between them that carries frames when it is asked to.

use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use entgldb_replica::clock::{Mono, Now, WallMillis};
use entgldb_replica::entry::AuthorKey;
use entgldb_replica::event::Event;
use entgldb_replica::id::{Collection, LinkId};
use entgldb_replica::limits::{FRAME_BYTES_DEFAULT, Limits, PAYLOAD_BYTES_DEFAULT, RETENTION_MS};
use entgldb_replica::store::ProblemKind;
use entgldb_replica::{Config, Input, Link, Mark, Output, Replica, StoreFailed};
use entgldb_sqlite::inspect::Inspector;
use entgldb_sqlite::{Durability, Holder, SqliteConfig, SqliteStore};
use fastrand::Rng;
use tempfile::TempDir;

use super::accounts::Accounts;
use super::app::{App, Trace};
use super::mix::{Class, Mix};
use super::oracle::set_aside;
use super::shape::{Moment, TABLE, plan};
use super::store::{Ended, Gapped, Gaps};

/// Where the wall clocks begin: long ago, so that no time of the machine is earlier than any time of a run. The engine never
/// takes a write to be later than its own clock, so what it reads of the machine's time does not count.
const WALL_START_MS: u64 = 1_500_000_000_000;
/// The largest document while rows may be too large.
const SMALL_PAYLOAD_BYTES: usize = 500;
/// How long history is kept where it is forgotten soon.
const SHORT_RETENTION_MS: u64 = 3_000;

/// One node.
pub struct Node {
    pub path: PathBuf,
    pub app: Rc<RefCell<App>>,
    pub replica: Option<Replica<Gapped>>,
    pub gaps: Rc<RefCell<Gaps>>,
    pub key: AuthorKey,
    pub payload_bytes_max: usize,
    /// What it last knew of how far its oplog had come, kept outside of its file.
    mark: Option<Mark>,
    starts: u64,
    skew_ms: u64,
    /// A copy of the file, what the application had carried out by then, and the number of the transaction before.
    pub backup: Option<(PathBuf, usize, u64)>,
}

/// Two nodes, the lesser one first.
pub type Pair = (usize, usize);

/// A frame on its way: its link, its type and its body.
type Flying = (LinkId, u64, Bytes);

/// See the module's documentation.
pub struct World {
    folder: TempDir,
    pub mix: Rc<Mix>,
    pub nodes: Vec<Node>,
    pub accounts: Rc<RefCell<Accounts>>,
    pub trace: Trace,
    /// The links that are up.
    pub links: BTreeMap<Pair, LinkId>,
    /// Pairs that may not be linked now.
    pub parted: Vec<Pair>,
    /// Frames on their way, by sender and receiver.
    pub wires: BTreeMap<(usize, usize), VecDeque<Flying>>,
    pub mono: u64,
    limits: Limits,
    last_link: u64,
}

impl World {
    /// Nodes with their files and applications; no store is open yet.
    pub fn new(mix: Mix, rng: &mut Rng, trace: Trace) -> Self {
        let memory = std::path::Path::new("/dev/shm");
        let folder = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() };
        let mut folder = folder.expect("a temporary folder");
        if std::env::var_os("ENTGLDB_HARNESS_KEEP").is_some() {
            folder.disable_cleanup(true);
            trace.borrow_mut().push(format!("the files are in {}", folder.path().display()));
        }
        let mix = Rc::new(mix);
        let plan: Rc<Vec<Moment>> = Rc::new(plan(&mix, rng));
        let accounts: Rc<RefCell<Accounts>> = Rc::default();
        let node = |number: usize| {
            let path = folder.path().join(format!("{number}.db"));
            let shared = (accounts.clone(), trace.clone());
            let app = App::new(number, path.clone(), mix.clone(), plan.clone(), shared, rng.fork());
            Node {
                path,
                app: Rc::new(RefCell::new(app)),
                replica: None,
                gaps: Rc::default(),
                key: AuthorKey::from_seed(&[number as u8 + 1; 32]),
                payload_bytes_max: if mix.has(Class::Large) {
                    SMALL_PAYLOAD_BYTES
                } else {
                    PAYLOAD_BYTES_DEFAULT
                },
                mark: None,
                starts: 0,
                skew_ms: if mix.has(Class::Skew) { rng.u64(..2000) } else { 0 },
                backup: None,
            }
        };
        let nodes = (0..mix.nodes()).map(node).collect();
        let limits = limits(&mix, rng);
        Self {
            folder,
            mix,
            nodes,
            accounts,
            trace,
            links: BTreeMap::new(),
            parted: Vec::new(),
            wires: BTreeMap::new(),
            mono: 0,
            limits,
            last_link: 0,
        }
    }

    pub fn note(&self, what: String) {
        self.trace.borrow_mut().push(what);
    }

    /// A path in the run's folder.
    pub fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn now(&self, at: usize) -> Now {
        let wall = WALL_START_MS + self.mono + self.nodes[at].skew_ms;
        Now { mono: Mono(self.mono), wall: WallMillis(wall) }
    }

    /// Lets time pass.
    pub fn pass(&mut self, ms: u64) {
        self.mono += ms;
        for at in 0..self.nodes.len() {
            let wall = self.now(at).wall.0;
            self.nodes[at].app.borrow().clock.store(wall, Ordering::Relaxed);
        }
    }

    pub fn is_on(&self, at: usize) -> bool {
        self.nodes[at].replica.is_some()
    }

    /// Starts a node: again, if it is ended in the middle of that. Its application first ends a migration in several steps that
    /// it is in the middle of: without its table a store does not open.
    pub fn start(&mut self, at: usize) {
        while !self.is_on(at) {
            let app = self.nodes[at].app.clone();
            while !app.borrow().is_open() {
                app.borrow_mut().migrate();
            }
            self.start_once(at);
        }
    }

    fn start_once(&mut self, at: usize) {
        let now = self.now(at);
        let node = &mut self.nodes[at];
        let config = SqliteConfig {
            path: node.path.clone(),
            watch: vec![TABLE.into()],
            durability: if self.mix.has(Class::Unsynced) { Durability::Normal } else { Durability::Full },
            payload_bytes_max: node.payload_bytes_max,
            stop: Arc::default(),
            holder: Holder::new("node", &format!("node {at}"), node.path.parent().expect("in a folder")),
            on_busy: None,
        };
        let inner = match SqliteStore::open(config) {
            Ok(store) => store,
            Err(error) => panic!("the store of node {at} does not open: {error}"),
        };
        node.starts += 1;
        let store = Gapped { inner, gaps: node.gaps.clone(), app: node.app.clone() };
        let table = Collection::new(TABLE).expect("a short name");
        let config = Config {
            name: format!("node {at}"),
            interests: [table.clone()].into(),
            merging: if self.mix.has(Class::Merge) { [table].into() } else { Default::default() },
            payload_bytes_max: node.payload_bytes_max,
            limits: self.limits,
            retention_ms: Some(if self.mix.has(Class::Forget) { SHORT_RETENTION_MS } else { RETENTION_MS }),
            mark: node.mark,
            ..Config::default()
        };
        let seed = node.starts * 1000 + at as u64;
        match Replica::open(config, store, node.key.clone(), seed, now) {
            Ok(replica) => {
                node.replica = Some(replica);
                self.note(format!("  node {at} is on"));
                self.input(at, Input::LocalChange);
            }
            Err(failed) => self.ended(at, &failed.0),
        }
    }

    /// The store's call did not come back.
    fn ended(&mut self, at: usize, why: &Ended) {
        match why {
            Ended::Killed => self.note(format!("  node {at} is killed in the middle of a call")),
            Ended::Failed(failed) => panic!("the store of node {at} fails: {failed}"),
        }
    }

    /// Ends a node without a word, or cleanly.
    pub fn stop(&mut self, at: usize, cleanly: bool) {
        let Some(replica) = self.nodes[at].replica.take() else { return };
        if cleanly {
            self.nodes[at].mark = Some(replica.mark());
            replica.into_store().inner.close().expect("the store is closed");
        }
        self.unlink_all(at, "gone");
    }

    fn unlink_all(&mut self, at: usize, reason: &str) {
        let pairs: Vec<Pair> =
            self.links.keys().filter(|pair| pair.0 == at || pair.1 == at).copied().collect();
        for pair in pairs {
            self.unlink(pair, reason);
        }
    }

    /// Takes a link down; both ends hear of it.
    pub fn unlink(&mut self, pair: Pair, reason: &str) {
        let Some(link) = self.links.remove(&pair) else { return };
        self.wires.remove(&pair);
        self.wires.remove(&(pair.1, pair.0));
        for at in [pair.0, pair.1] {
            self.input(at, Input::LinkDown { link, reason: reason.into(), is_fault: false });
        }
    }

    /// Brings up all links between nodes that are on and not parted.
    pub fn link_all(&mut self) {
        for low in 0..self.nodes.len() {
            for high in low + 1..self.nodes.len() {
                let pair = (low, high);
                if self.is_on(low)
                    && self.is_on(high)
                    && !self.parted.contains(&pair)
                    && !self.links.contains_key(&pair)
                {
                    self.link(pair);
                }
            }
        }
    }

    fn link(&mut self, pair: Pair) {
        self.last_link += 1;
        let id = LinkId(self.last_link);
        self.links.insert(pair, id);
        for (at, other) in [pair, (pair.1, pair.0)] {
            let link = Link {
                id,
                peer: self.nodes[other].key.node_id(),
                name: format!("node {other}"),
                instance: self.nodes[other].starts,
                we_dialled: at < other,
                target: None,
                frame_bytes_max: FRAME_BYTES_DEFAULT,
            };
            if self.links.get(&pair) == Some(&id) {
                self.input(at, Input::LinkUp(link));
            }
        }
    }

    /// Hands something to a replica and carries out what it answers.
    pub fn input(&mut self, at: usize, input: Input) {
        let now = self.now(at);
        let Some(replica) = &mut self.nodes[at].replica else { return };
        match replica.handle(now, input) {
            Ok(outputs) => {
                let mark = replica.mark();
                if outputs.iter().any(|output| matches!(output, Output::Send { .. })) {
                    self.nodes[at].mark = Some(mark);
                }
                outputs.into_iter().for_each(|output| self.carry_out(at, output));
            }
            Err(StoreFailed(why)) => {
                self.ended(at, &why);
                self.nodes[at].replica = None;
                self.unlink_all(at, "killed");
                self.start(at);
            }
        }
    }

    fn carry_out(&mut self, at: usize, output: Output) {
        let end = |pair: &Pair| if pair.0 == at { pair.1 } else { pair.0 };
        let found = |world: &Self, link: LinkId| {
            let known = world.links.iter().find(|(_, id)| **id == link);
            known.map(|(pair, _)| *pair)
        };
        match output {
            Output::Send { link, kind, body, .. } => {
                if let Some(pair) = found(self, link) {
                    self.wires.entry((at, end(&pair))).or_default().push_back((link, kind, body));
                }
            }
            Output::Close { link, reason } => {
                self.note(format!("  node {at} closes its link: {reason}"));
                assert!(!reason.contains("violation"), "node {at} closes its link: {reason}");
                if let Some(pair) = found(self, link) {
                    self.unlink(pair, &reason);
                }
            }
            Output::Event(Event::PeerUp { .. } | Event::PeerDown { .. } | Event::SyncProgress { .. }) => {}
            Output::Event(event) => self.event(at, &event),
            Output::Dial { .. } => {}
        }
    }

    fn event(&self, at: usize, event: &Event) {
        let mut text = format!("{event:?}");
        if let Some((end, _)) = text.char_indices().nth(300) {
            text.truncate(end);
        }
        self.note(format!("  node {at}: {text}"));
        if let Event::Problem(problem) = event
            && [ProblemKind::Collided, ProblemKind::SetAside].contains(&problem.kind)
        {
            let inspector = Inspector::open(&self.nodes[at].path).expect("the store can be inspected");
            let found = set_aside(&mut inspector.expect("the store is open"));
            self.accounts.borrow_mut().set_aside.extend(found);
        }
        assert!(
            !matches!(event, Event::Refused { .. } | Event::Diverged { .. }),
            "an honest node is refused, or rows differ under equal vectors: {text}"
        );
    }

    /// Delivers the first frame between two nodes. Answers whether there was one.
    pub fn deliver(&mut self, from: usize, to: usize) -> bool {
        let Some(wire) = self.wires.get_mut(&(from, to)) else { return false };
        let Some((link, kind, body)) = wire.pop_front() else { return false };
        self.input(to, Input::Frame { link, kind, body });
        true
    }

    /// The ends of the wires that have frames.
    pub fn busy(&self) -> Vec<(usize, usize)> {
        self.wires.iter().filter(|(_, wire)| !wire.is_empty()).map(|(ends, _)| *ends).collect()
    }

    /// Everybody looks, and everything is delivered.
    pub fn round(&mut self, ms: u64) {
        self.pass(ms);
        self.link_all();
        for at in 0..self.nodes.len() {
            self.input(at, Input::LocalChange);
            self.input(at, Input::Tick);
        }
        for _ in 0..10_000 {
            let Some((from, to)) = self.busy().first().copied() else { break };
            self.deliver(from, to);
        }
    }
}

fn limits(mix: &Mix, rng: &mut Rng) -> Limits {
    let mut limits = Limits::default();
    if mix.has(Class::SmallPages) {
        // Where a unit of more is cut depends on the machine's time, which the store reads while it looks a table through.
        limits.unit_changes = if rng.bool() { 1 } else { limits.unit_changes };
        limits.page_entries = rng.usize(1..4);
    }
    if mix.has(Class::Snapshot) {
        limits.snapshot_entries = rng.u64(1..6);
    }
    limits
}
