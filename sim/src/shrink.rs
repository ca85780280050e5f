//! Makes a failing run smaller while it still fails in the same way.

use entgldb_replica::limits::FRAME_BYTES_DEFAULT;

use crate::options::{Dialling, Fault, Options, Topology};
use crate::run::{Outcome, run};
use crate::writing::Writers;

/// Most runs that shrinking may take.
const RUNS_MAX: usize = 400;

/// The smallest run found that fails as `options` does, and what came out of it, with its story. `None` if `options`
/// does not fail.
#[must_use]
pub fn shrink(options: &Options) -> Option<(Options, Outcome)> {
    let checker = run(options, false).violation?.checker;
    let mut smallest = options.clone();
    let mut runs = 0;
    loop {
        let smaller = candidates(&smallest).into_iter().find(|candidate| {
            runs += 1;
            runs <= RUNS_MAX && run(candidate, false).violation.is_some_and(|found| found.checker == checker)
        });
        match smaller {
            Some(smaller) => smallest = smaller,
            None => break,
        }
    }
    let outcome = run(&smallest, true);
    Some((smallest, outcome))
}

/// Runs a little smaller than this one, the greatest steps first.
fn candidates(options: &Options) -> Vec<Options> {
    let mut candidates = Vec::new();
    let mut push = |change: &dyn Fn(&mut Options)| {
        let mut candidate = options.clone();
        change(&mut candidate);
        if candidate != *options {
            candidates.push(candidate);
        }
    };
    let faults: Vec<Fault> = options.faults.keys().copied().collect();
    for fault in faults {
        push(&|o| o.faults.retain(|kind, _| *kind != fault));
    }
    push(&|o| o.safety_ms /= 2);
    push(&|o| o.nodes = (o.nodes / 2).max(2));
    push(&|o| o.nodes = (o.nodes - 1).max(2));
    push(&|o| o.safety_ms = (o.safety_ms * 9 / 10).max(100));
    push(&|o| o.load.transactions_max = (o.load.transactions_max / 2).max(1));
    push(&|o| o.load.transactions_max = o.load.transactions_max.saturating_sub(1).max(1));
    push(&|o| o.collections = 1);
    push(&|o| o.uniform = true);
    push(&|o| o.load.transaction_documents = 1);
    push(&|o| o.load.keys = 1);
    push(&|o| o.load.document_bytes = 16);
    push(&|o| o.load.delete.0 = 0);
    push(&|o| o.load.same.0 = 0);
    push(&|o| o.load.notice_ms = 0);
    push(&|o| o.load.offline = false);
    push(&|o| o.load.unit_changes = 4_096);
    push(&|o| o.topology = Topology::Line);
    push(&|o| o.dialling = Dialling::OneSide);
    push(&|o| o.small = false);
    push(&|o| o.resolving = Writers::None);
    push(&|o| o.split_stores = false);
    push(&|o| o.frame_bytes_max = o.frame_bytes_max.max(FRAME_BYTES_DEFAULT));
    push(&|o| o.latency_ms = 0);
    push(&|o| o.step_ms = 0);
    push(&|o| o.restart_ms = 0);
    push(&|o| o.clock_grain_ms = 1);
    push(&|o| o.max_skew_ms = 300_000);
    push(&|o| o.sync_interval_ms = 2_000);
    candidates
}
