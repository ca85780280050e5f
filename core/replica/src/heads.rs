//! Versions of a document of which nobody has seen and replaced any: its heads.
//!
//! Each version says what its author had seen of the document: of each author the last version. The heads of a set of
//! versions are those that none of the others has seen. Two sets join by taking all versions of both, all that was seen of
//! both, and leaving out what was seen. That commutes, is associative and idempotent whatever the versions claim, so any two
//! nodes with the same versions have the same heads. (The idea is that of dotted version vector sets: Almeida et al.,
//! "Scalable and accurate causality tracking for eventually consistent stores", 2014.)

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use bytes::Bytes;

use crate::clock::{Hlc, Stamp};
use crate::id::NodeId;
use crate::resolve::Side;

/// See the module's documentation.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Heads {
    /// Of each author the time of the last version that was seen and replaced.
    pub(crate) seen: BTreeMap<NodeId, Hlc>,
    /// Versions of anybody up to this time count as seen.
    pub(crate) seen_until: Hlc,
    /// The heads; `None` is a deletion.
    pub(crate) versions: BTreeMap<Stamp, Option<Bytes>>,
    /// What a resolver made of several heads.
    pub(crate) answer: Option<Option<Bytes>>,
}

impl Heads {
    /// Joins another set into this one. What a resolver had made of either is forgotten.
    pub(crate) fn join(&mut self, other: Self) {
        self.see(&other.seen);
        self.seen_until = self.seen_until.max(other.seen_until);
        for (stamp, content) in other.versions {
            match self.versions.entry(stamp) {
                Entry::Vacant(place) => drop(place.insert(content)),
                // A node that lost oplog and clock may give a stamp twice.
                Entry::Occupied(mut place) if *place.get() < content => drop(place.insert(content)),
                Entry::Occupied(_) => {}
            }
        }
        let mut versions = std::mem::take(&mut self.versions);
        versions.retain(|stamp, _| !self.has_seen(stamp));
        self.versions = versions;
        self.answer = None;
    }

    fn see(&mut self, seen: &BTreeMap<NodeId, Hlc>) {
        for (node, hlc) in seen {
            let known = self.seen.entry(*node).or_default();
            *known = (*known).max(*hlc);
        }
    }

    /// Whether somebody has seen and replaced the version with this stamp.
    pub(crate) fn has_seen(&self, stamp: &Stamp) -> bool {
        stamp.hlc <= self.seen_until || self.seen.get(&stamp.node).is_some_and(|hlc| stamp.hlc <= *hlc)
    }

    /// Whether no version of this kind was ever written.
    pub(crate) fn is_empty(&self) -> bool {
        self.versions.is_empty() && self.seen.is_empty() && self.seen_until == Hlc::default()
    }

    /// The version that an author makes of the document who sees these heads and, beside them, something of each of
    /// `others`. It names at most `authors_max` authors.
    pub(crate) fn replaced_by(
        &self,
        others: &BTreeMap<NodeId, Hlc>,
        stamp: Stamp,
        content: Option<Bytes>,
        authors_max: usize,
    ) -> Self {
        let mut needed = Self::default();
        needed.see(others);
        needed.see(&self.versions.keys().map(|head| (head.node, head.hlc)).collect());
        // What was replaced before is known to all who hold those versions; naming it spares others a moment of seeing it
        // again while something is still on its way.
        let mut known: Vec<(NodeId, Hlc)> = self
            .seen
            .iter()
            .filter(|(node, hlc)| needed.seen.get(node) < Some(hlc))
            .map(|(n, h)| (*n, *h))
            .collect();
        known.sort_unstable_by_key(|(_, hlc)| std::cmp::Reverse(*hlc));
        let mut named: Vec<(NodeId, Hlc)> = needed.seen.iter().map(|(node, hlc)| (*node, *hlc)).collect();
        named.sort_unstable_by_key(|(_, hlc)| std::cmp::Reverse(*hlc));
        // All of these must be replaced. Those that there is no room to name are the oldest.
        let unnamed = named.split_off(named.len().min(authors_max));
        needed.seen_until = unnamed.first().map_or(Hlc::default(), |(_, hlc)| *hlc);
        let room = authors_max - named.len();
        needed.seen = named.into_iter().collect();
        let is_named = |(node, _): &(NodeId, Hlc)| needed.seen.contains_key(node);
        let (raised, added): (Vec<_>, Vec<_>) = known.into_iter().partition(is_named);
        needed.see(&raised.into_iter().collect());
        needed.see(&added.into_iter().take(room).collect());
        needed.seen.retain(|node, hlc| Stamp { hlc: *hlc, node: *node } < stamp);
        needed.versions = BTreeMap::from([(stamp, content)]);
        needed
    }

    /// The heads as versions in the conflict list have them, oldest first.
    pub(crate) fn sides(&self) -> impl Iterator<Item = Side> + '_ {
        self.versions.iter().map(|(stamp, content)| Side { stamp: *stamp, content: content.clone() })
    }
}
