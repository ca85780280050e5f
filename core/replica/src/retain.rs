//! What may be forgotten, and what a member tells the others so that it may.
//!
//! An entry goes once all members that sync its collection hold it and it is older than the retention. Rows stay, those of
//! deleted documents too: so whatever an older history says of a document, it is known to be older. What a node needs and
//! nobody has as history any more, it gets as a snapshot (`snapshot.rs`).

use std::collections::{BTreeMap, BTreeSet};

use crate::clock::{Hlc, WallMillis};
use crate::id::{Collection, Incarnation, LogId, NodeId};
use crate::limits::{ACKNOWLEDGE_MS, FORGET_ENTRIES};
use crate::member::{Member, Members, acknowledged, members};
use crate::oplog::Logs;
use crate::store::Store;
use crate::version::Seq;

/// Time between calls of [`Store::tend`]; where history is kept for a short time only, so often in that time, and at most
/// this often.
const TEND_MS: u64 = 30_000;
const TENDS_IN_RETENTION: u64 = 8;
const TEND_LEAST_MS: u64 = 250;

/// Time between calls of [`Store::tend`]: a short retention is of use only if it is looked at as often.
pub(crate) fn tend_ms(retention_ms: Option<u64>) -> u64 {
    let share = retention_ms.map_or(TEND_MS, |retention_ms| retention_ms / TENDS_IN_RETENTION);
    share.clamp(TEND_LEAST_MS, TEND_MS)
}

/// The part of the retention after which a member says what it holds.
const ACKNOWLEDGE_SHARE: u64 = 8;
/// Bytes of a member's document beside names and logs, of a name beside its text, and of a log, at most.
const RECORD_BYTES: usize = 32;
const NAME_BYTES: usize = 4;
const LOG_BYTES: usize = 72;

/// What a node says of itself beside what it holds, and how long it keeps history.
#[derive(Debug)]
pub(crate) struct Keeper {
    pub(crate) name: String,
    pub(crate) interests: BTreeSet<Collection>,
    /// `None` if nothing is ever forgotten.
    pub(crate) retention_ms: Option<u64>,
    /// Bytes that the document about this node may have: it must fit a frame.
    pub(crate) bytes_max: usize,
}

impl Keeper {
    /// The document that the node is to write about itself now, if it is time.
    pub(crate) fn due(
        &self,
        (node, incarnation): (NodeId, Incarnation),
        members: &Members,
        logs: &Logs,
        wall: WallMillis,
    ) -> Option<Member> {
        let is_said = members.get(&node).is_some_and(|(stamp, said)| {
            stamp.node == node
                && said.incarnation == incarnation
                && said.name == self.name
                && said.interests == self.interests
                && !(self.has_news(said, logs) && self.is_time(stamp.hlc, wall))
        });
        (!is_said).then(|| Member {
            name: self.name.clone(),
            incarnation,
            interests: self.interests.clone(),
            acknowledged: self.acknowledged(logs),
            removed: false,
        })
    }

    /// What the node says it holds. If there is no room for all, what brings others most: the logs that are longest.
    fn acknowledged(&self, logs: &Logs) -> BTreeMap<LogId, Seq> {
        let all = acknowledged(logs.vector(), &self.interests);
        let names: usize = self.interests.iter().map(|name| name.as_str().len() + NAME_BYTES).sum();
        let room = self.bytes_max.saturating_sub(RECORD_BYTES + self.name.len() + names) / LOG_BYTES;
        if all.len() <= room {
            return all;
        }
        let mut longest: Vec<(LogId, Seq)> = all.into_iter().collect();
        longest.sort_by_key(|(_, seq)| std::cmp::Reverse(*seq));
        longest.into_iter().take(room).collect()
    }

    /// Whether the node would say of something that it holds more of it than it has said. The members' own documents are no
    /// reason to speak: that would never end.
    fn has_news(&self, said: &Member, logs: &Logs) -> bool {
        self.acknowledged(logs).iter().any(|(log, seq)| {
            self.interests.contains(&log.collection)
                && said.acknowledged.get(log).copied().unwrap_or_default() < *seq
        })
    }

    fn is_time(&self, said: Hlc, wall: WallMillis) -> bool {
        let Some(retention_ms) = self.retention_ms else { return false };
        wall.0.saturating_sub(said.wall().0) >= ACKNOWLEDGE_MS.min(retention_ms / ACKNOWLEDGE_SHARE)
    }

    /// Up to where logs can be forgotten now: a bounded piece of each.
    pub(crate) fn forgettable<S: Store>(
        &self,
        node: NodeId,
        store: &mut S,
        members: &Members,
        logs: &Logs,
        wall: WallMillis,
    ) -> Result<Vec<(LogId, Seq)>, S::Error> {
        let Some(retention_ms) = self.retention_ms else { return Ok(Vec::new()) };
        let last = Hlc::from_wall(WallMillis(wall.0.saturating_sub(retention_ms)));
        let mut floors = Vec::new();
        for (log, head) in logs.vector().iter().filter(|(log, _)| self.keeps(&log.collection)) {
            let floor = logs.floor(log);
            let held = members.held_by_all(log, &node, head.seq);
            if held <= floor {
                continue;
            }
            let until = held.min(store.last_at(log, last)?).min(Seq(floor.0 + FORGET_ENTRIES));
            if until > floor
                && let Some(signed) = store.signed_until(log, until)?
                && signed.head.seq > floor
            {
                floors.push((log.clone(), signed.head.seq));
            }
        }
        Ok(floors)
    }

    fn keeps(&self, collection: &Collection) -> bool {
        collection == members() || self.interests.contains(collection)
    }
}
