//! How many nodes write documents in another way than the usual one: so that they merge, or so that a resolver decides on them.

use std::collections::BTreeMap;

use crate::options::{Fault, Rate};
use crate::rng::Rng;

/// Which nodes do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Writers {
    /// None: the last write wins.
    None,
    /// Every second one.
    Some,
    /// All.
    All,
}

impl Writers {
    /// Draws from the stream of that name.
    pub(crate) fn draw(seed: u64, stream: &str, faults: &BTreeMap<Fault, Rate>) -> Self {
        match Rng::of(seed, stream, 0).below(6) {
            0 => Self::All,
            // A node that loses oplog and clock may give one stamp to two documents; nodes that write in two ways may then
            // see two different ones (docs/RELIABILITY.md).
            1 if !faults.contains_key(&Fault::Wipe) => Self::Some,
            1 => Self::All,
            _ => Self::None,
        }
    }
}
