//! 15. Every batch and frame, and what is on its way, stays under its named limit.

use std::collections::BTreeMap;

use entgldb_replica::id::LinkId;
use entgldb_replica::limits::{PAGE_ENTRIES_MAX, UNIT_BYTES_MAX, UNIT_CHANGES_MAX};
use entgldb_replica::store::Guard;
use entgldb_replica::wire::Message;

use super::{Checker, Verdict, ensure};
use crate::oracle::Oracle;
use crate::seen::{Committed, Sent, Setting};

/// Counts the pages sent over each link that were not answered yet.
#[derive(Default)]
pub(crate) struct Limits {
    in_flight: BTreeMap<LinkId, usize>,
}

impl Checker for Limits {
    fn name(&self) -> &'static str {
        "15 limits"
    }

    fn committed(&mut self, _: &Setting, _: &Oracle, node: usize, seen: &Committed) -> Verdict {
        if seen.commit.guard != Guard::None {
            return Ok(());
        }
        let entries = || seen.commit.appended.iter().flat_map(|run| &run.entries);
        let bytes: usize = entries().map(|linked| linked.entry().payload.len()).sum();
        ensure(entries().count() <= UNIT_CHANGES_MAX, || format!("node {node}: UNIT_CHANGES_MAX"))?;
        ensure(bytes <= UNIT_BYTES_MAX || entries().count() == 1, || format!("node {node}: UNIT_BYTES_MAX"))
    }

    fn sent(&mut self, setting: &Setting, sent: &Sent<'_>) -> Verdict {
        let (from, most) = (sent.from, setting.options.frame_bytes_max);
        let limits = setting.options.limits(from);
        ensure(sent.bytes <= most, || format!("node {from} sends {} bytes of {most}", sent.bytes))?;
        match sent.message {
            Some(Message::Page(page)) => {
                let entries: usize = page.runs.iter().map(|run| run.entries.len()).sum();
                ensure(entries <= PAGE_ENTRIES_MAX, || format!("node {from}: PAGE_ENTRIES_MAX, {entries}"))?;
                let in_flight = self.in_flight.entry(sent.link).or_default();
                *in_flight += 1;
                ensure(*in_flight <= limits.pages_in_flight || sent.doubtful, || {
                    format!("node {from}: pages_in_flight")
                })
            }
            Some(Message::Ack(_)) => {
                let in_flight = self.in_flight.entry(sent.peer_link).or_default();
                *in_flight = in_flight.saturating_sub(1);
                Ok(())
            }
            Some(Message::Vector(part)) => {
                ensure(part.heads.len() <= limits.vector_logs, || format!("node {from}: vector_logs"))
            }
            _ => Ok(()),
        }
    }
}
