//! The durable half of a replica: the store, and what of it is kept in memory.
//!
//! Sessions say what came from whom; the ledger alone captures, checks, joins and commits, and is right whatever they say.

use std::collections::{BTreeMap, BTreeSet};

use fastrand::Rng;

use crate::apply::{Planned, Planner};
use crate::clock::{Clock, Hlc, Mono, Now};
use crate::conflicts::Branches;
use crate::contract::{Config, Mark};
use crate::custom::Resolvers;
use crate::entry::{AuthorKey, SignatureError, SignedHead};
use crate::event::{Anew, Event};
use crate::id::{Collection, Incarnation, LogId, NodeId, PublicKey};
use crate::limits::{FRAME_BYTES_DEFAULT, FRAME_OVERHEAD_BYTES, PAGE_BYTES_TARGET, PAGE_ENTRIES_TARGET};
use crate::member::{Change, Members, members};
use crate::oplog::{Logs, Verdicts, check_page};
use crate::page::{Room, build_page, build_shortest};
use crate::retain::Keeper;
use crate::snapshot::{Debt, Incoming};
use crate::states::{States, edit_bytes_max};
use crate::store::{Appended, Commit, Committed, ConflictWrite, Drain, Guard, ScanLimits, Store, UnitLimits};
use crate::version::Seq;
use crate::waiting::OpenConflicts;
use crate::wire::{Ack, Code, Page, Run, RunResult};

/// Attempts to find the outbox empty, and then as many to find it without the documents to be applied.
pub(crate) const APPLY_ATTEMPTS: usize = 4;
/// What an entry and a run take in a frame at most, beside key, content and the collection's name; and a frame by itself.
const ENTRY_BYTES: usize = 88;
const RUN_BYTES: usize = 256;
const PAGE_BYTES: usize = 256;

/// See the module's documentation.
pub(crate) struct Ledger<S: Store> {
    pub(crate) store: S,
    pub(crate) logs: Logs,
    pub(crate) clock: Clock,
    pub(crate) node: NodeId,
    pub(crate) incarnation: Incarnation,
    /// Why it started a new incarnation when it was opened, if it did.
    pub(crate) anew: Option<Anew>,
    /// Logs that the store dropped when it was opened, because they can't be.
    pub(crate) dropped: Vec<LogId>,
    /// Whether local changes may wait to be captured.
    pub(crate) backlog: bool,
    /// Since it was opened.
    pub(crate) captured: u64,
    /// Since it was opened.
    pub(crate) applied: u64,
    /// Since it was opened.
    pub(crate) conflicts: u64,
    /// Versions, and places of states, that were looked at since it was opened.
    pub(crate) work: u64,
    key: AuthorKey,
    rng: Rng,
    limits: UnitLimits,
    unit_frame_bytes: usize,
    open_conflicts: OpenConflicts,
    branches: Branches,
    /// Collections that this node writes so that they merge, and those in which documents have states.
    merging: BTreeSet<Collection>,
    custom: Resolvers,
    stated: BTreeSet<Collection>,
    pub(crate) members: Members,
    /// Since it was opened.
    pub(crate) forgotten: u64,
    /// The snapshot that is coming in.
    pub(crate) snapshot: Option<Incoming>,
    pub(crate) debt: Debt,
    /// When it is given up.
    pub(crate) debt_due: Option<Mono>,
    pub(crate) keeper: Keeper,
}

/// What became of a page.
pub(crate) struct Taken {
    /// Its runs, with their ends.
    pub(crate) ends: Vec<(LogId, Seq)>,
    /// The answer to the peer.
    pub(crate) ack: Ack,
    /// Entries that were new here.
    pub(crate) entries: usize,
    /// Bytes of their payloads.
    pub(crate) bytes: usize,
    /// Logs of which the peer has another branch.
    pub(crate) forked: Vec<LogId>,
    /// One of our own logs that the peer had more of than we had.
    pub(crate) rolled_back: Option<LogId>,
}

