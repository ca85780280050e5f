//! How a node stands: for the owner, and as a file for other processes.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use entgldb_net::Traffic;
use entgldb_replica::{BlockedPeer, Status as ReplicaStatus};
use entgldb_sqlite::{LookedThrough, TableHealth};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::config::Durability;
use crate::data_dir::{is_locked, replace};
use crate::retention::Retention;

/// What a node does.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// It syncs.
    Running,
    /// The store failed; it is opened again in a while. Nothing is taken in meanwhile.
    Recovering,
    /// The store failed for good; the node must be stopped and the cause mended.
    Failed,
    /// It was stopped.
    Stopped,
}

/// A node's health. Times are in milliseconds since 1970 by this machine's clock.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Status {
    /// When this was true.
    pub at_ms: u64,
    /// What the node does.
    pub state: State,
    /// The process.
    pub pid: u32,
    /// The node's identity.
    pub node: String,
    /// Its label.
    pub name: String,
    /// Birth of its oplog, in hexadecimal.
    pub incarnation: String,
    /// Where it listens.
    pub listen: Option<String>,
    /// The application's database.
    pub database: PathBuf,
    /// Bytes of the database and its write-ahead log.
    pub database_bytes: u64,
    /// When a change counts as durable.
    pub durability: Durability,
    /// Tables that it syncs.
    pub collections: Vec<String>,
    /// How each of them stands.
    #[serde(default)]
    pub tables: Vec<TableStatus>,
    /// Entries in its oplog.
    pub entries: u64,
    /// Logs in its oplog.
    pub logs: u64,
    /// Changes captured since the start.
    pub captured: u64,
    /// Remote entries applied since the start.
    pub applied: u64,
    /// Conflicts found since the start.
    pub conflicts: u64,
    /// Problems that are there now: rows that are set aside, changes that can't be synced, tables that are not synced.
    pub problems: u64,
    /// Whether local changes wait to be captured.
    pub backlog: bool,
    /// Entries that were forgotten since the start: all members hold them, and they are older than the retention.
    #[serde(default)]
    pub forgotten: u64,
    /// The snapshot that is coming in.
    #[serde(default)]
    pub snapshot: Option<SnapshotProgress>,
    /// How long history is kept after all members hold it, in hours, or "forever".
    #[serde(default)]
    pub retention_hours: Retention,
    /// The application's own store, of a node that was opened with one.
    #[serde(default)]
    pub host: Option<HostHealth>,
    /// Peers with which something does not go on, linked or not.
    #[serde(default)]
    pub blocked: Vec<BlockedHealth>,
    /// Linked peers.
    pub peers: Vec<PeerHealth>,
    /// Addresses to dial.
    pub targets: Vec<TargetHealth>,
    /// What went over the network since the start.
    pub traffic: TrafficCounts,
    /// The last error, if there was one since the start.
    pub last_error: Option<String>,
}

/// What is done with a table.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum TableState {
    /// It is synced as it is written.
    Synced,
    /// Its rows are looked through for changes: those from before the first sync, or after its schema was changed.
    LookingThrough,
    /// Nothing of it is captured or applied until what is in the way is gone. The other tables go on.
    Waiting,
}

/// How a table stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct TableStatus {
    /// The table.
    pub name: String,
    /// What is done with it.
    pub state: TableState,
    /// Why it waits.
    pub reason: Option<String>,
    /// Rows that were looked through so far.
    pub rows_looked_through: u64,
    /// About how many rows are still to be looked through.
    pub rows_to_look_through: u64,
}

impl TableStatus {
    /// A table that is synced as it is written.
    pub(crate) fn synced(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            state: TableState::Synced,
            reason: None,
            rows_looked_through: 0,
            rows_to_look_through: 0,
        }
    }

    pub(crate) fn of(health: TableHealth) -> Self {
        let synced = Self::synced(health.collection.as_str());
        match (health.trouble, health.looking) {
            (Some(reason), _) => Self { state: TableState::Waiting, reason: Some(reason), ..synced },
            (None, Some(LookedThrough { done, of })) => Self {
                state: TableState::LookingThrough,
                rows_looked_through: done,
                rows_to_look_through: of.saturating_sub(done),
                ..synced
            },
            (None, None) => synced,
        }
    }
}

/// A snapshot that is coming in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SnapshotProgress {
    /// The collection.
    pub collection: String,
    /// Rows that have come since it began, or since the node was started.
    pub rows: u64,
}

/// The application's own store.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct HostHealth {
    /// The hook that is running. In the status file it is never there: whoever writes that waits for the hook.
    pub hook: Option<HookHealth>,
    /// The collection that is being compared with what the engine knows of it.
    pub comparing: Option<Comparing>,
    /// Collections of which so much was missing, when they were last compared, that nothing was deleted: the command
    /// `reconcile` with `confirm_deletes` does it.
    pub unconfirmed: Vec<Unconfirmed>,
}

/// A hook that is running.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct HookHealth {
    /// Its name.
    pub hook: String,
    /// For how long it has been.
    pub for_ms: u64,
}

/// A collection that is being compared.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Comparing {
    /// The collection.
    pub collection: String,
    /// Keys that were looked at so far.
    pub keys: u64,
    /// Changes that nobody had told of.
    pub changed: u64,
    /// Documents that the engine knows and the store no longer has.
    pub missing: u64,
}

/// A collection with documents that are missing and were not deleted elsewhere.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Unconfirmed {
    /// The collection.
    pub collection: String,
    /// How many are missing.
    pub missing: u64,
    /// Of so many.
    pub of: u64,
}

