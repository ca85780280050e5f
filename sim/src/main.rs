//! Runs simulations from the command line; see `--help` and `docs/RELIABILITY.md`.

use std::io::Write;
use std::process::{Command, ExitCode};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use anyhow::Context;
use clap::Parser;
use entgldb_sim::{Coverage, Options, Outcome, run, run_twice, shrink};

/// Simulates clusters of EntglDb nodes under every fault, each run from one seed.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    /// Carry out this one seed, with its story.
    #[arg(long)]
    seed: Option<u64>,
    /// Carry out so many seeds.
    #[arg(long, default_value_t = 100)]
    runs: u64,
    /// The first of them.
    #[arg(long, default_value_t = 0)]
    from: u64,
    /// Go on until so many minutes have passed, however many seeds that are.
    #[arg(long)]
    minutes: Option<u64>,
    /// Seeds carried out at the same time; as many as there are processors if not given.
    #[arg(long)]
    jobs: Option<usize>,
    /// Only runs with so many nodes.
    #[arg(long)]
    nodes: Option<usize>,
    /// Carry out every seed twice and compare.
    #[arg(long)]
    twice: bool,
    /// Report a failure as it is, without making it smaller.
    #[arg(long)]
    no_shrink: bool,
}

/// Seeds between two lines that say how far it is.
const TELL_EVERY: u64 = 1_000;

fn main() -> anyhow::Result<ExitCode> {
    let arguments = Arguments::parse();
    let mut out = std::io::stdout();
    let commit = commit();
    let first = arguments.seed.unwrap_or(arguments.from);
    writeln!(out, "entgldb-sim {} at commit {commit}, seed {first}", env!("CARGO_PKG_VERSION"))?;
    match arguments.seed {
        Some(seed) => one(&mut out, &arguments, seed),
        None => many(&mut out, &arguments),
    }
}

/// The commit that is checked out, as far as anybody can tell.
fn commit() -> String {
    let git = Command::new("git").args(["describe", "--always", "--dirty"]).output();
    let text = git.ok().filter(|output| output.status.success()).map(|output| output.stdout);
    text.map_or_else(|| "unknown".into(), |text| String::from_utf8_lossy(&text).trim().to_owned())
}

fn one(out: &mut impl Write, arguments: &Arguments, seed: u64) -> anyhow::Result<ExitCode> {
    let options = Options::from_seed(seed);
    writeln!(out, "{options:#?}")?;
    let outcome = run(&options, true);
    for line in &outcome.story {
        writeln!(out, "{line}")?;
    }
    writeln!(out, "{}", outcome.coverage)?;
    writeln!(out, "trace {:016x}, {} events", outcome.trace_hash, outcome.events)?;
    if outcome.violation.is_none() {
        writeln!(out, "seed {seed}: clean")?;
        return Ok(ExitCode::SUCCESS);
    }
    report(out, arguments, &options, &outcome)?;
    Ok(ExitCode::FAILURE)
}

/// What several threads share: which seed is next, and what came out so far.
struct Shared {
    next: u64,
    /// Seeds that failed; none after the first of them is begun.
    failed: Option<(u64, Failure)>,
    seeds: u64,
    coverage: Coverage,
    simulated_ms: u64,
    events: u64,
}

/// Why a seed failed.
enum Failure {
    Violation(Box<Outcome>),
    TwoTraces(u64, u64),
}

fn many(out: &mut impl Write, arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let begun = Instant::now();
    let until = arguments.minutes.map(|minutes| begun + Duration::from_secs(60 * minutes));
    let processors = || std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let jobs = arguments.jobs.unwrap_or_else(processors).max(1);
    let shared = Mutex::new(Shared {
        next: arguments.from,
        failed: None,
        seeds: 0,
        coverage: Coverage::default(),
        simulated_ms: 0,
        events: 0,
    });
    std::thread::scope(|scope| {
        for _ in 0..jobs {
            scope.spawn(|| work(arguments, until, &shared));
        }
    });
    let shared = shared.into_inner().ok().context("a run panicked")?;
    if let Some((seed, failure)) = shared.failed {
        match failure {
            Failure::Violation(outcome) => report(out, arguments, &options_of(arguments, seed), &outcome)?,
            Failure::TwoTraces(one, two) => {
                writeln!(out, "seed {seed} FAILS: it gives two traces, {one:016x} and {two:016x}")?;
            }
        }
        return Ok(ExitCode::FAILURE);
    }
    let seconds = begun.elapsed().as_secs_f64();
    writeln!(out, "{}", shared.coverage)?;
    let simulated = shared.simulated_ms as f64 / 1_000.0;
    writeln!(
        out,
        "{} seeds from {} clean in {seconds:.1} s, {:.1} a second, with {jobs} at a time: {simulated:.0} simulated seconds, {:.0} a second; {} events",
        shared.seeds,
        arguments.from,
        shared.seeds as f64 / seconds,
        simulated / seconds,
        shared.events,
    )?;
    Ok(ExitCode::SUCCESS)
}

fn options_of(arguments: &Arguments, seed: u64) -> Options {
    let mut options = Options::from_seed(seed);
    options.nodes = arguments.nodes.unwrap_or(options.nodes).clamp(2, 7);
    options
}

/// One thread: takes the next seed until all are done, or one failed. Seeds are taken in order, so the first that fails is
/// the same however many threads there are.
fn work(arguments: &Arguments, until: Option<Instant>, shared: &Mutex<Shared>) {
    loop {
        let seed = {
            let Ok(mut shared) = shared.lock() else { return };
            let over = match until {
                Some(until) => Instant::now() >= until,
                None => shared.next - arguments.from >= arguments.runs,
            };
            if over || shared.failed.is_some() {
                return;
            }
            shared.next += 1;
            shared.next - 1
        };
        let options = options_of(arguments, seed);
        let outcome = if arguments.twice { run_twice(&options) } else { Ok(run(&options, false)) };
        let Ok(mut shared) = shared.lock() else { return };
        let failure = match outcome {
            Err((one, two)) => Some(Failure::TwoTraces(one, two)),
            Ok(outcome) => {
                shared.coverage.merge(&outcome.coverage);
                shared.simulated_ms += outcome.simulated_ms;
                shared.events += outcome.events;
                shared.seeds += 1;
                outcome.violation.is_some().then(|| Failure::Violation(Box::new(outcome)))
            }
        };
        let is_first = shared.failed.as_ref().is_none_or(|(known, _)| seed < *known);
        if let Some(failure) = failure
            && is_first
        {
            shared.failed = Some((seed, failure));
        }
        if shared.seeds.is_multiple_of(TELL_EVERY) {
            // Progress is for whoever waits; that nobody listens is no reason to stop.
            let _ = writeln!(std::io::stderr(), "{} seeds done", shared.seeds);
        }
    }
}

fn report(
    out: &mut impl Write,
    arguments: &Arguments,
    options: &Options,
    outcome: &Outcome,
) -> anyhow::Result<()> {
    let violation = outcome.violation.as_ref().context("a failure has a violation")?;
    writeln!(out, "seed {} FAILS: {violation}", options.seed)?;
    if arguments.no_shrink {
        return Ok(());
    }
    let (smallest, outcome) = shrink(options).context("a failing run fails again")?;
    writeln!(out, "the shortest story found: {smallest:#?}")?;
    for line in &outcome.story {
        writeln!(out, "{line}")?;
    }
    Ok(())
}
