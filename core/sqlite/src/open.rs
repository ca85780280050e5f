//! Opening the application's database, and every reason not to.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use entgldb_replica::id::{Collection, NameError};
use entgldb_replica::limits::PAYLOAD_BYTES_HARD;
use rusqlite::config::DbConfig;
use rusqlite::limits::Limit;
use rusqlite::{Connection, ErrorCode, OpenFlags};

use crate::failed::{Outcome, SqliteFailed, While, code};
use crate::file::binding::Bound;
use crate::file::challenge::{Claimant, claim};
use crate::file::holder::{HeldBy, Holder};
use crate::schema::{self, FORMAT};
use crate::table::{self, Unwatchable};
use crate::unsynced;

/// When a commit counts as durable.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Durability {
    /// Once it is synced to disk: it survives a power cut.
    #[default]
    Full,
    /// Once it is written: it survives the end of any process, but a power cut may take the last commits back. Peers give
    /// back what they have. Unless it was closed, the oplog goes on in a new incarnation when it is opened again.
    Normal,
}

/// How a database is opened.
pub struct SqliteConfig {
    /// The application's database file. It must exist.
    pub path: PathBuf,
    /// The tables to watch. At least one; each needs a primary key.
    pub watch: Vec<String>,
    /// When a commit counts as durable.
    pub durability: Durability,
    /// Largest document, in bytes; at most [`PAYLOAD_BYTES_HARD`].
    pub payload_bytes_max: usize,
    /// Set by another thread to make a wait for a locked database give up.
    pub stop: Arc<AtomicBool>,
    /// Who opens it.
    pub holder: Holder,
    /// Called about once a second, on the store's thread, while the database stays locked by another program, with the
    /// time waited so far.
    pub on_busy: Option<Box<dyn FnMut(Duration) + Send>>,
}

impl std::fmt::Debug for SqliteConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SqliteConfig")
            .field("path", &self.path)
            .field("watch", &self.watch)
            .finish_non_exhaustive()
    }
}

/// Why a database was not opened. The application's tables and rows are as they were.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// There is no such file. None is created: a wrong path must not pass for an empty database.
    #[error("there is no file {path}: check the path, or let the application create its database first")]
    NoSuchFile {
        /// The path as given.
        path: PathBuf,
    },
    /// The file is no SQLite database.
    #[error("{path} is not an SQLite database (or is encrypted)")]
    NotADatabase {
        /// The path as given.
        path: PathBuf,
    },
    /// The file cannot be written.
    #[error("{path} cannot be written: give this user write permission on the file and its folder")]
    ReadOnly {
        /// The path as given.
        path: PathBuf,
    },
    /// The database cannot be put into WAL mode, in which readers and a writer do not wait for each other.
    #[error("{path} stays in journal mode {mode:?} instead of WAL: is it on a network file system?")]
    NotWal {
        /// The path as given.
        path: PathBuf,
        /// The mode it is in.
        mode: String,
    },
    /// Another program keeps the database locked, so that it cannot be put into WAL mode.
    #[error(
        "{path} is kept locked by another program: end it once, so that the database can be put into WAL mode"
    )]
    Locked {
        /// The path as given.
        path: PathBuf,
    },
    /// No table was named.
    #[error("no table to watch was named; the database has: {}", available.join(", "))]
    NothingToWatch {
        /// Tables of the database.
        available: Vec<String>,
    },
    /// A named table does not exist.
    #[error("the database has no table {table:?}; it has: {}", available.join(", "))]
    NoSuchTable {
        /// The name as given.
        table: String,
        /// Tables of the database.
        available: Vec<String>,
    },
    /// A named table is a view or a virtual table, whose writes cannot be captured.
    #[error("{table:?} is a {what}: watch the ordinary tables that it shows or stores its data in")]
    NotAnOrdinaryTable {
        /// The name as given.
        table: String,
        /// What it is.
        what: &'static str,
    },
    /// A named table has no declared primary key, so that its rows have no lasting names.
    #[error(
        "the table {table:?} has no declared primary key, so its rows cannot be told apart on another node: make it anew \
         with a PRIMARY KEY (random text or blob ids if rows are added on several nodes) and copy its rows over"
    )]
    NoPrimaryKey {
        /// The name as given.
        table: String,
    },
    /// A table's name cannot be the name of a collection, or belongs to the engine or to SQLite.
    #[error("the table name {table:?} cannot be used: {reason}")]
    BadName {
        /// The name as given.
        table: String,
        /// Why.
        reason: String,
    },
    /// The largest document asked for is beyond what any node takes.
    #[error("payload_bytes_max is {asked}; the limit PAYLOAD_BYTES_HARD allows {PAYLOAD_BYTES_HARD}")]
    PayloadLimit {
        /// Bytes asked for.
        asked: usize,
    },
    /// The file can't be made.
    #[error("{path} can't be made: {source}")]
    NotMade {
        /// The path as given.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The file is an application's database where the engine's own is wanted, or the other way round, or the engine's own of
    /// another kind.
    #[error(
        "{path} is of another kind: an application's database with watched tables, the engine's own file with documents, and \
         the engine's own file beside a store of the application's are not one another"
    )]
    OtherKind {
        /// The path as given.
        path: PathBuf,
    },
    /// Another engine is at work on the file. Nothing was changed.
    #[error(
        "{path} is in use by another engine: {by}. A database has one engine: use that one, or stop it before another one is \
         started"
    )]
    InUse {
        /// The path as given.
        path: PathBuf,
        /// Who is at work.
        by: Box<HeldBy>,
    },
    /// The file has several names that lead to different write-ahead logs, and says that an engine is at work on it which can't
    /// be asked by this name.
    #[error(
        "{path} has another name (a hard link, or a mount of the file alone), and {by} may be at work on it by that name. \
         SQLite keeps a log for each name, and two of them damage a database: stop that engine, remove the other name, and \
         start with the data folder of that engine once"
    )]
    SeveralNames {
        /// The path as given.
        path: PathBuf,
        /// Who may be at work.
        by: Box<HeldBy>,
    },
    /// The engine's tables were written by a later version.
    #[error("{path} has engine tables of format {found}; this version knows {FORMAT}: use the newer version")]
    NewerFormat {
        /// The path as given.
        path: PathBuf,
        /// Their format.
        found: i64,
    },
    /// The database failed while it was opened.
    #[error(transparent)]
    Failed(#[from] SqliteFailed),
}

