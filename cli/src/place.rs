//! Which node a command is about: named by its database, by its data folder, or by both.

use std::path::PathBuf;

use entgldb::default_data_dir;

use crate::args::{NodePlace, Place};
use crate::failure::Failure;
use crate::status;

impl NodePlace {
    /// The node's data folder.
    pub(crate) fn data_dir(&self) -> PathBuf {
        match (&self.data_dir, &self.database) {
            (Some(data_dir), _) => data_dir.clone(),
            (None, database) => default_data_dir(database.as_deref().unwrap_or("".as_ref())),
        }
    }

    /// The node's database: as named, or as the node has noted in its data folder.
    pub(crate) fn database(&self) -> Result<PathBuf, Failure> {
        match &self.database {
            Some(database) => Ok(database.clone()),
            None => Ok(status::read(&self.data_dir())?.database),
        }
    }
}

impl Place {
    /// The node's data folder.
    pub(crate) fn data_dir(&self) -> PathBuf {
        self.data_dir.clone().unwrap_or_else(|| default_data_dir(&self.database))
    }
}
