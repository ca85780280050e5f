//! The replica: the one place that knows sessions, peers, logs and the store together.
//!
//! It is driven by [`Replica::handle`] and by nothing else. Work is done in slices: one call captures at most one unit,
//! takes in at most one page, and sends at most one page to each peer; what is left over makes [`Replica::next_wake`]
//! answer "now". So no call holds the store for long, and nothing waits behind something large.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bytes::Bytes;
use fastrand::Rng;

use crate::apply::{Author, OpenConflicts, plan_local, plan_remote};
use crate::clock::{Clock, Hlc, Mono, Now, WallMillis};
use crate::entry::AuthorKey;
use crate::event::Event;
use crate::id::{Collection, Incarnation, LinkId, LogId, NodeId, PublicKey};
use crate::limits::{
    CONFLICT_KEEP_MS, FRAME_BYTES_DEFAULT, MAX_SKEW_MS, PAYLOAD_BYTES_DEFAULT, PUSH_LINKS_MAX, SESSIONS_MAX,
    SYNC_INTERVAL_MS, UNIT_BYTES_MAX, UNIT_CHANGES_MAX, UNIT_GAP_MS,
};
use crate::oplog::{Logs, RunError, build_page, check_run};
use crate::peers::{Peers, TargetStatus, TooManyPeers};
use crate::session::{Effect, Link, Local, PeerStatus, Session};
use crate::store::{Appended, Commit, Committed, ConflictWrite, Guard, Store, UnitLimits};
use crate::version::{Seq, Vector};
use crate::wire::{Ack, Code, Message, Page, Run, RunResult};

/// Time between calls of [`Store::tend`].
const TEND_MS: u64 = 30_000;
/// A node that lacks more than this of a peer takes it from one peer at a time.
const CATCH_UP_ENTRIES: u64 = 2_000;
/// A peer from which nothing came for so long is no longer waited for by a catch-up.
const STALLED_MS: u64 = 10_000;
/// Links beyond [`PUSH_LINKS_MAX`] that may be open to repair what digests found missing.
const REPAIR_LINKS: usize = 2;
/// A page waits at most so long for a backlog of local changes to be captured first.
const BACKLOG_WAIT_MS: u64 = 30_000;
/// Attempts to find the outbox empty, and then as many to find it without the documents to be applied.
const APPLY_ATTEMPTS: usize = 4;

/// What a replica needs to know.
#[derive(Clone, Debug)]
pub struct Config {
    /// Collections to sync.
    pub interests: BTreeSet<Collection>,
    /// A remote entry further ahead of the wall clock than this waits.
    pub max_skew_ms: u64,
    /// Time between digests.
    pub sync_interval_ms: u64,
    /// Largest document captured, in bytes.
    pub payload_bytes_max: usize,
    /// Largest frame taken, in bytes.
    pub frame_bytes_max: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            interests: BTreeSet::new(),
            max_skew_ms: MAX_SKEW_MS,
            sync_interval_ms: SYNC_INTERVAL_MS,
            payload_bytes_max: PAYLOAD_BYTES_DEFAULT,
            frame_bytes_max: FRAME_BYTES_DEFAULT,
        }
    }
}

/// What happens to a replica.
#[derive(Debug)]
pub enum Input {
    /// The application may have changed something.
    LocalChange,
    /// A peer was authenticated over a new link.
    LinkUp(Link),
    /// A link is gone.
    LinkDown {
        /// The link.
        link: LinkId,
        /// Why, for people.
        reason: String,
    },
    /// A frame came.
    Frame {
        /// Over this link.
        link: LinkId,
        /// Its type.
        kind: u64,
        /// Its body.
        body: Bytes,
    },
    /// A target could not be reached.
    DialFailed {
        /// The target, as in [`Output::Dial`].
        target: String,
        /// Why, for people.
        reason: String,
    },
    /// Compare with every peer and dial every target now, without waiting for the interval.
    SyncNow,
    /// Nothing but time has passed.
    Tick,
}

