//! Remote documents in the application's tables: its triggers, constraints and schema, and what a row cannot hold.

mod common;

use common::{Node, Remote, converge};
use entgldb_replica::clock::WallMillis;
use entgldb_replica::store::{ProblemKind, Store};

fn kinds(node: &Node) -> Vec<ProblemKind> {
    node.problems.iter().map(|problem| problem.kind).collect()
}

const SHOP: &str = "
    CREATE TABLE products(id INTEGER PRIMARY KEY, name TEXT, stock INTEGER, updated_at TEXT);
    CREATE TABLE lines(id TEXT PRIMARY KEY, product INTEGER, n INTEGER);
    CREATE TABLE totals(product INTEGER PRIMARY KEY, sold INTEGER);
    CREATE VIRTUAL TABLE search USING fts5(name, content='products', content_rowid='id');
    CREATE TRIGGER fts_i AFTER INSERT ON products BEGIN INSERT INTO search(rowid, name) VALUES(NEW.id, NEW.name); END;
    CREATE TRIGGER fts_d AFTER DELETE ON products BEGIN INSERT INTO search(search, rowid, name) VALUES('delete', OLD.id, OLD.name); END;
    CREATE TRIGGER fts_u AFTER UPDATE OF name ON products BEGIN
      INSERT INTO search(search, rowid, name) VALUES('delete', OLD.id, OLD.name); INSERT INTO search(rowid, name) VALUES(NEW.id, NEW.name); END;
    CREATE TRIGGER stock AFTER INSERT ON lines BEGIN
      UPDATE products SET stock = stock - NEW.n WHERE id = NEW.product;
      INSERT INTO totals VALUES(NEW.product, NEW.n) ON CONFLICT DO UPDATE SET sold = sold + NEW.n; END;
    CREATE TRIGGER touched AFTER UPDATE OF stock ON products BEGIN UPDATE products SET updated_at = hex(randomblob(4)) WHERE id = NEW.id; END;";

#[test]
fn the_applications_triggers_fire_once_where_they_count_and_its_search_index_is_right_everywhere() {
    let watch = ["products", "lines"];
    let mut nodes = [Node::new(1, SHOP, &watch), Node::new(2, SHOP, &watch), Node::new(3, SHOP, &watch)];
    nodes[0].sql("INSERT INTO products VALUES(1, 'red apple', 100, 'x'), (2, 'pear', 50, 'x')");
    converge(&mut nodes);
    nodes[0].sql("INSERT INTO lines VALUES('a', 1, 3)");
    converge(&mut nodes);
    nodes[1].sql("INSERT INTO lines VALUES('b', 1, 4); UPDATE products SET name = 'green apple' WHERE id = 1; DELETE FROM products WHERE id = 2");
    converge(&mut nodes);
    let first = nodes[0].query("SELECT * FROM products");
    for node in &mut nodes {
        assert_eq!(
            node.query("SELECT id, name, stock FROM products"),
            ["1|green apple|93"],
            "sold 3 and 4, each counted once"
        );
        assert_eq!(node.query("SELECT * FROM products"), first, "updated_at is as its author wrote it");
        assert_eq!(
            node.query("SELECT * FROM totals"),
            ["1|7"],
            "an unwatched summary follows by its triggers"
        );
        assert_eq!(node.query("SELECT rowid FROM search('green')"), ["1"]);
        assert_eq!(node.query("SELECT rowid FROM search('red OR pear')"), Vec::<String>::new());
        node.sql("INSERT INTO search(search, rank) VALUES('integrity-check', 1)");
        assert!(node.store.outbox_is_empty().unwrap());
        assert_eq!(node.problems, vec![]);
    }
    let authored: usize = nodes.iter().map(|node| node.authored).sum();
    assert_eq!(
        authored,
        2 + 2 + 3,
        "two products; a line and its stock; a line, its stock and name, and a delete"
    );
}

