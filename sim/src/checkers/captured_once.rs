//! 2. Every change of the application that leaves the outbox is in exactly one entry, or left its document as its row says.

use entgldb_replica::entry::Op;
use entgldb_replica::id::sha256;
use entgldb_replica::merge::Merged;
use entgldb_replica::version::Hash;

use super::{Checker, Verdict};
use crate::oracle::Oracle;
use crate::seen::{Committed, Setting};

pub(crate) struct CapturedOnce;

impl Checker for CapturedOnce {
    fn name(&self) -> &'static str {
        "2 captured once"
    }

    fn committed(&mut self, _: &Setting, _: &Oracle, node: usize, seen: &Committed) -> Verdict {
        let drain = seen.drain.as_ref();
        for item in &seen.drained {
            let changes = drain.iter().flat_map(|drain| drain.changes.iter()).zip(&seen.drain_rows);
            let mut found = changes.filter(|(change, _)| change.doc == item.doc);
            let Some((change, row)) = found.next() else {
                if seen.noted_again.contains(&item.doc) {
                    continue;
                }
                return Err(format!("node {node} drops the change of {:?} unseen", item.doc));
            };
            let (collection, key) = &item.doc;
            let runs = seen.commit.appended.iter().filter(|run| run.log.collection == *collection);
            let mut entries = runs.flat_map(|run| &run.entries).filter(|linked| linked.entry().key == *key);
            match (entries.next(), entries.next()) {
                (Some(_), Some(_)) => {
                    return Err(format!("node {node} makes two entries of one change of {:?}", item.doc));
                }
                (Some(linked), None) if linked.entry().op == Op::Edit => {
                    let mut writes = seen.commit.rows.iter().filter(|write| write.doc == item.doc);
                    let state = writes
                        .next()
                        .and_then(|write| Merged::decode(write.merged.clone()?, write.row.stamp).ok());
                    if state.is_none_or(|state| state.content() != change.content) {
                        return Err(format!("node {node}: the state of {:?} has another content", item.doc));
                    }
                }
                (Some(linked), None) if linked.entry().content() != change.content.as_ref() => {
                    return Err(format!("node {node}: the entry of {:?} has another content", item.doc));
                }
                (None, _) => {
                    let content = change.content.as_ref().map(|content| Hash(sha256(content)));
                    if row.and_then(|row| row.content) != content {
                        return Err(format!("node {node}: the change of {:?} is in no entry", item.doc));
                    }
                }
                (Some(_), None) => {}
            }
        }
        Ok(())
    }
}
