//! In which ways nodes write documents.

use std::collections::BTreeMap;

use crate::options::{Fault, Rate};
use crate::rng::Rng;

/// Which nodes write documents so that they merge.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Merging {
    /// None: the last write wins.
    None,
    /// Every second one.
    Some,
    /// All.
    All,
}

impl Merging {
    pub(crate) fn draw(seed: u64, faults: &BTreeMap<Fault, Rate>) -> Self {
        match Rng::of(seed, "merging", 0).below(6) {
            0 => Self::All,
            // A node that loses oplog and clock may give one stamp to two documents; those that merge and those that do not
            // may then see two different ones (docs/RELIABILITY.md).
            1 if !faults.contains_key(&Fault::Wipe) => Self::Some,
            1 => Self::All,
            _ => Self::None,
        }
    }
}

/// Which nodes write documents so that a resolver decides on them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Resolving {
    /// None.
    None,
    /// Every second one, with a resolver that does as nodes without one.
    Some,
    /// All, with a resolver that does anything.
    All,
}

impl Resolving {
    pub(crate) fn draw(seed: u64, faults: &BTreeMap<Fault, Rate>) -> Self {
        match Rng::of(seed, "resolving", 0).below(6) {
            0 => Self::All,
            // As with documents that merge.
            1 if !faults.contains_key(&Fault::Wipe) => Self::Some,
            1 => Self::All,
            _ => Self::None,
        }
    }
}
