//! A connection that writes only while the file is the one that this engine has claimed.
//!
//! The file holds a token, drawn when it was opened, and a counter of our commits. Every write transaction compares both and
//! raises the counter. So whatever happens to the file (another engine takes it, a copy is put back, also one of this very
//! run), nothing of ours is written that was decided for another content.

use std::cell::Cell;
use std::ops::Deref;
use std::path::Path;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use rusqlite::config::DbConfig;
use rusqlite::{Connection, ErrorCode};

use crate::failed::{Outcome, SqliteFailed, While, code};
use crate::file::change::FileChange;
use crate::file::holder::{CHALLENGE, HOLDER, Holder, TOKEN, Token, remove};
use crate::file::identity::{Identity, Log};

/// The path is looked at this often at most: two calls of the operating system each.
const LOOK_EVERY: Duration = Duration::from_millis(10);
/// A log to which nobody has written for so long is moved into the database and emptied.
const QUIET: Duration = Duration::from_secs(1);

const RAISE: &str = "UPDATE main._entgldb_meta SET value = ?1 + 1 WHERE name = 'commits' AND value = ?1
                     AND EXISTS(SELECT 1 FROM main._entgldb_meta WHERE name = 'token' AND value = ?2)";
const STATE: &str = "SELECT (SELECT value FROM main._entgldb_meta WHERE name = 'token'),
                     (SELECT value FROM main._entgldb_meta WHERE name = 'commits'),
                     EXISTS(SELECT 1 FROM main._entgldb_meta WHERE name = 'challenge')";

/// See the module's documentation. Reads as the connection that it is.
#[derive(Debug)]
pub(crate) struct Bound {
    connection: Connection,
    holder: Holder,
    identity: Identity,
    looked: Cell<Option<Instant>>,
    /// The log as it was last looked at, and since when it has been like that.
    log: Cell<Option<(Log, Instant)>>,
    lost: Cell<Option<FileChange>>,
}

impl Deref for Bound {
    type Target = Connection;

    fn deref(&self) -> &Connection {
        &self.connection
    }
}

impl Bound {
    /// A connection to the file at `path`, which `holder` has claimed.
    pub(crate) fn of(connection: Connection, holder: Holder, path: &Path) -> Outcome<Self> {
        let identity = Identity::of(path).map_err(SqliteFailed::FileChanged)?;
        Ok(Self {
            connection,
            holder,
            identity,
            looked: Cell::default(),
            log: Cell::default(),
            lost: Cell::default(),
        })
    }

    pub(crate) fn identity(&self) -> &Identity {
        &self.identity
    }

    /// Begins a write transaction.
    pub(crate) fn begin(&self) -> Outcome<()> {
        self.is_lost()?;
        self.connection.execute_batch("BEGIN IMMEDIATE").doing("beginning a transaction")?;
        self.raise().inspect_err(|_| self.roll_back())
    }

    /// Ends a write transaction, and keeps it.
    pub(crate) fn commit(&self) -> Outcome<()> {
        // Known before it can be seen: whoever begins next compares with it.
        self.holder.claim().commits += 1;
        self.connection.execute_batch("COMMIT").doing("committing").inspect_err(|_| {
            self.holder.claim().commits -= 1;
            self.roll_back();
        })
    }

    /// Ends a write transaction, if one is open, and keeps nothing of it.
    pub(crate) fn roll_back(&self) {
        if !self.connection.is_autocommit() {
            // The cause is reported; a rollback that fails leaves nothing behind either.
            let _ = self.connection.execute_batch("ROLLBACK");
        }
    }

    fn raise(&self) -> Outcome<()> {
        let (token, commits) = self.claimed();
        let raised =
            self.connection.prepare_cached(RAISE).and_then(|mut raise| raise.execute((commits, token)));
        match raised {
            Ok(1) => Ok(()),
            Ok(_) => Err(self.compare()?),
            Err(error) if code(&error) == Some(ErrorCode::Unknown) => {
                Err(self.lose(FileChange::NoEngineTables))
            }
            Err(error) => Err(error).doing("comparing the database with the one that was opened"),
        }
    }

    fn claimed(&self) -> (Token, i64) {
        let claim = self.holder.claim();
        (claim.token, claim.commits)
    }

    /// Says how the file differs from the one that was claimed.
    fn compare(&self) -> Outcome<SqliteFailed> {
        let (token, _, _) = self.state()?;
        let is_ours = token.is_some_and(|token| token == self.claimed().0);
        Ok(self.lose(if is_ours { FileChange::OtherState } else { FileChange::OtherRun }))
    }

    fn state(&self) -> Outcome<(Option<Vec<u8>>, Option<i64>, bool)> {
        let state = self.connection.prepare_cached(STATE).and_then(|mut state| {
            // Values of other types are none of ours.
            state.query_row([], |row| Ok((row.get(0).ok(), row.get(1).ok(), row.get(2)?)))
        });
        match state {
            Err(error) if code(&error) == Some(ErrorCode::Unknown) => {
                Err(self.lose(FileChange::NoEngineTables))
            }
            state => state.doing("comparing the database with the one that was opened"),
        }
    }

