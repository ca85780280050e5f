//! Commands, status and events as JSON, for callers in other languages.

use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::hub::NoEvent;
use crate::node::Node;

/// What can be asked of a node as JSON. `command` says what; unknown fields are refused.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
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

impl Node {
    /// Carries out a [`Command`] that is given as JSON, and answers as JSON. Not from inside a hook.
    ///
    /// # Errors
    /// When it is no command, or was not carried out.
    pub fn command_json(&self, request: &str) -> Result<String, JsonCommandError> {
        let _ = request;
        Err(JsonCommandError::Refused("not available".into()))
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
        let _ = timeout;
        Err(NoEvent::Stopped)
    }
}
