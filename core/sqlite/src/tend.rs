//! Work that may wait: documents that were set aside are tried again, fields get the columns that were added for them,
//! old conflicts and what is forgotten go, and a WAL that has grown is moved into the database.

use entgldb_replica::clock::WallMillis;
use entgldb_replica::id::Key;
use entgldb_replica::store::{Problem, ProblemKind};

use crate::apply::Fate;
use crate::aside::{self, Aside, Reason};
use crate::capture::{self, extra_of};
use crate::commit::{Step, Stopped};
use crate::document::Extra;
use crate::failed::{Outcome, While};
use crate::open::in_transaction;
use crate::store::SqliteStore;

/// Documents tried again in one go, and rows looked at for columns that were added.
const SLICE: usize = 128;
/// Size of the WAL above which it is moved into the database, in bytes.
const WAL_LARGE: u64 = 16 << 20;

/// Where the work goes on.
#[derive(Debug)]
pub(crate) struct Tending {
    /// Last document tried again: its collection's place among the watched ones, and its key.
    aside: (usize, String),
    /// Last row looked at for columns that were added; `None` when all have been.
    extras: Option<(usize, String)>,
}

impl Default for Tending {
    fn default() -> Self {
        Self { aside: (0, String::new()), extras: Some((0, String::new())) }
    }
}

impl Tending {
    /// Columns may have been added.
    pub(crate) fn schema_changed(&mut self) {
        *self = Self::default();
    }
}

impl SqliteStore {
    pub(crate) fn tend_all(&mut self, conflicts_before: WallMillis) -> Outcome<Vec<Problem>> {
        self.refresh()?;
        let mut problems = Vec::new();
        // None of this is worth the last room on a disk.
        if self.room.look(&self.path) {
            self.drop_conflicts(conflicts_before)?;
            problems = self.try_again(conflicts_before)?;
            problems.extend(self.fill_new_columns(conflicts_before)?);
            self.remove_forgotten()?;
        }
        self.checkpoint()?;
        Ok(problems)
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

    /// Tries the next documents that were set aside.
    fn try_again(&mut self, wall: WallMillis) -> Outcome<Vec<Problem>> {
        if !aside::any(&self.connection)? {
            return Ok(Vec::new());
        }
        let (place, after) = self.tending.aside.clone();
        let Some(table) = self.watched.tables().get(place).cloned() else {
            self.tending.aside = (0, String::new());
            return Ok(Vec::new());
        };
        let waiting = aside::waiting(&self.connection, &self.names, table.no, &after, SLICE)?;
        self.tending.aside = match waiting.last() {
            Some(last) if waiting.len() == SLICE => (place, last.key.as_str().to_owned()),
            _ => (place + 1, String::new()),
        };
        if waiting.is_empty() {
            return Ok(Vec::new());
        }
        let problems = self.transact(wall, |step| {
            for aside in &waiting {
                step.retry(table.no, aside)?;
            }
            step.settle_queued()?;
            step.finish()?;
            // Nothing came of it: nothing is written, so that a quiet database stays quiet.
            Ok(step.problems.iter().any(|problem| problem.kind == ProblemKind::CameBack))
        })?;
        Ok(problems
            .unwrap_or_default()
            .into_iter()
            .filter(|problem| problem.kind != ProblemKind::SetAside)
            .collect())
    }

    /// Fields that had no column when they came may have one now.
    fn fill_new_columns(&mut self, wall: WallMillis) -> Outcome<Vec<Problem>> {
        let Some((place, after)) = self.tending.extras.clone() else { return Ok(Vec::new()) };
        let Some(table) = self.watched.tables().get(place).cloned() else {
            self.tending.extras = None;
            return Ok(Vec::new());
        };
        let keys = self.rows_with_extra(table.no, &after)?;
        self.tending.extras = match keys.last() {
            Some((last, _)) if keys.len() == SLICE => Some((place, last.as_str().to_owned())),
            _ => Some((place + 1, String::new())),
        };
        let known: Vec<Key> =
            keys.into_iter().filter(|(_, extra)| extra.knows_more_than(&table)).map(|(key, _)| key).collect();
        if known.is_empty() {
            return Ok(Vec::new());
        }
        let problems = self.transact(wall, |step| {
            for key in &known {
                step.fill(table.no, key)?;
            }
            step.settle_queued()?;
            step.finish()?;
            Ok(true)
        })?;
        Ok(problems.unwrap_or_default())
    }

    fn rows_with_extra(&self, no: i64, after: &str) -> Outcome<Vec<(Key, Extra)>> {
        let mut statement = self
            .connection
            .prepare_cached("SELECT key, extra FROM _entgldb_rows WHERE collection_no = ?1 AND key > ?2 AND extra IS NOT NULL ORDER BY key LIMIT ?3")
            .doing("looking for fields without columns")?;
        let rows = statement
            .query_map((no, after, SLICE.cast_signed()), |row| {
                Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?))
            })
            .doing("looking for fields without columns")?;
        let mut found = Vec::new();
        for row in rows {
            let (key, extra) = row.doing("looking for fields without columns")?;
            found.extend(Key::new(&key).ok().zip(Extra::from_text(&extra)));
        }
        Ok(found)
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
                Err(failed) if failed.is_disk_full() => self.room.was_full(),
                moved => moved?,
            }
        }
        Ok(())
    }
}

impl Step<'_> {
    /// Tries a document again that was set aside. A local change that waits in the outbox comes first.
    fn retry(&mut self, no: i64, aside: &Aside) -> Result<(), Stopped> {
        let Some(table) = self.watched.numbered(no).cloned() else { return Ok(()) };
        if let Ok(columns) = table.form.decode(aside.key.as_str())
            && capture::is_noted(self.connection, &table, &columns)?
        {
            return Ok(());
        }
        if matches!(aside.reason, Reason::Collided { .. }) {
            self.colliding.entry(no).or_default().insert((aside.stamp, aside.key.clone()), aside.clone());
            return Ok(());
        }
        match self.place(&table, &aside.key, aside.content.as_ref())? {
            Fate::Placed => {
                self.remember_place(&table, &aside.key, aside.content.clone());
                aside::remove(self.connection, no, &aside.key)?;
                self.problem(&table.collection, &aside.key, ProblemKind::CameBack, "the schema takes it now");
            }
            Fate::Collided => {
                self.remove_row(&table, &aside.key)?;
                let waiting = Aside { reason: Reason::Collided { blocker: None }, ..aside.clone() };
                self.colliding.entry(no).or_default().insert((aside.stamp, aside.key.clone()), waiting);
            }
            Fate::Refused(_) => {}
        }
        Ok(())
    }

    /// Applies a row's own document again, now that the table has a column for more of it.
    fn fill(&mut self, no: i64, key: &Key) -> Result<(), Stopped> {
        let Some(table) = self.watched.numbered(no).cloned() else { return Ok(()) };
        let Ok(columns) = table.form.decode(key.as_str()) else { return Ok(()) };
        if capture::is_noted(self.connection, &table, &columns)?
            || extra_of(self.connection, no, key)?.is_none()
        {
            return Ok(());
        }
        let Some(content) = self.content_now(&table, key)? else { return Ok(()) };
        let content = bytes::Bytes::from(content);
        if matches!(self.place(&table, key, Some(&content))?, Fate::Placed) {
            self.remember_place(&table, key, Some(content));
        }
        Ok(())
    }
}
