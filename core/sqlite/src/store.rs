//! The store of a replica in the application's own database.

use std::collections::{BTreeSet, HashMap};
use std::path::PathBuf;

use bytes::Bytes;
use entgldb_replica::clock::{Hlc, Stamp, WallMillis};
use entgldb_replica::entry::SignedHead;
use entgldb_replica::id::{Collection, DocId, Incarnation, Key, LogId, NodeId};
use entgldb_replica::resolve::{Conflict, Row, Version};
use entgldb_replica::store::{
    Commit, Committed, Drain, Durable, Guard, OutboxMark, Problem, ReadLimits, Scan, ScanLimits, Store,
    Stored, UnitLimits,
};
use entgldb_replica::version::{Hash, Seq};
use rusqlite::OptionalExtension;

use crate::capture::{self, Look};
use crate::commit::{Step, Stopped};
use crate::failed::{Outcome, SqliteFailed, While};
use crate::file::binding::Bound;
use crate::names::{Names, log_of};
use crate::open::{self, OpenError, SqliteConfig};
use crate::own::{self, Keeps};
use crate::room::Room;
use crate::watched::{Watched, schema_version};
use crate::{note, oplog, outgoing, scan, schema, standing, unsynced};

/// Slices of a scan in one look into the outbox: most of them may find nothing to note.
const SCAN_SLICES_MAX: usize = 4;

/// A replica's store in an SQLite database that other programs read and write at the same time.
///
/// One connection, used from one thread. Every method waits while another program holds the database locked, and gives
/// up only when the configuration's `stop` is set. After an error the store must be dropped and opened again.
pub struct SqliteStore {
    pub(crate) connection: Bound,
    pub(crate) names: Names,
    pub(crate) watched: Watched,
    pub(crate) watch: Vec<Collection>,
    pub(crate) path: PathBuf,
    /// Changes that can't travel, found by looks into the outbox that are not committed yet.
    pub(crate) refused: Vec<(OutboxMark, Problem)>,
    pub(crate) room: Room,
    /// Who keeps the documents, if this is the engine's own file.
    pub(crate) home: Option<Keeps>,
    /// Where `tend` goes on.
    pub(crate) tending: crate::tend::Tending,
}

impl std::fmt::Debug for SqliteStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SqliteStore")
            .field("path", &self.path)
            .field("watch", &self.watch)
            .finish_non_exhaustive()
    }
}

impl SqliteStore {
    /// Opens a database: puts it into WAL mode, creates the engine's tables in it, and watches the named tables with
    /// triggers. Rows that are in them already are captured bit by bit by [`Store::captured`].
    ///
    /// # Errors
    /// Why the database can't be synced as asked, and what to do about it. See [`OpenError`].
    pub fn open(mut config: SqliteConfig) -> Result<Self, OpenError> {
        let connection = open::connection(&mut config)?;
        if own::is_own(&connection)? {
            return Err(OpenError::OtherKind { path: config.path });
        }
        let watch = open::collections(&connection, &config.watch)?;
        let mut names = Names::load(&connection)?;
        let read =
            open::in_transaction(&connection, |connection| Watched::read(connection, &mut names, &watch));
        let (watched, missing) = read?;
        if let Some((collection, unwatchable)) = missing.into_iter().next() {
            return Err(open::refusal(&connection, collection.as_str(), unwatchable)?);
        }
        watched.prepare(&connection)?;
        Ok(Self { watch, ..Self::of(connection, names, watched, config.path) })
    }

    pub(crate) fn of(connection: Bound, names: Names, watched: Watched, path: PathBuf) -> Self {
        Self {
            connection,
            names,
            watched,
            watch: Vec::new(),
            path,
            refused: Vec::new(),
            room: Room::default(),
            home: None,
            tending: crate::tend::Tending::default(),
        }
    }

