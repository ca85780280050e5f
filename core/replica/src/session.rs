//! The conversation of two nodes over one link.
//!
//! 1. Each side says [`Hello`]: what it syncs. Only collections that both name travel.
//! 2. Each sends its vector of them. Now each knows what the other lacks.
//! 3. Each opens the other's flow ([`Message::Flow`]) when it wants pages. Then whoever holds more sends pages, a few on
//!    their way at a time; each page is acknowledged once it is durable. A local change is a page of one unit: live push
//!    and catch-up are the same thing.
//! 4. Every few seconds each sends a digest of its vector. Equal digests mean that nothing is missing; unequal ones, with
//!    nothing on its way, that knowledge of the other is wrong: then the vector is sent again. That repairs everything.
//!
//! A session touches no store and no other session. It gets a view of the logs and returns [`Effect`]s.

use std::collections::{BTreeMap, BTreeSet};

use crate::blocked::Place;
use crate::clock::{Mono, Now, WallMillis};
use crate::contract::{Link, PeerStatus};
use crate::entry::SignedHead;
use crate::event::Event;
use crate::giver::Giver;
use crate::id::{Collection, Incarnation, LogId, NodeId, differ_in_capitals};
use crate::ledger::Taken;
use crate::limits::{ACK_MS, DROP_AFTER_MS, LOGS_MAX, Limits, PAGES_IN_FLIGHT_MAX};
use crate::member::members;
use crate::oplog::Logs;
use crate::outgoing::Outgoing;
use crate::vectors::{VectorRoom, vector_parts};
use crate::version::{Head, Seq};
use crate::violation::Violation;
use crate::wire::{Ack, Chunk, Code, Digest, Hello, Message, Page, Pull, VERSION, VectorPart};

/// What this node says of itself.
#[derive(Clone, Debug)]
pub(crate) struct Local {
    pub(crate) node: NodeId,
    pub(crate) incarnation: Incarnation,
    pub(crate) interests: BTreeSet<Collection>,
    pub(crate) sync_interval_ms: u64,
    pub(crate) max_skew_ms: u64,
    pub(crate) frame_bytes_max: usize,
    pub(crate) limits: Limits,
    /// Whether rows of snapshots are here that the vector does not stand for yet.
    pub(crate) is_ahead_of_vector: bool,
}

/// What a session wants done.
#[derive(Debug)]
pub(crate) enum Effect {
    Send(Message),
    /// Check these entries, store them and report to [`Session::page_taken`].
    Take(Page),
    Event(Event),
    /// Send a part of our vector, with our peer's signatures over the heads of its own logs in it.
    SendVector(VectorPart),
    /// The peer shows a head of one of our own logs that is said to be signed by us.
    OwnHead(LogId, SignedHead),
    /// The peer asks for a piece of a snapshot.
    Pull(Pull),
    /// A piece of a snapshot came.
    Chunk(Chunk),
    /// The peer must hear what we sync: it may have it under another name.
    Introduce,
}

/// Entries that a flow has to bring in a while, to be worth waiting for; each counts as this many bytes and its payload.
const GAIN_OF_ENTRY: usize = 100;
/// Bytes that are a sign of flow.
const GAIN_LEAST: usize = 10_000;
/// State of one conversation.
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) link: Link,
    pub(crate) shared: BTreeSet<Collection>,
    hello_seen: bool,
    opened: Mono,
    pub(crate) outgoing: Outgoing,
    arriving: VectorPart,
    pub(crate) giver: Giver,
    pub(crate) vector_seen: bool,
    may_send: bool,
    granted: Option<Mono>,
    closed: Option<Mono>,
    pages_seen: u64,
    pages_taken: u64,
    last_gain: Mono,
    gain: usize,
    peer_incarnation: Incarnation,
    next_digest: Mono,
    vector_sent: Option<Mono>,
    in_sync: Option<WallMillis>,
    caught_up: bool,
    /// Whether anything was taken over this link, by either side, or both were found to hold the same.
    pub(crate) is_fruitful: bool,
    pub(crate) skew_ms: i64,
    skew_told: bool,
}

impl Session {
    /// Starts the conversation: the first message is in the effects.
    pub(crate) fn open(link: Link, local: &Local, now: Now) -> (Self, Effect) {
        let hello = Hello {
            version: VERSION,
            incarnation: local.incarnation,
            interests: local.interests.iter().cloned().collect(),
            wall: now.wall,
            frame_bytes_max: local.frame_bytes_max as u64,
        };
        let session = Self {
            link,
            shared: BTreeSet::new(),
            hello_seen: false,
            opened: now.mono,
            outgoing: Outgoing::default(),
            arriving: VectorPart::default(),
            giver: Giver::default(),
            vector_seen: false,
            may_send: false,
            granted: None,
            closed: None,
            pages_seen: 0,
            pages_taken: 0,
            last_gain: now.mono,
            gain: 0,
            peer_incarnation: Incarnation(0),
            next_digest: now.mono.plus(local.sync_interval_ms),
            vector_sent: None,
            in_sync: None,
            caught_up: false,
            is_fruitful: false,
            skew_ms: 0,
            skew_told: false,
        };
        (session, Effect::Send(Message::Hello(hello)))
    }

