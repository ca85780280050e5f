//! Invariant 7: delivering anything again changes nothing. At the end, a peer made up for the purpose sends a node every
//! entry that it holds once more.

use entgldb_replica::clock::{Hlc, WallMillis};
use entgldb_replica::entry::{AuthorKey, Chain, Entry, Op, SignedHead};
use entgldb_replica::id::{Incarnation, Key, LogId, NodeId};
use entgldb_replica::limits::{FRAME_BYTES_HARD, PAGE_ENTRIES_MAX};
use entgldb_replica::version::{Hash, Head, Seq};
use entgldb_replica::wire::{Hello, Message, Page, Run, VERSION, check_of};
use entgldb_replica::{Input, Link, Output};

use crate::disk::Disk;
use crate::mutation::Mutation;
use crate::world::{Stop, World};

/// Entries in a page that is delivered again; any number will do.
const PAGE_ENTRIES: u64 = PAGE_ENTRIES_MAX as u64 / 8;
/// Bytes of an entry in a page beside its key and content, at most.
const ENTRY_BYTES: usize = 100;

impl World {
    pub(crate) fn redeliver(&mut self) -> Result<(), Stop> {
        let node = usize::try_from(self.options.seed % self.nodes.len() as u64).expect("a few");
        let node = self.options.clone_of(node).unwrap_or(node);
        let mut runs = runs_of(&self.nodes[node].store.disk(), self.options.frame_bytes_max);
        if self.options.mutation == Mutation::RedeliveryIsNew {
            runs.push(new_run(self.clocks(node).wall));
        }
        let before = state(&self.nodes[node].store.disk());
        let peer = AuthorKey::from_seed(&[200; 32]).node_id();
        let link = self.network.link_ids()[0];
        let up = Link {
            id: link,
            peer,
            name: "again".into(),
            instance: 1,
            we_dialled: false,
            target: None,
            frame_bytes_max: FRAME_BYTES_HARD,
        };
        self.quiet_input(node, Input::LinkUp(up))?;
        let hello = Hello {
            version: VERSION,
            incarnation: Incarnation(1),
            interests: self.setting.collections().into_iter().collect(),
            wall: self.clocks(node).wall,
            frame_bytes_max: FRAME_BYTES_HARD as u64,
        };
        let (kind, body) = Message::Hello(hello).encode();
        self.quiet_input(node, Input::Frame { link, kind, body })?;
        for (number, run) in runs.into_iter().enumerate() {
            let page = Message::Page(Page { id: number as u64 + 1, runs: vec![run] });
            let (kind, body) = page.encode();
            self.quiet_input(node, Input::Frame { link, kind, body })?;
            self.coverage.add("pages delivered again", 1);
        }
        self.quiet_input(node, Input::LinkDown { link, reason: "done".into(), is_fault: false })?;
        if state(&self.nodes[node].store.disk()) != before {
            let detail = format!("node {node} is another one after everything was delivered again");
            return self.found(Err(("7 again changes nothing", detail)));
        }
        Ok(())
    }

    /// An input whose outputs to the made-up peer go nowhere.
    fn quiet_input(&mut self, node: usize, input: Input) -> Result<(), Stop> {
        let clocks = self.clocks(node);
        let Some(replica) = self.nodes[node].replica.as_mut() else { return Ok(()) };
        let closed = match replica.handle(clocks, input) {
            Ok(outputs) => outputs.into_iter().find_map(|output| match output {
                Output::Close { reason, .. } => Some(reason),
                _ => None,
            }),
            Err(failed) => Some(failed.to_string()),
        };
        // Commits are no fault by themselves: the state afterwards tells.
        self.nodes[node].store.inner().seen.clear();
        match closed {
            Some(reason) => self.found(Err(("7 again changes nothing", reason))),
            None => Ok(()),
        }
    }
}

/// Everything that would differ if something had changed.
fn state(disk: &Disk) -> (u64, u64, usize, Hlc, usize) {
    (disk.vector_sum, disk.rows_sum, disk.entries(), disk.clock, disk.docs.len())
}

/// All entries of a disk, in runs that end at signed heads and fit pages, as far as units do.
fn runs_of(disk: &Disk, frame_bytes_max: usize) -> Vec<Run> {
    let mut runs = Vec::new();
    for (log, entries) in &disk.log {
        let Some(key) = disk.authors.iter().find(|key| NodeId::of(key) == log.author) else { continue };
        let mut run = |from: Seq, signed: &SignedHead| {
            let previous = disk.hash_at(log, from).unwrap_or_default();
            let entries = entries.range(from.next()..=signed.head.seq);
            let entries = entries.map(|(_, s)| (s.entry.clone(), check_of(&s.hash))).collect();
            runs.push(Run { log: log.clone(), public_key: *key, previous, entries, signed: signed.clone() });
        };
        let bytes = |from: Seq, to: Seq| -> usize {
            let entries = entries.range(from.next()..=to);
            entries.map(|(_, s)| s.entry.payload.len() + s.entry.key.as_str().len() + ENTRY_BYTES).sum()
        };
        let mut from = disk.floor(log);
        let mut last: Option<&SignedHead> = None;
        for (seq, signed) in disk.signed[log].range(from.next()..) {
            let is_full = seq.0 - from.0 > PAGE_ENTRIES || bytes(from, *seq) > frame_bytes_max / 2;
            if let Some(end) = last.take_if(|_| is_full) {
                run(from, end);
                from = end.head.seq;
            }
            last = Some(signed);
        }
        if let Some(end) = last {
            run(from, end);
        }
    }
    runs
}

/// A run that no node has.
fn new_run(wall: WallMillis) -> Run {
    let key = AuthorKey::from_seed(&[201; 32]);
    let collection = crate::setting::collection(0);
    let log = LogId { author: key.node_id(), incarnation: Incarnation(1), collection };
    let entry = Entry {
        seq: Seq(1),
        hlc: Hlc::from_wall(wall),
        replaces: None,
        op: Op::Put,
        key: Key::new("new").expect("a short key"),
        payload: "new".into(),
    };
    let mut chain = Chain::resume(log.clone(), Head::default(), Hlc(0));
    let linked = chain.link(entry.clone()).expect("the first of its log");
    let signed = SignedHead::sign(&key, &log, linked.head(), entry.hlc);
    let check = check_of(&linked.hash());
    Run {
        log,
        public_key: key.public_key(),
        previous: Hash::default(),
        entries: vec![(entry, check)],
        signed,
    }
}
