//! `entgldb detach`: everything of EntglDb is taken out of a database, and its rows stay.

use std::io::{self, IsTerminal, Write};
use std::path::Path;

use console::style;
use entgldb::{Attached, Detached, attached, detach, node_runs};
use serde_json::json;

use crate::args::DetachArguments;
use crate::failure::{Exit, Failure};
use crate::inspection;
use crate::output::{self, count, plain};
use crate::refusal;

pub(crate) fn run(arguments: &DetachArguments) -> Result<(), Failure> {
    let database = &arguments.place.database;
    let data_dir = arguments.place.data_dir();
    let found = attached(database).map_err(|error| inspection::unusable(database, &error))?;
    let Some(found) = found else { return Err(inspection::never_synced(database)) };
    if node_runs(&data_dir) {
        return Err(Failure::start(
            format_args!("the node of {} runs", database.display()),
            "stop it (Ctrl-C or SIGTERM), then detach",
        ));
    }
    if !arguments.json {
        announce(database, &found);
    }
    if !arguments.yes {
        confirm(database)?;
    }
    let detached = detach(database, &data_dir).map_err(|error| refusal::of_detach(&error, database))?;
    if arguments.json {
        print_json(&found, &detached)?;
    } else {
        report(database, &data_dir, (&found, &detached));
    }
    Ok(())
}

/// What is about to go.
fn announce(database: &Path, found: &Attached) {
    output::note(format_args!("Triggers and tables of EntglDb are taken out of {}.", database.display()));
    if !found.watched.is_empty() {
        output::note(format_args!("  synced no more: {}", plain(&found.watched.join(", "))));
    }
    output::note("  kept: all rows of your tables, here and on the other members");
    let warn =
        |text: String| output::note(format_args!("{} {text}", style("!").for_stderr().yellow().bold()));
    if let Some(pending) = found.pending.filter(|pending| *pending > 0) {
        warn(format!("{} not captured yet: no other node gets them", were(pending, "write")));
    }
    if let Some(unsent) = found.unsent.filter(|unsent| *unsent > 0) {
        warn(format!(
            "{} not confirmed by any other member. To be sure that they have them, start the node, wait until \
             `entgldb status` says that it is in sync, and stop it",
            were(unsent, "entry")
        ));
    }
}

fn were(number: u64, noun: &str) -> String {
    format!("{} {}", count(number, noun), if number == 1 { "was" } else { "were" })
}

/// Asks on a terminal; a script that can't answer must have said so.
fn confirm(database: &Path) -> Result<(), Failure> {
    if !io::stdin().is_terminal() || !io::stderr().is_terminal() {
        return Err(Failure::start(
            format_args!("nobody can be asked whether to detach {}", database.display()),
            "give --yes if that is meant",
        ));
    }
    let _ = write!(io::stderr(), "Go on? [y/N] ");
    let mut answer = String::new();
    let read = io::stdin().read_line(&mut answer);
    match read {
        Ok(_) if ["y", "yes"].iter().any(|yes| answer.trim().eq_ignore_ascii_case(yes)) => Ok(()),
        _ => Err(Failure::new(Exit::Interrupted, "nothing was changed", "")),
    }
}

fn print_json(found: &Attached, detached: &Detached) -> Result<(), Failure> {
    output::json_line(&json!({
        "node": found.node.map(|node| node.to_string()), "tables": found.watched, "pending": found.pending,
        "unsent": found.unsent, "dropped_triggers": detached.triggers, "dropped_tables": detached.tables,
        "journal_mode": detached.journal_mode, "journal_before": detached.journal_before,
    }))?;
    Ok(())
}

fn report(database: &Path, data_dir: &Path, (found, detached): (&Attached, &Detached)) {
    output::note(format_args!(
        "Took {} and {} out of {}.",
        count(detached.triggers, "trigger"),
        count(detached.tables, "table"),
        database.display()
    ));
    output::note(format_args!("  {}", journal_in_words(detached)));
    if let Some(node) = found.node {
        output::note(format_args!(
            "  The other members keep history for this node until this is run on one of them: entgldb members remove DB {node}"
        ));
    }
    if data_dir.exists() {
        output::note(format_args!(
            "  {} stays; without it this is a new node if it is synced again",
            data_dir.display()
        ));
    }
    output::note("  VACUUM gives the room back that the tables took");
}

fn journal_in_words(detached: &Detached) -> String {
    let now = &detached.journal_mode;
    match &detached.journal_before {
        Some(before) if before.eq_ignore_ascii_case(now) => {
            format!("The journal mode is {now}, as before the first sync")
        }
        Some(before) => format!(
            "The journal mode was {before} before the first sync and stays {now}, because another program has the database \
             open. Once it is closed: PRAGMA journal_mode = {before}"
        ),
        None => format!("The journal mode stays {now}; what it was before the first sync is not known"),
    }
}
