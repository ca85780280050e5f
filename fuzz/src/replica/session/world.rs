//! The victim, its links, and what passes over them.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bytes::Bytes;
use entgldb_replica::clock::{Mono, Now, WallMillis};
use entgldb_replica::entry::AuthorKey;
use entgldb_replica::fingerprint::Fingerprint;
use entgldb_replica::id::{Collection, DocId, Key, LinkId, LogId};
use entgldb_replica::member::members;
use entgldb_replica::version::{Head, Seq};
use entgldb_replica::wire::{Ack, Code, Digest, Message, Page};
use entgldb_replica::{Input, Output, Replica};

use super::cast::{HELD, HONEST_ENTRIES, SEED, WALL_START, cast, collection, config, link_to, start};
use super::memory::MemoryStore;

/// More calls without anything from outside than any work of these scripts needs.
const CALLS_MAX: usize = 2_000;
/// What a transport adds to a body at most.
const FRAME_OVERHEAD: usize = 64;
/// Below this, a node need not keep to what a peer takes: its hello alone may be larger.
const FRAME_BYTES_LEAST: usize = 1_000;

/// One link of the victim's, as the other end sees it.
#[derive(Debug)]
pub struct End {
    id: LinkId,
    frame_bytes_max: usize,
    /// What the other end said that it syncs.
    shared: Option<BTreeSet<Collection>>,
    has_sent_vector: bool,
    is_open: bool,
    next_page: u64,
    in_flight: VecDeque<(u64, Vec<Seq>)>,
    acks: Vec<Ack>,
}

/// The victim and all around it.
pub struct World {
    pub replica: Option<Replica<MemoryStore>>,
    /// What the application wrote last to each document, and whether the victim knows of it by now.
    pub written: BTreeMap<DocId, Option<Bytes>>,
    /// Whether the victim has asked for rows of a snapshot. They are not signed: it may have taken anything.
    pub has_asked_for_rows: bool,
    now: Now,
    ends: Vec<End>,
    next_link: u64,
    writes: u64,
}

impl World {
    pub fn new() -> Self {
        let mut world = Self {
            replica: None,
            written: BTreeMap::new(),
            has_asked_for_rows: false,
            now: start(),
            ends: Vec::new(),
            next_link: 1,
            writes: 0,
        };
        world.open(cast().store.clone());
        world.settle();
        world
    }

    fn open(&mut self, store: MemoryStore) {
        let opened = Replica::open(config(), store, cast().victim.clone(), SEED + self.next_link, self.now);
        self.replica = Some(opened.unwrap_or_else(|error| panic!("{error}")));
        self.ends.clear();
    }

    /// Ends the victim and starts it again over what is durable.
    fn restart(&mut self) {
        let store = self.replica.take().expect("it runs").into_store();
        self.open(store);
    }

    pub fn store(&mut self) -> &mut MemoryStore {
        self.replica.as_mut().expect("it runs").store()
    }

    fn input(&mut self, input: Input) {
        let replica = self.replica.as_mut().expect("it runs");
        match replica.handle(self.now, input) {
            Ok(outputs) => outputs.into_iter().for_each(|output| self.carry_out(output)),
            Err(_) => self.restart(),
        }
    }

    /// Lets the victim work until it rests, waking it for what the application has written.
    pub fn settle(&mut self) {
        for _ in 0..CALLS_MAX {
            if self.replica.as_ref().expect("it runs").next_wake() <= self.now.mono {
                self.input(Input::Tick);
            } else if self.store().outbox_len() > 0 {
                self.input(Input::LocalChange);
            } else {
                return;
            }
        }
        panic!("it does not come to rest");
    }

    fn carry_out(&mut self, output: Output) {
        match output {
            Output::Send { link, kind, body, .. } => self.receive(link, kind, body),
            Output::Close { link, .. } => self.ends.retain(|end| end.id != link),
            Output::Dial { .. } => panic!("it dials, and was told no address"),
            Output::Event(_) => {}
        }
    }

