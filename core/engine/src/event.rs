//! What a node tells its owner. Nothing here carries a document's content or a secret.

use entgldb_replica::event::{Anew, Event as ReplicaEvent};
use entgldb_replica::resolve::{Conflict, Side};
use entgldb_replica::store::ProblemKind;
use entgldb_sqlite::inspect::ListedProblem;
use schemars::JsonSchema;
use serde::Serialize;
use tracing::{debug, error, info, warn};

use crate::status::BlockedHealth;

/// Something that happened. As JSON, `event` says what.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(tag = "event", rename_all = "snake_case")]
#[non_exhaustive]
pub enum Event {
    /// The node runs.
    Started {
        /// Its identity.
        node: String,
        /// Its label.
        name: String,
        /// Where it listens.
        listen: Option<String>,
    },
    /// A peer is linked.
    PeerUp {
        /// The peer.
        node: String,
        /// Its label.
        name: String,
        /// Collections that both sync.
        collections: Vec<String>,
    },
    /// A peer's link is gone.
    PeerDown {
        /// The peer.
        node: String,
        /// Its label.
        name: String,
        /// Why.
        reason: String,
    },
    /// An address could not be reached, or who answered is no member. It is tried again.
    DialFailed {
        /// The address.
        target: String,
        /// Why.
        reason: String,
    },
    /// A peer was turned away after its handshake: its label belongs to another key, or it is not on the list.
    PeerRefused {
        /// The peer.
        node: String,
        /// Its label.
        name: String,
        /// Why, and what to do.
        reason: String,
    },
    /// Local changes became durable entries.
    Captured {
        /// How many.
        changes: usize,
    },
    /// The rows of a table are looked through for changes: before the first sync, or after its schema was changed. Told at most
    /// once a second; the last time with as many done as there are.
    LookingThrough {
        /// The table.
        table: String,
        /// Rows looked at so far.
        done: u64,
        /// About how many there are.
        of: u64,
    },
    /// Remote entries became durable.
    Applied {
        /// From whom they came.
        from: String,
        /// How many entries.
        entries: usize,
        /// How many documents changed by them.
        documents: usize,
    },
    /// Entries that a peer holds are coming in.
    SyncProgress {
        /// The peer.
        node: String,
        /// Entries held of what the peer holds.
        have: u64,
        /// Entries that the peer holds.
        total: u64,
    },
    /// This node holds everything that the peer is known to hold, and has nothing left to capture.
    CaughtUp {
        /// The peer.
        node: String,
    },
    /// Two versions of a document were made without knowledge of each other.
    Conflict {
        /// The collection.
        collection: String,
        /// The key.
        key: String,
        /// The version that stands.
        winner: Version,
        /// The version that is kept in the conflict list.
        loser: Version,
    },
    /// Clocks differ so much that entries wait, or would have to.
    ClockSkew {
        /// The peer.
        node: String,
        /// What waits, and why.
        detail: String,
    },
    /// Entries of a peer were refused: damaged, altered or forged.
    Refused {
        /// The peer.
        node: String,
        /// What is wrong, naming the entry.
        detail: String,
    },
    /// A peer refused entries of this node.
    RefusedByPeer {
        /// The peer.
        node: String,
        /// The peer's words.
        detail: String,
    },
    /// Two histories under one log's name.
    Forked {
        /// The peer that has the other one.
        node: String,
        /// The log.
        log: String,
        /// Where they were seen to differ.
        seq: u64,
    },
    /// The database that was opened is not what this node last wrote: an older copy, another node's, or an empty one. The
    /// node goes on in a new incarnation and takes what it lacks from its peers.
    StartedAnew {
        /// What was found, and what that means.
        detail: String,
    },
    /// The database's file is another one than the node had open, or has another content: it was replaced, moved, deleted,
    /// written over by a copy, or taken by another engine. Nothing was written to it since. The node opens what is at the path
    /// again by itself, once something is there, and looks its tables through.
    DatabaseReplaced {
        /// What happened, in one word: `other_file`, `missing`, `wal_missing`, `other_wal`, `no_engine_tables`, `other_run` or
        /// `other_state`.
        change: &'static str,
        /// The same as a sentence.
        detail: String,
    },
    /// The database was restored from an older copy; the node goes on under a new incarnation.
    RolledBack {
        /// The peer that knew.
        node: String,
        /// The log that is behind.
        log: String,
    },
    /// Equal vectors and unequal rows, also after they were joined several times: a fault. `entgldb verify` tells more.
    Diverged {
        /// The peer.
        node: String,
    },
    /// A document that could not be captured or applied, or came back.
    Problem {
        /// The collection.
        collection: String,
        /// The key.
        key: String,
        /// What happened.
        kind: &'static str,
        /// The store's words.
        message: String,
    },
    /// Rows of a snapshot came in, instead of history that is gone or longer.
    Snapshot {
        /// The peer that gives it.
        node: String,
        /// The collection.
        collection: String,
        /// Rows so far.
        rows: u64,
        /// Rows that the peer has.
        total: u64,
        /// Whether it is complete.
        done: bool,
    },
    /// A peer could not give a snapshot, or what it gave was refused. It is tried again later.
    SnapshotRefused {
        /// The peer.
        node: String,
        /// The collection.
        collection: String,
        /// Why.
        detail: String,
    },
    /// A peer has the same history and other rows: changes are gone with the only machine that had them after rows of them had
    /// got away, or a log has forked. The peer's rows are joined into those that are here.
    Repairing {
        /// The peer.
        node: String,
        /// The collection.
        collection: String,
    },
    /// Links with a peer end for the same fault at the same place, for the second time in a row: nothing gets past it by
    /// itself. The status shows for how long.
    Blocked {
        /// The peer.
        node: String,
        /// Its label.
        name: String,
        /// Why the links end.
        reason: String,
        /// The first entry that does not get through, as `log entry number`; none if no entry was on its way.
        entry: Option<String>,
    },
    /// Two processes run with one identity, as after a machine was copied: neither is let in until one of them is gone.
    Copied {
        /// The node.
        node: String,
        /// The label of the one that came last.
        name: String,
    },
    /// A member was removed: no history is kept for it any more.
    MemberRemoved {
        /// The member.
        node: String,
        /// Who removed it.
        by: String,
    },
    /// A member that was removed is back.
    MemberReturned {
        /// The member.
        node: String,
    },
    /// The node syncs other tables from now on.
    Collections {
        /// All of them.
        collections: Vec<String>,
    },
    /// The database is locked by somebody; the node waits.
    StoreBusy {
        /// Milliseconds so far.
        for_ms: u64,
    },
    /// Few file descriptors are left: no connections are taken for now. Links stay as they are.
    ListenPaused {
        /// The most that the process may have.
        descriptors_max: u64,
    },
    /// Connections are taken again.
    ListenResumed,
    /// A hook of the application's store takes long. Nothing else is synced meanwhile.
    HookSlow {
        /// The hook.
        hook: &'static str,
        /// Milliseconds so far.
        for_ms: u64,
    },
    /// The application's store is compared with what the engine knows of it.
    Reconcile {
        /// The collection.
        collection: String,
        /// Documents looked at so far.
        keys: u64,
        /// Of these, documents that have changed.
        changed: u64,
        /// Documents that are missing.
        missing: u64,
        /// Whether the collection is done.
        done: bool,
    },
    /// More than a tenth of a collection's documents are missing in the application's store. They are not deleted elsewhere
    /// unless the command `reconcile` confirms it.
    ReconcileStopped {
        /// The collection.
        collection: String,
        /// Documents that are missing.
        missing: u64,
        /// Of so many.
        of: u64,
    },
    /// The store failed.
    StoreError {
        /// What happened.
        message: String,
        /// Whether the node opens it again by itself.
        retry: bool,
    },
    /// The reader of events was too slow; so many were left out.
    Lost {
        /// How many.
        count: u64,
    },
    /// The node has stopped. The last event.
    Stopped,
}

