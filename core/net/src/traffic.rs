//! Counters that only rise.

use std::sync::atomic::{AtomicU64, Ordering};

/// What went through a transport since its start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Traffic {
    /// Frames of the session layer received.
    pub frames_in: u64,
    /// Frames of the session layer sent.
    pub frames_out: u64,
    /// Bytes of their bodies received, decompressed.
    pub raw_bytes_in: u64,
    /// Bytes of their bodies sent, before compression.
    pub raw_bytes_out: u64,
    /// Bytes received on authenticated links, as they were on the wire.
    pub wire_bytes_in: u64,
    /// Bytes sent on authenticated links, as they were on the wire.
    pub wire_bytes_out: u64,
    /// Links that came up.
    pub links_up: u64,
    /// Inbound connections that did not become links.
    pub handshakes_refused: u64,
    /// Dials that did not become links.
    pub dials_failed: u64,
    /// Times that no connections were taken for want of file descriptors.
    pub listen_pauses: u64,
}

#[derive(Default)]
pub(crate) struct Counters {
    pub(crate) frames_in: AtomicU64,
    pub(crate) frames_out: AtomicU64,
    pub(crate) raw_bytes_in: AtomicU64,
    pub(crate) raw_bytes_out: AtomicU64,
    pub(crate) wire_bytes_in: AtomicU64,
    pub(crate) wire_bytes_out: AtomicU64,
    pub(crate) links_up: AtomicU64,
    pub(crate) handshakes_refused: AtomicU64,
    pub(crate) dials_failed: AtomicU64,
    pub(crate) listen_pauses: AtomicU64,
}

pub(crate) fn count(counter: &AtomicU64, more: usize) {
    counter.fetch_add(more as u64, Ordering::Relaxed);
}

impl Counters {
    pub(crate) fn snapshot(&self) -> Traffic {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Traffic {
            frames_in: read(&self.frames_in),
            frames_out: read(&self.frames_out),
            raw_bytes_in: read(&self.raw_bytes_in),
            raw_bytes_out: read(&self.raw_bytes_out),
            wire_bytes_in: read(&self.wire_bytes_in),
            wire_bytes_out: read(&self.wire_bytes_out),
            links_up: read(&self.links_up),
            handshakes_refused: read(&self.handshakes_refused),
            dials_failed: read(&self.dials_failed),
            listen_pauses: read(&self.listen_pauses),
        }
    }
}
