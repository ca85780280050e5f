//! Nodes in one process, each beside its own database, over loopback.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use entgldb::{
    ClusterSecret, Config, Durability, Event, Events, Node, OpenError, State, SyncError, read_status,
};
use rusqlite::Connection;
use tempfile::TempDir;

/// How long anything may take before a test gives up.
const PATIENCE: Duration = Duration::from_secs(30);

struct Place {
    dir: TempDir,
}

impl Place {
    fn new() -> Self {
        let place = Self { dir: tempfile::tempdir().unwrap() };
        place.secret("secret", &ClusterSecret::generate());
        place
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn secret(&self, name: &str, secret: &ClusterSecret) {
        let path = self.path(name);
        std::fs::write(&path, secret.to_text().as_bytes()).unwrap();
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        }
    }

    /// A database with a table, opened as the application would.
    fn database(&self, name: &str) -> Connection {
        let app = Connection::open(self.path(name)).unwrap();
        app.busy_timeout(Duration::from_secs(10)).unwrap();
        app.execute_batch("PRAGMA journal_mode = WAL; CREATE TABLE t(id INTEGER PRIMARY KEY, note TEXT)")
            .unwrap();
        app
    }

    fn config(&self, name: &str) -> Config {
        let mut config = Config::new(self.path(name), self.path("secret"));
        config.watch = vec!["t".to_owned()];
        config.listen = Some("127.0.0.1:0".to_owned());
        config.durability = Durability::Normal;
        config.sync_interval_ms = 200;
        config
    }

    fn config_to(&self, name: &str, peer: &Node) -> Config {
        let mut config = self.config(name);
        config.peers = vec![peer.local_address().unwrap().to_string()];
        config
    }
}

fn notes(app: &Connection) -> Vec<(i64, String)> {
    let mut statement = app.prepare("SELECT id, note FROM t ORDER BY id").unwrap();
    statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?))).unwrap().collect::<Result<_, _>>().unwrap()
}

