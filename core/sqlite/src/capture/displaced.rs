//! Notes of rows that a write with `OR REPLACE` displaces: those that collide with the new row on a unique index.
//!
//! SQLite fires delete triggers for them only with `recursive_triggers`, so they are looked for before the write.
//!
//! The application may drop an index and then its columns, and SQLite refuses to drop a column if any trigger can't be
//! compiled without it. So the columns are named in a way that also works when they are gone: SQL looks for a name further
//! out if it is not found, and the outermost query here has all of them, as NULL. `(SELECT NEW."c")` is the trigger's `NEW`
//! while that has a `c`, and then the `c` of what is called `new` in `FROM`; a bare `"c"` in a query of the table likewise.
//! Where a column is renamed, SQLite renames it in the trigger, but not in the outermost query: a column that is renamed
//! *and* dropped before anybody has looked is refused.
//!
//! An index that is gone must not be looked for by reading the whole table. Looking for it in the schema by its name alone
//! would read the whole schema with each write, so it is looked for in its place first.

use rusqlite::Connection;

use crate::capture::clock::now_sql;
use crate::quote::joined;
use crate::table::definition::Table;
use crate::table::key::KeyForm;
use crate::table::unique::{Created, Unique, name, tokens};

/// A moment before a write.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Before {
    Insert,
    Update,
}

/// Statements for a trigger that note the rows which a write displaces, one for each unique index.
pub(crate) fn note_displaced(connection: &Connection, table: &Table, before: Before) -> String {
    let notes = table.uniques.iter().filter_map(|unique| {
        let late = late_bound(table, unique);
        // An expression that does not work outside its index must not make the application's own writes fail. Outside a
        // trigger all columns are those of the outermost query.
        if let Err(error) = connection.prepare(&late) {
            tracing::warn!(table = %table.collection, %error, "rows that a unique index displaces are not noted");
            return None;
        }
        let found = match unique.created {
            Some(_) => late,
            None => format!(
                "SELECT {} AS key FROM {} WHERE {}",
                table.key_note(""),
                table.quoted,
                unique.collides_with_new()
            ),
        };
        Some(format!(
            "INSERT INTO _entgldb_outbox(tbl, key, at) SELECT {}, displaced.key, {} FROM ({found}) AS displaced \
             WHERE displaced.key IS NOT NULL AND {};",
            table.no,
            now_sql(),
            is_another(table, before)
        ))
    });
    joined(notes, " ")
}

/// SQL of one row: the key of the row that the new one collides with, or NULL. `LIMIT` keeps SQLite from looking for it
/// twice, in the condition and in the result.
fn late_bound(table: &Table, unique: &Unique) -> String {
    format!(
        "SELECT CASE WHEN {} THEN (SELECT {} FROM {} WHERE {}) END AS key FROM ({}) AS new LIMIT 1",
        unique.created.as_ref().map_or("1".to_owned(), is_there),
        table.key_note(""),
        table.quoted,
        unique.collides_with_new(),
        unique.nulls()
    )
}

fn is_there(Created { name, rowid }: &Created) -> String {
    let name = format!("'{}'", name.replace('\'', "''"));
    format!(
        "((SELECT name FROM sqlite_master WHERE rowid = {rowid}) = {name} \
         OR EXISTS (SELECT 1 FROM sqlite_master WHERE type = 'index' AND name = {name} COLLATE NOCASE))"
    )
}

/// The row that is written notes itself, after the write.
fn is_another(table: &Table, before: Before) -> String {
    let row = if before == Before::Insert { "NEW." } else { "OLD." };
    let columns = table.key_columns();
    let [column] = columns.as_slice() else {
        return format!("displaced.key IS NOT {}", table.key_note(row));
    };
    let mut differs = format!("displaced.key COLLATE BINARY IS NOT {row}{column}");
    if !table.key_is_exact {
        differs.push_str(&format!(" OR typeof(displaced.key) <> typeof({row}{column})"));
    }
    // A number that SQLite has still to draw shows as -1.
    if before == Before::Insert && table.form == (KeyForm::Integer { rowid: true }) {
        differs.push_str(" OR displaced.key = -1");
    }
    format!("({differs})")
}

/// Whether a trigger with the text `found` notes all that the one with the text `wanted` would: it has its statements, as
/// they are now or as they were before SQLite put in new names of columns and of the table.
pub(crate) fn covers(found: &str, wanted: &str) -> bool {
    let (found, wanted) = (Text::of(found), Text::of(wanted));
    let same_head = found.head.len() == wanted.head.len()
        && found.head.iter().zip(&wanted.head).all(|(found, wanted)| same_token(found, wanted));
    same_head
        && wanted.statements.iter().all(|wanted| found.statements.iter().any(|found| same(found, wanted)))
}

/// Whether two triggers have the same tokens.
pub(crate) fn same_tokens(one: &str, other: &str) -> bool {
    let (one, other) = (tokens(one), tokens(other));
    one.len() == other.len() && one.iter().zip(&other).all(|((_, one), (_, other))| same_token(one, other))
}

/// A trigger's tokens: those before `BEGIN`, and each statement's.
struct Text<'a> {
    head: Vec<&'a str>,
    statements: Vec<Vec<&'a str>>,
}

impl<'a> Text<'a> {
    fn of(sql: &'a str) -> Self {
        let tokens: Vec<&str> = tokens(sql).into_iter().map(|(_, token)| token).collect();
        let begin = tokens.iter().position(|token| *token == "BEGIN").unwrap_or(tokens.len());
        let body = tokens.get(begin + 1..).unwrap_or_default();
        // Behind the last statement is only `END`.
        let mut statements: Vec<Vec<&str>> =
            body.split(|token| *token == ";").map(<[&str]>::to_vec).collect();
        statements.pop();
        Self { head: tokens[..begin].to_vec(), statements }
    }
}

/// Whether two statements are the same but for names that were changed. SQLite changes the names of columns, but not those
/// that the outermost query gives (`NULL AS "c"`), nor what refers to it: such differences must be one and the same
/// for each name. The place of an index in the schema may differ too.
fn same(found: &[&str], wanted: &[&str]) -> bool {
    if found.len() != wanted.len() {
        return false;
    }
    let pairs: Vec<(&str, &str)> = found.iter().copied().zip(wanted.iter().copied()).collect();
    let renamed: Vec<(&str, &str)> = pairs
        .windows(3)
        .filter(|three| [three[0].0, three[1].0] == ["NULL", "AS"])
        .map(|three| three[2])
        .collect();
    pairs.iter().enumerate().all(|(at, pair)| {
        let is_place = at >= 2 && [pairs[at - 2].0, pairs[at - 1].0] == ["rowid", "="];
        let is_number = |token: &str| token.bytes().all(|byte| byte.is_ascii_digit());
        same_token(pair.0, pair.1)
            || renamed.iter().any(|(old, new)| same_token(old, pair.0) && same_token(new, pair.1))
            || (is_place && is_number(pair.0) && is_number(pair.1))
    })
}

fn same_token(one: &str, other: &str) -> bool {
    one == other
        || (!one.starts_with('\'')
            && !other.starts_with('\'')
            && name(one).eq_ignore_ascii_case(&name(other)))
}
