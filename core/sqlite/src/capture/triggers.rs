//! The triggers that note, in the application's own transaction, which rows it changes.
//!
//! They run in whatever program writes, with whatever SQLite that program has: nothing in them is newer than SQLite 3.15.
//! They note keys only; contents are read when the notes are drained, so a note too many costs a look and a note too few
//! would lose a change.

use rusqlite::Connection;

use crate::capture::clock::NOW;
use crate::capture::displaced::{Before, covers, note_displaced, same_tokens};
use crate::failed::{Outcome, While};
use crate::quote::joined;
use crate::table::definition::Table;

const EVENTS: [&str; 5] = ["insert", "update", "delete", "before_insert", "before_update"];
fn name(event: &str, no: i64) -> String {
    format!("\"_entgldb_{event}_{no}\"")
}

/// The triggers of a table as they should be: name without quotes and SQL.
fn wanted(connection: &Connection, table: &Table) -> Vec<(String, String)> {
    let note = |row: &str| {
        format!(
            "INSERT INTO _entgldb_outbox(tbl, key, at) VALUES ({}, {}, {NOW});",
            table.no,
            table.key_note(row)
        )
    };
    let note_old_key = format!(
        "INSERT INTO _entgldb_outbox(tbl, key, at) SELECT {}, {}, {NOW} WHERE {};",
        table.no,
        table.key_note("OLD."),
        key_changed(table)
    );
    let mut wanted = Vec::new();
    let mut want = |event: &str, moment: &str, body: String| {
        let sql = format!(
            "CREATE TRIGGER {} {moment} ON {} WHEN NOT EXISTS (SELECT 1 FROM _entgldb_applying) BEGIN {body} END",
            name(event, table.no),
            table.quoted
        );
        wanted.push((format!("_entgldb_{event}_{}", table.no), sql));
    };
    want("insert", "AFTER INSERT", note("NEW."));
    want("update", "AFTER UPDATE", format!("{note_old_key} {}", note("NEW.")));
    want("delete", "AFTER DELETE", note("OLD."));
    for (event, moment, before) in [
        ("before_insert", "BEFORE INSERT", Before::Insert),
        ("before_update", "BEFORE UPDATE", Before::Update),
    ] {
        let displaced = note_displaced(connection, table, before);
        if !displaced.is_empty() {
            want(event, moment, displaced);
        }
    }
    wanted
}

fn key_changed(table: &Table) -> String {
    let changed = table.key_columns().into_iter().map(|column| {
        let differs = format!("OLD.{column} IS NOT NEW.{column} COLLATE BINARY");
        if table.key_is_exact {
            differs
        } else {
            format!("{differs} OR typeof(OLD.{column}) <> typeof(NEW.{column})")
        }
    });
    joined(changed, " OR ")
}

/// What [`install`] found.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Installed {
    /// All triggers were there as they should be.
    Unchanged,
    /// They noted all that they should, in another form: SQLite has put in new names, or an index is gone.
    Renewed,
    /// A unique index was not known to them: rows that were displaced by it are not noted. All other writes are.
    Displacing,
    /// Some of those that note a write were missing or others: what was written meanwhile may not be noted.
    Anew,
}

/// Whether the triggers of a table are there as they should be.
///
/// A trigger that SQLite rewrote because something was renamed counts as the same: after a write it has just the text that
/// is wanted for the present names, before a write it is compared by [`covers`].
pub(crate) fn check(connection: &Connection, table: &Table) -> Outcome<Installed> {
    let mut state = Installed::Unchanged;
    let mut statement = connection
        .prepare_cached("SELECT sql FROM main.sqlite_schema WHERE type = 'trigger' AND name = ?1 AND tbl_name = ?2 COLLATE NOCASE")
        .doing("reading triggers")?;
    let wanted = wanted(connection, table);
    for event in EVENTS {
        let name = format!("_entgldb_{event}_{}", table.no);
        let mut rows = statement.query([&name, &table.name]).doing("reading triggers")?;
        let found: Option<String> = match rows.next().doing("reading triggers")? {
            Some(row) => Some(row.get(0).doing("reading triggers")?),
            None => None,
        };
        let wanted = wanted.iter().find(|(wanted, _)| *wanted == name).map(|(_, sql)| sql);
        let is_before = event.starts_with("before");
        let this = match (&found, wanted) {
            (found, wanted) if found.as_ref() == wanted => Installed::Unchanged,
            (_, None) => Installed::Renewed,
            (Some(found), Some(wanted)) if is_before && covers(found, wanted) => Installed::Renewed,
            (Some(found), Some(wanted)) if !is_before && same_tokens(found, wanted) => Installed::Renewed,
            _ if is_before => Installed::Displacing,
            _ => Installed::Anew,
        };
        state = state.max(this);
    }
    Ok(state)
}

/// Brings the triggers of a table into their place. To be called in a write transaction.
pub(crate) fn install(connection: &Connection, table: &Table) -> Outcome<Installed> {
    let state = check(connection, table)?;
    if state != Installed::Unchanged {
        remove(connection, table.no)?;
        for (_, sql) in wanted(connection, table) {
            connection.execute_batch(&sql).doing("creating triggers")?;
        }
    }
    Ok(state)
}

/// Removes the triggers of a table that is no longer watched. To be called in a write transaction.
pub(crate) fn remove(connection: &Connection, no: i64) -> Outcome<()> {
    for event in EVENTS {
        connection
            .execute_batch(&format!("DROP TRIGGER IF EXISTS main.{}", name(event, no)))
            .doing("dropping triggers")?;
    }
    Ok(())
}
