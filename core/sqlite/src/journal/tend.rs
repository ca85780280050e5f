//! Work on the journal that may wait: old conflicts and what is forgotten go, and a WAL that has grown is moved into the
//! database.

use entgldb_replica::clock::WallMillis;

use crate::failed::{Outcome, While};
use crate::file::connection::in_transaction;
use crate::journal::journal::Journal;

/// Size of the WAL above which it is moved into the database, in bytes.
const WAL_LARGE: u64 = 16 << 20;

impl Journal {
    pub(crate) fn tend(&mut self, conflicts_before: WallMillis) -> Outcome<()> {
        // None of this is worth the last room on a disk.
        if self.has_room() {
            self.drop_conflicts(conflicts_before)?;
            self.remove_forgotten()?;
        }
        self.checkpoint()
    }

    fn drop_conflicts(&mut self, before: WallMillis) -> Outcome<()> {
        let old: bool = self
            .connection
            .prepare_cached("SELECT EXISTS(SELECT 1 FROM _entgldb_conflicts WHERE noted_at < ?1)")
            .and_then(|mut statement| statement.query_row([before.0.cast_signed()], |row| row.get(0)))
            .doing("looking for old conflicts")?;
        if old {
            in_transaction(&self.connection, |connection| {
                connection
                    .execute("DELETE FROM _entgldb_conflicts WHERE noted_at < ?1", [before.0.cast_signed()])
                    .doing("dropping old conflicts")
            })?;
        }
        Ok(())
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
