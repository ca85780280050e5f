//! The rows of a table: those without a key, with a key that can't travel, and those that are too large.

use entgldb_replica::limits::KEY_BYTES_MAX;
use rusqlite::Connection;
use rusqlite::types::ValueRef;

use super::finding::Finding;
use crate::quote::{identifier, identifiers, joined};
use crate::table::definition::Table;
use crate::table::document::write_row;
use crate::table::key::KeyForm;

/// A byte of a value becomes at most so many in a document: a control character is written out.
const GROWTH_MAX: usize = 6;
/// Digits and signs of the longest number.
const NUMBER_BYTES: usize = 32;
/// Keys that are named of each kind.
const NAMED_MAX: usize = 3;

/// Rows of a kind: how many, and the keys of the first.
#[derive(Default)]
struct Kind {
    count: u64,
    named: Vec<String>,
}

impl Kind {
    fn add(&mut self, key: impl FnOnce() -> String) {
        self.count += 1;
        if self.named.len() < NAMED_MAX {
            self.named.push(key());
        }
    }

    /// `3 rows (a, b, ...)`
    fn in_words(&self) -> String {
        let noun = if self.count == 1 { "row" } else { "rows" };
        let more = if self.count > self.named.len() as u64 { ", ..." } else { "" };
        if self.named.is_empty() {
            return format!("{} {noun}", self.count);
        }
        format!("{} {noun} ({}{more})", self.count, self.named.join(", "))
    }
}

/// Counts the rows and finds those that can't travel.
pub(super) fn look(
    connection: &Connection,
    table: &Table,
    payload_bytes_max: usize,
) -> rusqlite::Result<(u64, Vec<Finding>)> {
    let suspect = suspect(table, payload_bytes_max);
    let null = null(table);
    let sql = format!(
        "SELECT count(*), coalesce(sum({null}), 0), coalesce(sum({suspect}), 0) FROM main.{}",
        table.quoted
    );
    let (rows, without_key, suspects): (i64, i64, i64) =
        connection.query_row(&sql, [], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?;
    let mut found = Vec::new();
    if without_key > 0 {
        let rows = Kind { count: without_key.cast_unsigned(), ..Kind::default() };
        found.push(Finding::warning(
            "null_key",
            format!("{} have NULL in the primary key and stay on this node", rows.in_words()),
            "give them a key; declare the key columns NOT NULL",
        ));
    }
    if suspects > 0 {
        let (bad_keys, too_large) = exactly(connection, table, (&suspect, &null), payload_bytes_max)?;
        if bad_keys.count > 0 {
            found.push(Finding::warning(
                "bad_key",
                format!("{} have a key that can't travel and stay on this node", bad_keys.in_words()),
                format!(
                    "a key is text or a number of 1 to {KEY_BYTES_MAX} bytes without NUL: give them another"
                ),
            ));
        }
        if too_large.count > 0 {
            found.push(Finding::warning(
                "too_large",
                format!(
                    "{} are larger than payload_bytes_max ({payload_bytes_max}) and stay on this node",
                    too_large.in_words()
                ),
                "raise payload_bytes_max and frame_bytes_max on all nodes (docs/cli.md), or keep large content in files",
            ));
        }
    }
    Ok((rows.cast_unsigned(), found))
}

/// SQL that is 1 for a row without a key.
fn null(table: &Table) -> String {
    let columns = table.key_columns().into_iter().map(|column| format!("{column} IS NULL"));
    format!("({})", joined(columns, " OR "))
}

/// SQL that is 1 for each row that may be too large or have a bad key; exactness would cost a document for each row.
fn suspect(table: &Table, payload_bytes_max: usize) -> String {
    let names = table.fields.iter().map(|(name, _)| name.len() + NUMBER_BYTES).sum::<usize>();
    let spare = payload_bytes_max.saturating_sub(names) / GROWTH_MAX;
    let size = |column: &str| format!("coalesce(length(CAST({column} AS BLOB)), 0)");
    let columns = table.columns.iter().map(|column| size(&identifier(&column.name)));
    let keys = table.key_columns();
    let key_size = joined(keys.iter().map(|column| size(column)), " + ");
    let strange = match &table.form {
        KeyForm::Text => "<> 'text'",
        KeyForm::Integer { .. } => "NOT IN ('integer', 'real')",
        KeyForm::Array(_) => "= ''",
    };
    let strange = keys.iter().map(|column| {
        format!("(typeof({column}) {strange} OR {column} = '' OR instr({column}, char(0)) > 0)")
    });
    format!(
        "({} > {spare} OR {key_size} > {} OR {})",
        joined(columns, " + "),
        KEY_BYTES_MAX / GROWTH_MAX,
        joined(strange, " OR ")
    )
}

/// Makes the keys and documents of the suspects, as capture would.
fn exactly(
    connection: &Connection,
    table: &Table,
    (suspect, null): (&str, &str),
    payload_bytes_max: usize,
) -> rusqlite::Result<(Kind, Kind)> {
    let (mut bad_keys, mut too_large) = (Kind::default(), Kind::default());
    let columns = identifiers(table.columns.iter().map(|column| &*column.name));
    let sql = format!("SELECT {columns} FROM main.{} WHERE {suspect} AND NOT {null}", table.quoted);
    let mut statement = connection.prepare(&sql)?;
    let mut rows = statement.query([])?;
    let mut document = Vec::new();
    while let Some(row) = rows.next()? {
        let values = (0..table.columns.len()).map(|at| row.get_ref(at)).collect::<Result<Vec<_>, _>>()?;
        let key: Vec<ValueRef<'_>> = table.key.iter().map(|at| values[*at]).collect();
        match table.form.encode(&key) {
            Err(_) => bad_keys.add(|| shown(&key)),
            Ok(key) => {
                document.clear();
                write_row(&mut document, table, |at| values[at]);
                if document.len() > payload_bytes_max {
                    too_large.add(|| key.as_str().to_owned());
                }
            }
        }
    }
    Ok((bad_keys, too_large))
}

/// A key that is none, shortened.
fn shown(key: &[ValueRef<'_>]) -> String {
    const SHOWN_MAX: usize = 40;
    let column = |value: &ValueRef<'_>| match value {
        ValueRef::Null => "NULL".to_owned(),
        ValueRef::Integer(integer) => integer.to_string(),
        ValueRef::Real(real) => real.to_string(),
        ValueRef::Text(text) => {
            let text = String::from_utf8_lossy(text);
            let start: String = text.chars().take(SHOWN_MAX).collect();
            if start.len() < text.len() { format!("{start:?}...") } else { format!("{start:?}") }
        }
        ValueRef::Blob(blob) => format!("a BLOB of {} bytes", blob.len()),
    };
    joined(key.iter().map(column), ", ")
}
