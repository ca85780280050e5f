//! The part of a conversation that is about snapshots: what may be asked of the peer, and what it may ask.
//!
//! Each side has one question open at a time. Whoever asks more, or answers what nobody asked, is cut off: so a node never has
//! more such work than one piece for each link.

use std::collections::BTreeMap;

use crate::clock::Mono;
use crate::id::Collection;
use crate::limits::Limits;
use crate::oplog::Logs;
use crate::session::{Effect, Session};
use crate::snapshot::{Incoming, Purpose};
use crate::violation::Violation;
use crate::wire::{Chunk, Message, Pull};

impl Session {
    /// A collection of which a snapshot is to be asked of the peer, and why.
    pub(crate) fn wanted_snapshot(
        &self,
        logs: &Logs,
        limits: &Limits,
        now: Mono,
    ) -> Option<(Collection, Purpose)> {
        if !self.vector_seen {
            return None;
        }
        // Asked at every step: it must not look through all logs where nothing is lacking.
        let nothing = BTreeMap::new();
        let is_behind = self.outgoing.behind(logs).0 > 0;
        let theirs = if is_behind { self.outgoing.theirs() } else { &nothing };
        let wanted = self.giver.wanted(theirs, logs, limits, now);
        wanted.filter(|(collection, _)| self.shared.contains(collection))
    }

    /// Rows that the peer said it has of a collection.
    pub(crate) fn rows_of(&self, collection: &Collection) -> u64 {
        self.giver.rows_of(collection)
    }

    /// Whether the peer can go on with a snapshot that stands for these heads.
    pub(crate) fn can_go_on(&self, incoming: &Incoming, now: Mono) -> bool {
        self.vector_seen
            && self.giver.may_be_asked(&incoming.collection, now)
            && self.shared.contains(&incoming.collection)
            && incoming.is_covered(|log| self.outgoing.theirs().get(log).copied().unwrap_or_default())
    }

    /// The peer could not give a snapshot, or has given one.
    pub(crate) fn snapshot_over(&mut self, collection: Collection, now: Mono) {
        self.giver.was_asked(collection, now);
    }

    /// A piece of a snapshot of the peer's was joined.
    pub(crate) fn piece_joined(&mut self) {
        self.is_fruitful = true;
    }

    /// The peer asks for a piece.
    pub(crate) fn handle_pull(&mut self, pull: Pull) -> Result<Vec<Effect>, Violation> {
        self.ensure_shared(&pull.collection)?;
        if std::mem::replace(&mut self.giver.is_owed, true) {
            return Err(Violation::PullOverOpen);
        }
        Ok(vec![Effect::Pull(pull)])
    }

    /// The peer answers.
    pub(crate) fn handle_chunk(&mut self, chunk: Chunk) -> Result<Vec<Effect>, Violation> {
        self.ensure_shared(&chunk.collection)?;
        if !std::mem::take(&mut self.giver.owes) {
            return Err(Violation::ChunkNotAsked);
        }
        Ok(vec![Effect::Chunk(chunk)])
    }

    /// The question for a piece.
    pub(crate) fn ask(&mut self, pull: Pull) -> Message {
        self.giver.owes = true;
        Message::Pull(pull)
    }

    /// The answer to one.
    pub(crate) fn answer(&mut self, chunk: Chunk) -> Message {
        self.giver.is_owed = false;
        Message::Chunk(chunk)
    }
}
