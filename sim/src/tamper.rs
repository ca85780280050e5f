//! A member that lies: what it does to the messages that it sends.

use bytes::Bytes;
use entgldb_replica::clock::{Hlc, WallMillis};
use entgldb_replica::entry::{AuthorKey, Chain, Entry, Op, SignedHead};
use entgldb_replica::id::{Incarnation, Key, LogId, NodeId};
use entgldb_replica::version::{Hash, Head, Seq};
use entgldb_replica::wire::{Code, Cursor, Digest, Message, Page, Part, Pull, Run, VectorPart, check_of};

use crate::rng::Rng;

/// The frame type of a piece of a snapshot.
const CHUNK: u64 = 23;

/// The lies of one member.
pub(crate) struct Liar {
    pub(crate) rng: Rng,
    pub(crate) key: AuthorKey,
    /// Others, in whose name it lies.
    pub(crate) others: Vec<NodeId>,
}

impl Liar {
    /// A name for the lie, and what is sent in the message's place.
    pub(crate) fn lie(&mut self, kind: u64, body: &Bytes) -> (&'static str, Vec<(u64, Bytes)>) {
        // Rows of a snapshot are not signed: nobody could tell an altered one.
        let lie = if kind == CHUNK { 1 + self.rng.below(7) } else { self.rng.below(8) };
        match lie {
            0 => return ("garbage", vec![(kind, self.garbage(body))]),
            1 => return ("truncated", vec![(kind, body.slice(..self.rng.index(body.len() + 1)))]),
            2 => return ("twice", vec![(kind, body.clone()), (kind, body.clone())]),
            3 => return ("left out", Vec::new()),
            _ => {}
        }
        let Ok(Some(message)) = Message::decode(kind, body.clone()) else {
            return ("unknown kind", vec![(99, body.clone())]);
        };
        match message {
            Message::Page(page) => self.page(page),
            Message::Vector(mut part) => {
                for (log, head) in &mut part.heads {
                    if self.rng.coin() {
                        head.seq = Seq(head
                            .seq
                            .0
                            .saturating_add(self.rng.below(3))
                            .saturating_sub(self.rng.below(3)));
                    }
                    if self.rng.coin() {
                        head.seq = Seq(u64::MAX);
                    }
                    // What a forger would have to prove: that the receiver signed it.
                    if self.rng.coin() {
                        part.own.iter_mut().for_each(|own| own.signed.head.seq = own.signed.head.seq.next());
                    }
                    if self.rng.below(4) == 0 {
                        head.hash = Hash([9; 32]);
                    }
                    if self.rng.below(8) == 0 {
                        log.author = *self.rng.pick(&self.others);
                    }
                }
                ("a vector that lies", vec![Message::Vector(part).encode()])
            }
            Message::Ack(mut ack) => {
                match self.rng.below(3) {
                    0 => ack.page += 1,
                    1 => drop(ack.results.pop()),
                    _ => ack.results.iter_mut().for_each(|result| {
                        result.seq = Seq(result.seq.0 / 2);
                        result.code = Code::Gap;
                    }),
                }
                ("an ack that lies", vec![Message::Ack(ack).encode()])
            }
            Message::Digest(mut digest) => {
                let rows = digest.rows.replace(digest.vector);
                digest.vector = rows.unwrap_or_default();
                digest.wall.0 = self.rng.u64();
                ("a digest that lies", vec![Message::Digest(digest).encode()])
            }
            // Who asks for something else than it says fools itself.
            Message::Pull(pull) => ("nothing", vec![Message::Pull(pull).encode()]),
            // Rows are not signed: nobody could tell an altered one.
            Message::Chunk(mut chunk) => {
                match &mut chunk.part {
                    Part::Heads(heads) => {
                        heads.iter_mut().for_each(|(.., signed)| signed.head.seq = signed.head.seq.next());
                    }
                    Part::Rows(_) => chunk.last = false,
                    Part::Held(held) => held.iter_mut().for_each(|held| *held = !*held),
                }
                ("a chunk that lies", vec![Message::Chunk(chunk).encode()])
            }
            Message::Flow { open } => ("a flow that lies", vec![Message::Flow { open: !open }.encode()]),
            Message::Hello(mut hello) => {
                hello.wall.0 = self.rng.u64();
                hello.interests.pop();
                ("a hello that lies", vec![Message::Hello(hello).encode()])
            }
        }
    }

