//! Removing what is forgotten, in bounded pieces, and giving the room back.
//!
//! A commit only moves a log's floor. What lies below it is of no use to anybody and goes from here when the store is
//! tended; until then it is passed over. The file does not shrink by that: SQLite uses the room again. Only a database
//! that its application has put into `auto_vacuum = INCREMENTAL` gives it back to the file system; nothing else does
//! without writing the whole file anew, which is the application's to decide.

use entgldb_replica::version::Seq;

use crate::failed::{Outcome, While};
use crate::file::connection::in_transaction;
use crate::journal::journal::Journal;
use crate::journal::names::entry_id;

/// Entries removed in one transaction, and transactions in one go.
const SLICE: i64 = 1024;
const SLICES_MAX: usize = 32;
/// Free pages that are kept for what is written next, and most that are given back in one go.
const PAGES_SPARE: i64 = 256;
const PAGES_GIVEN_BACK_MAX: i64 = 2048;
/// The number of `auto_vacuum = INCREMENTAL`.
const INCREMENTAL: i64 = 2;

impl Journal {
    /// Removes entries and signatures below the floors of their logs.
    pub(crate) fn remove_forgotten(&mut self) -> Outcome<()> {
        let forgotten: Vec<(i64, Seq)> = self
            .names
            .logs
            .values()
            .filter(|end| end.floor > Seq(0))
            .map(|end| (end.no, end.floor))
            .collect();
        let mut slices = 0;
        for (no, floor) in forgotten {
            while slices < SLICES_MAX && self.remove_slice(no, floor)? {
                slices += 1;
            }
        }
        self.give_room_back()
    }

    /// Removes one slice of a log. Answers whether there was anything.
    fn remove_slice(&self, no: i64, floor: Seq) -> Outcome<bool> {
        let (first, last) = (entry_id(no, Seq(0))?, entry_id(no, floor)?);
        let present: bool = self
            .connection
            .prepare_cached(
                "SELECT EXISTS(SELECT 1 FROM _entgldb_oplog WHERE id > ?1 AND id <= ?2)
                 OR EXISTS(SELECT 1 FROM _entgldb_signed WHERE id > ?1 AND id < ?2)",
            )
            .and_then(|mut statement| statement.query_row((first, last), |row| row.get(0)))
            .doing("looking for what is forgotten")?;
        if !present {
            return Ok(false);
        }
        in_transaction(&self.connection, |connection| {
            let remove = |sql| {
                connection
                    .prepare_cached(sql)
                    .and_then(|mut statement| statement.execute((first, last, SLICE)))
                    .doing("removing what is forgotten")
            };
            remove(
                "DELETE FROM _entgldb_oplog WHERE id IN
                 (SELECT id FROM _entgldb_oplog WHERE id > ?1 AND id <= ?2 ORDER BY id LIMIT ?3)",
            )?;
            remove(
                "DELETE FROM _entgldb_signed WHERE id IN
                 (SELECT id FROM _entgldb_signed WHERE id > ?1 AND id < ?2 ORDER BY id LIMIT ?3)",
            )
        })?;
        Ok(true)
    }

    fn give_room_back(&self) -> Outcome<()> {
        let pragma = |sql: &str| {
            self.connection.query_row(sql, [], |row| row.get::<_, i64>(0)).doing("looking at the file's room")
        };
        if pragma("PRAGMA main.auto_vacuum")? != INCREMENTAL {
            return Ok(());
        }
        let pages = (pragma("PRAGMA main.freelist_count")? - PAGES_SPARE).min(PAGES_GIVEN_BACK_MAX);
        if pages > 0 {
            // Each step gives back one page.
            in_transaction(&self.connection, |connection| {
                let mut statement = connection
                    .prepare(&format!("PRAGMA main.incremental_vacuum({pages})"))
                    .doing("giving room back")?;
                let mut given_back = statement.query([]).doing("giving room back")?;
                while given_back.next().doing("giving room back")?.is_some() {}
                Ok(())
            })?;
        }
        Ok(())
    }
}