    /// What the victim sends must be what a peer may be sent.
    fn receive(&mut self, link: LinkId, kind: u64, body: Bytes) {
        let bytes = body.len() + FRAME_OVERHEAD;
        let message = Message::decode(kind, body).expect("a message that others can read");
        let end = self.ends.iter_mut().find(|end| end.id == link).expect("a link that is up");
        match message.expect("a message that others know") {
            Message::Page(page) => {
                assert!(bytes <= end.frame_bytes_max, "a page of {bytes} bytes to who takes fewer");
                assert!(end.has_sent_vector && end.is_open, "a page that was not asked for");
                let shared = end.shared.as_ref().expect("a page only after hello");
                assert!(page.runs.iter().all(|run| shared.contains(&run.log.collection)), "not shared");
                let ends = page.runs.iter().map(|run| run.signed.head.seq).collect();
                end.in_flight.push_back((page.id, ends));
            }
            Message::Vector(part) => {
                let shared = end.shared.as_ref().expect("a vector only after hello");
                assert!(part.heads.iter().all(|(log, _)| shared.contains(&log.collection)), "not shared");
            }
            Message::Ack(ack) => end.acks.push(ack),
            Message::Pull(pull) => {
                let shared = end.shared.as_ref().expect("a question only after hello");
                assert!(shared.contains(&pull.collection), "not shared");
                self.has_asked_for_rows = true;
            }
            Message::Chunk(chunk) => {
                assert!(bytes <= end.frame_bytes_max, "rows of {bytes} bytes to who takes fewer");
                let shared = end.shared.as_ref().expect("rows only after hello");
                assert!(shared.contains(&chunk.collection), "not shared");
            }
            Message::Hello(_) | Message::Digest(_) | Message::Flow { .. } => {}
        }
    }

    pub fn link(
        &mut self,
        peer: &AuthorKey,
        instance: u64,
        we_dialled: bool,
        frame_bytes_max: usize,
    ) -> LinkId {
        let id = LinkId(self.next_link);
        self.next_link += 1;
        self.ends.push(End {
            id,
            frame_bytes_max: frame_bytes_max.max(FRAME_BYTES_LEAST),
            shared: None,
            has_sent_vector: false,
            is_open: false,
            next_page: 1,
            in_flight: VecDeque::new(),
            acks: Vec::new(),
        });
        self.input(Input::LinkUp(link_to(peer, id.0, instance, we_dialled, frame_bytes_max)));
        id
    }

    fn end(&self, choice: u8) -> Option<&End> {
        self.ends.get(usize::from(choice) % self.ends.len().max(1))
    }

    pub fn unlink(&mut self, choice: u8) {
        if let Some(id) = self.end(choice).map(|end| end.id) {
            self.ends.retain(|end| end.id != id);
            self.input(Input::LinkDown { link: id, reason: "gone".to_owned(), is_fault: false });
        }
    }

    /// Gives the victim a frame of the chosen link's.
    pub fn deliver(&mut self, choice: u8, kind: u64, body: Vec<u8>) {
        let count = self.ends.len().max(1);
        let Some(end) = self.ends.get_mut(usize::from(choice) % count) else { return };
        let (link, body) = (end.id, Bytes::from(body));
        // The other end's own view follows what it says.
        match Message::decode(kind, body.clone()) {
            Ok(Some(Message::Hello(hello))) if end.shared.is_none() => {
                let ours = config().interests;
                let shared = hello.interests.into_iter().filter(|name| ours.contains(name));
                end.shared = Some(shared.chain([members().clone()]).collect());
            }
            Ok(Some(Message::Vector(part))) if part.last => end.has_sent_vector = true,
            Ok(Some(Message::Flow { open })) => end.is_open = open,
            Ok(Some(Message::Page(page))) if page.id == end.next_page => end.next_page += 1,
            Ok(Some(Message::Ack(ack))) if end.in_flight.front().is_some_and(|(id, _)| *id == ack.page) => {
                end.in_flight.pop_front();
            }
            _ => {}
        }
        self.input(Input::Frame { link, kind, body });
    }

    pub fn say(&mut self, choice: u8, message: &Message) {
        let (kind, body) = message.encode();
        self.deliver(choice, kind, body.to_vec());
    }

    pub fn next_page(&self, choice: u8) -> u64 {
        self.end(choice).map_or(1, |end| end.next_page)
    }

    pub fn oldest_in_flight(&self, choice: u8) -> (u64, Vec<Seq>) {
        let oldest = self.end(choice).and_then(|end| end.in_flight.front());
        oldest.cloned().unwrap_or((1, Vec::new()))
    }

    pub fn known_logs(&self) -> Vec<(LogId, Head)> {
        let vector = self.replica.as_ref().expect("it runs").vector();
        vector.iter().map(|(log, head)| (log.clone(), *head)).collect()
    }

    pub fn held(&self, log: &LogId) -> u64 {
        self.replica.as_ref().expect("it runs").vector().head(log).seq.0
    }

    /// A digest: the victim's own with all bits, or another one.
    pub fn digest(&mut self, choice: u8) -> Message {
        let mut vector = Fingerprint::default();
        for (log, head) in self.known_logs() {
            vector.add(Fingerprint::of_head(&log, &head));
        }
        let mut rows = Fingerprint::default();
        for (doc, row) in &self.store().rows {
            rows.add(Fingerprint::of_row(&doc.1, &row.stamp, row.content.as_ref()));
        }
        if choice & 1 != 0 {
            vector = Fingerprint::from_bytes([choice; 32]);
        }
        if choice & 2 != 0 {
            rows = Fingerprint::from_bytes([choice; 32]);
        }
        let wall = WallMillis(if choice & 4 == 0 { self.now.wall.0 } else { u64::MAX >> (choice >> 3) });
        Message::Digest(Digest { vector, rows: Some(rows), wall })
    }

