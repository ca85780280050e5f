//! Each checker is able to fail: something is broken on purpose, and the checker that guards it says so.

use entgldb_sim::{Dialling, Fault, Mutation, Options, PerMillion, Rate, Topology, Writers, run};

/// A run in which much happens in little time, and nothing goes wrong by itself.
fn busy(seed: u64) -> Options {
    let mut options = Options::calm(seed);
    options.nodes = 3;
    options.collections = 2;
    options.uniform = true;
    options.topology = Topology::Mesh;
    options.dialling = Dialling::OneSide;
    options.safety_ms = 30_000;
    options.load.write_every_ms = 500;
    options.load.transaction_documents = 4;
    options.load.keys = 12;
    options.load.document_bytes = 100;
    options.load.delete = PerMillion(200_000);
    options.load.same = PerMillion(0);
    options.load.notice_ms = 250;
    options.load.unit_changes = 100;
    options.load.transactions_max = u64::MAX;
    options.max_skew_ms = 300_000;
    options.sync_interval_ms = 1_000;
    options.latency_ms = 50;
    options.restart_ms = 500;
    options.silence_ms = 1_000;
    options.clock_grain_ms = 1;
    options.frame_bytes_max = 4 << 20;
    options.small = false;
    options.split_stores = false;
    options.merging = Writers::None;
    options.resolving = Writers::None;
    options.keeps_mark = false;
    options
}

/// Some seed out of a few makes the checker speak, and no other one before it.
fn sees(checker: &str, options: impl Fn(u64) -> Options) {
    let found: Vec<String> = (0..6)
        .filter_map(|seed| run(&options(seed), false).violation)
        .map(|violation| violation.to_string())
        .collect();
    assert!(found.iter().any(|text| text.starts_with(&format!("[{checker}"))), "found {found:?}");
    let mut sound = options(0);
    sound.mutation = Mutation::None;
    assert_eq!(run(&sound, false).violation, None, "with nothing broken");
}

fn crashes(seed: u64) -> Options {
    busy(seed).with(Fault::Crash, Rate::EveryMs(3_000))
}

#[test]
fn unequal_rows_under_equal_vectors_are_seen() {
    sees("1 ", |seed| busy(seed).broken(Mutation::RowAltered));
}

#[test]
fn a_change_that_is_in_no_entry_is_seen() {
    sees("2 ", |seed| busy(seed).broken(Mutation::OutboxDropped));
}

#[test]
fn a_change_made_without_knowledge_of_what_came_before_it_is_seen() {
    sees("3 ", |seed| {
        let steps = busy(seed).with(Fault::ClockStep, Rate::EveryMs(2_000));
        steps.broken(Mutation::RowsForgottenAtCapture)
    });
}

#[test]
fn stamps_that_go_back_after_a_restart_are_seen() {
    sees("4 ", |seed| {
        let steps = crashes(seed).with(Fault::ClockStep, Rate::EveryMs(2_000));
        steps.broken(Mutation::ClockForgotten)
    });
}

#[test]
fn a_clock_that_follows_a_month_into_the_future_is_seen() {
    sees("4 ", |seed| {
        busy(seed).with(Fault::ClockMonth, Rate::EveryMs(8_000)).broken(Mutation::SkewAccepted)
    });
}

#[test]
fn a_log_that_begins_anew_after_a_restart_is_seen() {
    sees("5 ", |seed| crashes(seed).broken(Mutation::HeadForgotten));
}

#[test]
fn a_claim_of_what_is_not_durable_is_seen() {
    sees("6 ", |seed| crashes(seed).broken(Mutation::CommitLost));
}

#[test]
fn a_redelivery_that_changes_something_is_seen() {
    sees("7 ", |seed| busy(seed).broken(Mutation::RedeliveryIsNew));
}

#[test]
fn an_entry_that_no_application_wrote_is_seen() {
    sees("8 ", |seed| busy(seed).broken(Mutation::EchoAltered));
}

#[test]
fn an_apply_over_an_uncaptured_change_is_seen() {
    sees("9 ", |seed| {
        let mut options = busy(seed).with(Fault::Ambush, Rate::Chance(PerMillion(500_000)));
        options.load.keys = 2;
        options.safety_ms = 10_000;
        options.broken(Mutation::GuardIgnored)
    });
}

