//! 12. Only what all members hold is forgotten, and only once it is old enough.

use std::collections::BTreeMap;

use entgldb_replica::clock::Hlc;
use entgldb_replica::id::{LogId, NodeId};
use entgldb_replica::member::{Member, document_of, members};
use entgldb_replica::version::Seq;

use super::{Checker, Verdict, ensure};
use crate::disk::Disk;
use crate::oracle::Oracle;
use crate::seen::{Committed, Setting};

/// Keeps account of what each node has ever held, and of the members that each knows of.
pub(crate) struct Forgetting {
    held: BTreeMap<NodeId, BTreeMap<LogId, Seq>>,
    known: Vec<BTreeMap<NodeId, Member>>,
}

impl Forgetting {
    pub(crate) fn new(nodes: usize) -> Self {
        Self { held: BTreeMap::new(), known: vec![BTreeMap::new(); nodes] }
    }
}

impl Checker for Forgetting {
    fn name(&self) -> &'static str {
        "12 forgotten by all"
    }

    fn committed(&mut self, setting: &Setting, _: &Oracle, node: usize, seen: &Committed) -> Verdict {
        let own = setting.members[node].id;
        let appended = seen.commit.appended.iter().map(|run| (&run.log, run.signed.head.seq));
        let adopted = seen.commit.adopted.iter().map(|(log, signed)| (log, signed.head.seq));
        for (log, seq) in appended.chain(adopted) {
            let held = self.held.entry(own).or_default().entry(log.clone()).or_default();
            *held = seq.max(*held);
        }
        for write in seen.commit.rows.iter().filter(|write| write.doc.0 == *members()) {
            let content = write.apply.as_ref().and_then(Option::as_ref);
            let member = content.and_then(Member::decode);
            let ids = setting.members.iter().map(|member| member.id);
            let Some(id) = ids.clone().find(|id| document_of(id) == write.doc) else { continue };
            match member {
                Some(member) => drop(self.known[node].insert(id, member)),
                // Who writes nonsense of itself is waited for no longer.
                None => drop(self.known[node].remove(&id)),
            }
        }
        let retention_ms = setting.options.retention_ms.unwrap_or(u64::MAX);
        for (log, floor) in &seen.commit.floors {
            let old = seen.wall.0.saturating_sub(retention_ms);
            let time = seen.floor_times.get(log).copied().unwrap_or(Hlc::default());
            ensure(time.wall().0 <= old, || format!("node {node} forgets {log} {floor:?} too early"))?;
            for (member, said) in self.known[node].iter().filter(|(member, _)| **member != own) {
                let waits = !said.removed
                    && (log.collection == *members() || said.interests.contains(&log.collection));
                let held = self.held.get(member).and_then(|held| held.get(log)).copied().unwrap_or_default();
                ensure(!waits || held >= *floor, || {
                    format!(
                        "node {node} forgets {log} up to {floor:?}; {member:?} never had more than {held:?}"
                    )
                })?;
            }
        }
        Ok(())
    }

    fn replaced(&mut self, node: usize, disk: &Disk) {
        let said =
            |id: &NodeId| disk.docs.get(&document_of(id)).and_then(Member::decode).map(|said| (*id, said));
        self.known[node] = self.held.keys().filter_map(said).collect();
    }
}
