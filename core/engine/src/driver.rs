//! The one thread that owns the replica and its store.
//!
//! It waits for the first of: something from the network, a commit of another process to the database, a command, the
//! replica's next wake. It hands that to the replica and carries out what the replica answers. Nothing else calls the
//! replica, so the store is used from one thread, one call at a time, with no lock held.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender};
use entgldb_net::{Frame, InFlight, NetEvent, SendError, Transport};
use entgldb_replica::id::LinkId;
use entgldb_replica::{Config as ReplicaConfig, Input, Link, Output, PeerStatus, Replica, wire};
use entgldb_sqlite::Waker;
use tracing::{debug, error, info, warn};

use crate::attention::Attention;
use crate::clocks::{Clocks, wall_ms};
use crate::command::Job;
use crate::control::Control;
use crate::event::Event;
use crate::hub::Hub;
use crate::mark::MarkFile;
use crate::publish::{self, Publisher};
use crate::recipe::{Keeping, Recipe};
use crate::status::State;
use crate::store::{AnyStore, StoreError};
use crate::sync_now::{Reply, SyncError};
use crate::trust::Trust;
use crate::turns::Turns;

/// First and longest wait before a failed store is opened again.
const REOPEN: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(30));

/// What the thread waits for.
pub(crate) enum Message {
    Net(NetEvent),
    /// Something came over this link; it waits in [`Turns`].
    Link(LinkId),
    /// The database's files changed.
    Wake,
    AddPeer(String),
    /// What the owner asks, carried out on this thread.
    Do(Job),
    SyncNow {
        deadline: Instant,
        reply: Sender<Result<(), SyncError>>,
    },
    Stop,
}

/// The thread's state.
pub(crate) struct Driver {
    pub(crate) recipe: Recipe,
    pub(crate) replica: Option<Replica<AnyStore>>,
    transport: Transport,
    inbox: Receiver<Message>,
    turns: Arc<Turns<NetEvent>>,
    /// Links of which something waits, in the order of their turns.
    line: VecDeque<LinkId>,
    pub(crate) clocks: Clocks,
    trust: Trust,
    hub: Hub,
    mark: MarkFile,
    control: Control,
    pub(crate) publisher: Publisher,
    pub(crate) attention: Attention,
    is_short_of_room: bool,
    reopen_at: Instant,
    reopen_wait: Duration,
    waiting: Vec<(Instant, Reply)>,
}

/// Parts of a driver that [`crate::node`] has made.
pub(crate) struct Parts {
    pub(crate) recipe: Recipe,
    pub(crate) store: AnyStore,
    pub(crate) transport: Transport,
    pub(crate) inbox: Receiver<Message>,
    pub(crate) turns: Arc<Turns<NetEvent>>,
    pub(crate) clocks: Clocks,
    pub(crate) trust: Trust,
    pub(crate) hub: Hub,
    pub(crate) mark: MarkFile,
    pub(crate) control: Control,
    pub(crate) publisher: Publisher,
    pub(crate) waker: Waker,
}

impl Driver {
    /// Opens the replica over a freshly opened store.
    pub(crate) fn new(parts: Parts) -> Result<Self, StoreError> {
        let now = Instant::now();
        let mut driver = Self {
            recipe: parts.recipe,
            replica: None,
            transport: parts.transport,
            inbox: parts.inbox,
            turns: parts.turns,
            line: VecDeque::new(),
            clocks: parts.clocks,
            trust: parts.trust,
            hub: parts.hub,
            mark: parts.mark,
            control: parts.control,
            publisher: parts.publisher,
            attention: Attention::new(parts.waker),
            is_short_of_room: false,
            reopen_at: now,
            reopen_wait: REOPEN.0,
            waiting: Vec::new(),
        };
        driver.adopt(parts.store)?;
        driver.publish(true);
        Ok(driver)
    }

