//! Commands, status and events as JSON, for callers in other languages.

use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use entgldb_replica::event::Event as ReplicaEvent;
use entgldb_replica::id::{Collection, DocId, Key};
use entgldb_replica::store::Problem;
use entgldb_sqlite::inspect::Inspector;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::answer::{
    ConflictAnswer, ConflictListed, DocumentAnswer, DocumentListed, Done, MembersAnswer, PeersAnswer,
    QuarantineAnswer, QuarantineListed, ReconcileAnswer, RestoreAnswer, RowsAnswer, ScanAnswer, WatchAnswer,
};
use crate::documents::Documents;
use crate::driver::Driver;
use crate::event::Event;
use crate::hub::NoEvent;
use crate::node::Node;
use crate::store::StoreError;

/// What can be asked of a node as JSON. `command` says what; unknown fields are refused.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "command", rename_all = "snake_case", deny_unknown_fields)]
#[non_exhaustive]
pub enum Command {
    /// The linked peers and the addresses to dial.
    Peers {},
    /// Dials an address from now on.
    AddPeer {
        /// `host:port`.
        target: String,
    },
    /// The members of the cluster.
    Members {},
    /// Removes a member that will not come back.
    RemoveMember {
        /// Its identity.
        node: String,
    },
    /// The newest conflicts.
    Conflicts {
        /// At most so many.
        #[serde(default = "default_count")]
        count: usize,
    },
    /// Brings a losing version back.
    Restore {
        /// The collection.
        collection: String,
        /// The key.
        key: String,
        /// Its number in the conflict list; none will do if the document has one losing version only.
        #[serde(default)]
        version: Option<u64>,
    },
    /// Documents that the store refused, and changes that can't travel.
    Quarantine {
        /// At most so many.
        #[serde(default = "default_count")]
        count: usize,
    },
    /// Tries documents again that the store refused: one, or all.
    QuarantineRetry {
        /// The collection; all if none is given.
        #[serde(default)]
        collection: Option<String>,
        /// The key; all of the collection if none is given.
        #[serde(default)]
        key: Option<String>,
    },
    /// Drops a document that the store refused. The store keeps what it has.
    QuarantineDiscard {
        /// The collection.
        collection: String,
        /// The key.
        key: String,
    },
    /// Compares the store with what the engine knows of it, and captures what differs.
    Reconcile {
        /// The collection; all if none is given.
        #[serde(default)]
        collection: Option<String>,
        /// Deletes documents everywhere that are missing in the store, however many they are.
        #[serde(default)]
        confirm_deletes: bool,
    },
    /// Writes all rows to a file.
    SnapshotExport {
        /// The file.
        file: PathBuf,
    },
    /// Joins the rows of such a file.
    SnapshotImport {
        /// The file.
        file: PathBuf,
    },
    /// Syncs one more collection.
    Watch {
        /// The collection.
        collection: String,
    },
    /// Syncs a collection no longer.
    Unwatch {
        /// The collection.
        collection: String,
    },
    /// Writes a document of the built-in store.
    Put {
        /// The collection.
        collection: String,
        /// The key.
        key: String,
        /// The content.
        content: serde_json::Value,
    },
    /// Reads a document of the built-in store.
    Get {
        /// The collection.
        collection: String,
        /// The key.
        key: String,
    },
    /// Deletes a document of the built-in store.
    Delete {
        /// The collection.
        collection: String,
        /// The key.
        key: String,
    },
    /// Reads documents of the built-in store in the order of their keys.
    Scan {
        /// The collection.
        collection: String,
        /// What the keys begin with.
        #[serde(default)]
        prefix: String,
        /// Only keys after this one.
        #[serde(default)]
        after: Option<String>,
        /// At most so many.
        #[serde(default = "default_count")]
        limit: usize,
    },
}

fn default_count() -> usize {
    100
}

