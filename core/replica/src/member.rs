//! Who takes part, what each is interested in, and what each holds durably: a replicated collection of the engine's own.
//!
//! A member writes one document about itself, under its id. It tells everybody, also those it never meets, what the member
//! need not be sent again; so history that all members have can be forgotten (`retain.rs`). That is all it is for: a node
//! without such a document, or with a wrong one, may have to take a snapshot instead of history, and loses nothing. Hence
//! these documents are believed, and anybody may write that a member was removed: it comes back by saying that it is there.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::LazyLock;

use bytes::Bytes;
use prost::Message as _;

use crate::clock::Stamp;
use crate::id::{Collection, DocId, Incarnation, Key, LogId, NodeId};
use crate::limits::{INTEREST_MAX, NAME_BYTES_MAX, SEQ_MAX};
use crate::version::{Seq, Vector};
use crate::wire::generated as proto;

static MEMBERS: LazyLock<Collection> =
    LazyLock::new(|| Collection::new("_entgldb_members").expect("a short name"));

/// The collection of the members' documents. Every node syncs it.
#[must_use]
pub fn members() -> &'static Collection {
    &MEMBERS
}

/// The document of a member.
#[must_use]
pub fn document_of(node: &NodeId) -> DocId {
    (members().clone(), Key::new(&node.to_string()).expect("an id is a short key"))
}

/// What is known of a member.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Member {
    /// Its label.
    pub name: String,
    /// The birth of its oplog.
    pub incarnation: Incarnation,
    /// Collections that it syncs.
    pub interests: BTreeSet<Collection>,
    /// What it holds durably, as far as it has told: a gapless prefix of each of these logs.
    pub acknowledged: BTreeMap<LogId, Seq>,
    /// Whether it was removed: nobody keeps history for it.
    pub removed: bool,
}

impl Member {
    /// The bytes of its document. What it acknowledges of other collections than its interests is left out.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let names: Vec<&Collection> = self.interests.iter().take(INTEREST_MAX).collect();
        let place = |collection: &Collection| {
            let index = names.binary_search(&collection).ok().map(|index| index + 1);
            index.or_else(|| (collection == members()).then_some(0))
        };
        let (mut authors, mut known) = (Vec::new(), BTreeMap::new());
        let mut acknowledged = Vec::new();
        for (log, seq) in &self.acknowledged {
            let Some(collection) = place(&log.collection) else { continue };
            let author = *known.entry(log.author).or_insert_with(|| {
                authors.push(log.author.0.to_vec());
                authors.len() - 1
            });
            acknowledged.push(proto::Acknowledged {
                author: u32::try_from(author).unwrap_or(u32::MAX),
                incarnation: log.incarnation.0,
                collection: u32::try_from(collection).unwrap_or(u32::MAX),
                seq: seq.0,
            });
        }
        proto::MemberRecord {
            name: self.name.clone(),
            incarnation: self.incarnation.0,
            interests: names.iter().map(|name| name.as_str().to_owned()).collect(),
            authors,
            acknowledged,
            removed: self.removed,
        }
        .encode_to_vec()
        .into()
    }

    /// Reads a member's document. `None` if it is none: whoever wrote it is passed over.
    #[must_use]
    pub fn decode(content: &Bytes) -> Option<Self> {
        let record = proto::MemberRecord::decode(content.clone()).ok()?;
        if record.name.len() > NAME_BYTES_MAX || record.interests.len() > INTEREST_MAX {
            return None;
        }
        let names: Vec<Collection> =
            record.interests.iter().map(|name| Collection::new(name).ok()).collect::<Option<_>>()?;
        let authors: Vec<NodeId> = record
            .authors
            .iter()
            .map(|id| Some(NodeId(id.as_slice().try_into().ok()?)))
            .collect::<Option<_>>()?;
        let mut acknowledged = BTreeMap::new();
        for one in record.acknowledged {
            let collection = match one.collection {
                0 => members().clone(),
                index => names.get(index as usize - 1)?.clone(),
            };
            let author = *authors.get(one.author as usize)?;
            if one.seq > SEQ_MAX {
                return None;
            }
            acknowledged.insert(
                LogId { author, incarnation: Incarnation(one.incarnation), collection },
                Seq(one.seq),
            );
        }
        Some(Self {
            name: record.name,
            incarnation: Incarnation(record.incarnation),
            interests: names.into_iter().collect(),
            acknowledged,
            removed: record.removed,
        })
    }

    /// Whether history of a collection is kept for it.
    fn waits_for(&self, collection: &Collection) -> bool {
        !self.removed && (collection == members() || self.interests.contains(collection))
    }
}

/// All members that a node has heard of, itself included once it has written its own document.
#[derive(Debug, Default)]
pub(crate) struct Members {
    known: BTreeMap<NodeId, (Stamp, Member)>,
}

