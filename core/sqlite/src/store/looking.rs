//! Looking through tables: first copies, and what changed while nobody watched.

use entgldb_replica::clock::WallMillis;
use entgldb_replica::id::Key;
use entgldb_replica::limits::PAGE_ENTRIES_TARGET;
use entgldb_replica::store::{Change, Drain, FirstCopy, UnitLimits};

use super::SqliteStore;
use crate::capture::outbox::{Found, Look};
use crate::capture::progress::Stage;
use crate::capture::scan::{self, Due, Looked};
use crate::capture::{clock, noted, notes, progress, rebuild};
use crate::failed::{Outcome, While};
use crate::file::connection::in_transaction;
use crate::journal::{problems, schema};
use crate::reading::outgoing;
use crate::reading::proof::Witness;
use crate::table::value::Sql;

/// Slices that are looked through in one look into the outbox.
const SLICES_MAX: usize = 4;
/// Rows that the slow look compares at once.
const SLOW_SLICE: usize = 128;
/// First copies that were read and are not committed yet.
pub(super) struct Copying {
    copy: FirstCopy,
    /// How far they bring the table; `None` for rows that a page asked for.
    moved: Option<(Due, Option<Sql<'static>>)>,
}

/// Where the work that finds things goes on.
#[derive(Default)]
pub(super) struct Looking {
    pub(super) copying: Option<Copying>,
    /// Rows that are to be captured for the first time before others, because a page brings versions of them.
    pub(super) urgent: Vec<(i64, Key)>,
    /// Whether the last look took notes: then first copies have their turn.
    pub(super) took_notes: bool,
    /// Where the slow look goes on: the place of the table, and the note of the last row.
    slow: (usize, Option<Sql<'static>>),
}

impl SqliteStore {
    /// Compares some rows of tables that are to be looked through, unless the outbox is busy.
    pub(super) fn look_through(&mut self) -> Outcome<()> {
        for _ in 0..SLICES_MAX {
            let connection = &self.journal.connection;
            let all = scan::due(connection, &self.watched)?;
            let Some(due) = all.into_iter().find(|due| due.stage != Stage::FirstCopies) else {
                return Ok(());
            };
            let busy: bool = connection
                .prepare_cached("SELECT EXISTS(SELECT 1 FROM _entgldb_outbox LIMIT 1 OFFSET 255)")
                .and_then(|mut statement| statement.query_row([], |row| row.get(0)))
                .doing("looking into the outbox")?;
            if busy {
                return Ok(());
            }
            match due.stage {
                Stage::Missing => self.look_for_missing(&due)?,
                _ => self.look_at_rows(&due)?,
            }
        }
        Ok(())
    }

    fn look_at_rows(&mut self, due: &Due) -> Outcome<()> {
        let Due { table, after, .. } = due;
        let connection = &self.journal.connection;
        let (looked, last) = self.journal.read(|| {
            let witness = Witness { after_migration: true, ..Witness::new(connection, &self.journal.names)? };
            look_at(&witness, table, after, scan::SLICE)
        })?;
        in_transaction(connection, |connection| {
            if *after == Sql::Null {
                scan::note_row_without_key(connection, table)?;
            }
            looked.note(connection, table)?;
            match &last {
                Some(last) => progress::move_to(connection, table, Stage::Rows, last),
                None => progress::move_to(connection, table, Stage::Missing, &Sql::Null),
            }
        })?;
        self.place_again(table.no, &looked.outdated)
    }

    fn look_for_missing(&mut self, due: &Due) -> Outcome<()> {
        let Due { table, after, .. } = due;
        let connection = &self.journal.connection;
        if *after == Sql::Null {
            let late = rebuild::late_and_missing(connection, table)?;
            if scan::lost_too_many(connection, table, late.len()).doing("counting rows")? {
                self.place_again(table.no, &late)?;
                return in_transaction(&self.journal.connection, |connection| {
                    progress::move_to(connection, table, Stage::Done, &Sql::Null)?;
                    notes::release(connection, table.no)?;
                    rebuild::forget(connection, table.no)
                });
            }
        }
        let missing = scan::missing(connection, table, after, scan::SLICE)?;
        let (mut deleted, mut late) = (Vec::new(), Vec::new());
        for key in missing.keys {
            match rebuild::is_late(connection, table.no, &key)? {
                true => late.push(key),
                false => deleted.push(key),
            }
        }
        // Before the progress is durable: whoever is ended in between does it again.
        self.place_again(table.no, &late)?;
        in_transaction(&self.journal.connection, |connection| {
            for key in &deleted {
                let Ok(columns) = table.form.decode(key.as_str()) else { continue };
                notes::put_found(connection, table, &columns).doing("noting a deleted row")?;
            }
            match &missing.last {
                Some(last) => progress::move_to(connection, table, Stage::Missing, last),
                None => {
                    progress::move_to(connection, table, Stage::Done, &Sql::Null)?;
                    notes::release(connection, table.no)?;
                    rebuild::forget(connection, table.no)
                }
            }
        })
    }

