//! The one thread that owns the replica and its store.
//!
//! It waits for the first of: something from the network, a commit of another process to the database, a command, the
//! replica's next wake. It hands that to the replica and carries out what the replica answers. Nothing else calls the
//! replica, so the store is used from one thread, one call at a time, with no lock held.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crossbeam_channel::{Receiver, Sender, bounded};
use entgldb_net::{Frame, InFlight, NetEvent, SendError, Transport};
use entgldb_replica::clock::{Mono, Now, WallMillis};
use entgldb_replica::entry::AuthorKey;
use entgldb_replica::id::LinkId;
use entgldb_replica::{Config as ReplicaConfig, Input, Link, Output, Replica};
use entgldb_sqlite::{SqliteConfig, SqliteFailed, SqliteStore, Waker};
use tracing::{debug, error, info, warn};

use crate::event::Event;
use crate::hub::Hub;
use crate::node::SyncError;
use crate::status::{State, Status};
use crate::trust::Trust;

/// The database is looked at this often even if no file notification comes.
const POLL: Duration = Duration::from_millis(250);
/// The same where the operating system can't notify.
const POLL_DEAF: Duration = Duration::from_millis(25);
/// After a notification the commit may not be visible yet: looked at again after so many microseconds each.
const LOOK_AGAIN_US: [u64; 6] = [100, 300, 1_000, 3_000, 10_000, 30_000];
/// After a capture the next one waits a little, so that an application that writes without pause is not stopped at every
/// commit by ours: a short while after a few changes, longer after many (from so many on).
const CAPTURE_AGAIN: (Duration, Duration) = (Duration::from_millis(2), Duration::from_millis(20));
/// See [`CAPTURE_AGAIN`].
const MANY_CHANGES: usize = 16;
/// So many times in a row there was something: the application writes all the while.
const STREAK_TO_REST: u32 = 2;
/// The status is brought up to date and written at most this often.
const STATUS_EVERY: Duration = Duration::from_secs(1);
/// First and longest wait before a failed store is opened again.
const REOPEN: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(30));

/// What the thread waits for.
pub(crate) enum Message {
    Net(NetEvent),
    /// The database's files changed.
    Wake,
    AddPeer(String),
    SyncNow {
        deadline: Instant,
        reply: Sender<Result<(), SyncError>>,
    },
    Stop,
}

/// The caller's two clocks.
#[derive(Clone, Copy)]
pub(crate) struct Clocks(Instant);

impl Clocks {
    pub(crate) fn start() -> Self {
        Self(Instant::now())
    }

    fn now(self) -> Now {
        let mono = Mono(u64::try_from(self.0.elapsed().as_millis()).unwrap_or(u64::MAX));
        Now { mono, wall: WallMillis(wall_ms()) }
    }

    /// How long until that time.
    fn until(self, mono: Mono) -> Duration {
        Duration::from_millis(mono.0).saturating_sub(self.0.elapsed())
    }
}

pub(crate) fn wall_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// What is needed to open the store and the replica, again and again if need be.
pub(crate) struct Recipe {
    pub(crate) store: SqliteRecipe,
    pub(crate) replica: ReplicaConfig,
    pub(crate) key: AuthorKey,
    pub(crate) peers: Vec<String>,
}

/// What is needed to open the store.
pub(crate) struct SqliteRecipe {
    pub(crate) path: PathBuf,
    pub(crate) watch: Vec<String>,
    pub(crate) durability: entgldb_sqlite::Durability,
    pub(crate) payload_bytes_max: usize,
    pub(crate) stop: Arc<AtomicBool>,
    pub(crate) hub: Hub,
}

impl SqliteRecipe {
    pub(crate) fn open(&self) -> Result<SqliteStore, entgldb_sqlite::OpenError> {
        let hub = self.hub.clone();
        SqliteStore::open(SqliteConfig {
            path: self.path.clone(),
            watch: self.watch.clone(),
            durability: self.durability,
            payload_bytes_max: self.payload_bytes_max,
            stop: Arc::clone(&self.stop),
            on_busy: Some(Box::new(move |waited| {
                let for_ms = u64::try_from(waited.as_millis()).unwrap_or(u64::MAX);
                warn!(for_ms, "the database is locked by another program; waiting");
                hub.tell(&Event::StoreBusy { for_ms });
            })),
        })
    }
}

