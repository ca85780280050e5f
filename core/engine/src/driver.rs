//! The one thread that owns the replica and its store.
//!
//! It waits for the first of: something from the network, a commit of another process to the database, a command, the
//! replica's next wake. It hands that to the replica and carries out what the replica answers. Nothing else calls the
//! replica, so the store is used from one thread, one call at a time, with no lock held.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender};
use entgldb_net::{Frame, NetEvent, SendError, Transport};
use entgldb_replica::event::Event as ReplicaEvent;
use entgldb_replica::id::{Collection, LinkId};
use entgldb_replica::{Config as ReplicaConfig, Input, Link, Output, Replica, wire};
use entgldb_sqlite::Waker;
use tracing::{debug, info, warn};

use crate::attention::Attention;
use crate::clocks::{Clocks, wall_ms};
use crate::command::Job;
use crate::control::Control;
use crate::event::Event;
use crate::held::{Held, HeldFrame};
use crate::hub::Hub;
use crate::mark::MarkFile;
use crate::progress::Progress;
use crate::publish::{self, Publisher};
use crate::recipe::{Keeping, Recipe};
use crate::reopening::Reopening;
use crate::status::State;
use crate::store::{AnyStore, StoreError};
use crate::sync_now::{Reply, SyncError};
use crate::trust::Trust;
use crate::turns::Turns;

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
    pub(crate) transport: Transport,
    inbox: Receiver<Message>,
    turns: Arc<Turns<NetEvent>>,
    /// Links of which something waits, in the order of their turns.
    line: VecDeque<LinkId>,
    pub(crate) clocks: Clocks,
    pub(crate) trust: Trust,
    hub: Hub,
    pub(crate) mark: MarkFile,
    pub(crate) control: Control,
    pub(crate) publisher: Publisher,
    pub(crate) attention: Attention,
    /// Changes of peers that wait until the application is not in the middle of something.
    pub(crate) held: Held,
    is_short_of_room: bool,
    pub(crate) reopening: Reopening,
    pub(crate) waker: Box<dyn Fn() -> Waker + Send>,
    pub(crate) progress: Progress,
    pub(crate) waiting: Vec<(Instant, Reply)>,
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
    /// Begins to listen to the database's files.
    pub(crate) waker: Box<dyn Fn() -> Waker + Send>,
}

impl Driver {
    /// Opens the replica over a freshly opened store.
    pub(crate) fn new(parts: Parts) -> Result<Self, StoreError> {
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
            attention: Attention::new((parts.waker)()),
            held: Held::default(),
            is_short_of_room: false,
            progress: Progress::default(),
            reopening: Reopening::default(),
            waker: parts.waker,
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
            self.tell_caught_up();
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
                wait = wait.min(self.held.until(Instant::now()));
            }
            None => wait = wait.min(self.reopening.due().saturating_duration_since(Instant::now())),
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
            Message::Wake if self.replica.is_none() => self.woken_while_closed(),
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
        if more && self.held.is_due(Instant::now()) {
            self.let_in();
        }
    }

    fn take_time(&mut self) {
        if self.replica.is_none() {
            if Instant::now() >= self.reopening.due() && self.publisher.state() != State::Failed {
                self.reopen();
            }
            return;
        }
        if self.attention.is_due() {
            self.look();
        }
        if self.held.is_due(Instant::now()) {
            self.let_in();
        }
        let due = self.replica.as_ref().is_some_and(|replica| replica.next_wake() <= self.clocks.now().mono);
        if due {
            self.input(Input::Tick);
        }
    }

    fn take_net(&mut self, event: NetEvent) {
        if !matches!(event, NetEvent::Frame { .. }) {
            self.let_in();
        }
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
            NetEvent::Frame { link, frame, permit } => self.take_frame(HeldFrame { link, frame, permit }),
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
        self.notice_names();
    }

    /// Opens the store again when members sync one of its tables under another name, which it has then.
    fn notice_names(&mut self) {
        let is_known_otherwise = |replica: &mut Replica<AnyStore>| replica.store().is_known_otherwise();
        let Some(mut replica) = self.replica.take_if(is_known_otherwise) else { return };
        let before = replica.store().collections().to_vec();
        self.mark.note(replica.mark());
        for link in replica.links() {
            self.transport.close(link, "a table is synced under another name from now on");
        }
        drop(replica);
        self.reopen();
        let Some(replica) = &mut self.replica else { return };
        let collections: Vec<String> =
            replica.store().collections().iter().map(ToString::to_string).collect();
        warn!(
            ?before,
            ?collections,
            "members sync a table under another name, which it has here too from now on"
        );
        self.publisher.set_collections(collections.clone());
        self.tell(&Event::Collections { collections });
        self.publish(true);
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
                // Told once nothing is left to capture.
                Output::Event(ReplicaEvent::CaughtUp { node }) => self.progress.caught_up(node),
                Output::Event(event) => {
                    if let Some(event) = Event::from_replica(event) {
                        self.tell(&event);
                    }
                }
            }
        }
    }

    pub(crate) fn adopt(&mut self, store: AnyStore) -> Result<(), StoreError> {
        let now = self.clocks.now();
        let mut seed = [0; 8];
        getrandom::fill(&mut seed).expect("the operating system gives random bytes");
        let seed = u64::from_le_bytes(seed);
        let key = self.recipe.key.clone();
        // In the schema's spelling, which is that of the collections.
        let interests: BTreeSet<Collection> = store.collections().iter().cloned().collect();
        let mut config = ReplicaConfig { mark: self.mark.mark(), ..self.recipe.replica.clone() };
        if store.has_tables() {
            let named = |collection: &&Collection| {
                let is_it = |name: &Collection| name.as_str().eq_ignore_ascii_case(collection.as_str());
                config.merging.iter().any(is_it)
            };
            config.merging = interests.iter().filter(named).cloned().collect();
        }
        config.interests = interests;
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
}

/// A channel for the thread.
pub(crate) fn channel() -> (Sender<Message>, Receiver<Message>) {
    crossbeam_channel::unbounded()
}

/// Tells a store that waits for a lock to give up.
pub(crate) fn interrupt(stop: &AtomicBool) {
    stop.store(true, Ordering::Relaxed);
}