    /// Runs until it is told to stop.
    pub(crate) fn run(mut self) {
        let name = self.publisher.name();
        let _span = tracing::info_span!("node", name).entered();
        loop {
            match self.inbox.recv_timeout(self.wait()) {
                Ok(Message::Stop) => break,
                Ok(message) => self.take(message),
                Err(crossbeam_channel::RecvTimeoutError::Timeout) if self.line.is_empty() => self.take_time(),
                Err(crossbeam_channel::RecvTimeoutError::Timeout) => {}
                Err(crossbeam_channel::RecvTimeoutError::Disconnected) => break,
            }
            self.take_turn();
            self.answer_waiting();
            self.publish(false);
        }
        if let Some(replica) = self.replica.take() {
            self.mark.note(replica.mark());
            if let Err(failed) = replica.into_store().close() {
                warn!(%failed, "the store was not closed cleanly");
            }
        }
        for (_, reply) in self.waiting.drain(..) {
            let _ = reply.send(Err(SyncError::Stopped));
        }
        self.publisher.set_state(State::Stopped);
        self.publish(true);
        info!("stopped");
        self.tell(&Event::Stopped);
        self.hub.end();
        if let Keeping::Documents(watchers) = &self.recipe.keeping {
            watchers.end();
        }
    }

    fn wait(&self) -> Duration {
        if !self.line.is_empty() {
            return Duration::ZERO;
        }
        let mut wait = self.publisher.due().saturating_duration_since(Instant::now());
        match &self.replica {
            Some(replica) => {
                wait = wait.min(self.clocks.until(replica.next_wake()));
                wait = wait.min(self.attention.due().saturating_duration_since(Instant::now()));
            }
            None => wait = wait.min(self.reopen_at.saturating_duration_since(Instant::now())),
        }
        if let Some(deadline) = self.waiting.iter().map(|(deadline, _)| *deadline).min() {
            wait = wait.min(deadline.saturating_duration_since(Instant::now()));
        }
        // Never asleep for long after a state that never changes again.
        wait.min(publish::EVERY)
    }

    fn take(&mut self, message: Message) {
        match message {
            Message::Net(event) => self.take_net(event),
            Message::Link(link) => self.line.push_back(link),
            Message::Wake => {
                self.attention.woken();
                if self.attention.is_due() {
                    self.look();
                }
            }
            Message::AddPeer(target) => {
                let now = self.clocks.now();
                if let Some(replica) = &mut self.replica
                    && let Err(refused) = replica.add_peer(&target, now)
                {
                    self.tell(&Event::DialFailed { target: target.clone(), reason: refused.to_string() });
                }
                self.recipe.peers.push(target);
                self.input(Input::Tick);
            }
            Message::Do(job) => job(self),
            Message::SyncNow { deadline, reply } => {
                self.waiting.push((deadline, reply));
                self.input(Input::SyncNow);
            }
            Message::Stop => unreachable!("the loop ends on it"),
        }
    }

    /// Takes one event of the link whose turn it is.
    fn take_turn(&mut self) {
        let Some(link) = self.line.pop_front() else { return };
        let Some((event, more)) = self.turns.take(link) else { return };
        if more {
            self.line.push_back(link);
        }
        self.take_net(event);
        // However much comes in, the application's changes are looked at in time.
        if more && self.attention.is_due() {
            self.look();
        }
    }

    fn take_time(&mut self) {
        if self.replica.is_none() {
            if Instant::now() >= self.reopen_at && self.publisher.state() != State::Failed {
                self.reopen();
            }
            return;
        }
        if self.attention.is_due() {
            self.look();
        }
        let due = self.replica.as_ref().is_some_and(|replica| replica.next_wake() <= self.clocks.now().mono);
        if due {
            self.input(Input::Tick);
        }
    }

    /// Looks whether the application has written something.
    fn look(&mut self) {
        let Some(replica) = &mut self.replica else { return };
        let store = replica.store();
        match store.outbox_is_empty().and_then(|empty| Ok(!empty || store.is_scanning()?)) {
            Ok(true) => {
                self.attention.found();
                self.input(Input::LocalChange);
                self.attention.done();
            }
            Ok(false) => self.attention.nothing(),
            Err(failed) => self.store_failed(&failed),
        }
    }

