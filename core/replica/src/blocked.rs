//! Links that end again and again for the same fault, at the same place. Nothing gets past such a place by itself, so people
//! are told what stops there, since when, and how often it was tried.

use std::collections::BTreeMap;

use crate::clock::WallMillis;
use crate::id::{LogId, NodeId};
use crate::limits::PEERS_MAX;
use crate::version::Seq;

/// Ends in a row from which on a peer counts as blocked.
const ENDS_LEAST: u32 = 2;

/// The entry that was next to be sent or received when a link ended; `None` if no entry was.
pub(crate) type Place = Option<(LogId, Seq)>;

/// A peer whose links end for the same fault at the same place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BlockedPeer {
    /// The peer.
    pub node: NodeId,
    /// Its label.
    pub name: String,
    /// Why the last link ended.
    pub reason: String,
    /// The first entry that does not get through; `None` if no entry was on its way.
    pub place: Option<(LogId, Seq)>,
    /// When the first of these links ended, by this node's wall clock.
    pub since: WallMillis,
    /// How many links have ended like this in a row.
    pub ends: u32,
}

/// How the last links of the peers ended.
#[derive(Debug, Default)]
pub(crate) struct Ends(BTreeMap<NodeId, BlockedPeer>);

impl Ends {
    /// A link has ended for a fault. Answers the peer if this makes it a blocked one.
    pub(crate) fn ended(
        &mut self,
        (node, name): (NodeId, &str),
        reason: &str,
        place: Place,
        wall: WallMillis,
    ) -> Option<&BlockedPeer> {
        if self.0.len() >= PEERS_MAX && !self.0.contains_key(&node) {
            return None;
        }
        let first = BlockedPeer {
            node,
            name: name.to_owned(),
            reason: reason.to_owned(),
            place: place.clone(),
            since: wall,
            ends: 0,
        };
        let known = self.0.entry(node).or_insert_with(|| first.clone());
        if known.place != place || !is_same_fault(&known.reason, reason) {
            *known = first;
        }
        known.ends = known.ends.saturating_add(1);
        reason.clone_into(&mut known.reason);
        (known.ends == ENDS_LEAST).then_some(known)
    }

    /// The place at which the peer's links ended; `None` if they ended without a fault.
    pub(crate) fn place(&self, node: &NodeId) -> Option<&Place> {
        self.0.get(node).map(|known| &known.place)
    }

    /// The peer got past it.
    pub(crate) fn passed(&mut self, node: &NodeId) {
        self.0.remove(node);
    }

    /// Peers that are blocked.
    pub(crate) fn blocked(&self) -> impl Iterator<Item = &BlockedPeer> {
        self.0.values().filter(|known| known.ends >= ENDS_LEAST)
    }
}

/// Whether two reasons differ in numbers at most: sizes and counts change with what else is on its way.
fn is_same_fault(one: &str, other: &str) -> bool {
    let words = |text: &'_ str| text.split(|c: char| c.is_ascii_digit()).collect::<String>();
    words(one) == words(other)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::{Collection, Incarnation};

    const PEER: (NodeId, &str) = (NodeId([1; 32]), "till");

    fn at(seq: u64) -> Place {
        let collection = Collection::new("t").unwrap();
        Some((LogId { author: NodeId([2; 32]), incarnation: Incarnation(1), collection }, Seq(seq)))
    }

    #[test]
    fn a_peer_is_blocked_from_the_second_link_that_ends_for_the_same_fault_at_the_same_place() {
        let mut ends = Ends::default();
        assert_eq!(ends.ended(PEER, "a frame of 10 bytes", at(1), WallMillis(5)), None);
        assert_eq!(ends.blocked().count(), 0);
        let blocked = ends.ended(PEER, "a frame of 12 bytes", at(1), WallMillis(6)).unwrap();
        assert_eq!(
            (blocked.since, blocked.ends, &*blocked.reason),
            (WallMillis(5), 2, "a frame of 12 bytes")
        );
        assert_eq!(ends.ended(PEER, "a frame of 12 bytes", at(1), WallMillis(7)), None, "told once");
        assert_eq!(ends.blocked().next().unwrap().ends, 3);
    }

    #[test]
    fn another_place_or_another_fault_begins_the_count_again() {
        let mut ends = Ends::default();
        for (reason, place) in [("a", at(1)), ("a", at(2)), ("b", at(2)), ("b", None), ("b", at(2))] {
            assert_eq!(ends.ended(PEER, reason, place, WallMillis(1)), None, "{reason}");
        }
        assert!(ends.ended(PEER, "b", at(2), WallMillis(1)).is_some());
        ends.passed(&PEER.0);
        assert_eq!(ends.blocked().count(), 0);
        assert_eq!(ends.ended(PEER, "b", at(2), WallMillis(1)), None);
    }

    #[test]
    fn peers_beyond_the_limit_are_not_noted() {
        let mut ends = Ends::default();
        for number in 0..=PEERS_MAX as u64 {
            let mut id = [0; 32];
            id[..8].copy_from_slice(&number.to_be_bytes());
            ends.ended((NodeId(id), ""), "a", None, WallMillis(1));
        }
        assert_eq!(ends.0.len(), PEERS_MAX);
    }
}
