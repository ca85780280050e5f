//! 13. Refusal is delay: what was refused is held once the cause is gone.

use std::collections::{BTreeMap, BTreeSet};

use entgldb_replica::id::{LinkId, LogId};
use entgldb_replica::version::Seq;
use entgldb_replica::wire::{Code, Message};

use super::{Checker, Verdict, ensure};
use crate::oracle::Oracle;
use crate::seen::{Ending, Sent, Setting};

/// Remembers the ends of pages, and what was refused by whom.
#[derive(Default)]
pub(crate) struct Refusals {
    pages: BTreeMap<(LinkId, u64), Vec<(LogId, Seq)>>,
    refused: BTreeSet<(usize, LogId, Seq)>,
}

impl Checker for Refusals {
    fn name(&self) -> &'static str {
        "13 refusal is delay"
    }

    fn sent(&mut self, _: &Setting, sent: &Sent<'_>) -> Verdict {
        match sent.message {
            Some(Message::Page(page)) => {
                let ends = page.runs.iter().map(|run| (run.log.clone(), run.signed.head.seq));
                self.pages.insert((sent.peer_link, page.id), ends.collect());
            }
            Some(Message::Ack(ack)) => {
                let ends = self.pages.remove(&(sent.link, ack.page)).unwrap_or_default();
                for ((log, seq), result) in ends.into_iter().zip(&ack.results) {
                    if result.code != Code::Taken {
                        self.refused.insert((sent.from, log, seq));
                    }
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn ended(&mut self, setting: &Setting, oracle: &Oracle, ending: &Ending<'_>) -> Verdict {
        for (node, log, seq) in &self.refused {
            // What came over a link by chance, from outside of those who must be equal, may never come again.
            let components = setting.components(&log.collection);
            let together = components.iter().find(|component| component.contains(node));
            let is_author = |member: &usize| setting.members[*member].id == log.author;
            if oracle.is_passing(log) {
                continue;
            }
            if !together.is_some_and(|component| component.iter().any(is_author)) {
                continue;
            }
            let forked = oracle.fork_of(log).is_some_and(|fork| *seq >= fork);
            let gone = forked || !oracle.is_authored(log, *seq) || oracle.is_perhaps_lost(log, *seq);
            let (head, _) = ending.disks[*node].head(log);
            ensure(gone || head.seq >= *seq, || {
                format!("node {node} refused {log} {seq:?} once and has it to this day only up to {head:?}")
            })?;
        }
        Ok(())
    }
}
