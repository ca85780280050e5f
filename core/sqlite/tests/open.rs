//! What is refused at the door, and what stays the same through opening again.

mod common;

use std::path::Path;

use common::{Node, config};
use entgldb_replica::store::Store;
use entgldb_sqlite::{Durability, OpenError, SqliteConfig, SqliteStore};
use rusqlite::Connection;

fn refused(sql: &str, watch: &[&str]) -> OpenError {
    match Node::try_new(1, sql, watch) {
        Ok(_) => panic!("opened with {sql}"),
        Err(error) => error,
    }
}

#[test]
fn a_table_without_a_declared_key_is_refused_with_what_to_do() {
    let error = refused("CREATE TABLE t(a, b)", &["t"]);
    assert!(matches!(&error, OpenError::NoPrimaryKey { table } if table == "t"));
    assert!(error.to_string().contains("PRIMARY KEY"));
}

#[test]
fn a_table_that_is_not_there_is_refused_with_those_that_are() {
    let error = refused(
        "CREATE TABLE orders(id INTEGER PRIMARY KEY); CREATE TABLE products(id INTEGER PRIMARY KEY)",
        &["order"],
    );
    assert_eq!(error.to_string(), "the database has no table \"order\"; it has: orders, products");
    assert!(matches!(refused("CREATE TABLE t(k TEXT PRIMARY KEY)", &[]), OpenError::NothingToWatch { .. }));
}

#[test]
fn views_virtual_tables_and_the_engines_own_tables_are_refused() {
    let sql = "CREATE TABLE t(k TEXT PRIMARY KEY); CREATE VIEW v AS SELECT * FROM t; CREATE VIRTUAL TABLE f USING fts5(x)";
    assert!(matches!(refused(sql, &["v"]), OpenError::NotAnOrdinaryTable { what: "view", .. }));
    assert!(matches!(refused(sql, &["f"]), OpenError::NotAnOrdinaryTable { what: "virtual table", .. }));
    assert!(matches!(refused(sql, &["_entgldb_rows"]), OpenError::BadName { .. }));
    assert!(matches!(refused(sql, &["sqlite_schema"]), OpenError::BadName { .. }));
    assert!(matches!(
        refused("CREATE TABLE \"a\nb\"(k TEXT PRIMARY KEY)", &["a\nb"]),
        OpenError::BadName { .. }
    ));
}

#[test]
fn a_missing_file_is_not_created_and_another_kind_of_file_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("none.db");
    assert!(matches!(SqliteStore::open(config(&path, &["t"])), Err(OpenError::NoSuchFile { .. })));
    assert!(!path.exists());
    std::fs::write(&path, "this is a text file, long enough to be no empty database".repeat(100)).unwrap();
    assert!(matches!(SqliteStore::open(config(&path, &["t"])), Err(OpenError::NotADatabase { .. })));
    assert!(matches!(SqliteStore::open(config(Path::new("/"), &["t"])), Err(OpenError::NoSuchFile { .. })));
}

#[test]
fn a_store_of_a_later_version_and_a_limit_beyond_the_hard_one_are_refused() {
    let node = Node::new(1, "CREATE TABLE t(k TEXT PRIMARY KEY)", &["t"]);
    let mut large = config(&node.path, &["t"]);
    large.payload_bytes_max = entgldb_replica::limits::PAYLOAD_BYTES_HARD + 1;
    assert!(matches!(SqliteStore::open(large), Err(OpenError::PayloadLimit { .. })));
    node.sql("UPDATE _entgldb_meta SET value = 99 WHERE name = 'format'");
    assert!(matches!(
        SqliteStore::open(config(&node.path, &["t"])),
        Err(OpenError::NewerFormat { found: 99, .. })
    ));
}

#[test]
fn opening_again_changes_nothing_in_the_schema_and_a_name_in_other_letters_is_the_same_table() {
    let mut node = Node::new(1, "CREATE TABLE Orders(Id TEXT PRIMARY KEY, u TEXT UNIQUE)", &["orders"]);
    assert_eq!(node.store.collections()[0].as_str(), "Orders");
    let version = node.query("PRAGMA schema_version");
    node.reopen();
    assert_eq!(node.query("PRAGMA schema_version"), version);
}

