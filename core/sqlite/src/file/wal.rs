//! Commits that reach the disk after the write lock is given up.
//!
//! SQLite syncs the WAL inside of a commit, with the lock held: a program with a short timeout fails while the disk works, and a
//! busy disk takes a tenth of a second. So our larger transactions commit without a sync, and sync the WAL themselves before
//! anybody is told that they are done. What is durable when it is acknowledged stays the same: a WAL is read from its beginning,
//! so a sync of it covers all commits until then.

use std::fs::File;
use std::path::{Path, PathBuf};

use rusqlite::Connection;

use crate::failed::{Outcome, SqliteFailed, While};

/// The value of `PRAGMA synchronous` with which each commit is synced.
const FULL: i64 = 2;

/// The WAL of a connection, through a descriptor of our own. No locks are on this file, so closing it takes none away.
#[derive(Debug)]
pub(crate) struct WalFile {
    path: PathBuf,
    file: Option<File>,
}

impl WalFile {
    /// `None` if this connection does not sync its commits.
    pub(crate) fn of(connection: &Connection, wal: &Path) -> Outcome<Option<Self>> {
        let synchronous: i64 = connection
            .query_row("PRAGMA main.synchronous", [], |row| row.get(0))
            .doing("reading how commits are synced")?;
        Ok((synchronous == FULL).then(|| Self { path: wal.to_owned(), file: None }))
    }

    /// The next transaction commits without a sync.
    pub(crate) fn begin(&self, connection: &Connection) -> Outcome<()> {
        batch(connection, "PRAGMA main.synchronous = NORMAL")
    }

    /// Syncs what was committed. Later transactions sync by themselves.
    pub(crate) fn end(&mut self, connection: &Connection, committed: bool) -> Outcome<()> {
        batch(connection, "PRAGMA main.synchronous = FULL")?;
        if committed { self.sync() } else { Ok(()) }
    }

    fn sync(&mut self) -> Outcome<()> {
        let failed = |source| SqliteFailed::Sync { path: self.path.clone(), source };
        let file = match self.file.take() {
            Some(file) => file,
            // Kept open: a sync reports only errors that came after its descriptor was opened. Windows syncs what may be written.
            None => File::options().read(true).write(true).open(&self.path).map_err(failed)?,
        };
        file.sync_data().map_err(failed)?;
        self.file = Some(file);
        Ok(())
    }
}

fn batch(connection: &Connection, sql: &'static str) -> Outcome<()> {
    connection.execute_batch(sql).doing("changing how commits are synced")
}
