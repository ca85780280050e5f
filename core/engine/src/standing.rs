//! What the driver says of how things stand: the status, the events about long work, and the answers to those who wait until all
//! is level. Nothing is said to be in sync while rows that are in the tables are still to be captured.

use std::time::Instant;

use entgldb_replica::{PeerStatus, Replica};
use tracing::warn;

use crate::driver::Driver;
use crate::event::Event;
use crate::sync_now::{Reply, SyncError};

impl Driver {
    /// Whether rows that are in the tables are still to be captured.
    fn is_capturing(&mut self) -> bool {
        let Some(replica) = &mut self.replica else { return true };
        if replica.is_capturing() {
            return true;
        }
        match replica.store().is_scanning() {
            Ok(scanning) => scanning,
            Err(failed) => {
                self.store_failed(&failed);
                true
            }
        }
    }

    /// Tells that peers' entries are all here, but not while this node has rows that they don't know of yet.
    pub(crate) fn tell_caught_up(&mut self) {
        if self.progress.holds_any() && !self.is_capturing() {
            let links =
                self.replica.as_ref().map(Replica::status).map(|status| status.peers).unwrap_or_default();
            for node in self.progress.release(&links) {
                self.tell(&Event::CaughtUp { node: node.to_string() });
            }
        }
    }

    /// Answers those who wait for both sides to be level. The status is true before they hear of it.
    pub(crate) fn answer_waiting(&mut self) {
        if self.waiting.is_empty() {
            return;
        }
        let level = self.replica.as_ref().is_some_and(Replica::is_level) && !self.is_capturing();
        let now = Instant::now();
        let is_over = |(deadline, _): &(Instant, Reply)| level || *deadline <= now;
        let (over, waiting) = std::mem::take(&mut self.waiting).into_iter().partition(is_over);
        self.waiting = waiting;
        let over: Vec<(Instant, Reply)> = over;
        if over.is_empty() {
            return;
        }
        self.publish(true);
        let answer = if level { Ok(()) } else { Err(self.not_level()) };
        for (_, reply) in over {
            let _ = reply.send(answer);
        }
    }

    /// Why the nodes are not level.
    fn not_level(&self) -> SyncError {
        let Some(status) = self.replica.as_ref().map(Replica::status) else { return SyncError::StoreFailed };
        if status.peers.is_empty() {
            return SyncError::NoPeer;
        }
        SyncError::Timeout {
            behind: status.peers.iter().map(|peer| peer.behind).max().unwrap_or_default(),
            ahead: status.peers.iter().map(|peer| peer.ahead).max().unwrap_or_default(),
            capturing: status.backlog || self.progress.is_looking(),
        }
    }

    /// Pins the labels of peers that were found to hold the same as this node.
    fn pin(&mut self, peers: &[PeerStatus]) {
        for peer in peers.iter().filter(|peer| peer.in_sync.is_some()) {
            if let Err(error) = self.trust.synced(&peer.name, peer.node) {
                warn!(%error, "a peer's label can't be pinned; trying again");
            }
        }
    }

    /// Brings the status up to date, at most once a second or right now.
    pub(crate) fn publish(&mut self, now: bool) {
        if now || Instant::now() >= self.publisher.due() {
            let health = match self.replica.as_mut().map(|replica| replica.store().health()) {
                Some(Ok(health)) => Some(health),
                Some(Err(failed)) => {
                    self.store_failed(&failed);
                    None
                }
                None => None,
            };
            for event in
                health.iter().flat_map(|health| self.progress.follow(&health.tables)).collect::<Vec<_>>()
            {
                self.tell(&event);
            }
            let replica = self.replica.as_ref().map(Replica::status).zip(health);
            self.pin(replica.as_ref().map_or(&[], |(status, _)| &status.peers));
            self.publisher.publish(replica, self.transport.traffic(), &self.recipe.store.path);
            if let Some(replica) = &self.replica {
                self.mark.note(replica.mark());
            }
            self.mark.write();
            self.control.look();
        }
    }
}
