//! Looking at a store without changing it.

use entgldb_replica::id::Key;
use entgldb_replica::resolve::Conflict;
use rusqlite::Row;

use crate::failed::{Outcome, SqliteFailed, While};
use crate::names::Names;
use crate::store::side;

/// Reads a conflict from a row of the conflict list.
pub(crate) fn conflict(names: &Names, row: &Row<'_>) -> Outcome<Conflict> {
    let read = || {
        let doc = (row.get(0)?, row.get::<_, String>(1)?);
        let winner = (row.get(2)?, row.get(3)?, row.get::<_, Option<Vec<u8>>>(4)?);
        let loser = (row.get(5)?, row.get(6)?, row.get::<_, Option<Vec<u8>>>(7)?);
        Ok((doc, winner, loser, (row.get::<_, Option<i64>>(8)?, row.get::<_, Option<i64>>(9)?)))
    };
    let ((no, key), winner, loser, missing) = read().doing("reading conflicts")?;
    let key = Key::new(&key).map_err(|error| SqliteFailed::damaged(error.to_string()))?;
    Ok(Conflict {
        doc: (names.collection(no)?.clone(), key),
        winner: side(names.stamp(winner.0, winner.1)?, winner.2),
        loser: side(names.stamp(loser.0, loser.1)?, loser.2),
        missing: match missing {
            (Some(hlc), Some(author)) => Some(names.stamp(hlc, author)?),
            _ => None,
        },
    })
}
