//! What the replica needs of a store: one durable, transactional place for oplog, rows and documents.
//!
//! Storage is the one effect inside a step, because its order relative to the state matters. All methods are called from
//! one thread, one at a time. An error is final: the replica is dropped and opened again from what is durable. A store
//! that is merely busy waits (and reports that it waits) instead of failing.
//!
//! One collection is the engine's own ([`crate::member::members`]): a store keeps its documents somewhere of its own, whatever
//! collections its application has; nothing of it is ever captured. Its contents are bytes, not JSON.

use std::collections::BTreeSet;

use bytes::Bytes;

use crate::clock::{Hlc, Stamp, WallMillis};
use crate::entry::{Entry, Linked, SignedHead};
use crate::fingerprint::Tally;
use crate::id::{Collection, DocId, Incarnation, Key, LogId, NodeId, PublicKey};
use crate::resolve::{Conflict, Document, Row, Version};
use crate::version::{Hash, Head, Seq};

/// What a store found when it was opened.
#[derive(Clone, Debug, Default)]
pub struct Durable {
    /// Who wrote this oplog, and its birth; `None` if the oplog is new, or if commits of it may have been lost. Then a new
    /// incarnation begins.
    pub owner: Option<(NodeId, Incarnation)>,
    /// Last value of the hybrid clock.
    pub clock: Hlc,
    /// Head of every log, with the time of the head's entry.
    pub heads: Vec<(LogId, Head, Hlc)>,
    /// Public keys of all authors seen.
    pub authors: Vec<PublicKey>,
    /// Fingerprint and number of every collection's rows.
    pub tallies: Vec<(Collection, Tally)>,
    /// Conflicts that are not certain yet.
    pub open_conflicts: Vec<Conflict>,
    /// Collections with documents that have a state beside their row.
    pub merged: Vec<Collection>,
    /// Logs of which entries were forgotten: the position of the last of those, and its time.
    pub floors: Vec<(LogId, Seq, Hlc)>,
    /// What the replica has noted for itself.
    pub notes: Vec<(String, Bytes)>,
    /// Logs that the store has just dropped, because they can't be: their heads were beyond [`crate::limits::SEQ_MAX`].
    pub dropped: Vec<LogId>,
}

/// One change that the application made here and that no entry stands for yet.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Change {
    /// The document.
    pub doc: DocId,
    /// Its content now; `None` if it is gone.
    pub content: Option<Bytes>,
    /// When the application wrote it, by its own clock.
    pub written: WallMillis,
}

/// How far an outbox has been read. The number means something to the store only.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct OutboxMark(pub u64);

/// Rows that were there before their table was first watched. They are captured with the lowest stamps of their log, because
/// anything that was written since, anywhere, is younger. The number rises from one such unit to the next; it is their time.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct FirstCopy(pub u64);

impl FirstCopy {
    /// Times up to this one are those of first copies.
    pub const TIME_MAX: Hlc = Hlc(1 << 24);

    /// The time of these copies.
    #[must_use]
    pub fn time(self) -> Hlc {
        Hlc(self.0)
    }
}

/// What one look into the outbox found: the changes of one unit, each document at most once.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Drain {
    /// The changes, in the order they were made. May be empty while `mark` is set: there was nothing new in it.
    pub changes: Vec<Change>,
    /// Everything up to here is in `changes`; `None` if the outbox was empty.
    pub mark: Option<OutboxMark>,
    /// Whether the outbox has more behind the mark.
    pub more: bool,
    /// Changes that can't travel (too large, unusable key ...), to report. They stay in the application's store.
    pub refused: Vec<Problem>,
    /// If these are first copies. No document among them has a row yet.
    pub first_copy: Option<FirstCopy>,
}

/// Most that one look into the outbox may take.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct UnitLimits {
    /// Documents.
    pub changes: usize,
    /// Bytes of content; a single larger document is taken alone.
    pub bytes: usize,
    /// Milliseconds between write times at which a unit ends.
    pub gap_ms: u64,
    /// Largest document, in bytes.
    pub payload_bytes: usize,
}

/// An entry as stored: with its hash, which is not computed again.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Stored {
    /// The entry.
    pub entry: Entry,
    /// Its hash.
    pub hash: Hash,
}

/// Entries of one log that are appended together, and the author's signature over the last of them.
#[derive(Clone, Debug)]
pub struct Appended {
    /// The log.
    pub log: LogId,
    /// Entries that follow the log's head without a gap. Never empty.
    pub entries: Vec<Linked>,
    /// The signed head of the last one.
    pub signed: SignedHead,
}

/// A document's new row.
#[derive(Clone, Debug)]
pub struct RowWrite {
    /// The document.
    pub doc: DocId,
    /// Its row from now on.
    pub row: Row,
    /// The row before, as [`Store::rows`] answered it.
    pub before: Option<Row>,
    /// For a remote change: the content to bring into the application's store, or `None` inside to delete it there.
    /// `None` outside if the content is there already: for a local change.
    pub apply: Option<Option<Bytes>>,
    /// The state of a document that merges, kept beside its row for [`Store::merged`]. `None` if it has none.
    pub merged: Option<Bytes>,
}

