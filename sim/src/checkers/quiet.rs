//! 16. A converged idle mesh is quiet: a digest each way in each interval, one link between two nodes, nobody dials.

use super::{Checker, Verdict, ensure};
use crate::oracle::Oracle;
use crate::seen::{Ending, Setting};

pub(crate) struct Quiet;

impl Checker for Quiet {
    fn name(&self) -> &'static str {
        "16 quiet"
    }

    fn ended(&mut self, setting: &Setting, _: &Oracle, ending: &Ending<'_>) -> Verdict {
        let per_link = ending.quiet_ms / setting.options.sync_interval_ms + 1;
        for (node, frames) in ending.quiet_frames.iter().enumerate() {
            let most = per_link * ending.links[node] as u64;
            ensure(*frames <= most, || {
                format!(
                    "node {node} sends {frames} frames in {} ms of rest; {most} would do",
                    ending.quiet_ms
                )
            })?;
        }
        ensure(ending.quiet_dials == 0, || {
            format!("{} dials in {} ms of rest", ending.quiet_dials, ending.quiet_ms)
        })
    }
}
