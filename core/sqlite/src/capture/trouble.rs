//! Watched tables that are not there any more: why, and the line that says so in the list of problems. It stands under the empty
//! key, which no document has.

use std::collections::BTreeMap;

use rusqlite::Connection;

use crate::capture::clock::now_sql;
use crate::capture::watched::Watched;
use crate::failed::{Outcome, While};
use crate::table::definition::Unwatchable;

/// How the message begins: by this it is found when the table is back.
const NOT_NOW: &str = "not synced now: ";

/// The names that tables have now whose names are not those under which they are watched, by the numbers of their
/// collections: SQLite takes triggers along when a table is renamed. To be called before the triggers are brought in order.
pub(crate) fn renamed(connection: &Connection, watched: &Watched) -> Outcome<BTreeMap<i64, String>> {
    let mut statement = connection
        .prepare_cached(
            "SELECT CAST(substr(name, 17) AS INTEGER), tbl_name FROM main.sqlite_schema
             WHERE type = 'trigger' AND substr(name, 1, 16) = '_entgldb_insert_'",
        )
        .doing("looking for renamed tables")?;
    let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?)));
    let tables: Vec<(i64, String)> = rows.and_then(Iterator::collect).doing("looking for renamed tables")?;
    let is_renamed = |(no, name): &(i64, String)| {
        watched.numbered(*no).is_some_and(|table| !name.eq_ignore_ascii_case(table.collection.as_str()))
    };
    Ok(tables.into_iter().filter(is_renamed).collect())
}

/// Why a table is not synced now.
pub(crate) fn reason(why: &Unwatchable, renamed: Option<&String>) -> String {
    let words = match (why, renamed) {
        (_, Some(name)) => {
            format!("the table was renamed to {name:?}; rename it back, or sync {name:?} on all nodes")
        }
        (Unwatchable::Missing, None) => {
            "the table was dropped; create it again, or stop syncing it. Its rows stay on the other nodes"
                .to_owned()
        }
        (Unwatchable::View, None) => "a view has the table's name".to_owned(),
        (Unwatchable::Virtual, None) => "a virtual table has the table's name".to_owned(),
        (Unwatchable::NoKey, None) => "the table has no primary key any more".to_owned(),
        (Unwatchable::Collation(_), None) => {
            "an index of the table is ordered by a collation that only its own application has".to_owned()
        }
    };
    format!("{NOT_NOW}{words}")
}

/// Notes why a table is not synced now.
pub(crate) fn note(connection: &Connection, no: i64, reason: &str) -> Outcome<()> {
    let sql = format!(
        "INSERT INTO _entgldb_problems(collection_no, key, message, noted_at) VALUES(?1, '', ?2, {})
         ON CONFLICT DO UPDATE SET message = excluded.message, noted_at = excluded.noted_at",
        now_sql()
    );
    connection
        .prepare_cached(&sql)
        .and_then(|mut statement| statement.execute((no, reason)))
        .doing("noting a problem")?;
    Ok(())
}

/// Whether the list has such a line for one of these tables, which are synced again.
pub(crate) fn any(connection: &Connection, synced: &[i64]) -> Outcome<bool> {
    let sql = "SELECT EXISTS(SELECT 1 FROM _entgldb_problems WHERE collection_no = ?1 AND key = '' AND substr(message, 1, length(?2)) = ?2)";
    let mut statement = connection.prepare_cached(sql).doing("looking for problems of tables")?;
    for no in synced {
        if statement.query_row((no, NOT_NOW), |row| row.get(0)).doing("looking for problems of tables")? {
            return Ok(true);
        }
    }
    Ok(false)
}

/// The table is synced again.
pub(crate) fn forget(connection: &Connection, no: i64) -> Outcome<()> {
    let sql = "DELETE FROM _entgldb_problems WHERE collection_no = ?1 AND key = '' AND substr(message, 1, length(?2)) = ?2";
    connection
        .prepare_cached(sql)
        .and_then(|mut statement| statement.execute((no, NOT_NOW)))
        .doing("removing a problem")?;
    Ok(())
}
