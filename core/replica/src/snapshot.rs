//! Snapshots: the rows of a collection instead of its history, piece by piece, joined into what is here.
//!
//! Whoever takes one asks for piece after piece ([`Pull`]) and keeps the place; whoever gives it remembers nothing, so a
//! snapshot goes on after a cut, with the same peer or with another that holds at least as much. First come the signed heads
//! of the collection's logs, then the rows in the order of their keys, each piece as the giver has it at that moment. The
//! heads were read before any row, so all that they cover is in the rows, as it was or as it is by then. Each row is joined like an
//! entry, the greater stamp stands, states merge; nothing of the receiver's goes.
//!
//! Whoever goes on with it after a cut is asked first which of the heads it holds. It is further in all of these logs, but one that
//! forked may be another branch there, and then its rows don't stand for this one's head: that is not taken on.
//!
//! After the rows the heads are asked for once more: what the rows may contain beyond the first heads. Then the first heads
//! are taken on. Until the receiver holds the second ones too its rows are ahead of its vector ([`Debt`]). Should that
//! never come about, since the giver is gone with what only it had, such rows are compared like any other after a while, and
//! spread as rows.
//!
//! Heads are signed by their authors, rows are not: a member that gives a snapshot could alter what is in it, unlike
//! history.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;

use crate::clock::{Hlc, Mono};
use crate::entry::{SignatureError, SignedHead};
use crate::id::{Collection, Incarnation, Key, LinkId, LogId, NodeId, PublicKey};
use crate::limits::{HELD_HEADS_MAX, LOGS_MAX, VECTOR_LOGS_MAX};
use crate::oplog::{Logs, NewLogs};
use crate::resolve::Row;
use crate::store::{Commit, ScanLimits, Store};
use crate::version::{Head, Seq, Vector};
use crate::wire::{Chunk, Cursor, Message, Part, Pull, RowsHeld, VectorPart};

/// Bytes of a head in a chunk at most.
const HEAD_BYTES: usize = 200;
/// Bytes of a chunk beside heads and rows at most, and of a question beside heads.
const CHUNK_BYTES: usize = 256;
/// Bytes of a head in a question at most.
const HELD_BYTES: usize = 100;

/// What became of a question for a piece.
pub(crate) enum Answer {
    Chunk(Chunk),
    /// The application has changed the next document; its change must be captured first.
    Capture,
}

/// Reads the piece that is asked for, as large as fits `frame_bytes`.
pub(crate) fn answer<S: Store>(
    store: &mut S,
    logs: &Logs,
    pull: &Pull,
    limits: ScanLimits,
    frame_bytes: usize,
) -> Result<Answer, S::Error> {
    match &pull.from {
        Cursor::Heads(after) => {
            let most = ((frame_bytes.saturating_sub(CHUNK_BYTES)) / HEAD_BYTES).clamp(1, VECTOR_LOGS_MAX);
            let after = after.map(|(author, incarnation)| LogId {
                author,
                incarnation,
                collection: pull.collection.clone(),
            });
            read_heads(store, logs, &pull.collection, after.as_ref(), most).map(Answer::Chunk)
        }
        Cursor::Rows(after) => read_rows(store, &pull.collection, after.as_ref(), limits, frame_bytes),
        Cursor::Held(heads) => look_for_heads(store, &pull.collection, heads).map(Answer::Chunk),
    }
}

fn look_for_heads<S: Store>(
    store: &mut S,
    collection: &Collection,
    heads: &[(NodeId, Incarnation, Head)],
) -> Result<Chunk, S::Error> {
    let mut held = Vec::with_capacity(heads.len());
    for &(author, incarnation, head) in heads {
        let log = LogId { author, incarnation, collection: collection.clone() };
        // What is forgotten can't be told apart.
        held.push(store.hash_at(&log, head.seq)? == Some(head.hash));
    }
    Ok(Chunk { last: true, ..chunk_of(collection, Part::Held(held)) })
}

/// A piece that is not the last of its kind.
fn chunk_of(collection: &Collection, part: Part) -> Chunk {
    Chunk { collection: collection.clone(), part, last: false, refused: String::new(), ahead: false }
}

