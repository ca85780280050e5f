//! 10. A row's stamp never decreases.

use super::{Checker, Verdict, ensure};
use crate::oracle::Oracle;
use crate::seen::{Committed, Setting};

pub(crate) struct RowsRise;

impl Checker for RowsRise {
    fn name(&self) -> &'static str {
        "10 rows rise"
    }

    fn committed(&mut self, _: &Setting, _: &Oracle, node: usize, seen: &Committed) -> Verdict {
        for (write, before) in seen.commit.rows.iter().zip(&seen.rows_before) {
            ensure(
                before.is_none_or(|before| {
                    // An older edit may change what a document that merges says, and not its stamp.
                    let merges = write.merged.is_some() && before.stamp == write.row.stamp;
                    merges || (before.stamp, before.content) < (write.row.stamp, write.row.content)
                }),
                || format!("node {node}: the row of {:?} goes from {before:?} to {:?}", write.doc, write.row),
            )?;
        }
        Ok(())
    }
}
