//! The engine's own tables in the application's database. All their names start with `_entgldb_`.
//!
//! The layout is described in `docs/protocol/sqlite.md` and has a format number, so that a later version knows what it
//! finds.

use std::collections::{BTreeMap, BTreeSet};

use entgldb_replica::clock::{Hlc, Stamp};
use entgldb_replica::fingerprint::{Fingerprint, Tally};
use entgldb_replica::id::{Key, NodeId};
use entgldb_replica::version::Hash;
use rusqlite::{Connection, OptionalExtension};

use crate::failed::{Outcome, While};
use crate::fields::tables;
use crate::file::error::FORMAT;

/// Names of the values in the engine's state.
pub(crate) const NAMES: [&str; 16] = [
    "format",
    "owner",
    "incarnation",
    "clock",
    "schema_version",
    "unsynced",
    "keeps",
    "in_use",
    "outbox_after",
    "token",
    "commits",
    "holder",
    "challenge",
    "first_copies",
    "payload_bytes_max",
    JOURNAL_BEFORE,
];

/// The journal mode that the database was in before the first start, for whoever takes the engine's tables out again.
pub(crate) const JOURNAL_BEFORE: &str = "journal_before";

const TABLES: &str = "
CREATE TABLE _entgldb_meta(name TEXT PRIMARY KEY, value) WITHOUT ROWID;
CREATE TABLE _entgldb_applying(id INTEGER PRIMARY KEY);
CREATE TABLE _entgldb_outbox(id INTEGER PRIMARY KEY, tbl INTEGER, key, at INTEGER);
CREATE TABLE _entgldb_authors(no INTEGER PRIMARY KEY, node_id BLOB NOT NULL UNIQUE, public_key BLOB);
CREATE TABLE _entgldb_collections(no INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, fingerprint BLOB NOT NULL,
  scan INTEGER NOT NULL DEFAULT 0, scan_after, has_extras INTEGER NOT NULL DEFAULT 0);
CREATE TABLE _entgldb_logs(no INTEGER PRIMARY KEY, author_no INTEGER NOT NULL, incarnation INTEGER NOT NULL,
  collection_no INTEGER NOT NULL, seq INTEGER NOT NULL, hash BLOB NOT NULL, hlc INTEGER NOT NULL,
  UNIQUE(author_no, incarnation, collection_no));
CREATE TABLE _entgldb_oplog(id INTEGER PRIMARY KEY, hlc INTEGER NOT NULL, replaces_hlc INTEGER, replaces_author_no INTEGER,
  op INTEGER NOT NULL, key TEXT NOT NULL, hash BLOB NOT NULL, payload BLOB NOT NULL);
CREATE TABLE _entgldb_signed(id INTEGER PRIMARY KEY, hlc INTEGER NOT NULL, hash BLOB NOT NULL, signature BLOB NOT NULL);
CREATE TABLE _entgldb_rows(collection_no INTEGER NOT NULL, key TEXT NOT NULL, hlc INTEGER NOT NULL,
  author_no INTEGER NOT NULL, hash BLOB, entry INTEGER, extra TEXT, PRIMARY KEY(collection_no, key)) WITHOUT ROWID;
CREATE TABLE _entgldb_conflicts(id INTEGER PRIMARY KEY, collection_no INTEGER NOT NULL, key TEXT NOT NULL,
  winner_hlc INTEGER NOT NULL, winner_author_no INTEGER NOT NULL, loser_hlc INTEGER NOT NULL, loser_author_no INTEGER NOT NULL,
  winner_content BLOB, loser_content BLOB, missing_hlc INTEGER, missing_author_no INTEGER, noted_at INTEGER NOT NULL,
  UNIQUE(collection_no, key, winner_hlc, winner_author_no, loser_hlc, loser_author_no));
CREATE TABLE _entgldb_set_aside(collection_no INTEGER NOT NULL, key TEXT NOT NULL, hlc INTEGER NOT NULL,
  author_no INTEGER NOT NULL, collided INTEGER NOT NULL, blocker TEXT, message TEXT NOT NULL, content BLOB,
  table_hash BLOB, noted_at INTEGER NOT NULL, PRIMARY KEY(collection_no, key));
CREATE INDEX _entgldb_set_aside_blocker ON _entgldb_set_aside(collection_no, blocker) WHERE blocker IS NOT NULL;
CREATE TABLE _entgldb_problems(collection_no INTEGER NOT NULL, key TEXT NOT NULL, message TEXT NOT NULL,
  noted_at INTEGER NOT NULL, PRIMARY KEY(collection_no, key)) WITHOUT ROWID;
";

/// Since format 2.
const STATES: &str =
    "CREATE TABLE _entgldb_states(collection_no INTEGER NOT NULL, key TEXT NOT NULL, state BLOB NOT NULL,
  PRIMARY KEY(collection_no, key)) WITHOUT ROWID";

