//! How a database file can change under a running engine.

/// What became of the file that the store had open. Nothing was written to it since, and the store must be opened again by
/// its path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FileChange {
    /// Another file is at the path: one was renamed over it, or it was deleted and created again.
    #[error("another file is at the database's path: it was replaced, or deleted and created again")]
    OtherFile,
    /// No file is at the path.
    #[error(
        "no file is at the database's path any more: it was moved or deleted{}",
        if *.leaves_wal { ". Its write-ahead log is still at the old place: a moved database needs its -wal file beside it, or it lacks the last commits" } else { "" }
    )]
    Missing {
        /// Whether a `-wal` file is still at the old place.
        leaves_wal: bool,
    },
    /// The `-wal` file was deleted while the database was open.
    #[error("the write-ahead log (-wal) was deleted while the database was open")]
    WalMissing,
    /// Another `-wal` file is there.
    #[error("the write-ahead log (-wal) is another file than the one that was opened")]
    OtherWal,
    /// The content was replaced in place by a copy without the engine's tables.
    #[error("the database's content was replaced by a copy without the engine's tables")]
    NoEngineTables,
    /// The content is that of another run: a copy was written over it, or another engine took the file.
    #[error(
        "the database's content is of another run: it was replaced by a copy, or another engine took the file"
    )]
    OtherRun,
    /// The content is an earlier or other state of this run: a copy of it was put back.
    #[error("the database's content is another state of this run: a copy of it was put back")]
    OtherState,
}

impl FileChange {
    /// A short name, for events.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::OtherFile => "other_file",
            Self::Missing { .. } => "missing",
            Self::WalMissing => "wal_missing",
            Self::OtherWal => "other_wal",
            Self::NoEngineTables => "no_engine_tables",
            Self::OtherRun => "other_run",
            Self::OtherState => "other_state",
        }
    }
}
