//! History that goes, nodes that come later, tables that come and go, members that leave, and snapshots in files.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use entgldb::{
    ClusterSecret, CommandError, Config, Durability, Event, ImportError, Node, Offline, Request, Retention,
    export_snapshot, request, verify,
};
use rusqlite::Connection;
use tempfile::TempDir;

const PATIENCE: Duration = Duration::from_secs(60);
const SCHEMA: &str =
    "CREATE TABLE t(id INTEGER PRIMARY KEY, note TEXT); CREATE TABLE u(id INTEGER PRIMARY KEY, note TEXT)";

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
        app.busy_timeout(Duration::from_secs(20)).unwrap();
        app.execute_batch(&format!("PRAGMA journal_mode = WAL; {SCHEMA}")).unwrap();
        app
    }

    /// A node that keeps history for a second.
    fn config(&self, name: &str, peers: &[&Node]) -> Config {
        let mut config = Config::new(self.path(name), self.path("secret"));
        config.watch = vec!["t".to_owned()];
        config.listen = Some("127.0.0.1:0".to_owned());
        config.durability = Durability::Normal;
        config.sync_interval_ms = 100;
        config.retention_hours = Retention::LEAST;
        config.peers = peers.iter().map(|peer| peer.local_address().unwrap().to_string()).collect();
        config
    }

    fn assert_clean(&self, name: &str) {
        let report = verify(&self.path(name), &mut |_| {}).unwrap();
        assert!(report.is_clean(), "{name}: {:?}", report.faults);
    }
}

fn rows(app: &Connection, table: &str) -> Vec<(i64, String)> {
    let mut statement = app.prepare(&format!("SELECT id, note FROM {table} ORDER BY id")).unwrap();
    statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?))).unwrap().collect::<Result<_, _>>().unwrap()
}

fn fill(app: &Connection, table: &str, count: i64) {
    let sql = format!(
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {count})
         INSERT INTO {table} SELECT i, 'row ' || i FROM n"
    );
    app.execute_batch(&sql).unwrap();
}

fn entries(app: &Connection) -> i64 {
    app.query_row("SELECT count(*) FROM _entgldb_oplog", [], |row| row.get(0)).unwrap()
}

/// Entries of the application's tables.
fn history(app: &Connection) -> i64 {
    let sql = "SELECT count(*) FROM _entgldb_oplog o JOIN _entgldb_logs l ON l.no = o.id >> 40
               JOIN _entgldb_collections c ON c.no = l.collection_no WHERE c.name <> '_entgldb_members'";
    app.query_row(sql, [], |row| row.get(0)).unwrap()
}

