//! How large the state of a document may be, and what becomes of one that is larger.
//!
//! Members that write parts of one document apart can together make it larger than any of them could write it, larger than a
//! store or a frame takes. And who means harm can write versions without end that nobody has seen. So a state has a limit. Over
//! it, what is oldest goes, as if whoever wrote the youngest had seen and replaced it: floors and what counts as seen rise. Both
//! only ever rise, and join by taking the greater. So nodes that dropped in another order have other rows, compare them, join
//! them, and end with the same. What went is in the conflict list.

use std::collections::{BTreeMap, BTreeSet};

use crate::clock::{Hlc, Stamp};
use crate::heads::Heads;
use crate::id::NodeId;
use crate::limits::{PAYLOAD_BYTES_HARD, STATE_BYTES_MAX, VERSIONS_MAX, VERSIONS_OF_AUTHOR_MAX};
use crate::merge::Merged;
use crate::place::Place;

/// Bytes of a state that count as one place.
const PLACE_BYTES: usize = 128;
/// Bytes that a stamp takes, with all that names it.
const STAMP_BYTES: usize = 64;

impl Merged {
    /// Brings a state within its limits; `own` is the stamp that its bytes leave out. Answers whether anything had to go.
    pub(crate) fn fit(&mut self, own: Stamp) -> bool {
        let dropped = self.heads.fit();
        if self.is_small(own) {
            return dropped;
        }
        let mut stamps = BTreeSet::new();
        self.root.stamps(&mut stamps);
        stamps.extend(self.heads.versions.keys());
        let stamps: Vec<Stamp> = stamps.into_iter().collect();
        // The least that has to go. The youngest stays, whatever its size: its author wrote it so.
        let (mut least, mut most) = (1, stamps.len().saturating_sub(1));
        while least < most {
            let middle = least.midpoint(most);
            if self.since(stamps[middle]).is_small(own) { most = middle } else { least = middle + 1 }
        }
        let Some(first) = stamps.get(most).filter(|_| most > 0) else { return dropped };
        *self = self.since(*first);
        true
    }

    /// How much work it is to look through it: its places, about, and its bytes.
    pub(crate) fn weight(&self) -> usize {
        self.bytes_at_most() / PLACE_BYTES + 1
    }

    fn bytes_at_most(&self) -> usize {
        let versions = self.heads.versions.values().flatten().map(|content| content.len() + STAMP_BYTES);
        self.root.bytes_at_most() + versions.sum::<usize>() + self.heads.seen.len() * STAMP_BYTES
    }

    fn is_small(&self, own: Stamp) -> bool {
        // Far below the limits, which is usual, nothing needs to be encoded.
        self.bytes_at_most() <= PAYLOAD_BYTES_HARD
            || self.encode(own).len() <= STATE_BYTES_MAX
                && self.content().is_none_or(|content| content.len() <= PAYLOAD_BYTES_HARD)
    }

    /// The same without what is older.
    fn since(&self, first: Stamp) -> Self {
        let mut state = self.clone();
        state.heads.forget_before(first);
        if self.has_heads() && self.root.newest() < Some(first) {
            // A floor would be one more version beside the others.
            let seen_until = self.root.newest().map_or(Hlc::default(), |newest| newest.hlc);
            state.heads.join(Heads { seen_until, ..Heads::default() });
            state.root = Place::default();
            return state;
        }
        state.root.floor = state.root.floor.max(Some(first));
        state.root.settle(None);
        state
    }
}

impl Heads {
    /// Keeps the youngest versions, of each author and of all.
    fn fit(&mut self) -> bool {
        if self.versions.len() <= VERSIONS_OF_AUTHOR_MAX {
            return false;
        }
        let mut of_author: BTreeMap<NodeId, usize> = BTreeMap::new();
        let mut seen: BTreeMap<NodeId, Hlc> = BTreeMap::new();
        for stamp in self.versions.keys().rev() {
            let count = of_author.entry(stamp.node).or_default();
            *count += 1;
            if *count == VERSIONS_OF_AUTHOR_MAX + 1 {
                seen.insert(stamp.node, stamp.hlc);
            }
        }
        let is_over = !seen.is_empty();
        let seen = Self { seen, ..Self::default() };
        if is_over {
            self.join(seen);
        }
        let oldest = self.versions.keys().rev().nth(VERSIONS_MAX - 1).copied();
        let is_full = self.versions.len() > VERSIONS_MAX;
        if let Some(oldest) = oldest.filter(|_| is_full) {
            self.forget_before(oldest);
        }
        is_over || is_full
    }

