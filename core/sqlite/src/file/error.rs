//! Every reason not to open a database.

use std::path::PathBuf;

use entgldb_replica::limits::PAYLOAD_BYTES_HARD;

use crate::failed::SqliteFailed;
use crate::file::holder::HeldBy;

/// Number of the layout of the engine's tables.
pub(crate) const FORMAT: i64 = 4;

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
    /// The file cannot be read.
    #[error("{path} cannot be read: give this user read permission on the file and its folder")]
    Unreadable {
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
    /// Another program keeps the database locked for longer than is waited.
    #[error("{path} is kept locked by another program")]
    Busy {
        /// The path as given.
        path: PathBuf,
    },
    /// Nothing of the engine's is in the database.
    #[error("{path} was never synced: it has none of the engine's tables")]
    NeverSynced {
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
    /// An index of a named table is ordered by a collation that only the application has.
    #[error(
        "the table {table:?} has an index or key ordered by the collation {collation:?}, which only its own program has: it \
         cannot be read or written without"
    )]
    UnknownCollation {
        /// The name as given.
        table: String,
        /// The collation.
        collation: String,
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
         start once with the data folder of that engine"
    )]
    SeveralNames {
        /// The path as given.
        path: PathBuf,
        /// Who may be at work.
        by: Box<HeldBy>,
    },
    /// The write-ahead log of the file that was at the path before is beside the one that is there now, and can't be put aside.
    #[error(
        "the write-ahead log of the database that was at {path} before can't be put aside: {source}. SQLite would read it into \
         the one that is there now: rename the -wal file and delete the -shm file"
    )]
    StaleWal {
        /// The path as given.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
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
