//! Randomness: one stream for each component, all from one seed, so that taking one fault away leaves the others as they
//! were. That is what makes shrinking work.

use rand_chacha::ChaCha8Rng;
use rand_core::{RngCore, SeedableRng};
use sha2::{Digest, Sha256};

/// A chance in parts per million.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub struct PerMillion(pub u32);

/// One component's stream of random numbers.
#[derive(Clone, Debug)]
pub(crate) struct Rng(ChaCha8Rng);

impl Rng {
    /// The stream of a component of a run; `index` tells several of a kind apart.
    pub(crate) fn of(seed: u64, component: &str, index: u64) -> Self {
        let mut hash = Sha256::new();
        hash.update(b"entgldb/sim/v1");
        hash.update(seed.to_be_bytes());
        hash.update(index.to_be_bytes());
        hash.update(component.as_bytes());
        Self(ChaCha8Rng::from_seed(hash.finalize().into()))
    }

    pub(crate) fn u64(&mut self) -> u64 {
        self.0.next_u64()
    }

    /// A number below `end`, which must not be zero.
    pub(crate) fn below(&mut self, end: u64) -> u64 {
        // The high half of the product is uniform up to a bias of end / 2^64.
        let product = u128::from(self.u64()) * u128::from(end);
        u64::try_from(product >> 64).expect("the high half of a 128-bit product has 64 bits")
    }

    /// A number from `low` to `high`, both included.
    pub(crate) fn between(&mut self, low: u64, high: u64) -> u64 {
        low + self.below(high - low + 1)
    }

    /// An index into something with `length` elements, which must not be empty.
    pub(crate) fn index(&mut self, length: usize) -> usize {
        usize::try_from(self.below(length as u64)).expect("below a usize")
    }

    pub(crate) fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[self.index(from.len())]
    }

    pub(crate) fn chance(&mut self, chance: PerMillion) -> bool {
        chance.0 > 0 && self.below(1_000_000) < u64::from(chance.0)
    }

    pub(crate) fn coin(&mut self) -> bool {
        self.u64() & 1 == 1
    }

    /// A wait with this mean, at least 1.
    pub(crate) fn wait(&mut self, mean: u64) -> u64 {
        self.between(1, (2 * mean).max(1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_depends_on_seed_component_and_index_and_on_nothing_else() {
        let first = |seed, component, index| Rng::of(seed, component, index).u64();
        assert_eq!(first(1, "store", 2), first(1, "store", 2));
        assert_ne!(first(1, "store", 2), first(2, "store", 2));
        assert_ne!(first(1, "store", 2), first(1, "clock", 2));
        assert_ne!(first(1, "store", 2), first(1, "store", 3));
    }

    #[test]
    fn numbers_stay_in_their_bounds_and_reach_both_ends() {
        let mut rng = Rng::of(1, "test", 0);
        let drawn: Vec<u64> = (0..1000).map(|_| rng.between(3, 7)).collect();
        assert_eq!((drawn.iter().min(), drawn.iter().max()), (Some(&3), Some(&7)));
    }
}
