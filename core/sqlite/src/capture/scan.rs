//! Looking through a whole table: the rows that were there before it was watched, and what was written while the triggers
//! were missing (a migration that builds a table again drops them).
//!
//! A slice is read without a write lock; what was found is noted in a short transaction together with how far it has come.
//!
//! - **First copies.** Rows of a table in whose log this node has nothing yet are captured with the lowest stamps of that log:
//!   they are older than whatever anybody wrote since. Notes of the table wait until this is done.
//! - **Rows.** Every row is compared with what is known of its document ([`crate::reading::proof`]). What the application wrote
//!   is noted as found; what a change of schema explains makes no entry; an old copy is put right.
//! - **Missing.** Documents that the table has no row of any more are deleted, unless they are suspiciously many.

use std::sync::Arc;

use entgldb_replica::id::Key;
use entgldb_replica::limits::PAGE_ENTRIES_TARGET;
use rusqlite::Connection;
use rusqlite::types::ValueRef;

use crate::capture::clock::now_sql;
use crate::capture::progress::Stage;
use crate::capture::watched::Watched;
use crate::capture::{notes, progress};
use crate::failed::{Outcome, While};
use crate::quote::joined;
use crate::reading::proof::{Verdict, Witness};
use crate::table::definition::Table;
use crate::table::key::read_note;
use crate::table::rows;
use crate::table::value::Sql;

/// Rows in one slice: a write lock of a few milliseconds at most, and one unit.
pub(crate) const SLICE: usize = PAGE_ENTRIES_TARGET;
/// A table that lost more than one row of this many while nobody watched is not taken for deleted rows.
const LOST_ONE_IN_MAX: i64 = 10;

/// Where looking through a table goes on.
pub(crate) struct Due {
    pub(crate) table: Arc<Table>,
    pub(crate) stage: Stage,
    /// The note of the last row that was looked at, or the last key; NULL at the beginning.
    pub(crate) after: Sql<'static>,
}

/// Tables that are to be looked through.
pub(crate) fn due(connection: &Connection, watched: &Watched) -> Outcome<Vec<Due>> {
    let mut statement = connection
        .prepare_cached("SELECT no, scan, scan_after FROM _entgldb_collections WHERE scan <> 0 ORDER BY no")
        .doing("looking for tables to look through")?;
    let mut found = statement.query([]).doing("looking for tables to look through")?;
    let mut due = Vec::new();
    while let Some(row) = found.next().doing("looking for tables to look through")? {
        let read = || Ok((row.get(0)?, Stage::of(row.get(1)?), Sql::from(row.get_ref(2)?).into_owned()));
        let (no, stage, after): (i64, _, _) = read().doing("looking for tables to look through")?;
        if let Some(table) = watched.numbered(no) {
            due.push(Due { table: table.clone(), stage, after });
        }
    }
    Ok(due)
}

/// Whether any watched table is still to be looked through.
pub(crate) fn is_pending(connection: &Connection, watched: &Watched) -> Outcome<bool> {
    due(connection, watched).map(|due| !due.is_empty())
}

/// All tables are to be looked through from their beginning. To be called in a write transaction.
pub(crate) fn begin_all(connection: &Connection, watched: &Watched) -> Outcome<()> {
    for table in watched.tables() {
        if matches!(progress::stage(connection, table)?, Stage::Done | Stage::Missing) {
            progress::move_to(connection, table, Stage::Rows, &Sql::Null)?;
        }
    }
    Ok(())
}

/// The tables whose rows are captured for the first time.
pub(crate) fn first_watched(connection: &Connection, watched: &Watched) -> Outcome<Vec<Arc<Table>>> {
    let first = due(connection, watched)?.into_iter().filter(|due| due.stage == Stage::FirstCopies);
    Ok(first.map(|due| due.table).collect())
}

/// Key columns of rows in the order of the table's key.
pub(crate) struct Keys {
    pub(crate) keys: Vec<Vec<Sql<'static>>>,
    /// The note of the last row; `None` at the end of the table.
    pub(crate) last: Option<Sql<'static>>,
}