/// A linked peer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct PeerHealth {
    /// Its identity.
    pub node: String,
    /// Its label.
    pub name: String,
    /// Whether this node dialled.
    pub we_dialled: bool,
    /// Entries that it is known to hold and this node lacks.
    pub behind: u64,
    /// Entries that this node holds and it is not known to hold.
    pub ahead: u64,
    /// When both last held the same.
    pub in_sync_ms: Option<u64>,
    /// Its clock minus this machine's, in milliseconds.
    pub skew_ms: i64,
    /// Collections that both sync; none before its hello.
    pub collections: Option<Vec<String>>,
    /// Logs that wait because the peer refused them.
    pub waiting_logs: u64,
}

/// A peer with which something does not go on: links end for one fault again and again, or entries do not get through over a link that stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct BlockedHealth {
    /// Its identity.
    pub node: String,
    /// Its label.
    pub name: String,
    /// Why the links end, or what does not get through.
    pub reason: String,
    /// The first entry that does not get through, as `log entry number`; none if no entry was on its way.
    pub entry: Option<String>,
    /// Since when.
    pub since_ms: u64,
    /// Links that have ended like this in a row; 0 if the link stands.
    pub ends: u32,
}

impl From<BlockedPeer> for BlockedHealth {
    fn from(blocked: BlockedPeer) -> Self {
        Self {
            node: blocked.node.to_string(),
            name: blocked.name,
            reason: blocked.reason,
            entry: blocked.place.map(|(log, seq)| format!("{log} entry {}", seq.0)),
            since_ms: blocked.since.0,
            ends: blocked.ends,
        }
    }
}

/// An address to dial.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct TargetHealth {
    /// `host:port`.
    pub target: String,
    /// The node it led to last.
    pub node: Option<String>,
    /// Whether a link to that node stands.
    pub linked: bool,
    /// Why not.
    pub error: Option<String>,
}

/// What went over the network since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct TrafficCounts {
    /// Frames received.
    pub frames_in: u64,
    /// Frames sent.
    pub frames_out: u64,
    /// Their bytes, received and decompressed.
    pub raw_bytes_in: u64,
    /// Their bytes, before compression.
    pub raw_bytes_out: u64,
    /// Bytes received, as on the wire.
    pub wire_bytes_in: u64,
    /// Bytes sent, as on the wire.
    pub wire_bytes_out: u64,
    /// Strangers turned away.
    pub handshakes_refused: u64,
    /// Dials that did not become links.
    pub dials_failed: u64,
    /// Times that no connections were taken because few file descriptors were left.
    #[serde(default)]
    pub listen_pauses: u64,
}

impl From<Traffic> for TrafficCounts {
    fn from(traffic: Traffic) -> Self {
        Self {
            frames_in: traffic.frames_in,
            frames_out: traffic.frames_out,
            raw_bytes_in: traffic.raw_bytes_in,
            raw_bytes_out: traffic.raw_bytes_out,
            wire_bytes_in: traffic.wire_bytes_in,
            wire_bytes_out: traffic.wire_bytes_out,
            handshakes_refused: traffic.handshakes_refused,
            dials_failed: traffic.dials_failed,
            listen_pauses: traffic.listen_pauses,
        }
    }
}

impl Status {
    /// Takes over what the replica says.
    pub(crate) fn follow(&mut self, replica: ReplicaStatus) {
        self.incarnation = format!("{:016x}", replica.incarnation.0);
        self.entries = replica.entries;
        self.logs = replica.logs as u64;
        self.backlog = replica.backlog;
        self.forgotten = replica.forgotten;
        self.snapshot = replica
            .snapshot
            .map(|(collection, rows)| SnapshotProgress { collection: collection.to_string(), rows });
        self.blocked = replica.blocked.into_iter().map(Into::into).collect();
        self.peers = replica
            .peers
            .into_iter()
            .map(|peer| PeerHealth {
                node: peer.node.to_string(),
                name: peer.name,
                we_dialled: peer.we_dialled,
                behind: peer.behind,
                ahead: peer.ahead,
                in_sync_ms: peer.in_sync.map(|at| at.0),
                skew_ms: peer.skew_ms,
                collections: peer.shared.map(|shared| shared.iter().map(ToString::to_string).collect()),
                waiting_logs: peer.held as u64,
            })
            .collect();
        self.targets = replica
            .targets
            .into_iter()
            .map(|target| TargetHealth {
                target: target.target,
                node: target.node.map(|node| node.to_string()),
                linked: target.linked,
                error: target.error,
            })
            .collect();
    }

    pub(crate) fn write(&self, path: &Path) -> io::Result<()> {
        replace(path, &serde_json::to_vec_pretty(self).expect("a status is plain data"))
    }
}

/// Name of the status file in the data folder.
pub(crate) const STATUS_FILE: &str = "status.json";

/// The status file can't be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StatusError {
    /// There is none: no node has run with this folder.
    #[error("{path} is not there: no node has run with this data folder yet")]
    NeverRan {
        /// The file.
        path: PathBuf,
    },
    /// It is there and can't be read.
    #[error("{path}: {reason}")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
}

/// The status that a node wrote last, from another process. If no process runs the node, its state is
/// [`State::Stopped`] or [`State::Failed`], whatever it wrote before it died.
///
/// # Errors
/// When there is none or it can't be read.
pub fn read_status(data_dir: &Path) -> Result<Status, StatusError> {
    let path = data_dir.join(STATUS_FILE);
    let unreadable = |reason: String| StatusError::Unreadable { path: path.clone(), reason };
    let text = match fs::read(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(StatusError::NeverRan { path });
        }
        Err(error) => return Err(unreadable(error.to_string())),
    };
    let mut status: Status = serde_json::from_slice(&text).map_err(|error| unreadable(error.to_string()))?;
    if status.state != State::Failed && !is_locked(data_dir) {
        status.state = State::Stopped;
        status.peers.clear();
        status.blocked.clear();
    }
    Ok(status)
}
