//! Putting back what the application's triggers did to watched tables while remote changes were applied.
//!
//! The triggers must fire, because search indexes and local summaries hang on them. But what they change in a *watched*
//! table (a stock count, an `updated_at`) was captured on the node where the change was made, and travels by itself: done
//! here too, it would count twice. So temporary triggers of ours remember how each row was before it was touched, and
//! before the transaction ends every row is again as the applied documents say, or as it was.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use bytes::Bytes;
use entgldb_replica::id::Key;
use rusqlite::Connection;
use rusqlite::config::DbConfig;

use crate::capture::watched::Watched;
use crate::failed::{Outcome, While, code, is_refusal};
use crate::quote::{identifier, joined};
use crate::table::definition::Table;
use crate::table::document::{self, Parsed};
use crate::table::rows;
use crate::table::unique::Unique;
use crate::table::value::Sql;

fn memory(table: &Table) -> String {
    format!("\"_entgldb_before_{}\"", table.no)
}

/// Sets the connection up for these tables: whether triggers fire on it, and those that remember what is put back.
pub(crate) fn prepare(connection: &Connection, watched: &Watched) -> Outcome<()> {
    connection
        .set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_TRIGGER, watched.has_application_triggers)
        .doing("switching triggers")?;
    drop_all(connection)?;
    for table in watched.tables().iter().filter(|_| watched.has_application_triggers) {
        watch(connection, table, watched.version())?;
    }
    Ok(())
}

/// Removes all temporary triggers and tables of ours.
fn drop_all(connection: &Connection) -> Outcome<()> {
    let mut statement = connection
        .prepare(
            "SELECT name FROM temp.sqlite_schema WHERE type = 'table' AND substr(name, 1, 9) = '_entgldb_'",
        )
        .doing("reading temporary tables")?;
    let names: Vec<String> = statement
        .query_map([], |row| row.get(0))
        .and_then(Iterator::collect)
        .doing("reading temporary tables")?;
    drop(statement);
    for name in names {
        connection
            .execute_batch(&format!("DROP TABLE temp.{}", identifier(&name)))
            .doing("dropping temporary tables")?;
    }
    let mut statement = connection
        .prepare(
            "SELECT name FROM temp.sqlite_schema WHERE type = 'trigger' AND substr(name, 1, 9) = '_entgldb_'",
        )
        .doing("reading temporary triggers")?;
    let names: Vec<String> = statement
        .query_map([], |row| row.get(0))
        .and_then(Iterator::collect)
        .doing("reading temporary triggers")?;
    drop(statement);
    for name in names {
        let dropped = connection.execute_batch(&format!("DROP TRIGGER temp.{}", identifier(&name)));
        if dropped.is_err() {
            // Its table was dropped by somebody else, so SQLite does not know it any more, but would again with a new table.
            return forget_orphans(connection);
        }
    }
    Ok(())
}

/// Takes temporary triggers of ours out of the schema whose tables are gone.
fn forget_orphans(connection: &Connection) -> Outcome<()> {
    let defend = |on| {
        connection.set_db_config(DbConfig::SQLITE_DBCONFIG_DEFENSIVE, on).doing("dropping temporary triggers")
    };
    defend(false)?;
    let forgotten = connection.execute_batch(
        "PRAGMA writable_schema = ON;
         DELETE FROM temp.sqlite_schema WHERE type = 'trigger' AND substr(name, 1, 9) = '_entgldb_';
         PRAGMA writable_schema = RESET",
    );
    defend(true)?;
    forgotten.doing("dropping temporary triggers")
}

