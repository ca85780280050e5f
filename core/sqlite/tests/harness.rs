//! Real stores over real files under real replicas, with real applications beside them, through everything that a seed draws.
#![allow(unreachable_pub, reason = "the modules of one test")]

#[path = "harness/mod.rs"]
mod parts;

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;

use fastrand::Rng;
use parts::mix::{Class, FAILING, Mix, named};
use parts::run::run;

/// Seeds in an ordinary run of the tests.
const SEEDS: u64 = 200;
/// Failures that are shown.
const SHOWN_MAX: usize = 8;

thread_local! {
    /// Whether this thread's panics are told with their seeds instead.
    static IS_CAUGHT: Cell<bool> = const { Cell::new(false) };
}

/// A seed that failed.
struct Failed {
    seed: u64,
    mix: Mix,
    why: String,
    trace: Vec<String>,
}

fn number(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name} is {text:?}, which is no number")))
}

fn classes(name: &str) -> Option<BTreeSet<Class>> {
    let text = std::env::var(name).ok()?;
    Some(text.split(',').filter(|name| !name.is_empty()).map(named).collect())
}

fn mix(seed: u64) -> Mix {
    let (without, only) = (classes("ENTGLDB_HARNESS_WITHOUT"), classes("ENTGLDB_HARNESS_ONLY"));
    let without = match (without, &only) {
        (Some(without), _) => without,
        (None, Some(_)) => BTreeSet::new(),
        (None, None) => FAILING.into(),
    };
    Mix::draw(&mut Rng::with_seed(seed), |class| {
        !without.contains(&class) && only.as_ref().is_none_or(|only| only.contains(&class))
    })
}

/// Runs a seed. Answers why it failed, if it did.
fn failure(seed: u64) -> Option<Failed> {
    let mix = mix(seed);
    let trace: Rc<RefCell<Vec<String>>> = Rc::default();
    let (drawn, kept) = (mix.clone(), trace.clone());
    IS_CAUGHT.set(true);
    let result = catch_unwind(AssertUnwindSafe(|| run(drawn, seed, &kept)));
    IS_CAUGHT.set(false);
    let payload = result.err()?;
    let text = payload.downcast_ref::<String>().cloned();
    let why = text.or_else(|| payload.downcast_ref::<&str>().map(|text| (*text).to_owned()));
    let trace = trace.borrow().clone();
    Some(Failed { seed, mix, why: why.unwrap_or_else(|| "it panicked".into()), trace })
}

fn seeds() -> std::ops::Range<u64> {
    if let Some(seed) = number("ENTGLDB_HARNESS_SEED") {
        return seed..seed + 1;
    }
    let from = number("ENTGLDB_HARNESS_FROM").unwrap_or(0);
    from..from + number("ENTGLDB_HARNESS_SEEDS").unwrap_or(SEEDS)
}

#[test]
fn nodes_that_are_disturbed_in_every_way_end_the_same_and_lose_nothing() {
    let seeds = seeds();
    let shows_trace = seeds.clone().count() == 1;
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        if !IS_CAUGHT.get() {
            hook(info);
        }
    }));
    let failed: Vec<Failed> = seeds.clone().filter_map(failure).collect();
    let mut text = format!("{} of {} seeds failed\n", failed.len(), seeds.count());
    for failed in
        failed.iter().take(if number("ENTGLDB_HARNESS_ALL").is_some() { usize::MAX } else { SHOWN_MAX })
    {
        let Failed { seed, mix, why, trace } = failed;
        text += &format!("\nENTGLDB_HARNESS_SEED={seed}: {:?} {:?}\n{why}\n", mix.key, mix.classes);
        if shows_trace {
            text += &format!("{}\n", trace.join("\n"));
        }
    }
    assert!(failed.is_empty(), "{text}");
}

#[test]
fn the_same_seed_gives_the_same_run() {
    for seed in 0..16 {
        let runs = [0, 1].map(|_| {
            let trace: Rc<RefCell<Vec<String>>> = Rc::default();
            let mix = Mix::draw(&mut Rng::with_seed(seed), |class| !FAILING.contains(&class));
            run(mix, seed, &trace);
            trace.take()
        });
        let differs = runs[0].iter().zip(&runs[1]).find(|(one, other)| one != other);
        assert_eq!(differs, None, "seed {seed}");
        assert_eq!(runs[0].len(), runs[1].len(), "seed {seed}");
    }
}
