//! How watched tables stand: what is looked through, what is not there any more.

mod common;

use common::Node;
use entgldb_sqlite::LookedThrough;
use entgldb_sqlite::inspect::Inspector;

fn listed(node: &Node) -> Vec<String> {
    let mut inspector = Inspector::open(&node.path).unwrap().unwrap();
    inspector.problems(10).unwrap().into_iter().map(|problem| problem.message).collect()
}

fn trouble(node: &mut Node) -> Vec<Option<String>> {
    node.store.table_health().unwrap().into_iter().map(|table| table.trouble).collect()
}

#[test]
fn looking_through_a_table_counts_its_rows_until_all_are_captured() {
    let rows = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 3000)
         INSERT INTO t SELECT 'k' || i, i FROM n";
    let sql = format!("CREATE TABLE t(k TEXT PRIMARY KEY, v); {rows}; CREATE TABLE u(k TEXT PRIMARY KEY)");
    let mut node = Node::new(1, &sql, &["t", "u"]);
    let mut seen = Vec::new();
    loop {
        let health = node.store.table_health().unwrap();
        assert_eq!(health[0].collection.as_str(), "t");
        let Some(looking) = health[0].looking else { break };
        seen.push(looking);
        node.capture_unit();
    }
    assert_eq!(seen.first(), Some(&LookedThrough { done: 0, of: 3000 }));
    assert_eq!(seen.last(), Some(&LookedThrough { done: 3000, of: 3000 }));
    assert!(seen.len() > 3 && seen.is_sorted_by_key(|looking| looking.done), "{seen:?}");
    assert_eq!(node.query("SELECT count(*) FROM _entgldb_rows"), ["3000"]);
}

#[test]
fn looking_through_goes_on_counting_where_it_was_when_the_store_is_opened_again() {
    let rows = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 3000)
         INSERT INTO t SELECT i, 'a', i FROM n";
    let sql = format!("CREATE TABLE t(a INTEGER, b TEXT, v, PRIMARY KEY(a, b)) WITHOUT ROWID; {rows}");
    let mut node = Node::new(1, &sql, &["t"]);
    node.store.table_health().unwrap();
    node.capture_unit();
    let done = node.store.table_health().unwrap()[0].looking.unwrap().done;
    assert!(done > 0 && done < 3000, "{done}");
    node.reopen();
    let looking = node.store.table_health().unwrap()[0].looking;
    assert_eq!(looking, Some(LookedThrough { done: 0, of: 3000 - done }));
}

#[test]
fn a_table_that_is_dropped_is_a_problem_at_once_until_it_is_back_and_one_that_is_renamed_is_told() {
    let mut node =
        Node::new(1, "CREATE TABLE t(k TEXT PRIMARY KEY); CREATE TABLE u(k TEXT PRIMARY KEY)", &["t", "u"]);
    node.sql("INSERT INTO t VALUES ('a'); INSERT INTO u VALUES ('a')");
    node.capture();
    assert_eq!((trouble(&mut node), node.store.problem_count().unwrap()), (vec![None, None], 0));
    node.sql("DROP TABLE t; ALTER TABLE u RENAME TO w");
    let found = trouble(&mut node);
    assert!(found[0].as_ref().unwrap().contains("was dropped"), "{found:?}");
    assert_eq!(found[1], None, "it is synced on under its former name");
    assert_eq!(node.store.problem_count().unwrap(), 2);
    assert_eq!(listed(&node).len(), 2);
    node.sql("CREATE TABLE other(k)");
    assert_eq!(trouble(&mut node), found, "another change of the schema changes nothing of it");
    node.sql("CREATE TABLE t(k TEXT PRIMARY KEY); INSERT INTO t VALUES ('a'); ALTER TABLE w RENAME TO u");
    assert_eq!((trouble(&mut node), node.store.problem_count().unwrap()), (vec![None, None], 0));
    assert!(listed(&node).is_empty());
}

#[test]
fn problems_are_counted_as_long_as_they_are_there() {
    let mut node = Node::new(1, "CREATE TABLE t(k TEXT PRIMARY KEY, v)", &["t"]);
    node.sql("INSERT INTO t VALUES (NULL, 1)");
    node.sql("INSERT INTO t VALUES (NULL, 2), (printf('%.*c', 2000, 'x'), 3), ('', 4)");
    node.capture();
    assert_eq!(node.store.problem_count().unwrap(), 3, "{:?}", listed(&node));
    node.sql("DELETE FROM t WHERE v = 1");
    node.capture();
    assert_eq!(node.store.problem_count().unwrap(), 3, "there is another row without a key");
    node.sql("DELETE FROM t");
    node.capture();
    assert!(listed(&node).is_empty(), "{:?}", listed(&node));
}