fn read_heads<S: Store>(
    store: &mut S,
    logs: &Logs,
    collection: &Collection,
    after: Option<&LogId>,
    most: usize,
) -> Result<Chunk, S::Error> {
    let mut heads = Vec::new();
    let mut last = true;
    let vector = logs.vector().iter();
    for (log, head) in
        vector.filter(|(log, _)| log.collection == *collection && after.is_none_or(|a| *log > a))
    {
        if heads.len() >= most {
            last = false;
            break;
        }
        let signed = store.signed_until(log, head.seq)?.filter(|signed| signed.head == *head);
        if let (Some(signed), Some(key)) = (signed, logs.key_of(&log.author)) {
            heads.push((log.clone(), *key, signed));
        }
    }
    Ok(Chunk { last, ..chunk_of(collection, Part::Heads(heads)) })
}

fn read_rows<S: Store>(
    store: &mut S,
    collection: &Collection,
    after: Option<&Key>,
    mut limits: ScanLimits,
    frame_bytes: usize,
) -> Result<Answer, S::Error> {
    loop {
        let scan = store.scan(collection, after, &limits)?;
        if scan.moved && scan.documents.is_empty() {
            return Ok(Answer::Capture);
        }
        let count = scan.documents.len();
        let last = !scan.more && !scan.moved;
        let chunk = Chunk { last, ..chunk_of(collection, Part::Rows(scan.documents)) };
        let bytes = Message::Chunk(chunk.clone()).encode().1.len();
        if bytes <= frame_bytes {
            return Ok(Answer::Chunk(chunk));
        }
        if count <= 1 {
            let refused =
                format!("a row of {bytes} bytes does not fit the peer's frame_bytes_max of {frame_bytes}");
            return Ok(Answer::Chunk(Chunk { refused, ..chunk_of(collection, Part::Rows(Vec::new())) }));
        }
        limits = ScanLimits { rows: count / 2, bytes: limits.bytes.min(bytes) / 2 };
    }
}

/// A snapshot on its way in. It outlives links and, by the replica's notes, processes.
#[derive(Clone, Debug)]
pub(crate) struct Incoming {
    pub(crate) collection: Collection,
    heads: BTreeMap<LogId, (PublicKey, SignedHead)>,
    from: Cursor,
    /// The heads after the rows, as far as they have come; `None` while rows come.
    last_heads: Option<BTreeMap<LogId, Head>>,
    /// Logs whose heads whoever gives it now is to be asked for before it goes on.
    unproven: BTreeSet<LogId>,
    /// How many of them it was asked for last.
    asked: usize,
    /// Whether the heads are in the notes as they are here.
    heads_noted: bool,
    /// Who gives it.
    giver: NodeId,
    /// Whether rows of it came from others too, or of another snapshot before.
    is_mixed: bool,
    /// Rows joined so far.
    pub(crate) rows: u64,
    /// Whether the replica notes its place, to go on after it was opened again.
    pub(crate) is_noted: bool,
    purpose: Purpose,
}

/// What a snapshot is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Purpose {
    /// To have what it stands for without the history of it.
    History,
    /// To have rows that no history brings. It stands for nothing: its rows only.
    Repair,
}

/// A question for a piece of a snapshot that waits for its answer.
#[derive(Debug)]
pub(crate) struct Asked {
    pub(crate) link: LinkId,
    pub(crate) pull: Pull,
    pub(crate) at: Mono,
    /// Not to be looked at before.
    pub(crate) again: Mono,
}

/// Names of the notes that keep it.
const NOTE_HEADS: &str = "snapshot.heads";
const NOTE_AT: &str = "snapshot.at";
const NOTE_GIVER: &str = "snapshot.giver";
const NOTE_MIXED: &str = "snapshot.mixed";

impl Incoming {
    pub(crate) fn new(collection: Collection, giver: NodeId, debt: &Debt) -> Self {
        let is_mixed = debt.unbacked.contains(&collection);
        let (heads, from, purpose) = (BTreeMap::new(), Cursor::Heads(None), Purpose::History);
        Self {
            collection,
            heads,
            from,
            last_heads: None,
            unproven: BTreeSet::new(),
            asked: 0,
            heads_noted: false,
            giver,
            is_mixed,
            rows: 0,
            is_noted: true,
            purpose,
        }
    }

    /// The rows of a peer that has the same history and other rows.
    pub(crate) fn repair(collection: Collection, giver: NodeId) -> Self {
        let whole = Self::new(collection, giver, &Debt::default());
        Self { from: Cursor::Rows(None), purpose: Purpose::Repair, is_noted: false, ..whole }
    }

    /// Whether it ends with its link: nothing is lost by that.
    pub(crate) fn is_repair(&self) -> bool {
        self.purpose == Purpose::Repair
    }

