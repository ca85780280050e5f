//! 14. No collection that was not asked for, and nothing before it was asked for.

use std::collections::BTreeSet;

use entgldb_replica::id::{Collection, LinkId};
use entgldb_replica::member::members;
use entgldb_replica::wire::Message;

use super::{Checker, Verdict, ensure};
use crate::oracle::Oracle;
use crate::seen::{Committed, Sent, Setting};

/// Remembers the links over which a node may send pages: its peer opened the flow.
#[derive(Default)]
pub(crate) struct Interests {
    open: BTreeSet<LinkId>,
}

impl Checker for Interests {
    fn name(&self) -> &'static str {
        "14 only what was asked for"
    }

    fn committed(&mut self, setting: &Setting, _: &Oracle, node: usize, seen: &Committed) -> Verdict {
        let wanted = &setting.members[node].interests;
        let stranger = seen.commit.appended.iter().find(|run| is_strange(wanted, &run.log.collection));
        ensure(stranger.is_none(), || format!("node {node} stores {}", stranger.expect("just seen").log))
    }

    fn sent(&mut self, setting: &Setting, sent: &Sent<'_>) -> Verdict {
        match sent.message {
            Some(Message::Flow { open: true }) => {
                self.open.insert(sent.peer_link);
            }
            Some(Message::Page(page)) if !sent.doubtful => {
                let wanted = &setting.members[sent.to].interests;
                let stranger = page.runs.iter().find(|run| is_strange(wanted, &run.log.collection));
                ensure(stranger.is_none(), || {
                    format!("node {} sends {}", sent.from, stranger.expect("just seen").log)
                })?;
                // A member that floods asks in ways that nobody writes down.
                let floods = sent.to == 0 && setting.options.has_liar();
                ensure(floods || self.open.contains(&sent.link), || {
                    format!("node {} sends a page that node {} did not ask for", sent.from, sent.to)
                })?;
            }
            Some(Message::Chunk(chunk)) if !sent.doubtful => {
                let wanted = &setting.members[sent.to].interests;
                ensure(!is_strange(wanted, &chunk.collection), || {
                    format!("node {} gives a snapshot of {}", sent.from, chunk.collection)
                })?;
            }
            _ => {}
        }
        Ok(())
    }
}

fn is_strange(wanted: &BTreeSet<Collection>, collection: &Collection) -> bool {
    collection != members() && !wanted.contains(collection)
}
