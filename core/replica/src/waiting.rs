//! Conflicts that wait for a version to arrive before it is known whether they are any.
//!
//! They are held in memory with both contents, so there is a limit on their number and one on their bytes. Beyond it a new one counts
//! as certain at once: too much noise is better than silence, or than a node without memory.

use std::collections::{BTreeMap, BTreeSet};

use crate::clock::{Hlc, Stamp};
use crate::id::{DocId, NodeId};
use crate::limits::{OPEN_CONFLICTS_BYTES_MAX, OPEN_CONFLICTS_MAX};
use crate::resolve::Conflict;

/// See the module's documentation.
#[derive(Debug, Default)]
pub(crate) struct OpenConflicts {
    of: BTreeMap<DocId, OfDocument>,
    count: usize,
    bytes: usize,
}

/// Those of one document, by the stamps of winner and loser.
#[derive(Debug, Default)]
struct OfDocument {
    conflicts: BTreeMap<(Stamp, Stamp), Conflict>,
    /// The same by the version that is missing.
    missing: BTreeSet<(Stamp, Stamp, Stamp)>,
}

const FIRST: Stamp = Stamp { hlc: Hlc(0), node: NodeId([0; 32]) };

impl OpenConflicts {
    /// Takes in what was durable, as far as there is room.
    pub(crate) fn from_durable(conflicts: &[Conflict]) -> Self {
        let mut open = Self::default();
        for conflict in conflicts {
            if open.has_room(0, bytes_of(conflict)) {
                open.insert(conflict.clone());
            }
        }
        open
    }

    /// Whether there is room for so many more, of so many bytes together, and one beside them.
    pub(crate) fn has_room(&self, more: usize, bytes: usize) -> bool {
        self.count + more < OPEN_CONFLICTS_MAX && self.bytes.saturating_add(bytes) <= OPEN_CONFLICTS_BYTES_MAX
    }

    /// Whether a document has any.
    pub(crate) fn has(&self, doc: &DocId) -> bool {
        self.of.contains_key(doc)
    }

    /// Those of a document that wait for this version.
    pub(crate) fn waiting<'a>(
        &'a self,
        doc: &DocId,
        missing: Stamp,
    ) -> impl Iterator<Item = &'a Conflict> + use<'a> {
        let of = self.of.get(doc);
        of.into_iter().flat_map(move |of| {
            let from = of.missing.range((missing, FIRST, FIRST)..);
            let of_it = from.take_while(move |(stamp, ..)| *stamp == missing);
            of_it.filter_map(|(_, winner, loser)| of.conflicts.get(&(*winner, *loser)))
        })
    }

    /// Adds one.
    pub(crate) fn insert(&mut self, conflict: Conflict) {
        let Some(missing) = conflict.missing else { return };
        let (winner, loser) = (conflict.winner.stamp, conflict.loser.stamp);
        self.remove(&conflict.doc, winner, loser);
        self.count += 1;
        self.bytes += bytes_of(&conflict);
        let of = self.of.entry(conflict.doc.clone()).or_default();
        of.missing.insert((missing, winner, loser));
        of.conflicts.insert((winner, loser), conflict);
    }

    /// Takes one away, if it is there.
    pub(crate) fn remove(&mut self, doc: &DocId, winner: Stamp, loser: Stamp) {
        let Some(of) = self.of.get_mut(doc) else { return };
        let Some(conflict) = of.conflicts.remove(&(winner, loser)) else { return };
        if let Some(missing) = conflict.missing {
            of.missing.remove(&(missing, winner, loser));
        }
        self.count -= 1;
        self.bytes -= bytes_of(&conflict);
        if of.conflicts.is_empty() {
            self.of.remove(doc);
        }
    }
}

/// Bytes of both contents.
pub(crate) fn bytes_of(conflict: &Conflict) -> usize {
    let sides = [&conflict.winner, &conflict.loser];
    sides.iter().filter_map(|side| side.content.as_ref()).map(bytes::Bytes::len).sum()
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    use crate::id::{Collection, Key};
    use crate::resolve::Side;

    fn stamp(time: u64) -> Stamp {
        Stamp { hlc: Hlc(time), node: NodeId([1; 32]) }
    }

    fn doc() -> DocId {
        (Collection::new("t").unwrap(), Key::new("k").unwrap())
    }

    fn conflict(winner: u64, loser: u64, missing: u64, bytes: usize) -> Conflict {
        let side = |time| Side { stamp: stamp(time), content: Some(Bytes::from(vec![7; bytes])) };
        Conflict { doc: doc(), winner: side(winner), loser: side(loser), missing: Some(stamp(missing)) }
    }

    fn waiting(open: &OpenConflicts, missing: u64) -> Vec<u64> {
        open.waiting(&doc(), stamp(missing)).map(|conflict| conflict.loser.stamp.hlc.0).collect()
    }

    #[test]
    fn those_that_wait_for_a_version_are_found_until_they_are_settled() {
        let mut open = OpenConflicts::default();
        for (loser, missing) in [(1, 5), (2, 5), (3, 6)] {
            open.insert(conflict(9, loser, missing, 10));
        }
        assert_eq!((waiting(&open, 5), waiting(&open, 6), waiting(&open, 7)), (vec![1, 2], vec![3], vec![]));
        open.insert(conflict(9, 2, 7, 10));
        assert_eq!((waiting(&open, 5), waiting(&open, 7)), (vec![1], vec![2]), "another version is missing");
        for loser in 1..=3 {
            open.remove(&doc(), stamp(9), stamp(loser));
        }
        assert!(!open.has(&doc()));
        assert_eq!((open.count, open.bytes), (0, 0));
    }

    #[test]
    fn there_is_room_for_so_many_and_for_so_many_bytes() {
        let mut open = OpenConflicts::default();
        (1..OPEN_CONFLICTS_MAX as u64).for_each(|loser| open.insert(conflict(1 << 30, loser, 1 << 29, 0)));
        assert!(open.has_room(0, 0) && !open.has_room(1, 0));
        let mut open = OpenConflicts::default();
        open.insert(conflict(9, 1, 5, OPEN_CONFLICTS_BYTES_MAX / 2));
        assert!(open.has_room(0, 0) && !open.has_room(0, 1));
        let large: Vec<Conflict> = (1..300).map(|loser| conflict(900, loser, 800, 1 << 20)).collect();
        assert!(OpenConflicts::from_durable(&large).bytes <= OPEN_CONFLICTS_BYTES_MAX);
    }
}
