//! Taking everything of the engine's out of a database.

mod common;

use common::{Node, config};
use entgldb_sqlite::{Attached, OpenError, SqliteStore, attached, detach};
use rusqlite::Connection;

const SCHEMA: &str = "
CREATE TABLE items (id TEXT PRIMARY KEY, shop REFERENCES shops(id), v TEXT UNIQUE, w AS (upper(v)));
CREATE TABLE shops(id INTEGER PRIMARY KEY AUTOINCREMENT, \"odd name\" JSON DEFAULT 'x') STRICT;
CREATE TABLE pairs(a TEXT, b BLOB, PRIMARY KEY(a, b)) WITHOUT ROWID;
CREATE UNIQUE INDEX by_v ON items(lower(v)) WHERE v IS NOT NULL; CREATE INDEX plain ON pairs(b);
CREATE VIEW shown AS SELECT * FROM items; CREATE VIRTUAL TABLE search USING fts5(v);
CREATE TRIGGER fill AFTER INSERT ON items BEGIN INSERT INTO search VALUES (NEW.v); END;
INSERT INTO shops VALUES (1, 'x'); INSERT INTO items(id, shop, v) VALUES ('a', 1, 'x'), ('b', 1, 'y');
INSERT INTO pairs VALUES ('a', x'00'); ANALYZE";

fn plain_schema() -> String {
    SCHEMA.replace(" STRICT", "").replace("JSON", "TEXT")
}

fn dump(connection: &Connection) -> Vec<String> {
    let mut found = Vec::new();
    for sql in [
        "SELECT json_array(type, name, tbl_name, sql) FROM sqlite_schema ORDER BY rowid",
        "SELECT json_array(id, shop, v, w) FROM items ORDER BY id",
        "SELECT json_array(a, hex(b)) FROM pairs",
        "SELECT v FROM search",
        "SELECT json_array(tbl, idx, stat) FROM sqlite_stat1 ORDER BY 1",
    ] {
        found.extend(common::query(connection, sql));
    }
    found
}

#[test]
fn the_schema_and_the_rows_are_afterwards_what_they_were_before() {
    for mode in ["DELETE", "WAL"] {
        let sql = format!("PRAGMA journal_mode = {mode}; {}", plain_schema());
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("app.db");
        let app = Connection::open(&path).unwrap();
        app.execute_batch(&sql).unwrap();
        let before = dump(&app);
        app.close().unwrap();
        let mut store = SqliteStore::open(config(&path, &["items", "shops", "pairs"])).unwrap();
        assert!(store.is_scanning().unwrap());
        store.close().unwrap();

        let detached = detach(&path).unwrap();
        assert!(detached.triggers >= 9 && detached.tables >= 14, "{detached:?}");
        assert_eq!(detached.journal_mode, mode.to_lowercase());
        assert_eq!(detached.journal_before, Some(mode.to_lowercase()));
        assert_eq!(dump(&Connection::open(&path).unwrap()), before, "{mode}");
        assert!(matches!(detach(&path), Err(OpenError::NeverSynced { .. })));
        assert_eq!(attached(&path).unwrap(), None);
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    }
}

#[test]
fn a_program_that_has_it_open_keeps_it_in_wal_mode_and_that_is_reported() {
    let mut node = Node::new(1, &plain_schema(), &["items"]);
    node.capture();
    let Node { path, app, store, folder: _folder, .. } = node;
    store.close().unwrap();
    dump(&app);
    let detached = detach(&path).unwrap();
    assert_eq!((detached.journal_mode.as_str(), detached.journal_before.as_deref()), ("wal", Some("delete")));
    app.execute_batch("INSERT INTO items(id, v) VALUES ('c', 'z')").unwrap();
}

#[test]
fn what_was_neither_captured_nor_taken_by_others_is_counted_before() {
    let mut node = Node::new(1, &plain_schema(), &["items", "pairs"]);
    node.capture();
    node.app.execute_batch("INSERT INTO items(id, v) VALUES ('c', 'z')").unwrap();
    let found = attached(&node.path).unwrap().unwrap();
    let expected = Attached {
        node: Some(node.id()),
        watched: vec!["items".to_owned(), "pairs".to_owned()],
        pending: Some(1),
        unsent: Some(3),
    };
    assert_eq!(found, expected);
}

#[test]
fn damaged_tables_are_taken_out_all_the_same_and_the_database_can_be_synced_again() {
    for damage in [
        "DROP TABLE _entgldb_meta",
        "DROP TABLE _entgldb_outbox",
        "UPDATE _entgldb_collections SET fingerprint = 1",
    ] {
        let mut node = Node::new(1, &plain_schema(), &["items"]);
        node.capture();
        let Node { path, app, store, folder: _folder, .. } = node;
        store.close().unwrap();
        app.execute_batch(damage).unwrap();
        assert!(SqliteStore::open(config(&path, &["items"])).is_err(), "{damage}");
        assert!(attached(&path).unwrap().is_some(), "{damage}");
        detach(&path).unwrap();
        SqliteStore::open(config(&path, &["items"])).unwrap();
    }
}

#[test]
fn a_locked_database_is_reported_and_nothing_has_changed() {
    let node = Node::new(1, &plain_schema(), &["items"]);
    let before = dump(&node.app);
    node.app.execute_batch("BEGIN IMMEDIATE").unwrap();
    assert!(matches!(detach(&node.path), Err(OpenError::Busy { .. })));
    node.app.execute_batch("COMMIT").unwrap();
    assert_eq!(dump(&node.app), before);
}