impl OpenError {
    /// Whether trying again later, with nothing else done, cannot help.
    #[must_use]
    pub fn is_final(&self) -> bool {
        match self {
            Self::Failed(failed) => failed.is_final(),
            Self::NotADatabase { .. }
            | Self::NewerFormat { .. }
            | Self::InUse { .. }
            | Self::SeveralNames { .. } => true,
            _ => false,
        }
    }
}

/// Page cache, in KiB: enough for the hot pages of a few large tables, little enough for a small machine.
const CACHE_KIB: i64 = 8 << 10;
/// Pages in the WAL after which a commit of ours moves them into the database: more than SQLite's own choice, because a
/// catch-up writes the same pages again and again.
const CHECKPOINT_PAGES: u32 = 4000;
/// Longest value or row, in bytes: the largest document, and room for what SQL adds.
const LENGTH_MAX: i32 = (PAYLOAD_BYTES_HARD + (1 << 20)) as i32;
/// Prepared statements kept: a few for the engine and half a dozen for each watched table.
const STATEMENTS_KEPT: usize = 512;
/// First and longest wait before a locked database is tried again.
const BUSY_WAIT: (Duration, Duration) = (Duration::from_micros(50), Duration::from_millis(5));
/// How long the switch to WAL mode is tried.
const WAL_SWITCH_WAIT: Duration = Duration::from_secs(10);
/// How often a wait is reported.
const BUSY_REPORT: Duration = Duration::from_secs(1);