/// Reads the keys of the next rows.
pub(crate) fn keys(connection: &Connection, table: &Table, after: &Sql<'_>, count: usize) -> Outcome<Keys> {
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
        "SELECT {} FROM main.{} WHERE {condition} ORDER BY {columns} LIMIT {count}",
        table.key_note(""),
        table.quoted
    );
    let read = || {
        let mut statement = connection.prepare_cached(&sql)?;
        rows::bind(&mut statement, 1, from.iter().flatten())?;
        let mut found = statement.raw_query();
        let (mut keys, mut last) = (Vec::new(), None);
        let mut read = 0;
        while let Some(row) = found.next()? {
            let note = Sql::from(row.get_ref(0)?).into_owned();
            keys.extend(read_note(note.as_ref(), table.key.len(), table.encoding));
            last = Some(note);
            read += 1;
        }
        Ok(Keys { keys, last: last.filter(|_| read == count) })
    };
    read().doing("looking through a table")
}

/// How many rows lie after one note and up to another; NULL stands for both ends of the table.
pub(crate) fn count(
    connection: &Connection,
    table: &Table,
    after: &Sql<'_>,
    up_to: &Sql<'_>,
) -> Outcome<u64> {
    let read = |note: &Sql<'_>| {
        read_note(note.as_ref(), table.key.len(), table.encoding).filter(|_| *note != Sql::Null)
    };
    let columns = joined(table.key_columns(), ", ");
    let (mut conditions, mut values) = (Vec::new(), Vec::new());
    for (bound, compared) in [(read(after), ">"), (read(up_to), "<=")] {
        let Some(bound) = bound else { continue };
        let first = values.len() + 1;
        let parameters = joined((first..first + bound.len()).map(|number| format!("?{number}")), ", ");
        conditions.push(format!("({columns}) {compared} ({parameters})"));
        values.extend(bound);
    }
    let condition =
        if conditions.is_empty() { String::new() } else { format!(" WHERE {}", conditions.join(" AND ")) };
    let count = || {
        let sql = format!("SELECT count(*) FROM main.{}{condition}", table.quoted);
        let mut statement = connection.prepare_cached(&sql)?;
        rows::bind(&mut statement, 1, values.iter())?;
        let mut found = statement.raw_query();
        let rows = found.next()?.map(|row| row.get::<_, i64>(0)).transpose()?;
        Ok(rows.map_or(0, i64::cast_unsigned))
    };
    count().doing("counting the rows to look through")
}

/// What was found in some rows of a table.
#[derive(Default)]
pub(crate) struct Looked {
    /// Written by the application, and not noted.
    pub(crate) found: Vec<Vec<Sql<'static>>>,
    /// Documents that the table shows otherwise because its schema is another one, and the hash of what it shows.
    pub(crate) shown: Vec<(Key, [u8; 32])>,
    /// Documents of which the table has an old copy, or that it has lost by being built again.
    pub(crate) outdated: Vec<Key>,
}

