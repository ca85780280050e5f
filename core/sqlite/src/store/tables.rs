//! The store itself: a journal, and the application's tables that are watched.

use std::collections::HashMap;

use entgldb_replica::clock::WallMillis;
use entgldb_replica::id::{Collection, DocId};
use entgldb_replica::store::Problem;

use crate::apply::applying::Applying;
use crate::apply::putback;
use crate::capture::watched::{Watched, schema_version};
use crate::capture::{named, scan};
use crate::failed::{Outcome, SqliteFailed, While};
use crate::file::change::FileChange;
use crate::file::config::SqliteConfig;
use crate::file::connection::in_transaction;
use crate::file::error::OpenError;
use crate::journal::commit::Stopped;
use crate::journal::journal::Journal;
use crate::journal::{opening, outbox};
use crate::own::tables::is_own;
use crate::table::definition::Unwatchable;

/// Slices of a scan in one look into the outbox: most of them may find nothing to note.
const SCAN_SLICES_MAX: usize = 4;

/// A replica's store in an SQLite database that other programs read and write at the same time.
///
/// One connection, used from one thread. Every method waits while another program holds the database locked, and gives
/// up only when the configuration's `stop` is set. After an error the store must be dropped and opened again.
pub struct SqliteStore {
    pub(super) journal: Journal,
    pub(super) watched: Watched,
    pub(super) watch: Vec<Collection>,
    /// Where `tend` goes on.
    pub(super) tending: Tending,
    /// Whether all tables are to be looked through once no note waits.
    looks_through: bool,
}

/// Where work that may wait goes on.
#[derive(Debug)]
pub(super) struct Tending {
    /// Last document tried again: its collection's place among the watched ones, and its key.
    pub(super) aside: (usize, String),
    /// Last row looked at for columns that were added; `None` when all have been.
    pub(super) extras: Option<(usize, String)>,
}

impl Default for Tending {
    fn default() -> Self {
        Self { aside: (0, String::new()), extras: Some((0, String::new())) }
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
        let connection = opening::open(&mut config)?;
        if is_own(&connection)? {
            return Err(OpenError::OtherKind { path: config.path });
        }
        let watch = named::collections(&connection, &config.watch)?;
        let mut journal = Journal::of(connection, config.path)?;
        let (watched, missing) = read_watched(&mut journal, &watch)?;
        if let Some((collection, unwatchable)) = missing.into_iter().next() {
            return Err(named::refusal(&journal.connection, collection.as_str(), unwatchable)?);
        }
        let mut store = Self {
            journal,
            watched: Watched::default(),
            watch: Vec::new(),
            tending: Tending::default(),
            looks_through: false,
        };
        store.use_watched(watched, watch)?;
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

    /// Whether remote changes have to wait because the disk is nearly full. Local ones are taken while there is any room.
    #[must_use]
    pub fn is_short_of_room(&self) -> bool {
        self.journal.is_short_of_room()
    }

    /// Whether no note of a local change waits. Costs a few microseconds.
    ///
    /// # Errors
    /// When the store can't be read.
    pub fn outbox_is_empty(&mut self) -> Result<bool, SqliteFailed> {
        self.journal.outbox_is_empty()
    }

    /// How the file differs from the one that was opened; `None` if it does not. To be asked after an error, which may have
    /// come from that.
    #[must_use]
    pub fn file_change(&self) -> Option<FileChange> {
        self.journal.connection.change()
    }

    /// All tables are to be looked through, because the file is another one than before. Notes that are in it come first: they
    /// have the time of their write.
    pub fn look_through(&mut self) {
        self.looks_through = true;
    }

    /// Whether tables are still being looked through: rows that were there before they were watched.
    /// [`Store::captured`](entgldb_replica::store::Store::captured) goes on with that whenever the outbox is nearly empty.
    ///
    /// # Errors
    /// When the store can't be read.
    pub fn is_scanning(&mut self) -> Result<bool, SqliteFailed> {
        Ok(self.looks_through || scan::is_pending(&self.journal.connection, &self.watched)?)
    }

    /// Works with other tables, or with the same ones under another schema, from now on.
    pub(super) fn use_watched(&mut self, watched: Watched, watch: Vec<Collection>) -> Outcome<()> {
        putback::prepare(&self.journal.connection, &watched)?;
        (self.watched, self.watch) = (watched, watch);
        self.tending = Tending::default();
        Ok(())
    }

    /// Reads the schema again if it has changed.
    pub(super) fn refresh(&mut self) -> Outcome<()> {
        if schema_version(&self.journal.connection)? == self.watched.version() {
            return Ok(());
        }
        let (watched, missing) = read_watched(&mut self.journal, &self.watch)?;
        for (collection, why) in missing {
            tracing::error!(table = %collection, ?why, "a watched table cannot be watched any more");
        }
        self.use_watched(watched, self.watch.clone())
    }

    /// Puts keys of tables that are to be looked through into the outbox, while that is nearly empty. Answers whether
    /// there is more to look through.
    pub(super) fn scan_on(&mut self) -> Outcome<bool> {
        self.begin_looking_through()?;
        let connection = &self.journal.connection;
        for _ in 0..SCAN_SLICES_MAX {
            if !scan::is_pending(connection, &self.watched)? {
                return Ok(false);
            }
            let waiting: bool = connection
                .prepare_cached("SELECT EXISTS(SELECT 1 FROM _entgldb_outbox LIMIT 1 OFFSET 255)")
                .and_then(|mut statement| statement.query_row([], |row| row.get(0)))
                .doing("looking into the outbox")?;
            if waiting {
                return Ok(true);
            }
            in_transaction(connection, |connection| scan::slice(connection, &self.watched))?;
        }
        Ok(true)
    }

    /// Begins to look all tables through, if that is wanted and no note waits.
    fn begin_looking_through(&mut self) -> Outcome<()> {
        if !self.looks_through || !outbox::is_empty(&self.journal.connection)? {
            return Ok(());
        }
        let watched = &self.watched;
        in_transaction(&self.journal.connection, |connection| scan::begin(connection, watched))?;
        self.looks_through = false;
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

/// Tables that can't be watched, and why.
pub(super) type Missing = Vec<(Collection, Unwatchable)>;

/// Reads tables and brings their triggers in order.
pub(super) fn read_watched(journal: &mut Journal, watch: &[Collection]) -> Outcome<(Watched, Missing)> {
    let names = &mut journal.names;
    let read = in_transaction(&journal.connection, |connection| Watched::read(connection, names, watch));
    if read.is_err() {
        journal.reload_names()?;
    }
    read
}
