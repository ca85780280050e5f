//! The application's own store: what it implements so that the engine can keep it in sync.
//!
//! The engine keeps its journal in an SQLite file of its own and calls the application's store through [`HostStore`]. The
//! application tells of its writes with [`Node::record`](crate::Node::record) (with content) or
//! [`Node::touch`](crate::Node::touch) (the engine reads the content), or lets the engine read its own outbox.

mod adapter;
mod cell;
#[cfg(test)]
mod collisions;
#[cfg(test)]
mod crash;
mod place;
mod reconcile;
mod settle;

use bytes::Bytes;
use entgldb_replica::id::{Collection, DocId, Key};
use entgldb_replica::resolve::Side;

pub(crate) use adapter::HostedStore;
pub use cell::{HookScope, in_hook};
pub(crate) use cell::{HookWatch, HooksInFlight, HostCell, InFlight};

/// A document on its way into the application's store.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct HostDocument {
    /// Its collection.
    pub collection: Collection,
    /// Its key.
    pub key: Key,
    /// Its content: JSON, as its author wrote it.
    pub content: Bytes,
    /// The hybrid time of the version: milliseconds since 1970 in the upper 48 bits, a counter in the lower 16. Later
    /// versions of a document have greater ones.
    pub hlc: u64,
}

/// A change that the application has made.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum HostChange {
    /// The document has this content now.
    Put {
        /// The document.
        doc: DocId,
        /// Its content: JSON.
        content: Bytes,
    },
    /// The document is gone.
    Delete {
        /// The document.
        doc: DocId,
    },
}

impl HostChange {
    /// The document that changed.
    #[must_use]
    pub fn doc(&self) -> &DocId {
        match self {
            Self::Put { doc, .. } | Self::Delete { doc } => doc,
        }
    }
}

/// A note of the application's own outbox: this document was written.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct OutboxItem {
    /// Its number. Numbers rise in the order in which the application's transactions were committed.
    pub id: u64,
    /// The document. Its content is read through [`HostStore::read`].
    pub doc: DocId,
    /// When it was written, in milliseconds since 1970.
    pub written_ms: u64,
}

/// One of the application's hooks did not do what it was asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum HostError {
    /// It failed, perhaps because of a single document: it is tried again, then document by document, and those that fail
    /// alone are set aside.
    #[error("{message}")]
    Failed {
        /// The application's words.
        message: String,
    },
    /// It failed since other documents of the store stand in the way, as with a UNIQUE constraint. Of a document alone and
    /// those in its way the younger stays, on every node: a store with `transactions` and `outbox` loses the older ones to it, and
    /// what had to go is set aside and comes back when it can. With any other store it counts as [`HostError::Failed`].
    #[error("{message}")]
    Blocked {
        /// What stands in the way, as far as it is known.
        by: Vec<DocId>,
        /// The application's words.
        message: String,
    },
    /// The application's store can't be used at all now. Nothing is set aside; the engine stops syncing and comes back to it
    /// after a while.
    #[error("the application's store is not available: {message}")]
    Unavailable {
        /// The application's words.
        message: String,
    },
    /// Only from [`HostStore::commit`]: the outbox has something that the engine has not read. Nothing was committed.
    #[error("the outbox has moved")]
    OutboxMoved,
}

impl HostError {
    /// The hook failed with these words.
    #[must_use]
    pub fn failed(message: impl Into<String>) -> Self {
        Self::Failed { message: message.into() }
    }

    /// The store can't be used now, with these words.
    #[must_use]
    pub fn unavailable(message: impl Into<String>) -> Self {
        Self::Unavailable { message: message.into() }
    }
}

/// What a hook answers.
pub type HostResult<T> = Result<T, HostError>;

/// Which of the optional hooks a store has. Asked once, when the node is opened.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct HostCapabilities {
    /// [`HostStore::begin`], [`HostStore::commit`] and [`HostStore::rollback`]: what is between them is done as a whole or
    /// not at all.
    pub transactions: bool,
    /// [`HostStore::outbox`]: the application notes its own writes in the transactions that make them. With `transactions`
    /// too, no write of the application can be lost or overwritten, whenever a process ends.
    pub outbox: bool,
    /// [`HostStore::resolve`]: for the collections of [`Config::custom_hook`](crate::Config::custom_hook).
    pub resolve: bool,
}

