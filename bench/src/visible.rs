//! When each document became visible to an application beside the engine.
//!
//! A reader with a connection of its own looks for new rows whenever the engine says that something came in, and takes
//! the time after it has really read them.

use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::Result;
use entgldb::{Event, Events, NoEvent};
use rusqlite::Connection;

use crate::clock::monotonic_ns;

/// How long the reader waits for the engine's word before it looks all the same.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// What has been seen so far. Outlives the engines and readers that come and go.
#[derive(Clone, Default)]
pub(crate) struct Visible(Arc<Shared>);

#[derive(Default)]
struct Shared {
    seen: Mutex<Seen>,
    more: Condvar,
}

#[derive(Default)]
struct Seen {
    /// Ids in the order in which they were read, each with its time in nanoseconds.
    rows: Vec<(String, u64)>,
    last_rowid: i64,
}

impl Visible {
    /// Starts a reader, which goes on for as long as the engine sends events.
    pub(crate) fn watch(&self, database: &Path, events: Events) -> Result<JoinHandle<Result<()>>> {
        let connection = Connection::open(database)?;
        let visible = self.clone();
        Ok(std::thread::spawn(move || {
            while wait_for_news(&events) {
                visible.look(&connection)?;
            }
            visible.look(&connection)
        }))
    }

    fn look(&self, connection: &Connection) -> Result<()> {
        let after = self.seen().last_rowid;
        let mut statement =
            connection.prepare_cached("SELECT rowid, id FROM d WHERE rowid > ?1 ORDER BY rowid")?;
        let rows: Vec<(i64, String)> =
            statement.query_map([after], |row| Ok((row.get(0)?, row.get(1)?)))?.collect::<Result<_, _>>()?;
        let now = monotonic_ns();
        if let Some((last, _)) = rows.last() {
            let mut seen = self.seen();
            seen.last_rowid = *last;
            seen.rows.extend(rows.into_iter().map(|(_, id)| (id, now)));
            self.0.more.notify_all();
        }
        Ok(())
    }

    /// Waits until so many documents were seen; the time when the last of them was.
    pub(crate) fn wait_for(&self, count: usize) -> u64 {
        let mut seen = self.seen();
        while seen.rows.len() < count {
            seen = self.0.more.wait(seen).unwrap_or_else(PoisonError::into_inner);
        }
        count.checked_sub(1).map_or_else(monotonic_ns, |last| seen.rows[last].1)
    }

    /// All documents seen, with their times.
    pub(crate) fn times(&self) -> Vec<(String, u64)> {
        self.seen().rows.clone()
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.0.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Waits until something came in, or it is time to look anyway. False when the engine has stopped.
fn wait_for_news(events: &Events) -> bool {
    let deadline = Instant::now() + LOOK_EVERY;
    loop {
        match events.next(deadline.saturating_duration_since(Instant::now())) {
            Ok(Event::Applied { .. } | Event::Lost { .. }) | Err(NoEvent::Timeout) => return true,
            Err(NoEvent::Stopped) => return false,
            // What the application itself writes is no news to it.
            Ok(_) => {}
        }
    }
}