    pub(crate) fn handle_message(
        &mut self,
        now: Now,
        local: &Local,
        logs: &Logs,
        message: Message,
    ) -> Result<Vec<Effect>, Violation> {
        if !self.hello_seen && !matches!(message, Message::Hello(_)) {
            return Err(Violation::NoHello);
        }
        match message {
            Message::Hello(hello) => self.handle_hello(now, local, logs, &hello),
            Message::Vector(part) => Ok(self.handle_vector(local, logs, part)),
            Message::Digest(digest) => Ok(self.handle_digest(now, local, logs, &digest)),
            Message::Flow { open } => {
                self.may_send = open;
                Ok(Vec::new())
            }
            Message::Page(page) => self.handle_page(page).map(|take| vec![take]),
            Message::Ack(ack) => self.handle_ack(now, ack),
            Message::Pull(pull) => self.handle_pull(pull),
            Message::Chunk(chunk) => self.handle_chunk(chunk),
        }
    }

    fn handle_hello(
        &mut self,
        now: Now,
        local: &Local,
        logs: &Logs,
        hello: &Hello,
    ) -> Result<Vec<Effect>, Violation> {
        if self.hello_seen {
            return Err(Violation::SecondHello);
        }
        self.hello_seen = true;
        self.peer_incarnation = hello.incarnation;
        let shared = hello.interests.iter().filter(|name| local.interests.contains(*name));
        self.shared = shared.cloned().collect();
        let mut effects = vec![Effect::Event(Event::PeerUp {
            node: self.link.peer,
            name: self.link.name.clone(),
            shared: self.shared.iter().cloned().collect(),
        })];
        self.shared.insert(members().clone());
        effects.extend(self.note_clock(now, local, hello.wall));
        effects.extend(self.send_vector(now, local, logs));
        let introduce = differ_in_capitals(&local.interests, &hello.interests);
        effects.extend(introduce.then_some(Effect::Introduce));
        Ok(effects)
    }

    fn note_clock(&mut self, now: Now, local: &Local, theirs: WallMillis) -> Option<Effect> {
        self.skew_ms = theirs.0.cast_signed().wrapping_sub(now.wall.0.cast_signed());
        let over = self.skew_ms.unsigned_abs() > local.max_skew_ms;
        let tell = over && !self.skew_told;
        self.skew_told = over;
        tell.then(|| {
            Effect::Event(Event::ClockSkew {
                node: self.link.peer,
                log: None,
                detail: format!(
                    "the peer's clock differs from this node's by {} ms; entries more than {} ms ahead wait",
                    self.skew_ms, local.max_skew_ms
                ),
            })
        })
    }

    pub(crate) fn send_vector(&mut self, now: Now, local: &Local, logs: &Logs) -> Vec<Effect> {
        self.vector_sent = Some(now.mono);
        let room = VectorRoom { logs: local.limits.vector_logs, bytes: self.link.frame_bytes_max };
        let parts =
            vector_parts(logs, &self.shared, local.is_ahead_of_vector, room, |log| self.is_peers_own(log));
        parts.into_iter().map(Effect::SendVector).collect()
    }

    /// Whether it is a log that the peer goes on writing, as far as we know.
    pub(crate) fn is_peers_own(&self, log: &LogId) -> bool {
        log.author == self.link.peer && log.incarnation == self.peer_incarnation
    }

    fn handle_vector(&mut self, local: &Local, logs: &Logs, part: VectorPart) -> Vec<Effect> {
        // What is beyond the limit is passed over, and all else flows.
        let room = LOGS_MAX.saturating_sub(self.arriving.heads.len());
        self.arriving.heads.extend(part.heads.into_iter().take(room));
        let room = LOGS_MAX.saturating_sub(self.arriving.floors.len());
        self.arriving.floors.extend(part.floors.into_iter().take(room));
        let current = part.own.into_iter().filter(|own| own.incarnation == local.incarnation);
        let mut effects: Vec<Effect> = current
            .map(|own| {
                let (incarnation, collection) = (own.incarnation, own.collection);
                let log = LogId { author: local.node, incarnation, collection };
                Effect::OwnHead(log, own.signed)
            })
            .collect();
        if !part.last {
            return effects;
        }
        let VectorPart { heads, floors, .. } = std::mem::take(&mut self.arriving);
        self.giver.learn(floors, part.rows);
        if local.is_ahead_of_vector {
            self.giver.set_equal();
        } else {
            self.giver.compare(logs, &self.shared, &heads, |log| self.outgoing.is_held(log));
        }
        for (log, head) in &heads {
            let ours = logs.vector().head(log);
            if head.seq == ours.seq && head.hash != ours.hash {
                let (node, log) = (self.link.peer, log.clone());
                effects.push(Effect::Event(Event::Forked { node, log, seq: head.seq }));
            }
        }
        let shared = |(log, _): &(LogId, Head)| self.shared.contains(&log.collection);
        self.outgoing.learn_all(heads.into_iter().filter(shared));
        self.vector_seen = true;
        effects.extend(self.note_progress(logs));
        effects
    }

