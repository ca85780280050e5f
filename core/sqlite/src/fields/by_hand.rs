//! What a person says of a column that no row proves.

use std::path::{Path, PathBuf};
use std::time::Duration;

use entgldb_replica::id::Collection;
use rusqlite::{Connection, OpenFlags};

use crate::failed::{SqliteFailed, While};
use crate::fields::map::{self, Alias, Map};
use crate::fields::{names, tables};
use crate::file::connection::{harden, in_plain_transaction, open_file};
use crate::file::error::{FORMAT, OpenError};
use crate::journal::schema;
use crate::table::{column, definition};

/// How long it waits for another program's lock.
const BUSY_WAIT: Duration = Duration::from_secs(10);

/// Why an alias can't be registered. Nothing was changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AliasError {
    /// The database was never synced, or not since this version.
    #[error("{path} has no fields of watched tables: start a node on it first")]
    NeverSynced {
        /// The database.
        path: PathBuf,
    },
    /// No such table is synced.
    #[error("the table {table:?} is not synced; synced are: {}", found.join(", "))]
    NoTable {
        /// The table as given.
        table: String,
        /// The tables that are.
        found: Vec<String>,
    },
    /// The table has no such column.
    #[error("the table {table:?} has no column {column:?}; it has: {}", found.join(", "))]
    NoColumn {
        /// The table.
        table: String,
        /// The column as given.
        column: String,
        /// The columns that it has.
        found: Vec<String>,
    },
    /// No field has ever had this name.
    #[error("no column of the table {table:?} was ever called {field:?}; its fields are: {}", found.join(", "))]
    NoField {
        /// The table.
        table: String,
        /// The field as given.
        field: String,
        /// The fields that it has.
        found: Vec<String>,
    },
    /// The field has a column already.
    #[error(
        "the field {field:?} of the table {table:?} is the column {column:?} already: drop or rename that first"
    )]
    Taken {
        /// The table.
        table: String,
        /// The field.
        field: String,
        /// Its column.
        column: String,
    },
    /// The column is known as another field's. The first registration counts on all nodes.
    #[error(
        "the column {column:?} of the table {table:?} is known as the field {field:?} already: give the column a name of its own"
    )]
    Known {
        /// The table.
        table: String,
        /// The column.
        column: String,
        /// The field that it is known as.
        field: String,
    },
    /// The database can't be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The database failed, or stayed locked by another program.
    #[error(transparent)]
    Failed(#[from] SqliteFailed),
}

/// Registers that a column of a synced table is the one that was called `old`, so that documents go on with that field. If `old` is
/// the column's own name, it is registered as another column than any before. May be called while a node runs, in this process or
/// another, and while none does.
///
/// # Errors
/// When there is no such table, column or field, the field has another column, or the database can't be used.
pub fn register_alias(path: &Path, table: &str, old: &str, new: &str) -> Result<(), AliasError> {
    let connection = open_file(path, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
    connection.busy_timeout(BUSY_WAIT).doing("setting up the connection")?;
    harden(&connection).doing("setting up the connection")?;
    match schema::format(&connection)? {
        Some(found) if found > FORMAT => {
            return Err(OpenError::NewerFormat { path: path.to_owned(), found }.into());
        }
        Some(_) if tables::are_there(&connection)? => {}
        _ => return Err(AliasError::NeverSynced { path: path.to_owned() }),
    }
    let mut refused = None;
    in_plain_transaction(&connection, |connection| {
        match register(connection, table, old, new) {
            Ok(()) => {}
            Err(AliasError::Failed(failed)) => return Err(failed),
            Err(error) => refused = Some(error),
        }
        Ok(())
    })?;
    refused.map_or(Ok(()), Err)
}

fn register(connection: &Connection, table: &str, old: &str, new: &str) -> Result<(), AliasError> {
    let (no, collection) = collection(connection, table)?;
    let (given, table) = ((old.to_owned(), new.to_owned()), collection.as_str().to_owned());
    let Ok((name, _)) = definition::find_watched(connection, no, &collection)? else {
        return Err(AliasError::NoTable { table, found: Vec::new() });
    };
    let columns: Vec<String> =
        column::raw_columns(connection, &name)?.into_iter().map(|column| column.name).collect();
    let Some(found) = columns.iter().find(|column| column.eq_ignore_ascii_case(new)) else {
        return Err(AliasError::NoColumn { table, column: given.1, found: columns });
    };
    let map = Map::read(connection, no)?;
    let is_new = old.eq_ignore_ascii_case(new);
    let field = if is_new { found.clone() } else { map.canonical(old).unwrap_or(old).to_owned() };
    if !is_new {
        let Some(known) = map.field(&field) else {
            let found = map.fields.into_iter().map(|field| field.field).collect();
            return Err(AliasError::NoField { table, field: given.0, found });
        };
        if let Some(other) = known.column.clone().filter(|other| columns.contains(other)) {
            return Err(AliasError::Taken { table, field, column: other });
        }
    }
    if let Some(first) = map.aliases.iter().find(|alias| alias.alias == *found && alias.field != field) {
        let (column, field) = (found.clone(), first.field.clone());
        return Err(AliasError::Known { table, column, field });
    }
    let at: i64 = connection
        .query_row(&format!("SELECT {}", crate::capture::clock::now_sql()), [], |row| row.get(0))
        .doing("reading the clock")?;
    map::put_alias(connection, no, &Alias { at, field, alias: found.clone(), node: String::new() })?;
    // A node that runs reads its tables again when the schema changes.
    connection
        .execute_batch(
            "CREATE TABLE main._entgldb_renewed(id INTEGER PRIMARY KEY); DROP TABLE main._entgldb_renewed",
        )
        .doing("telling a node that runs")?;
    Ok(())
}

/// The collection of a table, by its present or its former name.
fn collection(connection: &Connection, table: &str) -> Result<(i64, Collection), AliasError> {
    let name = names::collection_of(connection, table)?.unwrap_or_else(|| table.to_owned());
    let mut statement = connection
        .prepare(
            "SELECT no, name FROM _entgldb_collections WHERE substr(name, 1, 9) <> '_entgldb_' ORDER BY name",
        )
        .doing("reading the collections")?;
    let all = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?))).and_then(Iterator::collect);
    let all: Vec<(i64, String)> = all.doing("reading the collections")?;
    let is_it = |(_, found): &&(i64, String)| found.eq_ignore_ascii_case(&name);
    match all.iter().find(is_it).map(|(no, found)| (*no, Collection::new(found))) {
        Some((no, Ok(collection))) => Ok((no, collection)),
        _ => {
            let found = all.into_iter().map(|(_, name)| name).collect();
            Err(AliasError::NoTable { table: table.to_owned(), found })
        }
    }
}