/// Opens a connection as the store needs it. Creates the engine's tables if there are none.
pub(crate) fn connection(config: &mut SqliteConfig) -> Result<Bound, OpenError> {
    let path = config.path.clone();
    if config.payload_bytes_max > PAYLOAD_BYTES_HARD {
        return Err(OpenError::PayloadLimit { asked: config.payload_bytes_max });
    }
    put_stale_wal_aside(config)?;
    let mut connection = open_file(&path, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
    connection
        .busy_handler(Some(busy_handler(config.stop.clone(), config.on_busy.take())))
        .doing("setting the busy handler")?;
    harden(&connection).doing("setting up the connection")?;
    if connection.is_readonly(c"main").doing("looking at the file")? {
        return Err(OpenError::ReadOnly { path });
    }
    switch_to_wal(&connection, &path, &config.stop)?;
    connection
        .execute_batch(&format!(
            "PRAGMA synchronous = FULL; PRAGMA foreign_keys = OFF; PRAGMA recursive_triggers = OFF;
             PRAGMA cache_size = -{CACHE_KIB}; PRAGMA mmap_size = 0; PRAGMA wal_autocheckpoint = {CHECKPOINT_PAGES};"
        ))
        .doing("setting up the connection")?;
    if let Some(found) = schema::format(&connection)?.filter(|found| *found > FORMAT) {
        return Err(OpenError::NewerFormat { path, found });
    }
    let claimant = Claimant { path: &path, holder: &config.holder, stop: &config.stop };
    let connection = claim(connection, claimant, tables)?;
    unsynced::begin(&connection, config.durability)?;
    if config.durability == Durability::Normal {
        connection.execute_batch("PRAGMA synchronous = NORMAL").doing("setting up the connection")?;
    }
    Ok(connection)
}

/// SQLite does not wait by itself here.
fn switch_to_wal(connection: &Connection, path: &Path, stop: &AtomicBool) -> Result<(), OpenError> {
    let path = path.to_owned();
    let since = Instant::now();
    loop {
        let mode = connection.query_row("PRAGMA main.journal_mode = WAL", [], |row| row.get::<_, String>(0));
        return match mode {
            Ok(mode) if mode.eq_ignore_ascii_case("wal") => Ok(()),
            Ok(mode) => Err(OpenError::NotWal { path, mode }),
            Err(source) => match code(&source) {
                Some(ErrorCode::DatabaseBusy) if stop.load(Ordering::Relaxed) => {
                    Err(SqliteFailed::Stopped.into())
                }
                Some(ErrorCode::DatabaseBusy) if since.elapsed() < WAL_SWITCH_WAIT => {
                    std::thread::sleep(BUSY_WAIT.1);
                    continue;
                }
                Some(ErrorCode::DatabaseBusy) => Err(OpenError::Locked { path }),
                Some(ErrorCode::ReadOnly | ErrorCode::CannotOpen) => Err(OpenError::ReadOnly { path }),
                _ => Err(SqliteFailed::Sqlite { doing: "switching to WAL mode", source }.into()),
            },
        };
    }
}

/// Sets up a connection that only takes changes in, beside the store's.
pub(crate) fn prepare_intake(
    connection: &mut Connection,
    durability: Durability,
    stop: Arc<AtomicBool>,
) -> Outcome<()> {
    connection.busy_handler(Some(busy_handler(stop, None))).doing("setting the busy handler")?;
    harden(connection).doing("setting up the connection")?;
    let synchronous = match durability {
        Durability::Full => "FULL",
        Durability::Normal => "NORMAL",
    };
    connection
        .execute_batch(&format!(
            "PRAGMA synchronous = {synchronous}; PRAGMA wal_autocheckpoint = {CHECKPOINT_PAGES};"
        ))
        .doing("setting up the connection")
}

/// A WAL that belongs to the file that was at the path before would be read into the one that is there now.
fn put_stale_wal_aside(config: &SqliteConfig) -> Outcome<()> {
    let before = config.holder.claim().identity.take();
    let Some(identity) = before else { return Ok(()) };
    match identity.put_stale_wal_aside() {
        Ok(None) => Ok(()),
        Ok(Some(aside)) => {
            tracing::warn!(aside = %aside.display(), "the write-ahead log of the replaced database was put aside");
            Ok(())
        }
        Err(error) => {
            // It is still to be put aside at the next try.
            config.holder.claim().identity = Some(identity);
            Err(SqliteFailed::damaged(format!("the write-ahead log of the replaced database can't be put aside: {error}")))
        }
    }
}

/// Makes the engine's tables, or brings those of an earlier version up to this one.
fn tables(connection: &Connection) -> Outcome<()> {
    match schema::format(connection)? {
        Some(found) if found < FORMAT => schema::upgrade(connection),
        Some(_) => Ok(()),
        None => schema::create(connection),
    }
}

/// Runs a write transaction.
pub(crate) fn in_transaction<T>(
    connection: &Bound,
    work: impl FnOnce(&Connection) -> Outcome<T>,
) -> Outcome<T> {
    connection.begin()?;
    let done = work(connection).inspect_err(|_| connection.roll_back())?;
    connection.commit().map(|()| done)
}

/// Opens the file, which must be there and be a database.
pub(crate) fn open_file(path: &Path, mode: OpenFlags) -> Result<Connection, OpenError> {
    if !path.is_file() {
        return Err(OpenError::NoSuchFile { path: path.to_owned() });
    }
    let refused = |source: rusqlite::Error| match code(&source) {
        Some(ErrorCode::NotADatabase) => OpenError::NotADatabase { path: path.to_owned() },
        Some(ErrorCode::CannotOpen | ErrorCode::PermissionDenied | ErrorCode::ReadOnly) => {
            OpenError::ReadOnly { path: path.to_owned() }
        }
        _ => SqliteFailed::Sqlite { doing: "opening the database", source }.into(),
    };
    let connection =
        Connection::open_with_flags(path, mode | OpenFlags::SQLITE_OPEN_NO_MUTEX).map_err(refused)?;
    connection.query_row("SELECT count(*) FROM sqlite_schema", [], |_| Ok(())).map_err(refused)?;
    Ok(connection)
}

/// The schema belongs to the application: nothing in it may reach further than its own data.
pub(crate) fn harden(connection: &Connection) -> rusqlite::Result<()> {
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_DEFENSIVE, true)?;
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_TRUSTED_SCHEMA, false)?;
    connection.set_limit(Limit::SQLITE_LIMIT_LENGTH, LENGTH_MAX)?;
    connection.set_prepared_statement_cache_capacity(STATEMENTS_KEPT);
    Ok(())
}

