//! 16. A converged idle mesh is quiet: a digest each way in each interval, one link between two nodes, nobody dials.
//!
//! Where a log forked, neighbours compare their vectors again and again; that has a bound too.

use super::{Checker, Verdict, ensure};
use crate::oracle::Oracle;
use crate::seen::{Ending, Setting};

pub(crate) struct Quiet;

/// Frames for each digest where two branches of a log meet.
const RESTLESS: u64 = 50;
/// The digest itself, and one that answers.
const DIGESTS: u64 = 2;

impl Checker for Quiet {
    fn name(&self) -> &'static str {
        "16 quiet"
    }

    fn ended(&mut self, setting: &Setting, oracle: &Oracle, ending: &Ending<'_>) -> Verdict {
        let is_forked = oracle.forked().next().is_some();
        let digests = ending.quiet_ms / setting.options.sync_interval_ms + 1;
        for (node, frames) in ending.quiet_frames.iter().enumerate() {
            // With every digest the whole vector goes to a neighbour on another branch, a frame for each log if it must be.
            let logs = ending.disks[node].logs().len() as u64;
            let restless = if is_forked { RESTLESS.max(logs + DIGESTS) } else { 1 };
            let per_link = restless * digests;
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
