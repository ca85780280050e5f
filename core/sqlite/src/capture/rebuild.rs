//! Tables that are perhaps being built again: another table with the same columns has appeared.
//!
//! A migration that copies rows, drops the table and renames the copy in several transactions loses what comes from other
//! nodes between the copying and the end of the old table. That is no deletion. So while such a copy is there, the documents
//! that are applied are remembered, until the table has been looked through.

use std::collections::{BTreeSet, HashSet};

use bytes::Bytes;
use entgldb_replica::id::{Key, sha256};
use entgldb_replica::version::Hash;
use rusqlite::{Connection, OptionalExtension};

use crate::capture::watched::Watched;
use crate::failed::{Outcome, While};
use crate::table::definition::Table;
use crate::table::rows;

/// Documents that are remembered at most: a table with the same columns may also stay for good.
const LATE_MAX: i64 = 1 << 16;

/// The names of all ordinary tables.
pub(crate) fn table_names(connection: &Connection) -> Outcome<HashSet<String>> {
    let mut statement = connection
        .prepare_cached("SELECT name FROM main.sqlite_schema WHERE type = 'table'")
        .doing("listing the tables")?;
    let names = statement.query_map([], |row| row.get(0));
    names.and_then(Iterator::collect).doing("listing the tables")
}

/// The numbers of watched tables of which one of these tables may be a copy: it has their key and half of their columns.
pub(crate) fn copied(
    connection: &Connection,
    watched: &Watched,
    appeared: &[String],
) -> Outcome<BTreeSet<i64>> {
    let mut found = BTreeSet::new();
    for name in appeared {
        let mut statement = connection
            .prepare_cached("SELECT lower(name) FROM pragma_table_info(?1)")
            .doing("reading a table's columns")?;
        let columns = statement.query_map([name], |row| row.get(0)).and_then(Iterator::collect);
        let columns: HashSet<String> = columns.doing("reading a table's columns")?;
        for table in watched.tables() {
            let has =
                |column: &&crate::table::column::Column| columns.contains(&column.name.to_ascii_lowercase());
            let has_key = table.key.iter().all(|position| has(&&table.columns[*position]));
            let shared = table.columns.iter().filter(has).count();
            if has_key && shared * 2 >= table.columns.len() {
                found.insert(table.no);
            }
        }
    }
    Ok(found)
}

/// Remembers a document that is applied to a table that is perhaps being built again, and its content: its entry may be forgotten
/// before the old table goes. To be called in a write transaction.
pub(crate) fn remember(connection: &Connection, no: i64, key: &Key, content: Option<&Bytes>) -> Outcome<()> {
    connection
        .prepare_cached(
            "INSERT INTO _entgldb_late(collection_no, key, content) SELECT ?1, ?2, ?3 WHERE (SELECT count(*) FROM _entgldb_late) < ?4
             ON CONFLICT DO UPDATE SET content = excluded.content",
        )
        .and_then(|mut statement| statement.execute((no, key.as_str(), content.map(|content| &**content), LATE_MAX)))
        .map(drop)
        .doing("remembering an applied document")
}

/// The content with this hash that was remembered of a document.
pub(crate) fn remembered(connection: &Connection, no: i64, key: &Key, hash: Hash) -> Outcome<Option<Bytes>> {
    let content: Option<Vec<u8>> = connection
        .prepare_cached("SELECT content FROM _entgldb_late WHERE collection_no = ?1 AND key = ?2")
        .and_then(|mut statement| statement.query_row((no, key.as_str()), |row| row.get(0)).optional())
        .doing("looking for a remembered document")?
        .flatten();
    Ok(content.filter(|content| sha256(content) == hash.0).map(Bytes::from))
}

/// Whether a document was applied while its table was perhaps being built again.
pub(crate) fn is_late(connection: &Connection, no: i64, key: &Key) -> Outcome<bool> {
    connection
        .prepare_cached("SELECT EXISTS(SELECT 1 FROM _entgldb_late WHERE collection_no = ?1 AND key = ?2)")
        .and_then(|mut statement| statement.query_row((no, key.as_str()), |row| row.get(0)))
        .doing("looking for a remembered document")
}

/// The documents that were applied while their table was perhaps being built again, and have no row now.
pub(crate) fn late_and_missing(connection: &Connection, table: &Table) -> Outcome<Vec<Key>> {
    let mut statement = connection
        .prepare_cached("SELECT key FROM _entgldb_late WHERE collection_no = ?1")
        .doing("looking for remembered documents")?;
    let keys = statement.query_map([table.no], |row| row.get::<_, String>(0)).and_then(Iterator::collect);
    let keys: Vec<String> = keys.doing("looking for remembered documents")?;
    let mut missing = Vec::new();
    for key in keys.iter().filter_map(|key| Key::new(key).ok()) {
        let Ok(columns) = table.form.decode(key.as_str()) else { continue };
        if rows::read(connection, table, &columns).doing("looking for remembered documents")?.is_none() {
            missing.push(key.clone());
        }
    }
    Ok(missing)
}

/// Forgets what was remembered of a table: it has been looked through. To be called in a write transaction.
pub(crate) fn forget(connection: &Connection, no: i64) -> Outcome<()> {
    connection
        .prepare_cached("DELETE FROM _entgldb_late WHERE collection_no = ?1")
        .and_then(|mut statement| statement.execute([no]))
        .map(drop)
        .doing("forgetting remembered documents")
}
