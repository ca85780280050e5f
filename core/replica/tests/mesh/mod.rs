//! Several replicas in one thread, with a network and clocks that only the test moves.

pub mod memory;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use entgldb_replica::clock::{Mono, Now, WallMillis};
use entgldb_replica::entry::AuthorKey;
use entgldb_replica::event::Event;
use entgldb_replica::fingerprint::{Fingerprint, Tally};
use entgldb_replica::id::{Collection, LinkId, NodeId};
use entgldb_replica::limits::{FRAME_BYTES_DEFAULT, Limits};
use entgldb_replica::member::members;
use entgldb_replica::{Config, Input, Link, Mark, Output, Replica};
use fastrand::Rng;

use memory::MemoryStore;

/// Simulated start of the wall clocks.
const WALL_START_MS: u64 = 1_800_000_000_000;

pub struct Node {
    pub replica: Option<Replica<MemoryStore>>,
    key: AuthorKey,
    pub config: Config,
    pub events: Vec<Event>,
    starts: u64,
    /// What the caller keeps beside the store; taken when the node ends, given back when it starts.
    pub mark: Option<Mark>,
    /// This node's wall clock minus the true time.
    pub clock_offset_ms: i64,
}

impl Node {
    pub fn id(&self) -> NodeId {
        self.key.node_id()
    }
}

struct Wire {
    ends: [usize; 2],
    ids: [LinkId; 2],
    /// Frames towards each end.
    queues: [VecDeque<(u64, bytes::Bytes)>; 2],
}

/// A set of nodes named by index; links are made by the test.
pub struct Mesh {
    pub nodes: Vec<Node>,
    wires: Vec<Wire>,
    next_link: u64,
    pub mono: u64,
    pub frames: u64,
    rng: Rng,
    pub tamper: Option<fn(u64, bytes::Bytes) -> bytes::Bytes>,
    /// Largest frame of links made from now on.
    pub frame_bytes_max: usize,
}

pub fn interests(names: &[&str]) -> BTreeSet<Collection> {
    names.iter().map(|name| Collection::new(name).unwrap()).collect()
}

impl Mesh {
    pub fn new(count: usize, collections: &[&str]) -> Self {
        let mut mesh = Self {
            nodes: Vec::new(),
            wires: Vec::new(),
            next_link: 0,
            mono: 0,
            frames: 0,
            rng: Rng::with_seed(7),
            tamper: None,
            frame_bytes_max: FRAME_BYTES_DEFAULT,
        };
        for _ in 0..count {
            mesh.add(collections);
        }
        mesh
    }

    pub fn seeded(count: usize, collections: &[&str], seed: u64) -> Self {
        let mut mesh = Self::new(count, collections);
        mesh.rng = Rng::with_seed(seed);
        mesh
    }

    pub fn add(&mut self, collections: &[&str]) -> usize {
        let index = self.nodes.len();
        let config = Config { interests: interests(collections), ..Config::default() };
        self.nodes.push(Node {
            replica: None,
            key: AuthorKey::from_seed(&[index as u8 + 1; 32]),
            config,
            events: Vec::new(),
            starts: 0,
            mark: None,
            clock_offset_ms: 0,
        });
        self.start(index, MemoryStore::default());
        index
    }

    /// Gives a node other limits and starts it again.
    pub fn limit(&mut self, index: usize, limits: Limits) {
        self.nodes[index].config.limits = limits;
        self.restart(index);
    }

    pub fn now(&self, node: usize) -> Now {
        let wall = (WALL_START_MS + self.mono).saturating_add_signed(self.nodes[node].clock_offset_ms);
        Now { mono: Mono(self.mono), wall: WallMillis(wall) }
    }

    pub fn start(&mut self, index: usize, store: MemoryStore) {
        let now = self.now(index);
        let node = &mut self.nodes[index];
        node.starts += 1;
        let seed = (index as u64 + 1) * 1000 + node.starts;
        let config = Config { mark: node.mark, ..node.config.clone() };
        node.replica = Some(Replica::open(config, store, node.key.clone(), seed, now).expect("opens"));
    }

    /// Ends a node without warning; its links go down. What it had committed is returned.
    pub fn crash(&mut self, index: usize) -> MemoryStore {
        let replica = self.nodes[index].replica.take().expect("it runs");
        self.nodes[index].mark = Some(replica.mark());
        let store = replica.into_store();
        let (gone, left) =
            std::mem::take(&mut self.wires).into_iter().partition(|w: &Wire| w.ends.contains(&index));
        self.wires = left;
        let gone: Vec<Wire> = gone;
        for wire in gone {
            let side = usize::from(wire.ends[0] == index);
            let (other, link) = (wire.ends[side], wire.ids[side]);
            self.input(other, Input::LinkDown { link, reason: "the peer is gone".into(), is_fault: false });
        }
        store
    }

