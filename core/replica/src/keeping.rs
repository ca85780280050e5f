//! The ledger's own business: its member document, forgetting, and snapshots on their way in.

use bytes::Bytes;

use crate::apply::Planned;
use crate::clock::{Now, WallMillis};
use crate::event::Event;
use crate::id::{DocId, Key, LogId, NodeId};
use crate::ledger::{APPLY_ATTEMPTS, Ledger};
use crate::limits::CONFLICT_KEEP_MS;
use crate::member::{Member, document_of, members};
use crate::resolve::Document;
use crate::snapshot::{Answer, Debt, Incoming, answer, forget_notes};
use crate::store::{Change, Drain, Guard, ScanLimits, Store};
use crate::wire::{Chunk, Part, Pull};

/// So long rows may be ahead of the vector.
const DEBT_MS: u64 = 60_000;

/// What became of a piece of a snapshot.
pub(crate) enum Joined {
    /// It was joined; ask on.
    Next,
    /// That was the last one.
    Done,
    /// The application left no gap to join it; try again.
    Busy,
    /// It was refused, and with it this snapshot.
    Refused(String),
}

impl<S: Store> Ledger<S> {
    /// Work that may wait for quiet: the member document, forgetting, and the store's own.
    pub(crate) fn tend(&mut self, now: Now, events: &mut Vec<Event>) -> Result<(), S::Error> {
        self.introduce(now, events)?;
        self.tell_of_tables(now, events)?;
        let (node, store) = (self.node, &mut self.store);
        let floors = self.keeper.forgettable(node, store, &self.members, &self.logs, now.wall)?;
        if !floors.is_empty() {
            let mut commit = self.planner(now).0.own_commit();
            commit.floors = floors;
            self.commit(&commit, events)?;
        }
        let before = WallMillis(now.wall.0.saturating_sub(CONFLICT_KEEP_MS));
        events.extend(self.store.tend(before)?.into_iter().map(Event::Problem));
        Ok(())
    }

    /// Writes this node's member document, if it is time.
    pub(crate) fn introduce(&mut self, now: Now, events: &mut Vec<Event>) -> Result<(), S::Error> {
        match self.keeper.due((self.node, self.incarnation), &self.members, &self.logs, now.wall) {
            Some(member) => self.write_member(now, self.node, &member, events),
            None => Ok(()),
        }
    }

    /// Writes what the store has to tell of its tables.
    pub(crate) fn tell_of_tables(&mut self, now: Now, events: &mut Vec<Event>) -> Result<(), S::Error> {
        for (key, content) in self.store.about(&self.node)? {
            self.write_own(now, (members().clone(), key), content, events)?;
        }
        Ok(())
    }

    /// Writes that a member was removed. Nothing happens if there is no such member, or it is this node.
    pub(crate) fn remove_member(
        &mut self,
        now: Now,
        node: NodeId,
        events: &mut Vec<Event>,
    ) -> Result<(), S::Error> {
        let Some((_, member)) = self.members.get(&node).filter(|_| node != self.node) else { return Ok(()) };
        let removed = Member { removed: true, ..member.clone() };
        self.write_member(now, node, &removed, events)
    }

    fn write_member(
        &mut self,
        now: Now,
        node: NodeId,
        member: &Member,
        events: &mut Vec<Event>,
    ) -> Result<(), S::Error> {
        self.write_own(now, document_of(&node), member.encode(), events)
    }

    /// Writes a document of the engine's own.
    fn write_own(
        &mut self,
        now: Now,
        doc: DocId,
        content: Bytes,
        events: &mut Vec<Event>,
    ) -> Result<(), S::Error> {
        let change = Change { doc, content: Some(content.clone()), written: now.wall };
        let drain = Drain { changes: vec![change], ..Drain::default() };
        let (planner, store, ..) = self.planner(now);
        let mut commit = planner.plan_local(store, &drain)?;
        for write in &mut commit.rows {
            write.apply = Some(Some(content.clone()));
        }
        self.commit(&commit, events).map(drop)
    }

    /// Reads a piece of a snapshot for a peer. `None` if local changes must be captured first.
    pub(crate) fn chunk(
        &mut self,
        pull: &Pull,
        limits: ScanLimits,
        frame_bytes: usize,
    ) -> Result<Option<Chunk>, S::Error> {
        let ahead = self.debt.collections().contains(&pull.collection);
        Ok(match answer(&mut self.store, &self.logs, pull, limits, frame_bytes)? {
            Answer::Chunk(chunk) => Some(Chunk { ahead, ..chunk }),
            Answer::Capture => {
                self.backlog = true;
                None
            }
        })
    }