fn wait_for(what: &str, mut done: impl FnMut() -> bool) {
    let start = Instant::now();
    while !done() {
        assert!(start.elapsed() < PATIENCE, "{what}: not within {PATIENCE:?}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

fn wait_event(events: &Events, what: &str, mut wanted: impl FnMut(&Event) -> bool) -> Event {
    let start = Instant::now();
    let mut seen = Vec::new();
    while start.elapsed() < PATIENCE {
        if let Ok(event) = events.next(Duration::from_millis(100)) {
            if wanted(&event) {
                return event;
            }
            seen.push(event);
        }
    }
    panic!("{what}: not within {PATIENCE:?}; seen: {seen:?}");
}

#[test]
fn what_one_application_writes_the_other_one_reads() {
    let place = Place::new();
    let (a, b) = (place.database("a.db"), place.database("b.db"));
    a.execute("INSERT INTO t VALUES (1, 'was there before')", []).unwrap();
    let first = Node::open(place.config("a.db")).unwrap();
    let second = Node::open(place.config_to("b.db", &first)).unwrap();
    wait_for("the row that was there", || notes(&b) == [(1, "was there before".to_owned())]);
    a.execute("INSERT INTO t VALUES (2, 'new')", []).unwrap();
    b.execute("UPDATE t SET note = 'changed' WHERE id = 1", []).unwrap();
    let expected = [(1, "changed".to_owned()), (2, "new".to_owned())];
    wait_for("both changes", || notes(&a) == expected && notes(&b) == expected);
    b.execute("DELETE FROM t WHERE id = 1", []).unwrap();
    wait_for("the delete", || notes(&a) == expected[1..]);
    second.sync_now(PATIENCE).unwrap();
    let status = second.status();
    assert_eq!((status.state, status.peers.len()), (State::Running, 1));
    assert_eq!(status.captured, 2, "no echo: {status:?}");
    first.close();
    second.close();
}

#[test]
fn three_nodes_in_a_line_end_equal_and_conflicts_keep_the_loser() {
    let place = Place::new();
    let apps: Vec<Connection> = ["a.db", "b.db", "c.db"].map(|name| place.database(name)).into();
    let a = Node::open(place.config("a.db")).unwrap();
    let b = Node::open(place.config_to("b.db", &a)).unwrap();
    let c = Node::open(place.config_to("c.db", &b)).unwrap();
    for (id, app) in (0i64..).zip(&apps) {
        app.execute("INSERT INTO t VALUES (?1, 'own')", [id]).unwrap();
    }
    wait_for("three rows everywhere", || apps.iter().all(|app| notes(app).len() == 3));
    b.close();
    apps[0].execute("UPDATE t SET note = 'older' WHERE id = 1", []).unwrap();
    std::thread::sleep(Duration::from_millis(50));
    apps[2].execute("UPDATE t SET note = 'younger' WHERE id = 1", []).unwrap();
    let mut config = place.config_to("b.db", &a);
    let b_events;
    let b = {
        config.listen = Some(c.status().targets[0].target.clone());
        let b = Node::open(config).unwrap();
        b_events = b.events();
        b
    };
    wait_for("the younger version everywhere", || {
        apps.iter().all(|app| notes(app)[1] == (1, "younger".to_owned()))
    });
    let conflict = wait_event(&b_events, "a conflict on b", |event| matches!(event, Event::Conflict { .. }));
    let Event::Conflict { key, winner, loser, .. } = conflict else { unreachable!() };
    assert_eq!(key, "1");
    assert_eq!((winner.node, loser.node), (c.node_id().to_string(), a.node_id().to_string()));
    drop((a, b, c));
}

#[test]
fn a_database_put_back_to_an_older_copy_goes_on_in_a_new_incarnation_and_gets_its_lost_rows_back() {
    let place = Place::new();
    let (a, b) = (place.database("a.db"), place.database("b.db"));
    // With `normal`, a copy of a running database tells by itself that commits may be missing.
    let full = |config: Config| Config { durability: Durability::Full, ..config };
    let first = Node::open(place.config("a.db")).unwrap();
    let second = Node::open(full(place.config_to("b.db", &first))).unwrap();
    b.execute("INSERT INTO t VALUES (1, 'in the backup')", []).unwrap();
    wait_for("the first row", || notes(&a).len() == 1);
    b.execute("VACUUM INTO ?1", [place.path("backup.db").to_str().unwrap()]).unwrap();
    b.execute("INSERT INTO t VALUES (2, 'after it')", []).unwrap();
    wait_for("the second row", || notes(&a).len() == 2);
    second.close();
    drop(b);
    for end in ["", "-wal", "-shm"] {
        let _ = std::fs::remove_file(place.path(&format!("b.db{end}")));
    }
    std::fs::rename(place.path("backup.db"), place.path("b.db")).unwrap();
    let b = Connection::open(place.path("b.db")).unwrap();
    b.execute("INSERT INTO t VALUES (3, 'after the restore')", []).unwrap();
    // Alone: what it captures now would take the positions of what was lost.
    let (alone, events) = Node::open_with_events(full(place.config("b.db"))).unwrap();
    let told = wait_event(&events, "the news", |event| matches!(event, Event::StartedAnew { .. }));
    assert!(matches!(&told, Event::StartedAnew { detail } if detail.contains("has 1 of the 2")), "{told:?}");
    wait_for("the capture", || alone.status().captured == 1);
    alone.close();
    let (second, events) = Node::open_with_events(full(place.config_to("b.db", &first))).unwrap();
    wait_for("all three on both", || notes(&a).len() == 3 && notes(&a) == notes(&b));
    second.sync_now(PATIENCE).unwrap();
    first.close();
    second.close();
    while let Ok(event) = events.next(Duration::ZERO) {
        assert!(!matches!(event, Event::StartedAnew { .. } | Event::Forked { .. }), "{event:?}");
    }
}

#[test]
fn a_peer_that_is_linked_at_once_is_told_of_all_the_same() {
    let place = Place::new();
    let (_a, _b) = (place.database("a.db"), place.database("b.db"));
    let first = Node::open(place.config("a.db")).unwrap();
    let (second, events) = Node::open_with_events(place.config_to("b.db", &first)).unwrap();
    wait_for("a link", || !second.status().peers.is_empty());
    wait_event(&events, "the link", |event| matches!(event, Event::PeerUp { .. }));
}

#[test]
fn writes_made_while_the_engine_is_off_travel_once_it_is_back() {
    let place = Place::new();
    let (a, b) = (place.database("a.db"), place.database("b.db"));
    let first = Node::open(place.config("a.db")).unwrap();
    let second = Node::open(place.config_to("b.db", &first)).unwrap();
    second.sync_now(PATIENCE).unwrap();
    let (first_id, second_id) = (first.node_id(), second.node_id());
    drop(second);
    for id in 0..5000 {
        b.execute("INSERT INTO t VALUES (?1, 'offline')", [id]).unwrap();
    }
    a.execute("INSERT INTO t VALUES (-1, 'meanwhile')", []).unwrap();
    let second = Node::open(place.config_to("b.db", &first)).unwrap();
    assert_eq!((first.node_id(), second.node_id()), (first_id, second_id), "identities last");
    wait_for("all of it", || notes(&a).len() == 5001 && notes(&b).len() == 5001);
    second.sync_now(PATIENCE).unwrap();
    assert_eq!(notes(&a), notes(&b));
}

#[test]
fn a_wrong_secret_gets_no_link_and_no_data() {
    let place = Place::new();
    place.secret("other", &ClusterSecret::generate());
    let (a, b) = (place.database("a.db"), place.database("b.db"));
    a.execute("INSERT INTO t VALUES (1, 'private')", []).unwrap();
    let first = Node::open(place.config("a.db")).unwrap();
    let mut config = place.config_to("b.db", &first);
    config.secret_file = place.path("other");
    let second = Node::open(config).unwrap();
    let events = second.events();
    wait_event(&events, "a failed dial", |event| matches!(event, Event::DialFailed { .. }));
    assert_eq!(second.sync_now(Duration::from_millis(300)), Err(SyncError::NoPeer));
    assert!(notes(&b).is_empty());
    assert!(first.status().peers.is_empty());
}

#[test]
fn another_key_under_a_known_label_is_refused_loudly() {
    let place = Place::new();
    let (_a, b) = (place.database("a.db"), place.database("b.db"));
    let first = Node::open(place.config("a.db")).unwrap();
    let events = first.events();
    let mut config = place.config_to("b.db", &first);
    config.name = Some("till".to_owned());
    let second = Node::open(config.clone()).unwrap();
    wait_event(&events, "the first till", |event| matches!(event, Event::PeerUp { .. }));
    // Only who has synced is pinned.
    wait_for("the first sync", || first.status().peers.iter().any(|peer| peer.in_sync_ms.is_some()));
    drop(second);
    std::fs::remove_file(config.data_dir().join("identity")).unwrap();
    let second = Node::open(config).unwrap();
    let refused = wait_event(&events, "a refusal", |event| matches!(event, Event::PeerRefused { .. }));
    let Event::PeerRefused { name, reason, .. } = refused else { unreachable!() };
    assert_eq!(name, "till");
    assert!(reason.contains("--forget"), "it says what to do: {reason}");
    assert_eq!(second.sync_now(Duration::from_millis(300)), Err(SyncError::NoPeer));
    drop(b);
}

#[test]
fn a_peer_that_accepts_and_never_answers_does_not_hold_up_the_others() {
    let place = Place::new();
    let (a, b) = (place.database("a.db"), place.database("b.db"));
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let first = Node::open(place.config("a.db")).unwrap();
    let mut config = place.config_to("b.db", &first);
    config.peers.insert(0, silent.local_addr().unwrap().to_string());
    let second = Node::open(config).unwrap();
    let accepted = silent.accept().unwrap();
    a.execute("INSERT INTO t VALUES (1, 'x')", []).unwrap();
    wait_for("the row", || notes(&b).len() == 1);
    drop((accepted, second));
}

/// Two synced nodes; the second one's database is locked by its application, and its engine has said so.
fn with_a_locked_database(then: impl FnOnce(&Place, &Node, Node, &Connection)) {
    let place = Place::new();
    let (a, b) = (place.database("a.db"), place.database("b.db"));
    let first = Node::open(place.config("a.db")).unwrap();
    let second = Node::open(place.config_to("b.db", &first)).unwrap();
    second.sync_now(PATIENCE).unwrap();
    let events = second.events();
    b.execute_batch("BEGIN IMMEDIATE; INSERT INTO t VALUES (2, 'long transaction')").unwrap();
    a.execute("INSERT INTO t VALUES (1, 'x')", []).unwrap();
    wait_event(&events, "a report", |event| matches!(event, Event::StoreBusy { .. }));
    then(&place, &first, second, &b);
    wait_for("both rows", || notes(&a).len() == 2 && notes(&b).len() == 2);
}

#[test]
fn a_database_that_is_locked_for_long_is_reported_waited_for_and_nothing_is_dropped() {
    let mut kept = None;
    with_a_locked_database(|_, _, second, b| {
        b.execute_batch("COMMIT").unwrap();
        kept = Some(second);
    });
}

#[test]
fn a_node_closes_while_its_database_is_locked() {
    let mut kept = None;
    with_a_locked_database(|place, first, second, b| {
        let start = Instant::now();
        second.close();
        assert!(start.elapsed() < PATIENCE);
        b.execute_batch("COMMIT").unwrap();
        kept = Some(Node::open(place.config_to("b.db", first)).unwrap());
    });
}

#[test]
fn the_status_file_tells_another_process_how_the_node_stands() {
    let place = Place::new();
    let (a, _b) = (place.database("a.db"), place.database("b.db"));
    let first = Node::open(place.config("a.db")).unwrap();
    let second = Node::open(place.config_to("b.db", &first)).unwrap();
    a.execute("INSERT INTO t VALUES (1, 'x')", []).unwrap();
    let data_dir = place.config("b.db").data_dir();
    wait_for("a status with the applied row", || {
        read_status(&data_dir).is_ok_and(|status| status.applied == 1 && status.peers.len() == 1)
    });
    let status = read_status(&data_dir).unwrap();
    assert_eq!(status.state, State::Running);
    assert_eq!(status.peers[0].node, first.node_id().to_string());
    assert!(status.traffic.wire_bytes_in > 0 && status.database_bytes > 0);
    assert_eq!((status.peers[0].behind, status.peers[0].ahead), (0, 0));
    second.close();
    assert_eq!(read_status(&data_dir).unwrap().state, State::Stopped);
}

#[test]
fn a_second_process_for_the_same_node_is_refused_and_so_is_a_bad_table() {
    let place = Place::new();
    let _a = place.database("a.db");
    let first = Node::open(place.config("a.db")).unwrap();
    let again = Node::open(place.config("a.db")).err().unwrap();
    assert!(matches!(again, OpenError::DataDir(_)), "{again}");
    drop(first);
    let mut config = place.config("a.db");
    config.watch = vec!["nothing".to_owned()];
    let refused = Node::open(config).err().unwrap().to_string();
    assert!(refused.contains("nothing") && refused.contains('t'), "{refused}");
    assert!(!Path::new("nothing").exists());
}

#[test]
fn a_catch_up_tells_its_progress_and_its_end() {
    let place = Place::new();
    let (a, b) = (place.database("a.db"), place.database("b.db"));
    a.execute_batch(
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 20000)
         INSERT INTO t SELECT i, 'row ' || i FROM n",
    )
    .unwrap();
    let first = Node::open(place.config("a.db")).unwrap();
    wait_for("the capture of 20,000 rows", || first.status().captured == 20_000);
    let second = Node::open(place.config_to("b.db", &first)).unwrap();
    let events = second.events();
    let progress = wait_event(&events, "progress", |event| matches!(event, Event::SyncProgress { .. }));
    let Event::SyncProgress { total, .. } = progress else { unreachable!() };
    assert_eq!(total, 20_000);
    wait_event(&events, "the end", |event| matches!(event, Event::CaughtUp { .. }));
    assert_eq!(notes(&a), notes(&b));
}

#[test]
fn rows_of_a_merging_table_keep_what_both_sides_wrote_and_json_columns_merge_inside() {
    let place = Place::new();
    let open = |name: &str| {
        let app = Connection::open(place.path(name)).unwrap();
        app.execute_batch(
            "PRAGMA journal_mode = WAL;
             CREATE TABLE t(id INTEGER PRIMARY KEY, name TEXT NOT NULL, price REAL NOT NULL, data JSON)",
        )
        .unwrap();
        app
    };
    let (a, b) = (open("a.db"), open("b.db"));
    let merging = |config: Config| Config { merge: vec!["t".to_owned()], ..config };
    let read = |app: &Connection| -> Vec<(String, f64, String)> {
        let mut statement = app.prepare("SELECT name, price, data FROM t ORDER BY id").unwrap();
        let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?))).unwrap();
        rows.collect::<Result<_, _>>().unwrap()
    };
    a.execute(r#"INSERT INTO t VALUES (1, 'tea', 1.0, '{"tags": ["hot"], "stock": 5}')"#, []).unwrap();
    let first = Node::open(merging(place.config("a.db"))).unwrap();
    let second = Node::open(merging(place.config_to("b.db", &first))).unwrap();
    wait_for("the row", || read(&b).len() == 1);
    let id = second.node_id();
    second.close();
    // Apart: a changes the price and the stock, b the name and the tags; both the tags.
    a.execute(r#"UPDATE t SET price = 2.5, data = '{"tags": ["hot", "green"], "stock": 4}'"#, []).unwrap();
    b.execute(r#"UPDATE t SET name = 'sencha', data = '{"tags": ["hot", "new"], "stock": 5}'"#, []).unwrap();
    let (second, events) = Node::open_with_events(merging(place.config_to("b.db", &first))).unwrap();
    assert_eq!(second.node_id(), id);
    wait_for("both edits on both sides", || {
        let (a, b) = (read(&a), read(&b));
        a == b && a[0].0 == "sencha" && a[0].1 == 2.5
    });
    let data = read(&a)[0].2.clone();
    assert!(
        data.contains(r#""stock":4"#) && ["hot", "green", "new"].iter().all(|tag| data.contains(tag)),
        "{data}"
    );
    second.sync_now(PATIENCE).unwrap();
    let captured = (first.status().captured, second.status().captured);
    // A row that a merge wrote is no change of the application's, and a deleted one stays deleted.
    a.execute("DELETE FROM t", []).unwrap();
    wait_for("the delete", || read(&b).is_empty());
    second.sync_now(PATIENCE).unwrap();
    assert_eq!((first.status().captured, second.status().captured), (captured.0 + 1, captured.1));
    first.close();
    second.close();
    while let Ok(event) = events.next(Duration::ZERO) {
        assert!(!matches!(event, Event::Conflict { .. } | Event::Diverged { .. }), "{event:?}");
    }
    for name in ["a.db", "b.db"] {
        let report = entgldb::verify(&place.path(name), &mut |_| {}).unwrap();
        assert!(report.faults.is_empty(), "{name}: {:?}", report.faults);
    }
}
