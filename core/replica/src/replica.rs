//! The replica: the one place that knows sessions, peers, logs and the store together.
//!
//! It is driven by [`Replica::handle`] and by nothing else. Work is done in slices: one call captures at most one unit,
//! takes in at most one page, and sends at most one page to each peer; what is left over makes [`Replica::next_wake`]
//! answer "now". So no call holds the store for long, and nothing waits behind something large.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bytes::Bytes;
use fastrand::Rng;

use crate::blocked::Ends;
use crate::clock::{Mono, Now, Stamp};
use crate::contract::{Config, Input, Mark, Output, Status, StoreFailed};
use crate::copies::Copies;
use crate::entry::{AuthorKey, SignedHead};
use crate::event::Event;
use crate::flow::regulate;
use crate::id::{Collection, LinkId, LogId, NodeId};
use crate::ledger::Ledger;
use crate::limits::{FRAME_BYTES_LEAST, SEQ_MAX};
use crate::member::{Member, members};
use crate::peers::{Peers, TooManyPeers};
use crate::retain::tend_ms;
use crate::sending::{Built, can_be_passed_on, fit_ack, send, send_page};
use crate::session::{Effect, Local, Session};
use crate::snapshot::Asked;
use crate::store::Store;
use crate::taking::Taking;
use crate::version::{Head, Vector};
use crate::wire::{Message, OwnHead, Page, VectorPart};

/// A page waits at most so long for a backlog of local changes to be captured first.
pub(crate) const BACKLOG_WAIT_MS: u64 = 30_000;

/// The replication state machine of one node. See the module and crate documentation.
pub struct Replica<S: Store> {
    pub(crate) ledger: Ledger<S>,
    pub(crate) local: Local,
    pub(crate) sessions: BTreeMap<LinkId, Session>,
    pub(crate) peers: Peers,
    pub(crate) copies: Copies,
    pub(crate) ends: Ends,
    pub(crate) inbox: VecDeque<Received>,
    pub(crate) giving: VecDeque<Asked>,
    /// When a piece of a snapshot was given last.
    pub(crate) given: Mono,
    pub(crate) taking: Taking,
    /// Whether nothing waits to be handled but time.
    pub(crate) is_quiet: bool,
    more: bool,
    seen: Now,
    next_tend: Mono,
    tend_ms: u64,
}

/// A page that waits to be taken in.
pub(crate) struct Received {
    pub(crate) link: LinkId,
    page: Page,
    at: Mono,
}