    /// Closes the store with everything on the disk. A store that is dropped instead is as good, except with
    /// [`Durability::Normal`](crate::Durability::Normal): what was committed last may then be lost in a power cut.
    ///
    /// # Errors
    /// When it is not certain that everything is on the disk.
    pub fn close(self) -> Result<(), SqliteFailed> {
        unsynced::end(&self.connection)?;
        self.connection.release()
    }

    /// The watched tables, in the schema's spelling.
    #[must_use]
    pub fn collections(&self) -> &[Collection] {
        &self.watch
    }

    /// Whether remote changes have to wait because the disk is nearly full. Local ones are taken while there is any room.
    #[must_use]
    pub fn is_short_of_room(&self) -> bool {
        self.room.is_short()
    }

    /// Whether no note of a local change waits. Costs a few microseconds.
    ///
    /// # Errors
    /// When the store can't be read.
    pub fn outbox_is_empty(&mut self) -> Result<bool, SqliteFailed> {
        self.connection.look()?;
        capture::outbox_is_empty(&self.connection)
    }

    /// Whether tables are still being looked through: rows that were there before they were watched. [`Store::captured`]
    /// goes on with that whenever the outbox is nearly empty.
    ///
    /// # Errors
    /// When the store can't be read.
    pub fn is_scanning(&mut self) -> Result<bool, SqliteFailed> {
        scan::is_pending(&self.connection, &self.watched)
    }

    /// Reads the schema again if it has changed.
    pub(crate) fn refresh(&mut self) -> Outcome<()> {
        if schema_version(&self.connection)? == self.watched.version() {
            return Ok(());
        }
        let (names, watch) = (&mut self.names, &self.watch);
        let (watched, missing) =
            open::in_transaction(&self.connection, |connection| Watched::read(connection, names, watch))?;
        for (collection, why) in missing {
            tracing::error!(table = %collection, ?why, "a watched table cannot be watched any more");
        }
        watched.prepare(&self.connection)?;
        self.watched = watched;
        self.tending.schema_changed();
        Ok(())
    }

    /// Puts keys of tables that are to be looked through into the outbox, while that is nearly empty. Answers whether
    /// there is more to look through.
    fn scan_on(&mut self) -> Outcome<bool> {
        for _ in 0..SCAN_SLICES_MAX {
            if !scan::is_pending(&self.connection, &self.watched)? {
                return Ok(false);
            }
            let waiting: bool = self
                .connection
                .prepare_cached("SELECT EXISTS(SELECT 1 FROM _entgldb_outbox LIMIT 1 OFFSET 255)")
                .and_then(|mut statement| statement.query_row([], |row| row.get(0)))
                .doing("looking into the outbox")?;
            if waiting {
                return Ok(true);
            }
            let watched = &self.watched;
            open::in_transaction(&self.connection, |connection| scan::slice(connection, watched))?;
        }
        Ok(true)
    }