#[test]
fn a_row_that_becomes_older_is_seen() {
    sees("10 ", |seed| {
        let mut options = busy(seed);
        options.load.delete = PerMillion(0);
        options.load.keys = 2;
        options.broken(Mutation::RowsForgotten)
    });
}

#[test]
fn a_document_that_comes_back_from_the_dead_is_seen() {
    sees("11 ", |seed| {
        let mut options = busy(seed);
        options.load.delete = PerMillion(500_000);
        options.load.keys = 2;
        options.broken(Mutation::TombstonesForgotten)
    });
}

#[test]
fn a_refusal_that_never_ends_is_seen() {
    sees("13 ", |seed| {
        busy(seed).with(Fault::ClockMonth, Rate::EveryMs(10_000)).broken(Mutation::ClockNotHealed)
    });
}

#[test]
fn a_collection_that_was_not_asked_for_is_seen() {
    sees("14 ", |seed| {
        let mut options = busy(seed);
        options.uniform = false;
        options.collections = 4;
        options.broken(Mutation::InterestWidened)
    });
}

#[test]
fn a_frame_over_its_limit_is_seen() {
    let mut options = busy(0).broken(Mutation::FrameLimitIgnored);
    options.frame_bytes_max = 64 << 10;
    options.load.document_bytes = 60_000;
    options.load.transaction_documents = 20;
    let violation = run(&options, false).violation.expect("it is seen");
    assert!(violation.checker.starts_with("15 "), "{violation}");
}

#[test]
fn a_mesh_that_does_not_come_to_rest_is_seen() {
    sees("16 ", |seed| busy(seed).broken(Mutation::NeverQuiet));
}

#[test]
fn a_run_that_takes_anything_from_outside_its_seed_is_seen() {
    let broken = |seed| entgldb_sim::run_twice(&busy(seed).broken(Mutation::NotFromSeed));
    assert!((0..4).any(|seed| broken(seed).is_err()));
}

#[test]
fn an_alarm_among_honest_members_is_seen() {
    sees("alarms", |seed| busy(seed).broken(Mutation::PageAltered));
}

#[test]
fn a_document_that_is_not_what_its_row_says_in_the_end_is_seen() {
    sees("2 final state", |seed| busy(seed).broken(Mutation::DocumentForgotten));
}

#[test]
fn nodes_that_never_become_equal_are_seen() {
    sees("13 converges", |seed| {
        let mut options = busy(seed);
        options.nodes = 2;
        options.broken(Mutation::NeverHealed)
    });
}

#[test]
fn a_node_that_works_without_end_at_one_moment_is_seen() {
    sees("comes to rest", |seed| busy(seed).broken(Mutation::NeverRests));
}

#[test]
fn a_fork_of_which_nobody_is_told_is_seen() {
    sees("forks are told", |seed| {
        let mut options = busy(seed).with(Fault::Restore, Rate::EveryMs(3_000));
        options.nodes = 2;
        options.broken(Mutation::ForksUntold)
    });
}

#[test]
fn a_log_that_forks_for_want_of_its_mark_is_seen() {
    sees("5 ", |seed| {
        let mut options = busy(seed).with(Fault::Restore, Rate::EveryMs(3_000));
        options.nodes = 2;
        options.keeps_mark = true;
        options.broken(Mutation::MarkForgotten)
    });
}

#[test]
fn a_document_that_is_not_what_its_edits_say_is_seen() {
    sees("1 ", |seed| {
        let mut options = busy(seed);
        options.merging = Writers::All;
        options.load.keys = 3;
        options.broken(Mutation::StatesForgotten)
    });
}

#[test]
fn a_document_that_is_not_what_its_resolver_makes_of_all_versions_is_seen() {
    sees("1 ", |seed| {
        let mut options = busy(seed);
        options.resolving = Writers::All;
        options.load.keys = 3;
        options.broken(Mutation::StatesForgotten)
    });
}

#[test]
fn a_commit_in_parts_that_is_not_ended_after_a_crash_is_seen() {
    sees("5 ", |seed| {
        let mut options = busy(seed).with(Fault::CrashInCommit, Rate::Chance(PerMillion(100_000)));
        options.split_stores = true;
        options.broken(Mutation::RedoForgotten)
    });
}

#[test]
fn a_torn_unit_is_seen() {
    sees("units", |seed| busy(seed).broken(Mutation::UnitTorn));
}
