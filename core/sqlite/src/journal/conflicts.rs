//! The list of versions that lost.

use bytes::Bytes;
use entgldb_replica::clock::{Stamp, WallMillis};
use entgldb_replica::id::{DocId, Key};
use entgldb_replica::resolve::{Conflict, Side};
use rusqlite::{Connection, Row};

use crate::failed::{Outcome, SqliteFailed, While};
use crate::journal::names::Names;

/// The conflicts that are not certain yet.
pub(crate) fn open(connection: &Connection, names: &Names) -> Outcome<Vec<Conflict>> {
    let mut statement = connection
        .prepare(
            "SELECT collection_no, key, winner_hlc, winner_author_no, winner_content, loser_hlc, loser_author_no,
             loser_content, missing_hlc, missing_author_no FROM _entgldb_conflicts WHERE missing_hlc IS NOT NULL",
        )
        .doing("reading conflicts")?;
    let mut rows = statement.query([]).doing("reading conflicts")?;
    let mut found = Vec::new();
    while let Some(row) = rows.next().doing("reading conflicts")? {
        found.push(read(names, row)?);
    }
    Ok(found)
}

/// Reads a conflict from a row of the conflict list.
pub(crate) fn read(names: &Names, row: &Row<'_>) -> Outcome<Conflict> {
    let read = || {
        let doc = (row.get(0)?, row.get::<_, String>(1)?);
        let winner = (row.get(2)?, row.get(3)?, row.get::<_, Option<Vec<u8>>>(4)?);
        let loser = (row.get(5)?, row.get(6)?, row.get::<_, Option<Vec<u8>>>(7)?);
        Ok((doc, winner, loser, (row.get::<_, Option<i64>>(8)?, row.get::<_, Option<i64>>(9)?)))
    };
    let ((no, key), winner, loser, missing) = read().doing("reading conflicts")?;
    let key = Key::new(&key).map_err(|error| SqliteFailed::damaged(error.to_string()))?;
    let side = |(hlc, author, content): (i64, i64, Option<Vec<u8>>)| {
        Ok::<_, SqliteFailed>(Side { stamp: names.stamp(hlc, author)?, content: content.map(Bytes::from) })
    };
    Ok(Conflict {
        doc: (names.collection(no)?.clone(), key),
        winner: side(winner)?,
        loser: side(loser)?,
        missing: match missing {
            (Some(hlc), Some(author)) => Some(names.stamp(hlc, author)?),
            _ => None,
        },
    })
}

/// Puts a conflict on the list, or notes that another version of it is missing. To be called in a write transaction.
pub(crate) fn put(
    connection: &Connection,
    names: &mut Names,
    conflict: &Conflict,
    wall: WallMillis,
) -> Outcome<()> {
    let Conflict { doc, winner, loser, missing } = conflict;
    let no = names.collection_no(connection, &doc.0)?;
    let winner_author = names.author(connection, &winner.stamp.node)?;
    let loser_author = names.author(connection, &loser.stamp.node)?;
    let (missing_hlc, missing_author) = match missing {
        Some(stamp) => (Some(stamp.hlc.0.cast_signed()), Some(names.author(connection, &stamp.node)?)),
        None => (None, None),
    };
    connection
        .prepare_cached(
            "INSERT INTO _entgldb_conflicts(collection_no, key, winner_hlc, winner_author_no, loser_hlc, loser_author_no,
             winner_content, loser_content, missing_hlc, missing_author_no, noted_at) VALUES(?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)
             ON CONFLICT(collection_no, key, winner_hlc, winner_author_no, loser_hlc, loser_author_no) DO UPDATE SET
             missing_hlc = excluded.missing_hlc, missing_author_no = excluded.missing_author_no",
        )
        .and_then(|mut insert| {
            insert.execute((
                no,
                doc.1.as_str(),
                winner.stamp.hlc.0.cast_signed(),
                winner_author,
                loser.stamp.hlc.0.cast_signed(),
                loser_author,
                winner.content.as_deref(),
                loser.content.as_deref(),
                missing_hlc,
                missing_author,
                wall.0.cast_signed(),
            ))
        })
        .doing("noting a conflict")?;
    Ok(())
}

/// Drops the oldest conflicts if the contents of all are larger than this together. To be called in a write transaction.
pub(crate) fn bound(connection: &Connection, bytes_max: u64) -> Outcome<()> {
    connection
        .execute(
            "DELETE FROM _entgldb_conflicts WHERE id <= (SELECT max(id) FROM (SELECT id,
             sum(coalesce(length(winner_content), 0) + coalesce(length(loser_content), 0)) OVER (ORDER BY id DESC) AS bytes
             FROM _entgldb_conflicts) WHERE bytes > ?1)",
            [bytes_max.cast_signed()],
        )
        .map(drop)
        .doing("dropping the oldest conflicts")
}

/// The number of the last conflict that was noted.
pub(crate) fn last(connection: &Connection) -> Outcome<i64> {
    connection
        .prepare_cached("SELECT coalesce(max(id), 0) FROM _entgldb_conflicts")
        .and_then(|mut statement| statement.query_row([], |row| row.get(0)))
        .doing("counting conflicts")
}

/// Takes a conflict off the list: it turned out to be none. To be called in a write transaction.
pub(crate) fn remove(
    connection: &Connection,
    names: &mut Names,
    doc: &DocId,
    (winner, loser): (&Stamp, &Stamp),
) -> Outcome<()> {
    let no = names.collection_no(connection, &doc.0)?;
    let winner_author = names.author(connection, &winner.node)?;
    let loser_author = names.author(connection, &loser.node)?;
    let (winner, loser) = (winner.hlc.0.cast_signed(), loser.hlc.0.cast_signed());
    connection
        .prepare_cached("DELETE FROM _entgldb_conflicts WHERE collection_no = ?1 AND key = ?2 AND winner_hlc = ?3 AND winner_author_no = ?4 AND loser_hlc = ?5 AND loser_author_no = ?6")
        .and_then(|mut delete| delete.execute((no, doc.1.as_str(), winner, winner_author, loser, loser_author)))
        .map(drop)
        .doing("removing a conflict")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_list_that_is_too_large_the_oldest_go() {
        let connection = Connection::open_in_memory().unwrap();
        let table = "CREATE TABLE _entgldb_conflicts(id INTEGER PRIMARY KEY, winner_content BLOB, loser_content BLOB)";
        connection.execute_batch(table).unwrap();
        for _ in 0..10 {
            let two = "INSERT INTO _entgldb_conflicts(winner_content, loser_content) VALUES(zeroblob(60), zeroblob(40))";
            connection.execute(two, []).unwrap();
            connection.execute("INSERT INTO _entgldb_conflicts DEFAULT VALUES", []).unwrap();
        }
        let left = |bytes_max| {
            bound(&connection, bytes_max).unwrap();
            let ids = "SELECT min(id), count(*) FROM _entgldb_conflicts";
            connection.query_row(ids, [], |row| Ok((row.get(0)?, row.get(1)?))).unwrap()
        };
        assert_eq!(left(1_000), (1, 20));
        assert_eq!(left(999), (2, 19));
        assert_eq!(left(300), (14, 7));
        assert_eq!(last(&connection).unwrap(), 20);
    }
}
