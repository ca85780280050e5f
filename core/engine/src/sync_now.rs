//! Waiting until this node and its peers hold the same: how it ends, and how the answer comes back.

use crossbeam_channel::{Receiver, Sender, bounded};

use crate::guard::GuardError;

/// Why [`crate::Node::sync_now`] did not end well. Syncing goes on all the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SyncError {
    /// No peer is linked.
    #[error("no peer is linked")]
    NoPeer,
    /// It takes longer.
    #[error(
        "not done in time: {behind} entries are still to come, {ahead} still to go{}",
        if *capturing { ", and rows are still to be captured" } else { "" }
    )]
    Timeout {
        /// Entries still to come.
        behind: u64,
        /// Entries still to go.
        ahead: u64,
        /// Whether rows that are in the tables are still to be captured.
        capturing: bool,
    },
    /// The store has failed; see the status.
    #[error("the store is not available")]
    StoreFailed,
    /// The call must not be made here.
    #[error(transparent)]
    Guard(#[from] GuardError),
    /// The node has stopped.
    #[error("the node has stopped")]
    Stopped,
}

/// How `sync_now` ended.
pub(crate) type Synced = Result<(), SyncError>;
/// Who waits for it.
pub(crate) type Reply = Sender<Synced>;

/// A channel for one answer.
pub(crate) fn reply() -> (Reply, Receiver<Synced>) {
    bounded(1)
}
