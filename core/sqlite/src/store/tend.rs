//! Work that may wait: documents that were set aside are tried again, fields get the columns that were added for them.

use entgldb_replica::clock::WallMillis;
use entgldb_replica::id::Key;
use entgldb_replica::store::{Problem, ProblemKind};

use super::SqliteStore;
use super::tables::Collisions;
use crate::capture::clock;
use crate::failed::{Outcome, While};
use crate::fields::gone;
use crate::file::connection::in_transaction;
use crate::journal::aside;
use crate::table::document::Extra;

/// Documents tried again in one go, and rows looked at for columns that were added.
const SLICE: usize = 128;
/// Slices in one look into the outbox after the schema has changed.
const CATCH_UP_SLICES: usize = 8;
/// Rows looked at for fields without a column in one go.
const GONE_SLICE: usize = 1_024;

impl SqliteStore {
    pub(super) fn tend_all(&mut self, conflicts_before: WallMillis) -> Outcome<Vec<Problem>> {
        self.refresh()?;
        let mut problems = Vec::new();
        // None of this is worth the last room on a disk.
        if self.journal.has_room() {
            self.look_at_collisions_again()?;
            problems = self.try_again(conflicts_before)?;
            problems.extend(self.fill_new_columns(conflicts_before)?);
            self.keep_gone_fields()?;
        }
        self.look_slowly()?;
        self.journal.tend(conflicts_before)?;
        Ok(problems)
    }

    /// After a change of the schema perhaps nothing is in the way of rows that collided. Not at once: a migration in several steps may be
    /// about to make its unique index again, which must not fail because of what came back in between.
    fn look_at_collisions_again(&mut self) -> Outcome<()> {
        self.tending.collisions = match self.tending.collisions {
            Collisions::New => Collisions::Waiting,
            Collisions::Waiting => {
                if aside::any(&self.journal.connection)? {
                    in_transaction(&self.journal.connection, aside::forget_blockers)?;
                }
                Collisions::Seen
            }
            Collisions::Seen => return Ok(()),
        };
        Ok(())
    }

    /// Does at once what a changed schema, or what was learned of fields, makes possible: documents that were set aside are tried
    /// again, fields get the columns that they have now. Returns what there is to report, and whether there is more to do.
    pub(super) fn catch_up(&mut self) -> Outcome<(Vec<Problem>, bool)> {
        let mut problems = Vec::new();
        for _ in 0..CATCH_UP_SLICES {
            if !self.catches_up || !self.journal.has_room() {
                return Ok((problems, false));
            }
            let wall = WallMillis(clock::now_ms(&self.journal.connection)?);
            if !self.tending.all_retried {
                problems.extend(self.try_again(wall)?);
            }
            problems.extend(self.fill_new_columns(wall)?);
            self.catches_up = !self.tending.all_retried || self.tending.extras.is_some();
        }
        Ok((problems, self.catches_up))
    }

    /// Tries the next documents that were set aside.
    fn try_again(&mut self, wall: WallMillis) -> Outcome<Vec<Problem>> {
        if !aside::any(&self.journal.connection)? {
            self.tending.all_retried = true;
            return Ok(Vec::new());
        }
        let (place, after) = self.tending.aside.clone();
        let Some(table) = self.watched.tables().get(place).cloned() else {
            self.tending.aside = (0, String::new());
            self.tending.all_retried = true;
            return Ok(Vec::new());
        };
        let waiting = aside::waiting(&self.journal.connection, &self.journal.names, table.no, &after, SLICE)?;
        self.tending.aside = match waiting.last() {
            Some(last) if waiting.len() == SLICE => (place, last.key.as_str().to_owned()),
            _ => (place + 1, String::new()),
        };
        if waiting.is_empty() {
            return Ok(Vec::new());
        }
        let mut is_done = false;
        let problems = self.transact(wall, |applying| {
            let mut all = true;
            for aside in &waiting {
                all &= applying.retry(table.no, aside)?;
            }
            applying.settle_queued()?;
            applying.finish()?;
            is_done = all;
            // Nothing came of it: nothing is written, so that a quiet database stays quiet.
            let came_back =
                applying.step.problems.iter().any(|problem| problem.kind == ProblemKind::CameBack);
            Ok(came_back || applying.found_blocker(table.no, &waiting)?)
        })?;
        self.tending.waits_for_capture |= !is_done;
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
        let mut is_done = false;
        let problems = self.transact(wall, |applying| {
            let mut all = true;
            for key in &known {
                all &= applying.fill(table.no, key)?;
            }
            applying.settle_queued()?;
            applying.finish()?;
            is_done = all;
            Ok(true)
        })?;
        self.tending.waits_for_capture |= !is_done;
        Ok(problems.unwrap_or_default())
    }

    /// Local changes are captured: what was left out because of them has its turn again.
    pub(super) fn was_captured(&mut self) {
        if std::mem::take(&mut self.tending.waits_for_capture) {
            self.tending.aside = (0, String::new());
            (self.tending.all_retried, self.tending.extras) = (false, Some((0, String::new())));
            self.catches_up = true;
        }
    }

    /// Fields whose columns were dropped are kept beside the rows, before their entries are forgotten.
    fn keep_gone_fields(&mut self) -> Outcome<()> {
        let Some((place, after)) = self.tending.gone.clone() else { return Ok(()) };
        let Some(table) = self.watched.tables().get(place).cloned() else {
            self.tending.gone = None;
            return Ok(());
        };
        let last = if table.gone.is_empty() {
            None
        } else {
            let names = &self.journal.names;
            in_transaction(&self.journal.connection, |connection| {
                gone::keep_slice(connection, names, &table, &after, GONE_SLICE)
            })?
        };
        self.tending.gone = Some(last.map_or((place + 1, String::new()), |last| (place, last)));
        Ok(())
    }

    fn rows_with_extra(&self, no: i64, after: &str) -> Outcome<Vec<(Key, Extra)>> {
        let mut statement = self
            .journal
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
}
