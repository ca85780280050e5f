//! 8. No echo: every entry stands for something that the application wrote.

use entgldb_replica::member::members;
use entgldb_replica::store::Guard;

use super::{Checker, Verdict, ensure};
use crate::oracle::Oracle;
use crate::seen::{Committed, Setting};

pub(crate) struct NoEcho;

impl Checker for NoEcho {
    fn name(&self) -> &'static str {
        "8 no echo"
    }

    fn committed(&mut self, _: &Setting, _: &Oracle, node: usize, seen: &Committed) -> Verdict {
        if seen.commit.guard != Guard::None {
            return Ok(());
        }
        // What a member says of itself is the engine's own.
        for run in seen.commit.appended.iter().filter(|run| run.log.collection != *members()) {
            for linked in &run.entries {
                let doc = (&run.log.collection, &linked.entry().key);
                let mut written = seen.drained.iter().filter(|item| !item.echo);
                // What came in a snapshot and nobody else may have is written anew, as it is.
                let rows = seen.commit.rows.iter().zip(&seen.rows_before);
                let mut rows = rows.filter(|(write, _)| (&write.doc.0, &write.doc.1) == doc);
                if seen.was_ahead
                    && rows.any(|(write, before)| before.is_some_and(|row| row.content == write.row.content))
                {
                    continue;
                }
                ensure(written.any(|item| (&item.doc.0, &item.doc.1) == doc), || {
                    format!("node {node} makes an entry of {doc:?}, which its application did not write")
                })?;
            }
        }
        Ok(())
    }
}
