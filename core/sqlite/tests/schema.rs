//! Schemas that change while nodes with the old one and the new one live side by side.

mod common;

use common::Node;
use entgldb_replica::id::Collection;
use entgldb_replica::store::{Committed, Drain, Store};
use entgldb_sqlite::verify;

const OLD: &str = "CREATE TABLE person(id TEXT PRIMARY KEY, name TEXT, age INTEGER)";
const NEW: &str = "CREATE TABLE person(id TEXT PRIMARY KEY, full_name TEXT, age INTEGER)";
const PEOPLE: &str = "INSERT INTO person VALUES('1', 'Ann', 30), ('2', 'Bob', 40), ('3', '', NULL)";

/// Publishes what a node has to say of its tables, as the replica does from time to time.
fn publish(node: &mut Node) {
    let changes: Vec<_> = node
        .store
        .about(&node.id())
        .unwrap()
        .into_iter()
        .map(|(key, content)| entgldb_replica::store::Change {
            doc: (entgldb_replica::member::members().clone(), key),
            content: Some(content),
            written: common::WALL,
        })
        .collect();
    if changes.is_empty() {
        return;
    }
    let mut commit = node.unit_of(&Drain { changes: changes.clone(), ..Drain::default() });
    for (row, change) in commit.rows.iter_mut().zip(changes) {
        row.apply = Some(change.content);
    }
    assert_eq!(node.store.commit(&commit).unwrap(), Committed::Done(vec![]));
    node.follow(&commit);
}

/// Nodes tell each other everything.
fn sync(nodes: &mut [&mut Node]) {
    for _ in 0..3 {
        for node in nodes.iter_mut() {
            node.capture();
            publish(node);
        }
        for to in 0..nodes.len() {
            for from in 0..nodes.len() {
                if to != from {
                    let (low, high) = nodes.split_at_mut(to.max(from));
                    let (one, other) = (&mut low[to.min(from)], &mut high[0]);
                    if to < from { one.pull(other, 50) } else { other.pull(one, 50) }
                }
            }
        }
        for node in nodes.iter_mut() {
            node.tend();
        }
    }
}

fn assert_clean(nodes: &mut [&mut Node]) {
    for node in nodes {
        let report = verify(&node.path, &mut |_| {}).unwrap();
        assert!(report.faults.is_empty(), "{:?}", report.faults);
    }
}

fn select(node: &Node, sql: &str) -> Vec<String> {
    node.query(sql)
}

#[test]
fn a_column_renamed_on_one_node_after_the_other_keeps_its_values_everywhere_and_authors_nothing() {
    let mut a = Node::new(1, OLD, &["person"]);
    let mut b = Node::new(2, OLD, &["person"]);
    a.sql(PEOPLE);
    sync(&mut [&mut a, &mut b]);
    a.sql("ALTER TABLE person RENAME COLUMN name TO full_name");
    sync(&mut [&mut a, &mut b]);
    let authored = (a.authored, b.authored);
    b.sql("UPDATE person SET name = 'Bert' WHERE id = '2'");
    a.sql("UPDATE person SET full_name = 'Anna' WHERE id = '1'");
    sync(&mut [&mut a, &mut b]);
    assert_eq!((a.authored, b.authored), (authored.0 + 1, authored.1 + 1));
    let people = ["1|Anna|30", "2|Bert|40", "3||NULL"];
    assert_eq!(select(&a, "SELECT id, full_name, age FROM person ORDER BY id"), people);
    assert_eq!(select(&b, "SELECT id, name, age FROM person ORDER BY id"), people);

    b.sql("ALTER TABLE person RENAME COLUMN name TO full_name");
    let mut c = Node::new(3, NEW, &["person"]);
    sync(&mut [&mut a, &mut b, &mut c]);
    for node in [&a, &b, &c] {
        assert_eq!(select(node, "SELECT id, full_name, age FROM person ORDER BY id"), people);
    }
    c.sql("UPDATE person SET age = age + 1 WHERE id = '1'");
    sync(&mut [&mut a, &mut b, &mut c]);
    for node in [&a, &b, &c] {
        assert_eq!(select(node, "SELECT full_name, age FROM person WHERE id = '1'"), ["Anna|31"]);
    }
    assert_eq!((a.echo_of("person"), b.echo_of("person"), c.echo_of("person")), (0, 0, 0));
    assert_clean(&mut [&mut a, &mut b, &mut c]);
}