    /// Signs another branch of its own log for every second peer.
    pub(crate) fn fork(&mut self, to: usize, kind: u64, body: &Bytes) -> (&'static str, Vec<(u64, Bytes)>) {
        let whole = || vec![(kind, body.clone())];
        let Ok(Some(Message::Page(mut page))) = Message::decode(kind, body.clone()) else {
            return ("nothing to fork", whole());
        };
        let own = page.runs.iter_mut().find(|run| run.log.author == self.key.node_id());
        match own.filter(|_| to % 2 == 1) {
            Some(run) => {
                let at = self.rng.index(run.entries.len());
                self.sign_again(run, at);
                run.public_key = self.key.public_key();
                ("another branch of its own log", vec![Message::Page(page).encode()])
            }
            None => ("the true branch", whole()),
        }
    }

    /// Sends much more than is useful, all of it readable.
    pub(crate) fn flood(&mut self, kind: u64, body: &Bytes) -> (&'static str, Vec<(u64, Bytes)>) {
        let mut frames = vec![(kind, body.clone())];
        let message = Message::decode(kind, body.clone());
        let name = match (self.rng.below(4), message) {
            (0, _) => {
                let flow = |open: u64| Message::Flow { open: open.is_multiple_of(2) }.encode();
                frames.extend((0..15).map(flow));
                "flows"
            }
            (1, _) => {
                frames.extend((0..15).map(|n| (100 + n, body.clone())));
                "frames of unknown kinds"
            }
            (_, Ok(Some(Message::Digest(digest)))) => {
                frames.extend((0..15).map(|_| {
                    let wall = WallMillis(digest.wall.0 + self.rng.below(1_000));
                    let vector = digest.rows.unwrap_or_default();
                    Message::Digest(Digest { wall, rows: digest.rows, vector }).encode()
                }));
                "digests that differ"
            }
            _ => {
                let last = self.rng.coin();
                let heads = (0..200).map(|_| self.invented_head()).collect();
                frames.push(Message::Vector(VectorPart { heads, last, ..VectorPart::default() }).encode());
                "a vector of logs that nobody wrote"
            }
        };
        (name, frames)
    }

    /// Asks for pieces of a snapshot, one after the other, without waiting for any.
    pub(crate) fn ask(&mut self, kind: u64, body: &Bytes) -> (&'static str, Vec<(u64, Bytes)>) {
        let collection = crate::setting::collection(self.rng.index(4));
        let pull =
            || Message::Pull(Pull { collection: collection.clone(), from: Cursor::Rows(None) }).encode();
        let count = self.rng.below(15);
        let frames = std::iter::once((kind, body.clone())).chain((0..=count).map(|_| pull()));
        ("questions for snapshots", frames.collect())
    }

    /// Gives the first row of a piece of a snapshot and keeps the others for later.
    pub(crate) fn give_slowly(&mut self, kind: u64, body: &Bytes) -> (&'static str, Vec<(u64, Bytes)>) {
        if let Ok(Some(Message::Chunk(mut chunk))) = Message::decode(kind, body.clone())
            && let Part::Rows(rows) = &mut chunk.part
            && rows.len() > 1
        {
            rows.truncate(1);
            chunk.last = false;
            return ("a row of a snapshot", vec![Message::Chunk(chunk).encode()]);
        }
        ("nothing to give slowly", vec![(kind, body.clone())])
    }

    fn invented_head(&mut self) -> (LogId, Head) {
        let log = LogId {
            author: *self.rng.pick(&self.others),
            incarnation: Incarnation(self.rng.u64()),
            collection: crate::setting::collection(0),
        };
        (log, Head { seq: Seq(1 + self.rng.below(1 << 40)), hash: Hash([3; 32]) })
    }

    fn garbage(&mut self, body: &Bytes) -> Bytes {
        let mut bytes = body.to_vec();
        for _ in 0..=self.rng.below(4) {
            if !bytes.is_empty() {
                let at = self.rng.index(bytes.len());
                bytes[at] = bytes[at].wrapping_add(1 + self.rng.index(255) as u8);
            }
        }
        bytes.into()
    }

