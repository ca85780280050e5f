//! The engine's tables that keep fields.

use rusqlite::{Connection, ErrorCode};

use crate::failed::{Outcome, While};

/// Since format 4. A field without a column has been dropped here. `position` is the column's place in the table. `added` is 0 for the columns of the first watch, else it
/// counts up. `fill` is the one JSON value that all rows had when the column was found, `fill_rows` how many they were (2: two or more), `is_computed` says that there were several,
/// and `known_fill` is the value that the nodes agree on. An alias of this node has no `node`.
const TABLES: &str = "
CREATE TABLE IF NOT EXISTS _entgldb_fields(collection_no INTEGER NOT NULL, field TEXT NOT NULL, column_name TEXT,
  declared TEXT NOT NULL, position INTEGER NOT NULL, added INTEGER NOT NULL, fill TEXT, fill_rows INTEGER NOT NULL DEFAULT 0, is_computed INTEGER NOT NULL DEFAULT 0, known_fill TEXT,
  named_at INTEGER NOT NULL, PRIMARY KEY(collection_no, field)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS _entgldb_aliases(collection_no INTEGER NOT NULL, alias TEXT NOT NULL, field TEXT NOT NULL,
  at INTEGER NOT NULL, node TEXT NOT NULL DEFAULT '', PRIMARY KEY(collection_no, alias, field, node)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS _entgldb_tables(collection_no INTEGER PRIMARY KEY, name TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS _entgldb_table_problems(collection_no INTEGER NOT NULL, place TEXT NOT NULL, message TEXT NOT NULL,
  noted_at INTEGER NOT NULL, PRIMARY KEY(collection_no, place)) WITHOUT ROWID;
";

/// Creates the tables. To be called in a write transaction.
pub(crate) fn create(connection: &Connection) -> Outcome<()> {
    connection.execute_batch(TABLES).doing("creating the engine's tables of fields")
}

/// Whether the tables are there: a database of an earlier format that is only read has none. A statement that is cached costs
/// less than a look into the schema, which has no index.
pub(crate) fn are_there(connection: &Connection) -> Outcome<bool> {
    match connection.prepare_cached("SELECT 1 FROM main._entgldb_fields") {
        Ok(_) => Ok(true),
        Err(error) if error.sqlite_error_code() == Some(ErrorCode::Unknown) => Ok(false),
        Err(error) => Err(error).doing("looking for the engine's tables of fields"),
    }
}
