//! The notes of local changes that no entry stands for yet.

use entgldb_replica::store::OutboxMark;
use rusqlite::Connection;

use crate::failed::{Outcome, While};

/// Whether nothing is in the outbox.
pub(crate) fn is_empty(connection: &Connection) -> Outcome<bool> {
    connection
        .prepare_cached("SELECT NOT EXISTS(SELECT 1 FROM _entgldb_outbox)")
        .and_then(|mut statement| statement.query_row([], |row| row.get(0)))
        .doing("looking into the outbox")
}

/// Deletes the notes up to a mark. To be called in a write transaction.
pub(crate) fn delete_until(connection: &Connection, mark: OutboxMark) -> Outcome<()> {
    connection
        .prepare_cached("DELETE FROM _entgldb_outbox WHERE id <= ?1")
        .and_then(|mut statement| statement.execute([mark.0.cast_signed()]))
        .map(drop)
        .doing("removing drained notes")
}