    /// Goes on with this giver.
    pub(crate) fn go_on_with(&mut self, giver: NodeId) {
        self.is_mixed |= giver != self.giver;
        self.giver = giver;
        // Also if it is the same: it may have been put back to an older copy since, and gone on from there.
        self.unproven = self.heads.keys().cloned().collect();
        if self.last_heads.take().is_some() {
            // The rows were complete; what this giver has beyond them is asked anew.
            self.begin_last_heads();
        }
    }

    fn begin_last_heads(&mut self) {
        self.last_heads = Some(BTreeMap::new());
        self.from = Cursor::Heads(None);
    }

    /// What was noted of one, if its rows had begun.
    pub(crate) fn from_notes(notes: &[(String, Bytes)]) -> Option<Self> {
        let note = |name: &str| notes.iter().find(|(known, _)| known == name).map(|(_, bytes)| bytes.clone());
        let (kind_of_chunk, kind_of_pull) = (Message::CHUNK, Message::PULL);
        let Ok(Some(Message::Chunk(Chunk { part: Part::Heads(heads), collection, .. }))) =
            Message::decode(kind_of_chunk, note(NOTE_HEADS)?)
        else {
            return None;
        };
        let Ok(Some(Message::Pull(pull))) = Message::decode(kind_of_pull, note(NOTE_AT)?) else {
            return None;
        };
        let heads = heads.into_iter().map(|(log, key, signed)| (log, (key, signed))).collect();
        let giver = NodeId(note(NOTE_GIVER)?.as_ref().try_into().ok()?);
        let is_mixed = note(NOTE_MIXED).is_some();
        let fresh = Self::new(collection, giver, &Debt::default());
        Some(Self { heads, from: pull.from, is_mixed, heads_noted: true, ..fresh })
    }

    /// What is asked next, of a giver that takes frames of so many bytes.
    pub(crate) fn pull(&mut self, frame_bytes: usize) -> Pull {
        let most = (frame_bytes.saturating_sub(CHUNK_BYTES) / HELD_BYTES).clamp(1, HELD_HEADS_MAX);
        let known = self.unproven.iter().filter_map(|log| Some((log, self.heads.get(log)?)));
        let asked = known.map(|(log, (_, signed))| (log.author, log.incarnation, signed.head));
        let asked: Vec<_> = asked.take(most).collect();
        self.asked = asked.len();
        let from = if asked.is_empty() { self.from.clone() } else { Cursor::Held(asked) };
        Pull { collection: self.collection.clone(), from }
    }

    /// Whether rows of it have been joined.
    pub(crate) fn has_begun(&self) -> bool {
        self.last_heads.is_some() || matches!(self.from, Cursor::Rows(Some(_)))
    }

    /// Whether a piece answers what was asked.
    pub(crate) fn expects(&self, chunk: &Chunk) -> bool {
        if let (false, Part::Held(held)) = (self.unproven.is_empty(), &chunk.part) {
            return held.len() == self.asked && chunk.collection == self.collection;
        }
        let follows = match (&self.from, &chunk.part) {
            (Cursor::Heads(after), Part::Heads(heads)) => heads
                .first()
                .is_none_or(|(log, ..)| after.is_none_or(|after| (log.author, log.incarnation) > after)),
            (Cursor::Rows(after), Part::Rows(rows)) => {
                rows.first().is_none_or(|row| after.as_ref().is_none_or(|after| row.key > *after))
            }
            _ => false,
        };
        follows && self.unproven.is_empty() && chunk.collection == self.collection
    }

    /// Whether what a peer holds covers what this snapshot stands for: then it can go on from there.
    pub(crate) fn is_covered(&self, holds: impl Fn(&LogId) -> Seq) -> bool {
        self.heads.iter().all(|(log, (_, signed))| holds(log) >= signed.head.seq)
    }

    /// Whether what this node holds by now covers it.
    pub(crate) fn is_pointless(&self, holds: impl Fn(&LogId) -> Seq) -> bool {
        !self.is_repair() && self.has_begun() && self.is_covered(holds)
    }

    /// Takes in which of the heads that were asked for the giver holds. It stands for no others any more.
    pub(crate) fn take_held(&mut self, held: &[bool]) {
        for is_held in held {
            let Some(log) = self.unproven.pop_first() else { return };
            if !is_held {
                self.heads.remove(&log);
                self.heads_noted = false;
            }
        }
    }

