//! 1. Equal vectors imply equal rows, on any two nodes at any two times; and the fingerprints are the rows'.

use std::collections::BTreeMap;

use entgldb_replica::fingerprint::Fingerprint;
use entgldb_replica::id::Collection;

use super::{Checker, Verdict, ensure};
use crate::disk::Disk;
use crate::oracle::Oracle;
use crate::seen::{Committed, Setting};

pub(crate) struct EqualVectors {
    /// The rows that go with a vector, and who had them first.
    rows: BTreeMap<u64, (u64, usize)>,
    fingerprints: Vec<BTreeMap<Collection, Fingerprint>>,
}

impl EqualVectors {
    pub(crate) fn new(nodes: usize) -> Self {
        Self { rows: BTreeMap::new(), fingerprints: vec![BTreeMap::new(); nodes] }
    }
}

impl Checker for EqualVectors {
    fn name(&self) -> &'static str {
        "1 equal vectors, equal rows"
    }

    fn committed(&mut self, _: &Setting, _: &Oracle, node: usize, seen: &Committed) -> Verdict {
        let (rows, first) = *self.rows.entry(seen.vector_sum).or_insert((seen.rows_sum, node));
        ensure(rows == seen.rows_sum, || {
            format!("nodes {first} and {node} had the same entries and not the same rows")
        })?;
        let expected = &mut self.fingerprints[node];
        for (write, before) in seen.commit.rows.iter().zip(&seen.rows_before) {
            let (collection, key) = &write.doc;
            let fingerprint = expected.entry(collection.clone()).or_default();
            if let Some(before) = before {
                fingerprint.remove(Fingerprint::of_row(key, &before.stamp));
            }
            fingerprint.add(Fingerprint::of_row(key, &write.row.stamp));
        }
        for (collection, fingerprint) in &seen.commit.fingerprints {
            ensure(expected.get(collection) == Some(fingerprint), || {
                format!("node {node}: the fingerprint of {collection} is not that of its rows")
            })?;
        }
        Ok(())
    }

    fn replaced(&mut self, node: usize, disk: &Disk) {
        let fingerprints = &mut self.fingerprints[node];
        fingerprints.clear();
        for ((collection, key), row) in &disk.rows {
            let element = Fingerprint::of_row(key, &row.stamp);
            fingerprints.entry(collection.clone()).or_default().add(element);
        }
    }
}