/// A version of a document in an event.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Version {
    /// Who wrote it.
    pub node: String,
    /// When, in milliseconds since 1970.
    pub at_ms: u64,
    /// Whether it is a delete.
    pub deleted: bool,
}

impl Version {
    fn of(side: &Side) -> Self {
        Self {
            node: side.stamp.node.to_string(),
            at_ms: side.stamp.hlc.wall().0,
            deleted: side.content.is_none(),
        }
    }
}

/// The kind of a problem with a whole table, in events and lists. Its key is empty.
pub(crate) const TABLE_PROBLEM: &str = "table";

/// The name of the kind of a problem that an [`Inspector`](crate::inspect::Inspector) lists.
#[must_use]
pub fn listed_problem_kind(problem: &ListedProblem) -> &'static str {
    if problem.key.is_empty() { TABLE_PROBLEM } else { problem_kind(problem.kind) }
}

/// The name of a kind of problem in events, status and lists.
#[must_use]
pub fn problem_kind(kind: ProblemKind) -> &'static str {
    match kind {
        ProblemKind::NotCaptured => "not_captured",
        ProblemKind::SetAside => "set_aside",
        ProblemKind::Collided => "collided",
        ProblemKind::CameBack => "came_back",
        ProblemKind::Dangling => "dangling",
        ProblemKind::NotResolved => "not_resolved",
        ProblemKind::TooLarge => "too_large",
        ProblemKind::Schema => "schema",
        _ => "other",
    }
}

