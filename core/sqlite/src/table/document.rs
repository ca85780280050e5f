//! Rows as documents and documents as rows (`docs/protocol/mapping.md`).
//!
//! A row gives the same bytes whatever order its table's columns have. A document that came from elsewhere may hold what
//! a row cannot: a field without a column, `true` in a column of numbers, an object, white space. What does not read back
//! from the row as it was is kept beside it ([`Extra`]) and used for as long as the row still is what the document was
//! made into. So a row that nobody has touched is captured as exactly the bytes that were applied: no echo, nothing lost.

use std::collections::BTreeMap;

use entgldb_replica::id::Key;
use serde::{Deserialize, Serialize};

use crate::json::{self, Field};
use crate::table::definition::{Column, Table};
use crate::table::value::{Sql, from_json, write_json, write_text};

/// A document, taken apart for a table.
#[derive(Debug)]
pub(crate) struct Parsed<'a> {
    /// A value for each column of the table; `None` where the document has none.
    pub(crate) values: Vec<Option<Sql<'a>>>,
    /// Whether the row alone will give these bytes again.
    pub(crate) is_exact: bool,
}

/// Takes a document apart. The key decides over the key columns, whatever the document says of them.
///
/// # Errors
/// Why the table can't hold it.
pub(crate) fn parse<'a>(table: &Table, key: &'a Key, content: &'a [u8]) -> Result<Parsed<'a>, String> {
    let fields = json::fields(content).map_err(|fault| fault.to_string())?;
    let mut values: Vec<Option<Sql<'a>>> = vec![None; table.columns.len()];
    let mut is_exact = true;
    let mut columns = table.fields.iter().peekable();
    let is_sorted = fields.is_sorted_by(|a, b| a.name < b.name);
    for field in &fields {
        let position = if is_sorted {
            while columns.next_if(|(_, position)| *table.columns[*position].name < *field.name).is_some() {}
            columns.next_if(|(_, position)| table.columns[*position].name == field.name).map(|(_, at)| *at)
        } else {
            table.columns.iter().position(|column| column.name == field.name)
        };
        match position {
            Some(position) => values[position] = Some(from_json(field.raw, field.kind)?),
            None => is_exact = false,
        }
    }
    let keys = table.form.decode(key.as_str())?;
    for (position, value) in table.key.iter().zip(keys) {
        if values[*position].as_ref() != Some(&value) {
            is_exact = false;
        }
        values[*position] = Some(value);
    }
    let keeps = |(value, column): (&Option<Sql<'_>>, &Column)| {
        value.as_ref().is_some_and(|value| column.affinity.keeps(value))
    };
    is_exact = is_exact && values.iter().zip(&table.columns).all(keeps) && {
        let mut again = Vec::with_capacity(content.len());
        write_row(&mut again, table, |position| values[position].as_ref().unwrap_or(&Sql::Null).as_ref());
        again == content
    };
    Ok(Parsed { values, is_exact })
}

/// Writes a row as a document. `value` gives the value of a column.
pub(crate) fn write_row<'v>(
    out: &mut Vec<u8>,
    table: &Table,
    value: impl Fn(usize) -> rusqlite::types::ValueRef<'v>,
) {
    out.push(b'{');
    for (number, (name, position)) in table.fields.iter().enumerate() {
        if number > 0 {
            out.push(b',');
        }
        out.extend_from_slice(name);
        write_json(out, value(*position));
    }
    out.push(b'}');
}

/// The document of a row: all that the row gives, with what is kept beside it.
pub(crate) fn content(table: &Table, row: &[Sql<'_>], extra: Option<&Extra>) -> Vec<u8> {
    let mut out = Vec::with_capacity(256);
    match extra {
        None => write_row(&mut out, table, |position| row[position].as_ref()),
        Some(extra) => {
            let merged = extra.merge(table, row);
            match &extra.whole {
                Some(whole) if canonical(whole).as_ref() == Some(&merged) => {
                    out.extend_from_slice(whole.as_bytes())
                }
                _ => out = merged,
            }
        }
    }
    out
}

/// What a document has that its row cannot hold.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Extra {
    /// Fields without a column.
    #[serde(default, rename = "u", skip_serializing_if = "BTreeMap::is_empty")]
    unknown: BTreeMap<String, String>,
    /// Fields that read back differently: as they were, and as they read back.
    #[serde(default, rename = "l", skip_serializing_if = "BTreeMap::is_empty")]
    lossy: BTreeMap<String, (String, String)>,
    /// Columns that the document does not have, and what they hold for that reason.
    #[serde(default, rename = "a", skip_serializing_if = "BTreeMap::is_empty")]
    absent: BTreeMap<String, String>,
    /// The document itself, if it is not written in the compact, sorted form.
    #[serde(default, rename = "w", skip_serializing_if = "Option::is_none")]
    whole: Option<String>,
}