/// The thread's state.
pub(crate) struct Driver {
    recipe: Recipe,
    replica: Option<Replica<SqliteStore>>,
    transport: Transport,
    inbox: Receiver<Message>,
    clocks: Clocks,
    trust: Trust,
    hub: Hub,
    status: Arc<Mutex<Status>>,
    status_path: PathBuf,
    status_due: Instant,
    /// How often it was looked in vain since the last sign of a write.
    looks: usize,
    look_at: Instant,
    /// How often in a row something was found.
    streak: u32,
    /// Whether the next write wakes.
    armed: bool,
    /// No capture before this.
    capture_at: Instant,
    reopen_at: Instant,
    reopen_wait: Duration,
    waiting: Vec<(Instant, Sender<Result<(), SyncError>>)>,
    waker: Waker,
}

/// Parts of a driver that [`crate::node`] has made.
pub(crate) struct Parts {
    pub(crate) recipe: Recipe,
    pub(crate) store: SqliteStore,
    pub(crate) transport: Transport,
    pub(crate) inbox: Receiver<Message>,
    pub(crate) clocks: Clocks,
    pub(crate) trust: Trust,
    pub(crate) hub: Hub,
    pub(crate) status: Arc<Mutex<Status>>,
    pub(crate) status_path: PathBuf,
    pub(crate) waker: Waker,
}

impl Driver {
    /// Opens the replica over a freshly opened store.
    pub(crate) fn new(parts: Parts) -> Result<Self, SqliteFailed> {
        let now = Instant::now();
        let mut driver = Self {
            recipe: parts.recipe,
            replica: None,
            transport: parts.transport,
            inbox: parts.inbox,
            clocks: parts.clocks,
            trust: parts.trust,
            hub: parts.hub,
            status: parts.status,
            status_path: parts.status_path,
            status_due: now,
            looks: LOOK_AGAIN_US.len(),
            look_at: now,
            streak: 0,
            armed: true,
            capture_at: now,
            reopen_at: now,
            reopen_wait: REOPEN.0,
            waiting: Vec::new(),
            waker: parts.waker,
        };
        if let Some(reason) = driver.waker.why_deaf() {
            warn!(reason, "no notifications of file changes here: looking every 25 ms instead");
        }
        driver.adopt(parts.store)?;
        driver.publish(true);
        Ok(driver)
    }

    /// Runs until it is told to stop.
    pub(crate) fn run(mut self) {
        let name = self.status().name.clone();
        let _span = tracing::info_span!("node", name).entered();
        loop {
            match self.inbox.recv_timeout(self.wait()) {
                Ok(Message::Stop) => break,
                Ok(message) => self.take(message),
                Err(crossbeam_channel::RecvTimeoutError::Timeout) => self.take_time(),
                Err(crossbeam_channel::RecvTimeoutError::Disconnected) => break,
            }
            let answered = self.answer_waiting();
            self.publish(answered);
        }
        self.replica = None;
        for (_, reply) in self.waiting.drain(..) {
            let _ = reply.send(Err(SyncError::Stopped));
        }
        self.set_state(State::Stopped);
        self.publish(true);
        info!("stopped");
        self.tell(&Event::Stopped);
        self.hub.end();
    }

    fn wait(&self) -> Duration {
        let mut wait = self.status_due.saturating_duration_since(Instant::now());
        match &self.replica {
            Some(replica) => {
                wait = wait.min(self.clocks.until(replica.next_wake()));
                wait = wait.min(self.look_at.saturating_duration_since(Instant::now()));
            }
            None => wait = wait.min(self.reopen_at.saturating_duration_since(Instant::now())),
        }
        if let Some(deadline) = self.waiting.iter().map(|(deadline, _)| *deadline).min() {
            wait = wait.min(deadline.saturating_duration_since(Instant::now()));
        }
        // Never asleep for long after a state that never changes again.
        wait.min(STATUS_EVERY)
    }