    /// Takes in a piece of the snapshot that is coming in.
    pub(crate) fn join_chunk(
        &mut self,
        now: Now,
        chunk: Chunk,
        impatient: bool,
        events: &mut Vec<Event>,
    ) -> Result<Joined, S::Error> {
        let Some(mut incoming) = self.snapshot.take() else { return Ok(Joined::Done) };
        if !chunk.refused.is_empty() {
            self.snapshot = incoming.has_begun().then_some(incoming);
            return Ok(Joined::Refused(chunk.refused));
        }
        if !incoming.expects(&chunk) {
            return Ok(Joined::Refused("it is not the piece that was asked for".to_owned()));
        }
        if chunk.ahead {
            incoming.mix();
        }
        let last = chunk.last;
        if !last && chunk.part.is_empty() {
            return Ok(Joined::Refused("there is nothing in it".to_owned()));
        }
        match chunk.part {
            Part::Held(held) => {
                incoming.take_held(&held);
                self.snapshot = Some(incoming);
                Ok(Joined::Next)
            }
            Part::Heads(heads) => {
                if let Err((log, reason)) = incoming.take_heads(heads, last) {
                    return Ok(Joined::Refused(format!("the head of {log}: {reason}")));
                }
                if let Err(reason) = self.clock.admit(incoming.latest(), now.wall) {
                    return Ok(Joined::Refused(reason.to_string()));
                }
                if incoming.is_ending() && last {
                    self.end_snapshot(now, &incoming, events)?;
                    return Ok(Joined::Done);
                }
                self.snapshot = Some(incoming);
                Ok(Joined::Next)
            }
            Part::Rows(rows) => {
                let latest = rows.iter().map(|row| row.row.stamp.hlc).max().unwrap_or_default();
                if let Err(reason) = self.clock.admit(latest, now.wall) {
                    return Ok(Joined::Refused(reason.to_string()));
                }
                let last_key = rows.last().map(|row| row.key.clone());
                let joined = self.join_rows(now, &incoming, &rows, last_key.as_ref(), impatient, events)?;
                if joined && last && incoming.is_repair() {
                    return Ok(Joined::Done);
                }
                if joined {
                    incoming.passed(last_key, rows.len(), last);
                }
                self.snapshot = Some(incoming);
                Ok(if joined { Joined::Next } else { Joined::Busy })
            }
        }
    }

    /// Joins rows, capturing local changes first. `false` if the application left no gap to do so.
    fn join_rows(
        &mut self,
        now: Now,
        incoming: &Incoming,
        rows: &[Document],
        last_key: Option<&Key>,
        impatient: bool,
        events: &mut Vec<Event>,
    ) -> Result<bool, S::Error> {
        let first = if impatient { APPLY_ATTEMPTS } else { 0 };
        for attempt in first..2 * APPLY_ATTEMPTS {
            let guard = if attempt < APPLY_ATTEMPTS { Guard::OutboxEmpty } else { Guard::OutboxDisjoint };
            let (planner, store, open, branches) = self.planner(now);
            let planned = planner.plan_snapshot(store, (open, branches), incoming, rows, guard)?;
            let Planned { mut commit, problems, work } = planned;
            self.work += work as u64;
            let mut debt = self.debt.clone();
            incoming.note_rows(last_key, &mut debt, &mut commit);
            if self.commit(&commit, events)? {
                self.debt = debt;
                events.extend(problems.into_iter().map(Event::Problem));
                return Ok(true);
            }
            self.capture(now, events)?;
        }
        Ok(false)
    }

    /// Takes on the heads that a snapshot stands for, now that all its rows are here.
    fn end_snapshot(
        &mut self,
        now: Now,
        incoming: &Incoming,
        events: &mut Vec<Event>,
    ) -> Result<(), S::Error> {
        let mut commit = self.planner(now).0.own_commit();
        let mut debt = self.debt.clone();
        incoming.note_end(&self.logs, &mut debt, &mut commit);
        let is_ours = |log: &LogId| log.author == self.node && log.incarnation == self.incarnation;
        if commit.adopted.iter().any(|(log, _)| is_ours(log)) {
            self.start_anew();
            commit.owner = (self.node, self.incarnation);
        }
        self.commit(&commit, events)?;
        self.debt = debt;
        self.debt.settle(self.logs.vector());
        Ok(())
    }

    /// Waits no longer for what rows may be ahead of the vector for, since it does not come: it is gone with whoever gave them.
    /// From then on these rows are compared like any other, and spread as rows.
    pub(crate) fn give_up_debt(
        &mut self,
        now: Now,
        is_taking: bool,
        events: &mut Vec<Event>,
    ) -> Result<(), S::Error> {
        self.debt.settle(self.logs.vector());
        if self.debt.is_empty() {
            self.debt_due = None;
            return Ok(());
        }
        let due = *self.debt_due.get_or_insert(now.mono.plus(DEBT_MS));
        if now.mono < due || is_taking {
            return Ok(());
        }
        self.debt_due = None;
        let mut commit = self.planner(now).0.own_commit();
        commit.notes.push(Debt::default().note());
        forget_notes(&mut commit);
        self.commit(&commit, events)?;
        self.debt = Debt::default();
        self.snapshot = None;
        Ok(())
    }

    /// Gives up a snapshot that is not needed any more.
    pub(crate) fn drop_snapshot_if_covered(&mut self) {
        let vector = self.logs.vector();
        let is_covered = |incoming: &Incoming| incoming.is_pointless(|log| vector.head(log).seq);
        if self.snapshot.as_ref().is_some_and(is_covered) {
            self.snapshot = None;
        }
    }
}
