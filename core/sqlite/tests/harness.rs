//! A seeded harness of the table store: real stores over real files, below real replicas, with real applications that write
//! SQL over connections of their own. The simulator draws schedules over a store of its own; here the store is what is tested.
//!
//! # The idea
//!
//! One number draws everything: the schema, what the applications write, which migrations they carry out and when, which
//! frames arrive when, which processes end in the middle of what, and what happens *between two calls of a store*: the
//! replica looks, plans and commits in several calls, and whatever an application does in between must count. The same
//! seed gives the same run. The clocks are the run's own: the triggers take the time from a function that the application's connection
//! brings, and the run plays in the past, so that the machine's time, which the engine reads here and there, is never the earlier one.
//!
//! # What is drawn
//!
//! [`parts::mix::Class`] lists the kinds of disturbance; each run has some of them. Two or three nodes; keys of text, numbers, several
//! columns, without rowid, without case; a unique index, a trigger of the application's, merging or not. Inserts, updates of
//! single columns, UPSERT, `INSERT OR REPLACE`, deletes, changed keys, several in a transaction; writes that fire no trigger, rows that are too
//! large for now, rows from before the first watch, files put back to older copies. Migrations are the same on all nodes, in the same order, at
//! different moments ([`parts::shape::plan`]).
//!
//! # What is checked
//!
//! In the end all links are up, all migrations are done, nobody writes, and everything comes to rest in a bounded number of
//! rounds. Then ([`parts::oracle`]):
//!
//! - *Equal*: all tables show the same.
//! - *Sound*: [`entgldb_sqlite::verify`] finds no fault in any file.
//! - *Nothing is lost*: every value that a user ever wrote (each is one of its own) is in the table, or in the conflict list or
//!   among the documents set aside of some node, or a user took it away whose own table showed it.
//! - *Nothing comes back*: no row is there of which users have taken away every value knowingly. (The last writer of such a row wrote
//!   a value of its own; who took that away wrote a younger version.) Where fields merge, that is true of each field.
//! - *No echo*: no node has more entries of a document than its users changed it. Migrations and applied changes make none.
//! - On the way: no statement and no migration of an application fails but by its own constraints, no store fails, no
//!   honest node is refused, no link is closed for a violation.
//!
//! # How to use it
//!
//! `cargo test -p entgldb-sqlite --test harness`. In the environment:
//!
//! - `ENTGLDB_HARNESS_SEED=n` runs one seed, and prints its trace if it fails.
//! - `ENTGLDB_HARNESS_SEEDS=count`, `ENTGLDB_HARNESS_FROM=n`: so many seeds, from this one on.
//! - `ENTGLDB_HARNESS_WITHOUT=a,b` leaves classes out, `ENTGLDB_HARNESS_ONLY=a,b` leaves all others out; what else a seed draws
//!   stays nearly as it is. `ENTGLDB_HARNESS_ALWAYS=a,b` puts classes into every run. One of these given, the classes that are known to
//!   fail ([`parts::mix::FAILING`]) are no longer left out by themselves.
//! - `ENTGLDB_HARNESS_KEEP=1` keeps the databases; the trace says where.
//! - `ENTGLDB_HARNESS_ALL=1` shows all failures, not the first few.
//! - [`parts::mix::OPEN`] lists the seeds of the ordinary run that still fail.
//!
//! To find a cause, leave out classes until the seed holds, then read its trace.
#![allow(unreachable_pub, reason = "the modules of one test")]

#[path = "harness/mod.rs"]
mod parts;

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;

use fastrand::Rng;
use parts::mix::{Class, FAILING, Mix, OPEN, named};
use parts::run::run;

/// Seeds in an ordinary run of the tests.
const SEEDS: u64 = 1000;
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

/// The classes that the environment leaves out, to which it keeps, and that it always has.
fn chosen() -> [Option<BTreeSet<Class>>; 3] {
    ["WITHOUT", "ONLY", "ALWAYS"].map(|name| classes(&format!("ENTGLDB_HARNESS_{name}")))
}

fn is_chosen() -> bool {
    chosen().iter().any(Option::is_some)
}

fn mix(seed: u64) -> Mix {
    let [without, only, always] = chosen();
    let without = without.unwrap_or_else(|| if is_chosen() { BTreeSet::new() } else { FAILING.into() });
    let always = always.unwrap_or_default();
    let mix = Mix::draw(&mut Rng::with_seed(seed), &always, |class| {
        !without.contains(&class) && only.as_ref().is_none_or(|only| only.contains(&class))
    });
    if is_chosen() { mix } else { mix.without_pairs() }
}

/// What a trace says when the things happen for which the harness is there.
const HAPPENINGS: [&str; 13] = [
    "Captured",
    "Applied",
    "Conflict",
    "Collided",
    "CameBack",
    "Snapshot",
    "killed in the middle of a call",
    "before commit",
    "after rows",
    "is put back",
    "StartedAnew",
    "parted",
    "-- refused",
];

/// Seeds in which everything must happen.
const ENOUGH_SEEDS: u64 = 200;

/// Runs a seed, and counts what happened. Answers why it failed, if it did.
fn failure(seed: u64, happened: &mut [u64; HAPPENINGS.len()]) -> Option<Failed> {
    let mix = mix(seed);
    let trace: Rc<RefCell<Vec<String>>> = Rc::default();
    let (drawn, kept) = (mix.clone(), trace.clone());
    IS_CAUGHT.set(true);
    let result = catch_unwind(AssertUnwindSafe(|| run(drawn, seed, &kept)));
    IS_CAUGHT.set(false);
    for line in trace.borrow().iter() {
        for (count, what) in happened.iter_mut().zip(HAPPENINGS) {
            *count += u64::from(line.contains(what));
        }
    }
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
    let shows_trace = seeds.end - seeds.start == 1;
    let mut happened = [0; HAPPENINGS.len()];
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        if !IS_CAUGHT.get() {
            hook(info);
        }
    }));
    let is_open = |seed: &u64| !shows_trace && !is_chosen() && OPEN.contains(seed);
    let judged = seeds.clone().filter(|seed| !is_open(seed));
    let failed: Vec<Failed> = judged.filter_map(|seed| failure(seed, &mut happened)).collect();
    let count = seeds.end - seeds.start;
    let mut text = format!("{} of {count} seeds failed\n", failed.len());
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
    if count >= ENOUGH_SEEDS && !is_chosen() {
        let happened: Vec<_> = HAPPENINGS.into_iter().zip(happened).collect();
        assert!(happened.iter().all(|(_, count)| *count > 0), "not everything happens: {happened:?}");
    }
}

#[test]
fn the_same_seed_gives_the_same_run() {
    for seed in 0..16 {
        let runs = [0, 1].map(|_| {
            let trace: Rc<RefCell<Vec<String>>> = Rc::default();
            run(mix(seed), seed, &trace);
            trace.take()
        });
        let differs = runs[0].iter().zip(&runs[1]).find(|(one, other)| one != other);
        assert_eq!(differs, None, "seed {seed}");
        assert_eq!(runs[0].len(), runs[1].len(), "seed {seed}");
    }
}