    fn take(&mut self, message: Message) {
        match message {
            Message::Net(event) => self.take_net(event),
            Message::Wake => {
                self.armed = false;
                self.looks = 0;
                self.look_at = self.capture_at;
                if Instant::now() >= self.look_at {
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
            Message::SyncNow { deadline, reply } => {
                self.waiting.push((deadline, reply));
                self.input(Input::SyncNow);
            }
            Message::Stop => unreachable!("the loop ends on it"),
        }
    }

    fn take_time(&mut self) {
        if self.replica.is_none() {
            if Instant::now() >= self.reopen_at && self.state() != State::Failed {
                self.reopen();
            }
            return;
        }
        if Instant::now() >= self.look_at {
            self.look();
        }
        let due = self.replica.as_ref().is_some_and(|replica| replica.next_wake() <= self.clocks.now().mono);
        if due {
            self.input(Input::Tick);
        }
    }

    /// Looks whether the application has written something, and decides when to look again.
    ///
    /// While there is always something, the clock alone says when: the waker rests. Once there is nothing it is armed, and
    /// then looked again at once and a few times more, because what is written meanwhile may not be visible yet.
    fn look(&mut self) {
        let Some(replica) = &mut self.replica else { return };
        let store = replica.store();
        let found = store.outbox_is_empty().and_then(|empty| Ok(!empty || store.is_scanning()?));
        match found {
            Ok(true) => {
                self.streak += 1;
                if self.streak >= STREAK_TO_REST {
                    self.armed = false;
                    self.waker.rest();
                }
                self.input(Input::LocalChange);
                self.looks = 0;
                self.look_at = self.capture_at.max(Instant::now() + Duration::from_micros(LOOK_AGAIN_US[0]));
            }
            Ok(false) => {
                self.streak = 0;
                if !std::mem::replace(&mut self.armed, true) {
                    self.waker.rearm();
                    self.look_at = Instant::now();
                    return;
                }
                let poll = if self.waker.why_deaf().is_some() { POLL_DEAF } else { POLL };
                let wait = LOOK_AGAIN_US.get(self.looks).map_or(poll, |us| Duration::from_micros(*us));
                self.looks += 1;
                self.look_at = Instant::now() + wait;
            }
            Err(failed) => self.store_failed(&failed),
        }
    }

    fn take_net(&mut self, event: NetEvent) {
        match event {
            NetEvent::LinkUp { link, peer, address, we_dialled, target } => {
                let admitted = self.trust.admit(&peer.name, peer.node, wall_ms());
                let reason = match admitted {
                    Ok(Ok(())) => None,
                    Ok(Err(untrusted)) => Some(untrusted.to_string()),
                    Err(error) => Some(error.to_string()),
                };
                if let Some(reason) = reason {
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
                self.input(Input::LinkDown { link, reason: reason.to_string() });
            }
            NetEvent::DialFailed { target, reason } => {
                let reason = reason.to_string();
                debug!(target, reason, "dial failed");
                self.tell(&Event::DialFailed { target: target.clone(), reason: reason.clone() });
                self.input(Input::DialFailed { target, reason });
            }
            NetEvent::Refused { address, reason } => debug!(%address, %reason, "stranger refused"),
            _ => {}
        }
    }

    /// The permit is given back when the frame has been dealt with.
    fn take_frame(&mut self, link: LinkId, frame: Frame, permit: InFlight) {
        self.input(Input::Frame { link, kind: frame.kind, body: frame.body });
        drop(permit);
    }

    fn input(&mut self, input: Input) {
        let now = self.clocks.now();
        let Some(replica) = &mut self.replica else {
            // Without a store nobody can be talked to: peers come again.
            if let Input::LinkUp(link) = input {
                self.transport.close(link.id, "the store is not available");
            }
            return;
        };
        match replica.handle(now, input) {
            Ok(outputs) => self.carry_out(outputs),
            Err(failed) => self.store_failed(&failed.0),
        }
    }

    fn carry_out(&mut self, outputs: Vec<Output>) {
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

    fn adopt(&mut self, store: SqliteStore) -> Result<(), SqliteFailed> {
        let now = self.clocks.now();
        let mut seed = [0; 8];
        getrandom::fill(&mut seed).expect("the operating system gives random bytes");
        let seed = u64::from_le_bytes(seed);
        let (config, key) = (self.recipe.replica.clone(), self.recipe.key.clone());
        let mut replica = Replica::open(config, store, key, seed, now).map_err(|failed| failed.0)?;
        for target in &self.recipe.peers {
            if let Err(refused) = replica.add_peer(target, now) {
                self.hub.tell(&Event::DialFailed { target: target.clone(), reason: refused.to_string() });
            }
        }
        self.replica = Some(replica);
        self.set_state(State::Running);
        self.input(Input::LocalChange);
        Ok(())
    }

    /// A store error is final for the replica. What is durable is opened again, unless the disk itself has failed.
    fn store_failed(&mut self, failed: &SqliteFailed) {
        let Some(replica) = self.replica.take() else { return };
        for peer in replica.links() {
            self.transport.close(peer, "the store failed");
        }
        drop(replica);
        let retry = !failed.is_final();
        let message = failed.to_string();
        error!(message, retry, "the store failed");
        self.set_state(if retry { State::Recovering } else { State::Failed });
        self.note_error(&message);
        self.tell(&Event::StoreError { message, retry });
        self.wait_to_reopen();
    }

    fn wait_to_reopen(&mut self) {
        self.reopen_at = Instant::now() + self.reopen_wait;
        self.reopen_wait = (self.reopen_wait * 2).min(REOPEN.1);
    }

    fn reopen(&mut self) {
        let opened = self.recipe.store.open().map_err(|error| error.to_string());
        match opened.and_then(|store| self.adopt(store).map_err(|failed| failed.to_string())) {
            Ok(()) => {
                self.reopen_wait = REOPEN.0;
                info!("the store is open again");
            }
            Err(message) => {
                warn!(message, "the store can't be opened yet");
                self.note_error(&message);
                self.tell(&Event::StoreError { message, retry: true });
                self.wait_to_reopen();
            }
        }
    }

    /// Answers those who wait for both sides to be level; whether it answered anybody.
    fn answer_waiting(&mut self) -> bool {
        if self.waiting.is_empty() {
            return false;
        }
        let before = self.waiting.len();
        let level = self.replica.as_ref().is_some_and(Replica::is_level);
        let status = self.replica.as_ref().map(Replica::status);
        let now = Instant::now();
        self.waiting.retain(|(deadline, reply)| {
            if level {
                let _ = reply.send(Ok(()));
                return false;
            }
            if now < *deadline {
                return true;
            }
            let answer = match &status {
                None => SyncError::StoreFailed,
                Some(status) if status.peers.is_empty() => SyncError::NoPeer,
                Some(status) => SyncError::Timeout {
                    behind: status.peers.iter().map(|peer| peer.behind).max().unwrap_or_default(),
                    ahead: status.peers.iter().map(|peer| peer.ahead).max().unwrap_or_default(),
                },
            };
            let _ = reply.send(Err(answer));
            false
        });
        self.waiting.len() < before
    }

    fn tell(&mut self, event: &Event) {
        if let Event::Captured { changes } = event {
            let pause = if *changes < MANY_CHANGES { CAPTURE_AGAIN.0 } else { CAPTURE_AGAIN.1 };
            self.capture_at = Instant::now() + pause;
        }
        let mut status = self.status();
        match event {
            Event::Captured { changes } => status.captured += *changes as u64,
            Event::Applied { entries, .. } => status.applied += *entries as u64,
            Event::Conflict { .. } => status.conflicts += 1,
            Event::Problem { message, .. } => {
                status.problems += 1;
                status.last_error = Some(message.clone());
            }
            Event::Refused { detail, .. } | Event::RefusedByPeer { detail, .. } => {
                status.last_error = Some(detail.clone());
            }
            _ => {}
        }
        drop(status);
        log(event);
        self.hub.tell(event);
    }

    fn status(&self) -> std::sync::MutexGuard<'_, Status> {
        self.status.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    fn state(&self) -> State {
        self.status().state
    }

    fn set_state(&mut self, state: State) {
        self.status().state = state;
    }

    fn note_error(&mut self, message: &str) {
        self.status().last_error = Some(message.to_owned());
    }

    /// Brings the status up to date and writes its file, at most once a second and only if something happened.
    fn publish(&mut self, now: bool) {
        if !now && Instant::now() < self.status_due {
            return;
        }
        self.status_due = Instant::now() + STATUS_EVERY;
        let traffic = self.transport.traffic().into();
        let replica = self.replica.as_ref().map(Replica::status);
        let database_bytes = database_bytes(&self.recipe.store.path);
        let mut status = self.status();
        let before = status.clone();
        match replica {
            Some(replica) => status.follow(replica),
            None => status.peers.clear(),
        }
        status.traffic = traffic;
        status.database_bytes = database_bytes;
        if !now && !differs(&before, &status) {
            return;
        }
        status.at_ms = wall_ms();
        let copy = status.clone();
        drop(status);
        if let Err(error) = copy.write(&self.status_path) {
            debug!(%error, "the status file could not be written");
        }
    }
}

/// Whether a status tells more than that digests went to and fro.
fn differs(before: &Status, after: &Status) -> bool {
    let plain = |status: &Status| {
        let mut plain = status.clone();
        plain.traffic = Default::default();
        for peer in &mut plain.peers {
            peer.skew_ms = 0;
            // Whole minutes: a status file that says "in sync just now" need not be written each second.
            peer.in_sync_ms = peer.in_sync_ms.map(|at| at / 10_000);
        }
        plain
    };
    plain(before) != plain(after)
}

fn database_bytes(path: &std::path::Path) -> u64 {
    let size = |suffix: &str| {
        let mut name = path.as_os_str().to_owned();
        name.push(suffix);
        std::fs::metadata(name).map_or(0, |meta| meta.len())
    };
    size("") + size("-wal")
}

fn log(event: &Event) {
    match event {
        Event::PeerUp { name, .. } => info!(name, "peer up"),
        Event::PeerDown { name, reason, .. } => info!(name, reason, "peer down"),
        Event::Conflict { collection, .. } => info!(collection, "conflict"),
        Event::CaughtUp { node } => debug!(node, "caught up"),
        Event::ClockSkew { node, detail } => warn!(node, detail, "clock skew"),
        Event::Refused { node, detail } => error!(node, detail, "entries refused"),
        Event::RefusedByPeer { node, detail } => error!(node, detail, "entries refused by the peer"),
        Event::Forked { node, log, seq } => error!(node, log, seq, "a log has forked"),
        Event::RolledBack { node, log } => warn!(node, log, "this database was rolled back"),
        Event::Diverged { node } => error!(node, "equal vectors and unequal rows; run `entgldb verify`"),
        // The key and the message may hold what a document holds.
        Event::Problem { collection, kind, .. } => warn!(collection, kind, "a document has a problem"),
        _ => {}
    }
}

/// A channel for the thread.
pub(crate) fn channel() -> (Sender<Message>, Receiver<Message>) {
    crossbeam_channel::unbounded()
}

/// A channel for one answer.
pub(crate) fn reply() -> (Sender<Result<(), SyncError>>, Receiver<Result<(), SyncError>>) {
    bounded(1)
}

/// Tells a store that waits for a lock to give up.
pub(crate) fn interrupt(stop: &AtomicBool) {
    stop.store(true, Ordering::Relaxed);
}
