//! The store itself: a journal, and the application's tables that are watched.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use bytes::Bytes;
use entgldb_replica::clock::WallMillis;
use entgldb_replica::id::{Collection, DocId};
use entgldb_replica::store::{OutboxMark, Problem};
use rusqlite::Connection;

use super::count::Count;
use super::looking::Looking;
use crate::apply::applying::Applying;
use crate::apply::putback;
use crate::capture::watched::Watched;
use crate::capture::{named, notes, rebuild, scan, trouble};
use crate::failed::{Outcome, SqliteFailed, While};
use crate::fields::names;
use crate::file::change::FileChange;
use crate::file::config::SqliteConfig;
use crate::file::connection::in_transaction;
use crate::file::error::OpenError;
use crate::journal::commit::Stopped;
use crate::journal::journal::Journal;
use crate::journal::names::Names;
use crate::journal::{opening, outbox, problems, schema};
use crate::own::tables::is_own;
use crate::table::definition::{Table, Unwatchable};

/// A replica's store in an SQLite database that other programs read and write at the same time.
///
/// One connection, used from one thread. Every method waits while another program holds the database locked, and gives
/// up only when the configuration's `stop` is set. After an error the store must be dropped and opened again.
pub struct SqliteStore {
    pub(super) journal: Journal,
    pub(super) watched: Watched,
    pub(super) watch: Vec<Collection>,
    /// The tables that there were when the store was opened.
    known_tables: HashSet<String>,
    /// Numbers of watched tables that can't be watched now.
    pub(super) missing: Vec<i64>,
    /// Where `tend` goes on.
    pub(super) tending: Tending,
    /// Whether members sync one of the tables under another name.
    pub(super) is_known_otherwise: bool,
    /// Numbers of the tables that were read again since this node said what it has to say of them.
    pub(super) to_tell: BTreeSet<i64>,
    /// Whether the tables were read again since it was looked what a person should know of them, and what that was.
    pub(super) has_schema_news: bool,
    /// Whether the schema has changed and not all of what that makes possible is done.
    pub(super) catches_up: bool,
    pub(super) told: Vec<Problem>,
    /// Where looking through tables goes on.
    pub(super) looking: Looking,
    /// Watched tables that are not synced now, and why.
    pub(super) troubled: Vec<(Collection, String)>,
    /// How far looking through tables has come, by the numbers of their collections.
    pub(super) counts: BTreeMap<i64, Count>,
    /// What the last look into the outbox took, until it is committed.
    pub(super) looked: Option<(OutboxMark, Vec<(DocId, Bytes)>)>,
    /// Whether all tables are to be looked through once no note waits.
    looks_all_through: bool,
}

/// Where work that may wait goes on.
#[derive(Debug)]
pub(super) struct Tending {
    /// Last document tried again: its collection's place among the watched ones, and its key.
    pub(super) aside: (usize, String),
    /// Last row looked at for columns that were added; `None` when all have been.
    pub(super) extras: Option<(usize, String)>,
    /// Last row looked at for fields whose columns were dropped; `None` when all have been.
    pub(super) gone: Option<(usize, String)>,
    /// Whether all documents that were set aside have been tried again since the schema is as it is.
    pub(super) all_retried: bool,
    /// Whether something was left out because a local change of the row has to be captured first.
    pub(super) waits_for_capture: bool,
    pub(super) collisions: Collisions,
}

/// Whether documents that collided have been looked at again since the schema is as it is. That waits for one turn of this work.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Collisions {
    New,
    Waiting,
    Seen,
}

impl Default for Tending {
    fn default() -> Self {
        Self {
            aside: (0, String::new()),
            extras: Some((0, String::new())),
            gone: Some((0, String::new())),
            all_retried: false,
            waits_for_capture: false,
            collisions: Collisions::New,
        }
    }
}

impl std::fmt::Debug for SqliteStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SqliteStore")
            .field("path", &self.journal.path)
            .field("watch", &self.watch)
            .finish_non_exhaustive()
    }
}

