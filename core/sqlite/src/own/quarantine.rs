//! Documents that the application's store refuses, and what is known of how it shows others.

use bytes::Bytes;
use entgldb_replica::clock::{Stamp, WallMillis};
use entgldb_replica::id::{Collection, DocId, Key};
use entgldb_replica::store::{Problem, ProblemKind};

use super::intake::{note, now_ms};
use super::store::{Number, OwnStore};
use super::{Recorded, Refused, Shown, shown};
use crate::failed::{Outcome, SqliteFailed};
use crate::file::connection::in_transaction;
use crate::journal::aside::{self, Aside, Reason};
use crate::journal::schema;

/// A document in quarantine.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct QuarantineItem {
    /// The document.
    pub doc: DocId,
    /// Its version.
    pub stamp: Stamp,
    /// The content; `None` for a deletion.
    pub content: Option<Bytes>,
}

impl OwnStore {
    /// Documents in quarantine after one in the order of the keys, or from the beginning; at most `count`.
    ///
    /// # Errors
    /// When the file can't be read.
    pub fn quarantine(
        &mut self,
        collection: &Collection,
        after: Option<&Key>,
        count: usize,
    ) -> Result<Vec<QuarantineItem>, SqliteFailed> {
        if !aside::any(&self.journal.connection)? {
            return Ok(Vec::new());
        }
        let no = self.journal.no(collection)?;
        let after = after.map_or("", Key::as_str);
        let waiting = aside::waiting(&self.journal.connection, &self.journal.names, no, after, count)?;
        let item = |Aside { key, stamp, content, .. }| QuarantineItem {
            doc: (collection.clone(), key),
            stamp,
            content,
        };
        Ok(waiting.into_iter().map(item).collect())
    }

    /// A document in quarantine.
    ///
    /// # Errors
    /// When the file can't be read.
    pub fn quarantined(&self, doc: &DocId) -> Result<Option<QuarantineItem>, SqliteFailed> {
        let Some(aside) = self.aside(doc)? else { return Ok(None) };
        Ok(Some(QuarantineItem { doc: doc.clone(), stamp: aside.stamp, content: aside.content }))
    }

    /// For a document in quarantine: hash of the canonical form of what the application's store has in its place, or none if
    /// it has nothing.
    ///
    /// # Errors
    /// When the file can't be read.
    pub fn refused_in_place_of(&self, doc: &DocId) -> Result<Option<Option<[u8; 32]>>, SqliteFailed> {
        Ok(self.aside(doc)?.and_then(|aside| match aside.reason {
            Reason::Refused { table_hash, .. } => Some(table_hash),
            Reason::Collided { .. } => None,
        }))
    }

    fn aside(&self, (collection, key): &DocId) -> Outcome<Option<Aside>> {
        let Some(no) = self.journal.names.known_collection(collection) else { return Ok(None) };
        if !aside::any(&self.journal.connection)? {
            return Ok(None);
        }
        aside::get(&self.journal.connection, &self.journal.names, no, key)
    }

    /// Drops a document from quarantine. What the application's store has in its place counts from now on as how it shows
    /// the document. Answers whether there was such a document.
    ///
    /// # Errors
    /// When it is not certain that it is durable.
    pub fn discard(&mut self, doc: &DocId) -> Result<bool, SqliteFailed> {
        let Some(aside) = self.aside(doc)? else { return Ok(false) };
        let Reason::Refused { table_hash, .. } = aside.reason else { return Ok(false) };
        let no = self.journal.no(&doc.0)?;
        let shown = Shown { doc: doc.clone(), hash: table_hash, content: aside.content };
        in_transaction(&self.journal.connection, |connection| {
            shown::put(connection, no, &shown)?;
            aside::remove(connection, no, &doc.1)
        })
    }

    /// Takes notes of the application's own outbox over: the documents, and when they were written. `until` is the last
    /// note's number there.
    ///
    /// # Errors
    /// When it is not certain that they are durable.
    pub fn take_notes(&mut self, notes: &[(DocId, u64)], until: u64) -> Result<(), SqliteFailed> {
        let names = &self.journal.names;
        let collections = &self.collections;
        in_transaction(&self.journal.connection, |connection| {
            for ((collection, key), at_ms) in notes {
                if let Some(no) = names.known_collection(collection)
                    && collections.contains(collection)
                {
                    note(connection, (no, key.as_str()), &Recorded::Look, *at_ms, &mut None)?;
                }
            }
            schema::put(connection, Number::OutboxAfter.name(), until.cast_signed())
        })
    }

    /// Sets documents aside that are about to be taken out of the application's store.
    ///
    /// # Errors
    /// When it is not certain that it is durable.
    pub fn set_aside(&mut self, refused: &[Refused]) -> Result<Vec<Problem>, SqliteFailed> {
        let done = self.transact(WallMillis(now_ms()), |placing| {
            refused.iter().try_for_each(|refused| placing.refuse(refused))?;
            Ok(true)
        })?;
        done.ok_or_else(|| SqliteFailed::damaged("nothing was set aside"))
    }

    /// Takes documents out of quarantine that the application's store has taken now, with what it makes of them.
    ///
    /// # Errors
    /// When it is not certain that it is durable.
    pub fn release(&mut self, docs: &[DocId], shown: &[Shown]) -> Result<Vec<Problem>, SqliteFailed> {
        let problem = |(collection, key): &DocId| Problem {
            collection: collection.clone(),
            key: key.as_str().to_owned(),
            kind: ProblemKind::CameBack,
            message: "the store takes it now".to_owned(),
        };
        let names = &self.journal.names;
        in_transaction(&self.journal.connection, |connection| {
            let mut back = Vec::new();
            for doc in docs {
                let Some(no) = names.known_collection(&doc.0) else { continue };
                if aside::remove(connection, no, &doc.1)? {
                    back.push(problem(doc));
                }
                if let Some(shown) = shown.iter().find(|shown| shown.doc == *doc) {
                    shown::put(connection, no, shown)?;
                }
            }
            Ok(back)
        })
    }
}