    fn page(&mut self, mut page: Page) -> (&'static str, Vec<(u64, Bytes)>) {
        let name = match self.rng.below(9) {
            0 => {
                page.runs = vec![self.invented()];
                "an invented run in another's name"
            }
            1 => {
                page.id += 1;
                "a page out of order"
            }
            2 => {
                page.runs.reverse();
                "runs in another order"
            }
            3 => {
                let again = page.runs.clone();
                page.runs.extend(again);
                "a log twice in a page"
            }
            choice => {
                let at = self.rng.index(page.runs.len());
                self.run(choice, &mut page.runs[at])
            }
        };
        (name, vec![Message::Page(page).encode()])
    }

    fn run(&mut self, choice: u64, run: &mut Run) -> &'static str {
        let at = self.rng.index(run.entries.len());
        match choice {
            4 => {
                let (entry, check) = &mut run.entries[at];
                entry.payload = "altered".into();
                if self.rng.coin() {
                    *check = 0;
                }
                "an altered payload"
            }
            // Of its own log this would be a fork: see there.
            5 if run.log.author != self.key.node_id() => {
                self.sign_again(run, at);
                "an entry altered and signed by the liar"
            }
            6 => {
                run.public_key = self.key.public_key();
                "another author's run under the liar's key"
            }
            7 => {
                run.entries.truncate(at.max(1));
                "a run cut short"
            }
            _ => {
                let (entry, _) = &mut run.entries[at];
                entry.op = if entry.op == Op::Put { Op::Delete } else { Op::Put };
                "another operation"
            }
        }
    }

    /// Alters an entry, computes all hashes again and signs with the liar's own key.
    fn sign_again(&mut self, run: &mut Run, at: usize) {
        run.entries[at].0.payload = "forged".into();
        run.entries[at].0.op = Op::Put;
        let before = Head { seq: Seq(run.first_seq().0 - 1), hash: run.previous };
        let mut chain = Chain::resume(run.log.clone(), before, Hlc(0));
        for (entry, check) in &mut run.entries {
            if let Ok(linked) = chain.link(entry.clone()) {
                *check = check_of(&linked.hash());
            }
        }
        run.signed = SignedHead::sign(&self.key, &run.log, chain.head(), run.signed.hlc);
        if self.rng.coin() {
            run.public_key = self.key.public_key();
        }
    }

    /// A log that nobody wrote, in another node's name, in a collection that is likely to be shared.
    fn invented(&mut self) -> Run {
        let author = *self.rng.pick(&self.others);
        let collection = crate::setting::collection(0);
        let log = LogId { author, incarnation: Incarnation(self.rng.below(3)), collection };
        let entry = Entry {
            seq: Seq(1),
            hlc: Hlc(self.rng.u64() >> 1),
            replaces: None,
            op: Op::Put,
            key: Key::new("k0").expect("a short key"),
            payload: "invented".into(),
        };
        let mut chain = Chain::resume(log.clone(), Head::default(), Hlc(0));
        let linked = chain.link(entry.clone()).expect("the first of its log");
        let signed = SignedHead::sign(&self.key, &log, linked.head(), entry.hlc);
        let check = check_of(&linked.hash());
        Run {
            log,
            public_key: self.key.public_key(),
            previous: Hash::default(),
            entries: vec![(entry, check)],
            signed,
        }
    }
}

/// A page whose first document is another one than its author wrote.
pub(crate) fn with_another_payload(kind: u64, body: Bytes) -> Bytes {
    match Message::decode(kind, body.clone()) {
        Ok(Some(Message::Page(mut page))) => {
            page.runs[0].entries[0].0.payload = "altered".into();
            Message::Page(page).encode().1
        }
        _ => body,
    }
}

/// A page without its last run, if it has several.
pub(crate) fn without_last_run(kind: u64, body: Bytes) -> Bytes {
    match Message::decode(kind, body.clone()) {
        Ok(Some(Message::Page(mut page))) if page.runs.len() > 1 => {
            page.runs.pop();
            Message::Page(page).encode().1
        }
        _ => body,
    }
}