impl SqliteStore {
    /// Opens a database: puts it into WAL mode, creates the engine's tables in it, and watches the named tables with
    /// triggers. Rows that are in them already are captured bit by bit by
    /// [`Store::captured`](entgldb_replica::store::Store::captured).
    ///
    /// # Errors
    /// Why the database can't be synced as asked, and what to do about it. See [`OpenError`].
    pub fn open(mut config: SqliteConfig) -> Result<Self, OpenError> {
        let asked = config.watch.clone();
        let connection = opening::open(
            &mut config,
            |connection| named::check(connection, &asked),
            |connection| watch_first(connection, &asked),
        )?;
        if is_own(&connection)? {
            return Err(OpenError::OtherKind { path: config.path });
        }
        let watch = named::collections(&connection, &config.watch)?;
        let mut journal = Journal::of(connection, config.path)?;
        let is_known =
            |(collection, _): &(Collection, String)| journal.names.known_collection(collection).is_some();
        let known: Vec<bool> = watch.iter().map(is_known).collect();
        adopt_names(&mut journal, &watch)?;
        let watch: Vec<Collection> = watch.into_iter().map(|(collection, _)| collection).collect();
        let (watched, missing) = read_watched(&mut journal, &watch, &Watched::default())?;
        let is_new = |collection: &Collection| {
            watch.iter().zip(&known).any(|(watched, known)| watched == collection && !known)
        };
        if let Some((collection, unwatchable)) = missing.iter().find(|(collection, _)| is_new(collection)) {
            return Err(named::refusal(&journal.connection, collection.as_str(), unwatchable)?);
        }
        let mut store = Self {
            known_tables: rebuild::table_names(&journal.connection)?,
            journal,
            watched: Watched::default(),
            watch: Vec::new(),
            missing: Vec::new(),
            tending: Tending::default(),
            looking: Looking::default(),
            looked: None,
            is_known_otherwise: false,
            to_tell: BTreeSet::new(),
            has_schema_news: true,
            catches_up: false,
            told: Vec::new(),
            troubled: Vec::new(),
            counts: BTreeMap::new(),
            looks_all_through: false,
        };
        store.use_watched(watched, watch, &missing)?;
        store.note_trouble(missing, &BTreeMap::new())?;
        store.try_problems_again(config.payload_bytes_max)?;
        Ok(store)
    }

    /// Closes the store with everything on the disk. A store that is dropped instead is as good, except with
    /// [`Durability::Normal`](crate::Durability::Normal): what was committed last may then be lost in a power cut.
    ///
    /// # Errors
    /// When it is not certain that everything is on the disk.
    pub fn close(self) -> Result<(), SqliteFailed> {
        self.journal.close()
    }

    /// The watched tables, in the schema's spelling.
    #[must_use]
    pub fn collections(&self) -> &[Collection] {
        &self.watch
    }

    /// Whether members sync one of the tables under another name: with other capitals, or as it was called before it was renamed
    /// there. The store must be opened again, and has that name then.
    #[must_use]
    pub fn is_known_otherwise(&self) -> bool {
        self.is_known_otherwise
    }

    /// Whether remote changes have to wait because the disk is nearly full. Local ones are taken while there is any room.
    #[must_use]
    pub fn is_short_of_room(&self) -> bool {
        self.journal.is_short_of_room()
    }

    /// What could not travel may be able to now: the limit may have been raised.
    fn try_problems_again(&mut self, payload_bytes_max: usize) -> Outcome<()> {
        let limit = i64::try_from(payload_bytes_max).unwrap_or(i64::MAX);
        let connection = &self.journal.connection;
        if schema::get::<i64>(connection, "payload_bytes_max")? == Some(limit) {
            return Ok(());
        }
        in_transaction(connection, |connection| {
            for table in self.watched.tables() {
                for key in problems::keys(connection, table.no)? {
                    if let Ok(columns) = table.form.decode(key.as_str()) {
                        notes::put_found(connection, table, &columns).doing("noting a row to capture")?;
                    }
                }
            }
            schema::put(connection, "payload_bytes_max", limit)
        })
    }

    /// Whether no note of a local change waits, and the schema is the one that is known. Costs a few microseconds.
    ///
    /// # Errors
    /// When the store can't be read.
    pub fn outbox_is_empty(&mut self) -> Result<bool, SqliteFailed> {
        self.journal.look_at_file()?;
        let is_known = self.watched.is_current(&self.journal.connection)?;
        Ok(is_known && self.journal.outbox_is_empty()?)
    }