/// Remembers from now on how the rows of a table are before they change on this connection.
fn watch(connection: &Connection, table: &Table, version: i64) -> Outcome<()> {
    let memory = memory(table);
    let columns = joined((0..table.columns.len()).map(|number| format!("c{number}")), ", ");
    let image = |row: &str| {
        joined(table.columns.iter().map(|column| format!("{row}{}", identifier(&column.name))), ", ")
    };
    let nothing = |row: &str| {
        let column = |(position, column): (usize, &crate::table::column::Column)| match table
            .key
            .contains(&position)
        {
            true => format!("{row}{}", identifier(&column.name)),
            false => "NULL".to_owned(),
        };
        joined(table.columns.iter().enumerate().map(column), ", ")
    };
    let same_key = joined(
        table.key_columns().into_iter().map(|column| format!("{column} = (SELECT NEW.{column})")),
        " AND ",
    );
    // A row that `REPLACE` removes fires no delete trigger: it is remembered before the write that evicts it.
    let evicted = std::iter::once(same_key).chain(table.uniques.iter().map(Unique::collides_with_new)).map(
        |condition| {
            format!(
                "INSERT INTO {memory}(was, {columns}) SELECT 1, {} FROM {} WHERE {condition};",
                image(""),
                table.quoted
            )
        },
    );
    let evicted = joined(evicted, " ");
    let old = format!("INSERT INTO {memory}(was, {columns}) VALUES(1, {});", image("OLD."));
    let new = format!("INSERT INTO {memory}(was, {columns}) VALUES(0, {});", nothing("NEW."));
    let mut sql = format!("CREATE TEMP TABLE {memory}(id INTEGER PRIMARY KEY, was, {columns});");
    for (event, body) in [
        ("BEFORE INSERT", evicted.clone()),
        ("AFTER INSERT", new.clone()),
        ("BEFORE UPDATE", format!("{old} {evicted}")),
        ("AFTER UPDATE", new),
        ("BEFORE DELETE", old),
    ] {
        let name = identifier(&format!(
            "_entgldb_{}_{}_{version}",
            event.to_lowercase().replace(' ', "_"),
            table.no
        ));
        sql.push_str(&format!(
            "CREATE TEMP TRIGGER {name} {event} ON main.{} BEGIN {body} END;",
            table.quoted
        ));
    }
    connection.execute_batch(&sql).doing("creating temporary triggers")
}

/// What the documents of a commit have been made into: the rows that must be there at its end.
pub(crate) type Placed = HashMap<(i64, Key), Option<Bytes>>;

/// A row that is not as it must be.
struct Repair {
    table: Arc<Table>,
    key: Vec<Sql<'static>>,
    /// The whole row; `None` if there must be none.
    row: Option<Vec<Option<Sql<'static>>>>,
}

/// Puts everything back. Answers the rows that could not be (they collide with what was applied).
pub(crate) fn put_back(
    connection: &Connection,
    tables: &[Arc<Table>],
    placed: &Placed,
) -> Outcome<Vec<(i64, Key, Bytes)>> {
    let mut repairs = Vec::new();
    for table in tables {
        applied(connection, table, placed, &mut repairs).doing("comparing applied rows")?;
        remembered(connection, table, placed, &mut repairs).doing("comparing remembered rows")?;
    }
    let mut homeless = Vec::new();
    if !repairs.is_empty() {
        let switch = |on| {
            connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_TRIGGER, on).doing("switching triggers")
        };
        switch(false)?;
        let repaired = repair(connection, repairs, &mut homeless);
        switch(true)?;
        repaired?;
    }
    for table in tables {
        connection
            .execute_batch(&format!("DELETE FROM temp.{}", memory(table)))
            .doing("forgetting remembered rows")?;
    }
    Ok(homeless)
}

/// Rows that were applied and are not as they were applied.
fn applied(
    connection: &Connection,
    table: &Arc<Table>,
    placed: &Placed,
    repairs: &mut Vec<Repair>,
) -> rusqlite::Result<()> {
    for ((no, key), content) in placed {
        let Ok(columns) = table.form.decode(key.as_str()) else { continue };
        if *no != table.no {
            continue;
        }
        let now = rows::read(connection, table, &columns)?;
        let own = || columns.iter().cloned().map(Sql::into_owned).collect();
        let Some(content) = content else {
            if now.is_some() {
                repairs.push(Repair { table: table.clone(), key: own(), row: None });
            }
            continue;
        };
        let Ok(Parsed { values, is_exact }) = document::parse(table, key, content) else { continue };
        let is_right = now.is_some_and(|now| is_exact && document::content(table, &now, None) == *content);
        if !is_right {
            let row = values.into_iter().map(|value| value.map(Sql::into_owned)).collect();
            repairs.push(Repair { table: table.clone(), key: own(), row: Some(row) });
        }
    }
    Ok(())
}

