//! Connections to the database file, and transactions on them.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use entgldb_replica::limits::PAYLOAD_BYTES_HARD;
use rusqlite::config::DbConfig;
use rusqlite::limits::Limit;
use rusqlite::{Connection, ErrorCode, OpenFlags};

use crate::failed::{Outcome, SqliteFailed, While, code};
use crate::file::binding::Bound;
use crate::file::config::{Durability, SqliteConfig};
use crate::file::error::OpenError;

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

/// Opens a connection as a store needs it. Nothing is written.
pub(crate) fn connect(config: &mut SqliteConfig) -> Result<Connection, OpenError> {
    let path = config.path.clone();
    if config.payload_bytes_max > PAYLOAD_BYTES_HARD {
        return Err(OpenError::PayloadLimit { asked: config.payload_bytes_max });
    }
    put_stale_wal_aside(config)?;
    let mut connection = open_file(&path, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
    connection
        .busy_handler(Some(busy_handler(config.stop.clone(), config.holder.haste(), config.on_busy.take())))
        .doing("setting the busy handler")?;
    harden(&connection).doing("setting up the connection")?;
    if connection.is_readonly(c"main").doing("looking at the file")? {
        return Err(OpenError::ReadOnly { path });
    }
    connection
        .execute_batch(&format!(
            "PRAGMA synchronous = FULL; PRAGMA foreign_keys = OFF; PRAGMA recursive_triggers = OFF;
             PRAGMA cache_size = -{CACHE_KIB}; PRAGMA mmap_size = 0; PRAGMA wal_autocheckpoint = {CHECKPOINT_PAGES};"
        ))
        .doing("setting up the connection")?;
    Ok(connection)
}

/// A WAL that belongs to the file that was at the path before would be read into the one that is there now.
pub(crate) fn put_stale_wal_aside(config: &SqliteConfig) -> Result<(), OpenError> {
    match config.holder.put_stale_log_aside() {
        Ok(None) => Ok(()),
        Ok(Some(aside)) => {
            tracing::warn!(aside = %aside.display(), "the write-ahead log of the replaced database was put aside");
            Ok(())
        }
        Err(source) => Err(OpenError::StaleWal { path: config.path.clone(), source }),
    }
}

/// How SQLite makes the database's commits atomic now.
pub(crate) fn journal_mode(connection: &Connection) -> Outcome<String> {
    connection.query_row("PRAGMA main.journal_mode", [], |row| row.get(0)).doing("reading the journal mode")
}

/// Puts the database into WAL mode, which stays. SQLite does not wait by itself here.
pub(crate) fn switch_to_wal(
    connection: &Connection,
    path: &Path,
    stop: &AtomicBool,
) -> Result<(), OpenError> {
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
    connection
        .busy_handler(Some(busy_handler(stop, Arc::default(), None)))
        .doing("setting the busy handler")?;
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

/// Runs a write transaction.
pub(crate) fn in_transaction<T>(
    connection: &Bound,
    work: impl FnOnce(&Connection) -> Outcome<T>,
) -> Outcome<T> {
    connection.begin()?;
    let done = work(connection).inspect_err(|_| connection.roll_back())?;
    connection.commit().map(|()| done)
}

/// Runs a write transaction on a connection that is no engine's. Beside an engine that is at work it MUST write nothing that
/// that one has in memory.
pub(crate) fn in_plain_transaction<T>(
    connection: &Connection,
    work: impl FnOnce(&Connection) -> Outcome<T>,
) -> Outcome<T> {
    connection.execute_batch("BEGIN IMMEDIATE").doing("beginning a transaction")?;
    let done = work(connection)
        .and_then(|done| connection.execute_batch("COMMIT").doing("committing").map(|()| done));
    if !connection.is_autocommit() {
        // The first error is the one that matters.
        let _ = connection.execute_batch("ROLLBACK");
    }
    done
}

/// Opens the file, which must be there and be a database.
pub(crate) fn open_file(path: &Path, mode: OpenFlags) -> Result<Connection, OpenError> {
    if !path.is_file() {
        return Err(OpenError::NoSuchFile { path: path.to_owned() });
    }
    let only_reads = mode.contains(OpenFlags::SQLITE_OPEN_READ_ONLY);
    let refused = |source: rusqlite::Error| match code(&source) {
        Some(ErrorCode::NotADatabase) => OpenError::NotADatabase { path: path.to_owned() },
        Some(ErrorCode::CannotOpen | ErrorCode::PermissionDenied) if only_reads => {
            OpenError::Unreadable { path: path.to_owned() }
        }
        Some(ErrorCode::CannotOpen | ErrorCode::PermissionDenied | ErrorCode::ReadOnly) => {
            OpenError::ReadOnly { path: path.to_owned() }
        }
        Some(ErrorCode::DatabaseBusy) => OpenError::Busy { path: path.to_owned() },
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
    is_hasty: Arc<AtomicBool>,
    mut on_busy: Option<Box<dyn FnMut(Duration) + Send>>,
) -> impl FnMut(i32) -> bool + Send + 'static {
    let mut since = Instant::now();
    let mut reported = Duration::ZERO;
    move |tries| {
        if tries == 0 {
            since = Instant::now();
            reported = Duration::ZERO;
        }
        if stop.load(Ordering::Relaxed) || is_hasty.load(Ordering::Relaxed) {
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
