//! Members that are no longer welcome, and one that floods.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use entgldb::{ClusterSecret, Config, Durability, Event, Events, Node, SyncError};
use rusqlite::Connection;
use tempfile::TempDir;

const PATIENCE: Duration = Duration::from_secs(60);

struct Place(TempDir);

impl Place {
    fn new() -> Self {
        let place = Self(tempfile::tempdir().unwrap());
        place.new_secret();
        place
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// A secret in the place of the one that was there.
    fn new_secret(&self) {
        let path = self.path("secret");
        std::fs::write(&path, ClusterSecret::generate().to_text().as_bytes()).unwrap();
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        }
    }

    fn open(&self, name: &str) -> Connection {
        let app = Connection::open(self.path(name)).unwrap();
        app.busy_timeout(Duration::from_secs(20)).unwrap();
        app
    }

    fn database(&self, name: &str) -> Connection {
        let app = self.open(name);
        app.execute_batch("PRAGMA journal_mode = WAL; CREATE TABLE t(id INTEGER PRIMARY KEY, note TEXT)")
            .unwrap();
        app
    }

    fn config(&self, name: &str, peers: &[&Node]) -> Config {
        let mut config = Config::new(self.path(name), self.path("secret"));
        config.watch = vec!["t".to_owned()];
        config.listen = Some("127.0.0.1:0".to_owned());
        config.durability = Durability::Normal;
        config.sync_interval_ms = 200;
        config.peers = peers.iter().map(|peer| peer.local_address().unwrap().to_string()).collect();
        config
    }
}

fn count(app: &Connection) -> i64 {
    app.query_row("SELECT count(*) FROM t", [], |row| row.get(0)).unwrap()
}