/// Whether the row with these key columns has been touched since this step began.
pub(crate) fn is_remembered(
    connection: &Connection,
    table: &Table,
    key: &[Sql<'_>],
) -> rusqlite::Result<bool> {
    let same =
        table.key.iter().enumerate().map(|(number, position)| format!("c{position} IS ?{}", number + 1));
    let sql = format!("SELECT EXISTS(SELECT 1 FROM temp.{} WHERE {})", memory(table), joined(same, " AND "));
    let mut statement = connection.prepare_cached(&sql)?;
    rows::bind(&mut statement, 1, key.iter())?;
    let mut found = statement.raw_query();
    match found.next()? {
        Some(row) => row.get(0),
        None => Ok(false),
    }
}

/// Other rows, which must be as the first memory of them says.
fn remembered(
    connection: &Connection,
    table: &Arc<Table>,
    placed: &Placed,
    repairs: &mut Vec<Repair>,
) -> rusqlite::Result<()> {
    let mut statement = connection.prepare(&format!("SELECT * FROM temp.{} ORDER BY id", memory(table)))?;
    let mut found = statement.query([])?;
    let mut seen: HashSet<Vec<u8>> = HashSet::new();
    while let Some(row) = found.next()? {
        let was: bool = row.get(1)?;
        let image: Vec<Sql<'static>> = (0..table.columns.len())
            .map(|position| Ok(Sql::from(row.get_ref(position + 2)?).into_owned()))
            .collect::<rusqlite::Result<_>>()?;
        let key: Vec<Sql<'static>> = table.key.iter().map(|position| image[*position].clone()).collect();
        let mut identity = Vec::new();
        for column in &key {
            crate::table::value::write_json(&mut identity, column.as_ref());
            identity.push(b',');
        }
        if !seen.insert(identity) {
            continue;
        }
        let refs: Vec<_> = key.iter().map(Sql::as_ref).collect();
        if let Ok(key) = table.form.encode(&refs)
            && placed.contains_key(&(table.no, key))
        {
            continue;
        }
        let now = rows::read(connection, table, &key)?;
        let image = was.then_some(image);
        if now != image {
            let row = image.map(|image| image.into_iter().map(Some).collect());
            repairs.push(Repair { table: table.clone(), key, row });
        }
    }
    Ok(())
}

fn repair(
    connection: &Connection,
    repairs: Vec<Repair>,
    homeless: &mut Vec<(i64, Key, Bytes)>,
) -> Outcome<()> {
    // What must go may stand in the way of what must come.
    let (come, go): (Vec<_>, Vec<_>) = repairs.into_iter().partition(|repair| repair.row.is_some());
    for Repair { table, key, .. } in go {
        rows::delete(connection, &table, &key).doing("putting a row back")?;
    }
    for Repair { table, key, row } in come {
        let Some(values) = row else { continue };
        let document = Parsed { values, is_exact: false };
        match rows::put(connection, &table, &document) {
            Ok(_) => {}
            Err(error) if is_refusal(&error) => {
                tracing::warn!(table = %table.collection, error = ?code(&error), "a row could not be put back");
                rows::delete(connection, &table, &key).doing("putting a row back")?;
                let row: Vec<Sql<'_>> =
                    document.values.into_iter().map(|value| value.unwrap_or(Sql::Null)).collect();
                let refs: Vec<_> = key.iter().map(Sql::as_ref).collect();
                if let Ok(key) = table.form.encode(&refs) {
                    homeless.push((table.no, key, Bytes::from(document::content(&table, &row, None))));
                }
            }
            Err(source) => return Err(source).doing("putting a row back"),
        }
    }
    Ok(())
}
