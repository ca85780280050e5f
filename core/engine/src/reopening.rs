//! A store that has failed, and opening it again.
//!
//! A store error is final for the replica. What is durable is opened again, unless the disk itself has failed. If the file is
//! another one than the store had open, the path is followed: what is there now is opened, and looked through.

use std::path::Path;
use std::time::{Duration, Instant};

use entgldb_sqlite::{FileChange, OpenError};
use tracing::{error, info, warn};

use crate::driver::Driver;
use crate::event::Event;
use crate::status::State;
use crate::store::{StoreError, StoreOpenError};

/// First and longest wait before a failed store is opened again.
const REOPEN: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(30));
/// Longest wait while a path is followed: a look at it costs little.
const FOLLOW_EVERY: Duration = Duration::from_secs(2);
/// A file that was put at the path is opened once it has had the same size for so long: it may be copied bit by bit. One that
/// grows on and on is opened after the longer time.
const SETTLED: Duration = Duration::from_millis(500);
/// See [`SETTLED`].
const SETTLED_MAX: Duration = Duration::from_secs(10);
/// For so long a file that is no sound database counts as half copied.
const HALF_COPIED_MAX: Duration = Duration::from_secs(60);

/// When and how a failed store is opened again.
pub(crate) struct Reopening {
    at: Instant,
    wait: Duration,
    /// The last error that was told.
    told: Option<String>,
    /// Since when the path is followed.
    following: Option<Instant>,
    /// Bytes of the file at the path when it was last looked at.
    bytes: Option<u64>,
}

impl Default for Reopening {
    fn default() -> Self {
        Self { at: Instant::now(), wait: REOPEN.0, told: None, following: None, bytes: None }
    }
}

impl Reopening {
    pub(crate) fn due(&self) -> Instant {
        self.at
    }

    fn wait(&mut self) {
        let most = if self.following.is_some() { FOLLOW_EVERY } else { REOPEN.1 };
        self.at = Instant::now() + self.wait.min(most);
        self.wait = (self.wait * 2).min(most);
    }

    /// The path is followed from now on.
    fn follow(&mut self, change: FileChange, path: &Path) {
        let now = Instant::now();
        self.following.get_or_insert(now);
        self.bytes = bytes(path);
        let is_in_place = !matches!(change, FileChange::OtherFile | FileChange::Missing { .. });
        self.at = if is_in_place { now } else { now + SETTLED };
        self.wait = REOPEN.0;
    }

    /// Whether the file at the path is still growing. To be asked when it is due to be opened.
    fn is_unsettled(&mut self, path: &Path) -> bool {
        let bytes = bytes(path);
        let is_other = std::mem::replace(&mut self.bytes, bytes) != bytes && bytes.is_some();
        let is_unsettled = is_other && self.following.is_some_and(|since| since.elapsed() < SETTLED_MAX);
        if is_unsettled {
            self.at = Instant::now() + SETTLED;
        }
        is_unsettled
    }

    /// Whether the path has been followed for a short time only.
    fn is_young(&self) -> bool {
        self.following.is_some_and(|since| since.elapsed() < HALF_COPIED_MAX)
    }

    /// Whether an error is worth another try.
    fn may_pass(&self, error: &StoreOpenError) -> bool {
        let is_certain = matches!(
            error,
            StoreOpenError::Open(
                OpenError::InUse { .. } | OpenError::SeveralNames { .. } | OpenError::NewerFormat { .. }
            )
        );
        !error.is_final() || (self.is_young() && !is_certain)
    }
}

fn bytes(path: &Path) -> Option<u64> {
    std::fs::metadata(path).ok().map(|metadata| metadata.len())
}

impl Driver {
    /// Drops the replica with its store, and sees to what comes next.
    pub(crate) fn store_failed(&mut self, failed: &StoreError) {
        let Some(mut replica) = self.replica.take() else { return };
        // Whatever failed may have failed because the file is another one.
        let change = replica.store().file_change();
        self.mark.note(replica.mark());
        for peer in replica.links() {
            self.transport.close(peer, "the store failed");
        }
        drop(replica);
        if let Some(change) = change {
            self.file_changed(change);
            return;
        }
        let retry = !failed.is_final();
        let message = failed.to_string();
        error!(message, retry, "the store failed");
        self.publisher.set_state(if retry { State::Recovering } else { State::Failed });
        self.publisher.note_error(&message);
        self.tell(&Event::StoreError { message, retry });
        self.reopening.wait();
    }

    fn file_changed(&mut self, change: FileChange) {
        let mut detail = change.to_string();
        // At once: whoever opens the new file meanwhile would read the log of the old one.
        match self.recipe.store.holder.put_stale_log_aside() {
            Ok(None) => {}
            Ok(Some(aside)) => {
                let said =
                    format!(". The write-ahead log of the old file was put aside as {}", aside.display());
                detail.push_str(&said);
            }
            // It is tried again when the file is opened, and told then.
            Err(error) => warn!(%error, "the write-ahead log of the old file can't be put aside"),
        }
        self.publisher.set_state(State::Recovering);
        self.publisher.note_error(&detail);
        self.tell(&Event::DatabaseReplaced { change: change.name(), detail });
        self.reopening.follow(change, &self.recipe.store.path);
    }

    /// The files at the path have changed while nothing is open there.
    pub(crate) fn woken_while_closed(&mut self) {
        self.attention.rearm();
        if self.reopening.following.is_some()
            && let Err(error) = self.recipe.store.holder.put_stale_log_aside()
        {
            warn!(%error, "the write-ahead log of the old file can't be put aside");
        }
    }

    /// Opens the store again, if it is time.
    pub(crate) fn reopen(&mut self) {
        if self.reopening.is_unsettled(&self.recipe.store.path) {
            return;
        }
        let follows = self.reopening.following.is_some();
        let opened = self.recipe.open_store().and_then(|mut store| {
            if follows {
                store.look_through()?;
            }
            Ok(self.adopt(store)?)
        });
        let Err(error) = opened else {
            // It may have failed again at its first capture; then the wait goes on growing.
            if self.replica.is_some() {
                self.reopening = Reopening::default();
                self.attention.listen_to((self.waker)());
                info!("the store is open again");
            }
            return;
        };
        let (retry, message) = (self.reopening.may_pass(&error), error.to_string());
        if !retry {
            self.publisher.set_state(State::Failed);
        }
        self.publisher.note_error(&message);
        if !retry || self.reopening.told.as_ref() != Some(&message) {
            warn!(message, retry, "the store can't be opened");
            self.reopening.told = Some(message.clone());
            self.tell(&Event::StoreError { message, retry });
        }
        self.reopening.wait();
    }
}
