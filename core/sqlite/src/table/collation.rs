//! Collations that only the application has, where nothing is ordered by them.
//!
//! A table without rowid keeps all its columns in the index of its key, and SQLite wants the collations of all of them, also of
//! those that are never compared there. For these any collation will do. One that an index is ordered by has no stand-in: with
//! another order the index would be damaged.

use rusqlite::Connection;

use crate::quote::identifier;

/// Gives a connection stand-ins for collations that it lacks and that no index is ordered by.
pub(crate) fn stand_in(connection: &Connection) -> rusqlite::Result<()> {
    let mut statement = connection.prepare(
        "SELECT x.coll FROM pragma_table_list t, pragma_index_list(t.name) i, pragma_index_xinfo(i.name) x
         WHERE t.schema = 'main' AND x.coll IS NOT NULL GROUP BY x.coll COLLATE NOCASE HAVING max(x.key) = 0",
    )?;
    let names = statement.query_map([], |row| row.get(0))?.collect::<rusqlite::Result<Vec<String>>>()?;
    for name in names.iter().filter(|name| !has(connection, name)) {
        connection.create_collation(name.as_str(), |a, b| a.cmp(b))?;
    }
    Ok(())
}

/// Whether a connection can compare by a collation. `PRAGMA collation_list` does not tell: it also has the names that were only
/// read in the schema.
pub(crate) fn has(connection: &Connection, name: &str) -> bool {
    is_built_in(name) || connection.prepare(&format!("SELECT '' = '' COLLATE {}", identifier(name))).is_ok()
}

/// Whether every program has it. Only by these may an index be ordered into which this program writes: what else a connection
/// has may be a stand-in, given when nothing was ordered by it.
pub(crate) fn is_built_in(name: &str) -> bool {
    ["BINARY", "NOCASE", "RTRIM"].iter().any(|known| known.eq_ignore_ascii_case(name))
}