    /// Time passes; the wall clock may do something else meanwhile.
    pub fn pass_time(&mut self, ms: u64, wall: u8) {
        self.now.mono = self.now.mono.plus(ms);
        let shown = &mut self.now.wall.0;
        *shown = match wall {
            0..=15 => shown.saturating_add(ms),
            16..=19 => shown.saturating_sub(ms),
            20 => 0,
            21 => WALL_START,
            _ => *shown,
        };
        self.input(Input::Tick);
    }

    /// The application writes; in an ambush, just before the victim's next commit.
    pub fn write(&mut self, choice: u8, is_ambush: bool) {
        let names = ["k0", "k1", "k2", "own0"];
        let doc: DocId = (
            collection(if choice & 1 == 0 { "a" } else { "b" }),
            Key::new(names[usize::from(choice >> 1) % names.len()]).expect("a valid key"),
        );
        // One at a time, so that the last one is known.
        if self.store().ambush.iter().any(|(waiting, ..)| *waiting == doc) {
            return;
        }
        self.writes += 1;
        let content = (choice & 0x80 == 0).then(|| Bytes::from(format!("{{\"write\":{}}}", self.writes)));
        let wall = self.now.wall;
        self.written.insert(doc.clone(), content.clone());
        if is_ambush {
            self.store().ambush.push_back((doc, content, wall));
            return;
        }
        let text = content.as_deref().map(|content| std::str::from_utf8(content).expect("it was a text"));
        self.store().write(doc.0.as_str(), doc.1.as_str(), text, wall);
        self.input(Input::LocalChange);
    }

    pub fn nudge(&mut self, choice: u8) {
        match choice % 6 {
            0 => self.input(Input::SyncNow),
            1 => self.input(Input::LocalChange),
            2 => self.restart(),
            3 => self.store().fail_next_commit = true,
            4 => self.input(Input::DialFailed { target: "peer:7700".to_owned(), reason: "no".to_owned() }),
            _ => self.input(Input::Frame { link: LinkId(u64::MAX), kind: 16, body: Bytes::new() }),
        }
    }

    /// After all that was said to it, the victim takes from an honest peer what it lacks, and both are level.
    pub fn meet_an_honest_peer(&mut self) {
        while !self.ends.is_empty() {
            self.unlink(0);
        }
        let never_written = std::mem::take(&mut self.store().ambush);
        self.written.retain(|doc, _| never_written.iter().all(|(never, ..)| never != doc));
        self.store().fail_next_commit = false;
        self.now.mono = Mono(self.now.mono.0.saturating_add(1));
        self.now.wall.0 = self.now.wall.0.max(WALL_START);
        let id = self.link(&cast().honest, 1_000, false, 16 << 20);
        self.say(0, &super::hello(vec![collection("a"), collection("b")], self.now.wall));
        let logs = &cast().honest_logs[..2];
        let mut heads: BTreeMap<LogId, Head> = self.known_logs().into_iter().collect();
        heads.extend(logs.iter().map(|log| (log.run.log.clone(), log.head(HONEST_ENTRIES - 1))));
        self.say(0, &super::vector(heads.into_iter().collect(), true));
        let missing = logs.iter().filter_map(|log| {
            let held = usize::try_from(self.held(&log.run.log)).expect("a small number");
            assert!(held >= HELD, "it has lost entries of another author");
            (held < HONEST_ENTRIES).then(|| log.part(held, HONEST_ENTRIES - 1))
        });
        let runs: Vec<_> = missing.collect();
        if !runs.is_empty() {
            self.say(0, &Message::Page(Page { id: 1, runs }));
            self.settle();
            let end = self.ends.iter().find(|end| end.id == id).expect("an honest peer keeps its link");
            let ack = end.acks.first().expect("an honest page is answered");
            assert!(ack.results.iter().all(|result| result.code == Code::Taken), "refused: {ack:?}");
        }
        assert!(logs.iter().all(|log| self.held(&log.run.log) == HONEST_ENTRIES as u64));
        // What was captured meanwhile the peer does not hold yet; then it says that it does.
        self.say(0, &super::vector(self.known_logs(), true));
        self.settle();
        let replica = self.replica.as_ref().expect("it runs");
        // A snapshot that another peer began it goes on with, and this one gives none.
        let level = replica.is_level() || replica.status().snapshot.is_some();
        assert!(level, "not level with an honest peer: {:?}", replica.status());
    }
}
