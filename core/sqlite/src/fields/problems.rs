//! What a person should know of a table's schema. It is listed with the problems of documents, but never taken for one.

use entgldb_replica::store::{Problem, ProblemKind};
use rusqlite::Connection;

use crate::capture::clock::now_sql;
use crate::failed::{Outcome, While};
use crate::journal::names::Names;

/// Notes a problem of a table. `place` says of which part of it; one that is noted there already keeps its time.
pub(crate) fn note(connection: &Connection, no: i64, place: &str, message: &str) -> Outcome<()> {
    let sql = format!(
        "INSERT INTO _entgldb_table_problems(collection_no, place, message, noted_at) VALUES(?1, ?2, ?3, {})
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
        .prepare_cached("DELETE FROM _entgldb_table_problems WHERE collection_no = ?1 AND place = ?2")
        .and_then(|mut statement| statement.execute((no, place)))
        .doing("removing a problem of a table")?;
    Ok(())
}

/// All problems of tables.
pub(crate) fn all(connection: &Connection, names: &Names) -> Outcome<Vec<Problem>> {
    let mut statement = connection
        .prepare_cached(
            "SELECT collection_no, place, message FROM _entgldb_table_problems ORDER BY collection_no, place",
        )
        .doing("reading the problems of tables")?;
    let found = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)));
    let found: Vec<(i64, String, String)> =
        found.and_then(Iterator::collect).doing("reading the problems of tables")?;
    let problem = |(no, key, message): (i64, String, String)| {
        Ok(Problem { collection: names.collection(no)?.clone(), key, kind: ProblemKind::Schema, message })
    };
    found.into_iter().map(problem).collect()
}