fn busy_handler(
    stop: Arc<AtomicBool>,
    mut on_busy: Option<Box<dyn FnMut(Duration) + Send>>,
) -> impl FnMut(i32) -> bool + Send + 'static {
    let mut since = Instant::now();
    let mut reported = Duration::ZERO;
    move |tries| {
        if tries == 0 {
            since = Instant::now();
            reported = Duration::ZERO;
        }
        if stop.load(Ordering::Relaxed) {
            return false;
        }
        let waited = since.elapsed();
        if waited >= reported + BUSY_REPORT {
            reported = waited;
            if let Some(report) = &mut on_busy {
                report(waited);
            }
        }
        let (first, longest) = BUSY_WAIT;
        std::thread::sleep(first.saturating_mul(1 << tries.clamp(0, 10)).min(longest));
        true
    }
}

/// The collections to watch, in the schema's spelling.
pub(crate) fn collections(connection: &Connection, watch: &[String]) -> Result<Vec<Collection>, OpenError> {
    if watch.is_empty() {
        return Err(OpenError::NothingToWatch { available: available(connection)? });
    }
    let mut collections: Vec<Collection> = Vec::new();
    for name in watch {
        let bad = |reason: &str| OpenError::BadName { table: name.clone(), reason: reason.to_owned() };
        let lower = name.to_ascii_lowercase();
        if lower.starts_with("_entgldb_") || lower.starts_with("sqlite_") {
            return Err(bad("such names belong to the engine and to SQLite"));
        }
        let found = match table::find(connection, name)? {
            Ok((found, _)) => found,
            Err(unwatchable) => return Err(refusal(connection, name, unwatchable)?),
        };
        let collection = Collection::new(&found).map_err(|error: NameError| bad(&error.to_string()))?;
        if !collections.contains(&collection) {
            collections.push(collection);
        }
    }
    Ok(collections)
}

/// The error for a table that cannot be watched.
pub(crate) fn refusal(connection: &Connection, name: &str, unwatchable: Unwatchable) -> Outcome<OpenError> {
    let table = name.to_owned();
    Ok(match unwatchable {
        Unwatchable::Missing => OpenError::NoSuchTable { table, available: available(connection)? },
        Unwatchable::View => OpenError::NotAnOrdinaryTable { table, what: "view" },
        Unwatchable::Virtual => OpenError::NotAnOrdinaryTable { table, what: "virtual table" },
        Unwatchable::NoKey => OpenError::NoPrimaryKey { table },
    })
}

fn available(connection: &Connection) -> Outcome<Vec<String>> {
    let mut statement = connection
        .prepare(
            "SELECT name FROM pragma_table_list WHERE schema = 'main' AND type = 'table' AND substr(name, 1, 7) <> 'sqlite_'
             AND substr(name, 1, 9) <> '_entgldb_' ORDER BY name",
        )
        .doing("listing the tables")?;
    let names = statement.query_map([], |row| row.get(0));
    names.and_then(Iterator::collect).doing("listing the tables")
}