/// Since format 3. A table that is made and one that is brought up to this format end with the same words in the schema.
const FORGETTING: &str = "
ALTER TABLE _entgldb_collections ADD COLUMN row_count INTEGER NOT NULL DEFAULT 0;
ALTER TABLE _entgldb_logs ADD COLUMN floor INTEGER NOT NULL DEFAULT 0;
ALTER TABLE _entgldb_logs ADD COLUMN floor_hlc INTEGER NOT NULL DEFAULT 0;
CREATE TABLE _entgldb_notes(name TEXT PRIMARY KEY, value BLOB NOT NULL, hash BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE _entgldb_members(key TEXT PRIMARY KEY, content BLOB NOT NULL) WITHOUT ROWID;
";

/// Since format 4.
const PROVING: &str = "
ALTER TABLE _entgldb_rows ADD COLUMN shown BLOB;
ALTER TABLE _entgldb_problems ADD COLUMN shown BLOB;
ALTER TABLE _entgldb_outbox ADD COLUMN found INTEGER;
CREATE TABLE _entgldb_late(collection_no INTEGER NOT NULL, key TEXT NOT NULL, content BLOB, PRIMARY KEY(collection_no, key)) WITHOUT ROWID;
CREATE TABLE _entgldb_held(id INTEGER PRIMARY KEY, tbl INTEGER NOT NULL, key, at INTEGER, found INTEGER);
";

/// The format of the engine's tables in a database; `None` if it has none.
pub(crate) fn format(connection: &Connection) -> Outcome<Option<i64>> {
    let present: bool = connection
        .query_row(
            "SELECT EXISTS(SELECT 1 FROM main.sqlite_schema WHERE name = '_entgldb_meta')",
            [],
            |row| row.get(0),
        )
        .doing("looking for the engine's tables")?;
    if !present {
        return Ok(None);
    }
    get::<i64>(connection, "format").map(|format| Some(format.unwrap_or_default()))
}

/// Whether anything has a name of the engine's.
pub(crate) fn is_partly_there(connection: &Connection) -> Outcome<bool> {
    connection
        .query_row(
            "SELECT EXISTS(SELECT 1 FROM main.sqlite_schema WHERE substr(name, 1, 9) = '_entgldb_')",
            [],
            |row| row.get(0),
        )
        .doing("looking for the engine's tables")
}

/// The first table that a database lacks, of those that the engine made in it.
pub(crate) fn missing(connection: &Connection) -> Outcome<Option<String>> {
    let fresh = Connection::open_in_memory().doing("making the engine's tables to compare")?;
    create(&fresh)?;
    let there_are = tables(connection)?;
    Ok(tables(&fresh)?.into_iter().find(|name| !there_are.contains(name)))
}

fn tables(connection: &Connection) -> Outcome<BTreeSet<String>> {
    let mut statement = connection
        .prepare(
            "SELECT name FROM main.sqlite_schema WHERE type = 'table' AND substr(name, 1, 9) = '_entgldb_'",
        )
        .doing("listing the engine's tables")?;
    let names = statement.query_map([], |row| row.get(0));
    names.and_then(Iterator::collect).doing("listing the engine's tables")
}

/// Creates the tables. To be called in a write transaction.
pub(crate) fn create(connection: &Connection) -> Outcome<()> {
    connection.execute_batch(TABLES).doing("creating the engine's tables")?;
    connection.execute_batch(STATES).doing("creating the engine's tables")?;
    connection.execute_batch(FORGETTING).doing("creating the engine's tables")?;
    connection.execute_batch(PROVING).doing("creating the engine's tables")?;
    tables::create(connection)?;
    put(connection, "format", FORMAT)
}

/// A table or index: its name, and the SQL that makes it.
pub(crate) type Definition = (String, Option<String>);

/// The tables and indexes as this version makes them.
pub(crate) fn wanted() -> Outcome<Vec<Definition>> {
    let fresh = Connection::open_in_memory().doing("making the engine's tables")?;
    create(&fresh)?;
    definitions(&fresh)
}

/// Names and definitions of the engine's tables and indexes.
pub(crate) fn definitions(connection: &Connection) -> Outcome<Vec<Definition>> {
    let mut statement = connection
        .prepare("SELECT name, sql FROM main.sqlite_schema WHERE type IN ('table', 'index') AND tbl_name LIKE '\\_entgldb\\_%' ESCAPE '\\'")
        .doing("reading the schema")?;
    let found = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?)));
    found.and_then(Iterator::collect).doing("reading the schema")
}