#[test]
fn a_rename_is_found_when_the_engine_was_off_when_several_come_at_once_and_when_entries_are_forgotten() {
    let schema = "CREATE TABLE t(id INTEGER PRIMARY KEY, a TEXT, b TEXT, c INTEGER, d TEXT)";
    for forgotten in [false, true] {
        let mut node = Node::new(1, schema, &["t"]);
        node.sql("INSERT INTO t VALUES(1, 'x', 'y', 3, 'd'), (2, 'x2', 'y2', 4, 'd2')");
        node.capture();
        if forgotten {
            node.forget();
        }
        // A swap of two names, one new name, and all of it in one go by building the table again.
        node.sql(
            "BEGIN; CREATE TABLE n(id INTEGER PRIMARY KEY, b2 TEXT, a2 TEXT, number INTEGER, d TEXT);
             INSERT INTO n SELECT id, b, a, c, d FROM t; DROP TABLE t; ALTER TABLE n RENAME TO t; COMMIT",
        );
        node.reopen();
        let authored = node.authored;
        node.capture();
        assert_eq!(node.authored, authored, "forgotten: {forgotten}");
        node.sql("UPDATE t SET number = 5 WHERE id = 1");
        node.capture();
        assert_eq!(node.content("t", "1").unwrap(), r#"{"a":"x","b":"y","c":5,"d":"d","id":1}"#);
        assert_clean(&mut [&mut node]);
    }
}

#[test]
fn a_rename_is_found_though_the_application_writes_on_before_anybody_has_looked() {
    let mut a = Node::new(1, OLD, &["person"]);
    let mut b = Node::new(2, OLD, &["person"]);
    a.sql(PEOPLE);
    a.sql("INSERT INTO person VALUES('4', 'Dan', 50)");
    sync(&mut [&mut a, &mut b]);
    a.sql(&format!(
        "BEGIN; {}; INSERT INTO new SELECT * FROM person; DROP TABLE person; ALTER TABLE new RENAME TO person; COMMIT",
        NEW.replace("TABLE person", "TABLE new")
    ));
    a.sql("UPDATE person SET full_name = 'Anna' WHERE id = '1'");
    let authored = (a.authored, b.authored);
    sync(&mut [&mut a, &mut b]);
    assert_eq!(select(&b, "SELECT name FROM person ORDER BY id"), ["Anna", "Bob", "", "Dan"]);
    assert_eq!(a.content("person", "1").unwrap(), r#"{"age":30,"id":"1","name":"Anna"}"#);
    assert_eq!((a.authored, b.authored), (authored.0 + 1, authored.1));
    assert_clean(&mut [&mut a, &mut b]);
}

#[test]
fn a_column_dropped_and_one_added_at_once_hold_up_no_page_and_take_no_value() {
    let migrate = "ALTER TABLE person DROP COLUMN name; ALTER TABLE person ADD COLUMN color TEXT NOT NULL DEFAULT 'none'";
    let mut a = Node::new(1, OLD, &["person"]);
    let mut b = Node::new(2, OLD, &["person"]);
    a.sql(PEOPLE);
    sync(&mut [&mut a, &mut b]);
    a.sql(migrate);
    a.sql("UPDATE person SET color = 'red', age = 29 WHERE id = '1'");
    sync(&mut [&mut a, &mut b]);
    // What the new program wrote came before the migration, and more of it comes after.
    b.sql(migrate);
    a.sql("UPDATE person SET age = 31 WHERE id = '1'; UPDATE person SET color = 'blue' WHERE id = '2'");
    sync(&mut [&mut a, &mut b]);
    for node in [&a, &b] {
        assert_eq!(
            select(node, "SELECT age, color FROM person ORDER BY id"),
            ["31|red", "40|blue", "NULL|none"]
        );
    }
    assert_clean(&mut [&mut a, &mut b]);
}

#[test]
fn a_renamed_key_column_is_the_same_field() {
    for key in ["id TEXT PRIMARY KEY", "id BLOB PRIMARY KEY"] {
        let mut node = Node::new(1, &format!("CREATE TABLE t({key}, v TEXT) WITHOUT ROWID"), &["t"]);
        node.sql("INSERT INTO t VALUES('k', 'v')");
        node.capture();
        node.sql("ALTER TABLE t RENAME COLUMN id TO uuid");
        node.capture();
        node.sql("UPDATE t SET v = 'w'");
        node.capture();
        let document = if key.contains("TEXT PR") { "k" } else { r#"["k"]"# };
        assert_eq!(node.content("t", document).unwrap(), r#"{"id":"k","v":"w"}"#);
        assert_clean(&mut [&mut node]);
    }
}

#[test]
fn where_no_row_proves_a_rename_a_person_is_asked_and_can_say_so() {
    let schema = "CREATE TABLE person(id TEXT PRIMARY KEY, age INTEGER, name TEXT)";
    let mut a = Node::new(1, schema, &["person"]);
    let mut b = Node::new(2, schema, &["person"]);
    a.sql("INSERT INTO person VALUES('1', 30, NULL)");
    sync(&mut [&mut a, &mut b]);
    a.sql("ALTER TABLE person RENAME COLUMN name TO full_name");
    a.capture();
    let problem = || select(&a, "SELECT place, message FROM _entgldb_table_problems");
    assert_eq!(problem().len(), 1);
    assert!(problem()[0].contains("entgldb schema DB --alias person.name=full_name"), "{:?}", problem());
    entgldb_sqlite::register_alias(&a.path, "person", "name", "full_name").unwrap();
    b.sql("UPDATE person SET name = 'Ann'");
    sync(&mut [&mut a, &mut b]);
    assert_eq!(select(&a, "SELECT full_name FROM person"), ["Ann"]);
    assert_eq!(select(&a, "SELECT count(*) FROM _entgldb_table_problems"), ["0"]);
    assert_clean(&mut [&mut a, &mut b]);
}

#[test]
fn the_same_place_in_the_table_proves_nothing() {
    let mut node = Node::new(1, OLD, &["person"]);
    node.sql(PEOPLE);
    node.capture();
    node.sql("ALTER TABLE person DROP COLUMN age; ALTER TABLE person ADD COLUMN shoe_size INTEGER");
    node.capture();
    node.sql("UPDATE person SET shoe_size = 44 WHERE id = '1'");
    node.capture();
    assert_eq!(node.content("person", "1").unwrap(), r#"{"age":30,"id":"1","name":"Ann","shoe_size":44}"#);
}

#[test]
fn a_column_renamed_before_another_one_needs_no_row_for_proof() {
    let mut node = Node::new(1, OLD, &["person"]);
    node.capture();
    node.sql("ALTER TABLE person RENAME COLUMN name TO full_name; INSERT INTO person VALUES('1', 'Ann', 3)");
    node.capture();
    assert_eq!(node.content("person", "1").unwrap(), r#"{"age":3,"id":"1","name":"Ann"}"#);
    assert!(node.problems.is_empty(), "{:?}", node.problems);
    // Behind the last one it may as well be another column.
    node.sql("DELETE FROM person");
    node.capture();
    node.sql("ALTER TABLE person RENAME COLUMN age TO years");
    node.capture();
    let problems = node.query("SELECT message FROM _entgldb_table_problems");
    assert!(problems[0].contains("--alias person.age=years"), "{problems:?}");
}

#[test]
fn two_nodes_that_rename_differently_both_keep_their_own_column() {
    let mut a = Node::new(1, OLD, &["person"]);
    let mut b = Node::new(2, OLD, &["person"]);
    a.sql(PEOPLE);
    sync(&mut [&mut a, &mut b]);
    a.sql("ALTER TABLE person RENAME COLUMN name TO full_name");
    b.sql("ALTER TABLE person RENAME COLUMN name TO whole_name");
    sync(&mut [&mut a, &mut b]);
    a.sql("UPDATE person SET full_name = 'Anna' WHERE id = '1'");
    b.sql("UPDATE person SET whole_name = 'Bert' WHERE id = '2'");
    sync(&mut [&mut a, &mut b]);
    let mut c = Node::new(3, NEW, &["person"]);
    sync(&mut [&mut a, &mut b, &mut c]);
    for (node, column) in [(&a, "full_name"), (&b, "whole_name"), (&c, "full_name")] {
        let names = select(node, &format!("SELECT {column} FROM person ORDER BY id"));
        assert_eq!(names, ["Anna", "Bert", ""]);
    }
    assert_clean(&mut [&mut a, &mut b, &mut c]);
}

#[test]
fn what_was_written_offline_under_the_new_name_is_read_under_the_old_one() {
    let mut a = Node::new(1, OLD, &["person"]);
    a.sql(PEOPLE);
    a.capture();
    a.sql("ALTER TABLE person RENAME COLUMN name TO full_name");
    a.capture();
    let mut b = Node::new(2, OLD, &["person"]);
    // It never heard of the old name.
    let mut c = Node::new(3, NEW, &["person"]);
    c.sql("INSERT INTO person VALUES('9', 'Zoe', 9)");
    c.capture();
    sync(&mut [&mut a, &mut b, &mut c]);
    assert_eq!(select(&b, "SELECT name FROM person ORDER BY id"), ["Ann", "Bob", "", "Zoe"]);
    assert_eq!(select(&c, "SELECT full_name FROM person ORDER BY id"), ["Ann", "Bob", "", "Zoe"]);
    let authored = (a.authored, b.authored, c.authored);
    b.sql("UPDATE person SET name = 'Zora' WHERE id = '9'");
    sync(&mut [&mut a, &mut b, &mut c]);
    for (node, column) in [(&a, "full_name"), (&b, "name"), (&c, "full_name")] {
        assert_eq!(select(node, &format!("SELECT {column} FROM person WHERE id = '9'")), ["Zora"]);
    }
    assert_eq!((a.authored, b.authored, c.authored), (authored.0, authored.1 + 1, authored.2));
    assert_clean(&mut [&mut a, &mut b, &mut c]);
}

#[test]
fn documents_of_the_old_schema_get_the_value_that_the_migration_filled_in() {
    let old = "CREATE TABLE t(id INTEGER PRIMARY KEY, v TEXT)";
    let new = "CREATE TABLE n(id INTEGER PRIMARY KEY, v TEXT, color TEXT NOT NULL)";
    let migrate = format!(
        "BEGIN; {new}; INSERT INTO n SELECT id, v, 'none' FROM t; DROP TABLE t; ALTER TABLE n RENAME TO t; COMMIT"
    );
    let mut a = Node::new(1, old, &["t"]);
    let mut b = Node::new(2, old, &["t"]);
    a.sql("INSERT INTO t VALUES(1, 'one'), (2, 'two')");
    sync(&mut [&mut a, &mut b]);
    a.sql(&migrate);
    sync(&mut [&mut a, &mut b]);
    a.sql("UPDATE t SET color = 'red' WHERE id = 1");
    sync(&mut [&mut a, &mut b]);
    b.sql("UPDATE t SET v = 'eins' WHERE id = 1; UPDATE t SET v = 'zwei' WHERE id = 2; INSERT INTO t VALUES(3, 'drei')");
    sync(&mut [&mut a, &mut b]);
    let rows = ["1|eins|red", "2|zwei|none", "3|drei|none"];
    assert_eq!(select(&a, "SELECT id, v, color FROM t ORDER BY id"), rows);
    assert!(a.problems.is_empty(), "{:?}", a.problems);
    b.sql(&migrate);
    sync(&mut [&mut a, &mut b]);
    assert_eq!(select(&b, "SELECT id, v, color FROM t ORDER BY id"), rows);
    // A node that joins with the new schema has no rows to see the fill in: it is told.
    let mut c = Node::new(3, &new.replace("TABLE n", "TABLE t"), &["t"]);
    sync(&mut [&mut a, &mut b, &mut c]);
    assert_eq!(select(&c, "SELECT id, v, color FROM t ORDER BY id"), rows);
    assert_clean(&mut [&mut a, &mut b, &mut c]);
}

#[test]
fn a_dropped_column_keeps_its_values_in_what_is_passed_on() {
    let mut a = Node::new(1, OLD, &["person"]);
    let mut b = Node::new(2, OLD, &["person"]);
    a.sql(PEOPLE);
    sync(&mut [&mut a, &mut b]);
    a.sql("ALTER TABLE person DROP COLUMN name");
    sync(&mut [&mut a, &mut b]);
    let authored = a.authored;
    a.sql("UPDATE person SET age = 31 WHERE id = '1'");
    sync(&mut [&mut a, &mut b]);
    assert_eq!(a.authored, authored + 1);
    assert_eq!(select(&b, "SELECT name, age FROM person ORDER BY id"), ["Ann|31", "Bob|40", "|NULL"]);
    // They outlive the entries, of rows that were touched since and of those that were not.
    a.forget();
    a.sql("UPDATE person SET age = age + 1 WHERE age IS NOT NULL");
    sync(&mut [&mut a, &mut b]);
    assert_eq!(select(&b, "SELECT name, age FROM person ORDER BY id"), ["Ann|32", "Bob|41", "|NULL"]);
    let mut c = Node::new(3, OLD, &["person"]);
    c.join(&mut a, "person");
    assert_eq!(select(&c, "SELECT name, age FROM person ORDER BY id"), ["Ann|32", "Bob|41", "|NULL"]);
    // Added again with the same type it is the same field, and has its values again.
    a.sql("ALTER TABLE person ADD COLUMN name TEXT");
    sync(&mut [&mut a, &mut b]);
    assert_eq!(select(&a, "SELECT name FROM person ORDER BY id"), ["Ann", "Bob", ""]);
    assert_clean(&mut [&mut a, &mut b, &mut c]);
}

#[test]
fn a_column_dropped_and_added_again_with_another_type_is_another_field() {
    let schema = "CREATE TABLE t(id INTEGER PRIMARY KEY, price INTEGER)";
    let mut a = Node::new(1, schema, &["t"]);
    let mut b = Node::new(2, schema, &["t"]);
    a.sql("INSERT INTO t VALUES(1, 100), (2, 200)");
    sync(&mut [&mut a, &mut b]);
    a.sql("ALTER TABLE t DROP COLUMN price; ALTER TABLE t ADD COLUMN price TEXT");
    a.capture();
    a.sql("UPDATE t SET price = 'one euro' WHERE id = 1");
    sync(&mut [&mut a, &mut b]);
    assert_eq!(a.content("t", "1").unwrap(), r#"{"id":1,"price":100,"price#text":"one euro"}"#);
    assert_eq!(select(&a, "SELECT id, price FROM t ORDER BY id"), ["1|one euro", "2|NULL"]);
    assert_eq!(select(&b, "SELECT id, price FROM t ORDER BY id"), ["1|100", "2|200"]);
    b.sql("ALTER TABLE t DROP COLUMN price; ALTER TABLE t ADD COLUMN price TEXT");
    sync(&mut [&mut a, &mut b]);
    assert_eq!(select(&b, "SELECT id, price FROM t ORDER BY id"), ["1|one euro", "2|NULL"]);
    assert!(a.problems.is_empty() && b.problems.is_empty(), "{:?} {:?}", a.problems, b.problems);
    assert_clean(&mut [&mut a, &mut b]);
}

#[test]
fn a_changed_type_is_the_same_field_as_long_as_the_values_are_the_same_ones() {
    let schema = "CREATE TABLE t(id INTEGER PRIMARY KEY, pages INTEGER)";
    let migrate = "BEGIN; CREATE TABLE n(id INTEGER PRIMARY KEY, pages VARCHAR(10) NOT NULL); INSERT INTO n SELECT * FROM t;
                   DROP TABLE t; ALTER TABLE n RENAME TO t; COMMIT";
    let mut a = Node::new(1, schema, &["t"]);
    let mut b = Node::new(2, schema, &["t"]);
    a.sql("INSERT INTO t VALUES(1, 100), (2, 200)");
    sync(&mut [&mut a, &mut b]);
    a.sql(migrate);
    sync(&mut [&mut a, &mut b]);
    a.sql("UPDATE t SET pages = '101' WHERE id = 1");
    b.sql("UPDATE t SET pages = 201 WHERE id = 2");
    sync(&mut [&mut a, &mut b]);
    assert_eq!(select(&a, "SELECT id, pages FROM t ORDER BY id"), ["1|101", "2|201"]);
    assert_eq!(select(&b, "SELECT id, pages FROM t ORDER BY id"), ["1|101", "2|201"]);
    b.sql(migrate);
    sync(&mut [&mut a, &mut b]);
    assert_eq!(
        select(&b, "SELECT id, pages, typeof(pages) FROM t ORDER BY id"),
        ["1|101|text", "2|201|text"]
    );
    assert_clean(&mut [&mut a, &mut b]);
}

#[test]
fn columns_that_differ_in_capitals_only_are_one() {
    let mut a = Node::new(1, "CREATE TABLE t(id TEXT PRIMARY KEY, Name TEXT)", &["t"]);
    let mut b = Node::new(2, "CREATE TABLE t(id TEXT PRIMARY KEY, name TEXT)", &["t"]);
    a.sql("INSERT INTO t VALUES('1', 'x')");
    b.sql("INSERT INTO t VALUES('2', 'y')");
    sync(&mut [&mut a, &mut b]);
    for node in [&a, &b] {
        assert_eq!(select(node, "SELECT id, name FROM t ORDER BY id"), ["1|x", "2|y"]);
    }
    a.sql("UPDATE t SET name = 'yy' WHERE id = '2'");
    b.sql("UPDATE t SET name = 'xx' WHERE id = '1'");
    b.sql("ALTER TABLE t RENAME COLUMN name TO NAME");
    sync(&mut [&mut a, &mut b]);
    for node in [&a, &b] {
        assert_eq!(select(node, "SELECT id, name FROM t ORDER BY id"), ["1|xx", "2|yy"]);
    }
    assert_eq!((a.echo_of("t"), b.echo_of("t")), (0, 0));
    assert_clean(&mut [&mut a, &mut b]);
}

#[test]
fn a_renamed_table_is_synced_on_under_its_former_name() {
    let mut a = Node::new(1, OLD, &["person"]);
    let mut b = Node::new(2, OLD, &["person"]);
    a.sql(PEOPLE);
    sync(&mut [&mut a, &mut b]);
    a.sql("ALTER TABLE person RENAME TO people");
    sync(&mut [&mut a, &mut b]);
    a.sql("UPDATE people SET age = 31 WHERE id = '1'");
    b.sql("UPDATE person SET age = 41 WHERE id = '2'");
    sync(&mut [&mut a, &mut b]);
    assert_eq!(select(&a, "SELECT age FROM people ORDER BY id"), ["31", "41", "NULL"]);
    assert_eq!(select(&b, "SELECT age FROM person ORDER BY id"), ["31", "41", "NULL"]);
    assert_eq!(
        select(&a, "SELECT count(*) FROM _entgldb_table_problems WHERE message LIKE '%people%'"),
        ["1"]
    );
    // Whichever of its names the node is started with.
    for name in ["people", "person"] {
        a.watch = vec![name.to_owned()];
        a.reopen();
        assert_eq!(a.store.collections(), [Collection::new("person").unwrap()]);
    }
    assert_clean(&mut [&mut a, &mut b]);
    // A table of the former name is it again, as when a migration moves the old one out of the way.
    a.sql("CREATE TABLE person(id TEXT PRIMARY KEY, name TEXT, age INTEGER); INSERT INTO person SELECT * FROM people; DROP TABLE people");
    sync(&mut [&mut a, &mut b]);
    a.sql("UPDATE person SET age = 32 WHERE id = '1'");
    sync(&mut [&mut a, &mut b]);
    assert_eq!(select(&b, "SELECT age FROM person WHERE id = '1'"), ["32"]);
    assert_eq!(select(&a, "SELECT count(*) FROM _entgldb_table_problems"), ["0"]);
    assert_clean(&mut [&mut a, &mut b]);
}

#[test]
fn a_column_that_is_renamed_there_and_back_is_as_it_was() {
    let mut node = Node::new(1, OLD, &["person"]);
    node.sql(PEOPLE);
    node.capture();
    for (from, to) in [("name", "full_name"), ("full_name", "title"), ("title", "name")] {
        node.sql(&format!("ALTER TABLE person RENAME COLUMN {from} TO {to}"));
        node.capture();
        node.sql("UPDATE person SET age = age + 1 WHERE id = '1'");
        node.capture();
        assert!(node.content("person", "1").unwrap().contains(r#""name":"Ann""#));
    }
    assert_clean(&mut [&mut node]);
}