fn started_anew(anew: Anew) -> String {
    match anew {
        Anew::OlderCopy { found, expected } => format!(
            "the database is an older copy: it has {found} of the {expected} changes that this node had captured; the \
             others come back from the peers that have them"
        ),
        Anew::OtherNode(owner) => format!(
            "the database was written by node {}, and the data folder belongs to this one: a copy, or a lost data folder",
            owner.short()
        ),
        Anew::PerhapsIncomplete => "with durability `normal`, the last end was not clean: the last changes may be missing; they come \
             back from the peers that have them"
            .to_owned(),
        Anew::Empty => {
            "the database holds nothing of what this node had captured: it was replaced".to_owned()
        }
        _ => "the database is another one".to_owned(),
    }
}

fn conflict(conflict: &Conflict) -> Event {
    Event::Conflict {
        collection: conflict.doc.0.to_string(),
        key: conflict.doc.1.to_string(),
        winner: Version::of(&conflict.winner),
        loser: Version::of(&conflict.loser),
    }
}

impl Event {
    /// The public form of what the replica tells.
    pub(crate) fn from_replica(event: ReplicaEvent) -> Option<Self> {
        Some(match event {
            ReplicaEvent::PeerUp { node, name, shared } => Self::PeerUp {
                node: node.to_string(),
                name,
                collections: shared.iter().map(ToString::to_string).collect(),
            },
            ReplicaEvent::PeerDown { node, name, reason } => {
                Self::PeerDown { node: node.to_string(), name, reason }
            }
            ReplicaEvent::Captured { changes } => Self::Captured { changes },
            ReplicaEvent::Applied { from, entries, documents } => {
                Self::Applied { from: from.to_string(), entries, documents }
            }
            ReplicaEvent::SyncProgress { node, have, total } => {
                Self::SyncProgress { node: node.to_string(), have, total }
            }
            ReplicaEvent::CaughtUp { node } => Self::CaughtUp { node: node.to_string() },
            ReplicaEvent::Conflict(found) => conflict(&found),
            ReplicaEvent::ClockSkew { node, detail, .. } => {
                Self::ClockSkew { node: node.to_string(), detail }
            }
            ReplicaEvent::Refused { node, detail, .. } => Self::Refused { node: node.to_string(), detail },
            ReplicaEvent::RefusedByPeer { node, detail, .. } => {
                Self::RefusedByPeer { node: node.to_string(), detail }
            }
            ReplicaEvent::Forked { node, log, seq } => {
                Self::Forked { node: node.to_string(), log: log.to_string(), seq: seq.0 }
            }
            ReplicaEvent::StartedAnew(anew) => Self::StartedAnew { detail: started_anew(anew) },
            ReplicaEvent::RolledBack { node, log } => {
                Self::RolledBack { node: node.to_string(), log: log.to_string() }
            }
            ReplicaEvent::Diverged { node } => Self::Diverged { node: node.to_string() },
            ReplicaEvent::Problem(problem) => Self::Problem {
                collection: problem.collection.to_string(),
                key: problem.key,
                kind: problem_kind(problem.kind),
                message: problem.message,
            },
            ReplicaEvent::Snapshot { node, collection, rows, total, done } => {
                let (node, collection) = (node.to_string(), collection.to_string());
                Self::Snapshot { node, collection, rows, total, done }
            }
            ReplicaEvent::SnapshotRefused { node, collection, detail } => {
                let (node, collection) = (node.to_string(), collection.to_string());
                Self::SnapshotRefused { node, collection, detail }
            }
            ReplicaEvent::Repairing { node, collection } => {
                Self::Repairing { node: node.to_string(), collection: collection.to_string() }
            }
            ReplicaEvent::Blocked(blocked) => {
                let BlockedHealth { node, name, reason, entry, .. } = blocked.into();
                Self::Blocked { node, name, reason, entry }
            }
            ReplicaEvent::Copied { node, name } => Self::Copied { node: node.to_string(), name },
            ReplicaEvent::MemberRemoved { node, by } => {
                Self::MemberRemoved { node: node.to_string(), by: by.to_string() }
            }
            ReplicaEvent::MemberReturned { node } => Self::MemberReturned { node: node.to_string() },
            _ => return None,
        })
    }

