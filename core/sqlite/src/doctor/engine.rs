//! The engine's own tables in the database, if it was synced before.

use std::collections::BTreeSet;
use std::path::PathBuf;

use entgldb_replica::id::NodeId;
use rusqlite::Connection;
use serde::Serialize;

use super::finding::Finding;
use crate::failed::{Outcome, While};
use crate::file::error::FORMAT;
use crate::file::holder;
use crate::journal::names::Names;
use crate::journal::schema;

/// What the engine's tables say.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct EngineFacts {
    /// Their format.
    pub format: i64,
    /// The node whose they are; `None` before its first commit, or if they can't be read.
    pub node: Option<String>,
    /// Writes that wait to be captured.
    pub pending: Option<u64>,
    /// The data folder of the node that has the file open, or ended without closing it.
    pub data_dir: Option<PathBuf>,
}

/// Looks at the engine's tables. `None` if there are none.
pub(super) fn look(connection: &Connection) -> Outcome<Option<(EngineFacts, Vec<Finding>)>> {
    if !schema::is_partly_there(connection)? {
        return Ok(None);
    }
    let mut facts = EngineFacts { format: 0, node: None, pending: None, data_dir: None };
    let findings = match read(connection, &mut facts) {
        Ok(finding) => Vec::from_iter(finding),
        Err(failed) => vec![damaged(&failed.to_string())],
    };
    Ok(Some((facts, findings)))
}

fn read(connection: &Connection, facts: &mut EngineFacts) -> Outcome<Option<Finding>> {
    let Some(format) = schema::format(connection)? else {
        return Ok(Some(damaged("_entgldb_meta is missing")));
    };
    facts.format = format;
    if format < 1 {
        return Ok(Some(damaged("they do not say their format")));
    }
    if format > FORMAT {
        let what = format!("its engine tables have format {format}; this version knows {FORMAT}");
        return Ok(Some(Finding::blocks("newer_format", what, "use the newer version of entgldb")));
    }
    // An older format has fewer, and opening brings it up to this one.
    if format == FORMAT
        && let Some(missing) = schema::missing(connection)?
    {
        return Ok(Some(damaged(&format!("{missing} is missing"))));
    }
    let held = holder::read(connection)?;
    facts.data_dir = held.map(|held| held.by.folder).filter(|folder| !folder.as_os_str().is_empty());
    let owner: Option<[u8; 32]> = schema::get(connection, "owner")?;
    facts.node = owner.map(|owner| NodeId(owner).to_string());
    schema::get::<i64>(connection, "clock")?;
    schema::get::<i64>(connection, "incarnation")?;
    if schema::get::<i64>(connection, "keeps")?.is_some() {
        return Ok(Some(Finding::blocks(
            "own_file",
            "this is the engine's own file of another kind of node, not an application's database",
            "give the database that the application uses",
        )));
    }
    let pending =
        connection.query_row("SELECT count(*) FROM _entgldb_outbox", [], |row| row.get::<_, i64>(0));
    facts.pending = Some(pending.doing("reading the outbox")?.cast_unsigned());
    Names::load(connection)?;
    Ok(None)
}

fn damaged(what: &str) -> Finding {
    Finding::blocks(
        "engine_damaged",
        format!("the engine's tables in it are damaged: {what}"),
        "the application's tables are not concerned: stop the node and run `entgldb doctor --repair` on it",
    )
}

/// The tables that have the engine's triggers, by the names that they have now.
pub(super) fn watched(connection: &Connection) -> Outcome<BTreeSet<String>> {
    let mut statement = connection
        .prepare(
            "SELECT DISTINCT tbl_name FROM main.sqlite_schema WHERE type = 'trigger' AND substr(name, 1, 16) = '_entgldb_insert_'",
        )
        .doing("looking for triggers")?;
    let names = statement.query_map([], |row| row.get(0));
    names.and_then(Iterator::collect).doing("looking for triggers")
}
