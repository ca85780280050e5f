//! The tables that only an own file has.

use std::path::Path;

use rusqlite::{Connection, OpenFlags};

use super::store::Keeps;
use crate::failed::{Outcome, While};
use crate::file::connection::open_file;
use crate::file::error::OpenError;
use crate::journal::schema;

/// The name under which it is noted who keeps the documents.
const KEEPS: &str = "keeps";

/// `recorded` says more of the notes in the outbox: the first note of the same call, and what was done. `intent` is what is
/// about to be done in the application's store; `shown` what that store makes of documents it can't hold as they are;
/// `missing` what a comparison did not find there.
const TABLES: &str = "
CREATE TABLE IF NOT EXISTS _entgldb_recorded(id INTEGER PRIMARY KEY, first INTEGER NOT NULL, kind INTEGER NOT NULL, content BLOB);
CREATE TABLE IF NOT EXISTS _entgldb_documents(collection_no INTEGER NOT NULL, key TEXT NOT NULL, content BLOB NOT NULL,
  PRIMARY KEY(collection_no, key)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS _entgldb_intent(id INTEGER PRIMARY KEY, step BLOB NOT NULL, hash BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS _entgldb_shown(collection_no INTEGER NOT NULL, key TEXT NOT NULL, shown_hash BLOB,
  content BLOB, PRIMARY KEY(collection_no, key)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS _entgldb_missing(collection_no INTEGER NOT NULL, key TEXT NOT NULL, PRIMARY KEY(collection_no, key)) WITHOUT ROWID;
";

/// Makes the tables if they are not there. To be called in a write transaction.
pub(super) fn create(connection: &Connection, keeps: Keeps) -> Outcome<()> {
    connection.execute_batch(TABLES).doing("creating the engine's tables")?;
    schema::put(connection, KEEPS, keeps.number())
}

/// Whether a database is an own file of any kind.
pub(crate) fn is_own(connection: &Connection) -> Outcome<bool> {
    Ok(schema::format(connection)?.is_some() && schema::get::<i64>(connection, KEEPS)?.is_some())
}

/// Refuses a file that is somebody else's, or of the other kind, before anything is written to it.
pub(super) fn check_empty_or_own(path: &Path, keeps: Keeps) -> Result<(), OpenError> {
    let connection = open_file(path, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
    let tables: i64 = connection
        .query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))
        .doing("looking at the file")?;
    let found = match schema::format(&connection)? {
        Some(_) => schema::get::<i64>(&connection, KEEPS)?,
        None => None,
    };
    match found {
        Some(found) if found == keeps.number() => Ok(()),
        None if tables == 0 => Ok(()),
        _ => Err(OpenError::OtherKind { path: path.to_owned() }),
    }
}
