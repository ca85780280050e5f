//! What checkers get to see: each commit with the state it met, each message sent, and everything at the end.

use entgldb_replica::clock::{Hlc, WallMillis};
use entgldb_replica::id::{Collection, DocId, LinkId, LogId, NodeId};
use entgldb_replica::member::members;
use entgldb_replica::resolve::Row;
use entgldb_replica::store::{Commit, Drain};
use entgldb_replica::version::Head;
use entgldb_replica::wire::Message;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use crate::disk::{Disk, Outboxed};
use crate::options::Options;

/// A commit that changed what is durable, and what it met.
#[derive(Clone, Debug)]
pub(crate) struct Committed {
    pub(crate) commit: Commit,
    /// What the engine saw in the outbox, if this is a commit of local changes.
    pub(crate) drain: Option<Drain>,
    /// The rows of the documents in the drain, as they were.
    pub(crate) drain_rows: Vec<Option<Row>>,
    /// Documents with changes that the commit leaves in the outbox.
    pub(crate) noted_again: Vec<DocId>,
    /// What of the outbox the commit removed.
    pub(crate) drained: Vec<Outboxed>,
    /// Documents that the commit applies although they have uncaptured changes.
    pub(crate) uncaptured: Vec<DocId>,
    /// The rows as they were, for each of the commit's.
    pub(crate) rows_before: Vec<Option<Row>>,
    /// Times of the entries up to which the commit forgets.
    pub(crate) floor_times: BTreeMap<LogId, Hlc>,
    /// The heads as they were, for each of the commit's runs.
    pub(crate) heads_before: Vec<(Head, Hlc)>,
    pub(crate) clock_before: Hlc,
    /// Greatest time of an entry held before.
    pub(crate) latest_before: Hlc,
    /// Independent sums over vector and rows after it.
    pub(crate) vector_sum: u64,
    pub(crate) rows_sum: u64,
    /// Whether rows of a snapshot are here then that the vector does not stand for.
    pub(crate) is_ahead: bool,
    /// The same before it.
    pub(crate) was_ahead: bool,
    /// What the node's wall clock showed.
    pub(crate) wall: WallMillis,
}

/// Something that a store noticed.
#[derive(Debug)]
pub(crate) enum Seen {
    /// The application changed so many documents.
    Written(Vec<DocId>),
    /// Something became durable.
    Committed(Box<Committed>),
}

/// A message on its way out of a node.
pub(crate) struct Sent<'a> {
    pub(crate) from: usize,
    pub(crate) to: usize,
    pub(crate) link: LinkId,
    /// The receiver's number of the same link.
    pub(crate) peer_link: LinkId,
    /// Whether one of the two is a member that lies.
    pub(crate) doubtful: bool,
    pub(crate) bytes: usize,
    pub(crate) message: Option<&'a Message>,
    /// What the sender has durably at this moment.
    pub(crate) disk: &'a Disk,
}

/// One node, as it is known to everybody who checks.
#[derive(Clone, Debug)]
pub(crate) struct Member {
    pub(crate) id: NodeId,
    pub(crate) interests: BTreeSet<Collection>,
    /// Whether it is there for a while only: a clone, which somebody switches off in the end.
    pub(crate) passing: bool,
}

/// What is the same throughout a run.
#[derive(Clone, Debug)]
pub(crate) struct Setting {
    pub(crate) options: Rc<Options>,
    pub(crate) members: Vec<Member>,
    /// Pairs that may have each other as a target.
    pub(crate) edges: Vec<(usize, usize)>,
}

/// Everything, when it is over.
pub(crate) struct Ending<'a> {
    pub(crate) disks: Vec<std::cell::Ref<'a, Disk>>,
    /// Frames sent while all should have been quiet, by sender, and how long that was.
    pub(crate) quiet_frames: &'a [u64],
    pub(crate) quiet_ms: u64,
    /// Links of each node.
    pub(crate) links: Vec<usize>,
    /// Attempts to dial while all should have been quiet.
    pub(crate) quiet_dials: u64,
}

impl Setting {
    /// Whether all are interested in the same.
    pub(crate) fn is_uniform(&self) -> bool {
        self.members.iter().all(|member| member.interests == self.members[0].interests)
    }

    /// Nodes that must end with the same in a collection: interested, and connected through interested ones.
    pub(crate) fn components(&self, collection: &Collection) -> Vec<Vec<usize>> {
        let wants = |node: usize| {
            let member = &self.members[node];
            !member.passing && (collection == members() || member.interests.contains(collection))
        };
        let mut left: BTreeSet<usize> = (0..self.members.len()).filter(|node| wants(*node)).collect();
        let mut components = Vec::new();
        while let Some(first) = left.pop_first() {
            let mut component = vec![first];
            let mut at = 0;
            while at < component.len() {
                let node = component[at];
                for (a, b) in &self.edges {
                    let other = if *a == node {
                        *b
                    } else if *b == node {
                        *a
                    } else {
                        continue;
                    };
                    if left.remove(&other) {
                        component.push(other);
                    }
                }
                at += 1;
            }
            components.push(component);
        }
        components
    }

    /// All collections that anybody is interested in.
    pub(crate) fn collections(&self) -> BTreeSet<Collection> {
        self.members.iter().flat_map(|member| member.interests.iter().cloned()).collect()
    }
}
