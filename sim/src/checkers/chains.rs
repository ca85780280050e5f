//! 5. Chains have no gap; equal log and position mean equal hash everywhere, and that is the author's; no self-fork.
//!
//! Where a fault made a log fork all the same, a node holds one branch or the other and never goes from one to the other.

use entgldb_replica::entry::Chain;
use entgldb_replica::store::Guard;

use super::{Checker, Verdict, ensure};
use crate::oracle::Oracle;
use crate::seen::{Committed, Setting};

pub(crate) struct Chains;

impl Checker for Chains {
    fn name(&self) -> &'static str {
        "5 chains"
    }

    fn committed(&mut self, setting: &Setting, oracle: &Oracle, node: usize, seen: &Committed) -> Verdict {
        for (run, (head, hlc)) in seen.commit.appended.iter().zip(&seen.heads_before) {
            let log = &run.log;
            let mut chain = Chain::resume(log.clone(), *head, *hlc);
            for linked in &run.entries {
                let seq = linked.entry().seq;
                let again = chain.link(linked.entry().clone()).map(|linked| linked.hash());
                ensure(again == Ok(linked.hash()), || {
                    format!("node {node} appends {log} {seq:?} after {head:?}: {again:?}")
                })?;
                let authored = oracle.authored(log, seq, linked.hash());
                if seen.commit.guard == Guard::None {
                    ensure(log.author == setting.members[node].id, || {
                        format!("node {node} writes {log}, which is not its own")
                    })?;
                    // A power cut may bring a commit back that had begun; the store ends the same one again.
                    let is_redo = authored.is_some();
                    // An entry whose author was not told that it is durable was told to nobody.
                    let is_unknown = oracle.is_perhaps_lost(log, seq);
                    let is_free = is_redo || is_unknown || !oracle.is_authored(log, seq);
                    ensure(is_free || oracle.may_fork(log), || {
                        format!("node {node} writes {log} {seq:?} twice")
                    })?;
                } else {
                    ensure(authored.is_some() || oracle.is_made_up(log), || {
                        format!("node {node} takes {log} {seq:?}, which its author did not write")
                    })?;
                }
            }
            ensure(chain.head() == run.signed.head, || {
                format!("node {node}: {log} has another signed head")
            })?;
        }
        Ok(())
    }
}
