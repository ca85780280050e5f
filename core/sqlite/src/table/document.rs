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
use crate::table::column::Column;
use crate::table::definition::Table;
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
    let mut fits = vec![0; table.columns.len()];
    for field in &fields {
        let exact = if is_sorted {
            while columns.next_if(|(_, position)| *table.columns[*position].field < *field.name).is_some() {}
            columns
                .next_if(|(_, position)| table.columns[*position].field == field.name)
                .map(|(_, at)| (*at, 1))
        } else {
            None
        };
        // Of two names for one column the younger counts: whoever knew it wrote later.
        match exact.or_else(|| table.column_for(&field.name)) {
            Some((position, fit)) if values[position].is_none() || fit > fits[position] => {
                values[position] = Some(from_json(field.raw, field.kind)?);
                fits[position] = fit;
            }
            _ => is_exact = false,
        }
    }
    for (value, column) in
        values.iter_mut().zip(&table.columns).filter(|(value, column)| value.is_none() && column.is_filled)
    {
        is_exact = false;
        *value = column.absent.as_deref().and_then(sql_of);
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
    /// Fields that the document calls by another name, or by several: these members, and what their column reads back as.
    #[serde(default, rename = "n", skip_serializing_if = "BTreeMap::is_empty")]
    renamed: BTreeMap<String, (BTreeMap<String, String>, String)>,
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
        let mut members: Vec<Vec<&Field<'_>>> = vec![Vec::new(); table.columns.len()];
        for field in &fields {
            match table.column_for(&field.name) {
                Some((position, _)) => members[position].push(field),
                None => {
                    extra.unknown.insert(field.name.clone().into_owned(), field.raw.to_owned());
                }
            }
        }
        for ((column, value), members) in table.columns.iter().zip(row).zip(&members) {
            let (name, back) = (column.field.clone(), json_of(value));
            match members.as_slice() {
                [] => {
                    extra.absent.insert(name, back);
                }
                [field] if field.name == name => {
                    if back != field.raw {
                        extra.lossy.insert(name, (field.raw.to_owned(), back));
                    }
                }
                members => {
                    let raw = |field: &&Field<'_>| (field.name.clone().into_owned(), field.raw.to_owned());
                    extra.renamed.insert(name, (members.iter().map(raw).collect(), back));
                }
            }
        }
        if extra.merge(table, row) != document {
            extra.whole = std::str::from_utf8(document).ok().map(str::to_owned);
        }
        (extra != Self::default()).then_some(extra)
    }

    /// Adds the fields of the document that stands whose columns were dropped.
    pub(crate) fn with_gone(extra: Option<Self>, table: &Table, document: &[u8]) -> Option<Self> {
        let Ok(fields) = json::fields(document) else { return extra };
        let kept = |name: &str| extra.as_ref().is_some_and(|extra| extra.unknown.contains_key(name));
        let is_gone = |field: &&Field<'_>| {
            let is_it = |gone: &String| *gone == field.name;
            table.gone.iter().any(is_it) && table.column_for(&field.name).is_none() && !kept(&field.name)
        };
        let added: Vec<_> = fields.iter().filter(is_gone).collect();
        if added.is_empty() {
            return extra;
        }
        let added = added
            .into_iter()
            .map(|field| (field.name.clone().into_owned(), field.raw.to_owned()))
            .collect::<Vec<_>>();
        let mut extra = extra.unwrap_or_default();
        extra.unknown.extend(added);
        Some(extra)
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
            let position = table.columns.iter().position(|column| column.field == name)?;
            Some(json_of(&row[position]))
        };
        let is_kept = |(name, kept): (&String, &String)| raw(name) == Some(kept.as_str());
        // A column that was added since may say otherwise by now.
        self.unknown.iter().all(|member| table.column_for(member.0).is_some() || is_kept(member))
            && self
                .lossy
                .iter()
                .all(|(name, (kept, back))| now(name).as_ref() != Some(back) || is_kept((name, kept)))
            && self.renamed.iter().all(|(name, (members, back))| {
                now(name).as_ref() != Some(back) || members.iter().all(is_kept)
            })
    }

    /// For the table of rows.
    pub(crate) fn to_text(&self) -> String {
        serde_json::to_string(self).expect("maps of strings are always JSON")
    }

    /// The fields without a column.
    pub(crate) fn unknown_fields(&self) -> impl Iterator<Item = &String> {
        self.unknown.keys()
    }

    /// Whether a field without a column has one by now, or a column without a field holds what was once taken for a migration's value.
    pub(crate) fn knows_more_than(&self, table: &Table) -> bool {
        let is_outdated = |(name, back): (&String, &String)| {
            let column = table.columns.iter().find(|column| column.field == *name);
            column.is_some_and(|column| column.is_filled && column.absent.as_deref() != Some(back.as_bytes()))
        };
        self.unknown.keys().any(|name| table.column_for(name).is_some())
            || self.absent.iter().any(is_outdated)
    }

    fn merge(&self, table: &Table, row: &[Sql<'_>]) -> Vec<u8> {
        let mut fields: BTreeMap<&str, String> =
            self.unknown.iter().map(|(name, raw)| (&**name, raw.clone())).collect();
        let found: Vec<(&String, usize)> =
            self.unknown.keys().filter_map(|name| Some((name, table.column_for(name)?.0))).collect();
        for (position, (column, value)) in table.columns.iter().zip(row).enumerate() {
            let (name, now) = (&*column.field, json_of(value));
            if let Some((members, back)) = self.renamed.get(name)
                && *back == now
            {
                fields.extend(members.iter().map(|(name, raw)| (&**name, raw.clone())));
                continue;
            }
            let mut of_this = found.iter().filter(|(_, of)| *of == position).peekable();
            let unset = column.absent.as_deref() == Some(now.as_bytes());
            match (self.absent.get(name), self.lossy.get(name)) {
                (Some(back), _) if *back == now => continue,
                (_, Some((raw, back))) if *back == now => fields.insert(name, raw.clone()),
                // The column was added after the document came: until somebody sets it, the document's field stands.
                _ if unset && of_this.peek().is_some() => continue,
                _ => {
                    for (name, _) in of_this {
                        fields.remove(name.as_str());
                    }
                    fields.insert(name, now)
                }
            };
        }
        written(fields.iter().map(|(name, raw)| (*name, &**raw)))
    }
}

