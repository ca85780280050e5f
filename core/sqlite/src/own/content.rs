//! The contents of the versions that stand, wherever they are.

use std::collections::HashMap;

use bytes::Bytes;
use entgldb_replica::clock::Stamp;
use entgldb_replica::entry::Op;
use entgldb_replica::id::{Collection, DocId, Key, sha256};
use entgldb_replica::member::members;
use entgldb_replica::resolve::{Document, Version};
use entgldb_replica::store::{Scan, ScanLimits};
use entgldb_replica::version::Hash;

use super::store::{Keeps, Look, OwnStore};
use super::{Recorded, documents, intake, shown};
use crate::failed::{Outcome, SqliteFailed, While};
use crate::file::connection::in_transaction;
use crate::journal::schema;
use crate::reading::outgoing;
use crate::reading::standing::{Content, Source, Standing};

/// What a row takes beside key and content, in bytes.
const ROW_BYTES: usize = 64;

impl OwnStore {
    fn document_now(&self, (collection, key): &DocId) -> Outcome<Option<Bytes>> {
        match self.journal.names.known_collection(collection) {
            Some(no) => documents::get(&self.journal.connection, no, key),
            None => Ok(None),
        }
    }

    pub(super) fn documents_now(&self, docs: &[DocId]) -> Outcome<Vec<Option<Bytes>>> {
        docs.iter().map(|doc| self.document_now(doc)).collect()
    }

    /// The content of a version that stands as far as the file has it. `None` if only the application's store may.
    fn content_here(&self, collection: &Collection, standing: &Standing) -> Outcome<Option<Content>> {
        let Some(hash) = standing.row.content else { return Ok(Some(Content::Is(None))) };
        let no = self.journal.no(collection)?;
        if self.keeps == Keeps::Documents
            && *collection != *members()
            && let Some(content) = documents::get(&self.journal.connection, no, &standing.key)?
            && is(&content, hash)
        {
            return Ok(Some(Content::Is(Some(content))));
        }
        // The entry, what is set aside, the state.
        let source = Source::of(&self.journal, collection, no, None)?;
        match source.content(standing)? {
            Content::Is(content) => return Ok(Some(Content::Is(content))),
            Content::Moved if *collection == *members() => return Ok(Some(Content::Moved)),
            Content::Moved => {}
        }
        if self.keeps == Keeps::Documents {
            return Ok(Some(Content::Moved));
        }
        let shown = shown::get(&self.journal.connection, no, &standing.key)?;
        let content = shown.and_then(|(_, content)| content).filter(|content| is(content, hash));
        Ok(content.map(|content| Content::Is(Some(content))))
    }

    /// The version that stands, if it is the one with this stamp and its content is to be had. `look` answers what documents
    /// are now in the application's store.
    ///
    /// # Errors
    /// Those of `look`, and when the file can't be read.
    pub fn standing_version<E: From<SqliteFailed>>(
        &mut self,
        doc: &DocId,
        stamp: &Stamp,
        look: &mut Look<'_, E>,
    ) -> Result<Option<Version>, E> {
        let Some(no) = self.journal.names.known_collection(&doc.0) else { return Ok(None) };
        let found = outgoing::standing(&self.journal.connection, &self.journal.names, no, doc.1.as_str())?;
        let Some(mut standing) = found.filter(|standing| standing.row.stamp == *stamp) else {
            return Ok(None);
        };
        standing.state = schema::state(&self.journal.connection, no, doc.1.as_str())?.map(Into::into);
        let content = match self.content_here(&doc.0, &standing)? {
            Some(content) => content,
            None => elsewhere(&standing, look(self, std::slice::from_ref(doc))?.pop().flatten()),
        };
        Ok(match content {
            Content::Is(Some(payload)) => Some(Version { replaces: None, op: Op::Put, payload }),
            Content::Is(None) => Some(Version { replaces: None, op: Op::Delete, payload: Bytes::new() }),
            Content::Moved => None,
        })
    }

    /// Reads rows in the order of their keys, as [`Store::scan`](entgldb_replica::store::Store::scan) does. `look` answers
    /// what documents are now in the application's store.
    ///
    /// # Errors
    /// Those of `look`, and when the file can't be read.
    pub fn scan_with<E: From<SqliteFailed>>(
        &mut self,
        collection: &Collection,
        after: Option<&Key>,
        limits: &ScanLimits,
        look: &mut Look<'_, E>,
    ) -> Result<Scan, E> {
        let Some(no) = self.journal.names.known_collection(collection) else { return Ok(Scan::default()) };
        let count = limits.rows.max(1) + 1;
        let (connection, names) = (&self.journal.connection, &self.journal.names);
        let mut rows = outgoing::next(connection, names, no, after, count)?;
        let stated = schema::stated(connection)?.contains(&no);
        let mut contents: Vec<Option<Content>> = Vec::with_capacity(rows.len());
        for standing in &mut rows {
            if stated {
                let state = schema::state(&self.journal.connection, no, standing.key.as_str())?;
                standing.state = state.map(Into::into);
            }
            contents.push(self.content_here(collection, standing)?);
        }
        let lacking: Vec<DocId> = rows
            .iter()
            .zip(&contents)
            .filter(|(_, content)| content.is_none())
            .map(|(standing, _)| (collection.clone(), standing.key.clone()))
            .collect();
        let found = if lacking.is_empty() { Vec::new() } else { look(self, &lacking)? };
        let keys = lacking.into_iter().map(|(_, key)| key);
        let mut found: HashMap<Key, Option<Bytes>> = keys.zip(found).collect();
        let mut scan = Scan::default();
        let mut bytes = 0;
        for (standing, content) in rows.into_iter().zip(contents) {
            if scan.documents.len() >= limits.rows.max(1) || bytes >= limits.bytes {
                scan.more = true;
                break;
            }
            let content =
                content.unwrap_or_else(|| elsewhere(&standing, found.remove(&standing.key).flatten()));
            let Content::Is(content) = content else {
                scan.moved = true;
                if scan.documents.is_empty() {
                    self.note_moved(no, &standing.key)?;
                }
                break;
            };
            let Standing { key, row, state, .. } = standing;
            bytes += ROW_BYTES + key.as_str().len();
            bytes += content.as_ref().map_or(0, Bytes::len) + state.as_ref().map_or(0, Bytes::len);
            scan.documents.push(Document { key, row, content, merged: state });
        }
        Ok(scan)
    }

    /// A document that is not what its row says, and of which no note waits: what it is now is captured as a change of its
    /// own, or the snapshot would never get past it.
    fn note_moved(&mut self, no: i64, key: &Key) -> Outcome<()> {
        in_transaction(&self.journal.connection, |connection| {
            let noted = connection
                .prepare_cached("SELECT EXISTS(SELECT 1 FROM _entgldb_outbox WHERE tbl = ?1 AND key = ?2)")
                .and_then(|mut statement| {
                    statement.query_row((no, key.as_str()), |row| row.get::<_, bool>(0))
                })
                .doing("looking into the outbox")?;
            if noted {
                return Ok(());
            }
            intake::note(connection, (no, key.as_str()), &Recorded::Look, intake::now_ms(), &mut None)
        })
    }
}

fn elsewhere(standing: &Standing, found: Option<Bytes>) -> Content {
    let is_it = |content: &Bytes| standing.row.content.is_some_and(|hash| is(content, hash));
    found.filter(is_it).map_or(Content::Moved, |content| Content::Is(Some(content)))
}

fn is(content: &Bytes, hash: Hash) -> bool {
    sha256(content) == hash.0
}
