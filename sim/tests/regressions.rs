//! Runs that failed once for a fault of the engine, each named after what broke. `docs/BUGS.md` tells the stories.

use entgldb_sim::{Dialling, Fault, Options, PerMillion, Rate, Topology, run};

fn small(seed: u64) -> Options {
    let mut options = Options::calm(seed);
    options.nodes = 2;
    options.collections = 4;
    options.uniform = true;
    options.topology = Topology::Line;
    options.dialling = Dialling::BothSides;
    options.safety_ms = 40_000;
    options.load.write_every_ms = 2_000;
    options.load.transaction_documents = 4;
    options.load.keys = 1_000;
    options.load.document_bytes = 16;
    options.max_skew_ms = 300_000;
    options.sync_interval_ms = 2_000;
    options.latency_ms = 50;
    options.step_ms = 0;
    options.restart_ms = 500;
    options.silence_ms = 1_000;
    options.clock_grain_ms = 1;
    options.frame_bytes_max = 4 << 20;
    options.small = false;
    options.split_stores = false;
    options
}

fn clean(options: impl Fn(u64) -> Options) {
    for seed in 0..6 {
        assert_eq!(run(&options(seed), false).violation, None, "seed {seed}");
    }
}

#[test]
fn a_unit_whose_logs_wait_for_different_times_stays_whole() {
    for seed in 0..8 {
        let mut options = small(seed).with(Fault::ClockStep, Rate::EveryMs(8_000));
        options.max_skew_ms = 0;
        options.load.write_every_ms = 1_000;
        assert_eq!(run(&options, false).violation, None, "seed {seed}");
    }
}

#[test]
fn two_names_of_one_node_do_not_take_turns_for_ever() {
    let mut options = small(1);
    options.dialling = Dialling::TwoNames;
    assert_eq!(run(&options, false).violation, None);
}

#[test]
fn a_member_that_claims_more_entries_than_there_can_be_stops_nobody() {
    let mut options = small(1).with(Fault::Tamper, Rate::Chance(PerMillion(500_000)));
    options.nodes = 3;
    assert_eq!(run(&options, false).violation, None);
}

#[test]
fn whoever_writes_on_after_a_backup_was_restored_is_heard_again() {
    clean(|seed| {
        let mut options = small(seed).with(Fault::Restore, Rate::EveryMs(6_000));
        options.nodes = 3;
        options
    });
}

#[test]
fn whoever_writes_again_what_a_power_cut_took_is_heard_again() {
    clean(|seed| {
        let mut options = small(seed).with(Fault::PowerCut, Rate::EveryMs(8_000));
        options.load.notice_ms = 3_000;
        options
    });
}

#[test]
fn a_machine_that_ran_twice_is_heard_again_once_its_copy_is_off() {
    clean(|seed| {
        let mut options = small(seed).with(Fault::Clone, Rate::EveryMs(6_000));
        options.nodes = 4;
        options.topology = Topology::Mesh;
        options
    });
}

#[test]
fn a_page_that_came_too_late_takes_no_unit_apart() {
    // Slow links, pages that are refused as busy, and the refusals of those behind them (seed 2001546).
    let outcome = run(&Options::from_seed(2_001_546), false);
    assert_eq!(outcome.violation, None);
}

#[test]
fn a_member_that_signs_two_branches_stops_nobody_else() {
    clean(|seed| {
        let mut options = small(seed).with(Fault::Fork, Rate::Chance(PerMillion(300_000)));
        options.nodes = 4;
        options.topology = Topology::Mesh;
        options
    });
}

#[test]
fn a_history_gets_through_the_least_frames_and_pages() {
    clean(|seed| {
        let mut options = small(seed);
        (options.small, options.frame_bytes_max) = (true, 2_300);
        options.nodes = 3;
        options.uniform = seed % 2 == 0;
        options
    });
}
