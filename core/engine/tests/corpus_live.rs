//! Session messages that are damaged in hundreds of ways, sent to a running node by a member of its cluster, while an
//! honest member writes. The node neither stops nor grows, and the honest member's rows arrive.

#![allow(clippy::print_stdout, reason = "it tells what was measured")]

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use bytes::Bytes;
use entgldb::{ClusterSecret, Config, Durability, Node};
use entgldb_net::fuzzing::{Member, frame};
use entgldb_net::{Identity, NetConfig};
use entgldb_replica::id::Collection;
use entgldb_replica::wire::Message;
use rusqlite::Connection;
use tokio::time::timeout;

const PATIENCE: Duration = Duration::from_secs(60);
const CASES_MIN: usize = 300;
/// What all of it together may leave behind.
const GROWTH_BYTES_MAX: usize = 16 << 20;
/// Cases after which memory is measured for the first time: by then everything has been used once.
const WARM_UP: usize = 50;
/// Places at which each message is damaged, about.
const DAMAGES_PER_MESSAGE: usize = 20;

/// Messages as they are on a link: the type, then the body.
fn messages() -> Vec<(String, Vec<u8>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/seeds/wire");
    let mut paths: Vec<PathBuf> = fs::read_dir(folder).unwrap().map(|file| file.unwrap().path()).collect();
    paths.sort();
    let name = |path: &Path| path.file_name().unwrap().to_string_lossy().into_owned();
    paths.iter().map(|path| (name(path), about_our_table(fs::read(path).unwrap()))).collect()
}

/// A hello names the table that the node syncs; other messages stay as they are.
fn about_our_table(message: Vec<u8>) -> Vec<u8> {
    let body = Bytes::copy_from_slice(&message[1..]);
    let Ok(Some(Message::Hello(mut hello))) = Message::decode(message[0].into(), body) else {
        return message;
    };
    hello.interests = vec![Collection::new("t").unwrap()];
    [&message[..1], &Message::Hello(hello).encode().1].concat()
}

fn as_frame(message: &[u8]) -> Vec<u8> {
    frame(message[0].into(), None, message.len() - 1, &message[1..])
}

/// What is sent over one link each, after a true hello or instead of it.
fn cases() -> Vec<Vec<u8>> {
    let messages = messages();
    let hello = &messages.iter().find(|(name, _)| name == "hello").unwrap().1;
    let mut cases = Vec::new();
    for (name, message) in &messages {
        let body = message.len() - 1;
        let step = (body / DAMAGES_PER_MESSAGE).max(1);
        for at in (1..=body).step_by(step) {
            let mut flipped = message.clone();
            flipped[at] ^= 1 << (at % 8);
            let mut extended = message.clone();
            extended.splice(at..at, [0xff; 9]);
            for damaged in [&message[..at], &flipped, &extended] {
                let greeting = if name == "hello" { Vec::new() } else { as_frame(hello) };
                cases.push([greeting, as_frame(damaged)].concat());
            }
        }
        // Right, but not now.
        cases.push(if name == "hello" { as_frame(hello).repeat(2) } else { as_frame(message) });
    }
    cases
}

/// Bytes that this process holds in memory; `None` where the system does not tell.
fn held() -> Option<usize> {
    let pages: usize = fs::read_to_string("/proc/self/statm").ok()?.split(' ').nth(1)?.parse().ok()?;
    Some(pages * 4096)
}

fn count(app: &Connection) -> i64 {
    app.query_row("SELECT count(*) FROM t", [], |row| row.get(0)).unwrap()
}

fn database(path: &Path) -> Connection {
    let app = Connection::open(path).unwrap();
    app.busy_timeout(PATIENCE).unwrap();
    app.execute_batch("PRAGMA journal_mode = WAL; CREATE TABLE t(id INTEGER PRIMARY KEY, note TEXT)")
        .unwrap();
    app
}

fn config(folder: &Path, name: &str) -> Config {
    let mut config = Config::new(folder.join(name), folder.join("secret"));
    config.watch = vec!["t".to_owned()];
    config.listen = Some("127.0.0.1:0".to_owned());
    config.durability = Durability::Normal;
    config.sync_interval_ms = 200;
    config
}

/// Links up, says it, and hangs up once the node had time to read it, or has hung up itself.
async fn attack(address: SocketAddr, secret: &ClusterSecret, identity: &Identity, bytes: &[u8]) {
    let start = Instant::now();
    let mut member = loop {
        // A node answers so many handshakes of one address in a second.
        match Member::connect(address, &NetConfig::new("attacker", 66), secret, identity).await {
            Ok(member) => break member,
            Err(error) => assert!(start.elapsed() < PATIENCE, "no link any more: {error}"),
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    // It may be closed before we are done.
    let _ = member.send(bytes).await;
    let _ = timeout(Duration::from_millis(20), async { while member.receive().await.is_some() {} }).await;
}

#[test]
fn damaged_messages_of_a_member_harm_nobody() {
    let place = tempfile::tempdir().unwrap();
    let secret = ClusterSecret::generate();
    fs::write(place.path().join("secret"), secret.to_text().as_bytes()).unwrap();
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        fs::set_permissions(place.path().join("secret"), fs::Permissions::from_mode(0o600)).unwrap();
    }
    let here = database(&place.path().join("here.db"));
    let there = database(&place.path().join("there.db"));
    let victim = Node::open(config(place.path(), "here.db")).unwrap();
    let address = victim.local_address().unwrap();
    let mut dials = config(place.path(), "there.db");
    dials.peers = vec![address.to_string()];
    let honest = Node::open(dials).unwrap();

    let cases = cases();
    assert!(cases.len() >= CASES_MIN, "only {} cases", cases.len());
    let (runtime, attacker) = (tokio::runtime::Runtime::new().unwrap(), Identity::generate());
    let mut before = None;
    for (number, bytes) in cases.iter().enumerate() {
        if number == WARM_UP {
            before = held();
        }
        there.execute("INSERT INTO t(note) VALUES ('in the middle of it')", []).unwrap();
        runtime.block_on(attack(address, &secret, &attacker, bytes));
    }
    let growth = held().zip(before).map(|(after, before)| after.saturating_sub(before));
    assert!(growth.is_none_or(|growth| growth < GROWTH_BYTES_MAX), "it holds {growth:?} bytes more");

    let (start, rows) = (Instant::now(), cases.len() as i64);
    while count(&here) < rows {
        assert!(start.elapsed() < PATIENCE, "{} of {rows} rows of the honest member", count(&here));
        std::thread::sleep(Duration::from_millis(10));
    }
    assert_eq!(count(&here), rows, "a row that the honest member did not write");
    drop(honest);
    println!("{} damaged messages, {growth:?} bytes more", cases.len());
}