impl<S: Store> Replica<S> {
    /// Opens a replica over a store. `seed` is the source of all its randomness; the same seed and inputs give the same
    /// outputs, except that a new oplog should get a seed that no other node has.
    ///
    /// # Errors
    /// When the store can't be read.
    pub fn open(
        mut config: Config,
        store: S,
        key: AuthorKey,
        seed: u64,
        now: Now,
    ) -> Result<Self, StoreFailed<S::Error>> {
        let mut rng = Rng::with_seed(seed);
        config.limits = config.limits.clamped();
        config.frame_bytes_max = config.frame_bytes_max.max(FRAME_BYTES_LEAST);
        let ledger = Ledger::open(store, key, rng.fork(), &config)?;
        let local = Local {
            node: ledger.node,
            incarnation: ledger.incarnation,
            interests: config.interests.clone(),
            sync_interval_ms: config.sync_interval_ms,
            max_skew_ms: config.max_skew_ms,
            frame_bytes_max: config.frame_bytes_max,
            limits: config.limits,
            is_ahead_of_vector: !ledger.debt.is_empty(),
        };
        Ok(Self {
            ledger,
            local,
            sessions: BTreeMap::new(),
            peers: Peers::new(rng.fork()),
            copies: Copies::default(),
            ends: Ends::default(),
            inbox: VecDeque::new(),
            giving: VecDeque::new(),
            given: now.mono,
            taking: Taking::default(),
            is_quiet: false,
            more: true,
            seen: now,
            next_tend: now.mono.plus(tend_ms(config.retention_ms)),
            tend_ms: tend_ms(config.retention_ms),
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
        self.is_quiet = matches!(input, Input::Tick);
        let mut out = Vec::new();
        out.extend(self.ledger.anew.take().map(|anew| Output::Event(Event::StartedAnew(anew))));
        out.extend(std::mem::take(&mut self.ledger.dropped).into_iter().map(|log| {
            let detail = format!("{log}: its head was beyond SEQ_MAX ({SEQ_MAX}); the log was dropped");
            Output::Event(Event::Refused { node: log.author, log, detail })
        }));
        match input {
            Input::LocalChange => self.ledger.backlog = true,
            Input::LinkUp(link) => self.link_up(now, link, &mut out)?,
            Input::LinkDown { link, reason, is_fault } => {
                self.forget_link(now, link, (&reason, is_fault), &mut out);
            }
            Input::Frame { link, kind, body } => self.frame(now, link, kind, body, &mut out)?,
            Input::DialFailed { target, reason } => self.peers.dial_failed(&target, reason, now.mono),
            Input::SyncNow => {
                self.peers.hurry(now.mono);
                self.sessions.values_mut().for_each(|session| session.hurry(now.mono));
                self.ledger.backlog = true;
            }
            Input::Interests(interests) => self.change_interests(now, interests, &mut out)?,
            Input::RemoveMember(node) => {
                let mut events = Vec::new();
                self.ledger.remove_member(now, node, &mut events)?;
                out.extend(events.into_iter().map(Output::Event));
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
        let asked = self.giving.front().map(|asked| asked.again);
        sessions.chain(dial).chain(asked).fold(self.next_tend, Mono::min)
    }

    /// How it stands.
    #[must_use]
    pub fn status(&self) -> Status {
        Status {
            node: self.local.node,
            incarnation: self.local.incarnation,
            clock: self.ledger.clock.last(),
            entries: self.counted_logs().map(|(_, head)| head.seq.0).sum(),
            logs: self.counted_logs().count(),
            blocked: self.blocked().cloned().collect(),
            peers: self.sessions.values().map(|session| session.status(&self.ledger.logs)).collect(),
            targets: self.peers.status(),
            captured: self.ledger.captured,
            applied: self.ledger.applied,
            conflicts: self.ledger.conflicts,
            work: self.ledger.work,
            backlog: self.ledger.backlog,
            forgotten: self.ledger.forgotten,
            snapshot: self.ledger.snapshot.as_ref().map(|taken| (taken.collection.clone(), taken.rows)),
        }
    }

    /// The logs of collections that are the applications'.
    fn counted_logs(&self) -> impl Iterator<Item = (&LogId, &Head)> {
        self.ledger.logs.vector().iter().filter(|(log, _)| log.collection != *members())
    }

    /// The members that it knows of, with the times of what they said of themselves.
    pub fn members(&self) -> impl Iterator<Item = (&NodeId, &Stamp, &Member)> {
        self.ledger.members.iter()
    }

    /// How far this node's own oplog has come. Whoever keeps it outside of the store, and gives it back at the next start
    /// ([`Config::mark`]), lets the replica see that its store was put back to an older state.
    #[must_use]
    pub fn mark(&self) -> Mark {
        self.ledger.mark()
    }

    /// What it holds.
    #[must_use]
    pub fn vector(&self) -> &Vector {
        self.ledger.logs.vector()
    }

    /// Whether every linked peer and this node are known to hold the same, nothing waits to be captured, and at least one
    /// peer is linked.
    #[must_use]
    pub fn is_level(&self) -> bool {
        !self.ledger.backlog
            && self.taking.link.is_none()
            && self.inbox.is_empty()
            && !self.sessions.is_empty()
            && self.sessions.values().all(|session| session.is_level(&self.ledger.logs))
    }

    /// Whether local changes are still to be captured, as far as is known.
    #[must_use]
    pub fn is_capturing(&self) -> bool {
        self.ledger.backlog
    }

    /// The links that it knows.
    pub fn links(&self) -> impl Iterator<Item = LinkId> + '_ {
        self.sessions.keys().copied()
    }

    /// The store, for reading.
    pub fn store(&mut self) -> &mut S {
        &mut self.ledger.store
    }

    /// Gives the store back.
    pub fn into_store(self) -> S {
        self.ledger.store
    }

    fn work(&mut self, now: Now, out: &mut Vec<Output>) -> Result<(), StoreFailed<S::Error>> {
        let waited =
            self.inbox.front().is_some_and(|received| now.mono.since(received.at) >= BACKLOG_WAIT_MS);
        if self.ledger.backlog && !waited {
            let mut events = Vec::new();
            self.ledger.capture(now, &mut events)?;
            out.extend(events.into_iter().map(Output::Event));
        }
        if (!self.ledger.backlog || waited)
            && let Some(received) = self.inbox.pop_front()
        {
            self.take_page(now, received, out)?;
        }
        if now.mono >= self.next_tend {
            self.next_tend = now.mono.plus(self.tend_ms);
            let mut events = Vec::new();
            self.ledger.tend(now, &mut events)?;
            out.extend(events.into_iter().map(Output::Event));
        }
        self.tick_sessions(now, out);
        self.join_chunk(now, out)?;
        self.ask_for_snapshot(now, out);
        self.give_chunk(now, out)?;
        let mut events = Vec::new();
        self.ledger.give_up_debt(now, self.taking.link.is_some(), &mut events)?;
        out.extend(events.into_iter().map(Output::Event));
        self.local.is_ahead_of_vector = !self.ledger.debt.is_empty();
        let rest_ms = 2 * self.local.sync_interval_ms;
        let limits = &self.local.limits;
        let snapshot = self.taking.flowing(now.mono);
        let flows = regulate(&mut self.sessions, &self.ledger.logs, limits, (rest_ms, snapshot), now.mono);
        out.extend(flows.iter().map(|(link, message)| send(*link, message)));
        self.send_pages(now, out)?;
        out.extend(self.peers.due(now.mono).into_iter().map(|target| Output::Dial { target }));
        self.more |= self.ledger.backlog || !self.inbox.is_empty();
        self.more |= self.taking.has_chunk();
        self.more |= self.giving.front().is_some_and(|asked| asked.again <= now.mono);
        Ok(())
    }

    fn frame(
        &mut self,
        now: Now,
        link: LinkId,
        kind: u64,
        body: Bytes,
        out: &mut Vec<Output>,
    ) -> Result<(), StoreFailed<S::Error>> {
        let Some(session) = self.sessions.get_mut(&link) else { return Ok(()) };
        let bytes = body.len();
        let message = match Message::decode(kind, body) {
            Ok(Some(message)) => message,
            Ok(None) => return Ok(()),
            Err(error) => {
                self.close_for_fault(now, link, &format!("bad message: {error}"), out);
                return Ok(());
            }
        };
        let max = self.local.frame_bytes_max;
        if let Message::Page(page) = &message
            && !can_be_passed_on(bytes, page.id, max)
        {
            let reason =
                format!("a page of {bytes} bytes leaves no room in frame_bytes_max ({max}) to be passed on");
            self.close_for_fault(now, link, &reason, out);
            return Ok(());
        }
        match session.handle_message(now, &self.local, &self.ledger.logs, message) {
            Ok(effects) => self.carry_out(now, link, effects, out)?,
            Err(violation) => {
                self.close_for_fault(now, link, &format!("protocol violation: {violation}"), out);
            }
        }
        Ok(())
    }

    pub(crate) fn carry_out(
        &mut self,
        now: Now,
        link: LinkId,
        effects: Vec<Effect>,
        out: &mut Vec<Output>,
    ) -> Result<(), StoreFailed<S::Error>> {
        for effect in effects {
            match effect {
                Effect::Send(message) => out.push(send(link, &message)),
                Effect::Take(page) => self.inbox.push_back(Received { link, page, at: now.mono }),
                Effect::Event(event) => out.push(Output::Event(event)),
                Effect::SendVector(part) => self.send_vector(link, part, out)?,
                Effect::OwnHead(log, signed) => self.weigh_own_head(link, log, &signed, out)?,
                Effect::Pull(pull) => {
                    self.giving.push_back(Asked { link, pull, at: now.mono, again: now.mono });
                }
                Effect::Chunk(chunk) if self.taking.link == Some(link) => {
                    self.taking.came(chunk, now.mono);
                    self.pull(now, out);
                }
                // An answer that came too late.
                Effect::Chunk(_) => {}
                Effect::Introduce => {
                    let mut events = Vec::new();
                    self.ledger.introduce(now, &mut events)?;
                    out.extend(events.into_iter().map(Output::Event));
                }
            }
        }
        Ok(())
    }

    /// Adds to a part of a vector what proves the peer's own heads to it, and sends it.
    fn send_vector(
        &mut self,
        link: LinkId,
        mut part: VectorPart,
        out: &mut Vec<Output>,
    ) -> Result<(), StoreFailed<S::Error>> {
        let Some(session) = self.sessions.get(&link) else { return Ok(()) };
        for (log, head) in part.heads.iter().filter(|(log, _)| session.is_peers_own(log)) {
            let signed = self.ledger.store.signed_until(log, head.seq)?;
            if let Some(signed) = signed.filter(|signed| signed.head == *head) {
                let (incarnation, collection) = (log.incarnation, log.collection.clone());
                part.own.push(OwnHead { incarnation, collection, signed });
            }
        }
        out.push(send(link, &Message::Vector(part)));
        Ok(())
    }

    /// A peer shows a head of one of our own logs. Only our own signature makes us believe that we have lost something.
    fn weigh_own_head(
        &mut self,
        link: LinkId,
        log: LogId,
        signed: &SignedHead,
        out: &mut Vec<Output>,
    ) -> Result<(), StoreFailed<S::Error>> {
        let Some(node) = self.sessions.get(&link).map(|session| session.link.peer) else { return Ok(()) };
        match self.ledger.is_forgotten(&log, signed)? {
            Ok(true) => {
                self.ledger.start_anew();
                self.rolled_back(link, log, out);
            }
            Ok(false) => {}
            Err(reason) => {
                let detail = format!("{log}: a head of this node's own log proves nothing: {reason}");
                out.push(Output::Event(Event::Refused { node, log, detail }));
            }
        }
        Ok(())
    }

    /// Our oplog was rolled back: positions that we would give out next were given out already.
    fn rolled_back(&mut self, link: LinkId, log: LogId, out: &mut Vec<Output>) {
        self.local.incarnation = self.ledger.incarnation;
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
            match session.tick(now, &self.local, &self.ledger.logs) {
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
            self.close_for_fault(now, link, &reason, out);
        }
    }

    /// Syncs other collections from now on. Links are made anew: what two nodes share is settled when they meet.
    fn change_interests(
        &mut self,
        now: Now,
        interests: BTreeSet<Collection>,
        out: &mut Vec<Output>,
    ) -> Result<(), StoreFailed<S::Error>> {
        if interests == self.local.interests {
            return Ok(());
        }
        self.local.interests.clone_from(&interests);
        self.ledger.keeper.interests = interests;
        let links: Vec<LinkId> = self.sessions.keys().copied().collect();
        for link in links {
            self.close(now, link, "this node syncs other collections from now on", out);
        }
        self.peers.hurry(now.mono);
        let mut events = Vec::new();
        self.ledger.introduce(now, &mut events)?;
        out.extend(events.into_iter().map(Output::Event));
        Ok(())
    }

    /// Sends one page to every peer that lacks something and may get it.
    fn send_pages(&mut self, now: Now, out: &mut Vec<Output>) -> Result<(), StoreFailed<S::Error>> {
        self.more = false;
        let mut built = Built::new();
        for session in self.sessions.values_mut() {
            self.more |= send_page(session, &mut self.ledger, &self.local, now, &mut built, out)?;
        }
        Ok(())
    }

    /// Takes in a page and answers the peer.
    fn take_page(
        &mut self,
        now: Now,
        received: Received,
        out: &mut Vec<Output>,
    ) -> Result<(), StoreFailed<S::Error>> {
        let Received { link, page, at } = received;
        let Some(from) = self.sessions.get(&link).map(|session| session.link.peer) else { return Ok(()) };
        let impatient = now.mono.since(at) >= BACKLOG_WAIT_MS;
        let mut events = Vec::new();
        let taken = self.ledger.take(now, from, page, impatient, &mut events)?;
        out.extend(events.into_iter().map(Output::Event));
        if let Some(log) = taken.rolled_back.clone() {
            self.rolled_back(link, log, out);
        }
        let Some(session) = self.sessions.get_mut(&link) else { return Ok(()) };
        let mut taken = taken;
        fit_ack(&mut taken.ack, session.link.frame_bytes_max);
        let effects = session.page_taken(now.mono, &self.ledger.logs, taken);
        self.carry_out(now, link, effects, out)
    }
}
