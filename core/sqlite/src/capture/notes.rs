//! Notes of single rows in the outbox.

use std::collections::HashSet;

use entgldb_replica::id::{Collection, Key};
use rusqlite::Connection;

use crate::capture::clock::now_sql;
use crate::capture::noted::{ALL, key_of};
use crate::capture::watched::Watched;
use crate::failed::{Outcome, While};
use crate::quote::joined;
use crate::table::definition::Table;
use crate::table::key::note_sql;
use crate::table::rows;
use crate::table::value::Sql;

/// Whether a note names one of these documents.
pub(crate) fn name_any(
    connection: &Connection,
    watched: &Watched,
    docs: &HashSet<(&Collection, &Key)>,
) -> Outcome<bool> {
    let mut statement =
        connection.prepare_cached(&format!("SELECT tbl, key FROM {ALL}")).doing("looking into the outbox")?;
    let mut notes = statement.query([]).doing("looking into the outbox")?;
    while let Some(note) = notes.next().doing("looking into the outbox")? {
        let no: i64 = note.get(0).doing("looking into the outbox")?;
        let Some(table) = watched.numbered(no) else { continue };
        let noted = note.get_ref(1).doing("looking into the outbox")?;
        if let Some(key) = key_of(table, noted)
            && docs.contains(&(&table.collection, &key))
        {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Whether a note names the row with these key columns.
pub(crate) fn is_noted(connection: &Connection, table: &Table, key: &[Sql<'_>]) -> Outcome<bool> {
    let sql = format!(
        "SELECT EXISTS(SELECT 1 FROM {ALL} WHERE tbl = {} AND key IS ({}))",
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

/// Puts the notes of a table off until its first copies are captured: these come before anything that was written since. To be
/// called in a write transaction.
pub(crate) fn hold(connection: &Connection, no: i64) -> Outcome<()> {
    move_notes(connection, no, ("_entgldb_outbox", "_entgldb_held"))
}

/// Puts the notes back that were held. To be called in a write transaction.
pub(crate) fn release(connection: &Connection, no: i64) -> Outcome<()> {
    move_notes(connection, no, ("_entgldb_held", "_entgldb_outbox"))
}

fn move_notes(connection: &Connection, no: i64, (from, to): (&str, &str)) -> Outcome<()> {
    let copy = format!(
        "INSERT INTO {to}(tbl, key, at, found) SELECT tbl, key, at, found FROM {from} WHERE tbl = ?1 ORDER BY id"
    );
    connection
        .execute(&copy, [no])
        .and_then(|_| connection.execute(&format!("DELETE FROM {from} WHERE tbl = ?1"), [no]))
        .map(drop)
        .doing("putting notes off")
}

/// Whether the outbox has notes of a table.
pub(crate) fn has_any(connection: &Connection, no: i64) -> Outcome<bool> {
    connection
        .prepare_cached("SELECT EXISTS(SELECT 1 FROM _entgldb_outbox WHERE tbl = ?1)")
        .and_then(|mut statement| statement.query_row([no], |row| row.get(0)))
        .doing("looking into the outbox")
}

/// Notes a row with these key columns in which something was found that no trigger has noted. Such notes make up units of
/// their own, written now. To be called in a write transaction.
pub(crate) fn put_found(connection: &Connection, table: &Table, key: &[Sql<'_>]) -> rusqlite::Result<()> {
    let sql = format!(
        "INSERT INTO _entgldb_outbox(tbl, key, at, found) SELECT {}, ({}), {}, 1",
        table.no,
        note_of_parameters(table),
        now_sql()
    );
    let mut note = connection.prepare_cached(&sql)?;
    rows::bind(&mut note, 1, key.iter())?;
    note.raw_execute().map(drop)
}

/// The note of a row with these key columns.
pub(crate) fn note_of(connection: &Connection, table: &Table, key: &[Sql<'_>]) -> Outcome<Sql<'static>> {
    let read = || {
        let mut statement = connection.prepare_cached(&note_of_parameters(table))?;
        rows::bind(&mut statement, 1, key.iter())?;
        let mut found = statement.raw_query();
        match found.next()? {
            Some(row) => Ok(Sql::from(row.get_ref(0)?).into_owned()),
            None => Ok(Sql::Null),
        }
    };
    read().doing("reading a key")
}

/// SQL that gives the note of a row whose key columns are `?1`, `?2` ...
fn note_of_parameters(table: &Table) -> String {
    let names = table.key_columns();
    let row = names.iter().enumerate().map(|(number, name)| format!("?{} AS {name}", number + 1));
    format!("SELECT {} FROM (SELECT {})", note_sql("", &names), joined(row, ", "))
}