#[test]
fn a_trigger_that_replaces_or_deletes_other_watched_rows_is_put_back() {
    let schema = "CREATE TABLE t(id INTEGER PRIMARY KEY, u TEXT UNIQUE, v TEXT); CREATE TABLE log(id INTEGER PRIMARY KEY, what TEXT);
        CREATE TRIGGER meddle AFTER INSERT ON log BEGIN
          INSERT OR REPLACE INTO t VALUES(1, 'replaced', 'by trigger'); INSERT OR REPLACE INTO t VALUES(90, 'two', 'evicts 2');
          DELETE FROM t WHERE id = 3; UPDATE t SET id = 40 WHERE id = 4; INSERT INTO t VALUES(50, 'new', 'new'); END;";
    let mut node = Node::new(1, schema, &["t", "log"]);
    node.sql("INSERT INTO t VALUES(1, 'one', 'a'), (2, 'two', 'b'), (3, 'three', 'c'), (4, 'four', 'd')");
    node.capture();
    let before = node.query("SELECT * FROM t ORDER BY id");
    let mut remote = Remote::new(9);
    node.receive(&mut remote, "log", "1", Some(r#"{"id":1,"what":"x"}"#), 5);
    assert_eq!(node.query("SELECT * FROM t ORDER BY id"), before);
    assert_eq!(node.query("SELECT what FROM log"), ["x"]);
    assert!(node.store.outbox_is_empty().unwrap());
    assert_eq!(node.problems, vec![]);
}

#[test]
fn a_trigger_that_refuses_in_any_way_sets_only_its_document_aside() {
    for how in ["ABORT", "FAIL", "ROLLBACK"] {
        let schema = format!(
            "CREATE TABLE t(id INTEGER PRIMARY KEY, v TEXT); CREATE TABLE rules(on_ INTEGER); INSERT INTO rules VALUES(1);
             CREATE TRIGGER no AFTER INSERT ON t WHEN NEW.v = 'bad' AND EXISTS(SELECT 1 FROM rules) BEGIN SELECT RAISE({how}, 'not here'); END;"
        );
        let mut node = Node::new(1, &schema, &["t"]);
        let mut remote = Remote::new(9);
        let doc = |id: u32, v: &str| format!(r#"{{"id":{id},"v":"{v}"}}"#);
        let (one, two, three) = (doc(1, "ok"), doc(2, "bad"), doc(3, "ok"));
        node.receive_all(
            &mut remote,
            &[("t", "1", Some(&one), 5), ("t", "2", Some(&two), 6), ("t", "3", Some(&three), 7)],
        );
        assert_eq!(node.query("SELECT id FROM t ORDER BY id"), ["1", "3"], "{how}");
        assert_eq!(kinds(&node), [ProblemKind::SetAside], "{how}");
        assert!(node.problems[0].message.contains("not here"));
        assert_eq!(node.store.tend(WallMillis(0)).unwrap(), vec![], "nothing has changed");
        node.sql("DELETE FROM rules");
        let back: Vec<_> = (0..3).flat_map(|_| node.store.tend(WallMillis(0)).unwrap()).collect();
        assert_eq!(
            back.iter().map(|problem| problem.kind).collect::<Vec<_>>(),
            [ProblemKind::CameBack],
            "{how}"
        );
        assert_eq!(node.query("SELECT v FROM t ORDER BY id"), ["ok", "bad", "ok"]);
        assert_eq!(node.echo_of("t"), 0);
    }
}

#[test]
fn a_row_that_a_check_refuses_is_set_aside_reported_and_taken_when_the_schema_allows_it() {
    let loose = "CREATE TABLE t(k TEXT PRIMARY KEY, n INTEGER)";
    let strict = "CREATE TABLE t(k TEXT PRIMARY KEY, n INTEGER CHECK (n < 100) NOT NULL)";
    let (mut a, mut b) = (Node::new(1, loose, &["t"]), Node::new(2, strict, &["t"]));
    a.sql("INSERT INTO t VALUES('small', 1), ('big', 1), ('null', 1)");
    b.pull(&mut a, 100);
    a.sql("UPDATE t SET n = 500 WHERE k = 'big'; UPDATE t SET n = NULL WHERE k = 'null'; UPDATE t SET n = 2 WHERE k = 'small'");
    b.pull(&mut a, 100);
    assert_eq!(
        b.query("SELECT * FROM t ORDER BY k"),
        ["big|1", "null|1", "small|2"],
        "the last versions that it takes"
    );
    assert_eq!(kinds(&b), [ProblemKind::SetAside, ProblemKind::SetAside]);
    b.sql("UPDATE t SET n = n");
    b.capture();
    assert_eq!(b.authored, 0, "an old version left in the table is not a change");
    b.reopen();
    b.sql("BEGIN; CREATE TABLE new(k TEXT PRIMARY KEY, n INTEGER); INSERT INTO new SELECT * FROM t; DROP TABLE t; ALTER TABLE new RENAME TO t; COMMIT");
    b.problems.clear();
    b.capture();
    let mut back: Vec<_> = b.problems.iter().map(|problem| (problem.kind, problem.key.clone())).collect();
    back.sort_by(|a, b| a.1.cmp(&b.1));
    assert_eq!(back, [(ProblemKind::CameBack, "big".into()), (ProblemKind::CameBack, "null".into())]);
    assert_eq!(b.query("SELECT * FROM t ORDER BY k"), a.query("SELECT * FROM t ORDER BY k"));
    assert_eq!((b.authored, b.echo_of("t")), (0, 0));
}

#[test]
fn a_local_change_of_a_document_that_is_set_aside_wins() {
    let mut node = Node::new(1, "CREATE TABLE t(k TEXT PRIMARY KEY, n INTEGER CHECK (n < 100))", &["t"]);
    let mut remote = Remote::new(9);
    node.receive(&mut remote, "t", "x", Some(r#"{"k":"x","n":500}"#), 5);
    node.sql("INSERT INTO t VALUES('x', 7)");
    node.capture();
    assert_eq!(node.content("t", "x").unwrap(), r#"{"k":"x","n":7}"#);
    assert_eq!(node.query("SELECT count(*) FROM _entgldb_set_aside"), ["0"]);
}

#[test]
fn a_column_that_only_some_nodes_have_is_kept_and_passed_on_and_filled_when_it_is_added() {
    let plain = "CREATE TABLE t(k TEXT PRIMARY KEY, v TEXT)";
    let wide = "CREATE TABLE t(more INTEGER DEFAULT 7, k TEXT PRIMARY KEY, v TEXT)";
    let mut nodes = [Node::new(1, wide, &["t"]), Node::new(2, plain, &["t"]), Node::new(3, wide, &["t"])];
    nodes[0].sql("INSERT INTO t VALUES(42, 'x', 'from 0')");
    nodes[1].sql("INSERT INTO t VALUES('y', 'from 1')");
    converge(&mut nodes);
    nodes[1].sql("UPDATE t SET v = 'edited on 1' WHERE k = 'x'");
    converge(&mut nodes);
    assert_eq!(nodes[2].query("SELECT k, v, more FROM t ORDER BY k"), ["x|edited on 1|42", "y|from 1|7"]);
    assert_eq!(nodes[2].content("t", "y").unwrap(), r#"{"k":"y","v":"from 1"}"#);
    for node in &mut nodes {
        assert_eq!(node.echo_of("t"), 0);
    }
    nodes[1].sql("ALTER TABLE t ADD COLUMN more INTEGER DEFAULT 7");
    for _ in 0..3 {
        let _ = nodes[1].store.tend(WallMillis(0)).unwrap();
    }
    assert_eq!(nodes[1].query("SELECT k, more FROM t ORDER BY k"), ["x|42", "y|7"]);
    assert_eq!(
        nodes[1].echo_of("t"),
        1,
        "of y, whose document has no such field yet, a touch makes a fuller one"
    );
    nodes[1].sql("UPDATE t SET more = 43 WHERE k = 'x'");
    converge(&mut nodes);
    assert_eq!(nodes[0].query("SELECT more FROM t WHERE k = 'x'"), ["43"]);
}

#[test]
fn a_document_that_a_row_cannot_hold_exactly_is_captured_as_it_came() {
    let schema = "CREATE TABLE t(k TEXT PRIMARY KEY, n INTEGER, r REAL, s TEXT, d DEFAULT (abs(random())))";
    let mut node = Node::new(1, schema, &["t"]);
    let mut remote = Remote::new(9);
    let docs = [
        ("bool", r#"{"d":1,"k":"bool","n":true,"r":1.0,"s":"x"}"#),
        ("nested", r#"{"d":null,"k":"nested","n":{"a":[1,{"b":2}]},"r":1,"s":[1, 2]}"#),
        ("spaces", "{ \"s\" : \"\\u0041\", \"k\":\"spaces\" , \"n\":\"12\",\"r\":1.50 }"),
        ("unknown", r#"{"k":"unknown","n":null,"other":{"deep":[true]},"s":5,"z":1.0}"#),
        ("disagrees", r#"{"k":"another","n":1}"#),
        ("empty", "{}"),
    ];
    for (number, (key, content)) in docs.iter().enumerate() {
        node.receive(&mut remote, "t", key, Some(content), 10 + number as u64);
    }
    assert_eq!(node.problems, vec![]);
    assert_eq!(
        node.query("SELECT k, n FROM t WHERE k IN ('bool', 'nested', 'spaces', 'disagrees') ORDER BY k"),
        ["bool|1", "disagrees|1", "nested|{\"a\":[1,{\"b\":2}]}", "spaces|12"]
    );
    assert_eq!(node.echo_of("t"), 0);
    node.sql("UPDATE t SET n = 5 WHERE k IN ('bool', 'unknown')");
    node.capture();
    assert_eq!(node.content("t", "bool").unwrap(), r#"{"d":1,"k":"bool","n":5,"r":1.0,"s":"x"}"#);
    assert_eq!(
        node.content("t", "unknown").unwrap(),
        r#"{"k":"unknown","n":5,"other":{"deep":[true]},"s":5,"z":1.0}"#
    );
    let refused = [
        ("big", r#"{"k":"big","n":9223372036854775808}"#),
        ("twice", r#"{"k":"twice","k":"twice"}"#),
        ("array", "[]"),
    ];
    for (key, content) in refused {
        node.receive(&mut remote, "t", key, Some(content), 50);
    }
    assert_eq!(kinds(&node), [ProblemKind::SetAside; 3]);
}

#[test]
fn remote_changes_wait_for_local_ones() {
    use entgldb_replica::store::{Committed, Guard};
    let mut a = Node::new(1, "CREATE TABLE t(k TEXT PRIMARY KEY, v TEXT)", &["t"]);
    a.sql("INSERT INTO t VALUES('x', '1')");
    let drain = a.store.captured(&common::limits()).unwrap();
    let unit = a.unit_of(&drain);
    let guarded = |guard, before| {
        let mut commit = unit.clone();
        (commit.guard, commit.drained, commit.appended) = (guard, None, vec![]);
        for row in &mut commit.rows {
            row.apply = Some(Some(bytes::Bytes::from_static(br#"{"k":"x","v":"remote"}"#)));
            row.before = before;
        }
        commit
    };
    for guard in [Guard::OutboxEmpty, Guard::OutboxDisjoint] {
        assert_eq!(a.store.commit(&guarded(guard, None)).unwrap(), Committed::OutboxMoved);
    }
    a.capture();
    a.sql("INSERT INTO t VALUES('other', '1')");
    let doc = unit.rows[0].doc.clone();
    let known = a.store.rows(&[doc]).unwrap()[0];
    assert_eq!(a.store.commit(&guarded(Guard::OutboxEmpty, known)).unwrap(), Committed::OutboxMoved);
    assert_eq!(a.query("SELECT v FROM t WHERE k = 'x'"), ["1"]);
    assert_eq!(a.store.commit(&guarded(Guard::OutboxDisjoint, known)).unwrap(), Committed::Done(vec![]));
    assert_eq!(a.query("SELECT v FROM t WHERE k = 'x'"), ["remote"]);
    assert!(!a.store.outbox_is_empty().unwrap(), "the other change still waits");
}

#[test]
fn a_trigger_on_one_column_fires_only_when_that_column_changes() {
    let schema = "CREATE TABLE t(k TEXT PRIMARY KEY, a INTEGER, b INTEGER); CREATE TABLE seen(what TEXT);
        CREATE TRIGGER on_a AFTER UPDATE OF a ON t BEGIN INSERT INTO seen VALUES('a of ' || NEW.k); END;
        CREATE TRIGGER on_insert AFTER INSERT ON t BEGIN INSERT INTO seen VALUES('insert ' || NEW.k); END;";
    let (mut a, mut b) = (Node::new(1, schema, &["t"]), Node::new(2, schema, &["t"]));
    a.sql("INSERT INTO t VALUES('x', 1, 1)");
    b.pull(&mut a, 100);
    a.sql("UPDATE t SET b = 2");
    b.pull(&mut a, 100);
    a.sql("UPDATE t SET a = 2");
    b.pull(&mut a, 100);
    assert_eq!(b.query("SELECT what FROM seen"), a.query("SELECT what FROM seen"));
    assert_eq!(b.query("SELECT * FROM t"), ["x|2|2"]);
}

#[test]
fn a_database_in_utf16_syncs_with_one_in_utf8() {
    let schema =
        "CREATE TABLE p(a TEXT, b BLOB, v TEXT, PRIMARY KEY(a, b)); CREATE TABLE t(k TEXT PRIMARY KEY)";
    let wide = format!("PRAGMA encoding = 'UTF-16be'; {schema}");
    let (mut a, mut b) = (Node::new(1, &wide, &["p", "t"]), Node::new(2, schema, &["p", "t"]));
    a.sql(
        "INSERT INTO p VALUES('zoë 😀', x'00ff', 'wert'), ('', 1.5, ''); INSERT INTO t VALUES('schlüssel')",
    );
    b.pull(&mut a, 100);
    b.sql("UPDATE p SET v = 'zurück', b = 'ß' WHERE v = 'wert'; DELETE FROM t");
    a.pull(&mut b, 100);
    assert_eq!(a.query("SELECT * FROM p ORDER BY a"), ["|1.5|", "zoë 😀|ß|zurück"]);
    assert_eq!(a.query("SELECT * FROM t"), Vec::<String>::new());
    assert_eq!((a.echo_of("p"), b.echo_of("p"), a.problems.len(), b.problems.len()), (0, 0, 0, 0));
}
