//! Looking at a store without changing it, also while an engine in another process is at work on it.

pub(crate) mod dangling;
pub(crate) mod export;
pub(crate) mod fields;

pub use fields::{FieldInfo, LackingField, TableFields};

use std::path::{Path, PathBuf};

use bytes::Bytes;
use entgldb_replica::clock::{Hlc, Stamp, WallMillis};
use entgldb_replica::fingerprint::Fingerprint;
use entgldb_replica::id::{Collection, Incarnation, LogId, NodeId};
use entgldb_replica::resolve::Conflict;
use entgldb_replica::store::ProblemKind;
use entgldb_replica::version::Head;
use rusqlite::{Connection, OpenFlags, Row};

use crate::failed::{Outcome, SqliteFailed, While};
use crate::fields::tables;
use crate::file::connection::{harden, open_file};
use crate::file::error::{FORMAT, OpenError};
use crate::journal::names::Names;
use crate::journal::{conflicts, schema};
use crate::table::collation;

/// How long a look waits for a database that is locked.
const BUSY_WAIT: std::time::Duration = std::time::Duration::from_secs(10);

/// A store, opened read-only. Not for use in the engine's own process with another copy of SQLite.
pub struct Inspector {
    pub(crate) connection: Connection,
    pub(crate) names: Names,
    path: PathBuf,
}

impl std::fmt::Debug for Inspector {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Inspector").field("path", &self.path).finish_non_exhaustive()
    }
}

/// A store at a glance.
#[derive(Clone, PartialEq, Debug)]
pub struct Summary {
    /// The node whose store this is, and the birth of its oplog; `None` before its first commit.
    pub owner: Option<(NodeId, Incarnation)>,
    /// Last value of the hybrid clock.
    pub clock: Hlc,
    /// The logs.
    pub logs: Vec<LogSummary>,
    /// The collections.
    pub collections: Vec<CollectionSummary>,
    /// Notes of local changes that wait to be captured.
    pub outbox: u64,
    /// Conflicts in the list.
    pub conflicts: u64,
    /// Documents that are set aside.
    pub set_aside: u64,
    /// Local changes that can't travel, and what a person should know of tables' schemas.
    pub problems: u64,
    /// Size of the database file, in bytes.
    pub database_bytes: u64,
    /// Size of its WAL, in bytes.
    pub wal_bytes: u64,
}

/// A log at a glance.
#[derive(Clone, PartialEq, Debug)]
pub struct LogSummary {
    /// Its name.
    pub log: LogId,
    /// Its last entry.
    pub head: Head,
    /// The time of that entry.
    pub hlc: Hlc,
}

/// A collection at a glance.
#[derive(Clone, PartialEq, Debug)]
pub struct CollectionSummary {
    /// Its name.
    pub collection: Collection,
    /// Documents that exist.
    pub documents: u64,
    /// Documents that are deleted.
    pub tombstones: u64,
    /// Fingerprint of its rows.
    pub fingerprint: Fingerprint,
    /// Whether the table is still being looked through for rows to capture.
    pub is_scanning: bool,
}

/// A conflict in the list.
#[derive(Clone, PartialEq, Debug)]
pub struct ListedConflict {
    /// Number of the losing version in the list, for [`crate::restore()`]. Never another's while this one is in the list.
    pub version: u64,
    /// The conflict.
    pub conflict: Conflict,
    /// When it was noted.
    pub noted: WallMillis,
}

/// A document in the list of those that the application's table does not hold.
#[derive(Clone, PartialEq, Debug)]
pub struct ListedProblem {
    /// The collection.
    pub collection: Collection,
    /// The key, as text; it may be one that is no valid key.
    pub key: String,
    /// What happened.
    pub kind: ProblemKind,
    /// Why, in the store's words.
    pub message: String,
    /// The version that is set aside; `None` for a local change that can't travel.
    pub version: Option<(Stamp, Option<Bytes>)>,
    /// When it was noted.
    pub noted: WallMillis,
}

