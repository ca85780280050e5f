//! Opening an own file, and syncing more collections of it.

use std::fs::File;
use std::io;

use entgldb_replica::id::Collection;
use entgldb_replica::limits::INTEREST_MAX;

use super::store::{Keeps, OwnStore};
use super::{compare, tables};
use crate::failed::Outcome;
use crate::file::config::SqliteConfig;
use crate::file::connection::{in_transaction, put_stale_wal_aside};
use crate::file::error::OpenError;
use crate::journal::journal::Journal;
use crate::journal::opening;

impl OwnStore {
    /// Opens the file, which is made if it is not there. `config.watch` names the collections.
    ///
    /// # Errors
    /// Why it can't be opened, and what to do about it. See [`OpenError`].
    pub fn open(mut config: SqliteConfig, keeps: Keeps) -> Result<Self, OpenError> {
        let collections = collections(&config.watch)?;
        make(&config)?;
        put_stale_wal_aside(&config)?;
        tables::check_empty_or_own(&config.path, keeps)?;
        let connection = opening::open(&mut config, |_| Ok(()), |_| Ok(()))?;
        in_transaction(&connection, |connection| tables::create(connection, keeps))?;
        let journal = Journal::of(connection, config.path)?;
        let mut own = Self { journal, keeps, collections: Vec::new() };
        for collection in collections {
            own.add(collection)?;
        }
        Ok(own)
    }

    fn add(&mut self, collection: Collection) -> Outcome<()> {
        let (names, keeps) = (&mut self.journal.names, self.keeps);
        in_transaction(&self.journal.connection, |connection| {
            let is_new = names.known_collection(&collection).is_none();
            let no = names.collection_no(connection, &collection)?;
            if is_new && keeps == Keeps::Host {
                compare::begin(connection, no)?;
            }
            Ok(())
        })?;
        self.collections.push(collection);
        Ok(())
    }

    /// Syncs one more collection.
    ///
    /// # Errors
    /// When its name is none, or the file failed.
    pub fn watch(&mut self, name: &str) -> Result<Collection, OpenError> {
        let collection = collections(&[name.to_owned()])?.remove(0);
        if !self.collections.contains(&collection) {
            self.add(collection.clone())?;
            if self.keeps == Keeps::Host {
                self.begin_compare(&collection)?;
            }
        }
        Ok(collection)
    }
}

/// Makes the file if it was never there. One that is there is not opened: closing it would drop the locks that this process
/// holds on it. One that has gone while it was in use is not made again, for it may come back.
fn make(config: &SqliteConfig) -> Result<(), OpenError> {
    if config.holder.claim().identity.is_some() {
        return Ok(());
    }
    match File::options().write(true).create_new(true).open(&config.path) {
        Ok(_) => Ok(()),
        Err(source) => match source.kind() {
            io::ErrorKind::AlreadyExists => Ok(()),
            io::ErrorKind::PermissionDenied => Err(OpenError::ReadOnly { path: config.path.clone() }),
            _ => Err(OpenError::NotMade { path: config.path.clone(), source }),
        },
    }
}

fn collections(names: &[String]) -> Result<Vec<Collection>, OpenError> {
    let mut collections: Vec<Collection> = Vec::new();
    for name in names {
        let bad = |reason: String| OpenError::BadName { table: name.clone(), reason };
        if name.to_ascii_lowercase().starts_with("_entgldb_") {
            return Err(bad("such names belong to the engine".into()));
        }
        let collection = Collection::new(name).map_err(|error| bad(error.to_string()))?;
        if !collections.contains(&collection) {
            collections.push(collection);
        }
    }
    if collections.is_empty() {
        return Err(OpenError::NothingToWatch { available: Vec::new() });
    }
    if collections.len() > INTEREST_MAX {
        let reason = format!("the limit INTEREST_MAX allows {INTEREST_MAX} collections");
        return Err(OpenError::BadName { table: names[INTEREST_MAX].clone(), reason });
    }
    Ok(collections)
}