impl Extra {
    /// Compares a document with the row it was made into. `None` if the row says it all.
    pub(crate) fn of(table: &Table, document: &[u8], row: &[Sql<'_>]) -> Option<Self> {
        let fields = json::fields(document).ok()?;
        let mut extra = Self::default();
        for field in &fields {
            let name = field.name.clone().into_owned();
            let Some(position) = table.columns.iter().position(|column| column.name == field.name) else {
                extra.unknown.insert(name, field.raw.to_owned());
                continue;
            };
            let back = json_of(&row[position]);
            if back != field.raw {
                extra.lossy.insert(name, (field.raw.to_owned(), back));
            }
        }
        for (position, column) in table.columns.iter().enumerate() {
            if !fields.iter().any(|field| field.name == column.name) {
                extra.absent.insert(column.name.clone(), json_of(&row[position]));
            }
        }
        if extra.merge(table, row) != document {
            extra.whole = std::str::from_utf8(document).ok().map(str::to_owned);
        }
        (extra != Self::default()).then_some(extra)
    }

    /// Reads what [`Extra::to_text`] wrote.
    pub(crate) fn from_text(text: &str) -> Option<Self> {
        serde_json::from_str(text).ok()
    }

    /// Whether the fields kept here are those of the document that stands. They would be in the next version too.
    pub(crate) fn fits(&self, table: &Table, document: &[u8], row: &[Sql<'_>]) -> bool {
        let Ok(fields) = json::fields(document) else { return false };
        let raw = |name: &str| fields.iter().find(|field| field.name == name).map(|field| field.raw);
        let now = |name: &str| {
            let position = table.columns.iter().position(|column| column.name == name)?;
            Some(json_of(&row[position]))
        };
        // A column that was added since may say otherwise by now.
        let unknown_fit =
            self.unknown.iter().all(|(name, kept)| now(name).is_some() || raw(name) == Some(kept.as_str()));
        unknown_fit
            && self.lossy.iter().all(|(name, (kept, back))| {
                now(name).as_ref() != Some(back) || raw(name) == Some(kept.as_str())
            })
    }

    /// For the table of rows.
    pub(crate) fn to_text(&self) -> String {
        serde_json::to_string(self).expect("maps of strings are always JSON")
    }

    /// Whether a field without a column has one by now.
    pub(crate) fn knows_more_than(&self, table: &Table) -> bool {
        table.columns.iter().any(|column| self.unknown.contains_key(&column.name))
    }

    fn merge(&self, table: &Table, row: &[Sql<'_>]) -> Vec<u8> {
        let mut fields: BTreeMap<&str, String> =
            self.unknown.iter().map(|(name, raw)| (&**name, raw.clone())).collect();
        for (column, value) in table.columns.iter().zip(row) {
            let (name, now) = (&*column.name, json_of(value));
            let unset = column.default_json.as_deref() == Some(now.as_bytes());
            match (self.absent.get(name), self.lossy.get(name)) {
                (Some(back), _) if *back == now => continue,
                (_, Some((raw, back))) if *back == now => fields.insert(name, raw.clone()),
                // The column was added after the document came: until somebody sets it, the document's field stands.
                _ if unset && self.unknown.contains_key(name) => continue,
                _ => fields.insert(name, now),
            };
        }
        written(fields.iter().map(|(name, raw)| (*name, &**raw)))
    }
}

/// A value of a row as it stands in a document.
pub(crate) fn json_of(value: &Sql<'_>) -> String {
    let mut out = Vec::new();
    write_json(&mut out, value.as_ref());
    String::from_utf8(out).expect("JSON is written in UTF-8")
}

/// A document with its fields sorted and nothing between its tokens; the values stay as they are.
fn canonical(document: &str) -> Option<Vec<u8>> {
    let fields = json::fields(document.as_bytes()).ok()?;
    let sorted: BTreeMap<&str, &str> = fields.iter().map(|Field { name, raw, .. }| (&**name, *raw)).collect();
    Some(written(sorted.into_iter()))
}

fn written<'a>(fields: impl Iterator<Item = (&'a str, &'a str)>) -> Vec<u8> {
    let mut out = vec![b'{'];
    for (number, (name, raw)) in fields.enumerate() {
        if number > 0 {
            out.push(b',');
        }
        write_text(&mut out, name);
        out.push(b':');
        out.extend_from_slice(raw.as_bytes());
    }
    out.push(b'}');
    out
}

/// Whether a row is what a document says, as far as the table can hold it today: columns that were added since have their
/// default, fields whose columns are gone do not count.
pub(crate) fn row_matches(
    table: &Table,
    key: &Key,
    document: &[u8],
    row: &[Sql<'_>],
    extra: Option<&Extra>,
) -> bool {
    content(table, row, extra) == document
        || compare(table, key, document, row, extra, |column, now| {
            column.default_json.as_ref().is_none_or(|default| *default == json_of(now).into_bytes())
        })
}

/// Whether a row has all that a document says, as far as the table can hold it. Columns that the document has no field for
/// may hold anything: a migration may have computed it.
pub(crate) fn row_holds(table: &Table, key: &Key, document: &[u8], row: &[Sql<'_>]) -> bool {
    compare(table, key, document, row, None, |_, _| true)
}

/// Compares the fields of a document with a row. `is_absent` says whether a column holds what it may where the document has no
/// field for it.
fn compare(
    table: &Table,
    key: &Key,
    document: &[u8],
    row: &[Sql<'_>],
    extra: Option<&Extra>,
    is_absent: impl Fn(&Column, &Sql<'_>) -> bool,
) -> bool {
    let (Ok(parsed), Ok(fields)) = (parse(table, key, document), json::fields(document)) else {
        return false;
    };
    let has = |name: &str| fields.iter().any(|field| field.name == name);
    let is_lossy = |name: &str, now: &Sql<'_>| {
        extra.is_some_and(|extra| extra.lossy.get(name).is_some_and(|lossy| lossy.1 == json_of(now)))
    };
    table.columns.iter().zip(row).zip(&parsed.values).all(|((column, now), value)| match value {
        Some(value) if has(&column.name) => value.is_same_by_cast(now) || is_lossy(&column.name, now),
        _ => is_absent(column, now),
    })
}