/// Brings tables of an earlier format up to this one. To be called in a write transaction.
pub(crate) fn upgrade(connection: &Connection) -> Outcome<()> {
    let found = format(connection)?.unwrap_or_default();
    if found < 2 {
        connection.execute_batch(STATES).doing("upgrading the engine's tables")?;
    }
    if found < 3 {
        connection.execute_batch(FORGETTING).doing("upgrading the engine's tables")?;
        count_rows(connection)?;
    }
    if found < 4 {
        connection.execute_batch(PROVING).doing("upgrading the engine's tables")?;
        tables::create(connection)?;
    }
    put(connection, "format", FORMAT)
}

/// Works out anew what is known of each collection's rows together: number and fingerprint.
fn count_rows(connection: &Connection) -> Outcome<()> {
    let mut tallies: BTreeMap<i64, Tally> = BTreeMap::new();
    let mut statement = connection
        .prepare(
            "SELECT r.collection_no, r.key, r.hlc, a.node_id, r.hash
             FROM _entgldb_rows r JOIN _entgldb_authors a ON a.no = r.author_no",
        )
        .doing("counting rows")?;
    let mut rows = statement.query([]).doing("counting rows")?;
    while let Some(row) = rows.next().doing("counting rows")? {
        let read = || {
            let (key, hlc): (String, i64) = (row.get(1)?, row.get(2)?);
            Ok((
                row.get::<_, i64>(0)?,
                key,
                hlc,
                row.get::<_, [u8; 32]>(3)?,
                row.get::<_, Option<[u8; 32]>>(4)?,
            ))
        };
        let (no, key, hlc, node, hash) = read().doing("counting rows")?;
        // A key that is none is for `verify` to find.
        let Ok(key) = Key::new(&key) else { continue };
        let stamp = Stamp { hlc: Hlc(hlc.cast_unsigned()), node: NodeId(node) };
        let tally = tallies.entry(no).or_default();
        tally.fingerprint.add(Fingerprint::of_row(&key, &stamp, hash.map(Hash).as_ref()));
        tally.rows += 1;
    }
    for (no, tally) in tallies {
        let values = (tally.fingerprint.to_bytes(), tally.rows.cast_signed(), no);
        connection
            .execute("UPDATE _entgldb_collections SET fingerprint = ?1, row_count = ?2 WHERE no = ?3", values)
            .doing("writing a fingerprint")?;
    }
    Ok(())
}

/// Whether the tables are of a format that knows of forgetting.
pub(crate) fn forgets(connection: &Connection) -> Outcome<bool> {
    Ok(format(connection)?.is_some_and(|format| format >= 3))
}

/// Collections in which documents have states.
pub(crate) fn stated(connection: &Connection) -> Outcome<Vec<i64>> {
    if format(connection)?.is_none_or(|format| format < 2) {
        return Ok(Vec::new());
    }
    let mut statement = connection
        .prepare_cached(
            "SELECT no FROM _entgldb_collections c
             WHERE EXISTS(SELECT 1 FROM _entgldb_states s WHERE s.collection_no = c.no) ORDER BY no",
        )
        .doing("looking for states")?;
    let found = statement.query_map([], |row| row.get(0)).and_then(Iterator::collect);
    found.doing("looking for states")
}

/// The state of a document that merges.
pub(crate) fn state(connection: &Connection, collection_no: i64, key: &str) -> Outcome<Option<Vec<u8>>> {
    connection
        .prepare_cached("SELECT state FROM _entgldb_states WHERE collection_no = ?1 AND key = ?2")
        .and_then(|mut statement| statement.query_row((collection_no, key), |row| row.get(0)).optional())
        .doing("reading a state")
}

/// Writes the state of a document that merges.
pub(crate) fn put_state(connection: &Connection, collection_no: i64, key: &str, state: &[u8]) -> Outcome<()> {
    connection
        .prepare_cached(
            "INSERT INTO _entgldb_states VALUES(?1, ?2, ?3) ON CONFLICT DO UPDATE SET state = excluded.state",
        )
        .and_then(|mut statement| statement.execute((collection_no, key, state)))
        .doing("writing a state")?;
    Ok(())
}

/// Reads one named value.
pub(crate) fn get<T: rusqlite::types::FromSql>(connection: &Connection, name: &str) -> Outcome<Option<T>> {
    connection
        .prepare_cached("SELECT value FROM _entgldb_meta WHERE name = ?1")
        .and_then(|mut statement| statement.query_row([name], |row| row.get(0)).optional())
        .doing("reading the engine's state")
}

/// Writes one named value.
pub(crate) fn put<T: rusqlite::ToSql>(connection: &Connection, name: &str, value: T) -> Outcome<()> {
    connection
        .prepare_cached(
            "INSERT INTO _entgldb_meta VALUES(?1, ?2) ON CONFLICT DO UPDATE SET value = excluded.value",
        )
        .and_then(|mut statement| statement.execute((name, value)))
        .doing("writing the engine's state")?;
    Ok(())
}
