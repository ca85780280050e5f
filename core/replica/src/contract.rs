//! Everything that crosses the border of a replica: what it is told, and what it answers.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;

use crate::blocked::BlockedPeer;
use crate::clock::{Hlc, WallMillis};
use crate::custom::Resolver;
use crate::event::Event;
use crate::id::{Collection, Incarnation, LinkId, NodeId};
use crate::limits::{
    FRAME_BYTES_DEFAULT, Limits, MAX_SKEW_MS, PAYLOAD_BYTES_DEFAULT, RETENTION_MS, SYNC_INTERVAL_MS,
};
use crate::peers::TargetStatus;

/// What a replica needs to know.
#[derive(Clone, Debug)]
pub struct Config {
    /// The node's label, for the other members.
    pub name: String,
    /// Collections to sync; [`Input::Interests`] changes them later.
    pub interests: BTreeSet<Collection>,
    /// How long history is kept after all members hold it; `None` for ever.
    pub retention_ms: Option<u64>,
    /// A remote entry further ahead of the wall clock than this waits.
    pub max_skew_ms: u64,
    /// Collections whose documents merge field by field instead of the last write winning. It says how this node writes;
    /// what others wrote is joined as they wrote it, so nodes that differ in this still end with the same documents.
    pub merging: BTreeSet<Collection>,
    /// Functions that decide on the documents of collections ([`crate::custom`]); such a collection's place in `merging`
    /// does not count. All nodes must have the same.
    pub custom: BTreeMap<Collection, Resolver>,
    /// Time between digests.
    pub sync_interval_ms: u64,
    /// Largest document captured, in bytes.
    pub payload_bytes_max: usize,
    /// Largest frame taken, in bytes; less than [`crate::limits::FRAME_BYTES_LEAST`] counts as that.
    pub frame_bytes_max: usize,
    /// What may be made smaller than usual. A value out of its range counts as the nearest end of it.
    pub limits: Limits,
    /// How far the oplog had come when it was last seen, kept by the caller outside of the store: an oplog that falls
    /// short of it is an older copy, and the replica goes on in a new incarnation. `None` if nothing is known.
    pub mark: Option<Mark>,
}

/// How far a node's own oplog has come: see [`Config::mark`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Mark {
    /// The incarnation that it writes in.
    pub incarnation: Incarnation,
    /// Entries written in it.
    pub entries: u64,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            name: String::new(),
            interests: BTreeSet::new(),
            retention_ms: Some(RETENTION_MS),
            merging: BTreeSet::new(),
            custom: BTreeMap::new(),
            max_skew_ms: MAX_SKEW_MS,
            sync_interval_ms: SYNC_INTERVAL_MS,
            payload_bytes_max: PAYLOAD_BYTES_DEFAULT,
            frame_bytes_max: FRAME_BYTES_DEFAULT,
            mark: None,
            limits: Limits::default(),
        }
    }
}

/// What a session is told of its link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// The transport's number for it.
    pub id: LinkId,
    /// The authenticated peer.
    pub peer: NodeId,
    /// The peer's label.
    pub name: String,
    /// Random number of the peer's process: a new one means that the peer was started again.
    pub instance: u64,
    /// Whether this side dialled.
    pub we_dialled: bool,
    /// The target that was dialled, if this side did.
    pub target: Option<String>,
    /// Largest frame that the peer takes, in bytes.
    pub frame_bytes_max: usize,
}

