//! Documents that are in the file.

use bytes::Bytes;
use entgldb_replica::id::Key;
use rusqlite::{Connection, OptionalExtension};

use crate::failed::{Outcome, While};

/// Reads a document.
pub(super) fn get(connection: &Connection, no: i64, key: &Key) -> Outcome<Option<Bytes>> {
    connection
        .prepare_cached("SELECT content FROM _entgldb_documents WHERE collection_no = ?1 AND key = ?2")
        .and_then(|mut statement| {
            let read = |row: &rusqlite::Row<'_>| row.get::<_, Vec<u8>>(0);
            statement.query_row((no, key.as_str()), read).optional()
        })
        .map(|content| content.map(Bytes::from))
        .doing("reading a document")
}

/// Writes a document into the file, or removes it. To be called in a write transaction.
pub(super) fn put(connection: &Connection, no: i64, key: &Key, content: Option<&Bytes>) -> Outcome<()> {
    let written = match content {
        Some(content) => connection
            .prepare_cached(
                "INSERT INTO _entgldb_documents VALUES(?1, ?2, ?3) ON CONFLICT DO UPDATE SET content = excluded.content",
            )
            .and_then(|mut statement| statement.execute((no, key.as_str(), &**content))),
        None => connection
            .prepare_cached("DELETE FROM _entgldb_documents WHERE collection_no = ?1 AND key = ?2")
            .and_then(|mut statement| statement.execute((no, key.as_str()))),
    };
    written.map(drop).doing("writing a document")
}
