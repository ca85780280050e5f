//! Bringing a database whose engine tables are damaged back into sync.
//!
//! The application's tables are not touched. What is sound of ours is kept; if the journal itself is not, all of it is made
//! again, and the next start takes history or a snapshot from the peers. Either way the node goes on in a new incarnation and
//! looks all its tables through, because notes of writes may be gone.

use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use entgldb_replica::fingerprint::Tally;
use rusqlite::{Connection, OpenFlags};

use crate::capture::progress::Stage;
use crate::failed::{Outcome, SqliteFailed, While};
use crate::file::challenge::{Claimant, bind, claim};
use crate::file::connection::{harden, in_transaction, open_file};
use crate::file::error::{FORMAT, OpenError};
use crate::file::holder::Holder;
use crate::file::identity::has_log;
use crate::journal::schema::{self, Definition};
use crate::quote::identifier;
use crate::verify::{VerifyError, verify};

/// How long it waits for a database that is locked.
const BUSY_WAIT: Duration = Duration::from_secs(10);

/// Tables that hold nothing that can't be found again or done without: notes of writes, which looking through replaces; the
/// list of losing versions; what was reported of rows.
const SPARE: [&str; 6] = [
    "_entgldb_applying",
    "_entgldb_outbox",
    "_entgldb_held",
    "_entgldb_conflicts",
    "_entgldb_problems",
    "_entgldb_table_problems",
];

/// What only an own file has.
const OF_OWN_FILES: &str = "_entgldb_documents";

/// A database was not repaired. Nothing has changed, unless it failed halfway: then it can be done again.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RepairError {
    /// No node has run on the database.
    #[error("no node has run on {path} yet: there is nothing to repair")]
    NeverSynced {
        /// The path as given.
        path: PathBuf,
    },
    /// The file is the engine's own, and may have the only copy of its documents.
    #[error(
        "{path} is the engine's own file, with documents in it: put a backup of it back, or start with a new file"
    )]
    OwnFile {
        /// The path as given.
        path: PathBuf,
    },
    /// The database can't be opened, or a node runs on it.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The database failed, or stayed locked by another program.
    #[error(transparent)]
    Failed(#[from] SqliteFailed),
}

/// What was done.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub struct Repaired {
    /// What was found to be damaged; empty if nothing was.
    pub damage: Vec<String>,
    /// Whether all of the engine's tables were made again. History comes back from peers; a local change that was captured
    /// and that no peer had got yet is in its row, and counts as one of the rows that were there before the first start.
    pub from_scratch: bool,
    /// Tables of the engine that were made again.
    pub tables: Vec<String>,
}

