//! One table: whether it can be watched, and what will not work as expected if it is.

use std::collections::BTreeSet;

use entgldb_replica::id::Collection;
use rusqlite::Connection;
use rusqlite::config::DbConfig;
use serde::Serialize;

use super::finding::{Finding, any_blocks};
use super::rows;
use crate::failed::{Outcome, While, in_words};
use crate::quote::{identifier, joined};
use crate::table::definition::{Table, Unwatchable};
use crate::table::key::{Encoding, KeyForm};
use crate::table::unique::tokens;

/// What a name in the schema stands for.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum TableKind {
    /// An ordinary table.
    Table,
    /// A view.
    View,
    /// A virtual table, or one in which a virtual table keeps its data.
    Virtual,
    /// A table that was named and is not there.
    Missing,
}

/// What was found about a table.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct TableDiagnosis {
    /// Its name in the schema's spelling.
    pub name: String,
    /// What it is.
    pub kind: TableKind,
    /// Whether sync of it was asked about: it was named, or none was.
    pub asked: bool,
    /// Whether it can be watched.
    pub watchable: bool,
    /// Whether it is watched: it has the engine's triggers.
    pub watched: bool,
    /// How many rows it has; `None` of what is no ordinary table, or can't be read.
    pub rows: Option<u64>,
    /// The columns of its primary key.
    pub key: Vec<String>,
    /// What there is to say.
    pub findings: Vec<Finding>,
}

/// What the tables are looked at for.
pub(super) struct Asked<'a> {
    pub(super) watch: &'a [String],
    pub(super) payload_bytes_max: usize,
    pub(super) encoding: Encoding,
    /// Tables that have the engine's triggers.
    pub(super) watched: &'a BTreeSet<String>,
}

impl Asked<'_> {
    /// The name by which a table was asked about.
    fn named(&self, table: &str) -> Option<&String> {
        self.watch.iter().find(|name| name.eq_ignore_ascii_case(table))
    }
}

/// The names in the schema that may be tables of the application, with what they are.
pub(super) fn names(connection: &Connection) -> Outcome<Vec<(String, TableKind)>> {
    let mut statement = connection
        .prepare(
            "SELECT name, type FROM pragma_table_list WHERE schema = 'main' AND substr(name, 1, 7) <> 'sqlite_'
             AND substr(name, 1, 9) <> '_entgldb_' ORDER BY name",
        )
        .doing("listing the tables")?;
    let kind = |kind: String| match kind.as_str() {
        "table" => TableKind::Table,
        "view" => TableKind::View,
        _ => TableKind::Virtual,
    };
    let names = statement.query_map([], |row| Ok((row.get(0)?, kind(row.get(1)?))));
    names.and_then(Iterator::collect).doing("listing the tables")
}

/// A table that was named and is not there.
pub(super) fn missing(name: &str, there_are: &[(String, TableKind)]) -> TableDiagnosis {
    let lower = name.to_ascii_lowercase();
    let finding = if lower.starts_with("_entgldb_") || lower.starts_with("sqlite_") {
        Finding::blocks("bad_name", "such names belong to the engine and to SQLite", "name another table")
    } else {
        let names: Vec<&str> = there_are.iter().map(|(name, _)| &**name).collect();
        let what = format!("the database has no such table; it has: {}", names.join(", "));
        Finding::blocks("no_such_table", what, "name one of these, or create the table first")
    };
    TableDiagnosis { findings: vec![finding], ..blank(name, TableKind::Missing, true) }
}

fn blank(name: &str, kind: TableKind, asked: bool) -> TableDiagnosis {
    TableDiagnosis {
        name: name.to_owned(),
        kind,
        asked,
        watchable: false,
        watched: false,
        rows: None,
        key: Vec::new(),
        findings: Vec::new(),
    }
}

