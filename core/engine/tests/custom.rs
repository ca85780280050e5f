//! Tables that the application's own function decides on, and versions that are brought back, through whole nodes.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use entgldb::{ClusterSecret, Config, Durability, Event, Node, Resolver, RestoreError};
use rusqlite::Connection;
use serde_json::Value;
use tempfile::TempDir;

const PATIENCE: Duration = Duration::from_secs(30);

struct Place(TempDir);

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

    fn database(&self, name: &str) -> Connection {
        let app = Connection::open(self.path(name)).unwrap();
        app.busy_timeout(Duration::from_secs(10)).unwrap();
        app.execute_batch(
            "PRAGMA journal_mode = WAL;
             CREATE TABLE stock(id INTEGER PRIMARY KEY, name TEXT NOT NULL, sold INTEGER NOT NULL, price REAL NOT NULL)",
        )
        .unwrap();
        app
    }

    fn node(&self, name: &str, peer: Option<&Node>, resolver: &Resolver) -> Node {
        let mut config = Config::new(self.path(name), self.path("secret"));
        config.watch = vec!["stock".to_owned()];
        config.custom = BTreeMap::from([("stock".to_owned(), resolver.clone())]);
        config.listen = Some("127.0.0.1:0".to_owned());
        config.durability = Durability::Normal;
        config.sync_interval_ms = 200;
        config.peers.extend(peer.map(|peer| peer.local_address().unwrap().to_string()));
        Node::open(config).unwrap()
    }

    /// Two databases with the same row, changed on both while their nodes were apart, and nodes that have met since.
    fn parted(&self, resolver: &Resolver) -> ([Connection; 2], [Node; 2]) {
        let (a, b) = (self.database("a.db"), self.database("b.db"));
        a.execute("INSERT INTO stock VALUES (1, 'tea', 5, 1.5)", []).unwrap();
        let first = self.node("a.db", None, resolver);
        let second = self.node("b.db", Some(&first), resolver);
        wait_for("the row", || read(&b).len() == 1);
        second.close();
        a.execute("UPDATE stock SET sold = sold + 2, price = 2.0", []).unwrap();
        first.sync_now(Duration::ZERO).unwrap_err();
        std::thread::sleep(Duration::from_millis(20));
        b.execute("UPDATE stock SET sold = sold + 1, name = 'sencha'", []).unwrap();
        let second = self.node("b.db", Some(&first), resolver);
        second.sync_now(PATIENCE).unwrap();
        ([a, b], [first, second])
    }

    fn assert_clean(&self) {
        for name in ["a.db", "b.db"] {
            let report = entgldb::verify(&self.path(name), &mut |_| {}).unwrap();
            assert!(report.faults.is_empty(), "{name}: {:?}", report.faults);
        }
    }
}

fn read(app: &Connection) -> Vec<(String, i64, f64)> {
    let mut statement = app.prepare("SELECT name, sold, price FROM stock ORDER BY id").unwrap();
    let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?))).unwrap();
    rows.collect::<Result<_, _>>().unwrap()
}

fn wait_for(what: &str, mut done: impl FnMut() -> bool) {
    let start = Instant::now();
    while !done() {
        assert!(start.elapsed() < PATIENCE, "{what}: not within {PATIENCE:?}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// The youngest row with what was sold by all, as far as it is known: the least plus what each added.
fn adding_up() -> Resolver {
    Resolver::new(|_, _, sides| {
        let rows: Option<Vec<Value>> =
            sides.iter().map(|side| serde_json::from_slice(side.content.as_ref()?).ok()).collect();
        let rows = rows?;
        let mut row = rows.last()?.clone();
        let sold = rows.iter().filter_map(|row| row["sold"].as_i64());
        row["sold"] = (sold.sum::<i64>() - 5).into();
        Some(row.to_string().into())
    })
}

#[test]
fn a_function_decides_on_rows_changed_apart_and_all_tables_hold_its_answer() {
    let place = Place::new();
    let (apps, nodes) = place.parted(&adding_up());
    let expected = [("sencha".to_owned(), 8, 1.5)];
    for app in &apps {
        wait_for("the answer", || read(app) == expected);
    }
    let captured = || nodes.iter().map(|node| node.status().captured).collect::<Vec<_>>();
    let before = captured();
    nodes[1].sync_now(PATIENCE).unwrap();
    assert_eq!(captured(), before, "what a resolver made is no change of the application's");
    place.assert_clean();
    // A write replaces both versions.
    apps[0].execute("UPDATE stock SET sold = 9", []).unwrap();
    wait_for("the write", || read(&apps[1]) == [("sencha".to_owned(), 9, 1.5)]);
    nodes.into_iter().for_each(Node::close);
    place.assert_clean();
}

#[test]
fn a_function_that_panics_is_told_of_and_the_node_goes_on() {
    let place = Place::new();
    let (apps, nodes) = place.parted(&Resolver::new(|_, _, _| panic!("not today")));
    for app in &apps {
        wait_for("the youngest version", || read(app) == [("sencha".to_owned(), 6, 1.5)]);
    }
    let problem = nodes.iter().any(|node| node.status().last_error.is_some_and(|e| e.contains("not today")));
    assert!(problem, "{:?}", nodes[0].status());
    apps[1].execute("INSERT INTO stock VALUES (2, 'coffee', 0, 1.0)", []).unwrap();
    wait_for("a write after it", || read(&apps[0]).len() == 2);
    nodes.into_iter().for_each(Node::close);
    place.assert_clean();
}

#[test]
fn a_losing_version_that_is_restored_reaches_all_nodes_as_a_change_like_any_other() {
    let place = Place::new();
    let (apps, nodes) = place.parted(&Resolver::greatest("sold"));
    for app in &apps {
        wait_for("the greater number", || read(app) == [("tea".to_owned(), 7, 2.0)]);
    }
    let listed = nodes[0].conflicts(10).unwrap();
    assert_eq!(listed.len(), 1);
    assert_eq!(
        listed[0].conflict.loser.content.as_deref().map(|c| c.windows(6).any(|w| w == b"sencha")),
        Some(true)
    );
    assert!(matches!(nodes[0].restore("stock", "2", None), Err(RestoreError::NoVersion { .. })));
    let events = nodes[1].events();
    nodes[0].restore("stock", "1", Some(listed[0].version)).unwrap();
    for app in &apps {
        wait_for("the restored version", || read(app) == [("sencha".to_owned(), 6, 1.5)]);
    }
    nodes[0].sync_now(PATIENCE).unwrap();
    while let Ok(event) = events.next(Duration::ZERO) {
        assert!(!matches!(event, Event::Conflict { .. } | Event::Diverged { .. }), "{event:?}");
    }
    nodes.into_iter().for_each(Node::close);
    place.assert_clean();
}