impl Inspector {
    /// Opens a store.
    ///
    /// # Errors
    /// When there is no such file, it is no database, or a later version wrote it. A database that was never synced
    /// gives `Ok(None)`.
    pub fn open(path: &Path) -> Result<Option<Self>, OpenError> {
        let connection = open_file(path, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
        connection.busy_timeout(BUSY_WAIT).doing("setting up the connection")?;
        harden(&connection).doing("setting up the connection")?;
        collation::stand_in(&connection).doing("looking for collations")?;
        match schema::format(&connection)? {
            None if schema::is_partly_there(&connection)? => {
                return Err(SqliteFailed::damaged("_entgldb_meta is missing").into());
            }
            None => return Ok(None),
            Some(found) if found < 1 => {
                return Err(SqliteFailed::damaged("they do not say their format").into());
            }
            Some(found) if found > FORMAT => {
                return Err(OpenError::NewerFormat { path: path.to_owned(), found });
            }
            Some(_) => {}
        }
        let names = Names::load(&connection)?;
        Ok(Some(Self { connection, names, path: path.to_owned() }))
    }

    /// The store at a glance, as of one moment. Counts every row: takes about a second for some million.
    ///
    /// # Errors
    /// When the store can't be read.
    pub fn summary(&mut self) -> Result<Summary, SqliteFailed> {
        self.connection.execute_batch("BEGIN").doing("beginning to read")?;
        let summary = Names::load(&self.connection).and_then(|names| {
            self.names = names;
            self.summary_now()
        });
        self.connection.execute_batch("COMMIT").doing("ending to read")?;
        summary
    }

    fn summary_now(&self) -> Outcome<Summary> {
        let owner: Option<[u8; 32]> = schema::get(&self.connection, "owner")?;
        let incarnation: Option<i64> = schema::get(&self.connection, "incarnation")?;
        let clock: Option<i64> = schema::get(&self.connection, "clock")?;
        let mut logs: Vec<LogSummary> = self
            .names
            .logs
            .iter()
            .map(|(log, end)| LogSummary { log: log.clone(), head: end.head, hlc: end.hlc })
            .collect();
        logs.sort_by(|a, b| a.log.cmp(&b.log));
        let count = |table: &str| {
            self.connection
                .query_row(&format!("SELECT count(*) FROM {table}"), [], |row| row.get::<_, i64>(0))
                .map(i64::cast_unsigned)
                .doing("counting")
        };
        let of_tables =
            if tables::are_there(&self.connection)? { count("_entgldb_table_problems")? } else { 0 };
        let mut wal = self.path.clone().into_os_string();
        wal.push("-wal");
        let size = |path: &Path| std::fs::metadata(path).map_or(0, |file| file.len());
        Ok(Summary {
            owner: owner
                .zip(incarnation)
                .map(|(node, born)| (NodeId(node), Incarnation(born.cast_unsigned()))),
            clock: Hlc(clock.unwrap_or_default().cast_unsigned()),
            logs,
            collections: self.collections()?,
            outbox: count("_entgldb_outbox")?,
            conflicts: count("_entgldb_conflicts")?,
            set_aside: count("_entgldb_set_aside")?,
            problems: count("_entgldb_problems")? + of_tables,
            database_bytes: size(&self.path),
            wal_bytes: size(Path::new(&wal)),
        })
    }

    fn collections(&self) -> Outcome<Vec<CollectionSummary>> {
        let mut statement = self
            .connection
            .prepare(
                "SELECT c.no, c.fingerprint, c.scan, count(r.hash), count(r.key) - count(r.hash) FROM _entgldb_collections c
                 LEFT JOIN _entgldb_rows r ON r.collection_no = c.no GROUP BY c.no ORDER BY c.name",
            )
            .doing("counting rows")?;
        let mut rows = statement.query([]).doing("counting rows")?;
        let mut found = Vec::new();
        while let Some(row) = rows.next().doing("counting rows")? {
            let read = || {
                let counts = (row.get::<_, i64>(3)?, row.get::<_, i64>(4)?);
                Ok((row.get(0)?, row.get::<_, [u8; 32]>(1)?, row.get::<_, i64>(2)?, counts))
            };
            let (no, fingerprint, scan, (documents, tombstones)) = read().doing("counting rows")?;
            found.push(CollectionSummary {
                collection: self.names.collection(no)?.clone(),
                documents: documents.cast_unsigned(),
                tombstones: tombstones.cast_unsigned(),
                fingerprint: Fingerprint::from_bytes(fingerprint),
                is_scanning: scan != 0,
            });
        }
        Ok(found)
    }

    /// The newest conflicts, at most `count`.
    ///
    /// # Errors
    /// When the store can't be read.
    pub fn conflicts(&mut self, count: usize) -> Result<Vec<ListedConflict>, SqliteFailed> {
        self.names = Names::load(&self.connection)?;
        let mut statement = self
            .connection
            .prepare(
                "SELECT collection_no, key, winner_hlc, winner_author_no, winner_content, loser_hlc, loser_author_no,
                 loser_content, missing_hlc, missing_author_no, noted_at, id FROM _entgldb_conflicts ORDER BY id DESC LIMIT ?1",
            )
            .doing("reading conflicts")?;
        let mut rows = statement.query([count.cast_signed()]).doing("reading conflicts")?;
        let mut found = Vec::new();
        while let Some(row) = rows.next().doing("reading conflicts")? {
            let number =
                |column| row.get::<_, i64>(column).map(i64::cast_unsigned).doing("reading conflicts");
            let (noted, version) = (WallMillis(number(10)?), number(11)?);
            found.push(ListedConflict { version, conflict: conflicts::read(&self.names, row)?, noted });
        }
        Ok(found)
    }

    /// Documents that are set aside, local changes that can't travel, and rows that refer to rows that are not there, at most
    /// `count` of each. Reads all rows of tables with foreign keys.
    ///
    /// # Errors
    /// When the store can't be read.
    pub fn problems(&mut self, count: usize) -> Result<Vec<ListedProblem>, SqliteFailed> {
        self.names = Names::load(&self.connection)?;
        let of_tables = if tables::are_there(&self.connection)? {
            " UNION ALL SELECT * FROM (SELECT collection_no, place, message, noted_at, -1, NULL, NULL, NULL FROM _entgldb_table_problems LIMIT ?1)"
        } else {
            ""
        };
        let mut statement = self
            .connection
            .prepare(&format!(
                "SELECT * FROM (SELECT collection_no, key, message, noted_at, collided, hlc, author_no, content FROM _entgldb_set_aside
                 ORDER BY noted_at DESC LIMIT ?1) UNION ALL SELECT * FROM (SELECT collection_no, key, message, noted_at, NULL, NULL,
                 NULL, NULL FROM _entgldb_problems LIMIT ?1){of_tables}",
            ))
            .doing("reading problems")?;
        let mut rows = statement.query([count.cast_signed()]).doing("reading problems")?;
        let mut found = Vec::new();
        while let Some(row) = rows.next().doing("reading problems")? {
            found.push(problem(&self.names, row)?);
        }
        found.extend(self.dangling(count)?);
        Ok(found)
    }
}

fn problem(names: &Names, row: &Row<'_>) -> Outcome<ListedProblem> {
    let read = || {
        let stamp = (row.get::<_, Option<i64>>(5)?, row.get::<_, Option<i64>>(6)?);
        let content: Option<Vec<u8>> = row.get(7)?;
        Ok((
            row.get(0)?,
            row.get(1)?,
            row.get(2)?,
            row.get::<_, i64>(3)?,
            row.get::<_, Option<i64>>(4)?,
            stamp,
            content,
        ))
    };
    let (no, key, message, noted, collided, stamp, content) = read().doing("reading problems")?;
    Ok(ListedProblem {
        collection: names.collection(no)?.clone(),
        key,
        message,
        noted: WallMillis(noted.cast_unsigned()),
        kind: match collided {
            None => ProblemKind::NotCaptured,
            Some(0) => ProblemKind::SetAside,
            Some(1..) => ProblemKind::Collided,
            Some(_) => ProblemKind::Schema,
        },
        version: match stamp {
            (Some(hlc), Some(author)) => Some((names.stamp(hlc, author)?, content.map(Bytes::from))),
            _ => None,
        },
    })
}
