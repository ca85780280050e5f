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

use crate::clock::{Mono, Now, WallMillis};
use crate::contract::{Link, PeerStatus};
use crate::entry::SignedHead;
use crate::event::Event;
use crate::id::{Collection, Incarnation, LogId, NodeId};
use crate::ledger::Taken;
use crate::limits::{ACK_MS, DROP_AFTER_MS, LOGS_MAX, Limits, PAGES_IN_FLIGHT_MAX};
use crate::oplog::Logs;
use crate::outgoing::{AckError, Outgoing};
use crate::version::{Head, Seq};
use crate::wire::{Ack, Code, Digest, Hello, Message, Page, VERSION, VectorPart};

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
}

/// Entries that a flow has to bring in a while, to be worth waiting for; each counts as this many bytes and its payload.
const GAIN_OF_ENTRY: usize = 100;
/// Bytes that are a sign of flow.
const GAIN_LEAST: usize = 10_000;
/// Bytes of a vector's part beside its heads, and of a head beside its collection's name; more than it can be.
const VECTOR_BYTES: usize = 32;
const HEAD_BYTES: usize = 120;
/// The same of a head's proof.
const PROOF_BYTES: usize = 150;

/// A peer that does not keep to the protocol. Its link is closed; what it sent before stays as it is.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum Violation {
    #[error("the peer said hello twice")]
    SecondHello,
    #[error("the peer sent a message before hello")]
    NoHello,
    #[error("the peer sent page {found} where {expected} is next")]
    PageOrder { expected: u64, found: u64 },
    #[error(
        "the peer sent more pages than it may without acknowledgement (limit PAGES_IN_FLIGHT_MAX, {max})"
    )]
    PagesOverLimit { max: usize },
    #[error("the peer names more than {max} logs (limit LOGS_MAX)")]
    LogsOverLimit { max: usize },
    #[error("the peer sent entries of {0}, which was not asked for")]
    NotShared(Collection),
    #[error(transparent)]
    Ack(#[from] AckError),
    #[error("no acknowledgement for a page within {0} ms")]
    AckOverdue(u64),
    #[error("the peer did not say hello within {0} ms")]
    HelloOverdue(u64),
}

