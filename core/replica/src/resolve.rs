//! Which version of a document stands, and whether two versions were made without knowledge of each other.
//!
//! Last write wins over puts and deletes alike: the greater [`Stamp`] stands. That is a join (commutative, associative,
//! idempotent), so nodes that have the same entries have the same rows, whatever order they came in.
//!
//! Stamps alone cannot tell an edit of a version from an edit beside it. `replaces` can: two versions conflict if neither
//! replaces the other, directly or through versions in between.

use std::collections::VecDeque;

use bytes::Bytes;

use crate::clock::Stamp;
use crate::entry::{Entry, Op};
use crate::id::{DocId, Key};
use crate::version::Hash;

/// What a node knows of a document: the stamp of the version that stands, and the hash of its content.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Row {
    /// Stamp of the version that stands.
    pub stamp: Stamp,
    /// Hash of its content; `None` for a tombstone.
    pub content: Option<Hash>,
}

/// Whether a version takes the place of the row: it has the greater stamp.
///
/// A node whose oplog and clock were both lost may give out a stamp again, in another incarnation. Of two versions with
/// one stamp the one with the greater content hash stands, so that even then all nodes agree.
#[must_use]
pub fn takes_over(row: Option<&Row>, stamp: &Stamp, content: Option<Hash>) -> bool {
    row.is_none_or(|row| (*stamp, content) > (row.stamp, row.content))
}

/// A row with all that a snapshot needs of it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Document {
    /// Its key.
    pub key: Key,
    /// Its row.
    pub row: Row,
    /// The content of the version that stands; `None` if it is deleted.
    pub content: Option<Bytes>,
    /// Its state, if it merges.
    pub merged: Option<Bytes>,
}

/// A version as the oplog has it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Version {
    /// The version that it replaced.
    pub replaces: Option<Stamp>,
    /// What was done.
    pub op: Op,
    /// The content, the edit, or nothing for a delete.
    pub payload: Bytes,
}

impl Version {
    /// The version that an entry made.
    #[must_use]
    pub fn of(entry: &Entry) -> Self {
        Self { replaces: entry.replaces, op: entry.op, payload: entry.payload.clone() }
    }

    /// The whole content; `None` for a delete, or an edit.
    #[must_use]
    pub fn content(&self) -> Option<Bytes> {
        (self.op == Op::Put).then(|| self.payload.clone())
    }
}

/// How an older version of a document relates to a younger one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Relation {
    /// The younger was made from the older: nothing is lost.
    Succession,
    /// Neither author knew the other's version.
    Conflict,
    /// It depends on a version that has not arrived yet.
    Unknown {
        /// That version.
        missing: Stamp,
    },
}

/// Most versions that a walk back through replaced versions passes. A document rewritten more often than that between two
/// versions that arrive out of order is reported as a conflict: too much noise is better than silence.
const WALK_MAX: usize = 1024;

/// The versions that a version of a document replaced, one after the other, as far as they were looked at.
///
/// Many versions of one document may come at once, each to be compared with the one that stands: the way back is walked once
/// for all of them.
#[derive(Debug)]
pub(crate) struct Chain {
    /// The oldest one first.
    stamps: VecDeque<Stamp>,
    below: Below,
}

/// What comes before the oldest version of a chain.
#[derive(Clone, Copy, Debug)]
enum Below {
    /// This version, which was not looked at yet, or none.
    Next(Option<Stamp>),
    /// This version, which has not arrived.
    Missing(Stamp),
}

impl Chain {
    /// Nothing of it is known yet.
    pub(crate) fn new(newest: Option<Stamp>) -> Self {
        Self { stamps: VecDeque::new(), below: Below::Next(newest) }
    }

    /// Whether it is the chain of this version, or goes through it.
    fn has(&self, stamp: &Stamp) -> bool {
        self.stamps.binary_search(stamp).is_ok()
    }