fn wait_for(what: &str, mut done: impl FnMut() -> bool) {
    let start = Instant::now();
    while !done() {
        assert!(start.elapsed() < PATIENCE, "{what}: not within {PATIENCE:?}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

fn wait_event(events: &Events, what: &str, wanted: impl Fn(&Event) -> bool) -> Event {
    let start = Instant::now();
    while start.elapsed() < PATIENCE {
        if let Ok(event) = events.next(Duration::from_millis(100))
            && wanted(&event)
        {
            return event;
        }
    }
    panic!("{what}: not within {PATIENCE:?}");
}

#[test]
fn whoever_is_not_on_the_list_is_refused_though_it_has_the_secret() {
    let place = Place::new();
    let (a, b, c) = (place.database("a.db"), place.database("b.db"), place.database("c.db"));
    a.execute("INSERT INTO t VALUES (1, 'for members on the list')", []).unwrap();
    let welcome = Node::open(place.config("b.db", &[])).unwrap();
    let mut config = place.config("a.db", &[&welcome]);
    config.allow = Some(vec![welcome.node_id().to_string()]);
    let strict = Node::open(config).unwrap();
    let events = strict.events();
    let ex_member = Node::open(place.config("c.db", &[&strict])).unwrap();
    let refused = wait_event(&events, "a refusal", |event| matches!(event, Event::PeerRefused { .. }));
    let Event::PeerRefused { node, .. } = refused else { unreachable!() };
    assert_eq!(node, ex_member.node_id().to_string());
    wait_for("the row at the welcome one", || count(&b) == 1);
    assert_eq!(ex_member.sync_now(Duration::from_millis(500)), Err(SyncError::NoPeer));
    assert_eq!(count(&c), 0);
}

#[test]
fn an_ex_member_is_a_stranger_once_the_others_have_a_new_secret() {
    let place = Place::new();
    let (a, b, c) = (place.database("a.db"), place.database("b.db"), place.database("c.db"));
    let first = Node::open(place.config("a.db", &[])).unwrap();
    let ex_member = Node::open(place.config("c.db", &[&first])).unwrap();
    a.execute("INSERT INTO t VALUES (1, 'while it was a member')", []).unwrap();
    wait_for("the row at the member", || count(&c) == 1);
    let events = ex_member.events();
    let mut config = place.config("a.db", &[]);
    config.listen = Some(first.local_address().unwrap().to_string());
    first.close();
    place.new_secret();
    let first = Node::open(config).unwrap();
    let second = Node::open(place.config("b.db", &[&first])).unwrap();
    a.execute("INSERT INTO t VALUES (2, 'only for members')", []).unwrap();
    wait_for("both rows at the other member", || count(&b) == 2);
    wait_event(&events, "a failed dial", |event| matches!(event, Event::DialFailed { .. }));
    assert_eq!(ex_member.sync_now(Duration::from_millis(500)), Err(SyncError::NoPeer));
    assert_eq!(count(&c), 1);
    drop(second);
}

/// Times from the commit of a row on one node to its being seen on another, sorted.
fn lags(from: &Connection, to: &Connection, ids: std::ops::Range<i64>) -> Vec<Duration> {
    let mut lags = Vec::new();
    for id in ids {
        from.execute("INSERT INTO t VALUES (?1, 'honest')", [id]).unwrap();
        let begun = Instant::now();
        let sql = "SELECT EXISTS (SELECT 1 FROM t WHERE id = ?1)";
        wait_for("an honest row", || to.query_row(sql, [id], |row| row.get::<_, bool>(0)).unwrap());
        lags.push(begun.elapsed());
    }
    lags.sort();
    lags
}

#[test]
fn a_member_that_floods_valid_changes_delays_the_others_but_does_not_keep_them_out() {
    let place = Place::new();
    let hub = place.database("hub.db");
    let flood = place.database("flood.db");
    let honest = place.database("honest.db");
    let center = Node::open(place.config("hub.db", &[])).unwrap();
    let flooder = Node::open(place.config("flood.db", &[&center])).unwrap();
    let member = Node::open(place.config("honest.db", &[&center])).unwrap();
    member.sync_now(PATIENCE).unwrap();
    let quiet = lags(&honest, &hub, 0..20);
    let stop = AtomicBool::new(false);
    let (busy, written) = std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            let flood = place.open("flood.db");
            // Other versions of the same rows, so that the flood is endless and the tables stay small.
            let mut written = 0u64;
            while !stop.load(Ordering::Relaxed) {
                written += flood
                    .execute(
                        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 2000)
                         INSERT INTO t SELECT -i, hex(randomblob(100)) FROM n WHERE true
                         ON CONFLICT (id) DO UPDATE SET note = excluded.note",
                        [],
                    )
                    .unwrap() as u64;
            }
            written
        });
        wait_for("the flood at the hub", || count(&hub) > 1000);
        let busy = lags(&honest, &hub, 100..120);
        stop.store(true, Ordering::Relaxed);
        (busy, writer.join().unwrap())
    });
    eprintln!(
        "member flood of {written} changes: an honest row takes {:?} (median), {:?} (longest); without it {:?}, {:?}",
        busy[10], busy[19], quiet[10], quiet[19]
    );
    wait_for("everything", || center.sync_now(Duration::from_secs(5)).is_ok());
    assert_eq!((count(&hub), count(&flood), count(&honest)), (2040, 2040, 2040));
    drop((flooder, member));
}

#[test]
fn a_peer_is_read_no_faster_than_the_configuration_allows() {
    const RATE: usize = 256 << 10;
    let place = Place::new();
    let (a, b) = (place.database("a.db"), place.database("b.db"));
    let mut config = place.config("a.db", &[]);
    config.peer_bytes_per_second = RATE;
    let slow = Node::open(config).unwrap();
    let sender = Node::open(place.config("b.db", &[&slow])).unwrap();
    sender.sync_now(PATIENCE).unwrap();
    let begun = Instant::now();
    // 1 MiB that no codec makes less than half of, in pages of their own.
    for id in 0..16 {
        b.execute("INSERT INTO t VALUES (?1, hex(randomblob(?2)))", [id, 32 << 10]).unwrap();
    }
    wait_for("all of it", || count(&a) == 16);
    assert!(begun.elapsed() > Duration::from_secs(2), "it took {:?}", begun.elapsed());
    assert!(slow.status().peers.len() == 1, "it is slowed down, not cut off");
}
