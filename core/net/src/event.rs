//! What a transport tells its owner, and why links end.

use std::io;
use std::net::SocketAddr;

use bytes::Bytes;
use entgldb_replica::id::{LinkId, NodeId, PublicKey};

use crate::budget::InFlight;
use crate::frame::FrameError;
use crate::handshake::HandshakeError;

/// An opaque message of the session layer.
#[derive(Clone, PartialEq, Eq)]
pub struct Frame {
    /// What it is: 16 or more. Smaller numbers are the transport's own.
    pub kind: u64,
    /// Its content, not compressed.
    pub body: Bytes,
    /// Whether the transport may compress it. Bodies that mix secrets with what an attacker can choose must not be.
    pub compress: bool,
}

impl std::fmt::Debug for Frame {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Frame(kind {}, {} bytes)", self.kind, self.body.len())
    }
}

/// Who is at the other end of a link, as its handshake proved (keys, node) or claimed (name, instance).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerInfo {
    /// Its identity.
    pub node: NodeId,
    /// The key that the identity is the hash of.
    pub public_key: PublicKey,
    /// Its label; only for people.
    pub name: String,
    /// The random number of its process start.
    pub instance: u64,
    /// Largest frame body that it takes, in bytes.
    pub frame_bytes_max: usize,
}

/// What happened. Events of one link come in order: `LinkUp`, then frames, then one `LinkDown`.
#[derive(Debug)]
#[non_exhaustive]
pub enum NetEvent {
    /// A peer is connected and authenticated, in both directions.
    LinkUp {
        /// The new link.
        link: LinkId,
        /// Who it leads to.
        peer: PeerInfo,
        /// Its network address.
        address: SocketAddr,
        /// Whether we dialled it.
        we_dialled: bool,
        /// What was dialled, as it was given to `dial`.
        target: Option<String>,
    },
    /// A frame arrived.
    Frame {
        /// On which link.
        link: LinkId,
        /// The frame.
        frame: Frame,
        /// Its share of the in-flight budget; drop it when the frame is done with.
        permit: InFlight,
    },
    /// A link is gone. Nothing more comes from it, and sends to it fail.
    LinkDown {
        /// Which.
        link: LinkId,
        /// Why.
        reason: CloseReason,
    },
    /// A dial did not lead to a link.
    DialFailed {
        /// As it was given to `dial`.
        target: String,
        /// Why.
        reason: DialError,
    },
    /// Someone who connected to us did not become a peer. Under a flood only some are reported; all are counted.
    Refused {
        /// Where it came from.
        address: SocketAddr,
        /// Why.
        reason: HandshakeError,
    },
    /// The process has so few file descriptors left that no connections are taken for a while. Links stay as they are.
    ListenPaused {
        /// The most that it may have.
        limit: u64,
    },
    /// Connections are taken again.
    ListenResumed,
}

impl NetEvent {
    /// The link that it is about.
    #[must_use]
    pub fn link(&self) -> Option<LinkId> {
        match self {
            Self::LinkUp { link, .. } | Self::Frame { link, .. } | Self::LinkDown { link, .. } => Some(*link),
            Self::DialFailed { .. }
            | Self::Refused { .. }
            | Self::ListenPaused { .. }
            | Self::ListenResumed => None,
        }
    }
}

/// Why a link ended. Whatever was not acknowledged by the session layer must be offered again on the next one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CloseReason {
    /// We closed it.
    #[error("closed here: {0}")]
    Local(String),
    /// The peer closed it, and said so under the link's encryption.
    #[error("closed by the peer: {0}")]
    Peer(String),
    /// The transport is being shut down.
    #[error("this node is shutting down")]
    Shutdown,
    /// The stream ended without a close frame: the peer's process or the network went away, or somebody cut it.
    #[error("the stream ended without a close frame")]
    Truncated,
    /// Nothing came from the peer for `DROP_AFTER_MS`, not even a sign that it is alive.
    #[error("the peer was silent for too long (DROP_AFTER_MS)")]
    Silent,
    /// The peer took nothing of what we wrote for `DROP_AFTER_MS`.
    #[error("the peer takes nothing any more (DROP_AFTER_MS)")]
    Stalled,
    /// A frame began, was not complete after `FRAME_MS`, and came at less than `FRAME_BYTES_PER_SECOND`.
    #[error("a frame was not complete in time (FRAME_MS, FRAME_BYTES_PER_SECOND)")]
    FrameTimeout,
    /// A record was changed, repeated, left out or moved on its way.
    #[error("a record does not authenticate: it was changed, repeated, left out or moved on its way")]
    Tampered,
    /// The peer sent something that the protocol forbids: its fault.
    #[error("the peer broke the protocol: {0}")]
    Protocol(#[from] FrameError),
    /// The operating system's socket failed.
    #[error("the connection failed: {0}")]
    Io(io::ErrorKind),
    /// A bug here: the link's task ended without giving a reason.
    #[error("the link's task ended unexpectedly")]
    Internal,
}

/// What a peer is told when the transport is shut down.
const SHUTTING_DOWN: &str = "shutting down";

impl CloseReason {
    /// Whether one side ended the link because of what the other had sent. The next link may end in the same way.
    #[must_use]
    pub fn is_fault(&self) -> bool {
        match self {
            Self::Local(_) | Self::FrameTimeout | Self::Tampered | Self::Protocol(_) => true,
            Self::Peer(reason) => reason != SHUTTING_DOWN,
            Self::Shutdown
            | Self::Truncated
            | Self::Silent
            | Self::Stalled
            | Self::Io(_)
            | Self::Internal => false,
        }
    }

    /// What the peer is told in a close frame; `None` where nothing can or should be said.
    pub(crate) fn parting_word(&self) -> Option<String> {
        match self {
            Self::Local(reason) => Some(reason.clone()),
            Self::Shutdown => Some(SHUTTING_DOWN.to_owned()),
            Self::FrameTimeout | Self::Protocol(_) => Some(self.to_string()),
            _ => None,
        }
    }
}

/// Why a dial did not lead to a link.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DialError {
    /// The target is not `host:port`, or the name has no address.
    #[error("cannot resolve the address: {0}")]
    Resolve(io::ErrorKind),
    /// No connection within the time for it, or refused.
    #[error("cannot connect: {0}")]
    Connect(io::ErrorKind),
    /// `PRE_AUTH_MAX` dials are already on their way: try later.
    #[error("too many dials at the same time (PRE_AUTH_MAX)")]
    TooManyDials,
    /// Connected, but the handshake failed.
    #[error(transparent)]
    Handshake(#[from] HandshakeError),
}

/// Why a frame was not taken for sending. It was not sent, and nothing else changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SendError {
    /// `SEND_QUEUE_FRAMES_MAX` frames already wait on this link: the peer is too slow.
    #[error("the link's send queue is full (SEND_QUEUE_FRAMES_MAX)")]
    Full,
    /// There is no such link any more.
    #[error("the link is gone")]
    Gone,
    /// The body is larger than what the peer takes, or than our own hard limit.
    #[error("the frame is larger than the peer takes (frame_bytes_max)")]
    TooLarge,
    /// The kind is below 16: the caller's bug.
    #[error("frame kinds below 16 are the transport's own")]
    Reserved,
}
