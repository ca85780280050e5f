//! The tables that a caller names.

use entgldb_replica::id::{Collection, NameError};
use rusqlite::Connection;

use crate::failed::{Outcome, While};
use crate::fields::names;
use crate::file::error::OpenError;
use crate::table::definition::{self, Table, Unwatchable};
use crate::table::key::encoding;

/// The collections to watch, each with its table: under the name with which nodes agree to sync it, else the schema's spelling.
pub(crate) fn collections(
    connection: &Connection,
    watch: &[String],
) -> Result<Vec<(Collection, String)>, OpenError> {
    if watch.is_empty() {
        return Err(OpenError::NothingToWatch { available: available(connection)? });
    }
    let mut collections: Vec<(Collection, String)> = Vec::new();
    for name in watch {
        let bad = |reason: &str| OpenError::BadName { table: name.clone(), reason: reason.to_owned() };
        let lower = name.to_ascii_lowercase();
        if lower.starts_with("_entgldb_") || lower.starts_with("sqlite_") {
            return Err(bad("such names belong to the engine and to SQLite"));
        }
        let renamed = names::table_of(connection, name)?;
        let table = match (definition::find(connection, name)?, renamed) {
            (Ok((found, _)), _) => found,
            (Err(_), Some(renamed)) => renamed,
            // A table that was synced before waits until it is there again.
            (Err(_), _) if names::is_known(connection, name)? => name.clone(),
            (Err(unwatchable), _) => return Err(refusal(connection, name, &unwatchable)?),
        };
        let agreed = names::agreed(connection, &table)?;
        let collection = Collection::new(&agreed).map_err(|error: NameError| bad(&error.to_string()))?;
        if collections.iter().all(|(other, _)| *other != collection) {
            collections.push((collection, table));
        }
    }
    Ok(collections)
}

/// Refuses tables that can't be watched, while nothing is written yet.
pub(crate) fn check(connection: &Connection, watch: &[String]) -> Result<(), OpenError> {
    let encoding = encoding(connection)?;
    for (_, table) in collections(connection, watch)? {
        let bad = |error: NameError| OpenError::BadName { table: table.clone(), reason: error.to_string() };
        let name = Collection::new(&table).map_err(bad)?;
        if let Err(unwatchable) = Table::read(connection, 0, &name, encoding)? {
            return Err(refusal(connection, &table, &unwatchable)?);
        }
    }
    Ok(())
}

/// The error for a table that cannot be watched.
pub(crate) fn refusal(connection: &Connection, name: &str, unwatchable: &Unwatchable) -> Outcome<OpenError> {
    let table = name.to_owned();
    Ok(match unwatchable {
        Unwatchable::Missing => OpenError::NoSuchTable { table, available: available(connection)? },
        Unwatchable::View => OpenError::NotAnOrdinaryTable { table, what: "view" },
        Unwatchable::Virtual => OpenError::NotAnOrdinaryTable { table, what: "virtual table" },
        Unwatchable::NoKey => OpenError::NoPrimaryKey { table },
        Unwatchable::Collation(collation) => {
            OpenError::UnknownCollation { table, collation: collation.clone() }
        }
    })
}

fn available(connection: &Connection) -> Outcome<Vec<String>> {
    let mut statement = connection
        .prepare(
            "SELECT name FROM pragma_table_list WHERE schema = 'main' AND type = 'table' AND substr(name, 1, 7) <> 'sqlite_'
             AND substr(name, 1, 9) <> '_entgldb_' ORDER BY name",
        )
        .doing("listing the tables")?;
    let names = statement.query_map([], |row| row.get(0));
    names.and_then(Iterator::collect).doing("listing the tables")
}
