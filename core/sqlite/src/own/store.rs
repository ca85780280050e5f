//! The engine's own file as a store: what it is made of.

use bytes::Bytes;
use entgldb_replica::id::{Collection, DocId};

use crate::failed::SqliteFailed;
use crate::file::change::FileChange;
use crate::file::connection::in_transaction;
use crate::journal::journal::Journal;
use crate::journal::schema;

/// Answers what documents are now where they are kept, in order.
pub type Look<'l, E> = dyn FnMut(&mut OwnStore, &[DocId]) -> Result<Vec<Option<Bytes>>, E> + 'l;

/// Who keeps the documents of an own file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Keeps {
    /// They are in it.
    Documents,
    /// The application, in a store of its own.
    Host,
}

impl Keeps {
    pub(super) fn number(self) -> i64 {
        match self {
            Self::Documents => 1,
            Self::Host => 2,
        }
    }
}

/// A replica's store in the engine's own file. Used from one thread, like [`SqliteStore`](crate::SqliteStore).
#[derive(Debug)]
pub struct OwnStore {
    pub(super) journal: Journal,
    pub(super) keeps: Keeps,
    pub(super) collections: Vec<Collection>,
}

impl OwnStore {
    /// Syncs a collection no longer. Its documents stay. Answers whether it was synced.
    pub fn unwatch(&mut self, name: &str) -> bool {
        let before = self.collections.len();
        self.collections.retain(|collection| collection.as_str() != name);
        self.collections.len() < before
    }

    /// The collections that are synced.
    #[must_use]
    pub fn collections(&self) -> &[Collection] {
        &self.collections
    }

    /// Whether no note of a local change waits.
    ///
    /// # Errors
    /// When the file can't be read.
    pub fn outbox_is_empty(&mut self) -> Result<bool, SqliteFailed> {
        self.journal.look_at_file()?;
        self.journal.outbox_is_empty()
    }

    /// How the file differs from the one that was opened; `None` if it does not. To be asked after an error, which may have
    /// come from that.
    #[must_use]
    pub fn file_change(&self) -> Option<FileChange> {
        self.journal.connection.change()
    }

    /// Whether remote changes have to wait because the disk is nearly full.
    #[must_use]
    pub fn is_short_of_room(&self) -> bool {
        self.journal.is_short_of_room()
    }

    /// Documents in quarantine, and changes that can't travel.
    ///
    /// # Errors
    /// When the file can't be read.
    pub fn problem_count(&mut self) -> Result<u64, SqliteFailed> {
        self.journal.problem_count()
    }

    /// Closes the file with everything on the disk.
    ///
    /// # Errors
    /// When it is not certain that everything is on the disk.
    pub fn close(self) -> Result<(), SqliteFailed> {
        self.journal.close()
    }

    /// One of the numbers that are kept for the engine.
    ///
    /// # Errors
    /// When the file can't be read.
    pub fn number(&self, name: Number) -> Result<u64, SqliteFailed> {
        Ok(schema::get::<i64>(&self.journal.connection, name.name())?.unwrap_or_default().cast_unsigned())
    }

    /// Keeps a number.
    ///
    /// # Errors
    /// When it is not certain that it is durable.
    pub fn put_number(&mut self, name: Number, value: u64) -> Result<(), SqliteFailed> {
        in_transaction(&self.journal.connection, |connection| {
            schema::put(connection, name.name(), value.cast_signed())
        })
    }
}

/// A number that an own file keeps for the engine.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Number {
    /// 1 while a node with a store of the application's has it open.
    InUse,
    /// How far the application's outbox has been read.
    OutboxAfter,
}

impl Number {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::InUse => "in_use",
            Self::OutboxAfter => "outbox_after",
        }
    }
}