    /// Checks heads that came and goes on behind them.
    pub(crate) fn take_heads(
        &mut self,
        heads: Vec<(LogId, PublicKey, SignedHead)>,
        last: bool,
    ) -> Result<(), (LogId, SignatureError)> {
        for (log, key, signed) in heads {
            signed.verify(&log, &key).map_err(|reason| (log.clone(), reason))?;
            self.from = Cursor::Heads(Some((log.author, log.incarnation)));
            let known = self.last_heads.as_ref().map_or(self.heads.len(), BTreeMap::len);
            if known >= LOGS_MAX {
                // They are not taken in the end either.
                continue;
            }
            match &mut self.last_heads {
                Some(last_heads) => drop(last_heads.insert(log, signed.head)),
                None => drop(self.heads.insert(log, (key, signed))),
            }
        }
        if last && self.last_heads.is_none() {
            self.from = Cursor::Rows(None);
        }
        Ok(())
    }

    /// Its giver's rows may be ahead of the giver's heads.
    pub(crate) fn mix(&mut self) {
        self.is_mixed = true;
    }

    /// Whether the rows are complete, so that the heads that come are the last thing.
    pub(crate) fn is_ending(&self) -> bool {
        self.last_heads.is_some()
    }

    /// The latest time that it stands for.
    pub(crate) fn latest(&self) -> Hlc {
        self.heads.values().map(|(_, signed)| signed.hlc).max().unwrap_or_default()
    }

    /// Goes on behind rows that were joined.
    pub(crate) fn passed(&mut self, last_key: Option<Key>, rows: usize, last: bool) {
        self.rows += rows as u64;
        self.heads_noted = true;
        if last_key.is_some() {
            self.from = Cursor::Rows(last_key);
        }
        if last {
            self.begin_last_heads();
        }
    }

    /// Adds to the commit that joins rows where it goes on after them.
    pub(crate) fn note_rows(&self, last_key: Option<&Key>, debt: &mut Debt, commit: &mut Commit) {
        if self.is_repair() {
            return;
        }
        if debt.unbacked.insert(self.collection.clone()) {
            commit.notes.push(debt.note());
        }
        if !self.is_noted {
            return;
        }
        if !self.heads_noted {
            let heads = self.heads.iter().map(|(log, (key, signed))| (log.clone(), *key, signed.clone()));
            let chunk = Chunk { last: true, ..chunk_of(&self.collection, Part::Heads(heads.collect())) };
            commit.notes.push((NOTE_HEADS.to_owned(), Some(Message::Chunk(chunk).encode().1)));
        }
        let from = match (last_key, &self.from) {
            (Some(key), _) => Cursor::Rows(Some(key.clone())),
            (None, from) => from.clone(),
        };
        let pull = Pull { collection: self.collection.clone(), from };
        commit.notes.push((NOTE_AT.to_owned(), Some(Message::Pull(pull).encode().1)));
        commit.notes.push((NOTE_GIVER.to_owned(), Some(Bytes::copy_from_slice(&self.giver.0))));
        commit.notes.push((NOTE_MIXED.to_owned(), self.is_mixed.then(Bytes::new)));
    }

    /// Adds to a commit what ends it: the heads that it stands for.
    pub(crate) fn note_end(&self, logs: &Logs, debt: &mut Debt, commit: &mut Commit) {
        if self.is_noted {
            forget_notes(commit);
        }
        let (mut authors, mut new) = (BTreeMap::new(), NewLogs::default());
        for (log, (key, signed)) in &self.heads {
            if signed.head.seq > logs.vector().head(log).seq && logs.admit(log, &mut new) {
                commit.adopted.push((log.clone(), signed.clone()));
                commit.clock = commit.clock.max(signed.hlc);
                if logs.key_of(&log.author).is_none() {
                    authors.insert(log.author, *key);
                }
            }
        }
        commit.authors.extend(authors.into_values());
        if !self.is_mixed {
            debt.unbacked.remove(&self.collection);
        }
        for (log, head) in self.last_heads.iter().flatten() {
            let covered = self.heads.get(log).is_some_and(|(_, signed)| signed.head.seq >= head.seq);
            if !covered && logs.vector().head(log).seq < head.seq {
                debt.heads.insert(log.clone(), *head);
            }
        }
        commit.notes.push(debt.note());
    }

    /// Whether a version is among those that the snapshot stands for, as far as times tell.
    pub(crate) fn covers(&self, row: &Row) -> bool {
        let mut heads = self.heads.iter();
        heads.any(|(log, (_, signed))| log.author == row.stamp.node && signed.hlc >= row.stamp.hlc)
    }
}

