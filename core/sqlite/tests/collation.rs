//! A table with a collation that only its application has is refused by name, or waits; all others go on.

mod common;

use common::{Node, config};
use entgldb_sqlite::{OpenError, SqliteStore, verify};
use rusqlite::Connection;

const NOTES: &str = "CREATE TABLE notes(id INTEGER PRIMARY KEY, text TEXT);";
const TAGS: &str = "CREATE TABLE tags(tag TEXT COLLATE unicase PRIMARY KEY) WITHOUT ROWID;";
const DECKS: &str = "CREATE TABLE decks(id INTEGER PRIMARY KEY, name TEXT COLLATE unicase); CREATE UNIQUE INDEX by_name ON decks(name);";

fn with_collation(connection: &Connection) {
    connection.create_collation("unicase", |a, b| a.to_lowercase().cmp(&b.to_lowercase())).unwrap();
}

#[test]
fn a_table_with_a_collation_of_the_applications_is_refused_by_name() {
    for (schema, table) in [(TAGS, "tags"), (DECKS, "decks")] {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("app.db");
        let app = Connection::open(&path).unwrap();
        with_collation(&app);
        app.execute_batch(&format!("{NOTES} {schema}")).unwrap();
        match SqliteStore::open(config(&path, &["notes", table])) {
            Err(OpenError::UnknownCollation { table: named, collation }) => {
                assert_eq!((&*named, &*collation), (table, "unicase"));
            }
            Err(other) => panic!("{other}"),
            Ok(_) => panic!("{table} was watched"),
        }
    }
}

#[test]
fn a_table_that_gets_such_a_collation_waits_and_the_others_go_on() {
    let schema = format!("{NOTES} CREATE TABLE decks(id INTEGER PRIMARY KEY, name TEXT);");
    let (mut a, mut b) =
        (Node::new(1, &schema, &["notes", "decks"]), Node::new(2, &schema, &["notes", "decks"]));
    b.pull(&mut a, 100);
    with_collation(&a.app);
    a.sql("CREATE UNIQUE INDEX by_name ON decks(name COLLATE unicase); INSERT INTO notes VALUES(1, 'front')");
    b.pull(&mut a, 100);
    assert_eq!(b.query("SELECT text FROM notes"), ["front"]);
    let report = verify(&a.path, &mut |_| {}).unwrap();
    assert!(report.is_clean(), "{:?}", report.faults);
    a.sql("DROP INDEX by_name; INSERT INTO decks VALUES(1, 'Default')");
    b.pull(&mut a, 100);
    assert_eq!(b.query("SELECT name FROM decks"), ["Default"]);
}