impl Members {
    /// Takes in a document. Answers what changed for people: a member that was removed, or is back.
    pub(crate) fn learn(&mut self, key: &Key, stamp: Stamp, content: Option<&Bytes>) -> Option<Change> {
        let node: NodeId = key.as_str().parse().ok()?;
        let member = content.and_then(Member::decode);
        let removed = member.as_ref().is_some_and(|member| member.removed);
        // Only a member itself says what it holds. What others may say of it is that it will not come back.
        if stamp.node != node && !removed {
            return None;
        }
        let Some(member) = member else {
            self.known.remove(&node);
            return None;
        };
        let before = self.known.insert(node, (stamp, member));
        let was_removed = before.is_some_and(|(_, before)| before.removed);
        match (was_removed, removed) {
            (false, true) => Some(Change::Removed { node, by: stamp.node }),
            (true, false) => Some(Change::Returned { node }),
            _ => None,
        }
    }

    /// A member's document and its stamp.
    pub(crate) fn get(&self, node: &NodeId) -> Option<&(Stamp, Member)> {
        self.known.get(node)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&NodeId, &Stamp, &Member)> {
        self.known.iter().map(|(node, (stamp, member))| (node, stamp, member))
    }

    /// Up to where all others who wait for a log's collection hold the log.
    pub(crate) fn held_by_all(&self, log: &LogId, ours: &NodeId, own: Seq) -> Seq {
        let is_asked = |(node, (_, member)): &(&NodeId, &(Stamp, Member))| {
            // An author holds what it wrote, as long as its oplog is the same.
            let wrote_it = **node == log.author && member.incarnation == log.incarnation;
            *node != ours && !wrote_it && member.waits_for(&log.collection)
        };
        let asked = self.known.iter().filter(is_asked);
        let held = asked.map(|(_, (_, member))| member.acknowledged.get(log).copied().unwrap_or_default());
        held.fold(own, Seq::min)
    }
}

/// Something that happened to a member.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Change {
    Removed { node: NodeId, by: NodeId },
    Returned { node: NodeId },
}

/// What a node acknowledges: what it holds of its interests and of the members' documents.
pub(crate) fn acknowledged(vector: &Vector, interests: &BTreeSet<Collection>) -> BTreeMap<LogId, Seq> {
    let is_wanted = |log: &LogId| log.collection == *members() || interests.contains(&log.collection);
    let heads = vector.iter().filter(|(log, _)| is_wanted(log));
    heads.map(|(log, head)| (log.clone(), head.seq)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Hlc;

    const HERE: NodeId = NodeId([1; 32]);
    const PEER: NodeId = NodeId([2; 32]);
    const MALLORY: NodeId = NodeId([66; 32]);

    fn log() -> LogId {
        LogId { author: HERE, incarnation: Incarnation(1), collection: Collection::new("t").unwrap() }
    }

    fn holding(seq: u64, removed: bool) -> Bytes {
        let interests = BTreeSet::from([Collection::new("t").unwrap()]);
        let acknowledged = BTreeMap::from([(log(), Seq(seq))]);
        Member { name: "till".into(), incarnation: Incarnation(7), interests, acknowledged, removed }.encode()
    }

    fn learn(members: &mut Members, about: NodeId, by: NodeId, at: u64, content: &Bytes) -> Option<Change> {
        members.learn(&document_of(&about).1, Stamp { hlc: Hlc(at), node: by }, Some(content))
    }

    fn held(members: &Members) -> Seq {
        members.held_by_all(&log(), &HERE, Seq(100))
    }

    #[test]
    fn only_a_member_itself_says_what_it_holds() {
        let mut members = Members::default();
        learn(&mut members, PEER, PEER, 1, &holding(5, false));
        assert_eq!(held(&members), Seq(5));
        learn(&mut members, PEER, MALLORY, 2, &holding(90, false));
        assert_eq!(held(&members), Seq(5), "history that the peer lacks would be forgotten");
        learn(&mut members, PEER, PEER, 3, &holding(50, false));
        assert_eq!(held(&members), Seq(50));
    }

    #[test]
    fn members_that_somebody_else_made_up_hold_no_history_back() {
        let mut members = Members::default();
        for number in 0..1000u64 {
            let mut id = [9; 32];
            id[..8].copy_from_slice(&number.to_be_bytes());
            learn(&mut members, NodeId(id), MALLORY, number, &holding(0, false));
        }
        assert_eq!((members.iter().count(), held(&members)), (0, Seq(100)));
    }

    #[test]
    fn anybody_may_say_that_a_member_will_not_come_back_and_it_alone_that_it_is_back() {
        let mut members = Members::default();
        learn(&mut members, PEER, PEER, 1, &holding(5, false));
        let removed = Change::Removed { node: PEER, by: HERE };
        assert_eq!(learn(&mut members, PEER, HERE, 2, &holding(5, true)), Some(removed));
        assert_eq!(held(&members), Seq(100));
        assert_eq!(learn(&mut members, PEER, MALLORY, 3, &holding(5, false)), None);
        let returned = Change::Returned { node: PEER };
        assert_eq!(learn(&mut members, PEER, PEER, 4, &holding(6, false)), Some(returned));
        assert_eq!(held(&members), Seq(6));
    }
}