    pub fn restart(&mut self, index: usize) {
        let store = self.crash(index);
        self.start(index, store);
    }

    pub fn store(&mut self, index: usize) -> &mut MemoryStore {
        self.nodes[index].replica.as_mut().expect("it runs").store()
    }

    pub fn write(&mut self, index: usize, collection: &str, key: &str, content: &str) {
        self.write_at(index, &[(collection, key, Some(content))]);
    }

    pub fn delete(&mut self, index: usize, collection: &str, key: &str) {
        self.write_at(index, &[(collection, key, None)]);
    }

    /// One transaction of the application.
    pub fn write_at(&mut self, index: usize, changes: &[(&str, &str, Option<&str>)]) {
        let at = self.now(index).wall;
        for (collection, key, content) in changes {
            self.store(index).write(collection, key, *content, at);
        }
        self.input(index, Input::LocalChange);
    }

    pub fn link(&mut self, a: usize, b: usize) {
        self.next_link += 2;
        let ids = [LinkId(self.next_link), LinkId(self.next_link + 1)];
        let ends = [a, b];
        self.wires.push(Wire { ends, ids, queues: [VecDeque::new(), VecDeque::new()] });
        for side in 0..2 {
            let (peer_index, index) = (ends[1 - side], ends[side]);
            let peer = &self.nodes[peer_index];
            let link = Link {
                id: ids[side],
                peer: peer.key.node_id(),
                name: format!("node {peer_index}"),
                instance: peer_index as u64 * 1000 + peer.starts,
                we_dialled: side == 0,
                target: None,
                frame_bytes_max: self.frame_bytes_max,
            };
            self.input(index, Input::LinkUp(link));
        }
    }

    pub fn unlink(&mut self, a: usize, b: usize) {
        let position = self.wires.iter().position(|w| w.ends == [a, b] || w.ends == [b, a]);
        if let Some(position) = position {
            let wire = self.wires.remove(position);
            for side in 0..2 {
                let down = Input::LinkDown { link: wire.ids[side], reason: "cut".into(), is_fault: false };
                self.input(wire.ends[side], down);
            }
        }
    }

    pub fn is_linked(&self, a: usize, b: usize) -> bool {
        self.wires.iter().any(|w| w.ends == [a, b] || w.ends == [b, a])
    }

    pub fn input(&mut self, index: usize, input: Input) {
        let now = self.now(index);
        let Some(replica) = &mut self.nodes[index].replica else { return };
        match replica.handle(now, input) {
            Ok(outputs) => self.carry_out(index, outputs),
            Err(_) => self.restart(index),
        }
    }

    fn carry_out(&mut self, index: usize, outputs: Vec<Output>) {
        for output in outputs {
            match output {
                Output::Send { link, kind, body, .. } => {
                    let wire = self.wires.iter_mut().find(|w| w.ids.contains(&link));
                    let Some(wire) = wire else { continue };
                    let side = usize::from(wire.ids[0] == link);
                    let body = self.tamper.map_or(body.clone(), |tamper| tamper(kind, body));
                    wire.queues[side].push_back((kind, body));
                }
                Output::Close { link, reason } => {
                    let position = self.wires.iter().position(|w| w.ids.contains(&link));
                    if let Some(position) = position {
                        let wire = self.wires.remove(position);
                        let side = usize::from(wire.ids[0] == link);
                        let down = Input::LinkDown { link: wire.ids[side], reason, is_fault: true };
                        self.input(wire.ends[side], down);
                    }
                }
                Output::Event(event) => self.nodes[index].events.push(event),
                Output::Dial { .. } => {}
            }
        }
    }

    /// Delivers one frame of a queue picked at random, or lets one node do more work. `false` if all are idle.
    pub fn step(&mut self) -> bool {
        let mut choices: Vec<(Option<(usize, usize)>, usize)> = Vec::new();
        for (position, wire) in self.wires.iter().enumerate() {
            for side in 0..2 {
                if !wire.queues[side].is_empty() {
                    choices.push((Some((position, side)), wire.ends[side]));
                }
            }
        }
        for (index, node) in self.nodes.iter().enumerate() {
            if node.replica.as_ref().is_some_and(|replica| replica.next_wake() <= Mono(self.mono)) {
                choices.push((None, index));
            }
        }
        if choices.is_empty() {
            return false;
        }
        match choices[self.rng.usize(..choices.len())] {
            (Some((position, side)), index) => {
                let wire = &mut self.wires[position];
                let (link, (kind, body)) = (wire.ids[side], wire.queues[side].pop_front().unwrap());
                self.frames += 1;
                self.input(index, Input::Frame { link, kind, body });
            }
            (None, index) => self.input(index, Input::Tick),
        }
        true
    }