impl Looked {
    /// Compares one row with what is known of its document.
    pub(crate) fn look(
        &mut self,
        witness: &Witness<'_>,
        table: &Table,
        columns: &[Sql<'static>],
    ) -> Outcome<()> {
        let refs: Vec<ValueRef<'_>> = columns.iter().map(Sql::as_ref).collect();
        // What has no key is reported when its note is drained.
        let Ok(key) = table.form.encode(&refs) else {
            self.found.push(columns.to_vec());
            return Ok(());
        };
        match witness.judge(table, &key, columns)? {
            Verdict::AsLeft | Verdict::Gone | Verdict::CannotTravel { .. } => {}
            Verdict::OtherSchema(shows) => self.shown.push((key, shows)),
            Verdict::OldCopy => self.outdated.push(key),
            Verdict::Found => self.found.push(columns.to_vec()),
        }
        Ok(())
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.found.is_empty() && self.shown.is_empty()
    }

    /// Notes what was found. To be called in a write transaction.
    pub(crate) fn note(&self, connection: &Connection, table: &Table) -> Outcome<()> {
        for columns in &self.found {
            notes::put_found(connection, table, columns).doing("noting a row to capture")?;
        }
        for (key, shows) in &self.shown {
            note_shown(connection, table.no, key, *shows)?;
        }
        Ok(())
    }
}

/// Notes what the table shows of a document that it does not show as it is. To be called in a write transaction.
pub(crate) fn note_shown(connection: &Connection, no: i64, key: &Key, shows: [u8; 32]) -> Outcome<()> {
    connection
        .prepare_cached(
            "UPDATE _entgldb_rows SET shown = ?1 WHERE collection_no = ?2 AND key = ?3 AND hash IS NOT ?1",
        )
        .and_then(|mut statement| statement.execute((shows.as_slice(), no, key.as_str())))
        .map(drop)
        .doing("noting what a table shows")
}

/// Rows whose key is NULL cannot travel. One of them is noted, to be reported. To be called in a write transaction.
pub(crate) fn note_row_without_key(connection: &Connection, table: &Table) -> Outcome<()> {
    let is_null = joined(table.key_columns().into_iter().map(|column| format!("{column} IS NULL")), " OR ");
    let sql = format!(
        "INSERT INTO _entgldb_outbox(tbl, key, at) SELECT {}, {}, {} FROM main.{} WHERE {is_null} LIMIT 1",
        table.no,
        table.key_note(""),
        now_sql(),
        table.quoted
    );
    connection.execute(&sql, []).map(drop).doing("looking for rows without a key")
}

/// Documents that the table has no row of any more.
pub(crate) struct MissingRows {
    pub(crate) keys: Vec<Key>,
    /// The last key that was looked at; `None` at the end.
    pub(crate) last: Option<Sql<'static>>,
}

/// Looks for documents, after one in the order of their keys, that the table has no row of any more.
pub(crate) fn missing(
    connection: &Connection,
    table: &Table,
    after: &Sql<'_>,
    count: usize,
) -> Outcome<MissingRows> {
    let from = match after.as_ref() {
        ValueRef::Text(text) => String::from_utf8_lossy(text).into_owned(),
        _ => String::new(),
    };
    let read = || {
        let mut statement = connection.prepare_cached(
            "SELECT key FROM _entgldb_rows r WHERE collection_no = ?1 AND key > ?2 AND hash IS NOT NULL AND NOT EXISTS
             (SELECT 1 FROM _entgldb_set_aside a WHERE a.collection_no = r.collection_no AND a.key = r.key) ORDER BY key LIMIT ?3",
        )?;
        let found: Vec<String> = statement
            .query_map((table.no, &from, count.cast_signed()), |row| row.get(0))?
            .collect::<rusqlite::Result<_>>()?;
        let mut keys = Vec::new();
        for key in &found {
            let (Ok(columns), Ok(key)) = (table.form.decode(key), Key::new(key)) else { continue };
            if rows::read(connection, table, &columns)?.is_none() {
                keys.push(key);
            }
        }
        let last = found.last().filter(|_| found.len() == count).map(|key| Sql::text(key).into_owned());
        Ok(MissingRows { keys, last })
    };
    read().doing("looking for deleted rows")
}

/// A table that was dropped and made anew, or emptied, while nobody watched: that must not delete the documents
/// everywhere. It is reported instead. `late` of the missing rows are known not to be deleted.
pub(crate) fn lost_too_many(connection: &Connection, table: &Table, late: usize) -> rusqlite::Result<bool> {
    let known: i64 = connection.query_row(
        "SELECT count(*) FROM _entgldb_rows r WHERE collection_no = ?1 AND hash IS NOT NULL AND NOT EXISTS
         (SELECT 1 FROM _entgldb_set_aside a WHERE a.collection_no = r.collection_no AND a.key = r.key)",
        [table.no],
        |row| row.get(0),
    )?;
    let present: i64 =
        connection.query_row(&format!("SELECT count(*) FROM main.{}", table.quoted), [], |row| row.get(0))?;
    let lost = known - present - late.cast_signed() as i64;
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