    /// Looks whether the file is still the one that was opened, and answers another engine that asks whether this one is at
    /// work. Costs some microseconds.
    pub(crate) fn look(&self) -> Outcome<()> {
        self.is_lost()?;
        let now = Instant::now();
        if self.looked.get().is_none_or(|looked| now.duration_since(looked) >= LOOK_EVERY) {
            self.looked.set(Some(now));
            self.look_at_path()?;
            self.empty_quiet_log()?;
        }
        let (token, commits, is_asked) = self.state()?;
        let (our_token, our_commits) = self.claimed();
        if !is_asked && token.is_some_and(|token| token == our_token) && commits == Some(our_commits) {
            return Ok(());
        }
        // Once more with the write lock: another connection of ours may just have committed.
        self.begin()?;
        if !is_asked {
            self.roll_back();
            return Ok(());
        }
        remove(&self.connection, &[CHALLENGE]).inspect_err(|_| self.roll_back())?;
        self.commit()
    }

    /// How the file differs from the one that was opened, looked at now; `None` if it does not, or can't be read.
    pub(crate) fn change(&self) -> Option<FileChange> {
        self.looked.set(None);
        match self.look() {
            Err(SqliteFailed::FileChanged(change)) => Some(change),
            Ok(()) | Err(_) => None,
        }
    }

    /// Looks whether the path still leads to the file that was opened.
    pub(crate) fn look_at_path(&self) -> Outcome<()> {
        let found = self.identity.look().map_err(|change| self.lose(change))?;
        let is_new = |(log, _): (Log, Instant)| found != Some(log);
        if self.log.get().is_none_or(is_new) {
            self.log.set(found.map(|log| (log, Instant::now())));
        }
        Ok(())
    }

    /// Moves the log into the database and empties it, once it has been quiet for a while. With our connection open, the last
    /// close of an application no longer does that; and whoever replaces the database's file, as one may while nobody writes,
    /// must not leave a log with content beside the new one. Waits for nobody: what is in use is left for later.
    fn empty_quiet_log(&self) -> Outcome<()> {
        let Some((log, since)) = self.log.get().filter(|(log, _)| log.bytes > 0) else { return Ok(()) };
        let now = Instant::now();
        if now.duration_since(since) < QUIET {
            return Ok(());
        }
        self.log.set(Some((log, now)));
        let number = |sql: &str, column: usize| {
            self.connection.query_row(sql, [], |row| row.get::<_, i64>(column)).doing("emptying the log")
        };
        // Where this connection must not do it by itself, it must not do it here either.
        if number("PRAGMA wal_autocheckpoint", 0)? == 0 {
            return Ok(());
        }
        let hasty = self.holder.haste();
        hasty.store(true, Ordering::Relaxed);
        // First what lasts, which keeps nobody from writing; what is left to do with the write lock lasts for microseconds.
        let emptied = number("PRAGMA main.wal_checkpoint(PASSIVE)", 0)
            .and_then(|_| number("PRAGMA main.wal_checkpoint(TRUNCATE)", 0));
        hasty.store(false, Ordering::Relaxed);
        match emptied {
            Err(SqliteFailed::Stopped) => Ok(()),
            // What does not fit into the database stays in the log.
            Err(failed) if failed.is_disk_full() => Ok(()),
            emptied => emptied.map(drop),
        }
    }

    /// Says in the file that nobody works on it any more.
    pub(crate) fn release(&self) -> Outcome<()> {
        self.begin()?;
        remove(&self.connection, &[TOKEN, HOLDER, CHALLENGE]).inspect_err(|_| self.roll_back())?;
        self.commit()
    }

    fn is_lost(&self) -> Outcome<()> {
        self.lost.get().map_or(Ok(()), |change| Err(SqliteFailed::FileChanged(change)))
    }

    /// The file is another one: this connection must leave it as it is.
    fn lose(&self, change: FileChange) -> SqliteFailed {
        if self.lost.replace(Some(change)).is_none() {
            self.let_go(change);
        }
        SqliteFailed::FileChanged(change)
    }

    /// What is in the WAL that was opened must not get into another file. Only where the WAL has lost its name, and no other
    /// one is there, moving its content into the database is the way to keep it.
    fn let_go(&self, change: FileChange) {
        self.roll_back();
        self.holder.claim().leaves_log = self.log.get().is_some_and(|(log, _)| log.bytes == 0);
        if change == FileChange::WalMissing {
            let saved = self.connection.query_row("PRAGMA main.wal_checkpoint(PASSIVE)", [], |row| {
                Ok((row.get::<_, i64>(1)?, row.get::<_, i64>(2)?))
            });
            match saved {
                Ok((in_wal, saved)) => tracing::warn!(in_wal, saved, "pages saved from a deleted WAL"),
                Err(error) => tracing::error!(%error, "the content of a deleted WAL could not be saved"),
            }
        }
        if let Err(error) = self.connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true) {
            tracing::error!(%error, "the connection to a replaced database can't be closed without a checkpoint");
        }
    }
}
