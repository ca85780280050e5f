//! Contents that compress well get through between two nodes; and where links end again and again for the same fault, the
//! status and an event say so.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use entgldb::{BlockedHealth, ClusterSecret, Config, Durability, Event, Events, Node};
use entgldb_net::fuzzing::{Frames, Member, frame};
use entgldb_net::{Identity, NetConfig};
use entgldb_replica::clock::WallMillis;
use entgldb_replica::id::{Collection, Incarnation};
use entgldb_replica::wire::{Hello, Message, Page, VERSION};
use rusqlite::Connection;
use tempfile::TempDir;

const PATIENCE: Duration = Duration::from_secs(30);

struct Place {
    dir: TempDir,
    secret: ClusterSecret,
}

impl Place {
    fn new() -> Self {
        let (dir, secret) = (tempfile::tempdir().unwrap(), ClusterSecret::generate());
        let path = dir.path().join("secret");
        std::fs::write(&path, secret.to_text().as_bytes()).unwrap();
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        }
        Self { dir, secret }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn config(&self, name: &str) -> Config {
        let mut config = Config::new(self.path(name), self.path("secret"));
        config.watch = vec!["t".to_owned()];
        config.listen = Some("127.0.0.1:0".to_owned());
        config.durability = Durability::Normal;
        config.sync_interval_ms = 200;
        config
    }
}

fn database(path: &Path) -> Connection {
    let app = Connection::open(path).unwrap();
    app.busy_timeout(PATIENCE).unwrap();
    app.execute_batch("PRAGMA journal_mode = WAL; CREATE TABLE t(id INTEGER PRIMARY KEY, note TEXT)")
        .unwrap();
    app
}

/// Rows, and a sum that tells contents apart.
fn contents(app: &Connection) -> (i64, i64, i64) {
    let sums = "SELECT count(*), ifnull(sum(length(note)), 0), count(DISTINCT note) FROM t";
    app.query_row(sums, [], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?))).unwrap()
}

fn wait_for(what: &str, mut done: impl FnMut() -> bool) {
    let start = Instant::now();
    while !done() {
        assert!(start.elapsed() < PATIENCE, "{what}: not within {PATIENCE:?}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn syncs(zstd: bool, sql: &str) {
    let place = Place::new();
    let (a, b) = (database(&place.path("a.db")), database(&place.path("b.db")));
    a.execute_batch(sql).unwrap();
    let mut config = place.config("a.db");
    config.zstd = zstd;
    let first = Node::open(config).unwrap();
    let mut config = place.config("b.db");
    config.peers = vec![first.local_address().unwrap().to_string()];
    let second = Node::open(config).unwrap();
    let expected = contents(&a);
    wait_for(sql, || contents(&b) == expected);
    a.execute("INSERT INTO t VALUES (1000, 'and on')", []).unwrap();
    wait_for("a later row", || contents(&b).0 == expected.0 + 1);
    assert_eq!((first.status().blocked, second.status().blocked), (Vec::new(), Vec::new()));
    second.close();
    first.close();
}

#[test]
fn a_row_that_compresses_beyond_what_a_receiver_allows_gets_through() {
    for zstd in [true, false] {
        syncs(zstd, "INSERT INTO t VALUES (1, zeroblob(95000))");
        syncs(zstd, "INSERT INTO t VALUES (1, replace(hex(zeroblob(9000)), '00', 'one text, '))");
    }
}

#[test]
fn many_rows_with_one_long_text_get_through() {
    let text = "replace(hex(zeroblob(1200)), '00', 'a text of twenty cha')";
    let rows = "WITH n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 180)";
    syncs(true, &format!("INSERT INTO t {rows} SELECT i, {text} FROM n"));
}

fn as_frame(message: &Message) -> Vec<u8> {
    let (kind, body) = message.encode();
    frame(kind, None, body.len(), &body)
}

/// A member that links up, says hello, answers what it hears, and stays until the node hangs up or it is done.
async fn visit(
    place: &Place,
    node: &Node,
    identity: &Identity,
    answer: impl Fn(Message) -> Option<Message>,
    is_done: impl Fn() -> bool,
) {
    let start = Instant::now();
    let (address, config) = (node.local_address().unwrap(), NetConfig::new("stubborn", 66));
    let mut member = loop {
        // A node answers so many handshakes of one address in a second.
        match Member::connect(address, &config, &place.secret, identity).await {
            Ok(member) => break member,
            Err(error) => assert!(start.elapsed() < PATIENCE, "no link: {error}"),
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    let hello = Message::Hello(Hello {
        version: VERSION,
        incarnation: Incarnation(1),
        interests: vec![Collection::new("t").unwrap()],
        wall: WallMillis(0),
        frame_bytes_max: 1 << 20,
    });
    member.send(&as_frame(&hello)).await.unwrap();
    let mut frames = Frames::new(1 << 20, &[]);
    while let Some(bytes) = member.receive().await {
        assert!(start.elapsed() < PATIENCE, "the visit does not end");
        frames.receive(&bytes);
        while let Some(frame) = frames.next_frame().unwrap() {
            if let Ok(Some(heard)) = Message::decode(frame.kind, frame.body)
                && let Some(answer) = answer(heard)
            {
                // The node may have hung up; then nothing more is heard.
                let _ = member.send(&as_frame(&answer)).await;
            }
        }
        if is_done() {
            return;
        }
    }
}

/// A page where another one is next.
fn wrong_page(heard: Message) -> Option<Message> {
    matches!(heard, Message::Vector(_)).then(|| Message::Page(Page { id: 7, runs: Vec::new() }))
}

/// What the node says of what it holds is said back.
fn agreement(heard: Message) -> Option<Message> {
    matches!(heard, Message::Digest(_)).then_some(heard)
}

fn wait_event(events: &Events) -> Event {
    let start = Instant::now();
    while start.elapsed() < PATIENCE {
        if let Ok(event @ Event::Blocked { .. }) = events.next(Duration::from_millis(100)) {
            return event;
        }
    }
    panic!("no event within {PATIENCE:?}");
}

#[test]
fn a_peer_whose_links_end_twice_for_the_same_fault_is_shown_as_blocked_until_it_gets_through() {
    let place = Place::new();
    drop(database(&place.path("a.db")));
    let node = Node::open(place.config("a.db")).unwrap();
    let events = node.events();
    let (runtime, peer) = (tokio::runtime::Runtime::new().unwrap(), Identity::generate());
    let stubborn = || runtime.block_on(visit(&place, &node, &peer, wrong_page, || false));

    stubborn();
    wait_for("the end of the link", || node.status().peers.is_empty());
    assert_eq!(node.status().blocked, [], "once is not enough");
    stubborn();
    let Event::Blocked { node: id, name, reason, entry } = wait_event(&events) else { panic!() };
    assert_eq!((&*id, &*name, entry), (&*peer.node_id().to_string(), "stubborn", None));
    assert_eq!(reason, "protocol violation: the peer sent page 7 where 1 is next");
    stubborn();
    wait_for("the third end", || node.status().blocked.first().is_some_and(|blocked| blocked.ends == 3));
    let blocked: BlockedHealth = node.status().blocked.remove(0);
    assert_eq!((blocked.node, blocked.name, blocked.reason), (id, name, reason));
    assert!(blocked.since_ms > 0);

    let is_over = || node.status().blocked.is_empty();
    runtime.block_on(visit(&place, &node, &peer, agreement, is_over));
    assert!(is_over());
    node.close();
}