/// A command was not carried out.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum JsonCommandError {
    /// The call must not be made here.
    #[error(transparent)]
    Guard(#[from] crate::guard::GuardError),
    /// Not readable as a command.
    #[error("{path}: {reason}")]
    Unreadable {
        /// The field, as a path in the JSON.
        path: String,
        /// What is wrong there.
        reason: String,
    },
    /// It can't be done.
    #[error("{0}")]
    Refused(String),
}

fn refused(error: impl std::fmt::Display) -> JsonCommandError {
    JsonCommandError::Refused(error.to_string())
}

/// An answer as JSON.
fn json(answer: &impl Serialize) -> Result<String, JsonCommandError> {
    Ok(serde_json::to_string(answer).expect("an answer is plain data"))
}

fn doc(collection: &str, key: &str) -> Result<DocId, JsonCommandError> {
    let invalid = |path: &str, reason: String| JsonCommandError::Unreadable { path: path.to_owned(), reason };
    let name = Collection::new(collection).map_err(|error| invalid("collection", error.to_string()))?;
    Ok((name, Key::new(key).map_err(|error| invalid("key", error.to_string()))?))
}

impl Command {
    /// Reads a command from JSON.
    ///
    /// # Errors
    /// When it is none; the error names the place.
    pub fn from_json(text: &str) -> Result<Self, JsonCommandError> {
        let mut json = serde_json::Deserializer::from_str(text);
        let unreadable = |path: String, reason: String| JsonCommandError::Unreadable { path, reason };
        let command: Self = serde_path_to_error::deserialize(&mut json).map_err(|error| {
            let path = match error.path().to_string() {
                path if path == "." || path == "?" => "command".to_owned(),
                path => path,
            };
            unreadable(path, error.inner().to_string())
        })?;
        json.end().map_err(|error| unreadable("command".to_owned(), error.to_string()))?;
        Ok(command)
    }
}

impl Node {
    /// Carries out a [`Command`] that is given as JSON, and answers as JSON. Not from inside a hook.
    ///
    /// # Errors
    /// When it is no command, or was not carried out.
    pub fn command_json(&self, request: &str) -> Result<String, JsonCommandError> {
        self.home().may_wait()?;
        match Command::from_json(request)? {
            Command::Peers {} => {
                let status = self.status();
                json(&PeersAnswer { peers: status.peers, targets: status.targets })
            }
            Command::AddPeer { target } => done(self.add_peer(&target)),
            Command::Members {} => json(&MembersAnswer { members: self.members().map_err(refused)? }),
            Command::RemoveMember { node } => {
                let node = node.parse().map_err(|error| refused(format!("node {node:?}: {error}")))?;
                done(self.remove_member(node))
            }
            Command::Conflicts { count } => self.conflicts_json(count),
            Command::Restore { collection, key, version } => {
                let restored = self.restore(&collection, &key, version).map_err(refused)?;
                json(&RestoreAnswer { version: restored.version, is_deletion: restored.is_deletion })
            }
            Command::Quarantine { count } => self.quarantine_json(count),
            Command::QuarantineRetry { collection, key } => self.retry_json(collection, key),
            Command::QuarantineDiscard { collection, key } => self.discard_json(&doc(&collection, &key)?),
            Command::Reconcile { collection, confirm_deletes } => {
                self.reconcile_json(collection, confirm_deletes)
            }
            Command::SnapshotExport { file } => {
                let rows = self.snapshot_export(&file, &mut |_| {}).map_err(refused)?.rows;
                json(&RowsAnswer { rows })
            }
            Command::SnapshotImport { file } => {
                json(&self.snapshot_import(&file, &mut |_| {}).map_err(refused)?)
            }
            Command::Watch { collection } => {
                json(&WatchAnswer { collection: self.watch(&collection).map_err(refused)? })
            }
            Command::Unwatch { collection } => done(self.unwatch(&collection)),
            Command::Put { collection, key, .. } => self.put_json(&doc(&collection, &key)?, request),
            Command::Get { collection, key } => {
                let (collection, key) = doc(&collection, &key)?;
                let content = self.documents_or()?.get(&collection, &key).map_err(refused)?;
                json(&DocumentAnswer { content: content.map(|content| raw(&content)).transpose()? })
            }
            Command::Delete { collection, key } => {
                let (collection, key) = doc(&collection, &key)?;
                done(self.documents_or()?.delete(&collection, &key))
            }
            Command::Scan { collection, prefix, after, limit } => {
                let after = after.map(|after| doc(&collection, &after)).transpose()?.map(|(_, key)| key);
                let collection = doc(&collection, "k")?.0;
                self.scan_json(&collection, &prefix, after.as_ref(), limit)
            }
        }
    }

