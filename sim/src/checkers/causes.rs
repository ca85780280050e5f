//! 3. If one change happened before another, its stamp is smaller; and a change replaces exactly what its author saw.

use entgldb_replica::clock::Stamp;
use entgldb_replica::store::Guard;

use super::{Checker, Verdict, ensure};
use crate::oracle::Oracle;
use crate::seen::{Committed, Setting};

pub(crate) struct Causes;

impl Checker for Causes {
    fn name(&self) -> &'static str {
        "3 causes before effects"
    }

    fn committed(&mut self, _: &Setting, _: &Oracle, node: usize, seen: &Committed) -> Verdict {
        if seen.commit.guard != Guard::None {
            return Ok(());
        }
        for run in &seen.commit.appended {
            for linked in &run.entries {
                let entry = linked.entry();
                ensure(entry.hlc > seen.latest_before, || {
                    format!("node {node}: {:?} is not after {:?}, held before", entry.hlc, seen.latest_before)
                })?;
                let doc = (&run.log.collection, &entry.key);
                let position = seen.commit.rows.iter().position(|w| (&w.doc.0, &w.doc.1) == doc);
                let before: Option<Stamp> = position.and_then(|at| seen.rows_before[at]).map(|row| row.stamp);
                ensure(entry.replaces == before, || {
                    format!("node {node}: {doc:?} replaces {:?}; its row was {before:?}", entry.replaces)
                })?;
            }
        }
        Ok(())
    }
}
