//! An order-free hash over a set, kept up to date element by element.
//!
//! The sum modulo 2^256 of the SHA-256 of the elements (the additive set hash of Bellare and Micciancio, 1997). It finds
//! faults and differences; it is no defence against somebody who may choose the elements, and is not used as one.

use std::fmt;

use sha2::{Digest, Sha256};

use crate::clock::Stamp;
use crate::id::{Key, LogId};
use crate::version::{Hash, Head};

/// The fingerprint of a set. The empty set has 32 zero bytes.
#[derive(Clone, Copy, PartialEq, Eq, Default, Hash)]
pub struct Fingerprint([u64; 4]);

/// What is known of all rows of a collection together.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Tally {
    /// Over the rows' keys and stamps.
    pub fingerprint: Fingerprint,
    /// How many there are, those of deleted documents too.
    pub rows: u64,
}

impl Fingerprint {
    /// Reads the 32 bytes that [`Fingerprint::to_bytes`] gave.
    #[must_use]
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        let mut words = [0; 4];
        for (word, chunk) in words.iter_mut().zip(bytes.chunks_exact(8)) {
            *word = u64::from_le_bytes(chunk.try_into().expect("chunks of eight bytes"));
        }
        Self(words)
    }

    /// The 32 bytes, least significant first.
    #[must_use]
    pub fn to_bytes(self) -> [u8; 32] {
        let mut bytes = [0; 32];
        for (chunk, word) in bytes.chunks_exact_mut(8).zip(self.0) {
            chunk.copy_from_slice(&word.to_le_bytes());
        }
        bytes
    }

    /// The fingerprint of the union with a disjoint set.
    pub fn add(&mut self, other: Self) {
        let mut carry = false;
        for (word, more) in self.0.iter_mut().zip(other.0) {
            let (sum, first) = word.overflowing_add(more);
            let (sum, second) = sum.overflowing_add(u64::from(carry));
            (*word, carry) = (sum, first || second);
        }
    }

    /// The fingerprint without a subset.
    pub fn remove(&mut self, other: Self) {
        let mut borrow = false;
        for (word, less) in self.0.iter_mut().zip(other.0) {
            let (rest, first) = word.overflowing_sub(less);
            let (rest, second) = rest.overflowing_sub(u64::from(borrow));
            (*word, borrow) = (rest, first || second);
        }
    }

    /// One row of a collection: its key, its stamp and what it says of the content. Content that merges is not told by the
    /// youngest stamp alone.
    #[must_use]
    pub fn of_row(key: &Key, stamp: &Stamp, content: Option<&Hash>) -> Self {
        let mut hash = Sha256::new();
        hash.update(b"entgldb/row/v2");
        hash.update(stamp.hlc.0.to_be_bytes());
        hash.update(stamp.node.0);
        hash.update(content.copied().unwrap_or_default().0);
        hash.update(key.as_str().as_bytes());
        Self::from_bytes(hash.finalize().into())
    }

    /// One head of a vector: its log, sequence number and hash.
    #[must_use]
    pub fn of_head(log: &LogId, head: &Head) -> Self {
        let mut hash = Sha256::new();
        hash.update(b"entgldb/vector/v1");
        hash.update(log.author.0);
        hash.update(log.incarnation.0.to_be_bytes());
        hash.update(head.seq.0.to_be_bytes());
        hash.update(head.hash.0);
        hash.update(log.collection.as_str().as_bytes());
        Self::from_bytes(hash.finalize().into())
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", data_encoding::HEXLOWER.encode(&self.to_bytes()[..8]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn the_order_does_not_matter_and_removing_undoes_adding(
            elements in prop::collection::vec(any::<[u8; 32]>(), 0..20),
            extra in any::<[u8; 32]>(),
        ) {
            let mut forward = Fingerprint::default();
            let mut backward = Fingerprint::default();
            for element in &elements { forward.add(Fingerprint::from_bytes(*element)); }
            for element in elements.iter().rev() { backward.add(Fingerprint::from_bytes(*element)); }
            prop_assert_eq!(forward, backward);
            let mut other = forward;
            other.add(Fingerprint::from_bytes(extra));
            prop_assert_eq!(other == forward, extra == [0; 32]);
            other.remove(Fingerprint::from_bytes(extra));
            prop_assert_eq!(other, forward);
            prop_assert_eq!(Fingerprint::from_bytes(forward.to_bytes()), forward);
        }
    }
}