/// State of one conversation.
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) link: Link,
    shared: BTreeSet<Collection>,
    hello_seen: bool,
    opened: Mono,
    outgoing: Outgoing,
    arriving: Vec<(LogId, Head)>,
    vector_seen: bool,
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
    skew_ms: i64,
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
            arriving: Vec::new(),
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
            Message::Vector(part) => self.handle_vector(local, logs, part),
            Message::Digest(digest) => Ok(self.handle_digest(now, local, logs, &digest)),
            Message::Flow { open } => {
                self.may_send = open;
                Ok(Vec::new())
            }
            Message::Page(page) => self.handle_page(page).map(|take| vec![take]),
            Message::Ack(ack) => self.handle_ack(now, ack),
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
        self.shared =
            hello.interests.iter().filter(|name| local.interests.contains(*name)).cloned().collect();
        let mut effects = vec![Effect::Event(Event::PeerUp {
            node: self.link.peer,
            name: self.link.name.clone(),
            shared: self.shared.iter().cloned().collect(),
        })];
        effects.extend(self.note_clock(now, local, hello.wall));
        effects.extend(self.send_vector(now, local, logs));
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

    /// The vector in as many parts as it takes to keep each under the peer's frame limit.
    fn send_vector(&mut self, now: Now, local: &Local, logs: &Logs) -> Vec<Effect> {
        self.vector_sent = Some(now.mono);
        let mut parts = vec![VectorPart::default()];
        let mut bytes = VECTOR_BYTES;
        for (log, head) in logs.vector().iter().filter(|(log, _)| self.shared.contains(&log.collection)) {
            let name = log.collection.as_str().len();
            let proof = if self.is_peers_own(log) { PROOF_BYTES + name } else { 0 };
            bytes += HEAD_BYTES + name + proof;
            let part = parts.last_mut().expect("there is a first part");
            if part.heads.len() >= local.limits.vector_logs || bytes > self.link.frame_bytes_max {
                bytes = VECTOR_BYTES + HEAD_BYTES + name + proof;
                parts.push(VectorPart { heads: vec![(log.clone(), *head)], ..VectorPart::default() });
            } else {
                part.heads.push((log.clone(), *head));
            }
        }
        parts.last_mut().expect("there is a first part").last = true;
        parts.into_iter().map(Effect::SendVector).collect()
    }

    /// Whether it is a log that the peer goes on writing, as far as we know.
    pub(crate) fn is_peers_own(&self, log: &LogId) -> bool {
        log.author == self.link.peer && log.incarnation == self.peer_incarnation
    }

    fn handle_vector(
        &mut self,
        local: &Local,
        logs: &Logs,
        part: VectorPart,
    ) -> Result<Vec<Effect>, Violation> {
        self.arriving.extend(part.heads);
        if self.arriving.len() > LOGS_MAX {
            return Err(Violation::LogsOverLimit { max: LOGS_MAX });
        }
        let current = part.own.into_iter().filter(|own| own.incarnation == local.incarnation);
        let mut effects: Vec<Effect> = current
            .map(|own| {
                let (incarnation, collection) = (own.incarnation, own.collection);
                let log = LogId { author: local.node, incarnation, collection };
                Effect::OwnHead(log, own.signed)
            })
            .collect();
        if !part.last {
            return Ok(effects);
        }
        let heads = std::mem::take(&mut self.arriving);
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
        Ok(effects)
    }

    fn handle_digest(&mut self, now: Now, local: &Local, logs: &Logs, digest: &Digest) -> Vec<Effect> {
        let mut effects: Vec<Effect> = self.note_clock(now, local, digest.wall).into_iter().collect();
        let (vector, rows) = logs.digests(&self.shared);
        if vector == digest.vector {
            self.in_sync = Some(now.wall);
            if rows != digest.rows {
                effects.push(Effect::Event(Event::Diverged { node: self.link.peer }));
            }
            return effects;
        }
        let quiet = self.outgoing.is_idle() && self.pages_seen == self.pages_taken;
        let rested = self.vector_sent.is_none_or(|sent| now.mono.since(sent) >= local.sync_interval_ms);
        if quiet && rested {
            effects.extend(self.send_vector(now, local, logs));
        }
        effects
    }

    fn handle_page(&mut self, page: Page) -> Result<Effect, Violation> {
        let expected = self.pages_seen + 1;
        if page.id != expected {
            return Err(Violation::PageOrder { expected, found: page.id });
        }
        if let Some(run) = page.runs.iter().find(|run| !self.shared.contains(&run.log.collection)) {
            return Err(Violation::NotShared(run.log.collection.clone()));
        }
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
        let mut effects = vec![Effect::Send(Message::Ack(taken.ack))];
        if taken.entries > 0 {
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
        let event = |(log, code, detail)| match code {
            Code::ClockSkew => Some(Event::ClockSkew { node, log: Some(log), detail }),
            Code::Bad => Some(Event::RefusedByPeer { node, log, detail }),
            Code::Busy | Code::Gap | Code::Taken => None,
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
        self.vector_seen && self.behind(logs).0 == 0 && self.outgoing.ahead(logs, &self.shared) == 0
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
            shared: self.hello_seen.then(|| self.shared.iter().cloned().collect()),
            held: self.outgoing.held(),
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::id::LinkId;
    use crate::limits::VECTOR_LOGS_MAX;
    use crate::store::Durable;
    use crate::version::Hash;

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
    fn a_vector_without_end_is_cut_off_at_the_limit() {
        let mut talk = Talk::greeted();
        let log = |n: u64| LogId {
            author: NodeId([3; 32]),
            incarnation: Incarnation(n),
            collection: Collection::new("t").unwrap(),
        };
        let head = Head { seq: Seq(1), hash: Hash([1; 32]) };
        let part = |from: u64| {
            let heads = (from..from + VECTOR_LOGS_MAX as u64).map(|n| (log(n), head)).collect();
            Message::Vector(VectorPart { heads, ..VectorPart::default() })
        };
        let mut parts = 0;
        let over = loop {
            match talk.say(part(parts * VECTOR_LOGS_MAX as u64)) {
                Ok(_) => parts += 1,
                Err(over) => break over,
            }
            assert!(parts as usize <= LOGS_MAX / VECTOR_LOGS_MAX, "it goes on without end");
        };
        assert!(over.to_string().contains("LOGS_MAX"));
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
}
