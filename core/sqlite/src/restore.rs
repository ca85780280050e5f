//! Bringing a losing version back: an ordinary write to the application's table, as the application itself would make it.
//!
//! Its triggers fire, its constraints hold, and ours note the row, so that the running node captures the write, or the next
//! one that starts. It replaces all versions that the node knows, here and then everywhere.

use std::convert::Infallible;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use entgldb_replica::id::{Collection, DocId, Key};
use rusqlite::{Connection, OpenFlags};

use crate::failed::{Outcome, SqliteFailed, While, is_refusal};
use crate::file::connection::{harden, open_file};
use crate::file::error::{FORMAT, OpenError};
use crate::journal::schema;
use crate::table::definition::Table;
use crate::table::document::{self, Extra};
use crate::table::key;
use crate::table::rows;

/// How long it waits for a database that is locked.
const BUSY_WAIT: std::time::Duration = std::time::Duration::from_secs(10);

/// A version was not restored. Nothing has changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RestoreError {
    /// No node has run on the database.
    #[error("no node has run on {path} yet")]
    NeverSynced {
        /// The path as given.
        path: PathBuf,
    },
    /// The conflict list has no losing version of the document.
    #[error("the conflict list has no losing version of {key:?} in {collection:?}")]
    NoVersion {
        /// The collection as given.
        collection: String,
        /// The key as given.
        key: String,
    },
    /// It has some, but not this one.
    #[error("{key:?} in {collection:?} has no losing version {version}; it has: {}", listed(found))]
    NoSuchVersion {
        /// The collection as given.
        collection: String,
        /// The key as given.
        key: String,
        /// The version as given.
        version: u64,
        /// The versions that there are, the newest first.
        found: Vec<u64>,
    },
    /// It has several, and none was named.
    #[error("{key:?} in {collection:?} has several losing versions: {}", listed(found))]
    Several {
        /// The collection as given.
        collection: String,
        /// The key as given.
        key: String,
        /// The versions that there are, the newest first.
        found: Vec<u64>,
    },
    /// The database has no table for the collection any more, or none that can hold its documents.
    #[error("the database has no table {collection:?} with a primary key any more")]
    NoTable {
        /// The collection.
        collection: String,
    },
    /// The application's table does not take the version.
    #[error("the table {collection:?} does not take it: {message}")]
    Refused {
        /// The collection.
        collection: String,
        /// Why.
        message: String,
    },
    /// The database can't be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The database failed, or stayed locked by another program.
    #[error(transparent)]
    Failed(#[from] SqliteFailed),
}

fn listed(versions: &[u64]) -> String {
    versions.iter().map(u64::to_string).collect::<Vec<_>>().join(", ")
}

/// What was restored.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Restored {
    /// The version, as the list numbers it ([`crate::inspect::ListedConflict::version`]).
    pub version: u64,
    /// Whether it is a deletion: the row is gone again.
    pub is_deletion: bool,
}

