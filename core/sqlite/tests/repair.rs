//! Damaged engine tables are made sound again; the application's stay as they are.

mod common;

use common::{Node, converge};
use entgldb_sqlite::{OpenError, RepairError, repair, verify};
use rusqlite::Connection;

const SCHEMA: &str = "CREATE TABLE t(k TEXT PRIMARY KEY, v TEXT)";

/// What the application has in the schema.
const OF_APPLICATION: &str =
    "SELECT sql FROM sqlite_schema WHERE substr(tbl_name, 1, 9) <> '_entgldb_' AND type <> 'trigger'";

fn node_with_rows() -> Node {
    let mut node = Node::new(1, SCHEMA, &["t"]);
    node.sql("INSERT INTO t VALUES('a', '1'), ('b', '2')");
    node.capture();
    node
}

/// Ends the engine, does damage, repairs, and starts it again. Returns whether all was made again.
fn after(node: &mut Node, damage: &str) -> bool {
    node.close();
    node.app.execute_batch(damage).unwrap();
    let before = node.query(OF_APPLICATION);
    let rows = node.query("SELECT * FROM t ORDER BY k");
    let repaired = repair(&node.path).unwrap();
    assert_eq!(node.query(OF_APPLICATION), before, "{damage}");
    assert_eq!(node.query("SELECT * FROM t ORDER BY k"), rows, "{damage}");
    node.reopen();
    node.capture();
    assert_eq!(verify(&node.path, &mut |_| {}).unwrap().faults, vec![], "{damage}: {repaired:?}");
    repaired.from_scratch
}

#[test]
fn whatever_table_is_gone_or_altered_the_database_syncs_again() {
    let whole = [
        "DROP TABLE _entgldb_authors",
        "DROP TABLE _entgldb_meta",
        "DROP TABLE _entgldb_rows",
        "DROP TABLE _entgldb_logs; DROP TABLE _entgldb_oplog; DROP TABLE _entgldb_signed",
        "ALTER TABLE _entgldb_rows ADD COLUMN more",
        "ALTER TABLE _entgldb_meta RENAME COLUMN value TO content",
        "DELETE FROM _entgldb_authors",
        "DELETE FROM _entgldb_meta",
        "UPDATE _entgldb_meta SET value = 'x' WHERE name = 'format'",
        "DELETE FROM _entgldb_collections",
        "DELETE FROM _entgldb_oplog",
        "UPDATE _entgldb_oplog SET payload = '{}'",
        "UPDATE _entgldb_collections SET fingerprint = zeroblob(32)",
        "DROP TABLE _entgldb_rows; CREATE VIEW _entgldb_rows AS SELECT 1",
    ];
    let parts = [
        "DROP TABLE _entgldb_outbox",
        "DROP TABLE _entgldb_conflicts; DROP TABLE _entgldb_problems",
        "ALTER TABLE _entgldb_outbox ADD COLUMN more",
        "DROP TRIGGER _entgldb_update_1; UPDATE t SET v = 'not noted'",
        "DROP INDEX _entgldb_set_aside_blocker",
        "SELECT 1",
    ];
    for (damages, from_scratch) in [(&whole[..], true), (&parts[..], false)] {
        for damage in damages {
            assert_eq!(after(&mut node_with_rows(), damage), from_scratch, "{damage}");
        }
    }
}

#[test]
fn a_write_whose_note_was_lost_with_its_table_is_found() {
    let mut node = node_with_rows();
    node.sql("UPDATE t SET v = 'noted' WHERE k = 'a'");
    let authored = node.authored;
    after(&mut node, "DROP TABLE _entgldb_outbox");
    assert_eq!(node.authored, authored + 1);
    assert_eq!(node.content("t", "a").unwrap(), r#"{"k":"a","v":"noted"}"#);
}

#[test]
fn a_write_that_was_noted_before_all_was_made_again_keeps_its_note() {
    let mut node = node_with_rows();
    node.close();
    node.sql("UPDATE t SET v = 'noted' WHERE k = 'a'");
    let note = node.query("SELECT tbl, key, at, found FROM _entgldb_outbox");
    assert_eq!(note.len(), 1);
    node.sql("DROP TABLE _entgldb_authors; DROP TABLE _entgldb_collections");
    assert!(repair(&node.path).unwrap().from_scratch);
    assert_eq!(node.query("SELECT tbl, key, at, found FROM _entgldb_outbox"), note);
    assert_eq!(node.query("SELECT no, name FROM _entgldb_collections"), ["1|t"]);
    node.reopen();
    node.capture();
    assert_eq!(verify(&node.path, &mut |_| {}).unwrap().faults, vec![]);
}

#[test]
fn a_node_that_was_made_again_takes_from_its_peer_what_it_lacks() {
    let (mut node, mut peer) = (node_with_rows(), Node::new(2, SCHEMA, &["t"]));
    peer.sql("INSERT INTO t VALUES('c', '3')");
    peer.capture();
    let mut nodes = [node, peer];
    converge(&mut nodes);
    let [a, peer] = nodes;
    node = a;
    assert!(after(&mut node, "DELETE FROM t WHERE k = 'c'; DROP TABLE _entgldb_authors"));
    let mut nodes = [node, peer];
    converge(&mut nodes);
    let rows = |at: usize| nodes[at].query("SELECT * FROM t ORDER BY k");
    assert_eq!((rows(0), rows(1)), (rows(1), vec!["a|1".to_owned(), "b|2".to_owned(), "c|3".to_owned()]));
}

#[test]
fn what_needs_no_repair_or_can_not_have_it_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("app.db");
    assert!(matches!(repair(&path), Err(RepairError::Open(OpenError::NoSuchFile { .. }))));
    let app = Connection::open(&path).unwrap();
    app.execute_batch("CREATE TABLE t(k TEXT PRIMARY KEY)").unwrap();
    assert!(matches!(repair(&path), Err(RepairError::NeverSynced { .. })));
    app.execute_batch("CREATE TABLE _entgldb_documents(x)").unwrap();
    assert!(matches!(repair(&path), Err(RepairError::OwnFile { .. })));
    let mut node = node_with_rows();
    node.close();
    node.sql("UPDATE _entgldb_meta SET value = 99 WHERE name = 'format'");
    assert!(matches!(repair(&node.path), Err(RepairError::Open(OpenError::NewerFormat { .. }))));
}