/// Looks at a table of the schema.
pub(super) fn look(
    connection: &Connection,
    (name, kind): (&str, TableKind),
    asked: &Asked<'_>,
) -> Outcome<TableDiagnosis> {
    let named = asked.named(name);
    // Nobody asks for a view or the tables of a search index unless by name.
    let is_asked = named.is_some() || (asked.watch.is_empty() && kind == TableKind::Table);
    let mut found = TableDiagnosis { watched: asked.watched.contains(name), ..blank(name, kind, is_asked) };
    if kind != TableKind::Table {
        let what = if kind == TableKind::View { "a view" } else { "a virtual table or a part of one" };
        let what = format!("it is {what}, whose writes can't be captured");
        let advice = "watch the ordinary tables that it shows, or let each node fill it by its own triggers";
        found.findings.push(Finding::blocks("not_a_table", what, advice));
        return Ok(found);
    }
    let findings = &mut found.findings;
    let collection = match Collection::new(name) {
        Ok(collection) => collection,
        Err(reason) => {
            findings.push(Finding::blocks(
                "bad_name",
                format!("its name can't be that of a collection: {reason}"),
                "rename it",
            ));
            return Ok(found);
        }
    };
    if let Some(named) = named.filter(|named| *named != name) {
        findings.push(Finding::warning(
            "other_case",
            format!("it was named {named:?}, and the schema spells it {name:?}"),
            "spell it the same in the schemas of all nodes: they compare names exactly",
        ));
    }
    let table = match Table::read(connection, 0, &collection, asked.encoding)? {
        Ok(table) => table,
        Err(unwatchable) => {
            findings.push(not_watchable(unwatchable));
            found.rows = count(connection, name);
            return Ok(found);
        }
    };
    found.key = table.key.iter().map(|at| table.columns[*at].name.clone()).collect();
    findings.extend(statements(connection, &table));
    if !any_blocks(findings) {
        match rows::look(connection, &table, asked.payload_bytes_max) {
            Ok((rows, of_rows)) => {
                found.rows = Some(rows);
                findings.extend(of_rows);
            }
            Err(error) => findings.push(unreadable(&error)),
        }
    }
    findings.extend(numbered_keys(&table));
    findings.extend(parents(connection, name, asked).doing("reading foreign keys")?);
    found.watchable = !any_blocks(findings);
    Ok(found)
}

fn count(connection: &Connection, name: &str) -> Option<u64> {
    let sql = format!("SELECT count(*) FROM main.{}", identifier(name));
    // A table that can't be read has other findings, or is of no interest.
    connection.query_row(&sql, [], |row| row.get::<_, i64>(0)).ok().map(i64::cast_unsigned)
}

fn not_watchable(unwatchable: Unwatchable) -> Finding {
    match unwatchable {
        Unwatchable::NoKey => Finding::blocks(
            "no_key",
            "it has no declared primary key, so its rows can't be told apart on another node",
            "make it again with a PRIMARY KEY (random text or BLOB ids if several nodes add rows) and copy its rows over",
        ),
        Unwatchable::Collation(collation) => Finding::blocks(
            "unknown_collation",
            format!(
                "its key or an index is ordered by the collation {collation:?}, which only the application has"
            ),
            "leave it out, or use BINARY, NOCASE or RTRIM in its key, its indexes and its column",
        ),
        // The schema does not change while it is read.
        Unwatchable::Missing | Unwatchable::View | Unwatchable::Virtual => {
            Finding::blocks("not_a_table", "it is no ordinary table", "name an ordinary table")
        }
    }
}

/// Tries the statements by which the engine reads and writes the table. Preparing them runs nothing, and finds what only
/// the application's own connection has.
fn statements(connection: &Connection, table: &Table) -> Vec<Finding> {
    let keys = joined(table.key_columns(), ", ");
    let ordered =
        format!("SELECT {keys} FROM main.{} WHERE ({keys}) > ({keys}) ORDER BY {keys}", table.quoted);
    let columns: Vec<String> = table.columns.iter().map(|column| identifier(&column.name)).collect();
    let nothing = joined(columns.iter().map(|_| "NULL".to_owned()), ", ");
    let insert = format!("INSERT INTO main.{}({}) VALUES({nothing})", table.quoted, columns.join(", "));
    let same = joined(columns.iter().map(|column| format!("{column} = {column}")), ", ");
    let update = format!("UPDATE main.{} SET {same}", table.quoted);
    let mut found: Vec<Finding> = Vec::new();
    for sql in [&table.select, &ordered, &table.delete, &insert, &update] {
        let switched = connection
            .set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_TRIGGER, table.has_application_triggers);
        if let Err(error) = switched.and_then(|_| connection.prepare(sql).map(drop)) {
            let finding = refused(&error);
            if !found.contains(&finding) {
                found.push(finding);
            }
        }
    }
    found.extend(definition(connection, table).filter(|finding| !found.contains(finding)));
    found
}

