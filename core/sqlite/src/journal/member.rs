//! The documents of the members: a table of the engine's own, which is never captured. Its contents are bytes.

use bytes::Bytes;
use entgldb_replica::id::Key;
use rusqlite::{Connection, OptionalExtension};

use crate::failed::{Outcome, While};

/// The content of a member's document.
pub(crate) fn read(connection: &Connection, key: &Key) -> Outcome<Option<Bytes>> {
    connection
        .prepare_cached("SELECT content FROM _entgldb_members WHERE key = ?1")
        .and_then(|mut statement| {
            statement.query_row([key.as_str()], |row| row.get::<_, Vec<u8>>(0)).optional()
        })
        .map(|content| content.map(Bytes::from))
        .doing("reading a member")
}

/// Writes a member's document, or removes it. To be called in a write transaction.
pub(crate) fn write(connection: &Connection, key: &Key, content: Option<&Bytes>) -> Outcome<()> {
    let written = match content {
        Some(content) => connection
            .prepare_cached(
                "INSERT INTO _entgldb_members VALUES(?1, ?2) ON CONFLICT DO UPDATE SET content = excluded.content",
            )
            .and_then(|mut statement| statement.execute((key.as_str(), &**content))),
        None => connection
            .prepare_cached("DELETE FROM _entgldb_members WHERE key = ?1")
            .and_then(|mut statement| statement.execute([key.as_str()])),
    };
    written.map(drop).doing("writing a member")
}
