//! A losing version comes back as a write of the application's would: into its table, past its triggers and constraints,
//! into the outbox.

mod common;

use common::{Node, Remote};
use entgldb_sqlite::inspect::Inspector;
use entgldb_sqlite::{RestoreError, Restored, restore, verify};

const SCHEMA: &str = "CREATE TABLE t(k TEXT PRIMARY KEY, v TEXT UNIQUE, n INTEGER CHECK (n < 100))";

/// Puts a losing version into the conflict list and gives its number.
fn lose(node: &Node, key: &str, content: Option<&str>) -> u64 {
    let sql = "INSERT INTO _entgldb_conflicts(collection_no, key, winner_hlc, winner_author_no, loser_hlc, loser_author_no,
               loser_content, noted_at) VALUES((SELECT no FROM _entgldb_collections WHERE name = 't'), ?1, 2, 1,
               (SELECT count(*) FROM _entgldb_conflicts), 1, CAST(?2 AS BLOB), 0)";
    node.app.execute(sql, (key, content)).unwrap();
    let listed = Inspector::open(&node.path).unwrap().unwrap().conflicts(1).unwrap();
    assert_eq!(listed[0].conflict.loser.content.as_deref(), content.map(str::as_bytes));
    listed[0].version
}

/// The changes that the engine finds next.
fn captured(node: &mut Node) -> Vec<(String, Option<String>)> {
    let drain = node.capture_unit().unwrap_or_default();
    let text = |content: bytes::Bytes| String::from_utf8(content.to_vec()).unwrap();
    drain.changes.into_iter().map(|change| (change.doc.1.to_string(), change.content.map(text))).collect()
}

fn row(key: &str) -> Node {
    let mut node = Node::new(1, SCHEMA, &["t"]);
    node.sql(&format!("INSERT INTO t VALUES('{key}', 'stands', 1)"));
    node.capture();
    node
}