    /// How an older version relates to the one that replaced `newest`: follows `replaces` back towards the older one.
    /// `version_of` answers, for a stamp, whether that version is known and what it replaced.
    ///
    /// # Errors
    /// Those of `version_of`.
    pub(crate) fn relate<E>(
        &mut self,
        older: Stamp,
        newest: Option<Stamp>,
        mut version_of: impl FnMut(Stamp) -> Result<Option<Option<Stamp>>, E>,
    ) -> Result<Relation, E> {
        let Some(newest) = newest else { return Ok(Relation::Conflict) };
        if !self.has(&newest) {
            // Another version stands by now; where its way meets the old one, that is known.
            let old = std::mem::replace(self, Self::new(Some(newest)));
            return self.walk(older, Some(old), &mut version_of);
        }
        while self.stamps.back().is_some_and(|last| *last > newest) {
            self.stamps.pop_back();
        }
        self.walk(older, None, &mut version_of)
    }

    fn walk<E>(
        &mut self,
        older: Stamp,
        mut old: Option<Self>,
        version_of: &mut impl FnMut(Stamp) -> Result<Option<Option<Stamp>>, E>,
    ) -> Result<Relation, E> {
        loop {
            if self.has(&older) {
                return Ok(Relation::Succession);
            }
            // Each step goes back in time: the older version cannot come any more.
            if self.stamps.front().is_some_and(|oldest| *oldest < older) {
                return Ok(Relation::Conflict);
            }
            let next = match self.below {
                Below::Next(Some(next)) => next,
                Below::Missing(missing) if missing > older => return Ok(Relation::Unknown { missing }),
                Below::Missing(next) if next == older => return Ok(Relation::Succession),
                Below::Next(None) | Below::Missing(_) => return Ok(Relation::Conflict),
            };
            if next == older {
                return Ok(Relation::Succession);
            }
            if next < older || self.stamps.len() >= WALK_MAX {
                return Ok(Relation::Conflict);
            }
            if let Some(mut old) = old.take_if(|old| old.has(&next)) {
                old.stamps.retain(|stamp| *stamp <= next);
                old.stamps.append(&mut self.stamps);
                *self = old;
                continue;
            }
            match version_of(next)? {
                Some(replaced) => {
                    self.stamps.push_front(next);
                    self.below = Below::Next(replaced);
                }
                None => self.below = Below::Missing(next),
            }
        }
    }
}

/// A version in the conflict list.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Side {
    /// When and who.
    pub stamp: Stamp,
    /// The content; `None` for a delete.
    pub content: Option<Bytes>,
}