    fn take_net(&mut self, event: NetEvent) {
        match event {
            NetEvent::LinkUp { link, peer, address, we_dialled, target } => {
                if let Err(untrusted) = self.trust.admit(&peer.name, peer.node, wall_ms()) {
                    let reason = untrusted.to_string();
                    warn!(node = %peer.node.short(), name = peer.name, %address, reason, "peer refused");
                    self.transport.close(link, &reason);
                    let node = peer.node.to_string();
                    self.tell(&Event::PeerRefused { node, name: peer.name, reason: reason.clone() });
                    if let Some(target) = target {
                        self.input(Input::DialFailed { target, reason });
                    }
                    return;
                }
                debug!(node = %peer.node.short(), name = peer.name, %address, we_dialled, "linked");
                self.input(Input::LinkUp(Link {
                    id: link,
                    peer: peer.node,
                    name: peer.name,
                    instance: peer.instance,
                    we_dialled,
                    target,
                    frame_bytes_max: peer.frame_bytes_max,
                }));
            }
            NetEvent::Frame { link, frame, permit } => self.take_frame(link, frame, permit),
            NetEvent::LinkDown { link, reason } => {
                let is_fault = reason.is_fault();
                self.input(Input::LinkDown { link, reason: reason.to_string(), is_fault });
            }
            NetEvent::DialFailed { target, reason } => {
                let reason = reason.to_string();
                debug!(target, reason, "dial failed");
                self.tell(&Event::DialFailed { target: target.clone(), reason: reason.clone() });
                self.input(Input::DialFailed { target, reason });
            }
            NetEvent::Refused { address, reason } => debug!(%address, %reason, "stranger refused"),
            NetEvent::ListenPaused { limit } => self.tell(&Event::ListenPaused { descriptors_max: limit }),
            NetEvent::ListenResumed => self.tell(&Event::ListenResumed),
            _ => {}
        }
    }

    /// The permit is given back when the frame has been dealt with.
    fn take_frame(&mut self, link: LinkId, frame: Frame, permit: InFlight) {
        self.input(Input::Frame { link, kind: frame.kind, body: frame.body });
        drop(permit);
    }

    pub(crate) fn input(&mut self, input: Input) {
        let now = self.clocks.now();
        let Some(replica) = &mut self.replica else {
            // Without a store nobody can be talked to: peers come again.
            if let Input::LinkUp(link) = input {
                self.transport.close(link.id, "the store is not available");
            }
            return;
        };
        let outputs = match replica.handle(now, input) {
            Ok(outputs) => outputs,
            Err(failed) => return self.store_failed(&failed.0),
        };
        // Before entries leave: should the database be put back to an older copy, they must not be numbered again.
        let entries = [wire::Message::PAGE, wire::Message::CHUNK];
        if outputs.iter().any(|out| matches!(out, Output::Send { kind, .. } if entries.contains(kind))) {
            self.mark.note(replica.mark());
            self.mark.write();
        }
        self.carry_out(outputs);
        self.notice_room();
    }

    /// Tells when remote changes begin to wait for room on the disk, and when they no longer do.
    fn notice_room(&mut self) {
        let Some(replica) = &mut self.replica else { return };
        let is_short = replica.store().is_short_of_room();
        if std::mem::replace(&mut self.is_short_of_room, is_short) == is_short {
            return;
        }
        if is_short {
            let message = "the disk is nearly full: changes of other nodes wait until there is room, local ones \
                           are taken while there is any";
            warn!("{message}");
            self.publisher.note_error(message);
            self.tell(&Event::StoreError { message: message.to_owned(), retry: true });
        } else {
            info!("the disk has room again");
        }
    }

    pub(crate) fn carry_out(&mut self, outputs: Vec<Output>) {
        for output in outputs {
            match output {
                Output::Send { link, kind, body, compress } => {
                    match self.transport.send(link, Frame { kind, body, compress }) {
                        // A link that is gone says so itself.
                        Ok(()) | Err(SendError::Gone) => {}
                        Err(error) => self.transport.close(link, &error.to_string()),
                    }
                }
                Output::Dial { target } => self.transport.dial(target),
                Output::Close { link, reason } => self.transport.close(link, &reason),
                Output::Event(event) => {
                    if let Some(event) = Event::from_replica(event) {
                        self.tell(&event);
                    }
                }
            }
        }
    }

    fn adopt(&mut self, store: AnyStore) -> Result<(), StoreError> {
        let now = self.clocks.now();
        let mut seed = [0; 8];
        getrandom::fill(&mut seed).expect("the operating system gives random bytes");
        let seed = u64::from_le_bytes(seed);
        let key = self.recipe.key.clone();
        // In the schema's spelling, which is that of the collections.
        let interests = store.collections().iter().cloned().collect();
        let config = ReplicaConfig { mark: self.mark.mark(), interests, ..self.recipe.replica.clone() };
        let mut replica = Replica::open(config, store, key, seed, now).map_err(|failed| failed.0)?;
        for target in &self.recipe.peers {
            if let Err(refused) = replica.add_peer(target, now) {
                self.hub.tell(&Event::DialFailed { target: target.clone(), reason: refused.to_string() });
            }
        }
        self.replica = Some(replica);
        self.publisher.set_state(State::Running);
        self.input(Input::LocalChange);
        Ok(())
    }

