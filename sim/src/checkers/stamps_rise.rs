//! 4. A node's stamps only rise, through restarts and clock steps; what comes from too far ahead does not move its clock.

use entgldb_replica::clock::{Clock, Hlc};
use entgldb_replica::store::Guard;

use super::{Checker, Verdict, ensure};
use crate::disk::Disk;
use crate::oracle::Oracle;
use crate::seen::{Committed, Setting};

pub(crate) struct StampsRise {
    last: Vec<Hlc>,
}

impl StampsRise {
    pub(crate) fn new(nodes: usize) -> Self {
        Self { last: vec![Hlc::default(); nodes] }
    }
}

impl Checker for StampsRise {
    fn name(&self) -> &'static str {
        "4 stamps rise"
    }

    fn committed(&mut self, setting: &Setting, _: &Oracle, node: usize, seen: &Committed) -> Verdict {
        let clock = seen.commit.clock;
        ensure(clock >= seen.clock_before, || {
            format!("node {node}: the clock goes back from {:?} to {clock:?}", seen.clock_before)
        })?;
        if seen.commit.guard != Guard::None {
            let horizon = Clock::resume(Hlc::default(), setting.options.max_skew_ms).horizon(seen.wall);
            return ensure(clock <= horizon.max(seen.clock_before), || {
                format!("node {node}: the clock is at {clock:?}, ahead of what it may accept, {horizon:?}")
            });
        }
        for run in &seen.commit.appended {
            for linked in &run.entries {
                let hlc = linked.entry().hlc;
                ensure(hlc > self.last[node] && hlc <= clock, || {
                    format!("node {node} stamps {hlc:?} after {:?}; its clock is {clock:?}", self.last[node])
                })?;
            }
        }
        if !seen.commit.appended.is_empty() {
            self.last[node] = clock;
        }
        Ok(())
    }

    fn replaced(&mut self, node: usize, disk: &Disk) {
        // A commit that had begun is not over yet.
        self.last[node] = disk.pending.as_ref().map_or(disk.clock, |pending| pending.clock_before);
    }
}
