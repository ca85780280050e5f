//! What a peer must not do.

use crate::id::Collection;
use crate::outgoing::AckError;

/// A peer that does not keep to the protocol. Its link is closed; what it sent before stays as it is.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum Violation {
    #[error("the peer said hello twice")]
    SecondHello,
    #[error("the peer sent a message before hello")]
    NoHello,
    #[error("the peer sent page {found} where {expected} is next")]
    PageOrder { expected: u64, found: u64 },
    #[error(
        "the peer sent more pages than it may without acknowledgement (limit PAGES_IN_FLIGHT_MAX, {max})"
    )]
    PagesOverLimit { max: usize },
    #[error("the peer sent entries of {0}, which was not asked for")]
    NotShared(Collection),
    #[error(transparent)]
    Ack(#[from] AckError),
    #[error("no acknowledgement for a page within {0} ms")]
    AckOverdue(u64),
    #[error("the peer asked for a piece of a snapshot before the last one was answered")]
    PullOverOpen,
    #[error("the peer sent a piece of a snapshot that was not asked for")]
    ChunkNotAsked,
    #[error("the peer did not say hello within {0} ms")]
    HelloOverdue(u64),
}
