//! A member that floods a node with questions that take much work to answer: the others are served all the same.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use entgldb::{ClusterSecret, Config, Durability, Node};
use entgldb_net::{Frame, Identity, NetConfig, NetEvent, SendError, Transport};
use entgldb_replica::clock::WallMillis;
use entgldb_replica::id::{Collection, Incarnation, LinkId};
use entgldb_replica::wire::{Cursor, Hello, Message, Pull, VERSION};
use rusqlite::Connection;

const PATIENCE: Duration = Duration::from_secs(30);
/// Rows of the table: a piece of a snapshot is as large as it can be.
const ROWS: i64 = 4_000;

fn database(path: &Path) -> Connection {
    let app = Connection::open(path).unwrap();
    app.busy_timeout(PATIENCE).unwrap();
    app.execute_batch("PRAGMA journal_mode = WAL; CREATE TABLE t(id INTEGER PRIMARY KEY, note TEXT)")
        .unwrap();
    app
}

fn count(app: &Connection) -> i64 {
    app.query_row("SELECT count(*) FROM t", [], |row| row.get(0)).unwrap()
}

fn wait_for(what: &str, mut done: impl FnMut() -> bool) {
    let start = Instant::now();
    while !done() {
        assert!(start.elapsed() < PATIENCE, "{what}: not within {PATIENCE:?}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Sends, waiting while the queue is full. Answers whether the link still stands.
fn send(net: &Transport, link: LinkId, message: &Message) -> bool {
    let (kind, body) = message.encode();
    loop {
        match net.send(link, Frame { kind, body: body.clone(), compress: false }) {
            Ok(()) => return true,
            Err(SendError::Full) => std::thread::sleep(Duration::from_millis(1)),
            Err(_) => return false,
        }
    }
}

/// Asks for the first rows of a snapshot again and again, and comes back each time that it is cut off, until it is told to stop.
/// Answers how often it has asked.
fn flood(net: &Transport, target: &str, heard: &mpsc::Receiver<LinkId>, stop: &AtomicBool) -> u64 {
    let t = Collection::new("t").unwrap();
    let hello = Message::Hello(Hello {
        version: VERSION,
        incarnation: Incarnation(1),
        interests: vec![t.clone()],
        wall: WallMillis(0),
        frame_bytes_max: 4 << 20,
    });
    let pull = Message::Pull(Pull { collection: t, from: Cursor::Rows(None) });
    let mut sent = 0;
    while !stop.load(Ordering::Relaxed) {
        net.dial(target.to_owned());
        let Ok(link) = heard.recv_timeout(Duration::from_secs(1)) else { continue };
        if !send(net, link, &hello) {
            continue;
        }
        while !stop.load(Ordering::Relaxed) && send(net, link, &pull) {
            sent += 1;
        }
    }
    sent
}

#[test]
fn an_honest_write_gets_through_while_a_member_floods_the_node_with_questions_for_snapshots() {
    let place = tempfile::tempdir().unwrap();
    let path = |name: &str| -> PathBuf { place.path().join(name) };
    let secret = ClusterSecret::generate();
    std::fs::write(path("secret"), secret.to_text().as_bytes()).unwrap();
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        std::fs::set_permissions(path("secret"), std::fs::Permissions::from_mode(0o600)).unwrap();
    }
    let config = |name: &str| {
        let mut config = Config::new(path(name), path("secret"));
        config.watch = vec!["t".to_owned()];
        config.listen = Some("127.0.0.1:0".to_owned());
        config.durability = Durability::Normal;
        config.sync_interval_ms = 200;
        config
    };
    let (here, there) = (database(&path("here.db")), database(&path("there.db")));
    let rows = "WITH n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?1)";
    here.execute(&format!("INSERT INTO t {rows} SELECT i, hex(randomblob(100)) FROM n"), [ROWS]).unwrap();
    let victim = Node::open(config("here.db")).unwrap();
    let mut dials = config("there.db");
    dials.peers = vec![victim.local_address().unwrap().to_string()];
    let honest = Node::open(dials).unwrap();
    wait_for("the first rows", || count(&there) == ROWS);

    let runtime = tokio::runtime::Runtime::new().unwrap();
    let (events, heard) = mpsc::channel();
    let sink = Arc::new(move |event| {
        if let NetEvent::LinkUp { link, .. } = event {
            events.send(link).unwrap();
        }
    });
    let attacker = NetConfig::new("attacker", 66);
    let net = Transport::start(runtime.handle(), &attacker, &secret, &Identity::generate(), sink).unwrap();
    let stop = Arc::new(AtomicBool::new(false));
    let target = victim.local_address().unwrap().to_string();
    let flooding = {
        let (net, stop) = (net.clone(), Arc::clone(&stop));
        std::thread::spawn(move || flood(&net, &target, &heard, &stop))
    };
    let before = victim.status().traffic.frames_in;
    wait_for("the flood", || victim.status().traffic.frames_in > before + 200);
    let mut slowest = Duration::ZERO;
    for number in 1..=20 {
        let begun = Instant::now();
        there.execute("INSERT INTO t(note) VALUES ('in the middle of it')", []).unwrap();
        wait_for("the honest row", || count(&here) == ROWS + number);
        slowest = slowest.max(begun.elapsed());
        std::thread::sleep(Duration::from_millis(50));
    }
    stop.store(true, Ordering::Relaxed);
    let asked = flooding.join().unwrap();
    eprintln!("{asked} questions meanwhile; the slowest honest write took {slowest:?}");
    assert!(slowest < Duration::from_secs(1), "{slowest:?}");
    runtime.block_on(net.shutdown());
    honest.close();
    victim.close();
}
