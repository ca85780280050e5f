//! What the replica reads of documents: their versions, and whole collections for a snapshot.

use entgldb_replica::clock::Stamp;
use entgldb_replica::id::{Collection, DocId, Key};
use entgldb_replica::resolve::Version;
use entgldb_replica::store::{Scan, ScanLimits};

use super::SqliteStore;
use crate::capture::notes;
use crate::failed::{Outcome, While};
use crate::file::connection::in_transaction;
use crate::journal::journal::Journal;
use crate::reading::standing::Source;
use crate::reading::{outgoing, standing};

impl SqliteStore {
    /// See [`entgldb_replica::store::Store::scan`].
    pub(super) fn scan_rows(
        &mut self,
        collection: &Collection,
        after: Option<&Key>,
        limits: &ScanLimits,
    ) -> Outcome<Scan> {
        self.refresh()?;
        let Some(no) = self.journal.names.known_collection(collection) else { return Ok(Scan::default()) };
        let source = self.source(collection, no)?;
        let (scan, moved) = self.journal.read(|| outgoing::scan(&source, after, limits))?;
        if let Some(key) = moved.filter(|_| scan.documents.is_empty()) {
            self.note_moved(collection, &key)?;
        }
        Ok(scan)
    }

    /// The version that stands, if it has this stamp.
    pub(super) fn standing_version(&self, doc: &DocId, stamp: &Stamp) -> Outcome<Option<Version>> {
        let Journal { connection, names, .. } = &self.journal;
        let Some(no) = names.known_collection(&doc.0) else { return Ok(None) };
        let Some(standing) = outgoing::standing(connection, names, no, doc.1.as_str())? else {
            return Ok(None);
        };
        standing::version(&self.source(&doc.0, no)?, &standing, stamp)
    }

    /// Where a collection's contents are.
    fn source<'a>(&'a self, collection: &'a Collection, no: i64) -> Outcome<Source<'a>> {
        Source::of(&self.journal, collection, no, self.watched.table(collection).map(|table| &**table))
    }

    /// A row that is not what its document says, and of which no note waits: columns were dropped. What the table has now
    /// is captured as a change of its own, or the snapshot would never get past it.
    fn note_moved(&self, collection: &Collection, key: &Key) -> Outcome<()> {
        let Some(table) = self.watched.table(collection) else { return Ok(()) };
        let Ok(columns) = table.form.decode(key.as_str()) else { return Ok(()) };
        in_transaction(&self.journal.connection, |connection| {
            if notes::is_noted(connection, table, &columns)? {
                return Ok(());
            }
            notes::put_found(connection, table, &columns).doing("noting a row to capture")
        })
    }
}