/// The application's store.
///
/// All hooks are called from one thread of the engine's, one at a time, never nested, no lock held. At most
/// [`HOOK_DOCUMENTS_MAX`](crate::HOOK_DOCUMENTS_MAX) documents and [`HOOK_BYTES_MAX`](crate::HOOK_BYTES_MAX) bytes of content
/// are passed at a time (a single larger document alone). A panic counts as [`HostError::Failed`]. The store is dropped
/// exactly once, on that thread, after the last hook has returned.
///
/// Inside a hook [`Node::touch`](crate::Node::touch) may be called, and what only reads; calls that would wait for the
/// engine answer with an error.
///
/// A store without [`HostCapabilities::transactions`] must not let the application write a document that
/// [`HostStore::apply`] or [`HostStore::delete`] is just writing: take the same lock around the write and its
/// [`Node::record`](crate::Node::record) as inside the hooks.
pub trait HostStore: Send + 'static {
    /// Which optional hooks it has.
    fn capabilities(&self) -> HostCapabilities {
        HostCapabilities::default()
    }

    /// Writes documents, whether they are there or not. Must do the same when it is called again with the same documents.
    ///
    /// # Errors
    /// See [`HostError`]. Without transactions some of the documents may have been written then.
    fn apply(&mut self, documents: &[HostDocument]) -> HostResult<()>;

    /// The contents of documents as they are now, one answer for each in the same order; `None` for one that is not there.
    ///
    /// # Errors
    /// See [`HostError`].
    fn read(&mut self, docs: &[DocId]) -> HostResult<Vec<Option<Bytes>>>;

    /// Deletes documents. One that is not there is no error.
    ///
    /// # Errors
    /// See [`HostError`].
    fn delete(&mut self, docs: &[DocId]) -> HostResult<()>;

    /// Up to `limit` keys of a collection in the order of their bytes, after one key or from the beginning; none at the
    /// end. The content may be left out; it is read then.
    ///
    /// # Errors
    /// See [`HostError`].
    fn enumerate(
        &mut self,
        collection: &Collection,
        after: Option<&Key>,
        limit: usize,
    ) -> HostResult<Vec<(Key, Option<Bytes>)>>;

    /// Begins a unit.
    ///
    /// # Errors
    /// See [`HostError`].
    fn begin(&mut self) -> HostResult<()> {
        Ok(())
    }

    /// Makes durable what was done since [`HostStore::begin`], unless the outbox has something beyond what
    /// [`HostStore::outbox`] has answered.
    ///
    /// # Errors
    /// [`HostError::OutboxMoved`] in that case; nothing was committed. Else see [`HostError`].
    fn commit(&mut self) -> HostResult<()> {
        Ok(())
    }

    /// Undoes what was done since [`HostStore::begin`].
    ///
    /// # Errors
    /// See [`HostError`].
    fn rollback(&mut self) -> HostResult<()> {
        Ok(())
    }

    /// Up to `limit` notes of the outbox after a number, in order. What is at or before that number is durable elsewhere and
    /// may be removed.
    ///
    /// # Errors
    /// See [`HostError`].
    fn outbox(&mut self, after: u64, limit: usize) -> HostResult<Vec<OutboxItem>> {
        let _ = (after, limit);
        Ok(Vec::new())
    }

    /// Decides between versions of a document that were made without knowledge of each other, the oldest first; `None`
    /// deletes it. Must follow from its arguments alone, see [`Resolver`](crate::Resolver).
    ///
    /// # Errors
    /// See [`HostError`]; the youngest version stands then.
    fn resolve(&mut self, doc: &DocId, versions: &[Side]) -> HostResult<Option<Bytes>> {
        let _ = doc;
        Ok(versions.last().and_then(|side| side.content.clone()))
    }
}