/// Tries the definition in a database in memory: of a database that is only read, SQLite leaves the CHECK constraints out.
/// Other errors are no finding, because SQLite reads definitions that it would not take today.
fn definition(connection: &Connection, table: &Table) -> Option<Finding> {
    let sql = "SELECT sql FROM main.sqlite_schema WHERE type = 'table' AND name = ?1";
    let sql: String = connection.query_row(sql, [table.collection.as_str()], |row| row.get(0)).ok()?;
    let tried = Connection::open_in_memory().and_then(|fresh| fresh.execute_batch(&sql));
    let finding = refused(&tried.err()?);
    matches!(finding.code, "unknown_function" | "unknown_collation").then_some(finding)
}

fn refused(error: &rusqlite::Error) -> Finding {
    let words = in_words(error);
    let name_after =
        |before: &str| words.split(before).nth(1).map(|name| name.trim_end_matches("()").to_owned());
    if let Some(name) = name_after("no such collation sequence: ") {
        return Finding::blocks(
            "unknown_collation",
            format!("it uses the collation {name:?}, which only the application has"),
            "use BINARY, NOCASE or RTRIM in its key, its indexes and its column",
        );
    }
    let function = name_after("no such function: ")
        .or_else(|| name_after("unknown function: "))
        .or_else(|| name_after("unsafe use of "));
    if let Some(name) = function {
        return Finding::blocks(
            "unknown_function",
            format!(
                "a CHECK, a generated column, an index or a trigger calls {name}(), which only the application has"
            ),
            "use functions that SQLite has, or do this in the application",
        );
    }
    Finding::blocks(
        "not_usable",
        format!("SQLite does not take a statement on it: {words}"),
        "mend the table, or the trigger or view that this names",
    )
}

fn unreadable(error: &rusqlite::Error) -> Finding {
    Finding::blocks(
        "unreadable",
        format!("its rows can't be read to the end: {}", in_words(error)),
        "check the file with PRAGMA integrity_check; if it is damaged, bring back a backup",
    )
}

/// Ids that each node counts for itself.
fn numbered_keys(table: &Table) -> Option<Finding> {
    if !matches!(table.form, KeyForm::Integer { rowid: true }) {
        return None;
    }
    let advice = "random text or BLOB ids are best; or only one node adds rows, or each counts from a number of its own";
    let counts = tokens(&table.body).iter().any(|(_, word)| word.eq_ignore_ascii_case("AUTOINCREMENT"));
    Some(if counts {
        let what = "AUTOINCREMENT: each node counts by itself, and two rows that get one id on two nodes become one row";
        Finding::warning("autoincrement", what, advice)
    } else {
        let what = "SQLite gives out the ids: two rows that get one id on two nodes become one row";
        Finding::advice("rowid_key", what, advice)
    })
}

/// Tables that it refers to and that are not synced with it.
fn parents(connection: &Connection, name: &str, asked: &Asked<'_>) -> rusqlite::Result<Vec<Finding>> {
    let mut statement = connection.prepare(
        "SELECT DISTINCT \"table\", EXISTS(SELECT 1 FROM pragma_table_list l WHERE l.schema = 'main'
         AND l.name = f.\"table\" COLLATE NOCASE) FROM pragma_foreign_key_list(?1) f ORDER BY 1",
    )?;
    let parents =
        statement.query_map([name], |row| Ok((row.get::<_, String>(0)?, row.get::<_, bool>(1)?)))?;
    let mut found = Vec::new();
    for parent in parents {
        let (parent, exists) = parent?;
        if !exists {
            let what = format!("it refers to the table {parent:?}, which is not there");
            found.push(Finding::advice("no_parent", what, "create that table, or drop the foreign key"));
        } else if !asked.watch.is_empty() && asked.named(&parent).is_none() {
            let what = format!(
                "it refers to {parent:?}, which is not to be synced: rows may come whose parent is not here"
            );
            found.push(Finding::warning("foreign_key", what, format!("watch {parent:?} too")));
        }
    }
    Ok(found)
}
