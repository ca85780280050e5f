//! Version vectors: exactly which gapless prefixes of which logs a node holds.

use std::collections::BTreeMap;
use std::fmt;

use crate::id::LogId;

/// The position of an entry in its log: dense, from 1. Zero means "before the first".
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Seq(pub u64);

impl Seq {
    /// The next position.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

/// A SHA-256 hash.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Hash(pub [u8; 32]);

impl fmt::Debug for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&data_encoding::HEXLOWER.encode(&self.0[..8]))
    }
}

/// The last entry of a log, or of a prefix of it. The head of an empty log is `Head::default()`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct Head {
    /// Its position.
    pub seq: Seq,
    /// Its hash, which covers the whole prefix.
    pub hash: Hash,
}

/// What a node holds: the head of every log.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Vector(BTreeMap<LogId, Head>);

/// How two vectors compare.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Order {
    /// The same prefixes.
    Equal,
    /// Ours has all of theirs and more.
    Ahead,
    /// Theirs has all of ours and more.
    Behind,
    /// Each has what the other lacks.
    Apart,
}

impl Vector {
    /// The head of a log; the empty head if nothing of it is held.
    #[must_use]
    pub fn head(&self, log: &LogId) -> Head {
        self.0.get(log).copied().unwrap_or_default()
    }

    /// Sets the head of a log and returns the one before. A head never goes back.
    pub fn advance(&mut self, log: &LogId, head: Head) -> Head {
        let before = self.head(log);
        if head.seq > before.seq {
            self.0.insert(log.clone(), head);
        }
        before
    }

    /// All logs with their heads, in order.
    pub fn iter(&self) -> impl Iterator<Item = (&LogId, &Head)> {
        self.0.iter()
    }

    /// Number of logs.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether nothing is held.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Entries that this vector holds and the other does not.
    #[must_use]
    pub fn lead_over(&self, other: &Self) -> u64 {
        let leads = self.0.iter().map(|(log, head)| head.seq.0.saturating_sub(other.head(log).seq.0));
        leads.fold(0, u64::saturating_add)
    }

    /// How this vector compares with another.
    #[must_use]
    pub fn order(&self, other: &Self) -> Order {
        match (self.lead_over(other) > 0, other.lead_over(self) > 0) {
            (false, false) => Order::Equal,
            (true, false) => Order::Ahead,
            (false, true) => Order::Behind,
            (true, true) => Order::Apart,
        }
    }

    /// The least vector that holds what either holds.
    #[must_use]
    pub fn join(&self, other: &Self) -> Self {
        let mut joined = self.clone();
        for (log, head) in other.iter() {
            joined.advance(log, *head);
        }
        joined
    }
}

impl FromIterator<(LogId, Head)> for Vector {
    fn from_iter<I: IntoIterator<Item = (LogId, Head)>>(heads: I) -> Self {
        let mut vector = Self::default();
        for (log, head) in heads {
            vector.advance(&log, head);
        }
        vector
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::{Collection, Incarnation, NodeId};
    use proptest::prelude::*;

    fn vector() -> impl Strategy<Value = Vector> {
        prop::collection::btree_map((0u8..3, 0u8..2), 1u64..5, 0..6).prop_map(|heads| {
            heads
                .into_iter()
                .map(|((author, collection), seq)| {
                    let log = LogId {
                        author: NodeId([author; 32]),
                        incarnation: Incarnation(1),
                        collection: Collection::new(["a", "b"][collection as usize]).unwrap(),
                    };
                    (log, Head { seq: Seq(seq), hash: Hash([seq as u8; 32]) })
                })
                .collect()
        })
    }

    proptest! {
        #[test]
        fn join_is_commutative_associative_and_idempotent(a in vector(), b in vector(), c in vector()) {
            prop_assert_eq!(a.join(&b), b.join(&a));
            prop_assert_eq!(a.join(&b).join(&c), a.join(&b.join(&c)));
            prop_assert_eq!(a.join(&a), a);
        }

        #[test]
        fn the_join_is_an_upper_bound_and_order_agrees_with_it(a in vector(), b in vector()) {
            let joined = a.join(&b);
            prop_assert_eq!(a.lead_over(&joined), 0);
            prop_assert_eq!(b.lead_over(&joined), 0);
            prop_assert_eq!(a.order(&b) == Order::Equal, a == b);
            prop_assert_eq!(matches!(a.order(&b), Order::Ahead | Order::Equal), joined == a);
        }
    }

    #[test]
    fn a_head_never_goes_back() {
        let log = LogId {
            author: NodeId([1; 32]),
            incarnation: Incarnation(1),
            collection: Collection::new("a").unwrap(),
        };
        let mut vector = Vector::default();
        vector.advance(&log, Head { seq: Seq(5), hash: Hash([5; 32]) });
        vector.advance(&log, Head { seq: Seq(3), hash: Hash([3; 32]) });
        assert_eq!(vector.head(&log).seq, Seq(5));
    }
}
