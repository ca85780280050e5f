//! Runs of many seeds: every promise holds in all of them, and each gives the same trace twice.

use std::sync::atomic::{AtomicU64, Ordering};

use entgldb_sim::{Options, run_twice};

/// Seeds in the short run that goes with every change. Long runs use the program: `cargo run --release -p entgldb-sim`.
const SEEDS: u64 = 300;

#[test]
fn all_promises_hold_in_every_seed_and_each_gives_the_same_trace_twice() {
    let next = AtomicU64::new(0);
    let processors = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    std::thread::scope(|scope| {
        for _ in 0..processors {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= SEEDS {
                        return;
                    }
                    match run_twice(&Options::from_seed(seed)) {
                        Ok(outcome) => assert_eq!(outcome.violation, None, "seed {seed}"),
                        Err(traces) => panic!("seed {seed} gives two traces: {traces:x?}"),
                    }
                }
            });
        }
    });
}