    fn documents_or(&self) -> Result<Documents<'_>, JsonCommandError> {
        self.documents().ok_or_else(|| refused("this node keeps no documents itself"))
    }

    /// The content is taken as it stands in the request: a tree of values would write its numbers anew.
    fn put_json(&self, (collection, key): &DocId, request: &str) -> Result<String, JsonCommandError> {
        #[derive(Deserialize)]
        struct Put<'r> {
            #[serde(borrow)]
            content: &'r RawValue,
        }
        let put: Put<'_> = serde_json::from_str(request).map_err(refused)?;
        let content = Bytes::copy_from_slice(put.content.get().as_bytes());
        done(self.documents_or()?.put(collection, key, content))
    }

    fn scan_json(
        &self,
        collection: &Collection,
        prefix: &str,
        after: Option<&Key>,
        limit: usize,
    ) -> Result<String, JsonCommandError> {
        let found = self.documents_or()?.scan(collection, prefix, after, limit).map_err(refused)?;
        let listed = |(key, content): (Key, Bytes)| {
            Ok(DocumentListed { key: key.to_string(), content: raw(&content)? })
        };
        let documents = found.into_iter().map(listed).collect::<Result<_, JsonCommandError>>()?;
        json(&ScanAnswer { documents })
    }

    fn conflicts_json(&self, count: usize) -> Result<String, JsonCommandError> {
        let found = self.conflicts(count).map_err(refused)?;
        let conflicts = found.into_iter().map(ConflictListed::of).collect();
        json(&ConflictAnswer { conflicts })
    }

    fn quarantine_json(&self, count: usize) -> Result<String, JsonCommandError> {
        let Some(mut inspector) = Inspector::open(self.database()).map_err(refused)? else {
            return json(&QuarantineAnswer::default());
        };
        let found = inspector.problems(count).map_err(refused)?;
        json(&QuarantineAnswer { documents: found.into_iter().map(QuarantineListed::of).collect() })
    }

    fn retry_json(
        &self,
        collection: Option<String>,
        key: Option<String>,
    ) -> Result<String, JsonCommandError> {
        match (collection, key) {
            (Some(collection), Some(key)) => {
                let doc = doc(&collection, &key)?;
                let taken = self.on_host(Driver::retry_quarantined, doc)?;
                done(taken.ok_or("there is no such document in quarantine, or it is refused again"))
            }
            (None, None) => {
                self.on_host(|driver, ()| driver.retry_all_quarantined(), ())?;
                json(&Done {})
            }
            _ => Err(refused("name a collection and a key, or neither")),
        }
    }

    fn discard_json(&self, doc: &DocId) -> Result<String, JsonCommandError> {
        let was_there = self.on_host(move |driver, doc| driver.discard_quarantined(&doc), doc.clone())?;
        done(was_there.then_some(()).ok_or("there is no such document in quarantine"))
    }

    fn reconcile_json(&self, only: Option<String>, confirm: bool) -> Result<String, JsonCommandError> {
        let only = only.map(|only| doc(&only, "k")).transpose()?.map(|(collection, _)| collection);
        let collections = self.on_host(move |driver, only| driver.reconcile(only.as_ref(), confirm), only)?;
        if collections.is_empty() {
            return Err(refused("the collection is not synced by this node"));
        }
        json(&ReconcileAnswer { collections: collections.iter().map(ToString::to_string).collect() })
    }

    fn on_host<A: Send + 'static, T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Driver, A) -> Result<T, HostCommandError> + Send + 'static,
        argument: A,
    ) -> Result<T, JsonCommandError> {
        let answer = self.ask(move |driver| work(driver, argument)).map_err(refused)?;
        answer.map_err(refused)
    }

    /// [`Node::status`] as JSON.
    #[must_use]
    pub fn status_json(&self) -> String {
        serde_json::to_string(&self.status()).expect("a status is plain data")
    }

    /// The next event as JSON, waiting for it at most so long. All callers of this share one queue, which begins when the
    /// node is opened.
    ///
    /// # Errors
    /// When there is none.
    pub fn next_event_json(&self, timeout: Duration) -> Result<String, NoEvent> {
        let event = self.events.next(timeout)?;
        Ok(serde_json::to_string(&event).expect("an event is plain data"))
    }
}

