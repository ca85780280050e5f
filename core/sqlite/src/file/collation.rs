//! Collations that only the application has, where nothing is ordered by them.
//!
//! A table without rowid keeps all its columns in the index of its key, and SQLite wants the collations of all of them, also of
//! those that are never compared there. For these any collation will do. One that an index is ordered by has no stand-in: with
//! another order the index would be damaged.

use rusqlite::Connection;

/// Gives a connection stand-ins for collations that it lacks and that no index is ordered by.
pub(crate) fn stand_in(connection: &Connection) -> rusqlite::Result<()> {
    let mut statement = connection.prepare(
        "SELECT x.coll FROM pragma_table_list t, pragma_index_list(t.name) i, pragma_index_xinfo(i.name) x
         WHERE t.schema = 'main' AND x.coll IS NOT NULL
         AND NOT EXISTS (SELECT 1 FROM pragma_collation_list c WHERE c.name = x.coll COLLATE NOCASE)
         GROUP BY x.coll HAVING max(x.key) = 0",
    )?;
    let names = statement.query_map([], |row| row.get(0))?.collect::<rusqlite::Result<Vec<String>>>()?;
    for name in names {
        connection.create_collation(name.as_str(), |a, b| a.cmp(b))?;
    }
    Ok(())
}