    /// Runs until nothing happens at this moment.
    pub fn settle(&mut self) {
        for _ in 0..200_000 {
            if !self.step() {
                return;
            }
        }
        panic!("the mesh does not come to rest");
    }

    /// Lets time pass, in steps of 100 ms.
    pub fn run(&mut self, ms: u64) {
        for _ in 0..ms / 100 {
            self.settle();
            self.mono += 100;
        }
        self.settle();
    }

    /// One of five things that may happen to two nodes: 0 links them, 1 cuts their link, 2 restarts the first, 3 puts its clock
    /// wrong; else, or where they are linked already, time passes.
    pub fn disturb(&mut self, rng: &mut Rng, (node, other): (usize, usize), what: u8) {
        match what {
            0 if node != other && !self.is_linked(node, other) => self.link(node, other),
            1 => self.unlink(node, other),
            2 => self.restart(node),
            3 => self.nodes[node].clock_offset_ms = rng.i64(-200_000..200_000),
            _ => self.run(rng.u64(0..3000)),
        }
    }

    /// Puts the clocks right, captures everything, links the nodes to a ring, which is enough for everything to reach everybody,
    /// and waits until it has.
    pub fn heal(&mut self) {
        let count = self.nodes.len();
        for node in 0..count {
            self.input(node, Input::LocalChange);
            self.nodes[node].clock_offset_ms = 0;
        }
        for node in 0..count {
            if !self.is_linked(node, (node + 1) % count) {
                self.link(node, (node + 1) % count);
            }
        }
        self.run(200_000);
    }

    /// Checks that all running nodes hold the same, in every way that can be seen.
    pub fn assert_equal(&mut self) {
        let mut first: Option<(usize, BTreeMap<_, _>, BTreeMap<_, _>)> = None;
        for index in 0..self.nodes.len() {
            if self.nodes[index].replica.is_none() {
                continue;
            }
            self.assert_sound(index);
            let store = self.store(index);
            let (rows, docs) = (store.rows.clone(), store.docs.clone());
            let vector = self.nodes[index].replica.as_ref().unwrap().vector().clone();
            match &first {
                None => first = Some((index, rows, docs)),
                Some((other, other_rows, other_docs)) => {
                    let theirs = self.nodes[*other].replica.as_ref().unwrap().vector();
                    assert_eq!(*theirs, vector, "vectors of {other} and {index}");
                    assert_eq!(*other_rows, rows, "rows of {other} and {index}");
                    assert_eq!(*other_docs, docs, "documents of {other} and {index}");
                }
            }
            let diverged = self.nodes[index].events.iter().any(|e| matches!(e, Event::Diverged { .. }));
            assert!(!diverged, "node {index} saw equal vectors with unequal rows");
        }
    }

    /// Checks what must hold on one node alone: the rows are the join of the entries, and the documents are the rows.
    pub fn assert_sound(&mut self, index: usize) {
        let store = self.store(index);
        assert_eq!(store.outbox_len(), 0, "everything written on node {index} is captured");
        let mut tallies: BTreeMap<Collection, Tally> = BTreeMap::new();
        for ((collection, key), row) in &store.rows {
            let tally = tallies.entry(collection.clone()).or_default();
            tally.fingerprint.add(Fingerprint::of_row(key, &row.stamp, row.content.as_ref()));
            tally.rows += 1;
        }
        assert_eq!(store.tallies, tallies, "fingerprints of node {index} are those of its rows");
        let mut joined: BTreeMap<_, (_, Option<bytes::Bytes>)> = BTreeMap::new();
        for (log, entries) in store.logs() {
            for stored in entries {
                let doc = (log.collection.clone(), stored.entry.key.clone());
                let stamp = stored.entry.stamp(log.author);
                if joined.get(&doc).is_none_or(|(known, _)| *known < stamp) {
                    joined.insert(doc, (stamp, stored.entry.content().cloned()));
                }
            }
        }
        if !store.floors.is_empty() {
            for (doc, (stamp, _)) in &joined {
                assert!(store.rows[doc].stamp >= *stamp, "a row of node {index} is older than its entries");
            }
            return;
        }
        let rows = store.rows.iter().filter(|(doc, _)| doc.0 != *members());
        let rows: BTreeMap<_, _> = rows.map(|(doc, row)| (doc.clone(), row.stamp)).collect();
        let stamps: BTreeMap<_, _> = joined.iter().map(|(doc, (stamp, _))| (doc.clone(), *stamp)).collect();
        assert_eq!(rows, stamps, "rows of node {index} are the join of its entries");
        let contents: BTreeMap<_, _> =
            joined.into_iter().filter_map(|(doc, (_, content))| Some((doc, content?))).collect();
        assert_eq!(store.docs, contents, "documents of node {index} are what its rows say");
    }
}
