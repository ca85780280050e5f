//! The project's chores, the same for a developer and for the machine that checks every change.
//!
//! ```text
//! cargo xtask check    formatting, lints, documentation, lock file, house rules
//! cargo xtask test     every test: Rust, doc tests, C and C++, scenarios with real processes, the benchmark in small
//! cargo xtask bench    EntglDb measured beside its control
//! cargo xtask header   include/entgldb.h made anew of ffi/src
//! cargo xtask install  headers and libraries for C and C++ under a prefix
//! cargo xtask fuzz     everything that reads what others wrote, fed with anything
//! cargo xtask soak     the simulator, bit flips and the scenarios in their long form
//! ```

mod bench;
mod check;
mod field;
mod fuzz;
mod header;
mod install;
mod interface;
mod python;
mod scenarios;
mod test;
mod tidy;
mod workspace;

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(name = "cargo xtask", about = "The project's chores")]
struct Arguments {
    #[command(subcommand)]
    chore: Chore,
}

#[derive(Subcommand)]
enum Chore {
    /// Formatting, lints, documentation, the lock file and the house rules. Changes nothing.
    Check,
    /// Every test there is. Needs python3 for the scenarios, and cmake, a C++ compiler and SQLite's headers
    /// for the C interface; what is missing is skipped, except where CI=true.
    Test,
    /// Measures EntglDb beside its control, in release mode, and prints a table.
    Bench(bench::Options),
    /// Makes include/entgldb.h anew of ffi/src.
    Header,
    /// The tests of the C interface alone, as a part of `test` runs them.
    Interface,
    /// Lays out headers and libraries for C and C++ programs, for pkg-config and CMake.
    Install(install::Options),
    /// Feeds everything that reads what others wrote with anything. Needs cargo-fuzz.
    Fuzz(fuzz::Options),
    /// The simulator until told, bit flips, and the scenarios in their long form: hundreds of kills and power cuts. Says
    /// first what it will run.
    Soak(scenarios::Soak),
}

fn main() -> ExitCode {
    match run(Arguments::parse().chore) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(chore: Chore) -> Result<()> {
    let workspace = workspace::Workspace::open()?;
    match chore {
        Chore::Check => check::run(&workspace),
        Chore::Test => test::run(&workspace),
        Chore::Bench(options) => bench::run(&workspace, &options),
        Chore::Header => header::write(&workspace),
        Chore::Interface => interface::test(&workspace),
        Chore::Install(options) => install::run(&workspace, &options),
        Chore::Fuzz(options) => fuzz::run(&workspace, &options),
        Chore::Soak(soak) => scenarios::soak(&workspace, &soak),
    }
}
