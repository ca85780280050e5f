//! Opening a store to look at it, beside whatever runs.

use std::fmt::Display;
use std::path::Path;

use entgldb::inspect::Inspector;

use crate::failure::Failure;

/// Opens the store in a database.
pub(crate) fn open(database: &Path) -> Result<Inspector, Failure> {
    match Inspector::open(database) {
        Ok(Some(inspector)) => Ok(inspector),
        Ok(None) => Err(never_synced(database)),
        Err(error) => Err(unusable(database, error)),
    }
}

/// No node has run on this database.
pub(crate) fn never_synced(database: &Path) -> Failure {
    Failure::start(
        format_args!("no node has run on {} yet", database.display()),
        "start one with `entgldb sync`, or name the right database",
    )
}

/// The database can't be opened.
pub(crate) fn unusable(database: &Path, error: impl Display) -> Failure {
    let place = database.display();
    Failure::start(
        error,
        format_args!("give the database that a node syncs in place of {place}; it must be readable"),
    )
}

/// The database can't be read to the end.
pub(crate) fn unreadable(database: &Path, error: impl Display) -> Failure {
    Failure::run(
        format_args!("cannot read {}: {error}", database.display()),
        "check the disk; then look for damage with `entgldb verify`",
    )
}
