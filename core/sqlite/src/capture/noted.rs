//! The rows of a table that notes name.

use std::collections::HashSet;

use entgldb_replica::id::Key;
use rusqlite::Connection;
use rusqlite::types::ValueRef;

use crate::failed::{Outcome, While};
use crate::table::definition::Table;
use crate::table::key::read_note;
use crate::table::value::Sql;

/// All notes, also those that are held.
pub(super) const ALL: &str =
    "(SELECT tbl, key FROM main._entgldb_outbox UNION ALL SELECT tbl, key FROM main._entgldb_held)";

/// The keys of a table that notes name.
pub(crate) fn keys(connection: &Connection, table: &Table) -> Outcome<HashSet<Key>> {
    let mut statement = connection
        .prepare_cached(&format!("SELECT key FROM {ALL} WHERE tbl = ?1"))
        .doing("looking into the outbox")?;
    let mut notes = statement.query([table.no]).doing("looking into the outbox")?;
    let mut keys = HashSet::new();
    while let Some(note) = notes.next().doing("looking into the outbox")? {
        keys.extend(key_of(table, note.get_ref(0).doing("looking into the outbox")?));
    }
    Ok(keys)
}

/// The key that a note names, if it is one that a document may have.
pub(super) fn key_of(table: &Table, noted: ValueRef<'_>) -> Option<Key> {
    let columns = read_note(noted, table.key.len(), table.encoding)?;
    table.form.encode(&columns.iter().map(Sql::as_ref).collect::<Vec<_>>()).ok()
}
