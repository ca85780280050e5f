//! The budget of received bytes that wait for the engine: one over all links, and a smaller one for each.
//!
//! A reader takes a share of both before it hands a frame over and stops reading while there is none, so that
//! backpressure reaches the peer's TCP window and memory stays bounded however slow the engine is. Were there only the one
//! over all links, a peer that floods could hold all of it, and everybody else's frames would wait behind its own.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::config::FRAME_COST_BYTES;

/// A frame's share of the budgets. Dropping it gives the share back.
#[derive(Debug)]
#[must_use = "dropping it at once gives the share back while the frame is still held"]
pub struct InFlight {
    _of_the_link: OwnedSemaphorePermit,
    _of_all: OwnedSemaphorePermit,
}

#[derive(Clone)]
pub(crate) struct Budget {
    bytes: usize,
    free: Arc<Semaphore>,
}

impl Budget {
    pub(crate) fn new(bytes: usize) -> Self {
        Self { bytes, free: Arc::new(Semaphore::new(bytes)) }
    }

    /// Waits until a frame of so many bytes fits into the link's budget, then until it fits into that of all.
    pub(crate) async fn take(link: &Self, all: &Self, body_bytes: usize) -> InFlight {
        let of_the_link = link.share(body_bytes).await;
        InFlight { _of_the_link: of_the_link, _of_all: all.share(body_bytes).await }
    }

    async fn share(&self, body_bytes: usize) -> OwnedSemaphorePermit {
        let share = (body_bytes + FRAME_COST_BYTES).min(self.bytes);
        let share = u32::try_from(share).expect("a budget is below 4 GiB");
        Arc::clone(&self.free).acquire_many_owned(share).await.expect("a budget is never closed")
    }
}
