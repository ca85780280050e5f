//! What all tasks of one transport share.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use entgldb_replica::id::LinkId;
use entgldb_replica::limits::{FRAME_BYTES_HARD, IN_FLIGHT_BYTES_MAX, PRE_AUTH_MAX, SESSIONS_MAX};
use tokio::sync::{Semaphore, mpsc, oneshot};

use crate::admission::Admission;
use crate::budget::Budget;
use crate::config::{NetConfig, REFUSED_EVENTS_PER_SECOND, Timing};
use crate::descriptors;
use crate::event::{CloseReason, Frame, NetEvent, SendError};
use crate::frame::SESSION_KINDS;
use crate::handshake::{HandshakeError, LocalEnd};
use crate::pace::HandshakePace;
use crate::traffic::{Counters, count};

/// Takes the events of a transport.
pub type Sink = Arc<dyn Fn(NetEvent) + Send + Sync>;

pub(crate) struct Shared {
    pub(crate) timing: Timing,
    pub(crate) local: LocalEnd,
    pub(crate) sink: Sink,
    pub(crate) budget: Budget,
    pub(crate) counters: Arc<Counters>,
    pub(crate) admission: Admission,
    pub(crate) handshakes: HandshakePace,
    pub(crate) link_bytes_per_second: usize,
    pub(crate) descriptor_limit: descriptors::Limit,
    /// Places for authenticated links.
    pub(crate) sessions: Arc<Semaphore>,
    /// Places for dials on their way.
    pub(crate) dials: Arc<Semaphore>,
    links: Mutex<HashMap<LinkId, LinkHandle>>,
    next_link: AtomicU64,
    refusals: Mutex<RefusalGate>,
}

/// The ends of a link that its owner holds.
pub(crate) struct LinkHandle {
    pub(crate) queue: mpsc::Sender<Frame>,
    pub(crate) close: oneshot::Sender<String>,
    pub(crate) peer_frame_bytes_max: usize,
}

impl Shared {
    pub(crate) fn new(config: &NetConfig, local: LocalEnd, sink: Sink) -> Self {
        let timing = config.timing;
        Self {
            timing,
            local,
            sink,
            budget: Budget::new(IN_FLIGHT_BYTES_MAX),
            counters: Arc::default(),
            admission: Admission::default(),
            handshakes: HandshakePace::new(timing.handshake_every),
            link_bytes_per_second: config.link_bytes_per_second,
            descriptor_limit: descriptors::limit_of_this_process,
            sessions: Arc::new(Semaphore::new(SESSIONS_MAX)),
            dials: Arc::new(Semaphore::new(PRE_AUTH_MAX)),
            links: Mutex::default(),
            next_link: AtomicU64::new(1),
            refusals: Mutex::default(),
        }
    }

    pub(crate) fn register(self: &Arc<Self>, handle: LinkHandle) -> LinkGuard {
        let link = LinkId(self.next_link.fetch_add(1, Ordering::Relaxed));
        self.links().insert(link, handle);
        count(&self.counters.links_up, 1);
        LinkGuard { link, shared: Arc::clone(self), reason: CloseReason::Internal }
    }

    pub(crate) fn send(&self, link: LinkId, frame: Frame) -> Result<(), SendError> {
        if frame.kind < SESSION_KINDS {
            return Err(SendError::Reserved);
        }
        let links = self.links();
        let handle = links.get(&link).ok_or(SendError::Gone)?;
        if frame.body.len() > handle.peer_frame_bytes_max.min(FRAME_BYTES_HARD) {
            return Err(SendError::TooLarge);
        }
        handle.queue.try_send(frame).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => SendError::Full,
            mpsc::error::TrySendError::Closed(_) => SendError::Gone,
        })
    }

    pub(crate) fn close(&self, link: LinkId, reason: &str) {
        if let Some(handle) = self.links().remove(&link) {
            // If the link's task is gone already, so is the link.
            let _ = handle.close.send(reason.to_owned());
        }
    }

    pub(crate) fn refused(&self, address: SocketAddr, reason: HandshakeError) {
        count(&self.counters.handshakes_refused, 1);
        tracing::debug!(%address, %reason, "inbound connection refused");
        let may_pass = self.refusals.lock().unwrap_or_else(PoisonError::into_inner).may_pass(Instant::now());
        if may_pass {
            (self.sink)(NetEvent::Refused { address, reason });
        }
    }

    fn links(&self) -> MutexGuard<'_, HashMap<LinkId, LinkHandle>> {
        self.links.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Sees to it that every link that came up goes down exactly once, even if its task panics or its runtime is dropped.
pub(crate) struct LinkGuard {
    pub(crate) link: LinkId,
    shared: Arc<Shared>,
    reason: CloseReason,
}

impl LinkGuard {
    /// The link is gone for this reason.
    pub(crate) fn down(mut self, reason: CloseReason) {
        self.reason = reason;
    }
}

impl Drop for LinkGuard {
    fn drop(&mut self) {
        self.shared.links().remove(&self.link);
        let reason = self.reason.clone();
        tracing::debug!(link = self.link.0, %reason, "link down");
        (self.shared.sink)(NetEvent::LinkDown { link: self.link, reason });
    }
}

/// Lets a few refusals a second become events: a flood of strangers must not become a flood of events.
#[derive(Default)]
struct RefusalGate {
    second: Option<Instant>,
    passed: u32,
}

impl RefusalGate {
    fn may_pass(&mut self, now: Instant) -> bool {
        if self.second.is_none_or(|second| now.duration_since(second) >= Duration::from_secs(1)) {
            *self = Self { second: Some(now), passed: 0 };
        }
        self.passed += 1;
        self.passed <= REFUSED_EVENTS_PER_SECOND
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_of_refusals_becomes_a_few_events_a_second() {
        let mut gate = RefusalGate::default();
        let now = Instant::now();
        let passed = (0..1000).filter(|_| gate.may_pass(now)).count();
        assert_eq!(passed, REFUSED_EVENTS_PER_SECOND as usize);
        assert!(gate.may_pass(now + Duration::from_secs(1)));
    }
}
