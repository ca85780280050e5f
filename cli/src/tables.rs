//! `entgldb watch` and `entgldb unwatch`: which tables a running node syncs.

use entgldb::{Answer, ControlError, Request, request};
use serde_json::json;

use crate::args::TableArguments;
use crate::failure::Failure;
use crate::output;

pub(crate) fn watch(arguments: &TableArguments) -> Result<(), Failure> {
    let answer = ask(arguments, &Request::Watch { table: arguments.table.clone() })?;
    let table = answer.table.as_ref().unwrap_or(&arguments.table);
    if arguments.json {
        output::json_line(&json!({ "watched": table }))?;
    } else {
        output::note(format_args!(
            "{table} is synced until the node stops; to keep it, start the node with --watch {table} too."
        ));
    }
    Ok(())
}

pub(crate) fn unwatch(arguments: &TableArguments) -> Result<(), Failure> {
    let table = &arguments.table;
    ask(arguments, &Request::Unwatch { table: table.clone() })?;
    if arguments.json {
        output::json_line(&json!({ "unwatched": table }))?;
    } else {
        output::note(format_args!(
            "{table} is not synced any more until the node stops, and its rows stay; to keep that, start the node without \
             --watch {table}."
        ));
    }
    Ok(())
}

fn ask(arguments: &TableArguments, asked: &Request) -> Result<Answer, Failure> {
    request(&arguments.place.data_dir(), asked, &mut |_| {}).map_err(|error| refused(&error))
}

/// A running node could not be asked, or would not.
pub(crate) fn refused(error: &ControlError) -> Failure {
    match error {
        ControlError::NotRunning => Failure::start(
            "no process runs the node",
            "name the tables with --watch when you start it; or name the right database or --data-dir",
        ),
        ControlError::NoAnswer => {
            Failure::run(error, "`entgldb status` shows how the node is doing; then try again")
        }
        ControlError::Refused(_) => {
            Failure::start(error, "the node goes on as before; mend that and try again")
        }
        error => Failure::start(error, "run this as the user that runs the node"),
    }
}