    /// Brings the versions that stand into their places again.
    fn place_again(&mut self, no: i64, keys: &[Key]) -> Outcome<()> {
        let Some(table) = self.watched.numbered(no).cloned().filter(|_| !keys.is_empty()) else {
            return Ok(());
        };
        let wall = WallMillis(clock::now_ms(&self.journal.connection)?);
        self.transact(wall, |applying| {
            for key in keys {
                applying.place_again(&table, key)?;
            }
            applying.settle_queued()?;
            applying.finish()?;
            Ok(true)
        })
        .map(drop)
    }

    /// Puts the notes of tables off whose first copies are not all captured yet, and of those that are missing now. Returns
    /// whether there are first copies to capture.
    pub(super) fn hold_notes(&self) -> Outcome<bool> {
        let connection = &self.journal.connection;
        let first = scan::first_watched(connection, &self.watched)?;
        let numbers = first.iter().map(|table| table.no).chain(self.missing.iter().copied());
        for no in numbers {
            if notes::has_any(connection, no)? {
                in_transaction(connection, |connection| notes::hold(connection, no))?;
            }
        }
        Ok(!first.is_empty())
    }

    /// The next first copies, those first that a page waits for.
    pub(super) fn first_copies(&mut self, limits: &UnitLimits) -> Outcome<Option<Drain>> {
        loop {
            let all = scan::due(&self.journal.connection, &self.watched)?;
            let mut first = all.into_iter().filter(|due| due.stage == Stage::FirstCopies).peekable();
            if first.peek().is_none() {
                self.looking.urgent.clear();
                return Ok(None);
            }
            let urgent = std::mem::take(&mut self.looking.urgent);
            let first: Vec<Due> = first.collect();
            let (due, keys) = match first.iter().find(|due| urgent.iter().any(|(no, _)| *no == due.table.no))
            {
                Some(due) => {
                    let of_table = urgent.iter().filter(|(no, _)| *no == due.table.no);
                    (due, Some(of_table.map(|(_, key)| key.clone()).collect()))
                }
                None => (&first[0], None),
            };
            let is_urgent = keys.is_some();
            let drain = self.copy_slice(due, keys, limits)?;
            if drain.is_some() {
                return Ok(drain);
            }
            if is_urgent {
                return Ok(None);
            }
        }
    }