/// Two versions of a document made without knowledge of each other. The younger stands, the older is kept here.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Conflict {
    /// The document.
    pub doc: DocId,
    /// The version that won. Its content is left out if both are too large for one row of a store: it is in the document's.
    pub winner: Side,
    /// The version that lost.
    pub loser: Side,
    /// A version that must arrive before it is certain that this is a conflict; `None` once it is certain.
    pub missing: Option<Stamp>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Hlc;
    use crate::id::NodeId;
    use std::collections::BTreeMap;
    use std::convert::Infallible;

    fn stamp(time: u64) -> Stamp {
        Stamp { hlc: Hlc(time), node: NodeId([time as u8; 32]) }
    }

    fn related(older: u64, younger_replaces: Option<u64>, known: &[(u64, Option<u64>)]) -> Relation {
        let known: BTreeMap<u64, Option<u64>> = known.iter().copied().collect();
        let version_of =
            |s: Stamp| Ok::<_, Infallible>(known.get(&s.hlc.0).map(|replaced| replaced.map(stamp)));
        let newest = younger_replaces.map(stamp);
        Chain::new(newest).relate(stamp(older), newest, version_of).unwrap()
    }

    /// A chain of versions 10, 20, ... each of which replaced the one before.
    fn tens(s: Stamp) -> Option<Option<Stamp>> {
        let time = s.hlc.0;
        time.is_multiple_of(10).then(|| (time > 10).then(|| stamp(time - 10)))
    }

    #[test]
    fn a_chain_is_walked_once_for_all_that_are_compared_with_it() {
        let (mut chain, mut looked_at) = (Chain::new(Some(stamp(250))), 0);
        for older in (1..=250).rev() {
            let found = chain.relate(stamp(older), Some(stamp(250)), |s| {
                looked_at += 1;
                Ok::<_, Infallible>(tens(s))
            });
            let expected = if older % 10 == 0 { Relation::Succession } else { Relation::Conflict };
            assert_eq!(found, Ok(expected), "{older}");
        }
        assert!(looked_at <= 25, "{looked_at} versions were looked at");
        // A younger version stands: the way from it to what is known is all that is new.
        let mut fresh = 0;
        let found = chain.relate(stamp(30), Some(stamp(254)), |s| {
            fresh += 1;
            Ok::<_, Infallible>(if s == stamp(254) { Some(Some(stamp(240))) } else { tens(s) })
        });
        assert_eq!((found, fresh), (Ok(Relation::Succession), 1));
        assert_eq!(
            chain.relate(stamp(250), Some(stamp(254)), |_| -> Result<_, Infallible> { panic!() }),
            Ok(Relation::Conflict),
            "it is not on the way from the version that stands now"
        );
    }

    #[test]
    fn what_is_known_of_a_chain_changes_no_answer() {
        let version_of = |s: Stamp| Ok::<_, Infallible>(if s.hlc.0 == 60 { None } else { tens(s) });
        let mut kept = Chain::new(None);
        let mut numbers = fastrand::Rng::with_seed(1);
        for _ in 0..2_000 {
            let (older, newest) = (stamp(numbers.u64(1..200)), Some(stamp(numbers.u64(1..20) * 10)));
            let alone = Chain::new(newest).relate(older, newest, version_of);
            assert_eq!(kept.relate(older, newest, version_of), alone, "{older:?} {newest:?}");
        }
    }

    #[test]
    fn a_version_that_replaces_another_directly_or_through_others_does_not_conflict_with_it() {
        assert_eq!(related(1, Some(1), &[]), Relation::Succession);
        assert_eq!(related(1, Some(5), &[(5, Some(3)), (3, Some(1))]), Relation::Succession);
    }

    #[test]
    fn versions_made_apart_conflict() {
        assert_eq!(related(2, None, &[]), Relation::Conflict);
        assert_eq!(related(2, Some(1), &[]), Relation::Conflict);
        assert_eq!(related(2, Some(5), &[(5, Some(1))]), Relation::Conflict);
    }

    #[test]
    fn a_version_on_the_way_that_has_not_arrived_leaves_it_open() {
        assert_eq!(related(1, Some(5), &[]), Relation::Unknown { missing: stamp(5) });
        assert_eq!(related(1, Some(5), &[(5, Some(3))]), Relation::Unknown { missing: stamp(3) });
    }

    #[test]
    fn the_greater_stamp_stands_and_the_same_version_again_changes_nothing() {
        let row = Row { stamp: stamp(3), content: None };
        assert!(takes_over(None, &stamp(1), None));
        assert!(takes_over(Some(&row), &stamp(4), None));
        assert!(!takes_over(Some(&row), &stamp(3), None));
        assert!(!takes_over(Some(&row), &stamp(2), Some(Hash([9; 32]))));
    }

    #[test]
    fn of_two_versions_with_one_stamp_the_same_one_stands_in_either_order() {
        let (one, two) = (Some(Hash([1; 32])), Some(Hash([2; 32])));
        let row = |content| Row { stamp: stamp(3), content };
        assert!(takes_over(Some(&row(one)), &stamp(3), two));
        assert!(!takes_over(Some(&row(two)), &stamp(3), one));
        assert!(takes_over(Some(&row(None)), &stamp(3), one), "a write before a delete");
    }
}
