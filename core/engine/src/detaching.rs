//! Taking a node's tables out of its database, once the node does not run.

use std::path::Path;

use entgldb_sqlite::{Detached, OpenError};

use crate::data_dir::{DataDir, DataDirError};

/// Nothing was taken out of a database.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DetachError {
    /// The node runs, or its folder can't be used.
    #[error(transparent)]
    DataDir(#[from] DataDirError),
    /// The database can't be used.
    #[error(transparent)]
    Store(#[from] OpenError),
}

/// Takes everything of the engine's out of a database, as [`entgldb_sqlite::detach`] does, while the node can't be started. The
/// data folder stays: without the identity in it, this node is another one when the database is synced again.
///
/// # Errors
/// When the node runs, or the database can't be used. Nothing has changed then.
pub fn detach(database: &Path, data_dir: &Path) -> Result<Detached, DetachError> {
    let _locked = DataDir::lock_existing(data_dir)?;
    Ok(entgldb_sqlite::detach(database)?)
}
