//! From whom a snapshot comes in, what of it waits to be joined, and how fast it comes.
//!
//! Only the time in which an answer is waited for counts, so a node that joins slowly does not blame the giver. What a giver
//! brings in that time is its pace: one that is slow makes room for another (`exchange.rs`).

use std::collections::VecDeque;

use crate::clock::Mono;
use crate::id::LinkId;
use crate::limits::{ACK_MS, SNAPSHOT_AHEAD, SNAPSHOT_PACE_MS, SNAPSHOT_SLOW};
use crate::wire::{Chunk, Cursor, Part};

/// What a row counts beside its bytes.
const ROW_BYTES: u64 = 100;

/// See the module's documentation.
#[derive(Debug, Default)]
pub(crate) struct Taking {
    pub(crate) link: Option<LinkId>,
    /// Pieces that came, and when.
    chunks: VecDeque<(Chunk, Mono)>,
    /// When the question was sent that is not answered yet.
    asked: Option<Mono>,
    waited_ms: u64,
    brought: u64,
}

impl Taking {
    /// Begins with a giver.
    pub(crate) fn from(link: LinkId) -> Self {
        Self { link: Some(link), ..Self::default() }
    }

    /// A question was sent.
    pub(crate) fn asked(&mut self, now: Mono) {
        self.asked = Some(now);
    }

    /// Its answer has come.
    pub(crate) fn came(&mut self, chunk: Chunk, now: Mono) {
        let asked = self.asked.take().unwrap_or(now);
        self.waited_ms += now.since(asked);
        self.brought += bytes(&chunk);
        if self.waited_ms > 2 * SNAPSHOT_PACE_MS {
            // What was long ago counts for less.
            (self.waited_ms, self.brought) = (self.waited_ms / 2, self.brought / 2);
        }
        self.chunks.push_back((chunk, now));
    }

    /// The oldest piece that waits.
    pub(crate) fn next(&mut self) -> Option<(Chunk, Mono)> {
        self.chunks.pop_front()
    }

    /// A piece that can't be joined yet.
    pub(crate) fn put_back(&mut self, chunk: Chunk, at: Mono) {
        self.chunks.push_front((chunk, at));
    }

    /// Whether a piece waits.
    pub(crate) fn has_chunk(&self) -> bool {
        !self.chunks.is_empty()
    }

    /// Whether another question may be asked now, and after which row, if a piece of rows waits that is not joined yet.
    pub(crate) fn may_ask(&self) -> Option<Option<Cursor>> {
        if self.asked.is_some() || self.chunks.len() >= SNAPSHOT_AHEAD {
            return None;
        }
        let Some((last, _)) = self.chunks.back() else { return Some(None) };
        match &last.part {
            Part::Rows(rows) if !last.last && last.refused.is_empty() => {
                rows.last().map(|row| Some(Cursor::Rows(Some(row.key.clone()))))
            }
            _ => None,
        }
    }

    /// Whether no answer has come for too long.
    pub(crate) fn is_overdue(&self, now: Mono) -> bool {
        self.asked.is_some_and(|asked| now.since(asked) >= ACK_MS)
    }

    /// Bytes that the giver brings in a second; `None` before that is known.
    pub(crate) fn pace(&self, now: Mono) -> Option<u64> {
        let waited = self.waited_ms + self.asked.map_or(0, |asked| now.since(asked));
        (waited >= SNAPSHOT_PACE_MS).then(|| self.brought.saturating_mul(1_000) / waited)
    }

    /// The link that the snapshot comes over, if it comes at a pace worth waiting for.
    pub(crate) fn flowing(&self, now: Mono) -> Option<LinkId> {
        self.link.filter(|_| self.pace(now).is_none_or(|pace| pace >= SNAPSHOT_SLOW))
    }
}

fn bytes(chunk: &Chunk) -> u64 {
    let Part::Rows(rows) = &chunk.part else { return 0 };
    let row = |row: &crate::resolve::Document| {
        let content = row.content.as_ref().map_or(0, bytes::Bytes::len);
        let state = row.merged.as_ref().map_or(0, bytes::Bytes::len);
        (row.key.as_str().len() + content + state) as u64 + ROW_BYTES
    };
    rows.iter().map(row).sum()
}
