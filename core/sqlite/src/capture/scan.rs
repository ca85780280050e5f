//! Looking through a whole table: the rows that were there before it was watched, and what was written while the triggers
//! were missing (a migration that builds a table anew drops them).
//!
//! Every key is put into the outbox, a slice at a time so that no write lock lasts; how far it has come is durable. A
//! note too many is harmless, so nothing is compared here.

use entgldb_replica::limits::PAGE_ENTRIES_TARGET;
use rusqlite::Connection;
use rusqlite::types::ValueRef;

use crate::capture::notes;
use crate::capture::triggers::now_sql;
use crate::capture::watched::Watched;
use crate::failed::{Outcome, While};
use crate::quote::joined;
use crate::table::definition::Table;
use crate::table::key::read_note;
use crate::table::rows;
use crate::table::value::Sql;

/// Keys in one slice: a write lock of a few milliseconds, and one unit.
const SLICE: usize = PAGE_ENTRIES_TARGET;
/// A table that lost more than one row of this many while nobody watched is not taken for deleted rows.
const LOST_ONE_IN_MAX: i64 = 10;

/// How far looking through a table has come.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Stage {
    /// Nothing to do.
    Done,
    /// The keys of the table are noted.
    Keys,
    /// The rows that the table has no longer are noted.
    Missing,
}

impl Stage {
    fn of(number: i64) -> Self {
        match number {
            1 => Self::Keys,
            2 => Self::Missing,
            _ => Self::Done,
        }
    }
}

/// Whether any watched table is still to be looked through.
pub(crate) fn is_pending(connection: &Connection, watched: &Watched) -> Outcome<bool> {
    let mut statement = connection
        .prepare_cached("SELECT no FROM _entgldb_collections WHERE scan <> 0")
        .doing("looking for tables to look through")?;
    let mut found = statement.query([]).doing("looking for tables to look through")?;
    while let Some(row) = found.next().doing("looking for tables to look through")? {
        if watched.numbered(row.get(0).doing("looking for tables to look through")?).is_some() {
            return Ok(true);
        }
    }
    Ok(false)
}

/// All tables are to be looked through from their beginning. To be called in a write transaction.
pub(crate) fn begin(connection: &Connection, watched: &Watched) -> Outcome<()> {
    for table in watched.tables() {
        connection
            .execute("UPDATE _entgldb_collections SET scan = 1, scan_after = NULL WHERE no = ?1", [table.no])
            .doing("noting a table to look through")?;
    }
    Ok(())
}