/// What must be true of the outbox for a commit that applies remote changes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Guard {
    /// Nothing to guard: a commit of local changes.
    None,
    /// The outbox is empty: capture before apply.
    OutboxEmpty,
    /// The outbox has none of the documents that are applied: what is asked of a store whose application writes without
    /// pause, so that remote changes get in at all.
    OutboxDisjoint,
}

/// A change of the conflict list.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ConflictWrite {
    /// A new conflict, or the same one with another `missing`. The key is (document, winner's stamp, loser's stamp).
    Put(Conflict),
    /// It turned out to be none.
    Remove {
        /// The document.
        doc: DocId,
        /// Stamp of the younger version.
        winner: Stamp,
        /// Stamp of the older version.
        loser: Stamp,
    },
}

/// Everything that one step makes durable, all of it or nothing.
#[derive(Clone, Debug)]
pub struct Commit {
    /// Who commits and since when, stored with the first commit.
    pub owner: (NodeId, Incarnation),
    /// What must be true of the outbox.
    pub guard: Guard,
    /// Value of the hybrid clock.
    pub clock: Hlc,
    /// The commit's wall time, for the conflict list's age.
    pub wall: WallMillis,
    /// New entries.
    pub appended: Vec<Appended>,
    /// Public keys of authors not seen before.
    pub authors: Vec<PublicKey>,
    /// New rows; each document at most once.
    pub rows: Vec<RowWrite>,
    /// Fingerprints and numbers of rows of the collections whose rows change.
    pub tallies: Vec<(Collection, Tally)>,
    /// What changes in the conflict list.
    pub conflicts: Vec<ConflictWrite>,
    /// Remove this much of the outbox.
    pub drained: Option<OutboxMark>,
    /// These first copies are captured.
    pub first_copy: Option<FirstCopy>,
    /// Heads that a snapshot stands for: each is its log's head from now on, beyond the head before, and its floor. Entries of
    /// the log that are held are before that floor.
    pub adopted: Vec<(LogId, SignedHead)>,
    /// Entries of these logs up to the position will not be asked for again; there is a signed head at each of these
    /// positions, which stays. Now or in [`Store::tend`] the store forgets them and gives the space back.
    pub floors: Vec<(LogId, Seq)>,
    /// Notes of the replica's for itself, to be given back by [`Store::load`]; `None` removes one.
    pub notes: Vec<(String, Option<Bytes>)>,
}

/// What became of a commit.
#[derive(Clone, PartialEq, Eq, Debug)]
#[must_use]
pub enum Committed {
    /// It is durable. The problems are documents that the application's store would not take; they are set aside.
    Done(Vec<Problem>),
    /// The guard did not hold; nothing was changed. Drain the outbox and decide again.
    OutboxMoved,
}

/// A document that could not be captured or applied, or that came back.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Problem {
    /// The collection.
    pub collection: Collection,
    /// The key, as text; it may be one that is no valid [`crate::id::Key`].
    pub key: String,
    /// What happened.
    pub kind: ProblemKind,
    /// The store's own words.
    pub message: String,
}

impl Problem {
    /// A document of which the oldest parts had to go.
    pub(crate) fn too_large(doc: &DocId) -> Self {
        let message = "what several nodes wrote of this row is together larger than STATE_BYTES_MAX or VERSIONS_MAX allow: its oldest \
                       parts are in the conflict list";
        let (collection, key) = (doc.0.clone(), doc.1.as_str().to_owned());
        Self { collection, key, kind: ProblemKind::TooLarge, message: message.to_owned() }
    }
}

/// What happened to a document in [`Problem`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum ProblemKind {
    /// A local change that can't travel.
    NotCaptured,
    /// A remote document that the application's schema refuses: set aside and tried again later.
    SetAside,
    /// A document that collides on a UNIQUE constraint with a younger one: set aside until that goes.
    Collided,
    /// A document that was set aside is in its place now.
    CameBack,
    /// A reference that points to nothing here, because of concurrent changes.
    Dangling,
    /// Versions between which the collection's resolver could not decide: the youngest stands.
    NotResolved,
    /// Versions that are too large, or too many, together: the oldest parts are in the conflict list.
    TooLarge,
    /// Something about a table's schema that a person should know. The problem's key says which part of it.
    Schema,
}

/// Bounds of a scan.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ScanLimits {
    /// Most rows.
    pub rows: usize,
    /// Stop once contents and states exceed so many bytes; at least one row is read.
    pub bytes: usize,
}

/// Some of a collection's rows.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Scan {
    /// In the order of their keys, byte by byte.
    pub documents: Vec<Document>,
    /// Whether there are more rows after the last of these.
    pub more: bool,
    /// Whether it ended early at a document that the application has changed since, so that the content of the version that
    /// stands is not to be had: capture first.
    pub moved: bool,
}

