//! Opening a store to look at it, beside whatever runs.

use std::path::Path;

use entgldb::inspect::Inspector;
use entgldb::{SqliteFailed, StoreOpenError};

use crate::advice;
use crate::failure::Failure;

/// Opens the store in a database.
pub(crate) fn open(database: &Path) -> Result<Inspector, Failure> {
    match Inspector::open(database) {
        Ok(Some(inspector)) => Ok(inspector),
        Ok(None) => Err(never_synced(database)),
        Err(error) => Err(unusable(database, &error)),
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
pub(crate) fn unusable(database: &Path, error: &StoreOpenError) -> Failure {
    Failure::start(advice::what(error, database), advice::of_open(error, database))
}

/// The database can't be read or written to the end.
pub(crate) fn unreadable(database: &Path, failed: &SqliteFailed) -> Failure {
    Failure::run(format_args!("{}: {failed}", database.display()), advice::of_failed(failed, database))
}
