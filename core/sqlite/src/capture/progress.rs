//! How far looking through tables has come, which is durable.

use entgldb_replica::id::{Incarnation, LogId, NodeId};
use entgldb_replica::version::Seq;
use rusqlite::{Connection, OptionalExtension};

use crate::failed::{Outcome, While};
use crate::journal::names::Names;
use crate::journal::schema;
use crate::table::definition::Table;
use crate::table::value::Sql;

/// How far looking through a table has come. The numbers are those of `_entgldb_collections.scan`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Stage {
    /// Nothing to do.
    Done = 0,
    /// The rows of the table are compared with what is known.
    Rows = 1,
    /// The rows that the table has no longer are noted.
    Missing = 2,
    /// The rows of the table are captured for the first time.
    FirstCopies = 3,
}

impl Stage {
    pub(crate) fn of(number: i64) -> Self {
        match number {
            1 => Self::Rows,
            2 => Self::Missing,
            3 => Self::FirstCopies,
            _ => Self::Done,
        }
    }
}

/// Whether a table was built again and is not looked through yet: a migration may have computed what its columns hold.
pub(crate) fn is_migrated(connection: &Connection, table: &Table) -> Outcome<bool> {
    let stage: Option<i64> = connection
        .prepare_cached("SELECT scan FROM _entgldb_collections WHERE no = ?1")
        .and_then(|mut statement| statement.query_row([table.no], |row| row.get(0)).optional())
        .doing("looking for tables to look through")?;
    Ok(stage.map(Stage::of) == Some(Stage::Rows))
}

/// How far looking through a table has come.
pub(crate) fn stage(connection: &Connection, table: &Table) -> Outcome<Stage> {
    let stage: i64 = connection
        .query_row("SELECT scan FROM _entgldb_collections WHERE no = ?1", [table.no], |row| row.get(0))
        .doing("looking for tables to look through")?;
    Ok(Stage::of(stage))
}

/// A table is to be looked through: it was written to without triggers. To be called in a write transaction.
pub(crate) fn begin(connection: &Connection, names: &Names, table: &Table) -> Outcome<()> {
    let owner: Option<[u8; 32]> = schema::get(connection, "owner")?;
    let incarnation: Option<i64> = schema::get(connection, "incarnation")?;
    let log = owner.zip(incarnation).map(|(owner, incarnation)| LogId {
        author: NodeId(owner),
        incarnation: Incarnation(incarnation.cast_unsigned()),
        collection: table.collection.clone(),
    });
    // Without an owner the next oplog begins a new incarnation.
    let has_begun = log.is_some_and(|log| names.logs.get(&log).is_some_and(|end| end.head.seq > Seq(0)));
    let stage = if has_begun { Stage::Rows } else { Stage::FirstCopies };
    move_to(connection, table, stage, &Sql::Null)
}

/// Has the rows of a table compared with their documents once more, also those that were found to be the same under another schema.
/// To be called in a write transaction.
pub(crate) fn compare_again(connection: &Connection, no: i64) -> Outcome<()> {
    connection
        .execute("UPDATE _entgldb_rows SET shown = NULL WHERE collection_no = ?1 AND shown IS NOT NULL", [no])
        .doing("noting a table to look through")?;
    connection
        .execute(
            "UPDATE _entgldb_collections SET scan = ?1, scan_after = NULL WHERE no = ?2 AND scan <> ?3",
            (Stage::Rows as i64, no, Stage::FirstCopies as i64),
        )
        .map(drop)
        .doing("noting a table to look through")
}

/// Has a table looked through for what it has no row of any more. To be called in a write transaction.
pub(crate) fn begin_missing(connection: &Connection, table: &Table) -> Outcome<()> {
    let stage: i64 = connection
        .query_row("SELECT scan FROM _entgldb_collections WHERE no = ?1", [table.no], |row| row.get(0))
        .doing("noting a table to look through")?;
    // Otherwise that comes after its rows anyway.
    match Stage::of(stage) {
        Stage::Rows | Stage::FirstCopies => Ok(()),
        Stage::Done | Stage::Missing => move_to(connection, table, Stage::Missing, &Sql::Null),
    }
}

/// Notes how far looking through a table has come. To be called in a write transaction.
pub(crate) fn move_to(connection: &Connection, table: &Table, stage: Stage, after: &Sql<'_>) -> Outcome<()> {
    connection
        .prepare_cached("UPDATE _entgldb_collections SET scan = ?1, scan_after = ?2 WHERE no = ?3")
        .and_then(|mut statement| statement.execute((stage as i64, after, table.no)))
        .map(drop)
        .doing("looking through a table")
}