    /// A store error is final for the replica. What is durable is opened again, unless the disk itself has failed.
    pub(crate) fn store_failed(&mut self, failed: &StoreError) {
        let Some(replica) = self.replica.take() else { return };
        self.mark.note(replica.mark());
        for peer in replica.links() {
            self.transport.close(peer, "the store failed");
        }
        drop(replica);
        let retry = !failed.is_final();
        let message = failed.to_string();
        error!(message, retry, "the store failed");
        self.publisher.set_state(if retry { State::Recovering } else { State::Failed });
        self.publisher.note_error(&message);
        self.tell(&Event::StoreError { message, retry });
        self.wait_to_reopen();
    }

    fn wait_to_reopen(&mut self) {
        self.reopen_at = Instant::now() + self.reopen_wait;
        self.reopen_wait = (self.reopen_wait * 2).min(REOPEN.1);
    }

    fn reopen(&mut self) {
        let opened = self.recipe.open_store().and_then(|store| Ok(self.adopt(store)?));
        let Err(error) = opened else {
            // It may have failed again at its first capture; then the wait goes on growing.
            if self.replica.is_some() {
                self.reopen_wait = REOPEN.0;
                info!("the store is open again");
            }
            return;
        };
        let (retry, message) = (!error.is_final(), error.to_string());
        warn!(message, retry, "the store can't be opened");
        if !retry {
            self.publisher.set_state(State::Failed);
        }
        self.publisher.note_error(&message);
        self.tell(&Event::StoreError { message, retry });
        self.wait_to_reopen();
    }

    /// Answers those who wait for both sides to be level. The status is true before they hear of it.
    fn answer_waiting(&mut self) {
        if self.waiting.is_empty() {
            return;
        }
        let level = self.replica.as_ref().is_some_and(Replica::is_level);
        let now = Instant::now();
        let is_over = |(deadline, _): &(Instant, Reply)| level || *deadline <= now;
        let (over, waiting) = std::mem::take(&mut self.waiting).into_iter().partition(is_over);
        self.waiting = waiting;
        let over: Vec<(Instant, Reply)> = over;
        if over.is_empty() {
            return;
        }
        self.publish(true);
        let answer = if level { Ok(()) } else { Err(self.not_level()) };
        for (_, reply) in over {
            let _ = reply.send(answer);
        }
    }

    /// Why the nodes are not level.
    fn not_level(&self) -> SyncError {
        let Some(status) = self.replica.as_ref().map(Replica::status) else { return SyncError::StoreFailed };
        if status.peers.is_empty() {
            return SyncError::NoPeer;
        }
        SyncError::Timeout {
            behind: status.peers.iter().map(|peer| peer.behind).max().unwrap_or_default(),
            ahead: status.peers.iter().map(|peer| peer.ahead).max().unwrap_or_default(),
        }
    }

    pub(crate) fn tell(&mut self, event: &Event) {
        match event {
            Event::Captured { changes } => self.attention.captured(*changes),
            Event::Applied { documents, .. } => self.attention.applied(*documents),
            _ => {}
        }
        self.publisher.note(event);
        event.log();
        self.hub.tell(event);
    }

    /// Pins the labels of peers that were found to hold the same as this node.
    fn pin(&mut self, peers: &[PeerStatus]) {
        for peer in peers.iter().filter(|peer| peer.in_sync.is_some()) {
            if let Err(error) = self.trust.synced(&peer.name, peer.node) {
                warn!(%error, "a peer's label can't be pinned; trying again");
            }
        }
    }

    /// Brings the status up to date, at most once a second or right now.
    pub(crate) fn publish(&mut self, now: bool) {
        if now || Instant::now() >= self.publisher.due() {
            let replica = self.replica.as_mut();
            let replica = replica.map(|replica| (replica.status(), replica.store().host_health()));
            self.pin(replica.as_ref().map_or(&[], |(status, _)| &status.peers));
            self.publisher.publish(replica, self.transport.traffic(), &self.recipe.store.path);
            if let Some(replica) = &self.replica {
                self.mark.note(replica.mark());
            }
            self.mark.write();
            self.control.look();
        }
    }
}

/// A channel for the thread.
pub(crate) fn channel() -> (Sender<Message>, Receiver<Message>) {
    crossbeam_channel::unbounded()
}

/// Tells a store that waits for a lock to give up.
pub(crate) fn interrupt(stop: &AtomicBool) {
    stop.store(true, Ordering::Relaxed);
}