/// Bounds of a read of a log.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ReadLimits {
    /// No entry later than this.
    pub until: Hlc,
    /// Most entries.
    pub entries: usize,
    /// Stop once the payloads exceed so many bytes; at least one entry is read.
    pub bytes: usize,
}

/// The store under a replica. See the module's documentation for the contract.
pub trait Store {
    /// What can go wrong; final.
    type Error: std::error::Error + Send + Sync + 'static;

    /// Reads what is durable. Called once, first.
    ///
    /// # Errors
    /// When the store can't be read.
    fn load(&mut self) -> Result<Durable, Self::Error>;

    /// Looks into the outbox without changing it: the changes of the next unit, with the documents' contents as of one
    /// moment not before those changes.
    ///
    /// # Errors
    /// When the store can't be read.
    fn captured(&mut self, limits: &UnitLimits) -> Result<Drain, Self::Error>;

    /// The rows of documents, in order.
    ///
    /// # Errors
    /// When the store can't be read.
    fn rows(&mut self, docs: &[DocId]) -> Result<Vec<Option<Row>>, Self::Error>;

    /// The states of documents that merge, in order; `None` for one that has none.
    ///
    /// # Errors
    /// When the store can't be read.
    fn merged(&mut self, docs: &[DocId]) -> Result<Vec<Option<Bytes>>, Self::Error>;

    /// Fields of a collection's documents that are strings with JSON in them, which merges too.
    fn json_fields(&self, collection: &Collection) -> BTreeSet<String> {
        let _ = collection;
        BTreeSet::new()
    }

    /// The version of a document with this stamp, if the oplog has it; or, if the oplog has forgotten it, it is the one that
    /// stands, and the application has not changed the document since: a put of its content that replaces nothing.
    ///
    /// # Errors
    /// When the store can't be read.
    fn version(&mut self, doc: &DocId, stamp: &Stamp) -> Result<Option<Version>, Self::Error>;

    /// Entries of a log after `after`, in order, within limits.
    ///
    /// # Errors
    /// When the store can't be read.
    fn read_log(&mut self, log: &LogId, after: Seq, limits: &ReadLimits) -> Result<Vec<Stored>, Self::Error>;

    /// The position of the last entry of a log that is not later than `hlc`; zero if there is none. Times never fall
    /// within a log, so this is a binary search.
    ///
    /// # Errors
    /// When the store can't be read.
    fn last_at(&mut self, log: &LogId, hlc: Hlc) -> Result<Seq, Self::Error>;

    /// The hash of an entry of a log; `None` if the log does not have it. The hash at a log's floor is known too.
    ///
    /// # Errors
    /// When the store can't be read.
    fn hash_at(&mut self, log: &LogId, seq: Seq) -> Result<Option<Hash>, Self::Error>;

    /// The last signed head of a log at or before `seq`.
    ///
    /// # Errors
    /// When the store can't be read.
    fn signed_until(&mut self, log: &LogId, seq: Seq) -> Result<Option<SignedHead>, Self::Error>;

    /// The first signed head of a log at or after `seq`.
    ///
    /// # Errors
    /// When the store can't be read.
    fn signed_from(&mut self, log: &LogId, seq: Seq) -> Result<Option<SignedHead>, Self::Error>;

    /// Rows of a collection in the order of their keys, after one key or from the beginning, as they are at one moment.
    ///
    /// # Errors
    /// When the store can't be read.
    fn scan(
        &mut self,
        collection: &Collection,
        after: Option<&Key>,
        limits: &ScanLimits,
    ) -> Result<Scan, Self::Error>;

    /// Makes a step durable in one transaction: checks the guard, appends the entries, writes the rows, brings remote
    /// contents into the application's store without capturing them again, removes the drained part of the outbox.
    ///
    /// # Errors
    /// When it is not certain that all of it is durable.
    fn commit(&mut self, commit: &Commit) -> Result<Committed, Self::Error>;

    /// Documents of [`crate::member::members`] in which the store tells other nodes something about its tables, as far as they are
    /// not there as they should be. Their keys are this node's, and no node's id. They are passed on like those of the members,
    /// and mean something to stores only.
    ///
    /// # Errors
    /// When the store can't be read.
    fn about(&mut self, node: &NodeId) -> Result<Vec<(Key, Bytes)>, Self::Error> {
        let _ = node;
        Ok(Vec::new())
    }

    /// Work that may wait for quiet: tries documents that were set aside again, drops conflicts noted before
    /// `conflicts_before`, and removes entries that are to be forgotten. Bounded; called every few seconds.
    ///
    /// # Errors
    /// When it is not certain that all of it is durable.
    fn tend(&mut self, conflicts_before: WallMillis) -> Result<Vec<Problem>, Self::Error>;
}