impl<S: Store> Ledger<S> {
    /// Opens what is durable. If the oplog is new, or another node's, its incarnation is drawn.
    pub(crate) fn open(
        mut store: S,
        key: AuthorKey,
        mut rng: Rng,
        config: &Config,
    ) -> Result<Self, S::Error> {
        let durable = store.load()?;
        let node = key.node_id();
        let logs = Logs::from_durable(&durable);
        let anew = started_anew(&logs, node, durable.owner, config.mark);
        let incarnation = match durable.owner {
            Some((_, incarnation)) if anew.is_none() => incarnation,
            _ => Incarnation(rng.u64(..)),
        };
        let open_conflicts = OpenConflicts::from_durable(&durable.open_conflicts);
        let limits = UnitLimits {
            changes: config.limits.unit_changes,
            bytes: config.limits.unit_bytes,
            gap_ms: config.limits.unit_gap_ms,
            payload_bytes: config.payload_bytes_max,
        };
        let snapshot = Incoming::from_notes(&durable.notes);
        let mut debt = Debt::from_notes(&durable.notes);
        debt.settle(logs.vector());
        let members = read_members(&mut store)?;
        Ok(Self {
            clock: Clock::resume(durable.clock, config.max_skew_ms),
            logs,
            store,
            node,
            incarnation,
            anew,
            dropped: durable.dropped,
            backlog: true,
            captured: 0,
            applied: 0,
            conflicts: 0,
            work: 0,
            key,
            rng,
            limits,
            unit_frame_bytes: config.frame_bytes_max.min(FRAME_BYTES_DEFAULT) - FRAME_OVERHEAD_BYTES,
            open_conflicts,
            branches: Branches::new(),
            merging: config.merging.clone(),
            custom: config.custom.clone(),
            stated: durable.merged.into_iter().collect(),
            members,
            forgotten: 0,
            snapshot,
            debt,
            debt_due: None,
            keeper: Keeper {
                name: config.name.clone(),
                interests: config.interests.clone(),
                retention_ms: config.retention_ms,
                bytes_max: config.frame_bytes_max.min(FRAME_BYTES_DEFAULT) / 2,
            },
        })
    }

    /// How far the own oplog has come.
    pub(crate) fn mark(&self) -> Mark {
        let (node, incarnation) = (self.node, self.incarnation);
        Mark { incarnation, entries: self.logs.written(node, incarnation) }
    }

    /// Captures what one look into the outbox shows: at most one unit.
    pub(crate) fn capture(&mut self, now: Now, events: &mut Vec<Event>) -> Result<(), S::Error> {
        let drain = self.look()?;
        self.backlog = drain.more;
        events.extend(drain.refused.iter().cloned().map(Event::Problem));
        // What the schema has become is told before what was written under it.
        self.tell_of_tables(now, events)?;
        if drain.mark.is_none() && drain.first_copy.is_none() {
            return Ok(());
        }
        let (planner, store, ..) = self.planner(now);
        let commit = planner.plan_local(store, &drain)?;
        if !self.commit(&commit, events)? {
            self.backlog = true;
            return Ok(());
        }
        let changes = commit.rows.len();
        self.captured += changes as u64;
        if changes > 0 {
            events.push(Event::Captured { changes });
        }
        Ok(())
    }

    /// Looks into the outbox for a unit that fits a frame of the usual size, or of this node's if that is smaller: long
    /// keys count too, and a unit that fits no frame would never get away. What the store will not take apart stays whole.
    fn look(&mut self) -> Result<Drain, S::Error> {
        let mut limits = self.limits;
        loop {
            let drain = self.store.captured(&limits)?;
            let count = drain.changes.len();
            let bytes = frame_bytes(&drain, &self.states());
            if count <= 1 || limits.changes <= 1 || bytes <= self.unit_frame_bytes {
                return Ok(drain);
            }
            limits.changes = limits.changes.min(count) / 2;
        }
    }

    /// Goes on in a new incarnation. Positions of the old one were given out that this oplog knows nothing of.
    pub(crate) fn start_anew(&mut self) {
        self.incarnation = Incarnation(self.rng.u64(..));
    }

    /// Whether a head of one of our own logs that a peer shows is unknown here and really signed by us.
    ///
    /// The outer error is the store's, the inner one says that the head proves nothing.
    pub(crate) fn is_forgotten(
        &mut self,
        log: &LogId,
        signed: &SignedHead,
    ) -> Result<Result<bool, SignatureError>, S::Error> {
        if log.author != self.node || log.incarnation != self.incarnation {
            return Ok(Ok(false));
        }
        if signed.head.seq <= self.logs.floor(log)
            || self.store.hash_at(log, signed.head.seq)? == Some(signed.head.hash)
        {
            return Ok(Ok(false));
        }
        Ok(signed.verify(log, &self.key.public_key()).map(|()| true))
    }

