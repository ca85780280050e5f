//! 6. What a node says that it holds, it holds durably; what it sends is in its log.

use std::collections::BTreeMap;

use entgldb_replica::id::{LinkId, LogId};
use entgldb_replica::wire::Message;

use super::{Checker, Verdict, ensure};
use crate::seen::{Sent, Setting};

/// Remembers the logs of pages, by the receiver's link and the page's number: acknowledgements do not name them.
#[derive(Default)]
pub(crate) struct Claims {
    pages: BTreeMap<(LinkId, u64), Vec<LogId>>,
}

impl Checker for Claims {
    fn name(&self) -> &'static str {
        "6 durable claims"
    }

    fn sent(&mut self, setting: &Setting, sent: &Sent<'_>) -> Verdict {
        let (from, disk) = (sent.from, sent.disk);
        match sent.message {
            Some(Message::Vector(part)) => {
                for (log, head) in &part.heads {
                    // A commit later in the same step may have added more.
                    ensure(disk.hash_at(log, head.seq) == Some(head.hash), || {
                        let durable = disk.head(log).0;
                        format!("node {from} says that it holds {log} up to {head:?}; it has {durable:?}")
                    })?;
                }
            }
            Some(Message::Page(page)) => {
                // A member that lies may put the runs in another order on their way: then nobody can say what is acknowledged.
                if sent.from != 0 || !setting.options.has_liar() {
                    let logs = page.runs.iter().map(|run| run.log.clone()).collect();
                    self.pages.insert((sent.peer_link, page.id), logs);
                }
                for run in &page.runs {
                    let (head, _) = disk.head(&run.log);
                    ensure(head.seq >= run.signed.head.seq, || {
                        format!("node {from} sends {} {:?}; it has {head:?}", run.log, run.signed.head)
                    })?;
                }
            }
            Some(Message::Ack(ack)) if !sent.doubtful => {
                let Some(logs) = self.pages.remove(&(sent.link, ack.page)) else { return Ok(()) };
                for (log, result) in logs.iter().zip(&ack.results) {
                    let (head, _) = disk.head(log);
                    ensure(head.seq >= result.seq, || {
                        format!("node {from} acknowledges {log} {:?}; it has {head:?}", result.seq)
                    })?;
                }
            }
            _ => {}
        }
        Ok(())
    }
}