    /// How the file differs from the one that was opened; `None` if it does not. To be asked after an error, which may have
    /// come from that.
    #[must_use]
    pub fn file_change(&self) -> Option<FileChange> {
        self.journal.connection.change()
    }

    /// All tables are to be looked through, because the file is another one than before. Notes that are in it come first: they
    /// have the time of their write.
    pub fn look_all_through(&mut self) {
        self.looks_all_through = true;
    }

    /// Whether tables are still being looked through: rows that were there before they were watched.
    /// [`Store::captured`](entgldb_replica::store::Store::captured) goes on with that whenever the outbox is nearly empty.
    ///
    /// # Errors
    /// When the store can't be read.
    pub fn is_scanning(&mut self) -> Result<bool, SqliteFailed> {
        Ok(self.looks_all_through || scan::is_pending(&self.journal.connection, &self.watched)?)
    }

    /// Works with other tables, or with the same ones under another schema, from now on.
    pub(super) fn use_watched(
        &mut self,
        watched: Watched,
        watch: Vec<Collection>,
        missing: &[(Collection, Unwatchable)],
    ) -> Outcome<()> {
        putback::prepare(&self.journal.connection, &watched)?;
        let number = |(collection, _): &(Collection, _)| self.journal.no(collection);
        let missing: Vec<i64> = missing.iter().map(number).collect::<Outcome<_>>()?;
        let back: Vec<i64> =
            self.missing.iter().copied().filter(|no| watched.numbered(*no).is_some()).collect();
        for no in back {
            in_transaction(&self.journal.connection, |connection| notes::release(connection, no))?;
        }
        let is_same = |table: &&Arc<Table>| {
            self.watched.numbered(table.no).is_some_and(|before| Arc::ptr_eq(before, table))
        };
        self.to_tell.extend(watched.tables().iter().filter(|table| !is_same(table)).map(|table| table.no));
        (self.watched, self.watch, self.missing) = (watched, watch, missing);
        self.tending = Tending::default();
        self.has_schema_news = true;
        Ok(())
    }

    /// Reads the schema again if it has changed.
    pub(super) fn refresh(&mut self) -> Outcome<()> {
        if self.watched.is_current(&self.journal.connection)? {
            return Ok(());
        }
        if !self.goes_on_under_new_schema()? {
            let renamed = trouble::renamed(&self.journal.connection, &self.watched)?;
            let (watched, missing) = read_watched(&mut self.journal, &self.watch, &self.watched)?;
            self.use_watched(watched, self.watch.clone(), &missing)?;
            self.note_trouble(missing, &renamed)?;
        }
        let names = rebuild::table_names(&self.journal.connection)?;
        let watch = &self.watch;
        let is_new = |name: &&String| {
            !self.known_tables.contains(*name)
                && !watch.iter().any(|watched| watched.as_str().eq_ignore_ascii_case(name))
        };
        let appeared: Vec<String> = names.iter().filter(is_new).cloned().collect();
        self.watched.perhaps_copied = rebuild::copied(&self.journal.connection, &self.watched, &appeared)?;
        self.catches_up = true;
        Ok(())
    }

    /// Whether the schema has changed only where no watched table is, so that nothing has to be written. What was refused may be
    /// possible now all the same.
    fn goes_on_under_new_schema(&mut self) -> Outcome<bool> {
        let connection = &self.journal.connection;
        if !self.missing.is_empty() {
            return Ok(false);
        }
        let Some(version) = self.journal.read(|| self.watched.changed_elsewhere(connection))? else {
            return Ok(false);
        };
        self.watched.goes_on_under(version);
        self.tending = Tending::default();
        Ok(true)
    }

    /// Begins to look all tables through, if that is wanted and no note waits.
    pub(super) fn begin_to_look_all_through(&mut self) -> Outcome<()> {
        if !self.looks_all_through || !outbox::is_empty(&self.journal.connection)? {
            return Ok(());
        }
        let watched = &self.watched;
        in_transaction(&self.journal.connection, |connection| scan::begin_all(connection, watched))?;
        self.looks_all_through = false;
        Ok(())
    }