    fn handle_digest(&mut self, now: Now, local: &Local, logs: &Logs, digest: &Digest) -> Vec<Effect> {
        let mut effects: Vec<Effect> = self.note_clock(now, local, digest.wall).into_iter().collect();
        let (vector, rows) = logs.digests(&self.shared);
        if vector == digest.vector {
            self.in_sync = Some(now.wall);
            self.is_fruitful = true;
            if !self.is_level(logs) && self.outgoing.is_idle() {
                let ours = logs.vector().iter().filter(|(log, _)| self.shared.contains(&log.collection));
                self.outgoing.learn_all(ours.map(|(log, head)| (log.clone(), *head)));
            }
            let differ = !local.is_ahead_of_vector && digest.rows.is_some_and(|theirs| theirs != rows);
            if !differ {
                self.giver.set_equal();
                return effects;
            }
            if self.giver.has_given_enough() {
                effects.push(Effect::Event(Event::Diverged { node: self.link.peer }));
            }
        }
        // Where only rows differ, what is said of them with the vector tells in which collections.
        let quiet = self.outgoing.is_idle() && self.pages_seen == self.pages_taken;
        let rested = self.vector_sent.is_none_or(|sent| now.mono.since(sent) >= local.sync_interval_ms);
        if quiet && rested {
            effects.extend(self.send_vector(now, local, logs));
        }
        effects
    }

    pub(crate) fn ensure_shared(&self, collection: &Collection) -> Result<(), Violation> {
        let is_shared = self.shared.contains(collection);
        if is_shared { Ok(()) } else { Err(Violation::NotShared(collection.clone())) }
    }

    fn handle_page(&mut self, page: Page) -> Result<Effect, Violation> {
        let expected = self.pages_seen + 1;
        if page.id != expected {
            return Err(Violation::PageOrder { expected, found: page.id });
        }
        page.runs.iter().try_for_each(|run| self.ensure_shared(&run.log.collection))?;
        self.pages_seen = expected;
        if self.pages_seen - self.pages_taken > PAGES_IN_FLIGHT_MAX as u64 {
            return Err(Violation::PagesOverLimit { max: PAGES_IN_FLIGHT_MAX });
        }
        Ok(Effect::Take(page))
    }

    /// Reports what became of a page, in the order the pages came.
    pub(crate) fn page_taken(&mut self, now: Mono, logs: &Logs, taken: Taken) -> Vec<Effect> {
        self.pages_taken += 1;
        self.gain += taken.entries * GAIN_OF_ENTRY + taken.bytes;
        if self.gain >= GAIN_LEAST {
            (self.gain, self.last_gain) = (0, now);
        }
        for ((log, end), result) in taken.ends.into_iter().zip(&taken.ack.results) {
            if result.code == Code::Taken {
                self.outgoing.learn(log, end);
            }
        }
        taken.forked.into_iter().for_each(|log| self.giver.forked(log));
        let mut effects = vec![Effect::Send(Message::Ack(taken.ack))];
        if taken.entries > 0 {
            self.is_fruitful = true;
            effects.extend(self.note_progress(logs));
        }
        effects
    }

    fn note_progress(&mut self, logs: &Logs) -> Option<Effect> {
        let node = self.link.peer;
        let (behind, total) = self.behind(logs);
        if behind == 0 {
            let first = !std::mem::replace(&mut self.caught_up, true);
            return first.then_some(Effect::Event(Event::CaughtUp { node }));
        }
        self.caught_up = false;
        Some(Effect::Event(Event::SyncProgress { node, have: total - behind, total }))
    }

    fn handle_ack(&mut self, now: Now, ack: Ack) -> Result<Vec<Effect>, Violation> {
        let node = self.link.peer;
        self.is_fruitful |= ack.results.iter().any(|result| result.code == Code::Taken);
        let event = |(log, code, detail)| match code {
            Code::ClockSkew => Some(Event::ClockSkew { node, log: Some(log), detail }),
            Code::Bad if !detail.is_empty() => Some(Event::RefusedByPeer { node, log, detail }),
            Code::Bad | Code::Busy | Code::Gap | Code::Taken => None,
        };
        let refused = self.outgoing.acknowledged(ack, now.mono)?;
        Ok(refused.into_iter().filter_map(event).map(Effect::Event).collect())
    }

    /// What the peer lacks and may be sent now: logs with the position after which to send. Empty if nothing.
    pub(crate) fn to_send(&self, local: &Local, logs: &Logs, now: Mono) -> BTreeMap<LogId, Seq> {
        if !self.vector_seen || !self.may_send {
            return BTreeMap::new();
        }
        self.outgoing.to_send(logs, &self.shared, local.limits.pages_in_flight, now)
    }

    /// The sending half, for pages.
    pub(crate) fn outgoing(&mut self) -> &mut Outgoing {
        &mut self.outgoing
    }

    pub(crate) fn tick(&mut self, now: Now, local: &Local, logs: &Logs) -> Result<Vec<Effect>, Violation> {
        if self.outgoing.is_overdue(now.mono) {
            return Err(Violation::AckOverdue(ACK_MS));
        }
        if !self.hello_seen {
            let overdue = now.mono.since(self.opened) >= DROP_AFTER_MS;
            return if overdue { Err(Violation::HelloOverdue(DROP_AFTER_MS)) } else { Ok(Vec::new()) };
        }
        self.outgoing.release(now.mono);
        if self.next_digest > now.mono {
            return Ok(Vec::new());
        }
        self.next_digest = now.mono.plus(local.sync_interval_ms);
        let (vector, rows) = logs.digests(&self.shared);
        let rows = (!local.is_ahead_of_vector).then_some(rows);
        Ok(vec![Effect::Send(Message::Digest(Digest { vector, rows, wall: now.wall }))])
    }

    /// The next digest is due now.
    pub(crate) fn hurry(&mut self, now: Mono) {
        self.next_digest = now;
        self.outgoing.release_all();
    }

