//! What can go wrong in an open store. All of it is final: the store is dropped and opened again.

use std::io;
use std::path::PathBuf;

use rusqlite::ErrorCode;

use crate::file::change::FileChange;

/// The store failed. Nothing of the step that failed is in the file, except after [`SqliteFailed::Sync`]: then all of it is, and may
/// be lost in a power cut.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SqliteFailed {
    /// SQLite reported an error that is not about one document: the disk, the file, memory.
    #[error("{doing}: {}", in_words(source))]
    Sqlite {
        /// What the store was doing.
        doing: &'static str,
        /// SQLite's own words.
        source: rusqlite::Error,
    },
    /// The database stayed locked by another program for as long as was waited, or until the store was told to stop.
    #[error("another program kept the database locked")]
    Stopped,
    /// The file is another one than the store had opened. Nothing was written to it.
    #[error("{0}")]
    FileChanged(FileChange),
    /// What was committed could not be brought onto the disk.
    #[error("syncing {}: {source}", path.display())]
    Sync {
        /// The file.
        path: PathBuf,
        /// The operating system's own words.
        source: io::Error,
    },
    /// The engine's own tables hold something that the engine never writes.
    #[error("the engine's tables are damaged: {what}")]
    Damaged {
        /// What was found.
        what: String,
    },
}

/// What is behind a failure, and so what can be done about it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Cause {
    /// Another program kept the database locked.
    Locked,
    /// The disk is full.
    DiskFull,
    /// The disk or its file system gave an error.
    Disk,
    /// The file is damaged, as SQLite sees it.
    FileDamaged,
    /// The file is no database, or an encrypted one.
    NotADatabase,
    /// The engine's own tables are damaged.
    EngineDamaged,
    /// The file may not be read or written.
    NoPermission,
    /// The system gave no memory.
    Memory,
    /// Something else, in SQLite's words.
    Other,
}

impl SqliteFailed {
    /// What is behind it.
    #[must_use]
    pub fn cause(&self) -> Cause {
        let source = match self {
            Self::Stopped => return Cause::Locked,
            Self::Damaged { .. } => return Cause::EngineDamaged,
            Self::FileChanged(_) => return Cause::Other,
            Self::Sync { .. } => return Cause::Disk,
            Self::Sqlite { .. } if self.is_disk_full() => return Cause::DiskFull,
            Self::Sqlite { source, .. } => source,
        };
        if is_unexpected(source) {
            return Cause::EngineDamaged;
        }
        match code(source) {
            Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => Cause::Locked,
            Some(ErrorCode::SystemIoFailure) => Cause::Disk,
            Some(ErrorCode::DatabaseCorrupt) => Cause::FileDamaged,
            Some(ErrorCode::NotADatabase) => Cause::NotADatabase,
            Some(ErrorCode::ReadOnly | ErrorCode::PermissionDenied | ErrorCode::CannotOpen) => {
                Cause::NoPermission
            }
            Some(ErrorCode::OutOfMemory) => Cause::Memory,
            _ => Cause::Other,
        }
    }

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
            // A file that is gone was taken away by somebody; what is at the path now can be opened.
            Self::Sync { source, .. } => source.kind() != io::ErrorKind::NotFound,
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

/// Whether what was read is not what the engine writes: a row that must be there is not, a value has another type, or one of
/// the engine's tables or columns is missing.
fn is_unexpected(error: &rusqlite::Error) -> bool {
    use rusqlite::Error::{
        FromSqlConversionFailure, IntegralValueOutOfRange, InvalidColumnType, QueryReturnedNoRows,
    };
    let is_missing = |message: &str| message.starts_with("no such table: _entgldb_");
    matches!(
        error,
        QueryReturnedNoRows
            | InvalidColumnType(..)
            | FromSqlConversionFailure(..)
            | IntegralValueOutOfRange(..)
    ) || message(error).is_some_and(is_missing)
}

/// An error without the SQL that it is about, and with what it means where SQLite's words do not say so.
pub(crate) fn in_words(error: &rusqlite::Error) -> String {
    use rusqlite::Error::{QueryReturnedNoRows, SqlInputError, SqliteFailure};
    if let Some(table) = message(error).and_then(|message| message.strip_prefix("no such table: _entgldb_")) {
        return format!("damaged: the engine's table _entgldb_{table} is missing");
    }
    match (error, code(error)) {
        (QueryReturnedNoRows, _) => "damaged: a row that must be there is missing".to_owned(),
        (_, Some(ErrorCode::DatabaseCorrupt)) => {
            format!("the file is damaged ({})", message(error).unwrap_or("database disk image is malformed"))
        }
        (_, Some(ErrorCode::NotADatabase)) => "the file is no SQLite database, or is encrypted".to_owned(),
        (_, Some(ErrorCode::DiskFull)) => "the disk is full".to_owned(),
        (_, Some(ErrorCode::SystemIoFailure)) => format!("the disk gave an error ({error})"),
        (_, Some(ErrorCode::ReadOnly)) => "the file may not be written".to_owned(),
        (_, Some(ErrorCode::OutOfMemory)) => "the system gave no memory".to_owned(),
        (SqlInputError { msg, .. }, _) => msg.clone(),
        (SqliteFailure(_, Some(message)), _) => message.clone(),
        (_, None) if is_unexpected(error) => {
            format!("damaged: a value is not as the engine writes it ({error})")
        }
        _ => error.to_string(),
    }
}

fn message(error: &rusqlite::Error) -> Option<&str> {
    match error {
        rusqlite::Error::SqlInputError { msg, .. } => Some(msg),
        rusqlite::Error::SqliteFailure(_, message) => message.as_deref(),
        _ => None,
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

#[cfg(test)]
mod tests {
    use super::*;
    use rusqlite::Connection;

    #[test]
    fn what_is_behind_a_failure_is_told_without_sql_and_without_sqlites_riddles() {
        let connection = Connection::open_in_memory().unwrap();
        connection.execute_batch("CREATE TABLE t(a); INSERT INTO t VALUES ('text')").unwrap();
        let failure = |sql: &str| {
            connection.query_row(sql, [], |row| row.get::<_, i64>(0)).doing("reading").unwrap_err()
        };
        for (sql, cause, words) in [
            (
                "SELECT a FROM t WHERE 0",
                Cause::EngineDamaged,
                "reading: damaged: a row that must be there is missing",
            ),
            (
                "SELECT no FROM _entgldb_logs",
                Cause::EngineDamaged,
                "reading: damaged: the engine's table _entgldb_logs is missing",
            ),
            (
                "SELECT a FROM t",
                Cause::EngineDamaged,
                "reading: damaged: a value is not as the engine writes it",
            ),
            ("SELECT a FROM gone", Cause::Other, "reading: no such table: gone"),
        ] {
            let failed = failure(sql);
            assert_eq!(failed.cause(), cause, "{failed}");
            assert!(failed.to_string().starts_with(words), "{failed}");
            assert!(!failed.to_string().contains("SELECT"), "{failed}");
        }
    }
}
