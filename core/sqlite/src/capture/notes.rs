//! Notes of single rows in the outbox.

use std::collections::HashSet;

use entgldb_replica::id::{Collection, Key};
use rusqlite::Connection;

use crate::capture::triggers::now_sql;
use crate::capture::watched::Watched;
use crate::failed::{Outcome, While};
use crate::quote::joined;
use crate::table::definition::Table;
use crate::table::key::{note_sql, read_note};
use crate::table::rows;
use crate::table::value::Sql;

/// Whether the outbox names one of these documents.
pub(crate) fn name_any(
    connection: &Connection,
    watched: &Watched,
    docs: &HashSet<(&Collection, &Key)>,
) -> Outcome<bool> {
    let mut statement =
        connection.prepare_cached("SELECT tbl, key FROM _entgldb_outbox").doing("looking into the outbox")?;
    let mut notes = statement.query([]).doing("looking into the outbox")?;
    while let Some(note) = notes.next().doing("looking into the outbox")? {
        let no: i64 = note.get(0).doing("looking into the outbox")?;
        let Some(table) = watched.numbered(no) else { continue };
        let noted = note.get_ref(1).doing("looking into the outbox")?;
        if let Some(columns) = read_note(noted, table.key.len(), table.encoding)
            && let Ok(key) = table.form.encode(&columns.iter().map(Sql::as_ref).collect::<Vec<_>>())
            && docs.contains(&(&table.collection, &key))
        {
            return Ok(true);
        }
    }
    Ok(false)
}

/// The keys of a table that the outbox names.
pub(crate) fn noted_keys(connection: &Connection, table: &Table) -> Outcome<HashSet<Key>> {
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

/// Whether the outbox names the row with these key columns.
pub(crate) fn is_noted(connection: &Connection, table: &Table, key: &[Sql<'_>]) -> Outcome<bool> {
    let sql = format!(
        "SELECT EXISTS(SELECT 1 FROM _entgldb_outbox WHERE tbl = {} AND key IS ({}))",
        table.no,
        note_of_parameters(table)
    );
    let run = || {
        let mut statement = connection.prepare_cached(&sql)?;
        rows::bind(&mut statement, 1, key.iter())?;
        let mut answer = statement.raw_query();
        match answer.next()? {
            Some(row) => row.get(0),
            None => Ok(false),
        }
    };
    run().doing("looking into the outbox")
}

/// Notes the row with these key columns. To be called in a write transaction.
pub(crate) fn put(connection: &Connection, table: &Table, key: &[Sql<'_>]) -> rusqlite::Result<()> {
    let sql = format!(
        "INSERT INTO _entgldb_outbox(tbl, key, at) SELECT {}, ({}), {}",
        table.no,
        note_of_parameters(table),
        now_sql()
    );
    let mut note = connection.prepare_cached(&sql)?;
    rows::bind(&mut note, 1, key.iter())?;
    note.raw_execute().map(drop)
}

/// SQL that gives the note of a row whose key columns are `?1`, `?2` ...
fn note_of_parameters(table: &Table) -> String {
    let names = table.key_columns();
    let row = names.iter().enumerate().map(|(number, name)| format!("?{} AS {name}", number + 1));
    format!("SELECT {} FROM (SELECT {})", note_sql("", &names), joined(row, ", "))
}
