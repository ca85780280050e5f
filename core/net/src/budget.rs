//! The budget of received bytes that wait for the engine, over all links.
//!
//! A reader takes a share before it hands a frame over and stops reading while there is none, so that backpressure
//! reaches the peer's TCP window and memory stays bounded however slow the engine is.

use std::sync::Arc;

use entgldb_replica::limits::IN_FLIGHT_BYTES_MAX;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::config::FRAME_COST_BYTES;

/// A frame's share of the budget. Dropping it gives the share back.
#[derive(Debug)]
#[must_use = "dropping it at once gives the share back while the frame is still held"]
pub struct InFlight {
    _permit: OwnedSemaphorePermit,
}

#[derive(Clone)]
pub(crate) struct Budget(Arc<Semaphore>);

impl Budget {
    pub(crate) fn new() -> Self {
        Self(Arc::new(Semaphore::new(IN_FLIGHT_BYTES_MAX)))
    }

    /// Waits until a frame of so many bytes fits.
    pub(crate) async fn take(&self, body_bytes: usize) -> InFlight {
        let share = (body_bytes + FRAME_COST_BYTES).min(IN_FLIGHT_BYTES_MAX);
        let share = u32::try_from(share).expect("the budget is below 4 GiB");
        let permit = Arc::clone(&self.0).acquire_many_owned(share).await.expect("the budget is never closed");
        InFlight { _permit: permit }
    }
}