/// Notes one slice. To be called in a write transaction.
pub(crate) fn slice(connection: &Connection, watched: &Watched) -> Outcome<()> {
    for table in watched.tables() {
        let (stage, after): (i64, Sql<'static>) = connection
            .query_row("SELECT scan, scan_after FROM _entgldb_collections WHERE no = ?1", [table.no], |row| {
                Ok((row.get(0)?, Sql::from(row.get_ref(1)?).into_owned()))
            })
            .doing("looking through a table")?;
        match Stage::of(stage) {
            Stage::Done => {}
            Stage::Keys => return keys(connection, table, &after).doing("looking through a table"),
            Stage::Missing => return missing(connection, table, &after).doing("looking for deleted rows"),
        }
    }
    Ok(())
}

fn move_to(connection: &Connection, table: &Table, stage: Stage, after: &Sql<'_>) -> rusqlite::Result<()> {
    let stage = match stage {
        Stage::Done => 0,
        Stage::Keys => 1,
        Stage::Missing => 2,
    };
    connection.execute(
        "UPDATE _entgldb_collections SET scan = ?1, scan_after = ?2 WHERE no = ?3",
        (stage, after, table.no),
    )?;
    Ok(())
}

fn keys(connection: &Connection, table: &Table, after: &Sql<'_>) -> rusqlite::Result<()> {
    let columns = joined(table.key_columns(), ", ");
    let from = read_note(after.as_ref(), table.key.len(), table.encoding).filter(|_| *after != Sql::Null);
    let parameters = joined((1..=table.key.len()).map(|number| format!("?{number}")), ", ");
    let condition = match from {
        Some(_) => format!("({columns}) > ({parameters})"),
        None => {
            joined(table.key_columns().into_iter().map(|column| format!("{column} IS NOT NULL")), " AND ")
        }
    };
    let sql = format!(
        "SELECT {} FROM main.{} WHERE {condition} ORDER BY {columns} LIMIT {SLICE}",
        table.key_note(""),
        table.quoted
    );
    let mut note = connection.prepare_cached(&format!(
        "INSERT INTO _entgldb_outbox(tbl, key, at) VALUES({}, ?1, {})",
        table.no,
        now_sql()
    ))?;
    if from.is_none() {
        note_row_without_key(connection, table)?;
    }
    let mut statement = connection.prepare_cached(&sql)?;
    rows::bind(&mut statement, 1, from.iter().flatten())?;
    let mut found = statement.raw_query();
    let (mut count, mut last) = (0, Sql::Null);
    while let Some(row) = found.next()? {
        last = Sql::from(row.get_ref(0)?).into_owned();
        note.execute([&last])?;
        count += 1;
    }
    if count == SLICE {
        move_to(connection, table, Stage::Keys, &last)
    } else {
        move_to(connection, table, Stage::Missing, &Sql::Null)
    }
}

/// Rows whose key is NULL cannot travel. One of them is noted, to be reported.
fn note_row_without_key(connection: &Connection, table: &Table) -> rusqlite::Result<()> {
    let is_null = joined(table.key_columns().into_iter().map(|column| format!("{column} IS NULL")), " OR ");
    let sql = format!(
        "INSERT INTO _entgldb_outbox(tbl, key, at) SELECT {}, {}, {} FROM main.{} WHERE {is_null} LIMIT 1",
        table.no,
        table.key_note(""),
        now_sql(),
        table.quoted
    );
    connection.execute(&sql, [])?;
    Ok(())
}

/// Notes documents that the table has no row of any more.
fn missing(connection: &Connection, table: &Table, after: &Sql<'_>) -> rusqlite::Result<()> {
    let from = match after.as_ref() {
        ValueRef::Text(text) => String::from_utf8_lossy(text).into_owned(),
        _ if lost_too_many(connection, table)? => return move_to(connection, table, Stage::Done, &Sql::Null),
        _ => String::new(),
    };
    let mut statement = connection.prepare_cached(
        "SELECT key FROM _entgldb_rows r WHERE collection_no = ?1 AND key > ?2 AND hash IS NOT NULL AND NOT EXISTS
         (SELECT 1 FROM _entgldb_set_aside a WHERE a.collection_no = r.collection_no AND a.key = r.key) ORDER BY key LIMIT ?3",
    )?;
    let found: Vec<String> = statement
        .query_map((table.no, &from, SLICE.cast_signed()), |row| row.get(0))?
        .collect::<rusqlite::Result<_>>()?;
    for key in &found {
        let Ok(columns) = table.form.decode(key) else { continue };
        if rows::read(connection, table, &columns)?.is_none() {
            notes::put(connection, table, &columns)?;
        }
    }
    match found.last() {
        Some(last) if found.len() == SLICE => move_to(connection, table, Stage::Missing, &Sql::text(last)),
        _ => move_to(connection, table, Stage::Done, &Sql::Null),
    }
}

/// A table that was dropped and made anew, or emptied, while nobody watched: that must not delete the documents
/// everywhere. It is reported instead.
fn lost_too_many(connection: &Connection, table: &Table) -> rusqlite::Result<bool> {
    let known: i64 = connection.query_row(
        "SELECT count(*) FROM _entgldb_rows r WHERE collection_no = ?1 AND hash IS NOT NULL AND NOT EXISTS
         (SELECT 1 FROM _entgldb_set_aside a WHERE a.collection_no = r.collection_no AND a.key = r.key)",
        [table.no],
        |row| row.get(0),
    )?;
    let present: i64 =
        connection.query_row(&format!("SELECT count(*) FROM main.{}", table.quoted), [], |row| row.get(0))?;
    let lost = known - present;
    if lost <= LOST_ONE_IN_MAX || lost * LOST_ONE_IN_MAX <= known {
        return Ok(false);
    }
    let message = format!(
        "{lost} of {known} rows are gone that were not deleted under watch (was the table made anew?): they are not \
         deleted elsewhere. Delete them again with SQL if that is meant, or bring them back"
    );
    tracing::warn!(table = %table.collection, lost, known, "rows are gone that were not deleted under watch");
    connection.execute(
        "INSERT INTO _entgldb_problems(collection_no, key, message, noted_at) VALUES(?1, '', ?2, CAST((julianday('now') - 2440587.5) * 86400000 AS INTEGER))
         ON CONFLICT DO UPDATE SET message = excluded.message",
        (table.no, message),
    )?;
    Ok(true)
}