#[test]
fn a_losing_version_is_in_the_table_again_and_captured_as_a_change() {
    let mut node = row("k");
    let version = lose(&node, "k", Some(r#"{"k":"k","n":7,"v":"lost"}"#));
    node.sql(
        "CREATE TABLE log(line); CREATE TRIGGER seen AFTER UPDATE ON t BEGIN INSERT INTO log VALUES(OLD.v || '>' || NEW.v); END",
    );
    assert_eq!(restore(&node.path, ("t", "k"), None).unwrap().version, version);
    assert_eq!(node.query("SELECT * FROM t"), ["k|lost|7"]);
    assert_eq!(node.query("SELECT * FROM log"), ["stands>lost"], "the application's triggers fire, once");
    assert_eq!(captured(&mut node), [("k".to_owned(), Some(r#"{"k":"k","n":7,"v":"lost"}"#.to_owned()))]);
    assert_eq!(verify(&node.path, &mut |_| {}).unwrap().faults, vec![]);
    // Once more changes nothing.
    restore(&node.path, ("T", "k"), Some(version)).unwrap();
    assert_eq!(captured(&mut node), []);
}

#[test]
fn a_losing_deletion_deletes_and_a_losing_row_comes_back_after_a_deletion() {
    let mut node = row("k");
    let gone = lose(&node, "k", None);
    let restored = restore(&node.path, ("t", "k"), None).unwrap();
    assert!(restored.is_deletion);
    assert_eq!(captured(&mut node), [("k".to_owned(), None)]);
    // Nothing is there to be deleted any more.
    restore(&node.path, ("t", "k"), Some(gone)).unwrap();
    let back = lose(&node, "k", Some(r#"{"k":"k","n":null,"v":"back"}"#));
    restore(&node.path, ("t", "k"), Some(back)).unwrap();
    assert_eq!(node.query("SELECT * FROM t"), ["k|back|NULL"]);
    assert_eq!(captured(&mut node).len(), 1);
    assert_eq!(verify(&node.path, &mut |_| {}).unwrap().faults, vec![]);
}

#[test]
fn fields_that_the_table_has_no_column_for_come_back_too_and_those_of_the_standing_version_go() {
    let mut node = Node::new(1, SCHEMA, &["t"]);
    let mut remote = Remote::new(9);
    node.receive(&mut remote, "t", "k", Some(r#"{"k":"k","n":1,"other":1,"v":"stands"}"#), 1 << 50);
    lose(&node, "k", Some(r#"{"k":"k","more":[1,2],"n":2,"v":"lost"}"#));
    restore(&node.path, ("t", "k"), None).unwrap();
    let expected = r#"{"k":"k","more":[1,2],"n":2,"v":"lost"}"#;
    assert_eq!(captured(&mut node), [("k".to_owned(), Some(expected.to_owned()))]);
    assert_eq!(verify(&node.path, &mut |_| {}).unwrap().faults, vec![]);
}

#[test]
fn of_several_versions_one_must_be_named_and_it_must_be_there() {
    let node = row("k");
    let (first, second) = (lose(&node, "k", None), lose(&node, "k", Some(r#"{"k":"k","v":"x"}"#)));
    let other = lose(&node, "l", None);
    let error = restore(&node.path, ("t", "k"), None).unwrap_err();
    assert!(matches!(&error, RestoreError::Several { found, .. } if *found == [second, first]), "{error}");
    let error = restore(&node.path, ("t", "k"), Some(other)).unwrap_err();
    assert!(matches!(&error, RestoreError::NoSuchVersion { version, .. } if *version == other), "{error}");
    for (collection, key) in [("t", "nobody"), ("u", "k")] {
        let error = restore(&node.path, (collection, key), Some(first)).unwrap_err();
        assert!(matches!(error, RestoreError::NoVersion { .. }), "{error}");
    }
    assert_eq!(node.query("SELECT * FROM t"), ["k|stands|1"], "nothing has changed");
    let Restored { version, is_deletion, .. } = restore(&node.path, ("t", "k"), Some(first)).unwrap();
    assert_eq!((version, is_deletion), (first, true));
}

#[test]
fn what_the_table_does_not_take_is_refused_with_its_words_and_changes_nothing() {
    let mut node = row("k");
    node.sql("INSERT INTO t VALUES('other', 'taken', 2)");
    node.capture();
    for (content, words) in [
        (r#"{"k":"k","n":500,"v":"a"}"#, "CHECK"),
        (r#"{"k":"k","n":5,"v":"taken"}"#, "UNIQUE"),
        ("no json", ""),
    ] {
        let version = lose(&node, "k", Some(content));
        let error = restore(&node.path, ("t", "k"), Some(version)).unwrap_err();
        assert!(matches!(error, RestoreError::Refused { .. }), "{error}");
        assert!(error.to_string().contains(words), "{error}");
    }
    assert_eq!(node.query("SELECT * FROM t ORDER BY k"), ["k|stands|1", "other|taken|2"]);
    assert_eq!(captured(&mut node), []);
}

#[test]
fn a_version_whose_table_is_gone_or_whose_database_is_nobodys_is_told_apart() {
    let node = row("k");
    lose(&node, "k", None);
    node.sql("DROP TABLE t");
    let error = restore(&node.path, ("t", "k"), None).unwrap_err();
    assert!(matches!(error, RestoreError::NoTable { .. }), "{error}");
    let fresh = node.folder.path().join("fresh.db");
    rusqlite::Connection::open(&fresh).unwrap().execute_batch("CREATE TABLE t(k TEXT PRIMARY KEY)").unwrap();
    let error = restore(&fresh, ("t", "k"), None).unwrap_err();
    assert!(matches!(error, RestoreError::NeverSynced { .. }), "{error}");
    let error = restore(&node.folder.path().join("nowhere.db"), ("t", "k"), None).unwrap_err();
    assert!(matches!(error, RestoreError::Open(_)), "{error}");
}
