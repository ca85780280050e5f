//! The list of local changes that can't travel.

use entgldb_replica::id::Key;
use entgldb_replica::store::{OutboxMark, Problem};
use rusqlite::Connection;

use crate::failed::{Outcome, While};
use crate::journal::names::Names;

/// A local change that can't travel.
#[derive(Clone, Debug)]
pub(crate) struct Refusal {
    /// The notes that it came of. It is noted once they are drained.
    pub(crate) mark: OutboxMark,
    pub(crate) problem: Problem,
    /// Hash of what the application's table shows of it.
    pub(crate) shown: Option<[u8; 32]>,
    /// Whether the row is gone: then it is a problem no longer.
    pub(crate) is_gone: bool,
}

/// Whether anything is on the list.
pub(crate) fn any(connection: &Connection) -> Outcome<bool> {
    connection
        .prepare_cached("SELECT EXISTS(SELECT 1 FROM _entgldb_problems)")
        .and_then(|mut statement| statement.query_row([], |row| row.get(0)))
        .doing("reading problems")
}

/// Puts a change on the list, or renews what is said of it. To be called in a write transaction.
pub(crate) fn put(
    connection: &Connection,
    names: &mut Names,
    (problem, shown): (&Problem, Option<[u8; 32]>),
    at_ms: u64,
) -> Outcome<()> {
    let Problem { collection, key, message, .. } = problem;
    let no = names.collection_no(connection, collection)?;
    connection
        .prepare_cached(
            "INSERT INTO _entgldb_problems(collection_no, key, message, noted_at, shown) VALUES(?1, ?2, ?3, ?4, ?5)
             ON CONFLICT DO UPDATE SET message = excluded.message, shown = excluded.shown",
        )
        .and_then(|mut insert| insert.execute((no, key, message, at_ms.cast_signed(), shown)))
        .map(drop)
        .doing("noting a problem")
}

/// Takes a document off the list. To be called in a write transaction.
pub(crate) fn remove(connection: &Connection, no: i64, key: &str) -> Outcome<()> {
    connection
        .prepare_cached("DELETE FROM _entgldb_problems WHERE collection_no = ?1 AND key = ?2")
        .and_then(|mut delete| delete.execute((no, key)))
        .map(drop)
        .doing("removing a problem")
}

/// The keys on the list of one collection.
pub(crate) fn keys(connection: &Connection, no: i64) -> Outcome<Vec<Key>> {
    let mut statement = connection
        .prepare_cached("SELECT key FROM _entgldb_problems WHERE collection_no = ?1")
        .doing("reading problems")?;
    let found = statement.query_map([no], |row| row.get::<_, String>(0));
    let found: Vec<String> = found.and_then(Iterator::collect).doing("reading problems")?;
    // What is no key is on the list for that very reason.
    Ok(found.iter().filter_map(|key| Key::new(key).ok()).collect())
}
