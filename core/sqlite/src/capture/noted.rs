//! The rows of a table that the outbox names.

use std::collections::HashSet;

use entgldb_replica::id::Key;
use rusqlite::Connection;

use crate::failed::{Outcome, While};
use crate::table::definition::Table;
use crate::table::key::read_note;
use crate::table::value::Sql;

/// The keys of a table that the outbox names.
pub(crate) fn keys(connection: &Connection, table: &Table) -> Outcome<HashSet<Key>> {
    let mut statement = connection
        .prepare("SELECT key FROM _entgldb_outbox WHERE tbl = ?1")
        .doing("looking into the outbox")?;
    let mut notes = statement.query([table.no]).doing("looking into the outbox")?;
    let mut keys = HashSet::new();
    while let Some(note) = notes.next().doing("looking into the outbox")? {
        let noted = note.get_ref(0).doing("looking into the outbox")?;
        if let Some(columns) = read_note(noted, table.key.len(), table.encoding)
            && let Ok(key) = table.form.encode(&columns.iter().map(Sql::as_ref).collect::<Vec<_>>())
        {
            keys.insert(key);
        }
    }
    Ok(keys)
}
