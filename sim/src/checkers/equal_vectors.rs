//! 1. Equal vectors imply equal rows, on any two nodes at any two times; and the fingerprints are the rows'.

use std::collections::BTreeMap;

use entgldb_replica::fingerprint::{Fingerprint, Tally};
use entgldb_replica::id::Collection;
use entgldb_replica::store::Guard;

use super::{Checker, Verdict, ensure};
use crate::disk::Disk;
use crate::oracle::Oracle;
use crate::seen::{Committed, Setting};

pub(crate) struct EqualVectors {
    /// The rows that go with a vector, and who had them first.
    rows: BTreeMap<u64, (u64, usize)>,
    tallies: Vec<BTreeMap<Collection, Tally>>,
    /// Whether anybody has taken a part of a snapshot.
    has_snapshots: bool,
    /// Whether anybody has given up to wait for the history of what it took.
    gave_up: bool,
}

impl EqualVectors {
    pub(crate) fn new(nodes: usize) -> Self {
        Self {
            rows: BTreeMap::new(),
            tallies: vec![BTreeMap::new(); nodes],
            has_snapshots: false,
            gave_up: false,
        }
    }
}

impl Checker for EqualVectors {
    fn name(&self) -> &'static str {
        "1 equal vectors, equal rows"
    }

    fn committed(&mut self, setting: &Setting, oracle: &Oracle, node: usize, seen: &Committed) -> Verdict {
        // Rows of a snapshot may be of entries that are gone by now with the only machine that had them, or of another branch
        // than that which is held, or were asked for because of what a member that lies said. They spread as rows, and are
        // equal in the end.
        let is_local = seen.commit.guard == Guard::None;
        let is_by_rows = seen.commit.appended.is_empty() && !seen.commit.rows.is_empty();
        self.has_snapshots |= !is_local && is_by_rows || !seen.commit.adopted.is_empty();
        // Who has waited long enough for the history of such rows compares them before it comes.
        let forgets_debt = |(name, note): &(String, Option<_>)| name == "snapshot.debt" && note.is_none();
        let does_nothing_else = seen.commit.rows.is_empty() && seen.commit.adopted.is_empty();
        self.gave_up |= does_nothing_else && seen.commit.notes.iter().any(forgets_debt);
        let doubtful = self.gave_up
            || oracle.forked().next().is_some()
            || oracle.has_lost()
            || setting.options.has_liar();
        // Which of two versions with one stamp stands on a node that keeps a state of the document, and which on one that keeps a
        // row, can differ. They compare rows, and are equal in the end.
        let unsure = self.has_snapshots && doubtful || oracle.has_twins();
        if !seen.is_ahead && !unsure {
            let (rows, first) = *self.rows.entry(seen.vector_sum).or_insert((seen.rows_sum, node));
            ensure(rows == seen.rows_sum, || {
                format!("nodes {first} and {node} had the same entries and not the same rows")
            })?;
        }
        let expected = &mut self.tallies[node];
        for (write, before) in seen.commit.rows.iter().zip(&seen.rows_before) {
            let (collection, key) = &write.doc;
            let tally = expected.entry(collection.clone()).or_default();
            match before {
                Some(before) => {
                    tally.fingerprint.remove(Fingerprint::of_row(key, &before.stamp, before.content.as_ref()))
                }
                None => tally.rows += 1,
            }
            tally.fingerprint.add(Fingerprint::of_row(key, &write.row.stamp, write.row.content.as_ref()));
        }
        for (collection, tally) in &seen.commit.tallies {
            ensure(expected.get(collection) == Some(tally), || {
                format!("node {node}: the fingerprint of {collection} is not that of its rows")
            })?;
        }
        Ok(())
    }

    fn replaced(&mut self, node: usize, disk: &Disk) {
        let tallies = &mut self.tallies[node];
        tallies.clear();
        for ((collection, key), row) in &disk.rows {
            let element = Fingerprint::of_row(key, &row.stamp, row.content.as_ref());
            let tally = tallies.entry(collection.clone()).or_default();
            tally.fingerprint.add(element);
            tally.rows += 1;
        }
    }
}