/// Writes a losing version from the conflict list into the application's table, as one transaction. `version` is the number that
/// the list gives it; none will do if the document has one losing version only.
///
/// The list keeps it. May be called while a node runs, in this process or another, and while none does.
///
/// # Errors
/// When there is no such version, the table does not take it, or the database can't be used.
pub fn restore(
    path: &Path,
    (collection, key): (&str, &str),
    version: Option<u64>,
) -> Result<Restored, RestoreError> {
    let connection = open_file(path, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
    connection.busy_timeout(BUSY_WAIT).doing("setting up the connection")?;
    harden(&connection).doing("setting up the connection")?;
    // As the schema says, whatever the application's connections make of it: a person looks at what happens.
    connection.execute_batch("PRAGMA foreign_keys = ON").doing("setting up the connection")?;
    match schema::format(&connection)? {
        None => return Err(RestoreError::NeverSynced { path: path.to_owned() }),
        Some(found) if found > FORMAT => {
            return Err(OpenError::NewerFormat { path: path.to_owned(), found }.into());
        }
        Some(_) => {}
    }
    connection.execute_batch("BEGIN IMMEDIATE").doing("beginning a transaction")?;
    let lost = find(&connection, collection, key, version)?;
    let table = table(&connection, &lost)?;
    write(&connection, &table, &lost)?;
    let refused = |error: rusqlite::Error| refusal(&lost, "committing", error);
    connection.execute_batch("COMMIT").map_err(refused)?;
    Ok(Restored { version: lost.version, is_deletion: lost.content.is_none() })
}

/// A losing version in the conflict list of the engine's own file.
#[derive(Clone, Debug)]
pub struct LosingVersion {
    /// The document.
    pub doc: DocId,
    /// Its content; `None` for a deletion.
    pub content: Option<Bytes>,
    /// What is said once it was written.
    pub restored: Restored,
}

/// Looks a losing version up, to be written again by whoever keeps the documents. `version` is the number that the list gives
/// it; none will do if the document has one losing version only.
///
/// # Errors
/// When there is no such version, or the file can't be read.
pub fn losing_version(
    path: &Path,
    (collection, key): (&str, &str),
    version: Option<u64>,
) -> Result<LosingVersion, RestoreError> {
    let connection = open_file(path, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
    connection.busy_timeout(BUSY_WAIT).doing("setting up the connection")?;
    harden(&connection).doing("setting up the connection")?;
    if schema::format(&connection)?.is_none() {
        return Err(RestoreError::NeverSynced { path: path.to_owned() });
    }
    let lost = find(&connection, collection, key, version)?;
    let restored = Restored { version: lost.version, is_deletion: lost.content.is_none() };
    Ok(LosingVersion { doc: (lost.collection, lost.key), content: lost.content.map(Bytes::from), restored })
}

/// A version in the conflict list.
struct Lost {
    version: u64,
    no: i64,
    collection: Collection,
    key: Key,
    content: Option<Vec<u8>>,
}

fn find(
    connection: &Connection,
    collection: &str,
    key: &str,
    version: Option<u64>,
) -> Result<Lost, RestoreError> {
    let mut statement = connection
        .prepare(
            "SELECT c.id, c.loser_content, n.no, n.name FROM _entgldb_conflicts c JOIN _entgldb_collections n ON n.no = c.collection_no
             WHERE n.name = ?1 COLLATE NOCASE AND c.key = ?2 ORDER BY c.id DESC",
        )
        .doing("reading conflicts")?;
    let read = |row: &rusqlite::Row<'_>| {
        Ok((row.get::<_, i64>(0)?.cast_unsigned(), row.get(1)?, row.get(2)?, row.get::<_, String>(3)?))
    };
    let all = statement.query_map((collection, key), read).and_then(Iterator::collect);
    let all: Vec<(u64, Option<Vec<u8>>, i64, String)> = all.doing("reading conflicts")?;
    let found = || all.iter().map(|(version, ..)| *version).collect::<Vec<_>>();
    let given = || (collection.to_owned(), key.to_owned());
    let chosen = match (version, all.len()) {
        (_, 0) => None,
        (None, 1) => all.first(),
        (None, _) => {
            let ((collection, key), found) = (given(), found());
            return Err(RestoreError::Several { collection, key, found });
        }
        (Some(version), _) => {
            let chosen = all.iter().find(|(found, ..)| *found == version);
            if chosen.is_none() {
                let ((collection, key), found) = (given(), found());
                return Err(RestoreError::NoSuchVersion { collection, key, version, found });
            }
            chosen
        }
    };
    let Some((version, content, no, name)) = chosen else {
        let (collection, key) = given();
        return Err(RestoreError::NoVersion { collection, key });
    };
    let damaged = |what: String| RestoreError::Failed(SqliteFailed::damaged(what));
    Ok(Lost {
        version: *version,
        no: *no,
        collection: Collection::new(name).map_err(|error| damaged(error.to_string()))?,
        key: Key::new(key).map_err(|error| damaged(error.to_string()))?,
        content: content.clone(),
    })
}

fn table(connection: &Connection, lost: &Lost) -> Result<Table, RestoreError> {
    let encoding = key::encoding(connection)?;
    let table = Table::read(connection, lost.no, &lost.collection, encoding)?;
    table.map_err(|_| RestoreError::NoTable { collection: lost.collection.as_str().to_owned() })
}

fn write(connection: &Connection, table: &Table, lost: &Lost) -> Result<(), RestoreError> {
    let refused = |message: &str| RestoreError::Refused {
        collection: lost.collection.as_str().to_owned(),
        message: message.to_owned(),
    };
    let columns = table.form.decode(lost.key.as_str()).map_err(|why| refused(&why))?;
    let failed = |error: rusqlite::Error| refusal(lost, "writing a row", error);
    let Some(content) = &lost.content else {
        rows::delete(connection, table, &columns).map_err(failed)?;
        return Ok(());
    };
    let document = document::parse(table, &lost.key, content).map_err(|why| refused(&why))?;
    if rows::put(connection, table, &document).map_err(failed)? == 0 {
        return Err(refused("another row has this key"));
    }
    keep_extra(connection, table, lost, content)?;
    Ok(())
}

/// What the row cannot hold is the restored version's from now on.
fn keep_extra(connection: &Connection, table: &Table, lost: &Lost, content: &[u8]) -> Outcome<()> {
    let Ok(columns) = table.form.decode(lost.key.as_str()) else { return Ok(()) };
    let row = rows::read(connection, table, &columns).doing("reading a row back")?;
    let extra = row.and_then(|row| Extra::of(table, content, &row)).map(|extra| extra.to_text());
    connection
        .execute(
            "UPDATE _entgldb_rows SET extra = ?1 WHERE collection_no = ?2 AND key = ?3",
            (&extra, lost.no, lost.key.as_str()),
        )
        .doing("keeping what a row cannot hold")?;
    if extra.is_some() {
        connection
            .execute("UPDATE _entgldb_collections SET has_extras = 1 WHERE no = ?1", [lost.no])
            .doing("keeping what a row cannot hold")?;
    }
    Ok(())
}

/// Tells what the application's schema refuses from what is wrong with the database.
fn refusal(lost: &Lost, doing: &'static str, error: rusqlite::Error) -> RestoreError {
    if is_refusal(&error) {
        let (collection, message) = (lost.collection.as_str().to_owned(), error.to_string());
        return RestoreError::Refused { collection, message };
    }
    match Err::<Infallible, _>(error).doing(doing) {
        Err(failed) => RestoreError::Failed(failed),
        Ok(never) => match never {},
    }
}
