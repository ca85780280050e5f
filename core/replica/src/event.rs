//! What a replica tells its caller: things worth showing to people or counting, never needed for correctness.

use crate::blocked::BlockedPeer;
use crate::id::{Collection, LogId, NodeId};
use crate::resolve::Conflict;
use crate::store::Problem;
use crate::version::Seq;

/// Something that happened.
#[derive(Clone, PartialEq, Debug)]
#[non_exhaustive]
pub enum Event {
    /// A peer is linked and has said what it syncs.
    PeerUp {
        /// The peer.
        node: NodeId,
        /// Its label.
        name: String,
        /// Collections that both sync.
        shared: Vec<Collection>,
    },
    /// A peer's link is gone.
    PeerDown {
        /// The peer.
        node: NodeId,
        /// Its label.
        name: String,
        /// Why.
        reason: String,
    },
    /// Local changes became durable entries.
    Captured {
        /// How many.
        changes: usize,
    },
    /// Remote entries became durable.
    Applied {
        /// From whom they came.
        from: NodeId,
        /// How many entries.
        entries: usize,
        /// How many documents changed by them.
        documents: usize,
    },
    /// A peer holds entries that this node lacks, and they are coming in.
    SyncProgress {
        /// The peer.
        node: NodeId,
        /// Entries held of what the peer holds.
        have: u64,
        /// Entries that the peer holds.
        total: u64,
    },
    /// This node holds everything that the peer is known to hold.
    CaughtUp {
        /// The peer.
        node: NodeId,
    },
    /// Two versions were made without knowledge of each other; the losing one is in the conflict list.
    Conflict(Conflict),
    /// A peer's entries are from too far in the future for this node, or this node's for a peer; they wait.
    ClockSkew {
        /// The peer.
        node: NodeId,
        /// The log that waits; `None` if the clocks differ and nothing waits yet.
        log: Option<LogId>,
        /// For people.
        detail: String,
    },
    /// Entries that a peer sent were refused: damaged, altered or forged. Nothing of them was stored.
    Refused {
        /// The peer.
        node: NodeId,
        /// The log.
        log: LogId,
        /// What is wrong, naming the entry.
        detail: String,
    },
    /// A peer refused entries that this node sent.
    RefusedByPeer {
        /// The peer.
        node: NodeId,
        /// The log.
        log: LogId,
        /// The peer's words.
        detail: String,
    },
    /// Two histories under one log's name.
    Forked {
        /// The peer that has the other one.
        node: NodeId,
        /// The log.
        log: LogId,
        /// Where they were seen to differ.
        seq: Seq,
    },
    /// The oplog that was opened is not the one that this node last wrote. It goes on in a new incarnation, so that no
    /// position is given out twice, and takes what it lacks from its peers.
    StartedAnew(Anew),
    /// A peer holds entries of this node's own that this node does not: its oplog was restored from an older copy. It
    /// goes on in a new incarnation.
    RolledBack {
        /// The peer.
        node: NodeId,
        /// The log that is behind.
        log: LogId,
    },
    /// Vectors are equal and rows are not, also after they were joined several times ([`Event::Repairing`]): a fault in the
    /// engine or a damaged file. `entgldb verify` tells more.
    Diverged {
        /// The peer.
        node: NodeId,
    },
    /// A document that could not be captured or applied, or came back.
    Problem(Problem),
    /// Rows of a snapshot were taken in, instead of history that is gone or longer.
    Snapshot {
        /// The peer that gives it.
        node: NodeId,
        /// The collection.
        collection: Collection,
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
        node: NodeId,
        /// The collection.
        collection: Collection,
        /// Why.
        detail: String,
    },
    /// A peer has the same history and other rows: entries are gone with the only machine that had them, after rows of them
    /// had got away in a snapshot; or a log has forked. The peer's rows are joined into those that are here.
    Repairing {
        /// The peer.
        node: NodeId,
        /// The collection.
        collection: Collection,
    },
    /// Links with a peer end for the same fault at the same place, for the second time in a row: nothing gets past it.
    Blocked(BlockedPeer),
    /// Two processes run with one identity, as after a machine was copied: neither is let in until one of them is gone.
    Copied {
        /// The node.
        node: NodeId,
        /// The label of the one that came last.
        name: String,
    },
    /// A member was removed: no history is kept for it any more.
    MemberRemoved {
        /// The member.
        node: NodeId,
        /// Who removed it.
        by: NodeId,
    },
    /// A member that was removed is back.
    MemberReturned {
        /// The member.
        node: NodeId,
    },
}

/// How an oplog was seen not to be the one that the node last wrote.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Anew {
    /// It falls short of what was written: an older copy, or what a power cut left.
    OlderCopy {
        /// Entries in it of the incarnation that was last written in.
        found: u64,
        /// Entries that were written in it.
        expected: u64,
    },
    /// It is another node's: a copied database, or a node that lost its identity.
    OtherNode(NodeId),
    /// It is empty, and there was one.
    Empty,
    /// Its store says that commits may have been lost when it was last used.
    PerhapsIncomplete,
}
