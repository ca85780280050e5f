//! What the application writes is captured: all of it, once, with its exact values.

mod common;

use common::Node;
use entgldb_replica::store::ProblemKind;

const NOTES: &str = "CREATE TABLE notes(id TEXT PRIMARY KEY, body TEXT, n INTEGER)";

#[test]
fn a_row_travels_to_another_node_and_changes_and_deletes_follow() {
    let mut a = Node::new(1, NOTES, &["notes"]);
    let mut b = Node::new(2, NOTES, &["notes"]);
    a.sql("INSERT INTO notes VALUES('x', 'hello', 1), ('y', 'there', 2)");
    b.pull(&mut a, 100);
    assert_eq!(b.query("SELECT * FROM notes ORDER BY id"), ["x|hello|1", "y|there|2"]);
    a.sql("UPDATE notes SET body = 'changed' WHERE id = 'x'; DELETE FROM notes WHERE id = 'y'");
    b.pull(&mut a, 100);
    assert_eq!(b.query("SELECT * FROM notes"), ["x|changed|1"]);
    assert_eq!((a.authored, b.authored), (4, 0), "applying is not captured again");
    assert_eq!(b.echo_of("notes"), 0);
    assert_eq!(a.content("notes", "x").unwrap(), r#"{"body":"changed","id":"x","n":1}"#);
}

#[test]
fn a_rolled_back_transaction_emits_nothing() {
    let mut a = Node::new(1, NOTES, &["notes"]);
    a.sql("BEGIN; INSERT INTO notes VALUES('x', 'hello', 1); ROLLBACK");
    assert!(a.store.outbox_is_empty().unwrap());
    assert!(a.capture_unit().is_none());
    assert_eq!(a.problems.iter().filter(|problem| problem.kind == ProblemKind::NotCaptured).count(), 0);
}

#[test]
fn rows_that_were_there_before_the_first_start_are_all_captured() {
    let many = "CREATE TABLE notes(id TEXT PRIMARY KEY, body TEXT);
        WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c WHERE n < 5000) INSERT INTO notes SELECT 'k' || n, n FROM c";
    let mut a = Node::new(1, many, &["notes"]);
    a.capture_unit();
    a.reopen();
    assert!(a.store.is_scanning().unwrap(), "it goes on where it stopped");
    a.capture();
    assert!(!a.store.is_scanning().unwrap());
    assert_eq!(a.authored, 5000);
    let mut b = Node::new(2, NOTES, &["notes"]);
    b.sql("ALTER TABLE notes DROP COLUMN n");
    b.pull(&mut a, 1024);
    assert_eq!(b.query("SELECT count(*), sum(body) FROM notes"), ["5000|12502500.0"]);
    a.reopen();
    a.capture();
    assert_eq!(a.authored, 5000, "a second start captures nothing again");
}
