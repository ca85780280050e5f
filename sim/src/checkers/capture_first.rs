//! 9. No remote write lands on a document with an uncaptured local change.

use super::{Checker, Verdict, ensure};
use crate::oracle::Oracle;
use crate::seen::{Committed, Setting};

pub(crate) struct CaptureFirst;

impl Checker for CaptureFirst {
    fn name(&self) -> &'static str {
        "9 capture before apply"
    }

    fn committed(&mut self, _: &Setting, _: &Oracle, node: usize, seen: &Committed) -> Verdict {
        ensure(seen.uncaptured.is_empty(), || {
            format!("node {node} applies over uncaptured changes of {:?}", seen.uncaptured)
        })
    }
}