    /// Carries work out in a write transaction, again and again if a trigger of the application rolls it back. `work`
    /// returns whether to keep what it did.
    pub(super) fn transact(
        &mut self,
        wall: WallMillis,
        mut work: impl FnMut(&mut Applying<'_>) -> Result<bool, Stopped>,
    ) -> Outcome<Option<Vec<Problem>>> {
        let mut banned: HashMap<DocId, String> = HashMap::new();
        loop {
            self.refresh()?;
            let watched = &self.watched;
            let attempted = self.journal.attempt(wall, |step| {
                if !watched.is_current(step.connection)? {
                    return Err(Stopped::SchemaChanged);
                }
                let mut applying = Applying::new(step, watched, &banned);
                let keep = work(&mut applying)?;
                Ok(keep.then_some(applying.step.problems))
            });
            match attempted {
                Ok(done) => return Ok(done),
                Err(Stopped::SchemaChanged) => {}
                Err(Stopped::OutboxMoved) => return Ok(None),
                Err(Stopped::Found(docs)) => {
                    self.note_found(&docs)?;
                    return Ok(None);
                }
                Err(Stopped::RolledBack(doc, message)) => {
                    if banned.insert(doc, message).is_some() {
                        return Err(SqliteFailed::damaged("a trigger rolls back what is not applied"));
                    }
                }
                Err(Stopped::Failed(failed)) => return Err(failed),
            }
        }
    }
}

/// Notes under which names these tables are synced from now on.
pub(super) fn adopt_names(journal: &mut Journal, watch: &[(Collection, String)]) -> Outcome<()> {
    let known = &mut journal.names;
    let adopted = in_transaction(&journal.connection, |connection| names::adopt(connection, known, watch));
    if adopted.is_err() {
        journal.reload_names()?;
    }
    adopted
}

impl SqliteStore {
    /// Notes rows that are not as the engine left them, so that they are captured before anything else is done to them.
    fn note_found(&mut self, docs: &[DocId]) -> Outcome<()> {
        let first = scan::first_watched(&self.journal.connection, &self.watched)?;
        let mut found = Vec::new();
        for (collection, key) in docs {
            let Some(table) = self.watched.table(collection) else { continue };
            let Ok(columns) = table.form.decode(key.as_str()) else { continue };
            let is_known = self.journal.rows(&[(collection.clone(), key.clone())])?[0].is_some();
            if !is_known && first.iter().any(|first| first.no == table.no) {
                self.looking.urgent.push((table.no, key.clone()));
            } else {
                found.push((table, columns));
            }
        }
        if found.is_empty() {
            return Ok(());
        }
        in_transaction(&self.journal.connection, |connection| {
            for (table, columns) in &found {
                if !notes::is_noted(connection, table, columns)? {
                    notes::put_found(connection, table, columns).doing("noting a row to capture")?;
                }
            }
            Ok(())
        })
    }
}

/// Watches tables in the transaction that creates the engine's own.
fn watch_first(connection: &Connection, names: &[String]) -> Outcome<()> {
    let watch: Vec<Collection> = match named::collections(connection, names) {
        Ok(watch) => watch.into_iter().map(|(collection, _)| collection).collect(),
        Err(OpenError::Failed(failed)) => return Err(failed),
        // A table that was dropped since it was checked is refused when the tables are read again.
        Err(_) => return Ok(()),
    };
    let mut names = Names::load(connection)?;
    Watched::read(connection, &mut names, &watch, &Watched::default()).map(drop)
}

/// Tables that can't be watched, and why.
pub(super) type Missing = Vec<(Collection, Unwatchable)>;

/// Reads the tables that are others than before, and brings their triggers in order.
pub(super) fn read_watched(
    journal: &mut Journal,
    watch: &[Collection],
    before: &Watched,
) -> Outcome<(Watched, Missing)> {
    let names = &mut journal.names;
    let read =
        in_transaction(&journal.connection, |connection| Watched::read(connection, names, watch, before));
    if read.is_err() {
        journal.reload_names()?;
    }
    read
}