    pub(crate) fn next_wake(&self) -> Mono {
        if !self.hello_seen {
            return self.opened.plus(DROP_AFTER_MS);
        }
        self.outgoing.next_wake().map_or(self.next_digest, |wake| wake.min(self.next_digest))
    }

    /// Entries that the peer is known to hold: how many of them this node lacks, and all of them.
    pub(crate) fn behind(&self, logs: &Logs) -> (u64, u64) {
        self.outgoing.behind(logs)
    }

    /// Whether the peer's whole vector is known.
    pub(crate) fn is_ready(&self) -> bool {
        self.vector_seen
    }

    /// Whether what stopped at a place before has got past it.
    pub(crate) fn is_past(&self, place: &Place, logs: &Logs) -> bool {
        place.as_ref().map_or(self.is_fruitful, |entry| self.outgoing.is_past(entry, logs))
    }

    /// When this node asked the peer for pages; `None` if it did not.
    pub(crate) fn granted(&self) -> Option<Mono> {
        self.granted
    }

    /// When the peer last had brought something worth waiting for, or its flow was opened. Pages without news count for
    /// nothing: a peer must not be able to make others wait by sending something.
    pub(crate) fn last_gain(&self) -> Mono {
        self.granted.map_or(self.last_gain, |granted| granted.max(self.last_gain))
    }

    /// When the flow was last closed; `None` if it never was.
    pub(crate) fn closed(&self) -> Option<Mono> {
        self.closed
    }

    /// Opens or closes the peer's flow towards this node.
    pub(crate) fn grant(&mut self, open: bool, now: Mono) -> Message {
        self.granted = open.then_some(now);
        self.closed = if open { self.closed } else { Some(now) };
        Message::Flow { open }
    }

    /// Whether the peer is known to lack nothing, and this node nothing of the peer's.
    pub(crate) fn is_level(&self, logs: &Logs) -> bool {
        let is_even = self.behind(logs).0 == 0 && self.outgoing.ahead(logs, &self.shared) == 0;
        self.vector_seen && is_even && self.giver.is_equal()
    }

    /// Collections that both sync, without the engine's own.
    fn shared_interests(&self) -> impl Iterator<Item = &Collection> {
        self.shared.iter().filter(|collection| *collection != members())
    }