    /// Carries a step out in a write transaction, again and again if a trigger of the application rolls it back.
    pub(crate) fn transact(
        &mut self,
        wall: WallMillis,
        mut work: impl FnMut(&mut Step<'_>) -> Result<bool, Stopped>,
    ) -> Outcome<Option<Vec<Problem>>> {
        let mut banned = HashMap::new();
        loop {
            self.refresh()?;
            self.connection.begin()?;
            let result = if self.watched.is_current(&self.connection)? {
                let step = Step::new(&self.connection, &mut self.names, &self.watched, &banned, wall);
                step.map_err(Stopped::from).and_then(|mut step| {
                    step.home = self.home;
                    let keep = work(&mut step)?;
                    Ok((keep, step.problems))
                })
            } else {
                self.connection.roll_back();
                continue;
            };
            match result {
                Ok((true, problems)) => {
                    self.connection.commit()?;
                    return Ok(Some(problems));
                }
                Ok((false, _)) | Err(Stopped::OutboxMoved) => {
                    self.connection.roll_back();
                    self.names = Names::load(&self.connection)?;
                    return Ok(None);
                }
                Err(Stopped::RolledBack(doc, message)) => {
                    self.names = Names::load(&self.connection)?;
                    if banned.insert(doc, message).is_some() {
                        return Err(SqliteFailed::damaged("a trigger rolls back what is not applied"));
                    }
                }
                Err(Stopped::Failed(failed)) => {
                    self.connection.roll_back();
                    return Err(failed);
                }
            }
        }
    }

    pub(crate) fn read<T>(&mut self, work: impl FnOnce(&Self) -> Outcome<T>) -> Outcome<T> {
        self.connection.execute_batch("BEGIN").doing("beginning to read")?;
        let result = work(self);
        let ended = self.connection.execute_batch("COMMIT").doing("ending to read");
        let done = result?;
        ended.map(|()| done)
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

    fn stated(&self) -> Outcome<Vec<Collection>> {
        let numbers = schema::stated(&self.connection)?;
        numbers.into_iter().map(|no| self.names.collection(no).cloned()).collect()
    }

    fn open_conflicts(&self) -> Outcome<Vec<Conflict>> {
        let mut statement = self
            .connection
            .prepare(
                "SELECT collection_no, key, winner_hlc, winner_author_no, winner_content, loser_hlc, loser_author_no,
                 loser_content, missing_hlc, missing_author_no FROM _entgldb_conflicts WHERE missing_hlc IS NOT NULL",
            )
            .doing("reading conflicts")?;
        let mut rows = statement.query([]).doing("reading conflicts")?;
        let mut found = Vec::new();
        while let Some(row) = rows.next().doing("reading conflicts")? {
            found.push(crate::inspect::conflict(&self.names, row)?);
        }
        Ok(found)
    }
}

impl Store for SqliteStore {
    type Error = SqliteFailed;

    fn load(&mut self) -> Outcome<Durable> {
        self.names = Names::load(&self.connection)?;
        let owner: Option<[u8; 32]> = schema::get(&self.connection, "owner")?;
        let incarnation: Option<i64> = schema::get(&self.connection, "incarnation")?;
        let clock: Option<i64> = schema::get(&self.connection, "clock")?;
        Ok(Durable {
            owner: owner
                .zip(incarnation)
                .map(|(node, born)| (NodeId(node), Incarnation(born.cast_unsigned()))),
            clock: Hlc(clock.unwrap_or_default().cast_unsigned()),
            heads: self.names.logs.iter().map(|(log, end)| (log.clone(), end.head, end.hlc)).collect(),
            authors: self.names.public_keys.clone(),
            tallies: self.names.tallies.iter().map(|(name, tally)| (name.clone(), *tally)).collect(),
            open_conflicts: self.open_conflicts()?,
            merged: self.stated()?,
            floors: self
                .names
                .logs
                .iter()
                .filter(|(_, end)| end.floor > Seq(0))
                .map(|(log, end)| (log.clone(), end.floor, end.floor_hlc))
                .collect(),
            notes: note::load(&self.connection)?,
        })
    }

    fn captured(&mut self, limits: &UnitLimits) -> Outcome<Drain> {
        self.connection.look()?;
        self.refresh()?;
        let scanning = self.scan_on()?;
        let mut drain = self.read(|store| {
            let Self { connection, names, watched, .. } = store;
            Look { connection, names, watched, limits }.drain()
        })?;
        drain.more |= scanning;
        if let Some(mark) = drain.mark {
            self.refused = drain.refused.iter().map(|problem| (mark, problem.clone())).collect();
        }
        Ok(drain)
    }

    fn rows(&mut self, docs: &[DocId]) -> Outcome<Vec<Option<Row>>> {
        if docs.len() > 1 {
            // Without a transaction around them, every single read takes and gives up its locks.
            return self.read(|store| docs.iter().map(|doc| store.row(doc)).collect());
        }
        docs.iter().map(|doc| self.row(doc)).collect()
    }

    fn merged(&mut self, docs: &[DocId]) -> Outcome<Vec<Option<Bytes>>> {
        let state = |(collection, key): &DocId| {
            let Some(no) = self.names.known_collection(collection) else { return Ok(None) };
            Ok(schema::state(&self.connection, no, key.as_str())?.map(Bytes::from))
        };
        docs.iter().map(state).collect()
    }

    fn json_fields(&self, collection: &Collection) -> BTreeSet<String> {
        let columns = self.watched.table(collection).into_iter().flat_map(|table| &table.columns);
        columns.filter(|column| column.is_json).map(|column| column.name.clone()).collect()
    }

    fn version(&mut self, doc: &DocId, stamp: &Stamp) -> Outcome<Option<Version>> {
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
        let found = match entry.filter(is_of_author) {
            Some(entry) => oplog::entry_at(&self.connection, &self.names, entry)?,
            None => oplog::version(&self.connection, &self.names, doc, stamp)?,
        };
        if found.is_some() {
            return Ok(found);
        }
        let Some(standing) = outgoing::standing(&self.connection, &self.names, no, doc.1.as_str())? else {
            return Ok(None);
        };
        standing::version(&self.source(&doc.0, no)?, &standing, stamp)
    }

    fn read_log(&mut self, log: &LogId, after: Seq, limits: &ReadLimits) -> Outcome<Vec<Stored>> {
        oplog::read(&self.connection, &self.names, log, after, limits)
    }

    fn last_at(&mut self, log: &LogId, hlc: Hlc) -> Outcome<Seq> {
        match self.names.logs.get(log) {
            Some(end) => oplog::last_at(&self.connection, end, hlc),
            None => Ok(Seq(0)),
        }
    }

    fn hash_at(&mut self, log: &LogId, seq: Seq) -> Outcome<Option<Hash>> {
        oplog::hash_at(&self.connection, &self.names, log, seq)
    }

    fn signed_until(&mut self, log: &LogId, seq: Seq) -> Outcome<Option<SignedHead>> {
        oplog::signed_until(&self.connection, &self.names, log, seq)
    }

    fn signed_from(&mut self, log: &LogId, seq: Seq) -> Outcome<Option<SignedHead>> {
        oplog::signed_from(&self.connection, &self.names, log, seq)
    }

    fn scan(&mut self, collection: &Collection, after: Option<&Key>, limits: &ScanLimits) -> Outcome<Scan> {
        self.scan_rows(collection, after, limits)
    }

    fn commit(&mut self, commit: &Commit) -> Outcome<Committed> {
        self.commit_with(commit, commit.guard, &mut |_| Ok(()))
    }

    fn tend(&mut self, conflicts_before: WallMillis) -> Outcome<Vec<Problem>> {
        self.tend_all(conflicts_before)
    }
}

impl SqliteStore {
    /// Carries a commit out under a guard, and `beside` in the same transaction.
    pub(crate) fn commit_with(
        &mut self,
        commit: &Commit,
        guard: Guard,
        beside: &mut dyn FnMut(&mut Step<'_>) -> Result<(), Stopped>,
    ) -> Outcome<Committed> {
        let is_remote = guard != Guard::None;
        // To the replica this is a guard that does not hold: the peer is told to come again.
        if is_remote && !self.room.look(&self.path) {
            return Ok(Committed::OutboxMoved);
        }
        let refused = std::mem::take(&mut self.refused);
        let (noted, kept): (Vec<_>, Vec<_>) =
            refused.into_iter().partition(|(mark, _)| commit.drained.is_some_and(|drained| *mark <= drained));
        self.refused = kept;
        let problems = self.transact(commit.wall, |step| {
            step.carry_out(commit, guard)?;
            beside(step)?;
            step.note_refused(noted.iter().map(|(_, problem)| problem), &commit.rows)?;
            Ok(true)
        });
        let problems = match problems {
            Err(failed) if is_remote && failed.is_disk_full() => {
                // Rolled back as a whole, and what is on the disk is sound.
                self.names = Names::load(&self.connection)?;
                self.room.was_full();
                None
            }
            problems => problems?,
        };
        match problems {
            Some(problems) => Ok(Committed::Done(problems)),
            None => {
                self.refused.extend(noted);
                Ok(Committed::OutboxMoved)
            }
        }
    }
}
