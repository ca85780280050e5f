//! What commands answer as JSON.

use entgldb_replica::resolve::Side;
use entgldb_sqlite::inspect::{ListedConflict, ListedProblem};
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::value::RawValue;

use crate::event::listed_problem_kind;
use crate::member::MemberInfo;
use crate::status::{PeerHealth, TargetHealth};

/// It was done.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Done {}

/// The linked peers and the addresses to dial.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct PeersAnswer {
    pub(crate) peers: Vec<PeerHealth>,
    pub(crate) targets: Vec<TargetHealth>,
}

/// The members of the cluster.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct MembersAnswer {
    pub(crate) members: Vec<MemberInfo>,
}

/// The newest conflicts.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct ConflictAnswer {
    pub(crate) conflicts: Vec<ConflictListed>,
}

/// A conflict.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct ConflictListed {
    /// The losing version's number, for `restore`.
    pub(crate) version: u64,
    pub(crate) collection: String,
    pub(crate) key: String,
    pub(crate) winner: SideListed,
    pub(crate) loser: SideListed,
    pub(crate) noted_ms: u64,
}

/// A version of a document.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct SideListed {
    pub(crate) node: String,
    pub(crate) at_ms: u64,
    /// Null for a deletion.
    pub(crate) content: Option<Box<RawValue>>,
}

/// Documents that the store refused, and changes that can't travel.
#[derive(Debug, Default, Serialize, JsonSchema)]
pub(crate) struct QuarantineAnswer {
    pub(crate) documents: Vec<QuarantineListed>,
}

/// A document in quarantine.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct QuarantineListed {
    pub(crate) collection: String,
    pub(crate) key: String,
    pub(crate) kind: &'static str,
    pub(crate) message: String,
    /// Null for a deletion, and for a change that can't travel.
    pub(crate) content: Option<Box<RawValue>>,
    pub(crate) since_ms: u64,
}

/// A version that was brought back.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct RestoreAnswer {
    pub(crate) version: u64,
    pub(crate) is_deletion: bool,
}

/// The collections that are being compared.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct ReconcileAnswer {
    pub(crate) collections: Vec<String>,
}

/// How many rows were written.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct RowsAnswer {
    pub(crate) rows: u64,
}

/// The collection that is synced now.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct WatchAnswer {
    pub(crate) collection: String,
}

/// A document of the built-in store.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct DocumentAnswer {
    /// Null if there is none. A document may be `null` too: use the typed calls where that matters.
    pub(crate) content: Option<Box<RawValue>>,
}

/// Documents of the built-in store.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct ScanAnswer {
    pub(crate) documents: Vec<DocumentListed>,
}

/// A document with its key.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct DocumentListed {
    pub(crate) key: String,
    pub(crate) content: Box<RawValue>,
}

fn raw(content: Option<&[u8]>) -> Option<Box<RawValue>> {
    serde_json::from_slice(content?).ok()
}

impl SideListed {
    fn of(side: &Side) -> Self {
        Self {
            node: side.stamp.node.to_string(),
            at_ms: side.stamp.hlc.wall().0,
            content: raw(side.content.as_deref()),
        }
    }
}

impl ConflictListed {
    pub(crate) fn of(listed: ListedConflict) -> Self {
        let ListedConflict { version, conflict, noted } = listed;
        Self {
            version,
            collection: conflict.doc.0.to_string(),
            key: conflict.doc.1.to_string(),
            winner: SideListed::of(&conflict.winner),
            loser: SideListed::of(&conflict.loser),
            noted_ms: noted.0,
        }
    }
}

impl QuarantineListed {
    pub(crate) fn of(listed: ListedProblem) -> Self {
        let kind = listed_problem_kind(&listed);
        let ListedProblem { collection, key, message, version, noted, .. } = listed;
        let content = version.and_then(|(_, content)| content);
        Self {
            collection: collection.to_string(),
            key,
            kind,
            message,
            content: raw(content.as_deref()),
            since_ms: noted.0,
        }
    }
}