    pub(crate) fn status(&self, logs: &Logs) -> PeerStatus {
        PeerStatus {
            node: self.link.peer,
            name: self.link.name.clone(),
            we_dialled: self.link.we_dialled,
            behind: self.behind(logs).0,
            ahead: self.outgoing.ahead(logs, &self.shared),
            in_sync: self.in_sync,
            skew_ms: self.skew_ms,
            shared: self.hello_seen.then(|| self.shared_interests().cloned().collect()),
            held: self.outgoing.held(),
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::clock::Hlc;
    use crate::id::LinkId;
    use crate::limits::VECTOR_LOGS_MAX;
    use crate::outgoing::AckError;
    use crate::store::Durable;
    use crate::vectors::{HEAD_BYTES, PROOF_BYTES, VECTOR_BYTES};
    use crate::version::Hash;
    use crate::wire::{OwnHead, RunResult};

    pub(crate) const NOW: Now = Now { mono: Mono(1_000), wall: WallMillis(1_000_000) };

    pub(crate) struct Talk {
        pub(crate) session: Session,
        pub(crate) local: Local,
        pub(crate) logs: Logs,
    }

    impl Talk {
        pub(crate) fn new() -> Self {
            let link = Link {
                id: LinkId(1),
                peer: NodeId([2; 32]),
                name: "peer".into(),
                instance: 1,
                we_dialled: true,
                target: None,
                frame_bytes_max: 1 << 20,
            };
            let local = Local {
                node: NodeId([1; 32]),
                incarnation: Incarnation(1),
                interests: [Collection::new("t").unwrap()].into(),
                sync_interval_ms: 2_000,
                max_skew_ms: 300_000,
                frame_bytes_max: 1 << 20,
                limits: Limits::default(),
                is_ahead_of_vector: false,
            };
            let (session, _) = Session::open(link, &local, NOW);
            Self { session, local, logs: Logs::from_durable(&Durable::default()) }
        }

        pub(crate) fn greeted() -> Self {
            let mut talk = Self::new();
            talk.say(hello()).unwrap();
            talk
        }

        fn say(&mut self, message: Message) -> Result<Vec<Effect>, Violation> {
            self.session.handle_message(NOW, &self.local, &self.logs, message)
        }

        fn tick_at(&mut self, ms: u64) -> Result<Vec<Effect>, Violation> {
            let now = Now { mono: NOW.mono.plus(ms), ..NOW };
            self.session.tick(now, &self.local, &self.logs)
        }
    }

    fn hello() -> Message {
        Message::Hello(Hello {
            version: VERSION,
            incarnation: Incarnation(2),
            interests: vec![Collection::new("t").unwrap(), Collection::new("other").unwrap()],
            wall: NOW.wall,
            frame_bytes_max: 1 << 20,
        })
    }

    fn page(id: u64) -> Message {
        Message::Page(Page { id, runs: Vec::new() })
    }

    #[test]
    fn nothing_is_taken_before_hello_and_hello_is_said_once() {
        let mut talk = Talk::new();
        assert!(matches!(talk.say(page(1)), Err(Violation::NoHello)));
        assert!(matches!(talk.say(Message::Flow { open: true }), Err(Violation::NoHello)));
        talk.say(hello()).unwrap();
        assert!(matches!(talk.say(hello()), Err(Violation::SecondHello)));
        let shared = talk.session.status(&talk.logs).shared.unwrap();
        assert_eq!(shared, [Collection::new("t").unwrap()]);
    }

    #[test]
    fn pages_come_in_order_and_not_more_than_the_limit_at_once() {
        let mut talk = Talk::greeted();
        assert!(matches!(talk.say(page(2)), Err(Violation::PageOrder { expected: 1, found: 2 })));
        let mut talk = Talk::greeted();
        for id in 1..=PAGES_IN_FLIGHT_MAX as u64 {
            talk.say(page(id)).unwrap();
        }
        let over = talk.say(page(PAGES_IN_FLIGHT_MAX as u64 + 1));
        assert!(over.unwrap_err().to_string().contains("PAGES_IN_FLIGHT_MAX"));
    }

    #[test]
    fn an_acknowledgement_of_nothing_is_a_violation() {
        let ack = Message::Ack(Ack { page: 1, results: Vec::new() });
        assert!(matches!(Talk::greeted().say(ack), Err(Violation::Ack(AckError::Order(1)))));
    }

    #[test]
    fn of_a_vector_without_end_so_many_logs_are_read_and_the_link_stays() {
        let mut talk = Talk::greeted();
        let head = Head { seq: Seq(1), hash: Hash([1; 32]) };
        let part = |from: usize, last: bool| {
            let heads = (from..from + VECTOR_LOGS_MAX).map(|n| (log(3, n as u64), head)).collect();
            let floors = (from..from + VECTOR_LOGS_MAX).map(|n| (log(3, n as u64), Seq(1))).collect();
            Message::Vector(VectorPart { heads, floors, last, ..VectorPart::default() })
        };
        let parts = LOGS_MAX / VECTOR_LOGS_MAX + 3;
        for number in 0..parts {
            talk.say(part(number * VECTOR_LOGS_MAX, number + 1 == parts)).unwrap();
            assert!(talk.session.arriving.heads.len() <= LOGS_MAX);
            assert!(talk.session.arriving.floors.len() <= LOGS_MAX);
        }
        assert_eq!(talk.session.outgoing.theirs().len(), LOGS_MAX);
        talk.say(vector(&[(log(4, 1), 7)])).unwrap();
        assert_eq!(talk.session.outgoing.theirs().len(), 1, "the next vector is read as ever");
    }

    #[test]
    fn a_peer_that_never_says_hello_is_given_up() {
        let mut talk = Talk::new();
        assert!(talk.tick_at(DROP_AFTER_MS - 1).is_ok());
        assert!(matches!(talk.tick_at(DROP_AFTER_MS), Err(Violation::HelloOverdue(_))));
    }

    #[test]
    fn a_page_that_is_never_acknowledged_ends_the_session() {
        let mut talk = Talk::greeted();
        talk.session.outgoing().page_out(&[], NOW.mono);
        assert!(talk.tick_at(ACK_MS - 1).is_ok());
        assert!(matches!(talk.tick_at(ACK_MS), Err(Violation::AckOverdue(_))));
    }

    fn log(author: u8, incarnation: u64) -> LogId {
        let (author, collection) = (NodeId([author; 32]), Collection::new("t").unwrap());
        LogId { author, incarnation: Incarnation(incarnation), collection }
    }

    fn head(seq: u64) -> Head {
        Head { seq: Seq(seq), hash: Hash([1; 32]) }
    }

    fn holding(held: &[(LogId, u64)]) -> Logs {
        let heads = held.iter().map(|(log, seq)| (log.clone(), head(*seq), Hlc(1)));
        Logs::from_durable(&Durable { heads: heads.collect(), ..Durable::default() })
    }

    fn vector(heads: &[(LogId, u64)]) -> Message {
        let heads = heads.iter().map(|(log, seq)| (log.clone(), head(*seq))).collect();
        Message::Vector(VectorPart { heads, last: true, ..VectorPart::default() })
    }

    fn digest(logs: &Logs, shared: &BTreeSet<Collection>) -> Digest {
        let (vector, rows) = logs.digests(shared);
        Digest { vector, rows: Some(rows), wall: NOW.wall }
    }

    fn taken(ends: Vec<(LogId, Seq)>, codes: &[Code], entries: usize, bytes: usize) -> Taken {
        let result = |code: &Code| RunResult { code: *code, seq: Seq(1), detail: String::new() };
        let ack = Ack { page: 1, results: codes.iter().map(result).collect() };
        Taken { ends, ack, entries, bytes, forked: Vec::new(), rolled_back: None }
    }

    fn events(effects: &[Effect]) -> Vec<&Event> {
        let told = effects.iter().filter_map(|effect| match effect {
            Effect::Event(event) => Some(event),
            _ => None,
        });
        told.collect()
    }

    #[test]
    fn a_clock_that_differs_by_more_than_is_allowed_is_told_once_until_it_is_right_again() {
        let mut talk = Talk::greeted();
        let mut told = |ms: i64| {
            let wall = WallMillis(NOW.wall.0.checked_add_signed(ms).unwrap());
            let mut digest = digest(&talk.logs, &talk.session.shared);
            digest.wall = wall;
            let effects = talk.say(Message::Digest(digest)).unwrap();
            assert_eq!(talk.session.status(&talk.logs).skew_ms, ms);
            let about_clocks = |event: &&&Event| matches!(event, Event::ClockSkew { log: None, .. });
            events(&effects).iter().filter(about_clocks).count()
        };
        let max = 300_000;
        assert_eq!([told(max), told(-max), told(max + 1), told(max + 1), told(-max - 1)], [0, 0, 1, 0, 0]);
        assert_eq!([told(0), told(-max - 1)], [0, 1]);
    }

    #[test]
    fn a_vector_is_cut_to_the_frames_and_the_number_of_logs_that_the_peer_takes() {
        let held: Vec<_> = (1..=4).map(|n| (log(3, n), n)).collect();
        // What the parts hold, if the peer takes frames of so many bytes.
        let parts = |frame_bytes_max: usize, vector_logs: usize, held: &[(LogId, u64)]| -> Vec<usize> {
            let mut talk = Talk::new();
            talk.logs = holding(held);
            talk.session.link.frame_bytes_max = frame_bytes_max;
            talk.local.limits.vector_logs = vector_logs;
            let effects = talk.say(hello()).unwrap();
            let part = |effect: &Effect| match effect {
                Effect::SendVector(part) => Some((part.heads.len(), part.last)),
                _ => None,
            };
            let parts: Vec<(usize, bool)> = effects.iter().filter_map(part).collect();
            assert_eq!(parts.iter().filter(|(_, last)| *last).count(), 1);
            assert!(parts.last().unwrap().1, "the last part is the last");
            // The last one may say something of rows only.
            let heads = parts.iter().map(|(heads, _)| *heads);
            heads.enumerate().filter(|(n, heads)| *n == 0 || *heads > 0).map(|(_, heads)| heads).collect()
        };
        let one = HEAD_BYTES + "t".len();
        assert_eq!(parts(1 << 20, 100, &held), [4]);
        assert_eq!(parts(1 << 20, 100, &[]), [0]);
        assert_eq!(parts(1 << 20, 2, &held), [2, 2]);
        assert_eq!(parts(1 << 20, 3, &held), [3, 1]);
        assert_eq!(parts(VECTOR_BYTES + 2 * one, 100, &held), [2, 2]);
        assert_eq!(parts(VECTOR_BYTES + 2 * one - 1, 100, &held), [1, 1, 1, 1]);
        // The peer's own logs, of its life of now, come with its signatures.
        let proven: Vec<_> = vec![(log(2, 2), 1), (log(3, 1), 1), (log(3, 2), 1)];
        let with_proof = one + PROOF_BYTES + "t".len();
        assert_eq!(parts(VECTOR_BYTES + with_proof + one, 100, &proven), [2, 1]);
        assert_eq!(parts(VECTOR_BYTES + with_proof + one - 1, 100, &proven), [1, 2]);
        let others: Vec<_> = vec![(log(2, 1), 1), (log(3, 2), 1)];
        assert_eq!(parts(VECTOR_BYTES + 2 * one, 100, &others), [2], "an earlier life, and another author");
        let two: Vec<_> = vec![(log(1, 1), 1), (log(2, 2), 1), (log(3, 1), 1)];
        assert_eq!(parts(VECTOR_BYTES + with_proof, 100, &two), [1, 1, 1]);
        assert_eq!(parts(VECTOR_BYTES + with_proof + one - 1, 100, &two), [1, 1, 1]);
        assert_eq!(parts(VECTOR_BYTES + with_proof + one, 100, &two), [2, 1]);
    }

    #[test]
    fn two_heads_at_one_position_are_a_fork_and_nothing_else_is() {
        let mut talk = Talk::new();
        talk.logs = holding(&[(log(3, 1), 5)]);
        talk.say(hello()).unwrap();
        for (seq, hash, is_fork) in [(5, 1, false), (5, 2, true), (4, 2, false), (6, 2, false)] {
            let heads = vec![(log(3, 1), Head { seq: Seq(seq), hash: Hash([hash; 32]) })];
            let part = VectorPart { heads, last: true, ..VectorPart::default() };
            let effects = talk.say(Message::Vector(part)).unwrap();
            let forks = events(&effects).iter().filter(|event| matches!(event, Event::Forked { .. })).count();
            assert_eq!(forks, usize::from(is_fork), "{seq} {hash}");
        }
    }

    #[test]
    fn heads_of_this_nodes_own_logs_are_looked_at_if_they_are_of_its_life_of_now() {
        let mut talk = Talk::greeted();
        let own = |incarnation| OwnHead {
            incarnation: Incarnation(incarnation),
            collection: Collection::new("t").unwrap(),
            signed: SignedHead { head: head(1), hlc: Hlc(1), signature: [0; 64] },
        };
        let part = VectorPart { own: vec![own(1), own(2)], last: false, ..VectorPart::default() };
        let effects = talk.say(Message::Vector(part)).unwrap();
        assert!(matches!(&effects[..], [Effect::OwnHead(own, _)] if *own == log(1, 1)), "{effects:?}");
        assert!(!talk.session.is_ready(), "there is more of it to come");
    }

    #[test]
    fn progress_is_told_and_that_all_is_here_once() {
        let mut talk = Talk::greeted();
        let peer = NodeId([2; 32]);
        let effects = talk.say(vector(&[(log(3, 1), 5)])).unwrap();
        assert_eq!(events(&effects), [&Event::SyncProgress { node: peer, have: 0, total: 5 }]);
        assert!(talk.session.is_ready() && !talk.session.is_level(&talk.logs));
        talk.logs = holding(&[(log(3, 1), 2)]);
        let effects = talk.session.page_taken(NOW.mono, &talk.logs, taken(vec![], &[], 2, 20));
        assert_eq!(events(&effects), [&Event::SyncProgress { node: peer, have: 2, total: 5 }]);
        let effects = talk.session.page_taken(NOW.mono, &talk.logs, taken(vec![], &[], 0, 0));
        assert!(matches!(&effects[..], [Effect::Send(Message::Ack(_))]), "nothing came: {effects:?}");
        talk.logs = holding(&[(log(3, 1), 4), (log(3, 1), 5)]);
        let caught_up = [&Event::CaughtUp { node: peer }];
        let effects = talk.session.page_taken(NOW.mono, &talk.logs, taken(vec![], &[], 1, 20));
        assert_eq!(events(&effects), caught_up);
        assert!(talk.session.is_level(&talk.logs));
        let effects = talk.say(vector(&[(log(3, 1), 5)])).unwrap();
        assert!(events(&effects).is_empty(), "once");
        talk.say(vector(&[(log(3, 1), 6)])).unwrap();
        let effects = talk.say(vector(&[(log(3, 1), 5)])).unwrap();
        assert_eq!(events(&effects), caught_up, "and again after it was behind");
    }

    #[test]
    fn what_the_peer_sent_and_this_node_took_the_peer_holds() {
        let mut talk = Talk::greeted();
        talk.say(vector(&[])).unwrap();
        talk.logs = holding(&[(log(3, 1), 4), (log(3, 2), 4)]);
        let ends = vec![(log(3, 1), Seq(4)), (log(3, 2), Seq(4))];
        talk.session.page_taken(NOW.mono, &talk.logs, taken(ends, &[Code::Taken, Code::Busy], 4, 40));
        assert_eq!(talk.session.status(&talk.logs).ahead, 4, "of the second it is not known");
        assert!(!talk.session.is_level(&talk.logs));
        talk.say(Message::Flow { open: true }).unwrap();
        let to_send = talk.session.to_send(&talk.local, &talk.logs, NOW.mono);
        assert_eq!(to_send, [(log(3, 2), Seq(0))].into());
    }

    #[test]
    fn nothing_is_sent_before_the_peer_has_said_what_it_holds_and_asked() {
        let mut talk = Talk::greeted();
        talk.logs = holding(&[(log(3, 1), 4)]);
        let count = |talk: &Talk| talk.session.to_send(&talk.local, &talk.logs, NOW.mono).len();
        talk.say(Message::Flow { open: true }).unwrap();
        assert_eq!(count(&talk), 0);
        talk.say(vector(&[])).unwrap();
        assert_eq!(count(&talk), 1);
        talk.say(Message::Flow { open: false }).unwrap();
        assert_eq!(count(&talk), 0);
    }

    #[test]
    fn entries_and_their_bytes_are_a_sign_of_flow_and_a_few_of_them_are_none() {
        let gained = |entries: usize, bytes: usize| {
            let mut talk = Talk::greeted();
            let later = NOW.mono.plus(500);
            talk.session.page_taken(later, &talk.logs, taken(vec![], &[], entries, bytes));
            talk.session.last_gain() == later
        };
        let few = GAIN_LEAST / GAIN_OF_ENTRY - 1;
        assert!(!gained(few, GAIN_OF_ENTRY - 1));
        assert!(gained(few, GAIN_OF_ENTRY));
        assert!(gained(0, GAIN_LEAST) && !gained(0, GAIN_LEAST - 1));
        let mut talk = Talk::greeted();
        for (ms, is_sign) in [(1, false), (2, true), (3, false), (4, true)] {
            let at = NOW.mono.plus(ms);
            talk.session.page_taken(at, &talk.logs, taken(vec![], &[], 0, GAIN_LEAST / 2));
            assert_eq!(talk.session.last_gain() == at, is_sign, "{ms}");
        }
        talk.session.grant(true, NOW.mono.plus(9));
        assert_eq!(talk.session.last_gain(), NOW.mono.plus(9), "so is that it was asked");
    }

    #[test]
    fn equal_digests_are_noted_and_rows_that_differ_all_the_same_bring_the_vector() {
        let mut talk = Talk::greeted();
        let equal = digest(&talk.logs, &talk.session.shared);
        assert!(talk.say(Message::Digest(equal)).unwrap().is_empty());
        assert_eq!(talk.session.status(&talk.logs).in_sync, Some(NOW.wall));
        let other = Digest { rows: Some(crate::fingerprint::Fingerprint::from_bytes([7; 32])), ..equal };
        let mut said_at = |ms: u64, times: u32| {
            for _ in 0..times {
                talk.session.snapshot_over(Collection::new("t").unwrap(), NOW.mono);
            }
            let now = Now { mono: NOW.mono.plus(ms), ..NOW };
            let said = Message::Digest(other);
            talk.session.handle_message(now, &talk.local, &talk.logs, said).unwrap()
        };
        assert!(matches!(said_at(2_000, 0)[..], [Effect::SendVector(_)]));
        assert!(matches!(said_at(4_000, 3)[..], [Effect::SendVector(_)]), "they are being joined");
        assert_eq!(
            events(&said_at(6_000, 1)),
            [&Event::Diverged { node: NodeId([2; 32]) }],
            "that was enough"
        );
        let unknown = Digest { rows: None, ..equal };
        assert!(talk.say(Message::Digest(unknown)).unwrap().is_empty(), "rows in the middle of a snapshot");
    }

    #[test]
    fn digests_that_differ_with_nothing_on_its_way_bring_the_vector_but_not_all_the_time() {
        let mut talk = Talk::greeted();
        talk.say(vector(&[])).unwrap();
        let mut other = digest(&talk.logs, &talk.session.shared);
        other.vector = crate::fingerprint::Fingerprint::from_bytes([7; 32]);
        let vectors = |talk: &mut Talk, ms: u64| {
            let now = Now { mono: NOW.mono.plus(ms), ..NOW };
            let said = Message::Digest(other);
            let effects = talk.session.handle_message(now, &talk.local, &talk.logs, said).unwrap();
            effects.iter().filter(|effect| matches!(effect, Effect::SendVector(_))).count()
        };
        assert_eq!(vectors(&mut talk, 1_999), 0, "it was sent a moment ago");
        assert_eq!(vectors(&mut talk, 2_000), 1);
        assert_eq!(vectors(&mut talk, 3_999), 0);
        assert_eq!(vectors(&mut talk, 4_000), 1);
        assert_eq!(talk.session.status(&talk.logs).in_sync, None);
        talk.say(page(1)).unwrap();
        assert_eq!(vectors(&mut talk, 8_000), 0, "a page is being taken");
        talk.session.page_taken(NOW.mono, &talk.logs, taken(vec![], &[], 0, 0));
        assert_eq!(vectors(&mut talk, 8_000), 1);
        talk.session.outgoing().page_out(&[], NOW.mono);
        assert_eq!(vectors(&mut talk, 12_000), 0, "a page is on its way");
    }

    #[test]
    fn only_what_was_agreed_on_is_taken_and_in_its_turn() {
        let mut talk = Talk::greeted();
        let of = |collection: &str| {
            let log = LogId { collection: Collection::new(collection).unwrap(), ..log(3, 1) };
            let signed = SignedHead { head: head(1), hlc: Hlc(1), signature: [0; 64] };
            let (public_key, previous) = (crate::id::PublicKey([0; 32]), Hash::default());
            crate::wire::Run { log, public_key, previous, entries: Vec::new(), signed }
        };
        assert!(matches!(
            talk.say(Message::Page(Page { id: 1, runs: vec![of("t")] })).unwrap()[..],
            [Effect::Take(_)]
        ));
        let other = talk.say(Message::Page(Page { id: 2, runs: vec![of("t"), of("other")] }));
        assert!(matches!(other, Err(Violation::NotShared(name)) if name.as_str() == "other"));
        let mut talk = Talk::greeted();
        for id in 1..=3 * PAGES_IN_FLIGHT_MAX as u64 {
            talk.say(page(id)).unwrap();
            talk.session.page_taken(NOW.mono, &talk.logs, taken(vec![], &[], 0, 0));
        }
        assert!(matches!(talk.say(page(1)), Err(Violation::PageOrder { .. })));
    }

    #[test]
    fn a_digest_is_sent_each_time_that_it_is_due_and_at_once_when_asked() {
        let mut talk = Talk::greeted();
        let sent = |talk: &mut Talk, ms: u64| {
            let effects = talk.tick_at(ms).unwrap();
            effects.iter().filter(|effect| matches!(effect, Effect::Send(Message::Digest(_)))).count()
        };
        assert_eq!(talk.session.next_wake(), NOW.mono.plus(2_000));
        assert_eq!([sent(&mut talk, 1_999), sent(&mut talk, 2_000), sent(&mut talk, 2_001)], [0, 1, 0]);
        assert_eq!(talk.session.next_wake(), NOW.mono.plus(4_000));
        talk.session.outgoing().hold([log(3, 1)], NOW.mono);
        talk.session.hurry(NOW.mono.plus(2_500));
        assert_eq!(talk.session.next_wake(), NOW.mono.plus(2_500), "nothing waits any more");
        assert_eq!([sent(&mut talk, 2_500), sent(&mut talk, 4_499), sent(&mut talk, 4_501)], [1, 0, 1]);
        assert_eq!(
            Talk::new().session.next_wake(),
            NOW.mono.plus(DROP_AFTER_MS),
            "before hello it only waits"
        );
    }

    #[test]
    fn what_a_peer_refuses_for_good_or_for_its_clock_is_told() {
        let told = |code: Code| {
            let mut talk = Talk::greeted();
            let signed = SignedHead { head: head(1), hlc: Hlc(1), signature: [0; 64] };
            let (public_key, previous) = (crate::id::PublicKey([0; 32]), Hash::default());
            let run = crate::wire::Run { log: log(3, 1), public_key, previous, entries: Vec::new(), signed };
            talk.session.outgoing().page_out(&[run], NOW.mono);
            let result = RunResult { code, seq: Seq(0), detail: "why".to_owned() };
            let effects = talk.say(Message::Ack(Ack { page: 1, results: vec![result] })).unwrap();
            events(&effects).into_iter().cloned().collect::<Vec<_>>()
        };
        let (node, log, detail) = (NodeId([2; 32]), log(3, 1), "why".to_owned());
        let skew = Event::ClockSkew { node, log: Some(log.clone()), detail: detail.clone() };
        assert_eq!(told(Code::ClockSkew), [skew]);
        assert_eq!(told(Code::Bad), [Event::RefusedByPeer { node, log, detail }]);
        for code in [Code::Taken, Code::Busy, Code::Gap] {
            assert_eq!(told(code), [], "{code:?}");
        }
    }
}