#[test]
fn a_table_no_longer_watched_has_no_triggers_and_is_looked_through_when_it_is_watched_again() {
    let schema = "CREATE TABLE t(k TEXT PRIMARY KEY); CREATE TABLE u(k TEXT PRIMARY KEY)";
    let mut node = Node::new(1, schema, &["t", "u"]);
    node.sql("INSERT INTO u VALUES('before')");
    node.capture();
    node.watch = vec!["t".into()];
    node.reopen();
    assert_eq!(
        node.query("SELECT count(*) FROM sqlite_schema WHERE type = 'trigger' AND tbl_name = 'u'"),
        ["0"]
    );
    node.sql("INSERT INTO u VALUES('meanwhile')");
    node.watch = vec!["t".into(), "u".into()];
    node.reopen();
    node.capture();
    assert_eq!(node.authored, 2);
    assert_eq!(node.content("u", "meanwhile").unwrap(), r#"{"k":"meanwhile"}"#);
}

#[test]
fn a_thousand_odd_names_reach_no_sql() {
    let pieces = [
        "'",
        "\"",
        "`",
        "[",
        "]",
        ";",
        "--",
        "/*",
        "*/",
        "\u{202e}",
        "%s",
        "?1",
        ":a",
        "$b",
        "\\",
        "/../",
        " ",
        "é",
        "e\u{301}",
        "DROP TABLE t",
        "select",
        "😀",
    ];
    let connection = Connection::open_in_memory().unwrap();
    drop(connection);
    let mut schema = String::from("CREATE TABLE t(k TEXT PRIMARY KEY);");
    let mut names = Vec::new();
    for (number, piece) in pieces.iter().enumerate() {
        let name = format!("n{number}{piece}{}", pieces[(number * 7 + 3) % pieces.len()]);
        let quoted = name.replace('"', "\"\"");
        schema.push_str(&format!("CREATE TABLE \"{quoted}\"(\"{quoted}\" TEXT PRIMARY KEY, \"v {quoted}\" INTEGER UNIQUE, \"{quoted}2\" REFERENCES t(k));"));
        names.push(name);
    }
    let watch: Vec<&str> = names.iter().map(String::as_str).collect();
    let (mut a, mut b) = (Node::new(1, &schema, &watch), Node::new(2, &schema, &watch));
    let before = b.query("SELECT name FROM sqlite_schema WHERE name NOT LIKE '%sqlite%' ORDER BY name");
    for name in &names {
        let quoted = name.replace('"', "\"\"");
        for key in pieces {
            a.app.execute(&format!("INSERT INTO \"{quoted}\" VALUES(?1, NULL, NULL)"), [key]).unwrap();
        }
    }
    b.pull(&mut a, 4096);
    assert_eq!(b.problems, vec![]);
    for name in &names {
        let sql = format!("SELECT * FROM \"{}\" ORDER BY 1", name.replace('"', "\"\""));
        assert_eq!(a.query(&sql), b.query(&sql));
        assert_eq!(b.query(&sql).len(), pieces.len());
    }
    assert_eq!(
        b.query("SELECT name FROM sqlite_schema WHERE name NOT LIKE '%sqlite%' ORDER BY name"),
        before
    );
}

/// Opens the node's database again and tells whether its oplog goes on as the one it was.
fn goes_on(node: &mut Node, durability: Durability) -> bool {
    let again = SqliteConfig { durability, ..config(&node.path, &["t"]) };
    node.store = SqliteStore::open(again).unwrap();
    node.store.load().unwrap().owner.is_some()
}

fn write(node: &mut Node, key: &str) {
    node.sql(&format!("INSERT INTO t VALUES('{key}')"));
    node.capture();
}

#[test]
fn after_an_unclean_end_a_new_incarnation_begins_if_commits_were_not_synced() {
    let mut a = Node::new(1, "CREATE TABLE t(k TEXT PRIMARY KEY)", &["t"]);
    write(&mut a, "normal");
    assert!(!goes_on(&mut a, Durability::Normal), "it was only dropped");
    assert!(!goes_on(&mut a, Durability::Full), "nothing was committed since");
    write(&mut a, "full");
    assert!(goes_on(&mut a, Durability::Full));
    assert!(goes_on(&mut a, Durability::Normal));
    assert!(!goes_on(&mut a, Durability::Full), "commits were not synced meanwhile");
    assert_eq!(a.store.load().unwrap().heads.len(), 1, "what was written stays");
}

#[test]
fn a_store_that_was_closed_goes_on_as_it_was() {
    let folder = tempfile::tempdir().unwrap();
    let other = folder.path().join("other.db");
    Connection::open(&other).unwrap().execute_batch("CREATE TABLE t(k TEXT PRIMARY KEY)").unwrap();
    let mut a = Node::new(1, "CREATE TABLE t(k TEXT PRIMARY KEY)", &["t"]);
    write(&mut a, "x");
    let elsewhere = SqliteStore::open(config(&other, &["t"])).unwrap();
    std::mem::replace(&mut a.store, elsewhere).close().unwrap();
    assert!(goes_on(&mut a, Durability::Normal));
}

#[test]
fn a_first_start_that_is_refused_changes_no_byte_of_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("app.db");
    let sql = "CREATE TABLE t(id TEXT PRIMARY KEY); CREATE TABLE keyless(a); CREATE VIEW v AS SELECT 1; CREATE TABLE _entgldb_rows(a)";
    Connection::open(&path).unwrap().execute_batch(sql).unwrap();
    let before = std::fs::read(&path).unwrap();
    for watch in [&["t", "keyless"][..], &["v"], &["none"], &[], &["_entgldb_rows"], &["t"]] {
        let error = SqliteStore::open(config(&path, watch)).unwrap_err();
        assert_eq!(std::fs::read(&path).unwrap(), before, "{watch:?}: {error}");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "{watch:?}: {error}");
    }
}
