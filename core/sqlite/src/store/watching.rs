//! Watching other tables while the store is open.

use entgldb_replica::id::Collection;

use super::SqliteStore;
use super::tables::{adopt_names, read_watched};
use crate::capture::named;
use crate::capture::watched::Watched;
use crate::failed::{Outcome, While};
use crate::file::connection::in_transaction;
use crate::file::error::OpenError;

impl SqliteStore {
    /// Watches a table from now on. Its rows are captured bit by bit by
    /// [`Store::captured`](entgldb_replica::store::Store::captured), as after [`SqliteStore::open`]. Answers the
    /// collection: the table's name in the schema's spelling.
    ///
    /// # Errors
    /// Why the table can't be watched, or that the database failed.
    pub fn watch(&mut self, table: &str) -> Result<Collection, OpenError> {
        let added = named::collections(&self.journal.connection, &[table.to_owned()])?;
        adopt_names(&mut self.journal, &added)?;
        let (collection, _) = added.into_iter().next().expect("one name gives one collection or an error");
        if self.watch.contains(&collection) {
            return Ok(collection);
        }
        let mut watch = self.watch.clone();
        watch.push(collection.clone());
        let (watched, missing) = read_watched(&mut self.journal, &watch, &self.watched)?;
        if let Some((_, unwatchable)) = missing.iter().find(|(missing, _)| *missing == collection) {
            return Err(named::refusal(&self.journal.connection, table, unwatchable)?);
        }
        self.use_watched(watched, watch, &missing)?;
        Ok(collection)
    }

    /// Watches a table no longer: its triggers go, its rows stay, and so does what is known of them. What was written to it
    /// and not captured yet is found when it is watched again. Answers whether it was watched.
    ///
    /// # Errors
    /// When the database failed.
    pub fn unwatch(&mut self, table: &str) -> Outcome<bool> {
        let is_it = |collection: &&Collection| {
            let renamed = self.watched.table(collection).map(|table| &table.name);
            collection.as_str().eq_ignore_ascii_case(table)
                || renamed.is_some_and(|renamed| renamed.eq_ignore_ascii_case(table))
        };
        let Some(collection) = self.watch.iter().find(is_it).cloned() else { return Ok(false) };
        let watch: Vec<Collection> =
            self.watch.iter().filter(|watched| **watched != collection).cloned().collect();
        let (names, before) = (&mut self.journal.names, &self.watched);
        let (watched, missing) = in_transaction(&self.journal.connection, |connection| {
            let no = names.collection_no(connection, &collection)?;
            connection
                .execute("DELETE FROM _entgldb_outbox WHERE tbl = ?1", [no])
                .and_then(|_| connection.execute("DELETE FROM _entgldb_held WHERE tbl = ?1", [no]))
                .doing("removing notes of a table that is not watched any more")?;
            Watched::read(connection, names, &watch, before)
        })?;
        self.use_watched(watched, watch, &missing)?;
        Ok(true)
    }
}
