//! Tables and columns that are called otherwise on other nodes.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use entgldb::{ClusterSecret, Config, Durability, Node, inspect, verify};
use rusqlite::Connection;

/// How long anything may take before a test gives up.
const PATIENCE: Duration = Duration::from_secs(60);

struct Place(tempfile::TempDir);

impl Place {
    fn new() -> Self {
        let place = Self(tempfile::tempdir().unwrap());
        let path = place.path("secret");
        std::fs::write(&path, ClusterSecret::generate().to_text().as_bytes()).unwrap();
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        }
        place
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn database(&self, name: &str, schema: &str) -> Connection {
        let app = Connection::open(self.path(name)).unwrap();
        app.busy_timeout(Duration::from_secs(10)).unwrap();
        app.execute_batch(&format!("PRAGMA journal_mode = WAL; {schema}")).unwrap();
        app
    }

    fn open(&self, name: &str, table: &str, peers: &[&Node], merges: bool) -> Node {
        let mut config = Config::new(self.path(name), self.path("secret"));
        config.watch = vec![table.to_owned()];
        config.merge = if merges { vec![table.to_owned()] } else { Vec::new() };
        config.listen = Some("127.0.0.1:0".to_owned());
        config.durability = Durability::Normal;
        config.sync_interval_ms = 200;
        config.peers = peers.iter().map(|peer| peer.local_address().unwrap().to_string()).collect();
        Node::open(config).unwrap()
    }

    fn assert_clean(&self, names: &[&str]) {
        for name in names {
            let report = verify(&self.path(name), &mut |_| {}).unwrap();
            assert!(report.is_clean(), "{name}: {:?}", report.faults);
        }
    }
}

fn rows(app: &Connection, sql: &str) -> Vec<String> {
    let mut statement = app.prepare(sql).unwrap();
    let row = |row: &rusqlite::Row<'_>| Ok(format!("{:?} {:?}", row.get_ref(0)?, row.get_ref(1)?));
    statement.query_map([], row).unwrap().collect::<Result<_, _>>().unwrap()
}

fn wait_for(what: &str, mut done: impl FnMut() -> bool) {
    let start = Instant::now();
    while !done() {
        assert!(start.elapsed() < PATIENCE, "{what}: not within {PATIENCE:?}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn tables_whose_names_differ_in_capitals_sync_and_merge_under_one_name() {
    for merges in [false, true] {
        let place = Place::new();
        let a = place.database("a.db", "CREATE TABLE Items(id TEXT PRIMARY KEY, v TEXT, n INTEGER)");
        let b = place.database("b.db", "CREATE TABLE items(id TEXT PRIMARY KEY, v TEXT, n INTEGER)");
        a.execute("INSERT INTO Items VALUES('1', 'of a', 1)", []).unwrap();
        b.execute("INSERT INTO items VALUES('2', 'of b', 2)", []).unwrap();
        let first = place.open("a.db", "items", &[], merges);
        let second = place.open("b.db", "items", &[&first], merges);
        let sql = "SELECT id, v FROM items ORDER BY id";
        wait_for("two rows on both", || rows(&a, sql).len() == 2 && rows(&a, sql) == rows(&b, sql));
        assert_eq!(second.status().collections, ["Items"]);
        second.sync_now(PATIENCE).unwrap();
        second.close();
        a.execute("UPDATE items SET v = 'from a' WHERE id = '2'", []).unwrap();
        // In the same millisecond nobody could say which of the two is the later one.
        std::thread::sleep(Duration::from_millis(5));
        b.execute("UPDATE items SET n = 3 WHERE id = '2'", []).unwrap();
        let second = place.open("b.db", "items", &[&first], merges);
        let all = "SELECT v, n FROM items ORDER BY id";
        wait_for("equal rows", || rows(&a, all) == rows(&b, all) && rows(&b, all)[1].contains("Integer(3)"));
        if merges {
            wait_for("both edits", || {
                rows(&a, "SELECT v, n FROM items WHERE id = '2'") == rows(&b, "SELECT 'from a', 3")
            });
        }
        first.close();
        second.close();
        place.assert_clean(&["a.db", "b.db"]);
    }
}

#[test]
fn who_joins_with_renamed_columns_and_tables_gets_all_rows_and_spoils_none() {
    let place = Place::new();
    let old = "CREATE TABLE person(id TEXT PRIMARY KEY, name TEXT)";
    let (a, b) = (place.database("a.db", old), place.database("b.db", old));
    a.execute_batch("INSERT INTO person VALUES('1', 'Ann'), ('2', 'Bob')").unwrap();
    let first = place.open("a.db", "person", &[], false);
    let second = place.open("b.db", "person", &[&first], false);
    wait_for("rows on b", || rows(&b, "SELECT id, name FROM person").len() == 2);
    a.execute_batch(
        "ALTER TABLE person RENAME COLUMN name TO full_name; ALTER TABLE person RENAME TO people",
    )
    .unwrap();
    a.execute("UPDATE people SET full_name = 'Anna' WHERE id = '1'", []).unwrap();
    wait_for("an edit after the rename", || {
        rows(&b, "SELECT name, 1 FROM person ORDER BY id")[0].contains("Text([65, 110, 110, 97])")
    });
    let c = place.database("c.db", "CREATE TABLE people(id TEXT PRIMARY KEY, full_name TEXT)");
    c.execute("INSERT INTO people VALUES('3', 'Cid')", []).unwrap();
    let third = place.open("c.db", "people", &[&first], false);
    let new = "SELECT id, full_name FROM people ORDER BY id";
    wait_for("three rows everywhere", || {
        let found = rows(&c, new);
        found.len() == 3
            && found == rows(&a, new)
            && found == rows(&b, "SELECT id, name FROM person ORDER BY id")
    });
    assert_eq!(third.status().collections, ["person"]);
    let fields = inspect::Inspector::open(&place.path("a.db")).unwrap().unwrap().fields().unwrap();
    assert_eq!(fields[0].renamed_to.as_deref(), Some("people"));
    assert_eq!(fields[0].fields[1].aliases, ["full_name"]);
    for node in [first, second, third] {
        node.close();
    }
    place.assert_clean(&["a.db", "b.db", "c.db"]);
}
