//! The ledger's own business: its member document, forgetting, and snapshots on their way in.

use crate::clock::{Hlc, Now, WallMillis};
use crate::event::Event;
use crate::id::{Key, LogId, NodeId};
use crate::ledger::{APPLY_ATTEMPTS, Ledger};
use crate::limits::CONFLICT_KEEP_MS;
use crate::member::{Member, document_of};
use crate::resolve::Document;
use crate::snapshot::{Answer, Incoming, answer};
use crate::store::{Change, Drain, Guard, ScanLimits, Store};
use crate::wire::{Chunk, Part, Pull};

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
        let (node, store) = (self.node, &mut self.store);
        let floors = self.keeper.forgettable(node, store, &self.members, &self.logs, now.wall)?;
        if !floors.is_empty() {
            let mut commit = self.planner(now).0.commit(Guard::None, Hlc::default());
            commit.clock = self.clock.last();
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
        let content = member.encode();
        let change = Change { doc: document_of(&node), content: Some(content.clone()), written: now.wall };
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
        Ok(match answer(&mut self.store, &self.logs, pull, limits, frame_bytes)? {
            Answer::Chunk(chunk) => Some(chunk),
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
        if !incoming.expects(&chunk) {
            return Ok(Joined::Refused("it is not the piece that was asked for".to_owned()));
        }
        let (last, refused) = (chunk.last, chunk.refused);
        match chunk.part {
            Part::Heads(heads) => {
                let is_empty = heads.is_empty();
                if let Err((log, reason)) = incoming.take_heads(heads, last) {
                    return Ok(Joined::Refused(format!("the head of {log}: {reason}")));
                }
                if is_empty && !last {
                    return Ok(Joined::Refused(refused));
                }
                if let Err(reason) = self.clock.admit(incoming.latest(), now.wall) {
                    return Ok(Joined::Refused(reason.to_string()));
                }
                self.snapshot = Some(incoming);
                Ok(Joined::Next)
            }
            Part::Rows(rows) if rows.is_empty() && !last => Ok(Joined::Refused(refused)),
            Part::Rows(rows) => {
                let latest = rows.iter().map(|row| row.row.stamp.hlc).max().unwrap_or_default();
                if let Err(reason) = self.clock.admit(latest, now.wall) {
                    return Ok(Joined::Refused(reason.to_string()));
                }
                let last_key = rows.last().map(|row| row.key.clone());
                self.join_rows(now, &incoming, &rows, last_key.as_ref(), (last, impatient), events).map(
                    |joined| {
                        if !joined {
                            self.snapshot = Some(incoming);
                            return Joined::Busy;
                        }
                        incoming.passed(last_key, rows.len());
                        self.snapshot = (!last).then_some(incoming);
                        if last { Joined::Done } else { Joined::Next }
                    },
                )
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
        (last, impatient): (bool, bool),
        events: &mut Vec<Event>,
    ) -> Result<bool, S::Error> {
        let first = if impatient { APPLY_ATTEMPTS } else { 0 };
        for attempt in first..2 * APPLY_ATTEMPTS {
            let guard = if attempt < APPLY_ATTEMPTS { Guard::OutboxEmpty } else { Guard::OutboxDisjoint };
            let (planner, store, open, branches) = self.planner(now);
            let mut commit = planner.plan_snapshot(store, (open, branches), incoming, rows, guard)?;
            let mut debt = self.debt.clone();
            incoming.note(last_key, last, &self.logs, &mut debt, &mut commit);
            let is_ours = |log: &LogId| log.author == self.node && log.incarnation == self.incarnation;
            let rolled_back = commit.adopted.iter().any(|(log, _)| is_ours(log));
            if rolled_back {
                self.start_anew();
                commit.owner = (self.node, self.incarnation);
            }
            if self.commit(&commit, events)? {
                self.debt = debt;
                self.debt.settle(self.logs.vector());
                return Ok(true);
            }
            self.capture(now, events)?;
        }
        Ok(false)
    }

    /// Gives up a snapshot that is not needed any more.
    pub(crate) fn drop_snapshot_if_covered(&mut self) {
        let vector = self.logs.vector();
        let is_covered =
            |incoming: &Incoming| incoming.has_begun() && incoming.is_covered(|log| vector.head(log).seq);
        if self.snapshot.as_ref().is_some_and(is_covered) {
            self.snapshot = None;
        }
    }
}
