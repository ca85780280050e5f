//! What the application's store makes of documents that it can't hold as they are: it may drop fields that it does not know,
//! or write numbers in its own way. What it shows of such a document is no change of it.

use bytes::Bytes;
use entgldb_replica::id::{DocId, Key};
use rusqlite::{Connection, OptionalExtension};

use super::store::OwnStore;
use crate::failed::{Outcome, SqliteFailed, While};

/// A document that the application's store shows otherwise than it is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Shown {
    /// The document.
    pub doc: DocId,
    /// Hash of the canonical form of what the store shows; `None` if it shows nothing.
    pub hash: Option<[u8; 32]>,
    /// The content that it stands for; `None` if it was deleted.
    pub content: Option<Bytes>,
}

impl OwnStore {
    /// What is known of how the application's store shows a document; `None` if it shows it as it is.
    ///
    /// # Errors
    /// When the file can't be read.
    pub fn shown(&self, doc: &DocId) -> Result<Option<Shown>, SqliteFailed> {
        let Some(no) = self.journal.names.known_collection(&doc.0) else { return Ok(None) };
        let found = get(&self.journal.connection, no, &doc.1)?;
        Ok(found.map(|(hash, content)| Shown { doc: doc.clone(), hash, content }))
    }
}

type Found = (Option<[u8; 32]>, Option<Bytes>);

pub(super) fn get(connection: &Connection, no: i64, key: &Key) -> Outcome<Option<Found>> {
    connection
        .prepare_cached(
            "SELECT shown_hash, content FROM _entgldb_shown WHERE collection_no = ?1 AND key = ?2",
        )
        .and_then(|mut statement| {
            let read = |row: &rusqlite::Row<'_>| {
                Ok((row.get(0)?, row.get::<_, Option<Vec<u8>>>(1)?.map(Bytes::from)))
            };
            statement.query_row((no, key.as_str()), read).optional()
        })
        .doing("reading how a document is shown")
}

/// To be called in a write transaction.
pub(super) fn put(connection: &Connection, no: i64, shown: &Shown) -> Outcome<()> {
    let hash = shown.hash.as_ref().map(<[u8; 32]>::as_slice);
    connection
        .prepare_cached(
            "INSERT INTO _entgldb_shown VALUES(?1, ?2, ?3, ?4)
             ON CONFLICT DO UPDATE SET shown_hash = excluded.shown_hash, content = excluded.content",
        )
        .and_then(|mut statement| {
            statement.execute((no, shown.doc.1.as_str(), hash, shown.content.as_deref()))
        })
        .map(drop)
        .doing("noting how a document is shown")
}

/// A document has another version now. To be called in a write transaction.
pub(crate) fn remove(connection: &Connection, no: i64, key: &Key) -> Outcome<()> {
    connection
        .prepare_cached("DELETE FROM _entgldb_shown WHERE collection_no = ?1 AND key = ?2")
        .and_then(|mut statement| statement.execute((no, key.as_str())))
        .map(drop)
        .doing("noting how a document is shown")
}