/// What happens to a replica.
#[derive(Debug)]
pub enum Input {
    /// The application may have changed something.
    LocalChange,
    /// A peer was authenticated over a new link.
    LinkUp(Link),
    /// A link is gone.
    LinkDown {
        /// The link.
        link: LinkId,
        /// Why, for people.
        reason: String,
        /// Whether one side ended it because of what the other had sent. A peer whose links end so at the same entry
        /// again and again is shown as blocked.
        is_fault: bool,
    },
    /// A frame came.
    Frame {
        /// Over this link.
        link: LinkId,
        /// Its type.
        kind: u64,
        /// Its body.
        body: Bytes,
    },
    /// A target could not be reached.
    DialFailed {
        /// The target, as in [`Output::Dial`].
        target: String,
        /// Why, for people.
        reason: String,
    },
    /// Compare with every peer and dial every target now, without waiting for the interval.
    SyncNow,
    /// Sync these collections from now on. Links are closed and made again. A collection that is added comes in full; of one
    /// that is taken away everything stays as it is here, and nothing of it comes or goes any more.
    Interests(BTreeSet<Collection>),
    /// Tell all members that one of them will not come back: no history is kept for it any more. If it does come back it
    /// takes a snapshot and is a member again; nothing that it wrote is lost.
    RemoveMember(NodeId),
    /// Nothing but time has passed.
    Tick,
}

/// What a replica wants done. The order matters.
#[derive(Debug, PartialEq)]
pub enum Output {
    /// Send a frame.
    Send {
        /// Over this link.
        link: LinkId,
        /// Its type.
        kind: u64,
        /// Its body.
        body: Bytes,
        /// Whether it is worth compressing.
        compress: bool,
    },
    /// Dial a target; answer with [`Input::LinkUp`] or [`Input::DialFailed`].
    Dial {
        /// `host:port`.
        target: String,
    },
    /// Close a link. The replica has forgotten it already; no [`Input::LinkDown`] is needed.
    Close {
        /// The link.
        link: LinkId,
        /// Why, for people and for the peer.
        reason: String,
    },
    /// Something worth showing.
    Event(Event),
}

impl Output {
    /// Bytes of the body, if this is a frame to send.
    pub(crate) fn body_len(&self) -> usize {
        match self {
            Self::Send { body, .. } => body.len(),
            _ => 0,
        }
    }
}

/// The store failed. The replica is of no use any more: drop it and open it again from what is durable.
#[derive(Debug, thiserror::Error)]
#[error("the store failed: {0}")]
pub struct StoreFailed<E>(#[source] pub E);

impl<E> From<E> for StoreFailed<E> {
    fn from(error: E) -> Self {
        Self(error)
    }
}

/// A peer as the status shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerStatus {
    /// The peer.
    pub node: NodeId,
    /// Its label.
    pub name: String,
    /// Whether this side dialled.
    pub we_dialled: bool,
    /// Entries that the peer is known to hold and this node lacks.
    pub behind: u64,
    /// Entries that this node holds and the peer is not known to hold.
    pub ahead: u64,
    /// When both last held the same, by this node's wall clock.
    pub in_sync: Option<WallMillis>,
    /// The peer's wall clock minus ours, in milliseconds, with the travel time in it.
    pub skew_ms: i64,
    /// Collections that both sync; `None` before hello.
    pub shared: Option<Vec<Collection>>,
    /// Logs that wait because the peer refused them.
    pub held: usize,
}

/// How a replica stands.
#[derive(Clone, Debug)]
pub struct Status {
    /// Who it is.
    pub node: NodeId,
    /// Birth of its oplog.
    pub incarnation: Incarnation,
    /// Value of its clock.
    pub clock: Hlc,
    /// Entries held, over all logs.
    pub entries: u64,
    /// Logs held.
    pub logs: usize,
    /// Peers with which no entry gets past a fault, linked or not.
    pub blocked: Vec<BlockedPeer>,
    /// Linked peers.
    pub peers: Vec<PeerStatus>,
    /// Addresses to dial.
    pub targets: Vec<TargetStatus>,
    /// Changes captured since it was opened.
    pub captured: u64,
    /// Remote entries applied since it was opened.
    pub applied: u64,
    /// Conflicts found since it was opened.
    pub conflicts: u64,
    /// Versions, and places of documents that merge, that were looked at to compare and join them since it was opened: a measure
    /// of work that is the same on every machine.
    pub work: u64,
    /// Whether local changes wait to be captured.
    pub backlog: bool,
    /// Entries that were forgotten since they were not needed any more.
    pub forgotten: u64,
    /// The snapshot that is coming in, and how many of its rows have come.
    pub snapshot: Option<(Collection, u64)>,
}
