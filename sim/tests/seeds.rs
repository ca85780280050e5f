//! Runs of many seeds: every promise holds in all of them, and each gives the same trace twice.

use entgldb_sim::{Options, run, run_twice};

/// Seeds in the short run that goes with every change. Long runs use the program: `cargo run --release -p entgldb-sim`.
const SEEDS: u64 = 60;
/// Every so many seeds one is carried out twice.
const TWICE_EVERY: u64 = 12;

fn clean(from: u64, step: u64) {
    for seed in (from..SEEDS).step_by(usize::try_from(step).expect("a small step")) {
        let violation = run(&Options::from_seed(seed), false).violation;
        assert_eq!(violation, None, "seed {seed}");
    }
}

#[test]
fn all_promises_hold_in_even_seeds() {
    clean(0, 2);
}

#[test]
fn all_promises_hold_in_odd_seeds() {
    clean(1, 2);
}

#[test]
fn the_same_seed_gives_the_same_trace() {
    for seed in (0..SEEDS).step_by(usize::try_from(TWICE_EVERY).expect("a small step")) {
        run_twice(&Options::from_seed(seed)).expect("both traces are the same");
    }
}
