//! What a person should know of a table's schema, in the list of problems.

use rusqlite::Connection;

use crate::capture::triggers::now_sql;
use crate::failed::{Outcome, While};

/// Notes a problem of a table. `place` stands where other problems have a key; one that is noted there already keeps its time.
pub(crate) fn note(connection: &Connection, no: i64, place: &str, message: &str) -> Outcome<()> {
    let sql = format!(
        "INSERT INTO _entgldb_problems(collection_no, key, message, noted_at) VALUES(?1, ?2, ?3, {})
         ON CONFLICT DO UPDATE SET message = excluded.message",
        now_sql()
    );
    connection
        .prepare_cached(&sql)
        .and_then(|mut statement| statement.execute((no, place, message)))
        .doing("noting a problem of a table")?;
    Ok(())
}

/// Removes a problem of a table.
pub(crate) fn solve(connection: &Connection, no: i64, place: &str) -> Outcome<()> {
    connection
        .prepare_cached("DELETE FROM _entgldb_problems WHERE collection_no = ?1 AND key = ?2")
        .and_then(|mut statement| statement.execute((no, place)))
        .doing("removing a problem of a table")?;
    Ok(())
}