/// What a replica wants done. The order matters.
#[derive(Debug, PartialEq)]
pub enum Output {
    /// Send a frame.
    Send {
        /// Over this link.
        link: LinkId,
        /// Its type.
        kind: u64,
        /// Its body.
        body: Bytes,
        /// Whether it is worth compressing.
        compress: bool,
    },
    /// Dial a target; answer with [`Input::LinkUp`] or [`Input::DialFailed`].
    Dial {
        /// `host:port`.
        target: String,
    },
    /// Close a link. The replica has forgotten it already; no [`Input::LinkDown`] is needed.
    Close {
        /// The link.
        link: LinkId,
        /// Why, for people and for the peer.
        reason: String,
    },
    /// Something worth showing.
    Event(Event),
}

/// The store failed. The replica is of no use any more: drop it and open it again from what is durable.
#[derive(Debug, thiserror::Error)]
#[error("the store failed: {0}")]
pub struct StoreFailed<E>(#[source] pub E);

impl<E> From<E> for StoreFailed<E> {
    fn from(error: E) -> Self {
        Self(error)
    }
}

/// How a replica stands.
#[derive(Clone, Debug)]
pub struct Status {
    /// Who it is.
    pub node: NodeId,
    /// Birth of its oplog.
    pub incarnation: Incarnation,
    /// Value of its clock.
    pub clock: Hlc,
    /// Entries held, over all logs.
    pub entries: u64,
    /// Logs held.
    pub logs: usize,
    /// Linked peers.
    pub peers: Vec<PeerStatus>,
    /// Addresses to dial.
    pub targets: Vec<TargetStatus>,
    /// Changes captured since it was opened.
    pub captured: u64,
    /// Remote entries applied since it was opened.
    pub applied: u64,
    /// Conflicts found since it was opened.
    pub conflicts: u64,
    /// Whether local changes wait to be captured.
    pub backlog: bool,
}

/// The replication state machine of one node. See the module and crate documentation.
pub struct Replica<S: Store> {
    config: Config,
    key: AuthorKey,
    local: Local,
    store: S,
    logs: Logs,
    clock: Clock,
    open_conflicts: OpenConflicts,
    sessions: BTreeMap<LinkId, Session>,
    peers: Peers,
    rng: Rng,
    inbox: VecDeque<Received>,
    capture_due: bool,
    more: bool,
    seen: Now,
    next_tend: Mono,
    captured: u64,
    applied: u64,
    conflicts: u64,
}

/// A page that waits to be taken in.
struct Received {
    link: LinkId,
    page: Page,
    at: Mono,
}

/// One page built in this step, for every peer that lacks the same.
type Built = Vec<(BTreeMap<LogId, Seq>, Vec<Run>)>;

impl<S: Store> Replica<S> {
    /// Opens a replica over a store. `seed` is the source of all its randomness; the same seed and inputs give the same
    /// outputs, except that a new oplog should get a seed that no other node has.
    ///
    /// # Errors
    /// When the store can't be read.
    pub fn open(
        config: Config,
        mut store: S,
        key: AuthorKey,
        seed: u64,
        now: Now,
    ) -> Result<Self, StoreFailed<S::Error>> {
        let durable = store.load()?;
        let mut rng = Rng::with_seed(seed);
        let node = key.node_id();
        let drawn = Incarnation(rng.u64(..));
        let incarnation = match durable.owner {
            Some((owner, incarnation)) if owner == node => incarnation,
            _ => drawn,
        };
        let local = Local {
            node,
            incarnation,
            interests: config.interests.clone(),
            sync_interval_ms: config.sync_interval_ms,
            max_skew_ms: config.max_skew_ms,
            frame_bytes_max: config.frame_bytes_max,
        };
        let mut open_conflicts = OpenConflicts::new();
        for conflict in &durable.open_conflicts {
            open_conflicts.entry(conflict.doc.clone()).or_default().push(conflict.clone());
        }
        Ok(Self {
            clock: Clock::resume(durable.clock, config.max_skew_ms),
            logs: Logs::from_durable(&durable),
            config,
            key,
            local,
            store,
            open_conflicts,
            sessions: BTreeMap::new(),
            peers: Peers::new(rng.fork()),
            rng,
            inbox: VecDeque::new(),
            capture_due: true,
            more: true,
            seen: now,
            next_tend: now.mono.plus(TEND_MS),
            captured: 0,
            applied: 0,
            conflicts: 0,
        })
    }

    /// Adds an address to dial.
    ///
    /// # Errors
    /// When there are too many.
    pub fn add_peer(&mut self, target: &str, now: Now) -> Result<(), TooManyPeers> {
        self.more = true;
        self.peers.add(target, now.mono)
    }

    /// Takes one thing that happened, does a slice of work, and answers what is to be done outside.
    ///
    /// # Errors
    /// When the store failed; the replica must then be dropped.
    pub fn handle(&mut self, now: Now, input: Input) -> Result<Vec<Output>, StoreFailed<S::Error>> {
        self.seen = now;
        let mut out = Vec::new();
        match input {
            Input::LocalChange => self.capture_due = true,
            Input::LinkUp(link) => self.link_up(now, link, &mut out),
            Input::LinkDown { link, reason } => self.forget_link(now, link, &reason, &mut out),
            Input::Frame { link, kind, body } => self.frame(now, link, kind, body, &mut out),
            Input::DialFailed { target, reason } => self.peers.dial_failed(&target, reason, now.mono),
            Input::SyncNow => {
                self.peers.hurry(now.mono);
                self.sessions.values_mut().for_each(|session| session.hurry(now.mono));
                self.capture_due = true;
            }
            Input::Tick => {}
        }
        self.work(now, &mut out)?;
        Ok(out)
    }

    /// When to call [`Replica::handle`] with [`Input::Tick`] if nothing else happens before.
    #[must_use]
    pub fn next_wake(&self) -> Mono {
        if self.more {
            return self.seen.mono;
        }
        let sessions = self.sessions.values().map(Session::next_wake);
        let dial = self.peers.next_due();
        sessions.chain(dial).fold(self.next_tend, Mono::min)
    }

    /// How it stands.
    #[must_use]
    pub fn status(&self) -> Status {
        Status {
            node: self.local.node,
            incarnation: self.local.incarnation,
            clock: self.clock.last(),
            entries: self.logs.vector().iter().map(|(_, head)| head.seq.0).sum(),
            logs: self.logs.vector().len(),
            peers: self.sessions.values().map(|session| session.status(&self.logs)).collect(),
            targets: self.peers.status(),
            captured: self.captured,
            applied: self.applied,
            conflicts: self.conflicts,
            backlog: self.capture_due,
        }
    }

    /// What it holds.
    #[must_use]
    pub fn vector(&self) -> &Vector {
        self.logs.vector()
    }

    /// Whether every linked peer and this node are known to hold the same, nothing waits to be captured, and at least one
    /// peer is linked.
    #[must_use]
    pub fn is_level(&self) -> bool {
        !self.capture_due
            && self.inbox.is_empty()
            && !self.sessions.is_empty()
            && self.sessions.values().all(|session| session.is_level(&self.logs))
    }

    /// The links that it knows.
    pub fn links(&self) -> impl Iterator<Item = LinkId> + '_ {
        self.sessions.keys().copied()
    }

    /// The store, for reading.
    pub fn store(&mut self) -> &mut S {
        &mut self.store
    }

    /// Gives the store back.
    pub fn into_store(self) -> S {
        self.store
    }

    fn work(&mut self, now: Now, out: &mut Vec<Output>) -> Result<(), StoreFailed<S::Error>> {
        let waited =
            self.inbox.front().is_some_and(|received| now.mono.since(received.at) >= BACKLOG_WAIT_MS);
        if self.capture_due && !waited {
            self.capture_unit(now, out)?;
        }
        if (!self.capture_due || waited)
            && let Some(received) = self.inbox.pop_front()
        {
            self.take_page(now, received, out)?;
        }
        if now.mono >= self.next_tend {
            self.next_tend = now.mono.plus(TEND_MS);
            let before = WallMillis(now.wall.0.saturating_sub(CONFLICT_KEEP_MS));
            let problems = self.store.tend(before)?;
            out.extend(problems.into_iter().map(|problem| Output::Event(Event::Problem(problem))));
        }
        self.tick_sessions(now, out);
        self.regulate(now, out);
        self.send_pages(now, out)?;
        out.extend(self.peers.due(now.mono).into_iter().map(|target| Output::Dial { target }));
        self.more |= self.capture_due || !self.inbox.is_empty();
        Ok(())
    }

    /// Captures what one look into the outbox shows.
    fn capture_unit(&mut self, now: Now, out: &mut Vec<Output>) -> Result<(), StoreFailed<S::Error>> {
        let limits = UnitLimits {
            changes: UNIT_CHANGES_MAX,
            bytes: UNIT_BYTES_MAX,
            gap_ms: UNIT_GAP_MS,
            payload_bytes: self.config.payload_bytes_max,
        };
        let drain = self.store.captured(&limits)?;
        self.capture_due = drain.more;
        out.extend(drain.refused.iter().cloned().map(|problem| Output::Event(Event::Problem(problem))));
        if drain.mark.is_none() {
            return Ok(());
        }
        let author = Author { key: &self.key, node: self.local.node, incarnation: self.local.incarnation };
        let commit = plan_local(&mut self.store, &self.logs, &self.clock, &author, now.wall, &drain)?;
        if self.commit(&commit, out)? {
            let changes = commit.rows.len();
            self.captured += changes as u64;
            if changes > 0 {
                out.push(Output::Event(Event::Captured { changes }));
            }
        } else {
            self.capture_due = true;
        }
        Ok(())
    }

    /// Makes a step durable and follows it in memory. `false` if the outbox has moved.
    fn commit(&mut self, commit: &Commit, out: &mut Vec<Output>) -> Result<bool, StoreFailed<S::Error>> {
        let problems = match self.store.commit(commit)? {
            Committed::Done(problems) => problems,
            Committed::OutboxMoved => return Ok(false),
        };
        self.clock.advance(commit.clock);
        self.logs.committed(&commit.appended, &commit.authors);
        for (collection, digest) in &commit.fingerprints {
            self.logs.set_row_digest(collection.clone(), *digest);
        }
        for write in &commit.conflicts {
            self.follow_conflict(write, out);
        }
        out.extend(problems.into_iter().map(|problem| Output::Event(Event::Problem(problem))));
        Ok(true)
    }

    fn follow_conflict(&mut self, write: &ConflictWrite, out: &mut Vec<Output>) {
        let (doc, winner, loser) = match write {
            ConflictWrite::Put(conflict) => (&conflict.doc, conflict.winner.stamp, conflict.loser.stamp),
            ConflictWrite::Remove { doc, winner, loser } => (doc, *winner, *loser),
        };
        if let Some(open) = self.open_conflicts.get_mut(doc) {
            open.retain(|conflict| (conflict.winner.stamp, conflict.loser.stamp) != (winner, loser));
            if open.is_empty() {
                self.open_conflicts.remove(doc);
            }
        }
        let ConflictWrite::Put(conflict) = write else { return };
        if conflict.missing.is_some() {
            self.open_conflicts.entry(doc.clone()).or_default().push(conflict.clone());
        } else {
            self.conflicts += 1;
            out.push(Output::Event(Event::Conflict(conflict.clone())));
        }
    }

    fn link_up(&mut self, now: Now, link: Link, out: &mut Vec<Output>) {
        if link.peer == self.local.node {
            if let Some(target) = &link.target {
                self.peers.is_ourselves(target);
            }
            out.push(Output::Close { link: link.id, reason: "this is the same node".to_owned() });
            return;
        }
        let dialler = |link: &Link| if link.we_dialled { self.local.node } else { link.peer };
        let other = self.sessions.values().find(|session| session.link.peer == link.peer);
        if let Some(other) = other.map(|session| session.link.clone()) {
            // Both sides keep the link that the smaller node dialled; a peer that was started again has only the new one.
            let replaces = other.instance != link.instance || dialler(&link) <= dialler(&other);
            if !replaces {
                if let Some(target) = &link.target {
                    self.peers.covered(target, link.peer);
                }
                let reason = "there is another link between these nodes".to_owned();
                out.push(Output::Close { link: link.id, reason });
                return;
            }
            self.close(now, other.id, "a newer link between these nodes took over", out);
        }
        if self.sessions.len() >= SESSIONS_MAX {
            let reason = format!("the limit SESSIONS_MAX allows {SESSIONS_MAX} links");
            out.push(Output::Close { link: link.id, reason });
            return;
        }
        if let Some(target) = &link.target {
            self.peers.linked(target, link.id, link.peer, now.mono);
        }
        let id = link.id;
        let (session, hello) = Session::open(link, &self.local, now);
        self.sessions.insert(id, session);
        self.carry_out(now, id, vec![hello], out);
    }

    /// Forgets a link and asks the transport to close it.
    fn close(&mut self, now: Now, link: LinkId, reason: &str, out: &mut Vec<Output>) {
        self.forget_link(now, link, reason, out);
        out.push(Output::Close { link, reason: reason.to_owned() });
    }

    fn forget_link(&mut self, now: Now, link: LinkId, reason: &str, out: &mut Vec<Output>) {
        let Some(session) = self.sessions.remove(&link) else { return };
        self.inbox.retain(|received| received.link != link);
        let (node, name) = (session.link.peer, session.link.name);
        let node_is_linked = self.sessions.values().any(|other| other.link.peer == node);
        self.peers.unlinked(link, node, node_is_linked, reason, now.mono);
        out.push(Output::Event(Event::PeerDown { node, name, reason: reason.to_owned() }));
    }

    fn frame(&mut self, now: Now, link: LinkId, kind: u64, body: Bytes, out: &mut Vec<Output>) {
        let Some(session) = self.sessions.get_mut(&link) else { return };
        let message = match Message::decode(kind, body) {
            Ok(Some(message)) => message,
            Ok(None) => return,
            Err(error) => return self.close(now, link, &format!("bad message: {error}"), out),
        };
        match session.handle_message(now, &self.local, &self.logs, message) {
            Ok(effects) => self.carry_out(now, link, effects, out),
            Err(violation) => self.close(now, link, &format!("protocol violation: {violation}"), out),
        }
    }

    fn carry_out(&mut self, now: Now, link: LinkId, effects: Vec<Effect>, out: &mut Vec<Output>) {
        for effect in effects {
            match effect {
                Effect::Send(message) => out.push(send(link, &message)),
                Effect::Take(page) => self.inbox.push_back(Received { link, page, at: now.mono }),
                Effect::Event(event) => out.push(Output::Event(event)),
                Effect::OwnLogAhead(log) => self.start_anew(link, log, out),
            }
        }
    }

    /// Our oplog was rolled back: sequence numbers that we would give out next were given out already.
    fn start_anew(&mut self, link: LinkId, log: LogId, out: &mut Vec<Output>) {
        if log.incarnation != self.local.incarnation {
            return;
        }
        self.local.incarnation = Incarnation(self.rng.u64(..));
        if let Some(session) = self.sessions.get(&link) {
            out.push(Output::Event(Event::RolledBack { node: session.link.peer, log }));
        }
    }

    fn tick_sessions(&mut self, now: Now, out: &mut Vec<Output>) {
        let mut ended = Vec::new();
        for (link, session) in &mut self.sessions {
            if session.next_wake() > now.mono {
                continue;
            }
            match session.tick(now, &self.local, &self.logs) {
                Ok(effects) => {
                    for effect in effects {
                        if let Effect::Send(message) = effect {
                            out.push(send(*link, &message));
                        }
                    }
                }
                Err(violation) => ended.push((*link, violation.to_string())),
            }
        }
        for (link, reason) in ended {
            self.close(now, link, &reason, out);
        }
    }

    /// Decides from whom to take pages: from a few peers at a time, and a long catch-up from one at a time, so that
    /// the same history does not come in several times.
    fn regulate(&mut self, now: Now, out: &mut Vec<Output>) {
        let mut granted = 0;
        let mut catching_up = false;
        for session in self.sessions.values().filter(|session| session.granted().is_some()) {
            granted += 1;
            let flowing = now.mono.since(session.last_sign_of_flow()) < STALLED_MS;
            catching_up |= flowing && session.behind(&self.logs).0 > CATCH_UP_ENTRIES;
        }
        for (link, session) in &mut self.sessions {
            if !session.is_ready() {
                continue;
            }
            let behind = session.behind(&self.logs).0;
            match session.granted() {
                None => {
                    let room = if behind > 0 { PUSH_LINKS_MAX + REPAIR_LINKS } else { PUSH_LINKS_MAX };
                    if granted >= room || (behind > CATCH_UP_ENTRIES && catching_up) {
                        continue;
                    }
                    granted += 1;
                    catching_up |= behind > CATCH_UP_ENTRIES;
                    if let Effect::Send(message) = session.grant(true, now.mono) {
                        out.push(send(*link, &message));
                    }
                }
                Some(since) => {
                    let rested = now.mono.since(since) >= 2 * self.config.sync_interval_ms;
                    if granted > PUSH_LINKS_MAX && behind == 0 && rested {
                        granted -= 1;
                        if let Effect::Send(message) = session.grant(false, now.mono) {
                            out.push(send(*link, &message));
                        }
                    }
                }
            }
        }
    }

    /// Sends one page to every peer that lacks something and may get it.
    fn send_pages(&mut self, now: Now, out: &mut Vec<Output>) -> Result<(), StoreFailed<S::Error>> {
        self.more = false;
        let mut built = Built::new();
        for (link, session) in &mut self.sessions {
            let positions = session.to_send(&self.logs, now.mono);
            if positions.is_empty() {
                continue;
            }
            let runs = match built.iter().find(|(known, _)| *known == positions) {
                Some((_, runs)) => runs.clone(),
                None => {
                    let runs = build_page(&mut self.store, &self.logs, &positions)?;
                    built.push((positions.clone(), runs.clone()));
                    runs
                }
            };
            let logs: Vec<LogId> = runs.iter().map(|run| run.log.clone()).collect();
            if runs.is_empty() {
                session.hold(positions.into_keys(), now.mono);
                continue;
            }
            let page = send(*link, &session.page_out(runs, now.mono));
            if let Output::Send { body, .. } = &page
                && body.len() + FRAME_OVERHEAD > session.link.frame_bytes_max
            {
                let detail = format!(
                    "a unit of {} bytes does not fit the peer's frames of {} bytes (frame_bytes_max)",
                    body.len(),
                    session.link.frame_bytes_max
                );
                session.page_unsent();
                for log in logs {
                    let (node, log, detail) = (session.link.peer, log.clone(), detail.clone());
                    session.hold([log.clone()], now.mono);
                    out.push(Output::Event(Event::RefusedByPeer { node, log, detail }));
                }
                continue;
            }
            out.push(page);
            self.more |= !session.to_send(&self.logs, now.mono).is_empty();
        }
        Ok(())
    }

    /// Checks, joins and stores the entries of a page, all that can be taken in one commit, and answers the peer.
    fn take_page(
        &mut self,
        now: Now,
        received: Received,
        out: &mut Vec<Output>,
    ) -> Result<(), StoreFailed<S::Error>> {
        let Some(session) = self.sessions.get(&received.link) else { return Ok(()) };
        let (from, link, page_id) = (session.link.peer, received.link, received.page.id);
        let ends: Vec<(LogId, Seq)> =
            received.page.runs.iter().map(|run| (run.log.clone(), run.signed.head.seq)).collect();
        let mut verdicts = self.check_page(now, received.page);
        let taken: Vec<(Appended, PublicKey)> = verdicts.taken.split_off(0);
        let entries: usize = taken.iter().map(|(run, _)| run.entries.len()).sum();
        let first = if now.mono.since(received.at) >= BACKLOG_WAIT_MS { APPLY_ATTEMPTS } else { 0 };
        let busy = entries > 0 && !self.apply(now, from, &taken, first, out)?;
        for (log, code, detail) in &verdicts.refused {
            let (node, log, detail) = (from, log.clone(), detail.clone());
            match code {
                Code::Bad => out.push(Output::Event(Event::Refused { node, log, detail })),
                Code::ClockSkew => {
                    out.push(Output::Event(Event::ClockSkew { node, log: Some(log), detail }));
                }
                _ => {}
            }
        }
        let results = ends.iter().map(|(log, _)| {
            let seq = self.logs.vector().head(log).seq;
            let refused = verdicts.refused.iter().find(|(refused, ..)| refused == log);
            match refused {
                Some((_, code, detail)) => RunResult { code: *code, seq, detail: detail.clone() },
                None if busy => {
                    RunResult { code: Code::Busy, seq, detail: "the application writes without pause".into() }
                }
                None => RunResult { code: Code::Taken, seq, detail: String::new() },
            }
        });
        let ack = Ack { page: page_id, results: results.collect() };
        if let Some(session) = self.sessions.get_mut(&link) {
            let effects = session.page_taken(&self.logs, ends, ack, entries);
            self.carry_out(now, link, effects, out);
        }
        Ok(())
    }

    /// Sorts the runs of a page into those to take and those to refuse.
    fn check_page(&self, now: Now, page: Page) -> Verdicts {
        let mut verdicts = Verdicts::default();
        let mut waits: BTreeMap<(NodeId, Incarnation), (Code, String)> = BTreeMap::new();
        let mut seen = BTreeSet::new();
        for run in page.runs {
            let (log, key) = (run.log.clone(), run.public_key);
            if !seen.insert(log.clone()) {
                verdicts.refused.push((log, Code::Bad, "the log came twice in one page".to_owned()));
                continue;
            }
            match check_run(&self.logs, &self.clock, now.wall, run) {
                Ok(Some(appended)) => verdicts.taken.push((appended, key)),
                Ok(None) => {}
                Err(error) => {
                    let code = match error {
                        RunError::ClockSkew(_) => Code::ClockSkew,
                        RunError::Gap { .. } => Code::Gap,
                        _ => Code::Bad,
                    };
                    if code != Code::Bad {
                        waits.insert((log.author, log.incarnation), (code, error.to_string()));
                    }
                    verdicts.refused.push((log.clone(), code, format!("{log}: {error}")));
                }
            }
        }
        // A unit may lie in several logs of its author: if one of them has to wait, all do.
        let (taken, waiting): (Vec<_>, Vec<_>) = verdicts
            .taken
            .into_iter()
            .partition(|(run, _)| !waits.contains_key(&(run.log.author, run.log.incarnation)));
        verdicts.taken = taken;
        for (run, _) in waiting {
            let (code, detail) = waits[&(run.log.author, run.log.incarnation)].clone();
            verdicts.refused.push((run.log, code, detail));
        }
        verdicts
    }

    /// Commits checked entries, capturing local changes first. `false` if the application left no gap to do so.
    fn apply(
        &mut self,
        now: Now,
        from: NodeId,
        taken: &[(Appended, PublicKey)],
        first_attempt: usize,
        out: &mut Vec<Output>,
    ) -> Result<bool, StoreFailed<S::Error>> {
        for attempt in first_attempt..2 * APPLY_ATTEMPTS {
            let guard = if attempt < APPLY_ATTEMPTS { Guard::OutboxEmpty } else { Guard::OutboxDisjoint };
            let author =
                Author { key: &self.key, node: self.local.node, incarnation: self.local.incarnation };
            let commit = plan_remote(
                &mut self.store,
                &self.logs,
                &self.clock,
                &author,
                now.wall,
                &self.open_conflicts,
                taken,
                guard,
            )?;
            if self.commit(&commit, out)? {
                let entries = taken.iter().map(|(run, _)| run.entries.len()).sum();
                self.applied += entries as u64;
                let documents = commit.rows.len();
                out.push(Output::Event(Event::Applied { from, entries, documents }));
                return Ok(true);
            }
            self.capture_unit(now, out)?;
        }
        Ok(false)
    }
}

/// Runs of a page, checked.
#[derive(Default)]
struct Verdicts {
    taken: Vec<(Appended, PublicKey)>,
    refused: Vec<(LogId, Code, String)>,
}

/// Bytes that a transport adds to a body at most.
const FRAME_OVERHEAD: usize = 64;

fn send(link: LinkId, message: &Message) -> Output {
    let (kind, body) = message.encode();
    Output::Send { link, kind, body, compress: message.has_documents() }
}
