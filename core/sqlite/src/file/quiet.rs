//! Reading a database without leaving anything behind: no byte of the file changes, no `-wal` and no `-shm` appears.
//!
//! A read-only connection to a database in WAL mode makes both files, and leaves them. While nobody uses the database it is
//! therefore read as one that never changes (`immutable`), and what was read counts only if nobody began to use it
//! meanwhile. While somebody uses it both files are there anyway, and the ordinary way with locks is taken.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use rusqlite::config::DbConfig;
use rusqlite::{Connection, ErrorCode, OpenFlags};

use crate::failed::{SqliteFailed, While, code};
use crate::file::connection::{harden, open_file};
use crate::file::error::OpenError;

/// How long a locked database is waited for.
const BUSY_WAIT: Duration = Duration::from_secs(10);

/// A connection that leaves nothing behind, and what only opening could tell.
pub(crate) struct Quiet {
    pub(crate) connection: Connection,
    /// Whether the database is in WAL mode. `PRAGMA journal_mode` does not say so of a file that is read as immutable.
    pub(crate) is_wal: bool,
    /// Whether another program has the database open, or left a journal when it ended.
    pub(crate) is_in_use: bool,
}

/// Reads the database with `work`.
pub(crate) fn read<T>(
    path: &Path,
    mut work: impl FnMut(&Quiet) -> Result<T, OpenError>,
) -> Result<T, OpenError> {
    if !path.is_file() {
        return Err(OpenError::NoSuchFile { path: path.to_owned() });
    }
    if let Some(before) = unused(path) {
        let found = open_unused(path).and_then(|quiet| work(&quiet));
        if unused(path).as_ref() == Some(&before) {
            return found;
        }
    }
    let connection = open_file(path, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
    set_up(&connection)?;
    let mode: String = connection
        .query_row("PRAGMA main.journal_mode", [], |row| row.get(0))
        .doing("reading the journal mode")?;
    let quiet = Quiet { connection, is_wal: mode.eq_ignore_ascii_case("wal"), is_in_use: true };
    quiet.connection.execute_batch("BEGIN").doing("beginning to read")?;
    work(&quiet)
}

/// What shows that a file was not written. `None` if a journal is there, so that somebody may be writing.
fn unused(path: &Path) -> Option<(u64, Option<SystemTime>)> {
    if ["-wal", "-journal"].iter().any(|suffix| beside(path, suffix).exists()) {
        return None;
    }
    let file = std::fs::metadata(path).ok()?;
    Some((file.len(), file.modified().ok()))
}

fn open_unused(path: &Path) -> Result<Quiet, OpenError> {
    let refused = |source: rusqlite::Error| match code(&source) {
        Some(ErrorCode::NotADatabase) => OpenError::NotADatabase { path: path.to_owned() },
        Some(ErrorCode::CannotOpen | ErrorCode::PermissionDenied) => {
            OpenError::Unreadable { path: path.to_owned() }
        }
        Some(ErrorCode::DatabaseBusy) => OpenError::Busy { path: path.to_owned() },
        _ => SqliteFailed::Sqlite { doing: "opening the database", source }.into(),
    };
    let connection = open_uri(path, "immutable=1").map_err(refused)?;
    set_up(&connection)?;
    // Without locks SQLite opens every database but those in WAL mode.
    let is_wal = match open_uri(path, "nolock=1") {
        Ok(_) => false,
        Err(error) => code(&error) == Some(ErrorCode::CannotOpen),
    };
    Ok(Quiet { connection, is_wal, is_in_use: false })
}

fn open_uri(path: &Path, how: &str) -> rusqlite::Result<Connection> {
    let flags =
        OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_URI | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(uri(path, how), flags)?;
    connection.query_row("SELECT count(*) FROM sqlite_schema", [], |_| Ok(()))?;
    Ok(connection)
}

fn set_up(connection: &Connection) -> Result<(), OpenError> {
    connection.busy_timeout(BUSY_WAIT).doing("setting up the connection")?;
    // The last one to close a database would move its WAL into it.
    connection
        .set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)
        .doing("setting up the connection")?;
    // As the store has it: a parent that is missing must not look like a statement that can't be run.
    connection.execute_batch("PRAGMA foreign_keys = OFF").doing("setting up the connection")?;
    harden(connection).doing("setting up the connection")?;
    Ok(())
}

/// A path as SQLite takes it in a URI.
fn uri(path: &Path, how: &str) -> String {
    let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let mut text = String::from("file:");
    let bytes = path_bytes(&absolute);
    if !bytes.starts_with(b"/") {
        text.push('/');
    }
    for byte in bytes {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'/' | b'.' | b'-' | b'_' | b':' => {
                text.push(char::from(byte));
            }
            other => text.push_str(&format!("%{other:02X}")),
        }
    }
    format!("{text}?mode=ro&{how}")
}

#[cfg(unix)]
fn path_bytes(path: &Path) -> Vec<u8> {
    std::os::unix::ffi::OsStrExt::as_bytes(path.as_os_str()).to_vec()
}

#[cfg(not(unix))]
fn path_bytes(path: &Path) -> Vec<u8> {
    path.to_string_lossy().replace('\\', "/").into_bytes()
}

/// The file of this name with more at its end.
pub(crate) fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name: OsString = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_character_of_a_path_reaches_sqlite() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["plain.db", "a b.db", "50%.db", "what?.db", "a#b.db", "ä&b=c.db"] {
            let path = folder.path().join(name);
            Connection::open(&path).unwrap().execute_batch("CREATE TABLE t(a)").unwrap();
            let tables = read(&path, |quiet| {
                let count = "SELECT count(*) FROM sqlite_schema";
                Ok(quiet.connection.query_row(count, [], |row| row.get::<_, i64>(0)).unwrap())
            });
            assert_eq!(tables.unwrap(), 1, "{name}");
        }
    }

    #[test]
    fn a_write_in_between_is_seen_and_the_database_is_read_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("app.db");
        let application = Connection::open(&path).unwrap();
        application.execute_batch("PRAGMA journal_mode = WAL; CREATE TABLE t(a)").unwrap();
        application.close().unwrap();
        let mut rounds = Vec::new();
        let mut writer = None;
        read(&path, |quiet| {
            assert!(quiet.is_wal);
            if rounds.is_empty() {
                let application = Connection::open(&path).unwrap();
                application.execute_batch("INSERT INTO t VALUES (1)").unwrap();
                writer = Some(application);
            }
            let rows = quiet.connection.query_row("SELECT count(*) FROM t", [], |row| row.get::<_, i64>(0));
            rounds.push((quiet.is_in_use, rows.unwrap()));
            Ok(())
        })
        .unwrap();
        assert_eq!(rounds, [(false, 0), (true, 1)]);
    }
}
