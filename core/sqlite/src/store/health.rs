//! How the watched tables stand, and what is wrong with single documents: as they are now, not what has happened.

use entgldb_replica::id::Collection;

use super::tables::SqliteStore;
use crate::capture::scan;
use crate::failed::{SqliteFailed, While};

/// How a watched table stands.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TableHealth {
    /// The table.
    pub collection: Collection,
    /// Why nothing of it is captured or applied now; `None` if nothing is in the way.
    pub trouble: Option<String>,
    /// How far looking through its rows has come; `None` if there is nothing to look through.
    pub looking: Option<Looking>,
}

/// How far looking through a table has come.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Looking {
    /// Rows looked at so far, since the store was opened.
    pub done: u64,
    /// About how many there were to look at.
    pub of: u64,
}

impl SqliteStore {
    /// How the watched tables stand.
    ///
    /// # Errors
    /// When the store can't be read.
    pub fn table_health(&mut self) -> Result<Vec<TableHealth>, SqliteFailed> {
        self.refresh()?;
        let mut found = Vec::new();
        for collection in self.watch.clone() {
            let troubled = self.troubled.iter().find(|(troubled, _)| *troubled == collection);
            let trouble = troubled.map(|(_, reason)| reason.clone());
            let looking = self.looking_at(&collection)?;
            found.push(TableHealth { collection, trouble, looking });
        }
        Ok(found)
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
    pub(super) fn begin_looking(&mut self) -> Result<(), SqliteFailed> {
        if scan::is_pending(&self.journal.connection, &self.watched)? {
            for collection in self.watch.clone() {
                self.looking_at(&collection)?;
            }
        }
        Ok(())
    }

    fn looking_at(&mut self, collection: &Collection) -> Result<Option<Looking>, SqliteFailed> {
        let Some(table) = self.watched.table(collection) else { return Ok(None) };
        let connection = &self.journal.connection;
        if !scan::is_to_be_looked_through(connection, table)? {
            self.looking.remove(&table.no);
            return Ok(None);
        }
        if let Some(looking) = self.looking.get(&table.no) {
            return Ok(Some(*looking));
        }
        let of = scan::rows_left(connection, table).doing("counting the rows to look through")?;
        let looking = Looking { done: 0, of };
        self.looking.insert(table.no, looking);
        Ok(Some(looking))
    }
}
