//! The `entgldb` command: sync an existing SQLite database with no code, and look after the nodes that do.
//!
//! Each command is a file of its own with one `run`, which does its work or gives a [`failure::Failure`]: an exit code
//! and the words for people. Nothing here knows how syncing works; that is the `entgldb` crate's.

mod advice;
mod args;
mod calendar;
mod conflicts;
mod demo;
mod detach;
mod doctor;
mod failure;
mod inspection;
mod keygen;
mod logging;
mod members;
mod output;
mod peers;
mod place;
mod problems;
mod refusal;
mod schema;
mod signals;
mod snapshot;
mod status;
mod sync;
mod tables;
mod terminal;
mod verify;

use std::process::ExitCode;

use args::{Arguments, Command};
use clap::Parser;

fn main() -> ExitCode {
    let outcome = match Arguments::parse().command {
        Command::Keygen(arguments) => keygen::run(&arguments),
        Command::Sync(arguments) => sync::run(&arguments),
        Command::Doctor(arguments) => doctor::run(&arguments),
        Command::Detach(arguments) => detach::run(&arguments),
        Command::Status(arguments) => status::run(&arguments),
        Command::Peers(arguments) => peers::run(&arguments),
        Command::Members(arguments) => members::run(&arguments),
        Command::Watch(arguments) => tables::watch(&arguments),
        Command::Unwatch(arguments) => tables::unwatch(&arguments),
        Command::Snapshot(arguments) => snapshot::run(&arguments),
        Command::Conflicts(arguments) => conflicts::run(&arguments),
        Command::Problems(arguments) => problems::run(&arguments),
        Command::Schema(arguments) => schema::run(&arguments),
        Command::Verify(arguments) => verify::run(&arguments),
        Command::Demo(arguments) => demo::run(&arguments),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(),
    }
}