    /// Writes it to the log: never what a document holds, so neither keys nor the store's words.
    pub(crate) fn log(&self) {
        match self {
            Self::PeerUp { name, .. } => info!(name, "peer up"),
            Self::PeerDown { name, reason, .. } => info!(name, reason, "peer down"),
            Self::Conflict { collection, .. } => info!(collection, "conflict"),
            Self::CaughtUp { node } => debug!(node, "caught up"),
            Self::ClockSkew { node, detail } => warn!(node, detail, "clock skew"),
            Self::Refused { node, detail } => error!(node, detail, "entries refused"),
            Self::RefusedByPeer { node, detail } => error!(node, detail, "entries refused by the peer"),
            Self::Forked { node, log, seq } => error!(node, log, seq, "a log has forked"),
            Self::StartedAnew { detail } => warn!(detail, "a new incarnation"),
            Self::DatabaseReplaced { change, detail } => {
                warn!(change, detail, "the database's file has changed")
            }
            Self::RolledBack { node, log } => warn!(node, log, "this database was rolled back"),
            Self::Snapshot { node, collection, rows, done: true, .. } => {
                info!(node, collection, rows, "a snapshot is complete");
            }
            Self::SnapshotRefused { node, collection, detail } => {
                warn!(node, collection, detail, "a snapshot was refused");
            }
            Self::Repairing { node, collection } => {
                warn!(node, collection, "rows differ though all changes are the same: they are joined");
            }
            Self::Blocked { node, reason, entry, .. } => {
                error!(node, reason, entry, "links end for the same fault at the same place");
            }
            Self::Copied { node, name } => error!(node, name, "two processes run with one identity"),
            Self::MemberRemoved { node, by } => info!(node, by, "a member was removed"),
            Self::MemberReturned { node } => info!(node, "a member is back"),
            Self::Collections { collections } => info!(?collections, "other tables are synced"),
            Self::Diverged { node } => error!(node, "equal vectors and unequal rows; run `entgldb verify`"),
            Self::Problem { collection, kind, .. } => warn!(collection, kind, "a document has a problem"),
            _ => {}
        }
    }
}
