//! Waiting until all is the same, also where the link has yet to come.

use std::time::{Duration, Instant};

use crate::node::{AddPeerError, Node};
use crate::sync_now::SyncError;

/// How often it is looked whether the peer is linked.
const LOOK_MS: u64 = 10;

/// Why [`Node::sync_with`] did not end well. Syncing goes on all the same.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SyncWithError {
    /// It is no address.
    #[error(transparent)]
    Peer(#[from] AddPeerError),
    /// No link came in time.
    #[error("no link in time: {reason}")]
    NoLink {
        /// What the last attempt said, or that there was none.
        reason: String,
    },
    /// See there.
    #[error(transparent)]
    Sync(#[from] SyncError),
}

impl Node {
    /// As [`Node::sync_now`], but waits for a link first: for one to this `host:port`, which is dialled if it was not yet, or
    /// for any.
    ///
    /// # Errors
    /// When all this has not come about after `timeout`, or can't.
    pub fn sync_with(&self, peer: Option<&str>, timeout: Duration) -> Result<(), SyncWithError> {
        let deadline = Instant::now() + timeout;
        if let Some(target) = peer
            && !self.status().targets.iter().any(|known| known.target == target)
        {
            self.add_peer(target)?;
        }
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let reason = match peer.map(|target| self.unlinked(target)) {
                Some(Some(reason)) => reason,
                _ => match self.sync_now(left) {
                    Err(SyncError::NoPeer) => "no peer is linked".to_owned(),
                    other => return Ok(other?),
                },
            };
            if left.is_zero() {
                return Err(SyncWithError::NoLink { reason });
            }
            std::thread::sleep(left.min(Duration::from_millis(LOOK_MS)));
        }
    }

    /// Why this address is not linked, if it is not.
    fn unlinked(&self, target: &str) -> Option<String> {
        let status = self.status();
        match status.targets.into_iter().find(|known| known.target == target) {
            Some(known) if known.linked => None,
            Some(known) => Some(known.error.unwrap_or_else(|| format!("{target} is being dialled"))),
            None => Some(format!("{target} is being dialled")),
        }
    }
}
