//! Reading and writing single rows of a watched table.

use std::fmt::Write;

use rusqlite::types::ValueRef;
use rusqlite::{CachedStatement, Connection, Row};

use crate::quote::{identifier, identifiers, joined};
use crate::table::column::Column;
use crate::table::definition::Table;
use crate::table::document::{self, Extra, Parsed};
use crate::table::value::Sql;

/// All columns of a row.
pub(crate) fn owned(table: &Table, row: &Row<'_>) -> rusqlite::Result<Vec<Sql<'static>>> {
    (0..table.columns.len()).map(|column| Ok(Sql::from(row.get_ref(column)?).into_owned())).collect()
}

/// The row with these key columns.
pub(crate) fn read(
    connection: &Connection,
    table: &Table,
    key: &[Sql<'_>],
) -> rusqlite::Result<Option<Vec<Sql<'static>>>> {
    let mut statement = connection.prepare_cached(&table.select)?;
    bind(&mut statement, 1, key.iter())?;
    let mut rows = statement.raw_query();
    match rows.next()? {
        Some(row) => owned(table, row).map(Some),
        None => Ok(None),
    }
}

/// The document that a row gives.
pub(crate) fn read_content(
    connection: &Connection,
    table: &Table,
    key: &[Sql<'_>],
    extra: Option<&Extra>,
) -> rusqlite::Result<Option<Vec<u8>>> {
    let mut statement = connection.prepare_cached(&table.select)?;
    bind(&mut statement, 1, key.iter())?;
    let mut found = statement.raw_query();
    let Some(row) = found.next()? else { return Ok(None) };
    if extra.is_some() {
        return owned(table, row).map(|row| Some(document::content(table, &row, extra)));
    }
    let values: Vec<ValueRef<'_>> =
        (0..table.columns.len()).map(|column| row.get_ref(column)).collect::<rusqlite::Result<_>>()?;
    let mut content = Vec::with_capacity(256);
    document::write_row(&mut content, table, |position| values[position]);
    Ok(Some(content))
}

/// Removes the row with these key columns. Answers how many there were.
pub(crate) fn delete(connection: &Connection, table: &Table, key: &[Sql<'_>]) -> rusqlite::Result<usize> {
    let mut statement = connection.prepare_cached(&table.delete)?;
    bind(&mut statement, 1, key.iter())?;
    statement.raw_execute()
}

/// Binds values to the parameters from number `first` on.
pub(crate) fn bind<'a>(
    statement: &mut CachedStatement<'_>,
    first: usize,
    values: impl Iterator<Item = &'a Sql<'a>>,
) -> rusqlite::Result<()> {
    for (offset, value) in values.enumerate() {
        statement.raw_bind_parameter(first + offset, value)?;
    }
    Ok(())
}

/// Puts a document's row in its place: inserts it, or changes the one with its key. Answers zero if a row that is
/// another document has an equal key.
pub(crate) fn put(connection: &Connection, table: &Table, document: &Parsed<'_>) -> rusqlite::Result<usize> {
    // Where the application has triggers, a change must not look like an insert to them. And an UPSERT is refused for a column that
    // must have a value, also where the row is there and has one.
    let lacks = |(value, column): (&Option<Sql<'_>>, &Column)| value.is_none() && column.absent.is_none();
    let lacks_any = document.values.iter().zip(&table.columns).any(lacks);
    if (table.has_application_triggers || lacks_any) && update(connection, table, document)? > 0 {
        return Ok(1);
    }
    let values = document.values.iter().filter_map(Option::as_ref);
    let mut statement = if document.values.iter().all(Option::is_some) {
        let all = || upsert_sql(table, &(0..table.columns.len()).collect::<Vec<_>>());
        connection.prepare_cached(table.upsert.get_or_init(all))?
    } else {
        let present = |position: &usize| document.values[*position].is_some();
        let columns: Vec<usize> = (0..table.columns.len()).filter(present).collect();
        connection.prepare_cached(&upsert_sql(table, &columns))?
    };
    bind(&mut statement, 1, values)?;
    statement.raw_execute()
}

/// Inserts the row of a document. A row that has its key already is an error.
pub(crate) fn insert(
    connection: &Connection,
    table: &Table,
    document: &Parsed<'_>,
) -> rusqlite::Result<usize> {
    let values = document.values.iter().filter_map(Option::as_ref);
    let present = |position: &usize| document.values[*position].is_some();
    let all = || insert_sql(table, &(0..table.columns.len()).collect::<Vec<_>>());
    let mut statement = if document.values.iter().all(Option::is_some) {
        connection.prepare_cached(table.insert.get_or_init(all))?
    } else {
        let columns: Vec<usize> = (0..table.columns.len()).filter(present).collect();
        connection.prepare_cached(&insert_sql(table, &columns))?
    };
    bind(&mut statement, 1, values)?;
    statement.raw_execute()
}

/// SQL that inserts a row with these columns.
fn insert_sql(table: &Table, columns: &[usize]) -> String {
    let names = identifiers(columns.iter().map(|position| &*table.columns[*position].name));
    let parameters = joined((1..=columns.len()).map(|number| format!("?{number}")), ",");
    format!("INSERT{} INTO main.{}({names}) VALUES({parameters})", policy(table), table.quoted)
}

/// SQL that inserts a row with these columns, or changes the one that has its key.
fn upsert_sql(table: &Table, columns: &[usize]) -> String {
    let mut sql = insert_sql(table, columns);
    if table.has_application_triggers {
        // What has this key has been looked for already; and an UPSERT's policy would reach into the triggers.
        return sql;
    }
    let mut set = assignments(table, |position, name| {
        let given = columns.contains(&position);
        if given { Some(format!("excluded.{name}")) } else { default_of(table, position) }
    });
    if set.is_empty() {
        // Nothing but the key: an assignment that changes nothing tells a row that is there from one that collides.
        let key = &table.key_columns()[0];
        set = format!("{key} = excluded.{key}");
    }
    let _ = write!(sql, " ON CONFLICT({}) DO UPDATE SET {set}", joined(table.key_columns(), ", "));
    if !table.key_is_exact {
        let same = table.key_columns().into_iter().map(|column| {
            format!(
                "{column} = excluded.{column} COLLATE BINARY AND typeof({column}) = typeof(excluded.{column})"
            )
        });
        let _ = write!(sql, " WHERE {}", joined(same, " AND "));
    }
    sql
}

/// What happens on a collision: always an error, whatever policy the table's definition names. But a policy named in a
/// statement also replaces those inside the triggers that it fires, so none is named where it is not needed.
fn policy(table: &Table) -> &'static str {
    if table.has_application_triggers && !table.names_conflict_policy { "" } else { " OR ABORT" }
}

/// Changes the row with the document's key, if there is one: only the columns that differ, so that a trigger on some of
/// them (`UPDATE OF`) fires only for these, as it did where the change was made.
fn update(connection: &Connection, table: &Table, document: &Parsed<'_>) -> rusqlite::Result<usize> {
    let key: Vec<Sql<'_>> =
        table.key.iter().map(|position| document.values[*position].clone().unwrap_or(Sql::Null)).collect();
    let Some(now) = read(connection, table, &key)? else { return Ok(0) };
    let first = key.len() + 1;
    let differs = |position: &usize| document.values[*position].as_ref() != Some(&now[*position]);
    let changed: Vec<usize> = (0..now.len()).filter(differs).collect();
    let set = assignments(table, |position, _| {
        let number = changed.iter().position(|at| *at == position)?;
        match document.values[position] {
            Some(_) => Some(format!("?{}", first + number)),
            None => default_of(table, position),
        }
    });
    if set.is_empty() {
        return Ok(1);
    }
    let sql = format!("UPDATE{} main.{} SET {set} WHERE {}", policy(table), table.quoted, table.key_matches);
    let mut statement = connection.prepare_cached(&sql)?;
    bind(&mut statement, 1, key.iter())?;
    for (number, position) in changed.iter().enumerate() {
        if let Some(value) = &document.values[*position]
            && first + number <= statement.parameter_count()
        {
            statement.raw_bind_parameter(first + number, value)?;
        }
    }
    statement.raw_execute()
}

/// The `SET` list for those columns besides the key that `value` gives something for.
fn assignments(table: &Table, value: impl Fn(usize, &str) -> Option<String>) -> String {
    let assign = |(position, column): (usize, &Column)| {
        let name = identifier(&column.name);
        let value = value(position, &name)?;
        (!table.key.contains(&position)).then(|| format!("{name} = {value}"))
    };
    joined(table.columns.iter().enumerate().filter_map(assign), ", ")
}

/// A column that a document lacks gets what it has in every row of such a document: what a row holds must follow from the
/// document alone. `None` where nothing says what that is: the row keeps what it has.
fn default_of(table: &Table, position: usize) -> Option<String> {
    let column = &table.columns[position];
    column.absent.as_ref().map(|_| format!("({})", column.default.as_deref().unwrap_or("NULL")))
}