    /// Checks, joins and stores the entries of a page, all that can be taken in one commit. An impatient caller does not
    /// insist on an empty outbox.
    pub(crate) fn take(
        &mut self,
        now: Now,
        from: NodeId,
        page: Page,
        impatient: bool,
        events: &mut Vec<Event>,
    ) -> Result<Taken, S::Error> {
        let id = page.id;
        let ends: Vec<(LogId, Seq)> =
            page.runs.iter().map(|run| (run.log.clone(), run.signed.head.seq)).collect();
        let Verdicts { taken, refused, forked } = check_page(&self.logs, &self.clock, now.wall, page);
        let entries: usize = taken.iter().map(|(run, _)| run.entries.len()).sum();
        let payloads = taken.iter().flat_map(|(run, _)| &run.entries);
        let bytes: usize = payloads.map(|linked| linked.entry().payload.len()).sum();
        let own = |(run, _): &&(Appended, PublicKey)| {
            run.log.author == self.node && run.log.incarnation == self.incarnation
        };
        let rolled_back = taken.iter().find(own).map(|(run, _)| run.log.clone());
        if rolled_back.is_some() {
            self.start_anew();
        }
        let busy = entries > 0 && !self.apply(now, from, &taken, impatient, events)?;
        let mut reasons: BTreeMap<LogId, (Code, String)> = BTreeMap::new();
        for (log, code, detail) in refused {
            let (node, told) = (from, detail.clone());
            match code {
                Code::Bad if told.is_empty() => {}
                Code::Bad => events.push(Event::Refused { node, log: log.clone(), detail: told }),
                Code::ClockSkew => {
                    events.push(Event::ClockSkew { node, log: Some(log.clone()), detail: told });
                }
                Code::Gap | Code::Busy | Code::Taken => {}
            }
            reasons.insert(log, (code, detail));
        }
        let results = ends.iter().map(|(log, _)| {
            let seq = self.logs.vector().head(log).seq;
            let (code, detail) = match reasons.get(log) {
                Some(reason) => reason.clone(),
                None if busy => (Code::Busy, "the application writes without pause".to_owned()),
                None => (Code::Taken, String::new()),
            };
            RunResult { code, seq, detail }
        });
        let ack = Ack { page: id, results: results.collect() };
        Ok(Taken { ends, ack, entries, bytes, rolled_back, forked })
    }

    /// Commits checked entries, capturing local changes first. `false` if the application left no gap to do so.
    fn apply(
        &mut self,
        now: Now,
        from: NodeId,
        taken: &[(Appended, PublicKey)],
        impatient: bool,
        events: &mut Vec<Event>,
    ) -> Result<bool, S::Error> {
        let first = if impatient { APPLY_ATTEMPTS } else { 0 };
        for attempt in first..2 * APPLY_ATTEMPTS {
            let guard = if attempt < APPLY_ATTEMPTS { Guard::OutboxEmpty } else { Guard::OutboxDisjoint };
            let (planner, store, open, branches) = self.planner(now);
            let planned = planner.plan_remote(store, open, branches, taken, guard)?;
            let Planned { commit, problems, work } = planned;
            self.work += work as u64;
            if self.commit(&commit, events)? {
                events.extend(problems.into_iter().map(Event::Problem));
                let entries = taken.iter().map(|(run, _)| run.entries.len()).sum();
                self.applied += entries as u64;
                events.push(Event::Applied { from, entries, documents: commit.rows.len() });
                return Ok(true);
            }
            self.capture(now, events)?;
        }
        Ok(false)
    }

    /// The next page for a peer that lacks something of each of these logs.
    pub(crate) fn page(
        &mut self,
        positions: &BTreeMap<LogId, Seq>,
        (room, latest): (Room, Hlc),
    ) -> Result<Vec<Run>, S::Error> {
        build_page(&mut self.store, &self.logs, positions, room, latest)
    }

    /// The least that can be sent to it.
    pub(crate) fn shortest_page(&mut self, positions: &BTreeMap<LogId, Seq>) -> Result<Vec<Run>, S::Error> {
        build_shortest(&mut self.store, &self.logs, positions)
    }

