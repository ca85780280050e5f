//! 11. No resurrection: once a node knows of a delete, no older version comes back.

use std::collections::BTreeMap;

use entgldb_replica::clock::Stamp;
use entgldb_replica::id::DocId;

use super::{Checker, Verdict, ensure};
use crate::disk::Disk;
use crate::oracle::Oracle;
use crate::seen::{Committed, Setting};

pub(crate) struct Resurrection {
    deleted: Vec<BTreeMap<DocId, Stamp>>,
}

impl Resurrection {
    pub(crate) fn new(nodes: usize) -> Self {
        Self { deleted: vec![BTreeMap::new(); nodes] }
    }
}

impl Checker for Resurrection {
    fn name(&self) -> &'static str {
        "11 no resurrection"
    }

    fn committed(&mut self, _: &Setting, _: &Oracle, node: usize, seen: &Committed) -> Verdict {
        let deleted = &mut self.deleted[node];
        for write in &seen.commit.rows {
            let stamp = write.row.stamp;
            if write.row.content.is_none() {
                let known = deleted.entry(write.doc.clone()).or_insert(stamp);
                *known = stamp.max(*known);
                continue;
            }
            let delete = deleted.get(&write.doc).copied();
            // A stamp that was given twice, to a delete and a write, is another matter: the write stands.
            ensure(delete.is_none_or(|delete| delete <= stamp), || {
                format!("node {node}: {:?} of {stamp:?} comes back after its delete at {delete:?}", write.doc)
            })?;
        }
        Ok(())
    }

    fn replaced(&mut self, node: usize, disk: &Disk) {
        let tombstones = disk.rows.iter().filter(|(_, row)| row.content.is_none());
        self.deleted[node] = tombstones.map(|(doc, row)| (doc.clone(), row.stamp)).collect();
    }
}
