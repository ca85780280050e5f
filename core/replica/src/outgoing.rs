//! The sending half of a session: what the peer holds, what is on its way to it, and what waits.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

use crate::clock::Mono;
use crate::id::{Collection, Incarnation, LogId, NodeId};
use crate::limits::{ACK_MS, BAD_LOG_RETRY_MS, SKEW_RETRY_MS};
use crate::oplog::Logs;
use crate::version::{Head, Seq};
use crate::wire::{Ack, Code, Run, RunResult};

/// Wait before entries are offered again that a busy receiver could not take.
const BUSY_RETRY_MS: u64 = 500;

/// An acknowledgement that does not fit what was sent.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum AckError {
    #[error("the peer acknowledged page {0}, which is not the oldest on its way")]
    Order(u64),
    #[error("the peer acknowledged {found} runs of a page that has {expected}")]
    Length { expected: usize, found: usize },
}

#[derive(Debug)]
struct InFlight {
    id: u64,
    ends: Vec<(LogId, Seq)>,
    sent: Mono,
}

/// What a peer holds, and what is on its way to it.
#[derive(Debug, Default)]
pub(crate) struct Outgoing {
    /// What the peer is known to hold durably.
    theirs: BTreeMap<LogId, Seq>,
    /// What was sent, beyond `theirs`.
    sent: BTreeMap<LogId, Seq>,
    in_flight: VecDeque<InFlight>,
    /// Logs that the peer found bad, and until when they wait.
    held: BTreeMap<LogId, Mono>,
    /// Authors whose entries the peer can't take yet. All their logs wait together: a unit may lie in several.
    held_authors: BTreeMap<(NodeId, Incarnation), Mono>,
    pages_sent: u64,
    /// How often anything of this has changed.
    changes: u64,
    /// Answers that hold as long as neither our heads nor this change: every input asks, most change nothing.
    settled: Cell<Option<(u64, u64)>>,
    behind: Cell<Option<Behind>>,
}

/// Our heads' moves and our own changes when it was worked out, and the answer.
type Behind = ((u64, u64), (u64, u64));

impl Outgoing {
    /// The peer's whole vector, as far as it is shared. What is on its way stays so.
    pub(crate) fn learn_all(&mut self, heads: impl Iterator<Item = (LogId, Head)>) {
        self.changes += 1;
        self.theirs = heads.map(|(log, head)| (log, head.seq)).collect();
        let ends = self.in_flight.iter().flat_map(|page| page.ends.iter().map(|(log, _)| log));
        let on_its_way: BTreeSet<&LogId> = ends.collect();
        self.sent.retain(|log, _| on_its_way.contains(log));
    }

    /// The peer holds a log at least up to there.
    pub(crate) fn learn(&mut self, log: LogId, seq: Seq) {
        self.changes += 1;
        let theirs = self.theirs.entry(log).or_default();
        *theirs = (*theirs).max(seq);
    }

    /// What the peer lacks and may be sent now: logs with the position after which to send. Empty if nothing.
    pub(crate) fn to_send(
        &self,
        logs: &Logs,
        shared: &BTreeSet<Collection>,
        pages_in_flight: usize,
        now: Mono,
    ) -> BTreeMap<LogId, Seq> {
        if self.in_flight.len() >= pages_in_flight {
            return BTreeMap::new();
        }
        let state = (logs.moves(), self.changes);
        if self.settled.get() == Some(state) {
            return BTreeMap::new();
        }
        let lacking = |(log, head): (&LogId, &Head)| {
            let until = self.held.get(log).max(self.held_authors.get(&(log.author, log.incarnation)));
            if !shared.contains(&log.collection) || until.is_some_and(|until| *until > now) {
                return None;
            }
            let after = self.position(log);
            // What is forgotten here is not sent; the peer asks for a snapshot.
            (head.seq > after && after >= logs.floor(log)).then(|| (log.clone(), after))
        };
        let positions: BTreeMap<LogId, Seq> = logs.vector().iter().filter_map(lacking).collect();
        if positions.is_empty() && self.held() == 0 {
            self.settled.set(Some(state));
        }
        positions
    }

    /// What the peer is known to hold durably.
    pub(crate) fn theirs(&self) -> &BTreeMap<LogId, Seq> {
        &self.theirs
    }

    fn position(&self, log: &LogId) -> Seq {
        let theirs = self.theirs.get(log).copied().unwrap_or_default();
        theirs.max(self.sent.get(log).copied().unwrap_or_default())
    }

    /// The number of the next page.
    pub(crate) fn next_page(&self) -> u64 {
        self.pages_sent + 1
    }

