//! How the watched tables stand, and what is wrong with single documents: as they are now, not what has happened.

use std::collections::BTreeMap;

use entgldb_replica::id::Collection;

use super::count::{Count, LookedThrough};
use super::tables::{Missing, SqliteStore};
use crate::capture::progress::Stage;
use crate::capture::scan::{self, Due};
use crate::capture::trouble;
use crate::failed::{Outcome, SqliteFailed};
use crate::file::connection::in_transaction;
use crate::table::value::Sql;

/// How a watched table stands.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TableHealth {
    /// The table.
    pub collection: Collection,
    /// Why nothing of it is captured or applied now; `None` if nothing is in the way.
    pub trouble: Option<String>,
    /// How far looking through its rows has come; `None` if there is nothing to look through.
    pub looking: Option<LookedThrough>,
}

impl SqliteStore {
    /// How the watched tables stand. Costs more than a few microseconds only while tables are looked through: the rows that
    /// were looked at since the last time are counted.
    ///
    /// # Errors
    /// When the store can't be read.
    pub fn table_health(&mut self) -> Result<Vec<TableHealth>, SqliteFailed> {
        self.refresh()?;
        self.count_on()?;
        let health = self.watch.iter().map(|collection| {
            let troubled = self.troubled.iter().find(|(troubled, _)| troubled == collection);
            let count = self.watched.table(collection).and_then(|table| self.counts.get(&table.no));
            TableHealth {
                collection: collection.clone(),
                trouble: troubled.map(|(_, reason)| reason.clone()),
                looking: count.map(|count| count.counted),
            }
        });
        Ok(health.collect())
    }

    /// Rows that are set aside, changes that can't travel, and tables in trouble.
    ///
    /// # Errors
    /// When the store can't be read.
    pub fn problem_count(&mut self) -> Result<u64, SqliteFailed> {
        self.refresh()?;
        self.journal.problem_count()
    }

    /// Counts what there is to look through, before the first of it is looked at.
    pub(super) fn begin_to_count(&mut self) -> Outcome<()> {
        let due = scan::due(&self.journal.connection, &self.watched)?;
        if due.iter().all(|due| self.counts.contains_key(&due.table.no)) {
            return Ok(());
        }
        self.count_on()
    }

    fn count_on(&mut self) -> Outcome<()> {
        let due = scan::due(&self.journal.connection, &self.watched)?;
        self.counts.retain(|no, _| due.iter().any(|due| due.table.no == *no));
        let connection = &self.journal.connection;
        for Due { table, stage, after } in due {
            let is_at_rows = matches!(stage, Stage::FirstCopies | Stage::Rows);
            let up_to = if is_at_rows { &after } else { &Sql::Null };
            let Some(count) = self.counts.get_mut(&table.no) else {
                let of = if is_at_rows { scan::count(connection, &table, up_to, &Sql::Null)? } else { 0 };
                let counted = LookedThrough { done: 0, of };
                self.counts.insert(table.no, Count { counted, up_to: up_to.clone() });
                continue;
            };
            let LookedThrough { done, of } = &mut count.counted;
            if !is_at_rows {
                *done = *of;
            } else if count.up_to != *up_to {
                *done += scan::count(connection, &table, &count.up_to, up_to)?;
                *of = (*of).max(*done);
                count.up_to = up_to.clone();
            }
        }
        Ok(())
    }

    /// Keeps, and notes in the list of problems, which tables are not synced now; forgets those that are again.
    pub(super) fn note_trouble(&mut self, missing: Missing, renamed: &BTreeMap<i64, String>) -> Outcome<()> {
        let mut troubled = Vec::new();
        let mut news = Vec::new();
        for (collection, why) in missing {
            let no = self.journal.no(&collection)?;
            // By what name it was renamed shows only once.
            let before = self.troubled.iter().find(|(before, _)| *before == collection);
            let reason = match before {
                Some((_, reason)) => reason.clone(),
                None => trouble::reason(&why, renamed.get(&no)),
            };
            if before.is_none() {
                tracing::error!(table = %collection, ?why, "a watched table cannot be watched any more");
                news.push((no, reason.clone()));
            }
            troubled.push((collection, reason));
        }
        let connection = &self.journal.connection;
        let synced: Vec<i64> = self.watched.tables().iter().map(|table| table.no).collect();
        if !news.is_empty() || trouble::any(connection, &synced)? {
            in_transaction(connection, |connection| {
                synced.iter().try_for_each(|no| trouble::forget(connection, *no))?;
                news.iter().try_for_each(|(no, reason)| trouble::note(connection, *no, reason))
            })?;
        }
        self.troubled = troubled;
        Ok(())
    }
}
