//! `entgldb snapshot`: the rows of a node in a file.

use std::path::Path;

use entgldb::{
    CommandError, ControlError, Exported, ImportError, ImportSummary, Offline, PortableError, Request,
    export_snapshot, node_runs, request,
};
use indicatif::ProgressBar;
use serde_json::json;

use crate::args::{ExportArguments, ImportArguments, SnapshotAction, SnapshotArguments};
use crate::failure::{Exit, Failure};
use crate::inspection;
use crate::output::{self, count, size_of_bytes};
use crate::refusal;
use crate::tables::refused;
use crate::terminal::Terminal;

pub(crate) fn run(arguments: &SnapshotArguments) -> Result<(), Failure> {
    match &arguments.action {
        SnapshotAction::Export(arguments) => export(arguments),
        SnapshotAction::Import(arguments) => import(arguments),
    }
}

fn show(bar: &ProgressBar, progress: Exported) {
    bar.set_length(progress.total.max(progress.rows));
    bar.set_position(progress.rows);
}

fn export(arguments: &ExportArguments) -> Result<(), Failure> {
    let (database, file) = (&arguments.place.database, &arguments.file);
    let bar = Terminal::new().bar("exporting", 0);
    let exported = export_snapshot(database, file, &mut |progress| show(&bar, progress));
    bar.finish_and_clear();
    let exported = exported.map_err(|error| match error {
        PortableError::Open(error) => inspection::unusable(database, &error),
        PortableError::NeverSynced => inspection::never_synced(database),
        PortableError::Store(failed) => inspection::unreadable(database, &failed),
        PortableError::Io { .. } => {
            Failure::run(error, "give a file on a disk with room that this user may write")
        }
        error if node_runs(&arguments.place.data_dir()) => {
            Failure::start(error, "wait until `entgldb status` says that the node is in sync, export again")
        }
        error => Failure::start(
            error,
            "start the node with `entgldb sync`, wait until it is in sync, export again",
        ),
    })?;
    let bytes = std::fs::metadata(file).map_or(0, |meta| meta.len());
    if arguments.json {
        output::json_line(&json!({ "rows": exported.rows, "bytes": bytes }))?;
    } else {
        let (rows, size) = (count(exported.rows, "row"), size_of_bytes(bytes));
        output::note(format_args!("Wrote {rows} to {} ({size}).", file.display()));
    }
    Ok(())
}

fn import(arguments: &ImportArguments) -> Result<(), Failure> {
    let bar = Terminal::new().bar("importing", 0);
    let imported = import_where_it_is(arguments, &mut |progress| show(&bar, progress));
    bar.finish_and_clear();
    let imported = imported?;
    if arguments.json {
        output::json_line(&imported)?;
        return Ok(());
    }
    let (rows, tables) = (count(imported.rows, "row"), imported.collections.join(", "));
    output::note(format_args!("Joined {rows} of {tables}; what is here in a younger version stayed."));
    if !imported.passed_over.is_empty() {
        let tables = imported.passed_over.join(", ");
        output::note(format_args!("Passed over {tables}: the node does not sync that."));
    }
    Ok(())
}

/// Through the node if one runs, else in its place.
fn import_where_it_is(
    arguments: &ImportArguments,
    on_progress: &mut dyn FnMut(Exported),
) -> Result<ImportSummary, Failure> {
    let (place, file) = (&arguments.place, &arguments.file);
    let absolute = std::path::absolute(file).map_err(|error| unusable_file(file, &error))?;
    let data_dir = place.data_dir();
    match request(&data_dir, &Request::Import { file: absolute }, on_progress) {
        Ok(answer) => return Ok(answer.imported.unwrap_or_default()),
        Err(ControlError::NotRunning) => {}
        Err(error) => return Err(refused(&error)),
    }
    let offline = Offline::open(&place.database, &data_dir, &arguments.watch, &arguments.merge);
    let mut offline = offline.map_err(|error| refusal::of_offline(&error, &place.database))?;
    let imported = offline.import(file, on_progress).map_err(|error| match &error {
        ImportError::File { .. } => Failure::new(
            Exit::CheckFailed,
            &error,
            "nothing was joined; export the snapshot again, or copy the file again",
        ),
        ImportError::NothingShared { .. } => Failure::start(&error, "name the tables to join with --watch"),
        ImportError::Busy => Failure::run(&error, "what was joined already stays"),
        ImportError::Command(CommandError::StoreFailed) => {
            Failure::run(&error, format_args!("`entgldb doctor {}` says more", place.database.display()))
        }
        _ => Failure::run(&error, "mend that and import it again: what was joined already stays"),
    })?;
    offline.close().map_err(|error| inspection::unreadable(&place.database, &error))?;
    Ok(imported)
}

fn unusable_file(file: &Path, error: &std::io::Error) -> Failure {
    Failure::start(format_args!("{}: {error}", file.display()), "give the path of a file")
}
