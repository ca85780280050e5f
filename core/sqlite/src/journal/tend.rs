//! Work on the journal that may wait: old conflicts and what is forgotten go, and a WAL that has grown is moved into the
//! database.

use entgldb_replica::clock::WallMillis;
use entgldb_replica::limits::CONFLICT_LIST_BYTES_MAX;
use entgldb_replica::store::FirstCopy;

use crate::failed::{Outcome, While};
use crate::file::connection::in_transaction;
use crate::journal::conflicts;
use crate::journal::journal::Journal;

/// Size of the WAL above which it is moved into the database, in bytes.
const WAL_LARGE: u64 = 16 << 20;
/// How much longer two first copies that differ are kept, in milliseconds: it may take a while until somebody notices.
const FIRST_COPY_MS: u64 = 29 * 24 * 3_600_000;
/// Conflicts that are old: `?1` is the time before which they were noted, `?2` the last time of first copies, `?3` the time for
/// those.
const OLD: &str = "noted_at < ?1 AND (winner_hlc > ?2 OR noted_at < ?3)";

impl Journal {
    pub(crate) fn tend(&mut self, conflicts_before: WallMillis) -> Outcome<()> {
        // None of this is worth the last room on a disk.
        if self.has_room() {
            self.drop_conflicts(conflicts_before)?;
            self.bound_conflicts()?;
            self.remove_forgotten()?;
        }
        self.checkpoint()
    }

    fn drop_conflicts(&mut self, before: WallMillis) -> Outcome<()> {
        let first_copy = FirstCopy::TIME_MAX.0.cast_signed();
        let bounds =
            (before.0.cast_signed(), first_copy, before.0.saturating_sub(FIRST_COPY_MS).cast_signed());
        let old: bool = self
            .connection
            .prepare_cached(&format!("SELECT EXISTS(SELECT 1 FROM _entgldb_conflicts WHERE {OLD})"))
            .and_then(|mut statement| statement.query_row(bounds, |row| row.get(0)))
            .doing("looking for old conflicts")?;
        if old {
            in_transaction(&self.connection, |connection| {
                connection
                    .execute(&format!("DELETE FROM _entgldb_conflicts WHERE {OLD}"), bounds)
                    .doing("dropping old conflicts")
            })?;
        }
        Ok(())
    }

    /// Keeps the conflict list small, once it has got new ones.
    fn bound_conflicts(&mut self) -> Outcome<()> {
        let last = conflicts::last(&self.connection)?;
        if std::mem::replace(&mut self.last_conflict, last) == last {
            return Ok(());
        }
        in_transaction(&self.connection, |connection| conflicts::bound(connection, CONFLICT_LIST_BYTES_MAX))
    }

    fn checkpoint(&mut self) -> Outcome<()> {
        let mut wal = self.path.clone().into_os_string();
        wal.push("-wal");
        if std::fs::metadata(&wal).is_ok_and(|file| file.len() > WAL_LARGE) {
            let moved = self
                .connection
                .query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(()))
                .doing("moving the WAL into the database");
            match moved {
                // What did not fit stays in the WAL.
                Err(failed) if failed.is_disk_full() => self.was_full()?,
                moved => moved?,
            }
        }
        Ok(())
    }
}
