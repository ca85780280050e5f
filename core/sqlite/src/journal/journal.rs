//! What every store has, whoever keeps the documents: one connection, oplog, rows, conflicts and outbox.

use std::path::PathBuf;

use bytes::Bytes;
use entgldb_replica::clock::{Hlc, Stamp, WallMillis};
use entgldb_replica::entry::SignedHead;
use entgldb_replica::id::{Collection, DocId, Incarnation, LogId, NodeId};
use entgldb_replica::resolve::{Row, Version};
use entgldb_replica::store::{Committed, Durable, Guard, OutboxMark, Problem, ReadLimits, Stored};
use entgldb_replica::version::{Hash, Seq};
use rusqlite::OptionalExtension;

use crate::failed::{Outcome, SqliteFailed, While};
use crate::file::binding::Bound;
use crate::file::room::Room;
use crate::file::wal::WalFile;
use crate::journal::commit::{Step, Stopped};
use crate::journal::names::{Names, log_of};
use crate::journal::problems::Refusal;
use crate::journal::{conflicts, note, oplog, outbox, schema, unnumbered, unsynced};

/// See the module's documentation. Used from one thread.
#[derive(Debug)]
pub(crate) struct Journal {
    pub(crate) connection: Bound,
    pub(crate) names: Names,
    pub(crate) path: PathBuf,
    room: Room,
    /// Brings commits onto the disk, with [`Durability::Full`](crate::Durability::Full).
    wal: Option<WalFile>,
    /// Changes that can't travel, found by looks into the outbox that are not committed yet.
    refused: Vec<Refusal>,
    /// The last conflict that was there when the size of their list was looked at.
    pub(crate) last_conflict: i64,
}

impl Journal {
    pub(crate) fn of(connection: Bound, path: PathBuf) -> Outcome<Self> {
        let names = Names::load(&connection)?;
        let wal = WalFile::of(&connection, connection.identity().wal())?;
        Ok(Self {
            connection,
            names,
            path,
            room: Room::default(),
            wal,
            refused: Vec::new(),
            last_conflict: 0,
        })
    }

    /// Ends with everything on the disk.
    pub(crate) fn close(self) -> Outcome<()> {
        unsynced::end(&self.connection)?;
        self.connection.release()
    }

    /// Looks whether the file is still the one that was opened.
    pub(crate) fn look_at_file(&self) -> Outcome<()> {
        self.connection.look()
    }

    /// How many problems of any kind there are now.
    pub(crate) fn problem_count(&self) -> Outcome<u64> {
        self.connection
            .prepare_cached(
                "SELECT (SELECT count(*) FROM _entgldb_problems) + (SELECT count(*) FROM _entgldb_set_aside)
                 + (SELECT count(*) FROM _entgldb_table_problems)",
            )
            .and_then(|mut statement| statement.query_row([], |row| row.get::<_, i64>(0)))
            .map(i64::cast_unsigned)
            .doing("counting problems")
    }

    pub(crate) fn outbox_is_empty(&self) -> Outcome<bool> {
        outbox::is_empty(&self.connection)
    }

    pub(crate) fn is_short_of_room(&self) -> bool {
        self.room.is_short()
    }

    /// Whether there is room for remote changes. Local ones are taken while there is any.
    pub(crate) fn has_room(&mut self) -> bool {
        self.room.look(&self.path)
    }

    /// A commit, or work that may wait, found the disk full. Rolled back as a whole, and what is on the disk is sound.
    pub(crate) fn was_full(&mut self) -> Outcome<()> {
        self.room.was_full();
        self.reload_names()
    }

    pub(crate) fn reload_names(&mut self) -> Outcome<()> {
        self.names = Names::load(&self.connection)?;
        Ok(())
    }

