//! The watched tables as they are now, and what must be done when their schema changes.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use entgldb_replica::id::Collection;
use rusqlite::Connection;

use crate::capture::progress;
use crate::capture::triggers::{self, Installed};
use crate::failed::{Outcome, While};
use crate::fields::reconcile::reconcile;
use crate::journal::names::Names;
use crate::journal::schema;
use crate::table::collation;
use crate::table::definition::{Table, Unwatchable};
use crate::table::key::encoding;

/// The tables that are watched, and the schema they were read under.
#[derive(Default, Debug)]
pub(crate) struct Watched {
    version: i64,
    tables: Vec<Arc<Table>>,
    by_collection: HashMap<Collection, Arc<Table>>,
    by_no: HashMap<i64, Arc<Table>>,
    /// Whether the application has triggers on any of them: then applying must let them fire and put back what they do.
    pub(crate) has_application_triggers: bool,
    /// Numbers of tables that are perhaps being built again ([`crate::capture::rebuild`]).
    pub(crate) perhaps_copied: BTreeSet<i64>,
}

/// A version that no schema has: SQLite's have 32 bits.
const EXPIRED: i64 = i64::MIN;

/// SQLite's counter of schema changes.
pub(crate) fn schema_version(connection: &Connection) -> Outcome<i64> {
    connection
        .prepare_cached("PRAGMA main.schema_version")
        .and_then(|mut statement| statement.query_row([], |row| row.get(0)))
        .doing("reading the schema's version")
}

impl Watched {
    /// Reads the tables, brings the triggers in order, and notes which tables must be looked through because they were
    /// written without triggers. To be called in a write transaction. Tables that cannot be watched any more are left out
    /// and named in the second result.
    pub(crate) fn read(
        connection: &Connection,
        names: &mut Names,
        watch: &[Collection],
    ) -> Outcome<(Self, Vec<(Collection, Unwatchable)>)> {
        collation::stand_in(connection).doing("looking for collations")?;
        let encoding = encoding(connection)?;
        let (mut watched, mut missing) = (Self::default(), Vec::new());
        for collection in watch {
            let no = names.collection_no(connection, collection)?;
            reconcile(connection, names, (no, collection), encoding)?;
            match Table::read(connection, no, collection, encoding)? {
                Ok(table) => watched.add(Arc::new(table)),
                Err(unwatchable) => missing.push((collection.clone(), unwatchable)),
            }
        }
        for table in &watched.tables {
            match triggers::install(connection, table)? {
                Installed::Unchanged | Installed::Renewed => {}
                Installed::Displacing => progress::begin_missing(connection, table)?,
                Installed::Anew => progress::begin(connection, names, table)?,
            }
        }
        watched.forget_others(connection)?;
        watched.version = schema_version(connection)?;
        schema::put(connection, "schema_version", watched.version)?;
        Ok((watched, missing))
    }

    fn add(&mut self, table: Arc<Table>) {
        self.has_application_triggers |= table.has_application_triggers;
        self.by_collection.insert(table.collection.clone(), table.clone());
        self.by_no.insert(table.no, table.clone());
        self.tables.push(table);
    }

    /// A table that was watched once and is not any more needs no triggers.
    fn forget_others(&self, connection: &Connection) -> Outcome<()> {
        let mut statement =
            connection.prepare("SELECT no FROM _entgldb_collections").doing("reading the collections")?;
        let numbers: Vec<i64> = statement
            .query_map([], |row| row.get(0))
            .and_then(Iterator::collect)
            .doing("reading the collections")?;
        for no in numbers.into_iter().filter(|no| !self.by_no.contains_key(no)) {
            triggers::remove(connection, no)?;
        }
        Ok(())
    }

    /// Makes the tables be read again before they are used, as after a change of the schema.
    pub(crate) fn expire(&mut self) {
        self.version = EXPIRED;
    }

    /// Whether the schema is still the one that was read.
    pub(crate) fn is_current(&self, connection: &Connection) -> Outcome<bool> {
        Ok(schema_version(connection)? == self.version)
    }

    pub(crate) fn is_perhaps_copied(&self, no: i64) -> bool {
        self.perhaps_copied.contains(&no)
    }

    pub(crate) fn tables(&self) -> &[Arc<Table>] {
        &self.tables
    }

    pub(crate) fn table(&self, collection: &Collection) -> Option<&Arc<Table>> {
        self.by_collection.get(collection)
    }

    pub(crate) fn numbered(&self, no: i64) -> Option<&Arc<Table>> {
        self.by_no.get(&no)
    }

    pub(crate) fn version(&self) -> i64 {
        self.version
    }
}
