//! Taking everything of the engine's out of a database. The application's tables and rows stay as they are, and the schema is
//! again what it was before the first start.

use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use entgldb_replica::id::NodeId;
use entgldb_replica::member::members;
use rusqlite::{Connection, ErrorCode, OpenFlags};

use crate::failed::{Outcome, SqliteFailed, While, code};
use crate::file::challenge::{Claimant, free};
use crate::file::connection::{harden, in_plain_transaction, journal_mode, open_file};
use crate::file::error::OpenError;
use crate::file::holder::Holder;
use crate::file::identity::has_log;
use crate::file::quiet;
use crate::inspect::Inspector;
use crate::journal::schema;
use crate::own::tables::is_own;
use crate::quote::identifier;

/// How long a locked database is waited for.
const BUSY_WAIT: Duration = Duration::from_secs(10);

/// What of the engine's is in a database, and what would end with it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Attached {
    /// The node whose database it is; `None` before its first commit, or if its tables are damaged.
    pub node: Option<NodeId>,
    /// Tables that are watched.
    pub watched: Vec<String>,
    /// Writes that were not captured yet, so that no other node has them.
    pub pending: Option<u64>,
    /// Entries of this node that no other member has said to hold.
    pub unsent: Option<u64>,
}

/// What was taken out.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Detached {
    /// Triggers that were dropped.
    pub triggers: u64,
    /// Tables that were dropped.
    pub tables: u64,
    /// The journal mode now.
    pub journal_mode: String,
    /// The journal mode before the first start, where it is known. If it is another one, a program that has the database open
    /// kept it from being set again.
    pub journal_before: Option<String>,
}

/// Looks what of the engine's is in a database. `None` if there is nothing. Tables that are damaged are no error: what they
/// do not say is `None`.
///
/// # Errors
/// When there is no such file, it is no database, or it is locked.
pub fn attached(path: &Path) -> Result<Option<Attached>, OpenError> {
    let found = quiet::read(path, |quiet| {
        if !schema::is_partly_there(&quiet.connection)? {
            return Ok(None);
        }
        let pending = "SELECT count(*) FROM _entgldb_outbox";
        let pending = quiet.connection.query_row(pending, [], |row| row.get::<_, i64>(0));
        // Only damaged tables can't be counted.
        let pending = pending.ok().map(i64::cast_unsigned);
        Ok(Some(Attached { node: None, watched: watched(&quiet.connection)?, pending, unsent: None }))
    });
    let Some(mut found) = found? else { return Ok(None) };
    if let Ok(Some(mut inspector)) = Inspector::open(path)
        && let Ok(Some(node)) = inspector.owner()
    {
        found.node = Some(node);
        found.unsent = unsent(&mut inspector, node).ok();
    }
    Ok(Some(found))
}

fn watched(connection: &Connection) -> Outcome<Vec<String>> {
    let mut statement = connection
        .prepare(
            "SELECT DISTINCT tbl_name FROM main.sqlite_schema WHERE type = 'trigger' AND substr(name, 1, 9) = '_entgldb_'
             ORDER BY tbl_name",
        )
        .doing("looking for triggers")?;
    let names = statement.query_map([], |row| row.get(0));
    names.and_then(Iterator::collect).doing("looking for triggers")
}

fn unsent(inspector: &mut Inspector, node: NodeId) -> Outcome<u64> {
    let others: Vec<_> = inspector.members()?.into_iter().filter(|listed| listed.node != node).collect();
    let own =
        inspector.names.logs.iter().filter(|(log, _)| log.author == node && log.collection != *members());
    let lacking = own.map(|(log, end)| {
        let held = others.iter().filter_map(|listed| listed.member.acknowledged.get(log)).max();
        end.head.seq.0.saturating_sub(held.copied().unwrap_or_default().0)
    });
    Ok(lacking.sum())
}

/// Takes the engine's triggers, tables and indexes out of a database, and sets the journal mode that it was in before the
/// first start, if that is known and no other program has it open. No node may run on it.
///
/// # Errors
/// When nothing of the engine's is in it, or it can't be written. Nothing has changed then.
pub fn detach(path: &Path) -> Result<Detached, OpenError> {
    let had_log = has_log(path);
    let connection = open_file(path, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
    connection.busy_timeout(BUSY_WAIT).doing("setting up the connection")?;
    harden(&connection).doing("setting up the connection")?;
    connection.execute_batch("PRAGMA foreign_keys = OFF").doing("setting up the connection")?;
    if connection.is_readonly(c"main").doing("looking at the file")? {
        return Err(OpenError::ReadOnly { path: path.to_owned() });
    }
    if !schema::is_partly_there(&connection)? {
        return Err(OpenError::NeverSynced { path: path.to_owned() });
    }
    // Its documents are nowhere else. Damaged tables are those of an application's database: nothing of it is lost with them.
    if is_own(&connection).unwrap_or(false) {
        return Err(OpenError::OtherKind { path: path.to_owned() });
    }
    let (holder, stop) = (Holder::unnamed(), AtomicBool::new(false));
    match free(&connection, Claimant { path, holder: &holder, stop: &stop, had_log }) {
        Err(OpenError::Failed(failed)) => return Err(locked(path, failed)),
        is_free => is_free?,
    }
    let journal_before = schema::get::<String>(&connection, schema::JOURNAL_BEFORE).ok().flatten();
    let (triggers, tables) =
        in_plain_transaction(&connection, drop_all).map_err(|failed| locked(path, failed))?;
    if let Some(before) = &journal_before
        && !before.eq_ignore_ascii_case("wal")
    {
        leave_wal(&connection)?;
    }
    let journal_mode = journal_mode(&connection)?;
    Ok(Detached { triggers, tables, journal_mode, journal_before })
}

/// Drops everything whose name is the engine's, whether this version made it or another.
fn drop_all(connection: &Connection) -> Outcome<(u64, u64)> {
    let mut dropped = [0; 4];
    for (count, kind) in dropped.iter_mut().zip(["trigger", "view", "index", "table"]) {
        for name in names(connection, kind)? {
            connection
                .execute_batch(&format!("DROP {kind} main.{}", identifier(&name)))
                .doing("dropping the engine's tables and triggers")?;
            *count += 1;
        }
    }
    let [triggers, _, _, tables] = dropped;
    Ok((triggers, tables))
}

fn names(connection: &Connection, kind: &str) -> Outcome<Vec<String>> {
    let mut statement = connection
        .prepare(
            "SELECT name FROM main.sqlite_schema WHERE type = ?1 AND substr(name, 1, 9) = '_entgldb_' AND sql IS NOT NULL",
        )
        .doing("looking for the engine's tables")?;
    let names = statement.query_map([kind], |row| row.get(0));
    names.and_then(Iterator::collect).doing("looking for the engine's tables")
}

/// Where another program has the database open, it stays in WAL mode.
fn leave_wal(connection: &Connection) -> Outcome<()> {
    match connection.query_row("PRAGMA main.journal_mode = DELETE", [], |_| Ok(())) {
        Err(error) if code(&error) != Some(ErrorCode::DatabaseBusy) => {
            Err(SqliteFailed::Sqlite { doing: "setting the journal mode", source: error })
        }
        _ => Ok(()),
    }
}

fn locked(path: &Path, failed: SqliteFailed) -> OpenError {
    match failed {
        SqliteFailed::Stopped => OpenError::Busy { path: path.to_owned() },
        failed => failed.into(),
    }
}