/// Adds to a commit that no snapshot is to be gone on with.
pub(crate) fn forget_notes(commit: &mut Commit) {
    let names = [NOTE_HEADS, NOTE_AT, NOTE_GIVER, NOTE_MIXED];
    commit.notes.extend(names.map(|name| (name.to_owned(), None)));
}

/// What rows may be ahead of the vector for: heads that rows of a snapshot may come from, and collections with rows of
/// snapshots that were not ended, or not by whom they were begun. As long as there is any, nobody must compare rows.
#[derive(Clone, Debug, Default)]
pub(crate) struct Debt {
    heads: BTreeMap<LogId, Head>,
    unbacked: BTreeSet<Collection>,
}

const NOTE_DEBT: &str = "snapshot.debt";

impl Debt {
    pub(crate) fn from_notes(notes: &[(String, Bytes)]) -> Self {
        let note = notes.iter().find(|(name, _)| name == NOTE_DEBT);
        match note.map(|(_, bytes)| Message::decode(Message::VECTOR, bytes.clone())) {
            Some(Ok(Some(Message::Vector(part)))) => Self {
                heads: part.heads.into_iter().collect(),
                unbacked: part.rows.into_iter().map(|(collection, _)| collection).collect(),
            },
            _ => Self::default(),
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.heads.is_empty() && self.unbacked.is_empty()
    }

    /// Collections that have rows ahead of the vector.
    pub(crate) fn collections(&self) -> BTreeSet<Collection> {
        let of_heads = self.heads.keys().map(|log| log.collection.clone());
        of_heads.chain(self.unbacked.iter().cloned()).collect()
    }

    /// Drops what a vector covers.
    pub(crate) fn settle(&mut self, vector: &Vector) {
        self.heads.retain(|log, owed| vector.head(log).seq < owed.seq);
    }

    /// The note that keeps it.
    pub(crate) fn note(&self) -> (String, Option<Bytes>) {
        let heads = self.heads.iter().map(|(log, head)| (log.clone(), *head)).collect();
        let rows = self.unbacked.iter().map(|name| (name.clone(), RowsHeld::default())).collect();
        let part = VectorPart { heads, rows, last: true, ..VectorPart::default() };
        (NOTE_DEBT.to_owned(), (!self.is_empty()).then(|| Message::Vector(part).encode().1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::version::Hash;

    #[test]
    fn who_goes_on_is_asked_for_every_head_in_questions_that_fit_its_frames() {
        let collection = Collection::new(&"c".repeat(128)).unwrap();
        let head = |number: u32| {
            let mut author = [0xff; 32];
            author[..4].copy_from_slice(&number.to_be_bytes());
            let log = LogId {
                author: NodeId(author),
                incarnation: Incarnation(u64::MAX),
                collection: collection.clone(),
            };
            let head = Head { seq: Seq(u64::MAX), hash: Hash([number as u8; 32]) };
            (log, (PublicKey(author), SignedHead { head, hlc: Hlc(1), signature: [0; 64] }))
        };
        for frame_bytes in [600, 1_660, 1 << 20] {
            let mut incoming = Incoming::new(collection.clone(), NodeId([1; 32]), &Debt::default());
            incoming.heads = (0..600).map(head).collect();
            incoming.from = Cursor::Rows(None);
            incoming.go_on_with(NodeId([2; 32]));
            let (mut asked, mut questions) = (0, 0);
            loop {
                let pull = incoming.pull(frame_bytes);
                let Cursor::Held(heads) = pull.from.clone() else { break };
                let bytes = Message::Pull(pull).encode().1.len();
                assert!(bytes <= frame_bytes, "{bytes} of {frame_bytes}");
                let answer = |count| chunk_of(&collection, Part::Held(vec![false; count]));
                assert!(
                    incoming.expects(&answer(heads.len())) && !incoming.expects(&answer(heads.len() + 1))
                );
                assert!(!incoming.expects(&chunk_of(&collection, Part::Rows(Vec::new()))), "first this");
                let held: Vec<bool> = (asked..asked + heads.len()).map(|number| number % 3 == 0).collect();
                incoming.take_held(&held);
                (asked, questions) = (asked + heads.len(), questions + 1);
            }
            assert_eq!((asked, incoming.heads.len()), (600, 200));
            assert!(questions >= 600 / HELD_HEADS_MAX);
        }
    }
}