    /// Reads one slice. `None` if there was nothing to capture in it; it is done with then.
    fn copy_slice(
        &mut self,
        due: &Due,
        urgent: Option<Vec<Key>>,
        limits: &UnitLimits,
    ) -> Outcome<Option<Drain>> {
        let table = &due.table;
        let connection = &self.journal.connection;
        let count = limits.changes.clamp(1, PAGE_ENTRIES_TARGET);
        let keys = match &urgent {
            Some(keys) => {
                let mut columns: Vec<Vec<Sql<'static>>> = Vec::new();
                for key in keys {
                    if let Ok(decoded) = table.form.decode(key.as_str()) {
                        columns.push(decoded.into_iter().map(Sql::into_owned).collect());
                    }
                }
                scan::Keys { keys: columns, last: None }
            }
            None => scan::keys(connection, table, &due.after, count)?,
        };
        let mut last = keys.last;
        let noted = noted::keys(connection, table)?;
        let (names, watched) = (&self.journal.names, &self.watched);
        let look = Look { connection, names, watched, limits };
        let mut drain = Drain { more: true, ..Drain::default() };
        let (mut looked, mut refused) = (Looked::default(), Vec::new());
        connection.execute_batch("BEGIN").doing("beginning to read")?;
        let mut read = || -> Outcome<()> {
            let (witness, reading) = (Witness::new(connection, names)?, look.reading()?);
            let mut bytes = 0;
            for columns in &keys.keys {
                let found = look.look_at(table, columns, &reading)?;
                let key = match &found {
                    Found::Document(key, _) => key.clone(),
                    Found::Refused(problem, shown) => {
                        refused.push((problem.clone(), *shown));
                        continue;
                    }
                    Found::Nothing | Found::Gone(_) => continue,
                };
                if noted.contains(&key) {
                    continue;
                }
                if outgoing::standing(connection, names, table.no, key.as_str())?.is_some() {
                    looked.look(&witness, table, columns)?;
                    continue;
                }
                let Found::Document(key, Some(content)) = found else { continue };
                bytes += look.bytes_of(&key, Some(&content));
                drain.changes.push(Change {
                    doc: (table.collection.clone(), key),
                    content: Some(content),
                    written: WallMillis(0),
                });
                if bytes >= limits.bytes {
                    // The rest of the slice comes with the next one.
                    last = Some(notes::note_of(connection, table, columns)?);
                    break;
                }
            }
            Ok(())
        };
        let result = read();
        connection.execute_batch("COMMIT").doing("ending to read")?;
        result?;
        let names = &mut self.journal.names;
        let is_first = due.after == Sql::Null && urgent.is_none();
        let moved = urgent.is_none().then_some(last);
        let copy = in_transaction(connection, |connection| {
            if is_first {
                scan::note_row_without_key(connection, table)?;
            }
            looked.note(connection, table)?;
            let now = clock::now_ms(connection)?;
            for (problem, shown) in &refused {
                problems::put(connection, names, (problem, *shown), now)?;
            }
            let before: i64 = schema::get(connection, "first_copies")?.unwrap_or(0);
            if drain.changes.is_empty()
                && let Some(last) = &moved
            {
                move_first(connection, due, last.as_ref())?;
            }
            Ok(FirstCopy(before.cast_unsigned() + 1))
        })?;
        drain.refused = refused.into_iter().map(|(problem, _)| problem).collect();
        self.place_again(table.no, &looked.outdated)?;
        if drain.changes.is_empty() {
            return Ok(None);
        }
        drain.first_copy = Some(copy);
        let due = Due { table: table.clone(), stage: due.stage, after: due.after.clone() };
        self.looking.copying = Some(Copying { copy, moved: moved.map(|last| (due, last)) });
        Ok(Some(drain))
    }

    /// Compares a few rows, now and then, with what is known of them: what fires no trigger is found in the end.
    pub(super) fn look_slowly(&mut self) -> Outcome<()> {
        let connection = &self.journal.connection;
        if scan::is_pending(connection, &self.watched)? {
            return Ok(());
        }
        let (place, after) = std::mem::take(&mut self.looking.slow);
        let Some(table) = self.watched.tables().get(place).cloned() else { return Ok(()) };
        let noted = noted::keys(connection, &table)?;
        let (mut looked, last) = self.journal.read(|| {
            let witness = Witness::new(connection, &self.journal.names)?;
            look_at(&witness, &table, &after.unwrap_or(Sql::Null), SLOW_SLICE)
        })?;
        looked.found.retain(|columns| {
            let refs: Vec<_> = columns.iter().map(Sql::as_ref).collect();
            table.form.encode(&refs).is_ok_and(|key| !noted.contains(&key))
        });
        self.looking.slow = match last {
            Some(last) => (place, Some(last)),
            None => (place + 1, None),
        };
        if !looked.is_empty() {
            in_transaction(connection, |connection| looked.note(connection, &table))?;
        }
        self.place_again(table.no, &looked.outdated)
    }
}

impl Copying {
    /// Notes durably that the copies are captured. To be called in the transaction that captures them.
    pub(super) fn commit(&self, connection: &rusqlite::Connection, captured: FirstCopy) -> Outcome<()> {
        if self.copy != captured {
            return Ok(());
        }
        schema::put(connection, "first_copies", captured.0.cast_signed())?;
        match &self.moved {
            Some((due, last)) => move_first(connection, due, last.as_ref()),
            None => Ok(()),
        }
    }
}

/// Notes how far first copies have come. After the last one the notes come that waited for it.
fn move_first(connection: &rusqlite::Connection, due: &Due, last: Option<&Sql<'static>>) -> Outcome<()> {
    match last {
        Some(last) => progress::move_to(connection, &due.table, Stage::FirstCopies, last),
        None => {
            progress::move_to(connection, &due.table, Stage::Missing, &Sql::Null)?;
            notes::release(connection, due.table.no)
        }
    }
}

/// Compares some rows of a table, in the order of its key. Returns the note of the last row unless the table has ended.
fn look_at(
    witness: &Witness<'_>,
    table: &crate::table::definition::Table,
    after: &Sql<'_>,
    count: usize,
) -> Outcome<(Looked, Option<Sql<'static>>)> {
    let keys = scan::keys(witness.connection, table, after, count)?;
    let mut looked = Looked::default();
    for columns in &keys.keys {
        looked.look(witness, table, columns)?;
    }
    Ok((looked, keys.last))
}