fn done<E: std::fmt::Display>(result: Result<(), E>) -> Result<String, JsonCommandError> {
    result.map_err(refused)?;
    json(&Done {})
}

fn raw(content: &[u8]) -> Result<Box<RawValue>, JsonCommandError> {
    serde_json::from_slice(content).map_err(|error| refused(format!("the document is no JSON: {error}")))
}

/// A command for the application's store was not carried out.
#[derive(Debug, thiserror::Error)]
pub(crate) enum HostCommandError {
    #[error("this node has no store of the application's")]
    NoHostStore,
    #[error("the store is not available now; the status tells why")]
    StoreFailed,
}

impl Driver {
    /// Has work done on the application's store.
    pub(crate) fn hosted<T>(
        &mut self,
        work: impl FnOnce(&mut crate::host::HostedStore) -> Result<T, StoreError>,
    ) -> Result<T, HostCommandError> {
        let replica = self.replica.as_mut().ok_or(HostCommandError::StoreFailed)?;
        let hosted = replica.store().hosted().ok_or(HostCommandError::NoHostStore)?;
        match work(hosted) {
            Ok(done) => Ok(done),
            Err(failed) => {
                self.store_failed(&failed);
                Err(HostCommandError::StoreFailed)
            }
        }
    }

    /// Looks at the application's store at once.
    fn look_soon(&mut self) {
        self.attention.woken();
    }

    fn tell_problem(&mut self, problem: Problem) {
        if let Some(event) = Event::from_replica(ReplicaEvent::Problem(problem)) {
            self.tell(&event);
        }
    }

    /// `None` if there is no such document, or it is refused again.
    fn retry_quarantined(&mut self, doc: DocId) -> Result<Option<()>, HostCommandError> {
        let problems = self.hosted(move |hosted| hosted.retry_one(&doc))?.unwrap_or_default();
        let is_back = !problems.is_empty();
        for problem in problems {
            self.tell_problem(problem);
        }
        Ok(is_back.then_some(()))
    }

    fn retry_all_quarantined(&mut self) -> Result<(), HostCommandError> {
        self.hosted(|hosted| {
            hosted.retry_soon();
            Ok(())
        })?;
        self.look_soon();
        Ok(())
    }

    fn discard_quarantined(&mut self, doc: &DocId) -> Result<bool, HostCommandError> {
        self.hosted(|hosted| hosted.discard(doc))
    }

    fn reconcile(
        &mut self,
        only: Option<&Collection>,
        confirm: bool,
    ) -> Result<Vec<Collection>, HostCommandError> {
        let collections = self.hosted(|hosted| hosted.reconcile(only, confirm))?;
        self.look_soon();
        Ok(collections)
    }
}