    fn states(&self) -> States<'_> {
        States { merging: &self.merging, custom: &self.custom, stated: &self.stated }
    }

    pub(crate) fn planner(&mut self, now: Now) -> (Planner<'_>, &mut S, &OpenConflicts, &mut Branches) {
        let planner = Planner {
            logs: &self.logs,
            clock: &self.clock,
            key: &self.key,
            node: self.node,
            incarnation: self.incarnation,
            wall: now.wall,
            states: States { merging: &self.merging, custom: &self.custom, stated: &self.stated },
        };
        (planner, &mut self.store, &self.open_conflicts, &mut self.branches)
    }

    /// Makes a step durable and follows it in memory. `false` if the outbox has moved.
    pub(crate) fn commit(&mut self, commit: &Commit, events: &mut Vec<Event>) -> Result<bool, S::Error> {
        let problems = match self.store.commit(commit)? {
            Committed::Done(problems) => problems,
            Committed::OutboxMoved => return Ok(false),
        };
        self.clock.advance(commit.clock);
        self.logs.committed(&commit.appended, &commit.authors);
        for (collection, tally) in &commit.tallies {
            self.logs.set_tally(collection.clone(), *tally);
        }
        for (log, signed) in &commit.adopted {
            self.logs.adopt(log, signed.head, signed.hlc);
        }
        for (log, floor) in &commit.floors {
            self.forgotten += floor.0.saturating_sub(self.logs.floor(log).0);
            let time = self.store.signed_until(log, *floor)?.map_or(Hlc::default(), |signed| signed.hlc);
            self.logs.forget(log, *floor, time);
        }
        self.debt.settle(self.logs.vector());
        for write in commit.rows.iter().filter(|write| write.doc.0 == *members()) {
            let content = write.apply.as_ref().and_then(Option::as_ref);
            let change = self.members.learn(&write.doc.1, write.row.stamp, content);
            events.extend(change.map(|change| match change {
                Change::Removed { node, by } => Event::MemberRemoved { node, by },
                Change::Returned { node } => Event::MemberReturned { node },
            }));
        }
        for write in commit.rows.iter().filter(|write| write.merged.is_some()) {
            if !self.stated.contains(&write.doc.0) {
                self.stated.insert(write.doc.0.clone());
            }
        }
        let mut before = None;
        for write in &commit.conflicts {
            self.follow_conflict(write, before, events);
            before = Some(write);
        }
        events.extend(problems.into_iter().map(Event::Problem));
        Ok(true)
    }

    /// A conflict that takes the place of the one removed just before is no news.
    fn follow_conflict(
        &mut self,
        write: &ConflictWrite,
        before: Option<&ConflictWrite>,
        events: &mut Vec<Event>,
    ) {
        let (doc, winner, loser) = match write {
            ConflictWrite::Put(conflict) => (&conflict.doc, conflict.winner.stamp, conflict.loser.stamp),
            ConflictWrite::Remove { doc, winner, loser } => (doc, *winner, *loser),
        };
        self.open_conflicts.remove(doc, winner, loser);
        let ConflictWrite::Put(conflict) = write else { return };
        if conflict.missing.is_some() {
            self.open_conflicts.insert(conflict.clone());
        } else if !matches!(before, Some(ConflictWrite::Remove { doc: moved, .. }) if moved == doc) {
            self.conflicts += 1;
            events.push(Event::Conflict(conflict.clone()));
        }
    }
}

/// All members' documents.
fn read_members<S: Store>(store: &mut S) -> Result<Members, S::Error> {
    let mut known = Members::default();
    let mut after = None;
    loop {
        let limits = ScanLimits { rows: PAGE_ENTRIES_TARGET, bytes: PAGE_BYTES_TARGET };
        let scan = store.scan(members(), after.as_ref(), &limits)?;
        for document in &scan.documents {
            known.learn(&document.key, document.row.stamp, document.content.as_ref());
        }
        match scan.documents.last() {
            Some(last) if scan.more => after = Some(last.key.clone()),
            _ => return Ok(known),
        }
    }
}

/// Whether the oplog is another one than this node last wrote.
fn started_anew(
    logs: &Logs,
    node: NodeId,
    owner: Option<(NodeId, Incarnation)>,
    mark: Option<Mark>,
) -> Option<Anew> {
    let Some((owner, last)) = owner else {
        let wrote = logs.vector().iter().any(|(log, _)| log.author == node);
        let had = mark.is_some_and(|mark| mark.entries > 0);
        return if wrote { Some(Anew::PerhapsIncomplete) } else { had.then_some(Anew::Empty) };
    };
    if owner != node {
        return Some(Anew::OtherNode(owner));
    }
    let Mark { incarnation, entries: expected } = mark?;
    let found = logs.written(node, incarnation);
    // A new incarnation in which nothing was written yet stands in the mark only: the one before must not go on.
    let is_unknown = found == 0 && incarnation != last;
    (found < expected || is_unknown).then_some(Anew::OlderCopy { found, expected })
}

/// Bytes of a frame with these changes, at most.
fn frame_bytes(drain: &Drain, states: &States<'_>) -> usize {
    let collections: BTreeSet<_> = drain.changes.iter().map(|change| &change.doc.0).collect();
    let runs = collections.iter().map(|name| RUN_BYTES + name.as_str().len());
    let entries = drain.changes.iter().map(|change| {
        let content = change.content.as_ref().map_or(0, bytes::Bytes::len);
        let payload = if states.adds_to(&change.doc.0) { edit_bytes_max(content) } else { content };
        ENTRY_BYTES + change.doc.1.as_str().len() + payload
    });
    PAGE_BYTES + runs.sum::<usize>() + entries.sum::<usize>()
}