    /// Remembers that the next page is on its way.
    pub(crate) fn page_out(&mut self, runs: &[Run], now: Mono) {
        self.changes += 1;
        self.pages_sent += 1;
        let ends: Vec<(LogId, Seq)> = runs.iter().map(|run| (run.log.clone(), run.signed.head.seq)).collect();
        self.sent.extend(ends.iter().cloned());
        self.in_flight.push_back(InFlight { id: self.pages_sent, ends, sent: now });
    }

    /// A unit that can't be sent to this peer: its author's entries wait, and so do no others.
    pub(crate) fn hold_unit(&mut self, log: &LogId, now: Mono) {
        self.hold_author(log, now.plus(BAD_LOG_RETRY_MS));
    }

    /// These logs can't be sent for now.
    pub(crate) fn hold(&mut self, logs: impl IntoIterator<Item = LogId>, now: Mono) {
        self.changes += 1;
        self.held.extend(logs.into_iter().map(|log| (log, now.plus(BAD_LOG_RETRY_MS))));
    }

    /// Takes an acknowledgement; answers what the peer refused and why.
    pub(crate) fn acknowledged(
        &mut self,
        ack: Ack,
        now: Mono,
    ) -> Result<Vec<(LogId, Code, String)>, AckError> {
        self.changes += 1;
        let page = match self.in_flight.front() {
            Some(page) if page.id == ack.page => self.in_flight.pop_front().expect("it was just seen"),
            _ => return Err(AckError::Order(ack.page)),
        };
        if page.ends.len() != ack.results.len() {
            return Err(AckError::Length { expected: page.ends.len(), found: ack.results.len() });
        }
        let mut refused = Vec::new();
        for ((log, _), RunResult { code, seq, detail }) in page.ends.into_iter().zip(ack.results) {
            if code == Code::Taken {
                self.learn(log, seq);
                continue;
            }
            // Back to what the peer says it holds; the rest is sent again when its time has come.
            self.theirs.insert(log.clone(), seq);
            self.sent.remove(&log);
            match code {
                Code::ClockSkew => self.hold_author(&log, now.plus(SKEW_RETRY_MS)),
                Code::Busy => self.hold_author(&log, now.plus(BUSY_RETRY_MS)),
                Code::Bad => drop(self.held.insert(log.clone(), now.plus(BAD_LOG_RETRY_MS))),
                Code::Gap | Code::Taken => {}
            }
            refused.push((log, code, detail));
        }
        Ok(refused)
    }

    fn hold_author(&mut self, log: &LogId, until: Mono) {
        self.changes += 1;
        let held = self.held_authors.entry((log.author, log.incarnation)).or_default();
        *held = until.max(*held);
    }

    /// Forgets waits that are over.
    pub(crate) fn release(&mut self, now: Mono) {
        self.held.retain(|_, until| *until > now);
        self.held_authors.retain(|_, until| *until > now);
    }

    /// Forgets all waits.
    pub(crate) fn release_all(&mut self) {
        self.held.clear();
        self.held_authors.clear();
    }

    /// Logs, and authors with all their logs, that wait.
    pub(crate) fn held(&self) -> usize {
        self.held.len() + self.held_authors.len()
    }

    /// Whether nothing is on its way.
    pub(crate) fn is_idle(&self) -> bool {
        self.in_flight.is_empty()
    }

    /// Whether the oldest page should have been acknowledged by now.
    pub(crate) fn is_overdue(&self, now: Mono) -> bool {
        self.in_flight.front().is_some_and(|page| now.since(page.sent) >= ACK_MS)
    }

    /// When a wait or a deadline ends.
    pub(crate) fn next_wake(&self) -> Option<Mono> {
        let ack = self.in_flight.front().map(|page| page.sent.plus(ACK_MS));
        let held = self.held.values().chain(self.held_authors.values()).copied();
        ack.into_iter().chain(held).min()
    }

    /// Entries that the peer is known to hold: how many of them this node lacks, and all of them.
    pub(crate) fn behind(&self, logs: &Logs) -> (u64, u64) {
        let state = (logs.moves(), self.changes);
        if let Some((known, answer)) = self.behind.get()
            && known == state
        {
            return answer;
        }
        let count = |(behind, total): (u64, u64), (log, seq): (&LogId, &Seq)| {
            let ours = logs.vector().head(log).seq;
            // A peer may claim anything.
            (behind.saturating_add(seq.0.saturating_sub(ours.0)), total.saturating_add(seq.0))
        };
        let answer = self.theirs.iter().fold((0, 0), count);
        self.behind.set(Some((state, answer)));
        answer
    }

    /// Entries that this node holds and the peer is not known to hold.
    pub(crate) fn ahead(&self, logs: &Logs, shared: &BTreeSet<Collection>) -> u64 {
        let shared = logs.vector().iter().filter(|(log, _)| shared.contains(&log.collection));
        let lead = shared.map(|(log, head)| {
            head.seq.0.saturating_sub(self.theirs.get(log).copied().unwrap_or_default().0)
        });
        lead.sum()
    }
}
