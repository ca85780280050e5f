//! Noticing within milliseconds that another process has written to the database.
//!
//! Every commit appends to the `-wal` file beside the database, and the operating system tells of writes to it. The
//! message comes when the frames are written, which is *before* the commit can be seen by readers. So whoever is woken
//! must look again for a few milliseconds before it goes back to sleep, and now and then without being woken, because a
//! file system may tell nothing at all (network folders, some containers).

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use notify::event::ModifyKind;
use notify::{Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher};

/// Watches the files of a database and wakes somebody up when they are written to. Stops when dropped.
pub struct Waker {
    /// `None` if the operating system cannot notify.
    watcher: Option<RecommendedWatcher>,
    folder: PathBuf,
    is_resting: bool,
    reason: Option<String>,
    pending: Arc<AtomicBool>,
}

impl std::fmt::Debug for Waker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Waker").field("notifies", &self.watcher.is_some()).finish_non_exhaustive()
    }
}

impl Waker {
    /// Watches the database at `path`, which must exist. `wake` is called on a thread of its own when the database has
    /// been written to, and not again before [`Waker::rearm`]: however busy the writers are, at most one call is owed.
    ///
    /// If the operating system cannot notify, `wake` is never called and [`Waker::why_deaf`] says why: the caller then
    /// has to look more often by itself.
    pub fn start(path: &Path, wake: impl Fn() + Send + Sync + 'static) -> Self {
        let pending = Arc::new(AtomicBool::new(false));
        let (watcher, folder, reason) = match watch(path, pending.clone(), wake) {
            Ok((watcher, folder)) => (Some(watcher), folder, None),
            Err(error) => (None, PathBuf::new(), Some(error.to_string())),
        };
        Self { watcher, folder, is_resting: false, reason, pending }
    }

    /// Lets the next write wake again. To be called *before* looking into the outbox: what is written while one looks
    /// then wakes anew.
    pub fn rearm(&mut self) {
        self.pending.store(false, Ordering::SeqCst);
        if std::mem::take(&mut self.is_resting)
            && let Some(watcher) = &mut self.watcher
            && let Err(error) = watcher.watch(&self.folder, RecursiveMode::NonRecursive)
        {
            self.reason = Some(error.to_string());
        }
    }

    /// Stops listening until [`Waker::rearm`]. Being listened to costs a writer a few microseconds for every page; a
    /// caller that looks by the clock anyway, because there is always something, spares it that.
    pub fn rest(&mut self) {
        if !self.is_resting
            && let Some(watcher) = &mut self.watcher
            && watcher.unwatch(&self.folder).is_ok()
        {
            self.is_resting = true;
        }
    }

    /// Why nobody will ever be woken; `None` if notifications work.
    #[must_use]
    pub fn why_deaf(&self) -> Option<&str> {
        self.reason.as_deref()
    }
}

fn watch(
    path: &Path,
    pending: Arc<AtomicBool>,
    wake: impl Fn() + Send + Sync + 'static,
) -> notify::Result<(RecommendedWatcher, PathBuf)> {
    // SQLite follows links before it names the WAL.
    let database = path.canonicalize().map_err(notify::Error::io)?;
    let mut wal = database.clone().into_os_string();
    wal.push("-wal");
    let wal = PathBuf::from(wal);
    let folder = database.parent().unwrap_or(Path::new("/")).to_owned();
    let mut watcher = notify::recommended_watcher(move |event: notify::Result<Event>| {
        let concerns_us = match &event {
            Ok(event) => {
                // A reader that opens the WAL sets its permissions: that is no write.
                let written = match event.kind {
                    EventKind::Modify(what) => !matches!(what, ModifyKind::Metadata(_)),
                    EventKind::Create(_) | EventKind::Remove(_) | EventKind::Any => true,
                    _ => false,
                };
                let ours = event.paths.iter().any(|path| *path == wal || *path == database);
                (written && ours) || event.need_rescan()
            }
            // Events may have been lost: looking once too often costs nothing.
            Err(_) => true,
        };
        if concerns_us && !pending.swap(true, Ordering::SeqCst) {
            wake();
        }
    })?;
    // The folder, not the file: the WAL is removed and made anew as programs come and go.
    watcher.watch(&folder, RecursiveMode::NonRecursive)?;
    Ok((watcher, folder))
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_commit_wakes_once_until_it_is_armed_again_and_reading_does_not_wake() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("app.db");
        let app = rusqlite::Connection::open(&path).unwrap();
        app.execute_batch("PRAGMA journal_mode = WAL; CREATE TABLE t(a); INSERT INTO t VALUES(1)").unwrap();
        let (sender, woken) = mpsc::channel();
        let mut waker = Waker::start(&path, move || {
            let _ = sender.send(());
        });
        assert_eq!(waker.why_deaf(), None);
        let quiet = Duration::from_millis(100);
        let other = rusqlite::Connection::open(&path).unwrap();
        other.query_row("SELECT count(*) FROM t", [], |_| Ok(())).unwrap();
        assert!(woken.recv_timeout(quiet).is_err(), "reading is no reason to wake");
        for _ in 0..20 {
            app.execute_batch("INSERT INTO t VALUES(1)").unwrap();
        }
        woken.recv_timeout(Duration::from_secs(5)).unwrap();
        assert!(woken.recv_timeout(quiet).is_err(), "one wake is owed, not twenty");
        waker.rearm();
        app.execute_batch("INSERT INTO t VALUES(1)").unwrap();
        woken.recv_timeout(Duration::from_secs(5)).unwrap();
    }

    #[test]
    fn where_nothing_can_be_watched_it_says_so() {
        let waker = Waker::start(Path::new("/nowhere/at/all.db"), || {});
        assert!(waker.why_deaf().is_some());
    }
}
