//! The built-in document store, for applications that have none of their own.

use std::time::Duration;

use bytes::Bytes;
use entgldb_replica::id::{Collection, DocId, Key};

use crate::host::HostChange;
use crate::hub::NoEvent;
use crate::node::Node;
use crate::recording::RecordError;

/// The documents of a node that was opened without a store: they are in the engine's own file. From [`Node::documents`].
#[derive(Clone, Copy)]
pub struct Documents<'n> {
    node: &'n Node,
}

impl std::fmt::Debug for Documents<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Documents").finish_non_exhaustive()
    }
}

/// A document could not be read or written.
pub type DocumentError = RecordError;

/// A document that was changed, here or by another node.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum DocumentChange {
    /// It has another content now.
    Put(DocId),
    /// It is gone.
    Deleted(DocId),
    /// So many changes were left out because the watcher was too slow: read again what matters.
    Lost(u64),
}

/// Changes of documents whose keys begin with a prefix, from the moment it was made.
#[derive(Debug)]
pub struct DocumentWatch {}

impl DocumentWatch {
    /// The next change, waiting for it at most so long.
    ///
    /// # Errors
    /// When there is none.
    pub fn next(&self, timeout: Duration) -> Result<DocumentChange, NoEvent> {
        let _ = timeout;
        Err(NoEvent::Stopped)
    }
}

impl Node {
    /// The documents that the node keeps itself; `None` if it was opened beside a database or with a store.
    #[must_use]
    pub fn documents(&self) -> Option<Documents<'_>> {
        Some(Documents { node: self }).filter(|documents| documents.node.name().is_empty())
    }
}

impl Documents<'_> {
    /// Writes a document: JSON. Durable on return.
    ///
    /// # Errors
    /// When it was not written, and why.
    pub fn put(
        &self,
        collection: &Collection,
        key: &Key,
        content: impl Into<Bytes>,
    ) -> Result<(), DocumentError> {
        self.write(vec![HostChange::Put { doc: (collection.clone(), key.clone()), content: content.into() }])
    }

    /// Deletes a document. One that is not there is no error. Durable on return.
    ///
    /// # Errors
    /// When it was not deleted, and why.
    pub fn delete(&self, collection: &Collection, key: &Key) -> Result<(), DocumentError> {
        self.write(vec![HostChange::Delete { doc: (collection.clone(), key.clone()) }])
    }

    /// Writes and deletes documents as one unit: all of it or nothing, here and on every node. Durable on return.
    ///
    /// # Errors
    /// When nothing was written, and why.
    pub fn write(&self, changes: Vec<HostChange>) -> Result<(), DocumentError> {
        let _ = changes;
        Err(RecordError::NoHostStore)
    }

    /// The content of a document; `None` if there is none.
    ///
    /// # Errors
    /// When it can't be read.
    pub fn get(&self, collection: &Collection, key: &Key) -> Result<Option<Bytes>, DocumentError> {
        let _ = (collection, key);
        Err(RecordError::NoHostStore)
    }

    /// Up to `limit` documents whose keys begin with a prefix, in the order of the keys' bytes, after one key or from the
    /// beginning.
    ///
    /// # Errors
    /// When they can't be read.
    pub fn scan(
        &self,
        collection: &Collection,
        prefix: &str,
        after: Option<&Key>,
        limit: usize,
    ) -> Result<Vec<(Key, Bytes)>, DocumentError> {
        let _ = (collection, prefix, after, limit);
        Err(RecordError::NoHostStore)
    }

    /// Changes of documents of a collection whose keys begin with a prefix, from now on, whoever makes them.
    #[must_use]
    pub fn watch(&self, collection: &Collection, prefix: &str) -> DocumentWatch {
        let _ = (collection, prefix);
        DocumentWatch {}
    }
}
