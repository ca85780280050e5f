//! What can go wrong in an open store. All of it is final: the store is dropped and opened again.

use rusqlite::ErrorCode;

use crate::file::change::FileChange;

/// The store failed. Nothing of the step that failed is in the file.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SqliteFailed {
    /// SQLite reported an error that is not about one document: the disk, the file, memory.
    #[error("{doing}: {source}")]
    Sqlite {
        /// What the store was doing.
        doing: &'static str,
        /// SQLite's own words.
        source: rusqlite::Error,
    },
    /// The database stayed locked by another program until the store was told to stop.
    #[error("stopped while the database was locked by another program")]
    Stopped,
    /// The file is another one than the store had opened. Nothing was written to it.
    #[error("{0}")]
    FileChanged(FileChange),
    /// The engine's own tables hold something that the engine never writes.
    #[error("the engine's tables are damaged: {what}")]
    Damaged {
        /// What was found.
        what: String,
    },
}

impl SqliteFailed {
    /// Whether opening the store again cannot help: the disk, the file or its permissions must be mended first. A failed
    /// write or sync is never tried again, because the operating system may have dropped what it could not write.
    #[must_use]
    pub fn is_final(&self) -> bool {
        match self {
            Self::Sqlite { .. } if self.is_disk_full() => false,
            Self::Sqlite { source, .. } => matches!(
                code(source),
                Some(
                    ErrorCode::SystemIoFailure
                        | ErrorCode::DatabaseCorrupt
                        | ErrorCode::NotADatabase
                        | ErrorCode::ReadOnly
                        | ErrorCode::PermissionDenied
                )
            ),
            Self::Stopped | Self::FileChanged(_) => false,
            Self::Damaged { .. } => true,
        }
    }

    /// Whether only room was missing. Nothing is wrong with what is on the disk.
    pub(crate) fn is_disk_full(&self) -> bool {
        let Self::Sqlite { source, .. } = self else { return false };
        // The shared memory beside the WAL is a file too, and says it in its own way.
        code(source) == Some(ErrorCode::DiskFull)
            || source.sqlite_extended_error_code() == Some(rusqlite::ffi::SQLITE_IOERR_SHMSIZE)
    }

    pub(crate) fn damaged(what: impl Into<String>) -> Self {
        Self::Damaged { what: what.into() }
    }
}

/// Short for results in here.
pub(crate) type Outcome<T> = Result<T, SqliteFailed>;

/// Says what was being done when SQLite reported an error.
pub(crate) trait While<T> {
    fn doing(self, doing: &'static str) -> Outcome<T>;
}

impl<T> While<T> for rusqlite::Result<T> {
    fn doing(self, doing: &'static str) -> Outcome<T> {
        self.map_err(|source| match code(&source) {
            Some(ErrorCode::DatabaseBusy) => SqliteFailed::Stopped,
            _ => SqliteFailed::Sqlite { doing, source },
        })
    }
}

/// SQLite's code for an error, also for one found while preparing a statement.
pub(crate) fn code(error: &rusqlite::Error) -> Option<ErrorCode> {
    match error {
        rusqlite::Error::SqliteFailure(error, _) | rusqlite::Error::SqlInputError { error, .. } => {
            Some(error.code)
        }
        _ => None,
    }
}

/// Whether an error says that the application's schema does not take this document, rather than that the file or the
/// machine has failed.
pub(crate) fn is_refusal(error: &rusqlite::Error) -> bool {
    matches!(
        code(error),
        Some(
            ErrorCode::ConstraintViolation
                | ErrorCode::TypeMismatch
                | ErrorCode::TooBig
                | ErrorCode::OperationAborted
                // SQLITE_ERROR: a trigger or CHECK that calls a function which only the application has, and the like.
                | ErrorCode::Unknown
        )
    )
}

/// Whether an error is a collision in a unique index or a primary key.
pub(crate) fn is_collision(error: &rusqlite::Error) -> bool {
    use rusqlite::ffi::{SQLITE_CONSTRAINT_PRIMARYKEY, SQLITE_CONSTRAINT_ROWID, SQLITE_CONSTRAINT_UNIQUE};
    matches!(
        error.sqlite_extended_error_code(),
        Some(SQLITE_CONSTRAINT_UNIQUE | SQLITE_CONSTRAINT_PRIMARYKEY | SQLITE_CONSTRAINT_ROWID)
    )
}
