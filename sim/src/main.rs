//! Runs simulations from the command line; see `--help` and `docs/RELIABILITY.md`.

use std::io::Write;
use std::process::{Command, ExitCode};
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
    /// Go on until so many minutes have passed.
    #[arg(long)]
    minutes: Option<u64>,
    /// Carry out every seed twice and compare.
    #[arg(long)]
    twice: bool,
    /// Report a failure as it is, without making it smaller.
    #[arg(long)]
    no_shrink: bool,
}

fn main() -> anyhow::Result<ExitCode> {
    let arguments = Arguments::parse();
    let mut out = std::io::stdout().lock();
    writeln!(out, "entgldb-sim {} at commit {}", env!("CARGO_PKG_VERSION"), commit())?;
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
    writeln!(out, "seed {seed}: {options:#?}")?;
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

fn many(out: &mut impl Write, arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let begun = Instant::now();
    let until = arguments.minutes.map(|minutes| begun + Duration::from_secs(60 * minutes));
    let mut coverage = Coverage::default();
    let (mut simulated_ms, mut events, mut seed) = (0, 0, arguments.from);
    loop {
        let over = match until {
            Some(until) => Instant::now() >= until,
            None => seed - arguments.from >= arguments.runs,
        };
        if over {
            break;
        }
        let options = Options::from_seed(seed);
        let outcome = if arguments.twice {
            run_twice(&options)
                .map_err(|hashes| anyhow::anyhow!("seed {seed} gives two traces: {hashes:x?}"))?
        } else {
            run(&options, false)
        };
        coverage.merge(&outcome.coverage);
        simulated_ms += outcome.simulated_ms;
        events += outcome.events;
        if outcome.violation.is_some() {
            report(out, arguments, &options, &outcome)?;
            return Ok(ExitCode::FAILURE);
        }
        seed += 1;
        if (seed - arguments.from).is_multiple_of(1_000) {
            writeln!(out, "{} seeds clean", seed - arguments.from)?;
        }
    }
    let seconds = begun.elapsed().as_secs_f64();
    writeln!(out, "{coverage}")?;
    writeln!(
        out,
        "{} seeds from {} clean in {seconds:.1} s: {} simulated seconds, {:.0} a second; {events} events",
        seed - arguments.from,
        arguments.from,
        simulated_ms / 1_000,
        simulated_ms as f64 / 1_000.0 / seconds,
    )?;
    Ok(ExitCode::SUCCESS)
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
