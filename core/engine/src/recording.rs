//! What the application tells of its own writes.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crossbeam_channel::Sender;
use entgldb_replica::id::DocId;
use entgldb_replica::limits::{UNIT_BYTES_MAX, UNIT_CHANGES_MAX};
use entgldb_sqlite::own::{Intake, Keeps, Recorded, RecordedDoc};
use entgldb_sqlite::{Durability, Holder, OpenError, SqliteFailed};
use serde::de::IgnoredAny;

use crate::clocks::wall_ms;
use crate::driver::Message;
use crate::guard::{GuardError, Home};
use crate::host::HostChange;
use crate::node::Node;
use crate::status::Status;

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

/// Takes changes in, on whatever thread.
pub(crate) struct Recorder {
    intake: Mutex<Intake>,
    home: Home,
    closed: Arc<AtomicBool>,
    payload_bytes_max: usize,
    status: Arc<Mutex<Status>>,
    to_driver: Sender<Message>,
}

/// What a recorder shares with its node.
pub(crate) struct Shared {
    pub(crate) home: Home,
    pub(crate) closed: Arc<AtomicBool>,
    pub(crate) status: Arc<Mutex<Status>>,
    pub(crate) to_driver: Sender<Message>,
}

impl Recorder {
    pub(crate) fn open(
        path: &Path,
        (keeps, durability): (Keeps, Durability),
        payload_bytes_max: usize,
        (stop, holder): (Arc<AtomicBool>, &Holder),
        Shared { home, closed, status, to_driver }: Shared,
    ) -> Result<Self, OpenError> {
        let intake = Mutex::new(Intake::open(path, keeps, durability, stop, holder)?);
        Ok(Self { intake, home, closed, payload_bytes_max, status, to_driver })
    }

    pub(crate) fn intake(&self) -> MutexGuard<'_, Intake> {
        self.intake.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn may_call(&self) -> Result<(), GuardError> {
        self.home.may_call()?;
        if self.closed.load(Ordering::Acquire) { Err(GuardError::Closed) } else { Ok(()) }
    }

    /// Records changes with their contents.
    pub(crate) fn record(&self, changes: &[HostChange]) -> Result<(), RecordError> {
        self.may_call()?;
        self.home.may_wait()?;
        let mut bytes = 0;
        let now = wall_ms();
        let mut recorded: Vec<RecordedDoc> = Vec::with_capacity(changes.len());
        for change in changes {
            let doc = change.doc().clone();
            bytes += doc.1.as_str().len();
            let what = match change {
                HostChange::Put { content, .. } => {
                    self.check(&doc, content)?;
                    bytes += content.len();
                    Recorded::Put(content.clone())
                }
                HostChange::Delete { .. } => Recorded::Gone,
            };
            recorded.push((doc, what, now));
        }
        if bytes > UNIT_BYTES_MAX && changes.len() > 1 {
            let reason = format!("{bytes} bytes; the limit UNIT_BYTES_MAX allows {UNIT_BYTES_MAX} in a unit");
            return Err(RecordError::TooMuch { reason });
        }
        self.take(&recorded)
    }

    /// Notes documents whose contents are looked for later.
    fn touch(&self, docs: Vec<DocId>) -> Result<(), RecordError> {
        self.may_call()?;
        let now = wall_ms();
        let touched: Vec<RecordedDoc> = docs.into_iter().map(|doc| (doc, Recorded::Look, now)).collect();
        self.check_collections(&touched)?;
        for some in touched.chunks(UNIT_CHANGES_MAX) {
            self.intake().record(some)?;
        }
        self.wake();
        Ok(())
    }

    fn check(&self, (collection, key): &DocId, content: &[u8]) -> Result<(), RecordError> {
        let reason = if content.len() > self.payload_bytes_max {
            let (has, most) = (content.len(), self.payload_bytes_max);
            format!("{has} bytes; at most {most} may travel (payload_bytes_max)")
        } else {
            match serde_json::from_slice::<IgnoredAny>(content) {
                Ok(_) => return Ok(()),
                Err(error) => format!("it is not JSON: {error}"),
            }
        };
        Err(RecordError::Document { collection: collection.to_string(), key: key.to_string(), reason })
    }

    fn take(&self, changes: &[RecordedDoc]) -> Result<(), RecordError> {
        if changes.len() > UNIT_CHANGES_MAX {
            let count = changes.len();
            let reason =
                format!("{count} documents; the limit UNIT_CHANGES_MAX allows {UNIT_CHANGES_MAX} in a unit");
            return Err(RecordError::TooMuch { reason });
        }
        self.check_collections(changes)?;
        self.intake().record(changes)?;
        self.wake();
        Ok(())
    }

    fn wake(&self) {
        // If the node has just stopped, it finds them at its next start.
        let _ = self.to_driver.send(Message::Wake);
    }

    fn check_collections(&self, changes: &[RecordedDoc]) -> Result<(), RecordError> {
        let status = self.status.lock().unwrap_or_else(PoisonError::into_inner);
        let unknown = changes.iter().find(|((collection, _), ..)| {
            !status.collections.iter().any(|known| known == collection.as_str())
        });
        match unknown {
            Some(((collection, _), ..)) => {
                Err(RecordError::UnknownCollection { collection: collection.to_string() })
            }
            None => Ok(()),
        }
    }
}

impl Node {
    /// Records changes that the application has made in its own store, as one unit: other nodes apply all of it or nothing.
    /// Durable on return. Not from inside a hook.
    ///
    /// # Errors
    /// When nothing was recorded, and why.
    pub fn record(&self, changes: &[HostChange]) -> Result<(), RecordError> {
        self.host_recorder()?.record(changes)
    }

    /// Tells that documents were written; the engine reads them through [`HostStore::read`](crate::HostStore::read) soon.
    /// Durable on return. May be called from inside a hook. Without documents it only makes the engine look at once.
    ///
    /// # Errors
    /// When nothing was noted, and why.
    pub fn touch(&self, docs: Vec<DocId>) -> Result<(), RecordError> {
        self.host_recorder()?.touch(docs)
    }

    fn host_recorder(&self) -> Result<&Recorder, RecordError> {
        if self.watchers().is_some() {
            return Err(RecordError::NoHostStore);
        }
        self.recorder().ok_or(RecordError::NoHostStore)
    }
}
