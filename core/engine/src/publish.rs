//! Keeps a node's status true: in memory for its owner, in a file for other processes.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use entgldb_net::Traffic;
use entgldb_replica::Status as ReplicaStatus;
use tracing::debug;

use crate::clocks::wall_ms;
use crate::event::Event;
use crate::stalled::Stalled;
use crate::status::{State, Status, TrafficCounts};
use crate::store::StoreHealth;

/// The status is brought up to date and written at most this often.
pub(crate) const EVERY: Duration = Duration::from_secs(1);
/// "In sync just now" is news for the file only after so many milliseconds.
const IN_SYNC_NEWS_MS: u64 = 10_000;

/// See the module's documentation.
pub(crate) struct Publisher {
    status: Arc<Mutex<Status>>,
    path: PathBuf,
    due: Instant,
    stalled: Stalled,
}

impl Publisher {
    pub(crate) fn new(status: Arc<Mutex<Status>>, path: PathBuf) -> Self {
        Self { status, path, due: Instant::now(), stalled: Stalled::default() }
    }

    pub(crate) fn due(&self) -> Instant {
        self.due
    }

    fn lock(&self) -> MutexGuard<'_, Status> {
        self.status.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn state(&self) -> State {
        self.lock().state
    }

    pub(crate) fn set_state(&self, state: State) {
        self.lock().state = state;
    }

    pub(crate) fn name(&self) -> String {
        self.lock().name.clone()
    }

    /// Other tables are synced from now on.
    pub(crate) fn set_collections(&self, collections: Vec<String>) {
        self.lock().collections = collections;
    }

    pub(crate) fn note_error(&self, message: &str) {
        self.lock().last_error = Some(message.to_owned());
    }

    /// Counts what an event tells.
    pub(crate) fn note(&mut self, event: &Event) {
        if let Event::RefusedByPeer { node, detail } = event {
            self.stalled.refused(node, detail, wall_ms());
        }
        let mut status = self.lock();
        match event {
            Event::Captured { changes } => status.captured += *changes as u64,
            Event::Applied { entries, .. } => status.applied += *entries as u64,
            Event::Conflict { .. } => status.conflicts += 1,
            Event::Problem { message, .. } => status.last_error = Some(message.clone()),
            Event::Refused { detail, .. } | Event::RefusedByPeer { detail, .. } => {
                status.last_error = Some(detail.clone());
            }
            Event::Blocked { reason, .. } => status.last_error = Some(reason.clone()),
            _ => {}
        }
    }

    /// Brings the status up to date, and writes its file if there is news.
    pub(crate) fn publish(
        &mut self,
        replica: Option<(ReplicaStatus, StoreHealth)>,
        traffic: Traffic,
        database: &Path,
    ) {
        self.due = Instant::now() + EVERY;
        let database_bytes = database_bytes(database);
        let (stalled, status) = (&mut self.stalled, &self.status);
        let mut status = status.lock().unwrap_or_else(PoisonError::into_inner);
        let before = status.clone();
        match replica {
            Some((replica, store)) => {
                status.follow(replica);
                let came = status.applied + status.snapshot.as_ref().map_or(0, |snapshot| snapshot.rows);
                let found = stalled.find(&status.peers, came, wall_ms());
                status.blocked.extend(found);
                (status.problems, status.tables, status.host) = (store.problems, store.tables, store.host);
            }
            None => {
                status.peers.clear();
                status.blocked.clear();
            }
        }
        status.traffic = traffic.into();
        status.database_bytes = database_bytes;
        if status.at_ms > 0 && plain(&before) == plain(&status) {
            return;
        }
        status.at_ms = wall_ms();
        let copy = status.clone();
        drop(status);
        if let Err(error) = copy.write(&self.path) {
            debug!(%error, "the status file could not be written");
        }
    }
}

/// A status without what changes while nothing happens: digests go to and fro, clocks drift.
fn plain(status: &Status) -> Status {
    let mut plain = status.clone();
    plain.traffic = TrafficCounts::default();
    for peer in &mut plain.peers {
        peer.skew_ms = 0;
        peer.in_sync_ms = peer.in_sync_ms.map(|at| at / IN_SYNC_NEWS_MS);
    }
    plain
}

fn database_bytes(path: &Path) -> u64 {
    let size = |suffix: &str| {
        let mut name = path.as_os_str().to_owned();
        name.push(suffix);
        std::fs::metadata(name).map_or(0, |meta| meta.len())
    };
    size("") + size("-wal")
}
