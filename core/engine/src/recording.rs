//! What the application tells of its own writes.

use entgldb_replica::id::DocId;
use entgldb_sqlite::SqliteFailed;

use crate::guard::GuardError;
use crate::host::HostChange;
use crate::node::Node;

/// Changes were not taken. Nothing of the call is recorded.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RecordError {
    /// The call must not be made here.
    #[error(transparent)]
    Guard(#[from] GuardError),
    /// The node watches an SQLite database by itself, or keeps the documents itself: there is nothing to tell it.
    #[error("this node has no store of the application's to record changes of")]
    NoHostStore,
    /// The collection is not among those that the node syncs.
    #[error("the collection {collection:?} is not synced by this node")]
    UnknownCollection {
        /// The collection as given.
        collection: String,
    },
    /// A document that no node would take.
    #[error("{collection}/{key}: {reason}")]
    Document {
        /// Its collection.
        collection: String,
        /// Its key.
        key: String,
        /// What is wrong with it.
        reason: String,
    },
    /// More than one unit may have.
    #[error("{reason}")]
    TooMuch {
        /// What, and the limit.
        reason: String,
    },
    /// The engine's file can't be written.
    #[error(transparent)]
    Failed(#[from] SqliteFailed),
}

impl Node {
    /// Records changes that the application has made in its own store, as one unit: other nodes apply all of it or nothing.
    /// Durable on return. Not from inside a hook.
    ///
    /// # Errors
    /// When nothing was recorded, and why.
    pub fn record(&self, changes: Vec<HostChange>) -> Result<(), RecordError> {
        let _ = changes;
        Err(RecordError::NoHostStore)
    }

    /// Tells that documents were written; the engine reads them through [`HostStore::read`](crate::HostStore::read) soon.
    /// Durable on return. May be called from inside a hook.
    ///
    /// # Errors
    /// When nothing was noted, and why.
    pub fn touch(&self, docs: Vec<DocId>) -> Result<(), RecordError> {
        let _ = docs;
        Err(RecordError::NoHostStore)
    }
}
