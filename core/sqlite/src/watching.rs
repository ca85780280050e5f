//! Watching other tables while the store is open.

use entgldb_replica::id::Collection;

use crate::failed::{Outcome, While};
use crate::names::Names;
use crate::open::{self, OpenError};
use crate::store::SqliteStore;
use crate::watched::Watched;

impl SqliteStore {
    /// Watches a table from now on. Its rows are captured bit by bit by
    /// [`Store::captured`](entgldb_replica::store::Store::captured), as after [`SqliteStore::open`]. Answers the
    /// collection: the table's name in the schema's spelling.
    ///
    /// # Errors
    /// Why the table can't be watched, or that the database failed.
    pub fn watch(&mut self, table: &str) -> Result<Collection, OpenError> {
        let added = open::collections(&self.connection, &[table.to_owned()])?;
        let collection = added.into_iter().next().expect("one name gives one collection or an error");
        if self.watch.contains(&collection) {
            return Ok(collection);
        }
        let mut watch = self.watch.clone();
        watch.push(collection.clone());
        let names = &mut self.names;
        let read =
            open::in_transaction(&self.connection, |connection| Watched::read(connection, names, &watch));
        let (watched, missing) = match read {
            Ok(read) => read,
            Err(failed) => {
                self.names = Names::load(&self.connection)?;
                return Err(failed.into());
            }
        };
        if let Some((_, unwatchable)) = missing.into_iter().find(|(missing, _)| *missing == collection) {
            return Err(open::refusal(&self.connection, table, unwatchable)?);
        }
        watched.prepare(&self.connection)?;
        (self.watched, self.watch) = (watched, watch);
        self.tending.schema_changed();
        Ok(collection)
    }

    /// Watches a table no longer: its triggers go, its rows stay, and so does what is known of them. What was written to it
    /// and not captured yet is found when it is watched again. Answers whether it was watched.
    ///
    /// # Errors
    /// When the database failed.
    pub fn unwatch(&mut self, table: &str) -> Outcome<bool> {
        let is_it = |collection: &&Collection| collection.as_str().eq_ignore_ascii_case(table);
        let Some(collection) = self.watch.iter().find(is_it).cloned() else { return Ok(false) };
        let watch: Vec<Collection> =
            self.watch.iter().filter(|watched| **watched != collection).cloned().collect();
        let names = &mut self.names;
        let (watched, _) = open::in_transaction(&self.connection, |connection| {
            let no = names.collection_no(connection, &collection)?;
            connection
                .execute("DELETE FROM _entgldb_outbox WHERE tbl = ?1", [no])
                .doing("removing notes of a table that is not watched any more")?;
            Watched::read(connection, names, &watch)
        })?;
        watched.prepare(&self.connection)?;
        (self.watched, self.watch) = (watched, watch);
        self.tending.schema_changed();
        Ok(true)
    }
}