/// Makes the engine's tables sound again, in a database that no node runs on. The application's tables stay as they are.
///
/// # Errors
/// When a node runs on the database, there is nothing to repair, or the database can't be used.
pub fn repair(path: &Path) -> Result<Repaired, RepairError> {
    let had_log = has_log(path);
    let connection = open_file(path, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
    connection.busy_timeout(BUSY_WAIT).doing("setting up the connection")?;
    harden(&connection).doing("setting up the connection")?;
    check(&connection, path)?;
    let (holder, stop) = (Holder::unnamed(), AtomicBool::new(false));
    let claimant = Claimant { path, holder: &holder, stop: &stop, had_log };
    let mut repaired = Repaired::default();
    claim(&connection, claimant, |connection| {
        repaired = remake_tables(connection)?;
        Ok(())
    })?;
    let bound = bind(connection, claimant)?;
    if !repaired.from_scratch {
        let faults = faults(path)?;
        if !faults.is_empty() {
            repaired.damage.extend(faults);
            in_transaction(&bound, |connection| start_again(connection, &mut repaired))?;
        }
    }
    bound.release()?;
    Ok(repaired)
}

fn check(connection: &Connection, path: &Path) -> Result<(), RepairError> {
    let path = path.to_owned();
    let objects = objects(connection)?;
    if objects.is_empty() {
        return Err(RepairError::NeverSynced { path });
    }
    if objects.iter().any(|object| object.name == OF_OWN_FILES) {
        return Err(RepairError::OwnFile { path });
    }
    match format(connection) {
        Some(found) if found > FORMAT => Err(OpenError::NewerFormat { path, found }.into()),
        _ => Ok(()),
    }
}

/// The format that the tables have, if they can be asked.
fn format(connection: &Connection) -> Option<i64> {
    schema::format(connection).ok().flatten()
}

/// Makes the tables again that are not as they should be. To be called in a write transaction.
fn remake_tables(connection: &Connection) -> Outcome<Repaired> {
    // Tables of an earlier format are either brought up to this one, or not what they say.
    if format(connection).is_some_and(|found| (1..FORMAT).contains(&found)) {
        let upgraded = savepoint(connection, schema::upgrade)?;
        tracing::info!(upgraded, "engine tables of an earlier format");
    }
    let (wanted, found) = (schema::wanted()?, schema::definitions(connection)?);
    // An index that SQLite makes by itself has no text of its own: it comes and goes with its table.
    let is_damaged = |definition: &&Definition| definition.1.is_some() && !found.contains(definition);
    let damaged: Vec<&Definition> = wanted.iter().filter(is_damaged).collect();
    let mut repaired = Repaired::default();
    for (name, _) in &damaged {
        let is_there = found.iter().any(|(there, _)| there == name);
        let what = if is_there { "is not as the engine makes it" } else { "is missing" };
        repaired.damage.push(format!("the engine's table {name} {what}"));
    }
    if format(connection) != Some(FORMAT) {
        repaired.damage.push("the engine's tables do not say their format".to_owned());
        start_again(connection, &mut repaired)?;
    } else if !damaged.iter().all(|definition| is_spare(definition)) {
        start_again(connection, &mut repaired)?;
    } else {
        remake_spare(connection, &damaged, &mut repaired)?;
        begin_anew(connection)?;
    }
    Ok(repaired)
}

/// Does something as a whole or not at all. Returns whether it was done.
fn savepoint(connection: &Connection, work: impl FnOnce(&Connection) -> Outcome<()>) -> Outcome<bool> {
    connection.execute_batch("SAVEPOINT entgldb_repair").doing("beginning a step")?;
    let is_done = work(connection).is_ok();
    if !is_done {
        connection.execute_batch("ROLLBACK TO entgldb_repair").doing("undoing a step")?;
    }
    connection.execute_batch("RELEASE entgldb_repair").doing("ending a step")?;
    Ok(is_done)
}

/// Whether something holds nothing of the journal. An index never does.
fn is_spare((name, sql): &Definition) -> bool {
    let is_index = sql.as_ref().is_some_and(|sql| sql.starts_with("CREATE INDEX"));
    is_index || SPARE.contains(&name.as_str())
}

/// Makes what holds nothing of the journal again.
fn remake_spare(connection: &Connection, damaged: &[&Definition], repaired: &mut Repaired) -> Outcome<()> {
    let is_damaged = |object: &&Object| damaged.iter().any(|(name, _)| *name == object.name);
    for object in objects(connection)?.iter().filter(is_damaged) {
        object.drop(connection)?;
    }
    for (name, sql) in damaged {
        let sql = sql.as_deref().unwrap_or_default();
        connection.execute_batch(sql).doing("making the engine's tables again")?;
        repaired.tables.push(name.clone());
    }
    Ok(())
}

/// Makes all of the engine's tables again. Notes of writes that wait to be captured are kept, or these would count as rows
/// that were there before the first start. To be called in a write transaction.
fn start_again(connection: &Connection, repaired: &mut Repaired) -> Outcome<()> {
    let claim = [Kept::read(connection, "token"), Kept::read(connection, "commits")];
    keep_notes(connection)?;
    for object in objects(connection)? {
        object.drop(connection)?;
    }
    schema::create(connection)?;
    for kept in claim.into_iter().flatten() {
        schema::put(connection, kept.name, kept.value)?;
    }
    put_notes_back(connection)?;
    repaired.from_scratch = true;
    repaired.tables = schema::wanted()?.into_iter().map(|(name, _)| name).collect();
    Ok(())
}

/// Where notes and the numbers of their tables are kept. What can't be read is left out.
const KEEP: [&str; 4] = [
    "INSERT INTO temp.kept_numbers SELECT no, name FROM main._entgldb_collections WHERE typeof(name) = 'text'",
    "INSERT OR IGNORE INTO temp.kept_numbers SELECT CAST(substr(name, 17) AS INTEGER), tbl_name FROM main.sqlite_schema
     WHERE type = 'trigger' AND substr(name, 1, 16) = '_entgldb_insert_'",
    "INSERT INTO temp.kept_notes SELECT tbl, key, at, found FROM main._entgldb_held ORDER BY id",
    "INSERT INTO temp.kept_notes SELECT tbl, key, at, found FROM main._entgldb_outbox ORDER BY id",
];

fn keep_notes(connection: &Connection) -> Outcome<()> {
    connection
        .execute_batch(
            "CREATE TEMP TABLE kept_numbers(no INTEGER PRIMARY KEY, name TEXT UNIQUE); CREATE TEMP TABLE kept_notes(tbl, key, at, found)",
        )
        .doing("keeping notes of writes")?;
    for sql in KEEP {
        savepoint(connection, |connection| connection.execute_batch(sql).doing("keeping notes of writes"))?;
    }
    Ok(())
}

fn put_notes_back(connection: &Connection) -> Outcome<()> {
    let empty = Tally::default().fingerprint.to_bytes();
    connection
        .execute(
            "INSERT INTO _entgldb_collections(no, name, fingerprint) SELECT no, name, ?1 FROM temp.kept_numbers",
            [empty],
        )
        .and_then(|_| {
            connection.execute(
                "INSERT INTO _entgldb_outbox(tbl, key, at, found) SELECT tbl, key, at, found FROM temp.kept_notes ORDER BY rowid",
                [],
            )
        })
        .and_then(|_| connection.execute_batch("DROP TABLE temp.kept_numbers; DROP TABLE temp.kept_notes"))
        .doing("keeping notes of writes")
}

/// A value of the engine's state that outlives its table.
struct Kept {
    name: &'static str,
    value: rusqlite::types::Value,
}

impl Kept {
    /// A table that can't be read has none: then the file is only about to be claimed.
    fn read(connection: &Connection, name: &'static str) -> Option<Self> {
        schema::get(connection, name).ok().flatten().map(|value| Self { name, value })
    }
}

/// What is wrong with the journal: chains, signatures, numbers, clock. The application's tables are not compared with it,
/// since they have no triggers now: that is done by looking them through.
fn faults(path: &Path) -> Result<Vec<String>, RepairError> {
    let report = match verify(path, &mut |_| {}) {
        Ok(report) => report,
        Err(VerifyError::Failed(SqliteFailed::Damaged { what })) => return Ok(vec![what]),
        Err(VerifyError::Failed(failed)) => return Ok(vec![failed.to_string()]),
        Err(VerifyError::Open(OpenError::Failed(failed))) => return Ok(vec![failed.to_string()]),
        Err(VerifyError::Open(error)) => return Err(error.into()),
        Err(VerifyError::NotAStore) => return Ok(vec!["the engine's tables are missing".to_owned()]),
    };
    Ok(report.faults.into_iter().map(|fault| fault.what).collect())
}

/// Sees to it that the next start goes on in a new incarnation, installs the triggers and looks all tables through. To be
/// called in a write transaction.
fn begin_anew(connection: &Connection) -> Outcome<()> {
    for object in objects(connection)?.iter().filter(|object| object.kind == "trigger") {
        object.drop(connection)?;
    }
    // A table whose first copies are not done goes on with them: that looks at all its rows too.
    let stages = (Stage::Rows as i64, Stage::FirstCopies as i64);
    connection
        .execute("UPDATE _entgldb_collections SET scan = ?1, scan_after = NULL WHERE scan <> ?2", stages)
        .and_then(|_| {
            connection.execute("DELETE FROM _entgldb_meta WHERE name IN ('owner', 'incarnation')", [])
        })
        .map(drop)
        .doing("beginning a new incarnation")
}

/// Something of the engine's in the schema.
struct Object {
    kind: String,
    name: String,
}

impl Object {
    /// A trigger or index may have gone with its table.
    fn drop(&self, connection: &Connection) -> Outcome<()> {
        let Self { kind, name } = self;
        connection
            .execute_batch(&format!("DROP {} IF EXISTS main.{}", kind.to_uppercase(), identifier(name)))
            .doing("removing the engine's tables")
    }
}

/// All that is the engine's in the schema, triggers first and tables last.
fn objects(connection: &Connection) -> Outcome<Vec<Object>> {
    let mut statement = connection
        .prepare(
            "SELECT type, name FROM main.sqlite_schema WHERE substr(name, 1, 9) = '_entgldb_' AND type IN ('trigger', 'view', 'index', 'table')
             ORDER BY type = 'table', type = 'index', type = 'view', name",
        )
        .doing("reading the schema")?;
    let found = statement.query_map([], |row| Ok(Object { kind: row.get(0)?, name: row.get(1)? }));
    found.and_then(Iterator::collect).doing("reading the schema")
}