    /// Carries a step out in a write transaction. `work` returns the problems that it met, or `None` to change nothing.
    /// `None` if nothing was changed, also because the guard does not hold.
    pub(crate) fn attempt(
        &mut self,
        wall: WallMillis,
        work: impl FnOnce(Step<'_>) -> Result<Option<Vec<Problem>>, Stopped>,
    ) -> Result<Option<Vec<Problem>>, Stopped> {
        let Some(mut wal) = self.wal.take() else { return self.attempt_unsynced(wall, work) };
        wal.begin(&self.connection)?;
        let done = self.attempt_unsynced(wall, work);
        let ended = wal.end(&self.connection, matches!(done, Ok(Some(_))));
        self.wal = Some(wal);
        let done = done?;
        ended.map(|()| done).map_err(Stopped::Failed)
    }

    fn attempt_unsynced(
        &mut self,
        wall: WallMillis,
        work: impl FnOnce(Step<'_>) -> Result<Option<Vec<Problem>>, Stopped>,
    ) -> Result<Option<Vec<Problem>>, Stopped> {
        self.connection.begin()?;
        let step = Step::new(&self.connection, &mut self.names, wall).map_err(Stopped::from);
        match step.and_then(work) {
            Ok(Some(problems)) => {
                self.connection.commit()?;
                Ok(Some(problems))
            }
            Ok(None) | Err(Stopped::OutboxMoved) => {
                self.connection.roll_back();
                self.reload_names()?;
                Ok(None)
            }
            Err(stopped) => {
                self.connection.roll_back();
                if !matches!(stopped, Stopped::Failed(_)) {
                    self.reload_names()?;
                }
                Err(stopped)
            }
        }
    }

    /// Reads as of one moment.
    pub(crate) fn read<T>(&self, work: impl FnOnce() -> Outcome<T>) -> Outcome<T> {
        self.connection.execute_batch("BEGIN").doing("beginning to read")?;
        let result = work();
        let ended = self.connection.execute_batch("COMMIT").doing("ending to read");
        let done = result?;
        ended.map(|()| done)
    }

    /// Keeps what a look into the outbox refused, until the look is committed.
    pub(crate) fn keep_refused(&mut self, refused: Vec<Refusal>) {
        self.refused = refused;
    }

    /// The refused changes that a commit notes, because it drains the outbox beyond them.
    pub(crate) fn take_refused(&mut self, drained: Option<OutboxMark>) -> Vec<Refusal> {
        let refused = std::mem::take(&mut self.refused);
        let is_noted = |refusal: &Refusal| drained.is_some_and(|drained| refusal.mark <= drained);
        let (noted, kept) = refused.into_iter().partition(is_noted);
        self.refused = kept;
        noted
    }

    /// What the replica learns of a commit. A remote one that finds the disk full counts as one whose guard does not hold:
    /// the peer comes again.
    pub(crate) fn committed(
        &mut self,
        guard: Guard,
        refused: Vec<Refusal>,
        problems: Outcome<Option<Vec<Problem>>>,
    ) -> Outcome<Committed> {
        let problems = match problems {
            Err(failed) if guard != Guard::None && failed.is_disk_full() => {
                self.was_full()?;
                None
            }
            problems => problems?,
        };
        match problems {
            Some(problems) => Ok(Committed::Done(problems)),
            None => {
                self.refused.extend(refused);
                Ok(Committed::OutboxMoved)
            }
        }
    }

    pub(crate) fn load(&mut self) -> Outcome<Durable> {
        self.reload_names()?;
        let dropped = unnumbered::drop_all(&self.connection, &mut self.names)?;
        let owner: Option<[u8; 32]> = schema::get(&self.connection, "owner")?;
        let incarnation: Option<i64> = schema::get(&self.connection, "incarnation")?;
        let clock: Option<i64> = schema::get(&self.connection, "clock")?;
        let names = &self.names;
        Ok(Durable {
            owner: owner
                .zip(incarnation)
                .map(|(node, born)| (NodeId(node), Incarnation(born.cast_unsigned()))),
            clock: Hlc(clock.unwrap_or_default().cast_unsigned()),
            heads: names.logs.iter().map(|(log, end)| (log.clone(), end.head, end.hlc)).collect(),
            authors: names.public_keys.clone(),
            tallies: names.tallies.iter().map(|(name, tally)| (name.clone(), *tally)).collect(),
            open_conflicts: conflicts::open(&self.connection, names)?,
            merged: self.stated()?,
            floors: names
                .logs
                .iter()
                .filter(|(_, end)| end.floor > Seq(0))
                .map(|(log, end)| (log.clone(), end.floor, end.floor_hlc))
                .collect(),
            notes: note::load(&self.connection)?,
            dropped,
        })
    }

    fn stated(&self) -> Outcome<Vec<Collection>> {
        let numbers = schema::stated(&self.connection)?;
        numbers.into_iter().map(|no| self.names.collection(no).cloned()).collect()
    }

    pub(crate) fn rows(&self, docs: &[DocId]) -> Outcome<Vec<Option<Row>>> {
        let rows = || docs.iter().map(|doc| self.row(doc)).collect();
        // Without a transaction around them, every single read takes and gives up its locks.
        if docs.len() > 1 { self.read(rows) } else { rows() }
    }

    fn row(&self, (collection, key): &DocId) -> Outcome<Option<Row>> {
        let Some(no) = self.names.known_collection(collection) else { return Ok(None) };
        let found = self
            .connection
            .prepare_cached(
                "SELECT hlc, author_no, hash FROM _entgldb_rows WHERE collection_no = ?1 AND key = ?2",
            )
            .and_then(|mut statement| {
                let read = |row: &rusqlite::Row<'_>| {
                    Ok((row.get(0)?, row.get(1)?, row.get::<_, Option<[u8; 32]>>(2)?))
                };
                statement.query_row((no, key.as_str()), read).optional()
            })
            .doing("reading a row")?;
        let Some((hlc, author, hash)) = found else { return Ok(None) };
        Ok(Some(Row { stamp: self.names.stamp(hlc, author)?, content: hash.map(Hash) }))
    }

    pub(crate) fn merged(&self, docs: &[DocId]) -> Outcome<Vec<Option<Bytes>>> {
        let state = |(collection, key): &DocId| {
            let Some(no) = self.names.known_collection(collection) else { return Ok(None) };
            Ok(schema::state(&self.connection, no, key.as_str())?.map(Bytes::from))
        };
        docs.iter().map(state).collect()
    }

    pub(crate) fn read_log(&self, log: &LogId, after: Seq, limits: &ReadLimits) -> Outcome<Vec<Stored>> {
        oplog::read(&self.connection, &self.names, log, after, limits)
    }

    pub(crate) fn last_at(&self, log: &LogId, hlc: Hlc) -> Outcome<Seq> {
        match self.names.logs.get(log) {
            Some(end) => oplog::last_at(&self.connection, end, hlc),
            None => Ok(Seq(0)),
        }
    }

    pub(crate) fn hash_at(&self, log: &LogId, seq: Seq) -> Outcome<Option<Hash>> {
        oplog::hash_at(&self.connection, &self.names, log, seq)
    }

    pub(crate) fn signed_until(&self, log: &LogId, seq: Seq) -> Outcome<Option<SignedHead>> {
        oplog::signed_until(&self.connection, &self.names, log, seq)
    }

    pub(crate) fn signed_from(&self, log: &LogId, seq: Seq) -> Outcome<Option<SignedHead>> {
        oplog::signed_from(&self.connection, &self.names, log, seq)
    }

    /// The number of a collection that must have one.
    pub(crate) fn no(&self, collection: &Collection) -> Outcome<i64> {
        let known = self.names.known_collection(collection);
        known.ok_or_else(|| SqliteFailed::damaged(format!("the collection {collection} has no number")))
    }

    /// The version of a document with this stamp, if the oplog has it.
    pub(crate) fn version(&self, doc: &DocId, stamp: &Stamp) -> Outcome<Option<Version>> {
        let Some(no) = self.names.known_collection(&doc.0) else { return Ok(None) };
        // Most often it is the version that stands, whose entry is known.
        let entry: Option<i64> = self
            .connection
            .prepare_cached(
                "SELECT entry FROM _entgldb_rows WHERE collection_no = ?1 AND key = ?2 AND hlc = ?3",
            )
            .and_then(|mut statement| {
                let found =
                    statement.query_row((no, doc.1.as_str(), stamp.hlc.0.cast_signed()), |row| row.get(0));
                found.optional().map(Option::flatten)
            })
            .doing("looking for a version")?;
        let is_of_author =
            |entry: &i64| self.names.logs_of(&stamp.node, &doc.0).any(|end| end.no == log_of(*entry));
        match entry.filter(is_of_author) {
            Some(entry) => oplog::entry_at(&self.connection, &self.names, entry),
            None => oplog::version(&self.connection, &self.names, doc, stamp),
        }
    }
}