/// The SQL value of a JSON value that was checked before.
pub(crate) fn sql_of(json: &[u8]) -> Option<Sql<'static>> {
    let object = [b"{\"v\":".as_slice(), json, b"}"].concat();
    let fields = json::fields(&object).ok()?;
    let field = fields.first()?;
    from_json(field.raw, field.kind).ok().map(Sql::into_owned)
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
    content(table, row, extra) == document || compare(table, key, document, row, extra, is_absent)
}

/// Whether a column holds what it holds in the row of a document without its field.
fn is_absent(column: &Column, now: &Sql<'_>) -> bool {
    column.absent.as_ref().is_none_or(|absent| *absent == json_of(now).into_bytes())
}

/// Whether a row has all that a document says, as far as the table can hold it. Columns that a migration has computed may hold
/// anything where the document has no field for them.
pub(crate) fn row_holds(table: &Table, key: &Key, document: &[u8], row: &[Sql<'_>]) -> bool {
    compare(table, key, document, row, None, |column, now| column.is_computed || is_absent(column, now))
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
    let given: Vec<usize> =
        fields.iter().filter_map(|field| Some(table.column_for(&field.name)?.0)).collect();
    table.columns.iter().zip(row).zip(&parsed.values).enumerate().all(|(position, ((column, now), value))| {
        let kept = |kept: Option<&String>| kept.is_some_and(|kept| *kept == json_of(now));
        let (field, extra) = (&column.field, extra);
        match value {
            Some(value) if given.contains(&position) => {
                value.is_same_by_cast(now)
                    || kept(extra.and_then(|extra| extra.lossy.get(field)).map(|lossy| &lossy.1))
                    || kept(extra.and_then(|extra| extra.renamed.get(field)).map(|renamed| &renamed.1))
            }
            _ => is_absent(column, now) || kept(extra.and_then(|extra| extra.absent.get(field))),
        }
    })
}
