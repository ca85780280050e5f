//! The built-in document store, for applications that have none of their own.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, TrySendError, bounded};
use entgldb_replica::id::{Collection, DocId, Key};
use entgldb_replica::store::Commit;

use crate::host::HostChange;
use crate::hub::NoEvent;
use crate::node::Node;
use crate::recording::{RecordError, Recorder};

/// Changes that wait for one watcher; beyond that they are counted and left out.
const WAITING_MAX: usize = 4096;

/// The documents of a node that was opened without a store: they are in the engine's own file. From [`Node::documents`]. May
/// be used from any thread.
#[derive(Clone, Copy)]
pub struct Documents<'n> {
    recorder: &'n Recorder,
    watchers: &'n Watchers,
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

/// Changes of documents whose keys begin with a prefix, from the moment it was made. It may be used from any thread.
#[derive(Debug)]
pub struct DocumentWatch {
    queue: Receiver<DocumentChange>,
    lost: Arc<AtomicU64>,
}

impl DocumentWatch {
    /// The next change, waiting for it at most so long.
    ///
    /// # Errors
    /// When there is none.
    pub fn next(&self, timeout: Duration) -> Result<DocumentChange, NoEvent> {
        match self.lost.swap(0, Ordering::Relaxed) {
            0 => self.queue.recv_timeout(timeout).map_err(|error| match error {
                RecvTimeoutError::Timeout => NoEvent::Timeout,
                RecvTimeoutError::Disconnected => NoEvent::Stopped,
            }),
            count => Ok(DocumentChange::Lost(count)),
        }
    }
}

/// Those who watch documents, none of whom can hold a writer up.
#[derive(Clone, Default)]
pub(crate) struct Watchers(Arc<Mutex<Vec<Watcher>>>);

struct Watcher {
    collection: Collection,
    prefix: String,
    queue: Sender<DocumentChange>,
    lost: Arc<AtomicU64>,
}

impl Watchers {
    fn lock(&self) -> MutexGuard<'_, Vec<Watcher>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn watch(&self, collection: &Collection, prefix: &str) -> DocumentWatch {
        let (queue, receiver) = bounded(WAITING_MAX);
        let lost = Arc::new(AtomicU64::new(0));
        let (collection, prefix) = (collection.clone(), prefix.to_owned());
        self.lock().push(Watcher { collection, prefix, queue, lost: Arc::clone(&lost) });
        DocumentWatch { queue: receiver, lost }
    }

    /// Tells of what other nodes have changed.
    pub(crate) fn applied(&self, commit: &Commit) {
        let changes = commit.rows.iter().filter_map(|write| Some((&write.doc, write.apply.as_ref()?)));
        self.tell(changes.map(|(doc, content)| (doc, content.is_none())));
    }

    fn tell<'d>(&self, changes: impl Iterator<Item = (&'d DocId, bool)>) {
        let mut watchers = self.lock();
        if watchers.is_empty() {
            return;
        }
        for (doc, is_gone) in changes {
            let change = || match is_gone {
                true => DocumentChange::Deleted(doc.clone()),
                false => DocumentChange::Put(doc.clone()),
            };
            watchers.retain(|watcher| {
                if watcher.collection != doc.0 || !doc.1.as_str().starts_with(&watcher.prefix) {
                    return true;
                }
                match watcher.queue.try_send(change()) {
                    Ok(()) => true,
                    Err(TrySendError::Full(_)) => {
                        watcher.lost.fetch_add(1, Ordering::Relaxed);
                        true
                    }
                    Err(TrySendError::Disconnected(_)) => false,
                }
            });
        }
    }

    /// Ends all watching once what waits is read.
    pub(crate) fn end(&self) {
        self.lock().clear();
    }
}

impl Node {
    /// The documents that the node keeps itself; `None` if it was opened beside a database or with a store.
    #[must_use]
    pub fn documents(&self) -> Option<Documents<'_>> {
        let (recorder, watchers) = (self.recorder()?, self.watchers()?);
        Some(Documents { recorder, watchers })
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
        let doc = (collection.clone(), key.clone());
        self.write(&[HostChange::Put { doc, content: content.into() }])
    }

    /// Deletes a document. One that is not there is no error. Durable on return.
    ///
    /// # Errors
    /// When it was not deleted, and why.
    pub fn delete(&self, collection: &Collection, key: &Key) -> Result<(), DocumentError> {
        self.write(&[HostChange::Delete { doc: (collection.clone(), key.clone()) }])
    }

    /// Writes and deletes documents as one unit: all of it or nothing, here and on every node. Durable on return.
    ///
    /// # Errors
    /// When nothing was written, and why.
    pub fn write(&self, changes: &[HostChange]) -> Result<(), DocumentError> {
        self.recorder.record(changes)?;
        let told = changes.iter().map(|change| (change.doc(), matches!(change, HostChange::Delete { .. })));
        self.watchers.tell(told);
        Ok(())
    }

    /// The content of a document; `None` if there is none.
    ///
    /// # Errors
    /// When it can't be read.
    pub fn get(&self, collection: &Collection, key: &Key) -> Result<Option<Bytes>, DocumentError> {
        self.recorder.may_call()?;
        Ok(self.recorder.intake().get(collection, key)?)
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
        self.recorder.may_call()?;
        Ok(self.recorder.intake().scan(collection, prefix, after, limit)?)
    }

    /// Changes of documents of a collection whose keys begin with a prefix, from now on, whoever makes them.
    #[must_use]
    pub fn watch(&self, collection: &Collection, prefix: &str) -> DocumentWatch {
        self.watchers.watch(collection, prefix)
    }
}