    /// Counts versions before this one as seen.
    fn forget_before(&mut self, first: Stamp) {
        if let Some((last, _)) = self.versions.range(..first).next_back() {
            let seen_until = last.hlc;
            self.join(Self { seen_until, ..Self::default() });
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use fastrand::Rng;

    use super::*;

    fn stamp(author: u8, time: u64) -> Stamp {
        Stamp { hlc: Hlc(time), node: NodeId([author; 32]) }
    }

    /// What a node makes of these, in an order of its own.
    fn taken(edits: &[(Stamp, Merged)], rng: &mut Rng) -> Merged {
        let mut edits = edits.to_vec();
        rng.shuffle(&mut edits);
        let mut state = Merged::default();
        for (stamp, edit) in edits {
            state.join(edit);
            let own = state.newest().unwrap_or(stamp);
            state.fit(own);
        }
        state
    }

    /// What two nodes have after each has joined the other's state.
    fn repaired(a: &Merged, b: &Merged) -> (Merged, Merged) {
        let join = |to: &Merged, from: &Merged| {
            let mut state = to.clone();
            state.join(from.clone());
            let own = state.newest().unwrap();
            state.fit(own);
            state
        };
        (join(a, b), join(b, a))
    }

    #[test]
    fn versions_are_bounded_and_nodes_that_dropped_in_another_order_end_with_the_same() {
        let mut rng = Rng::with_seed(1);
        for round in 0..20 {
            let authors = if round % 2 == 0 { 45 } else { 3 };
            let versions = (0..600).map(|_| stamp(rng.u8(0..authors), rng.u64(1..10_000)));
            let versions: BTreeSet<Stamp> = versions.collect();
            let edits: Vec<(Stamp, Merged)> = versions
                .into_iter()
                .map(|own| (own, Merged::default().version(Some(Bytes::from(own.hlc.0.to_string())), own, 4)))
                .collect();
            let (a, b) = (taken(&edits, &mut rng), taken(&edits, &mut rng));
            for state in [&a, &b] {
                let sides = state.sides();
                assert!(sides.len() <= VERSIONS_MAX.min(usize::from(authors) * VERSIONS_OF_AUTHOR_MAX));
                assert_eq!(sides.last().map(|side| side.stamp), edits.last().map(|(stamp, _)| *stamp));
            }
            let (a, b) = repaired(&a, &b);
            assert_eq!(a, b);
            assert_eq!(repaired(&a, &b), (a.clone(), b.clone()), "it stays so");
        }
    }

    #[test]
    fn of_a_document_that_is_too_large_the_oldest_parts_go_and_nodes_end_with_the_same() {
        const PART: usize = 4 << 20;
        let part = |author: u8| {
            let own = stamp(author, 100 + u64::from(author));
            let content = format!("{{\"f{author}\":\"{}\"}}", "x".repeat(PART));
            let edit = Merged::default().edit(Some(&content.into()), &BTreeSet::new(), own).unwrap();
            (own, edit.edit)
        };
        let edits: Vec<_> = (1..=5).map(part).collect();
        let mut rng = Rng::with_seed(1);
        let (a, b) = (taken(&edits, &mut rng), taken(&edits, &mut rng));
        let (a, b) = repaired(&a, &b);
        assert_eq!(a, b);
        let content = a.content().unwrap();
        assert!(content.len() <= PAYLOAD_BYTES_HARD && content.len() > 3 * PART, "{}", content.len());
        assert!(a.encode(a.newest().unwrap()).len() <= STATE_BYTES_MAX);
        let text = String::from_utf8(content.to_vec()).unwrap();
        assert!((3..=5).all(|author| text.contains(&format!("\"f{author}\""))));
        // At the limit nothing goes, and one byte over it all that is older.
        let whole = |bytes: usize| {
            let mut state = Merged::replaced(stamp(1, 1), Some(&Bytes::from("\"a\"")));
            let version = Merged::default().version(Some(Bytes::from(vec![b'x'; bytes])), stamp(2, 2), 0);
            state.join(version);
            state
        };
        let spare = whole(PART).encode(stamp(2, 2)).len() - PART;
        assert!(!whole(PAYLOAD_BYTES_HARD).fit(stamp(2, 2)));
        let mut at = whole(STATE_BYTES_MAX - spare);
        assert_eq!(at.encode(stamp(2, 2)).len(), STATE_BYTES_MAX);
        assert!(at.clone().fit(stamp(2, 2)), "the document itself is larger than any that can be written");
        at.fit(stamp(2, 2));
        assert_eq!(at.sides().len(), 1);
        // What one author wrote at once stays whole.
        let mut alone = Merged::replaced(stamp(1, 1), Some(&Bytes::from("x".repeat(STATE_BYTES_MAX + 1))));
        assert!(!alone.fit(stamp(1, 1)));
    }
}