fn wait_for(what: &str, mut done: impl FnMut() -> bool) {
    let start = Instant::now();
    while !done() {
        assert!(start.elapsed() < PATIENCE, "{what}: not within {PATIENCE:?}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn who_comes_after_everything_was_forgotten_has_all_rows_and_no_deleted_one() {
    let place = Place::new();
    let (a, b, c) = (place.database("a.db"), place.database("b.db"), place.database("c.db"));
    let first = Node::open(place.config("a.db", &[])).unwrap();
    let second = Node::open(place.config("b.db", &[&first])).unwrap();
    fill(&a, "t", 3000);
    wait_for("the rows at the second", || rows(&b, "t").len() == 3000);
    b.execute_batch("DELETE FROM t WHERE id % 3 = 0; UPDATE t SET note = 'changed' WHERE id = 1").unwrap();
    wait_for("the deletes at the first", || rows(&a, "t").len() == 2000);
    wait_for("history to go", || history(&a) == 0 && history(&b) == 0);
    wait_for("the count in the status", || first.status().forgotten >= 4000);
    c.execute("INSERT INTO t VALUES (9999, 'local, before it met anybody')", []).unwrap();
    let (third, events) = Node::open_with_events(place.config("c.db", &[&second])).unwrap();
    let mut snapshots = 0;
    wait_for("all rows at the third", || {
        // Written while the snapshot comes in.
        c.execute("UPDATE t SET note = note || '!' WHERE id = 9999", []).unwrap();
        while let Ok(event) = events.next(Duration::ZERO) {
            snapshots += usize::from(matches!(event, Event::Snapshot { done: true, .. }));
        }
        rows(&c, "t").len() == 2001
    });
    wait_for("the same rows everywhere", || {
        third.sync_now(Duration::from_secs(5)).is_ok()
            && rows(&a, "t") == rows(&c, "t")
            && rows(&b, "t") == rows(&c, "t")
    });
    while let Ok(event) = events.next(Duration::ZERO) {
        snapshots += usize::from(matches!(event, Event::Snapshot { done: true, .. }));
    }
    assert!(snapshots >= 1, "it came as a snapshot");
    assert_eq!(rows(&c, "t")[0], (1, "changed".to_owned()));
    wait_for("it to know all members", || third.members().unwrap().len() == 3);
    drop((first, second, third));
    for name in ["a.db", "b.db", "c.db"] {
        place.assert_clean(name);
    }
}

#[test]
fn under_a_steady_load_the_oplog_stays_small() {
    let place = Place::new();
    let (a, b) = (place.database("a.db"), place.database("b.db"));
    let first = Node::open(place.config("a.db", &[])).unwrap();
    let second = Node::open(place.config("b.db", &[&first])).unwrap();
    fill(&a, "t", 200);
    let (start, mut most, mut pages) = (Instant::now(), 0, Vec::new());
    let mut written = 200;
    while start.elapsed() < Duration::from_secs(8) {
        written += a
            .execute("UPDATE t SET note = hex(randomblob(100)) WHERE id % 10 = abs(random() % 10)", [])
            .unwrap();
        std::thread::sleep(Duration::from_millis(20));
        most = most.max(entries(&b));
        pages.push(b.query_row("PRAGMA page_count", [], |row| row.get::<_, i64>(0)).unwrap());
    }
    wait_for("history to go", || history(&b) == 0 && history(&a) == 0);
    let (early, late) = (pages[pages.len() / 2], *pages.last().unwrap());
    eprintln!(
        "{written} changes in 8 s, at most {most} entries at once; pages {early} half-way, {late} at the end"
    );
    assert!(most < i64::try_from(written).unwrap() * 3 / 4, "{most} of {written} entries at once");
    assert!(late <= early * 3 / 2, "{early} pages half-way, {late} at the end");
    drop((first, second));
    place.assert_clean("a.db");
    place.assert_clean("b.db");
}

#[test]
fn tables_come_and_go_while_nodes_run() {
    let place = Place::new();
    let (a, b) = (place.database("a.db"), place.database("b.db"));
    let first = Node::open(place.config("a.db", &[])).unwrap();
    let second = Node::open(place.config("b.db", &[&first])).unwrap();
    fill(&a, "u", 50);
    assert_eq!(first.watch("U").unwrap(), "u");
    assert!(matches!(first.watch("none"), Err(CommandError::Watch(_))));
    fill(&a, "t", 10);
    wait_for("the table that both sync", || rows(&b, "t").len() == 10);
    assert_eq!(rows(&b, "u").len(), 0, "the second does not sync it");
    assert_eq!(second.watch("u").unwrap(), "u");
    wait_for("the rows that were there", || rows(&b, "u").len() == 50);
    assert_eq!(second.status().collections, ["t", "u"]);
    b.execute("UPDATE u SET note = 'last' WHERE id = 1", []).unwrap();
    second.unwatch("u").unwrap();
    wait_for("what was written before it was left alone", || rows(&a, "u")[0].1 == "last");
    a.execute("UPDATE u SET note = 'there' WHERE id = 2", []).unwrap();
    b.execute("UPDATE u SET note = 'here' WHERE id = 3", []).unwrap();
    a.execute("INSERT INTO t VALUES (11, 'goes on')", []).unwrap();
    wait_for("the other table", || rows(&b, "t").len() == 11);
    assert_eq!(rows(&b, "u")[1].1, "row 2");
    assert_eq!(rows(&a, "u")[2].1, "row 3");
    assert!(matches!(second.unwatch("u"), Err(CommandError::NotWatched { .. })));
    assert!(matches!(second.unwatch("t"), Err(CommandError::LastTable { .. })));
    second.watch("u").unwrap();
    wait_for("both changes", || rows(&b, "u")[1].1 == "there" && rows(&a, "u")[2].1 == "here");
    drop((first, second));
    place.assert_clean("a.db");
    place.assert_clean("b.db");
}

#[test]
fn history_waits_for_a_member_until_that_is_removed_and_it_may_come_back() {
    let place = Place::new();
    let (a, b, c) = (place.database("a.db"), place.database("b.db"), place.database("c.db"));
    let first = Node::open(place.config("a.db", &[])).unwrap();
    let second = Node::open(place.config("b.db", &[&first])).unwrap();
    let third = Node::open(place.config("c.db", &[&first])).unwrap();
    fill(&a, "t", 10);
    wait_for("the rows everywhere", || rows(&b, "t").len() == 10 && rows(&c, "t").len() == 10);
    wait_for("everybody to know everybody", || {
        [&first, &second, &third].iter().all(|node| node.members().unwrap().len() == 3)
    });
    let away = third.node_id();
    third.close();
    c.execute("INSERT INTO t VALUES (77, 'written while away')", []).unwrap();
    a.execute("UPDATE t SET note = 'new'", []).unwrap();
    wait_for("the change at the second", || rows(&b, "t")[9].1 == "new");
    std::thread::sleep(Duration::from_secs(3));
    assert!(history(&a) >= 10 && history(&b) >= 10, "history waits for the third");
    assert!(matches!(first.remove_member(first.node_id()), Err(CommandError::Itself)));
    first.remove_member(away).unwrap();
    wait_for("history to go", || history(&a) == 0 && history(&b) == 0);
    let info = second.members().unwrap().into_iter().find(|member| member.node == away.to_string()).unwrap();
    assert!(info.removed && info.removed_by == Some(first.node_id().to_string()), "{info:?}");
    let third = Node::open(place.config("c.db", &[&second])).unwrap();
    wait_for("the same rows everywhere", || {
        rows(&a, "t").len() == 11 && rows(&a, "t") == rows(&b, "t") && rows(&b, "t") == rows(&c, "t")
    });
    wait_for("it to be a member again", || first.members().unwrap().iter().all(|member| !member.removed));
    drop((first, second, third));
    for name in ["a.db", "b.db", "c.db"] {
        place.assert_clean(name);
    }
}

#[test]
fn a_snapshot_in_a_file_is_joined_and_nothing_younger_goes() {
    let place = Place::new();
    let (a, b) = (place.database("a.db"), place.database("b.db"));
    fill(&a, "t", 2500);
    let first = Node::open(place.config("a.db", &[])).unwrap();
    wait_for("the rows to be captured", || first.status().captured >= 2500);
    a.execute("DELETE FROM t WHERE id = 5", []).unwrap();
    let file = place.path("shop.snapshot");
    let exported = first.snapshot_export(&file, &mut |_| {}).unwrap();
    assert_eq!(exported.rows, 2500, "a deleted one too");
    let second = Node::open(place.config("b.db", &[])).unwrap();
    b.execute_batch("INSERT INTO t VALUES (1, 'younger'), (5, 'made anew'), (3000, 'only here')").unwrap();
    wait_for("the rows to be captured", || second.status().captured >= 3);
    let mut steps = 0;
    let imported = second.snapshot_import(&file, &mut |_| steps += 1).unwrap();
    assert_eq!((imported.rows, imported.collections), (2500, vec!["t".to_owned()]));
    assert!(steps >= 3);
    let found = rows(&b, "t");
    assert_eq!(found.len(), 2501);
    assert_eq!((found[0].1.as_str(), found[4].1.as_str()), ("younger", "made anew"));
    second.snapshot_import(&file, &mut |_| {}).unwrap();
    assert_eq!(rows(&b, "t"), found, "once more changes nothing");
    drop((first, second));
    let (first, second) = (place.config("a.db", &[]), place.config("b.db", &[]));
    let first = Node::open(first).unwrap();
    let second =
        Node::open(Config { peers: vec![first.local_address().unwrap().to_string()], ..second }).unwrap();
    wait_for("the same rows", || second.sync_now(PATIENCE).is_ok() && rows(&a, "t") == rows(&b, "t"));
    drop((first, second));
    place.assert_clean("a.db");
    place.assert_clean("b.db");
}

#[test]
fn a_file_that_was_cut_or_altered_anywhere_changes_nothing() {
    let place = Place::new();
    let (a, b) = (place.database("a.db"), place.database("b.db"));
    fill(&a, "t", 40);
    let first = Node::open(place.config("a.db", &[])).unwrap();
    wait_for("the rows to be captured", || first.status().captured >= 40);
    first.close();
    let file = place.path("snapshot");
    export_snapshot(&place.path("a.db"), &file, &mut |_| {}).unwrap();
    let sound = std::fs::read(&file).unwrap();
    let folder = place.path("b.db-entgldb");
    let mut offline = Offline::open(&place.path("b.db"), &folder, &["t".to_owned()], &[]).unwrap();
    let mut refused = |bytes: &[u8], what: &str| {
        std::fs::write(&file, bytes).unwrap();
        let error = offline.import(&file, &mut |_| {}).expect_err(what);
        assert!(matches!(error, ImportError::File { .. }), "{what}: {error}");
    };
    for cut in (0..sound.len()).step_by(37).chain([sound.len() - 1]) {
        refused(&sound[..cut], &format!("cut at {cut}"));
    }
    for place in (0..sound.len()).step_by(23) {
        let mut altered = sound.clone();
        altered[place] ^= 1 << (place % 8);
        refused(&altered, &format!("altered at {place}"));
    }
    refused(&[&sound[..], b"x"].concat(), "more behind the end");
    assert_eq!(rows(&b, "t"), []);
    std::fs::write(&file, &sound).unwrap();
    assert_eq!(offline.import(&file, &mut |_| {}).unwrap().rows, 40);
    offline.close().unwrap();
    assert_eq!(rows(&b, "t"), rows(&a, "t"));
    place.assert_clean("b.db");
    let text = String::from_utf8_lossy(&sound).into_owned();
    let secret = std::fs::read_to_string(place.path("secret")).unwrap();
    assert!(!text.contains(secret.trim()), "no credentials");
}

#[test]
fn a_node_that_runs_can_be_asked_through_its_folder() {
    let place = Place::new();
    let _a = place.database("a.db");
    let folder = place.path("a.db-entgldb");
    let watch = Request::Watch { table: "u".to_owned() };
    assert!(request(&folder, &watch, &mut |_| {}).unwrap_err().to_string().contains("does not run"));
    let node = Node::open(place.config("a.db", &[])).unwrap();
    let answer = request(&folder, &watch, &mut |_| {}).unwrap();
    assert_eq!(answer.table.as_deref(), Some("u"));
    let collections: BTreeSet<String> = node.status().collections.into_iter().collect();
    assert_eq!(collections, ["t".to_owned(), "u".to_owned()].into());
    let refused = request(&folder, &Request::Watch { table: "none".to_owned() }, &mut |_| {}).unwrap_err();
    assert!(refused.to_string().contains("no table \"none\""), "{refused}");
    request(&folder, &Request::Unwatch { table: "t".to_owned() }, &mut |_| {}).unwrap();
    assert_eq!(node.status().collections, ["u"]);
    assert_eq!(std::fs::read_dir(folder.join("control")).unwrap().count(), 0, "nothing is left over");
}
