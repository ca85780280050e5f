//! One bit of a database's file is flipped, anywhere. It is detected or changes nothing, and no peer takes what it changed.
//!
//! `ENTGLDB_BIT_FLIPS` says how often, each time another bit of the same sound file; `ENTGLDB_SEED` repeats a run.

mod common;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use common::{Node, Remote, config};
use entgldb_replica::clock::Hlc;
use entgldb_replica::entry::{Chain, Entry};
use entgldb_replica::id::{LogId, NodeId, sha256};
use entgldb_replica::store::{ReadLimits, Store};
use entgldb_replica::version::{Head, Seq};
use entgldb_sqlite::{SqliteStore, verify};
use rusqlite::Connection;
use rusqlite::types::ValueRef;

const SCHEMA: &str =
    "CREATE TABLE t(k TEXT PRIMARY KEY, v TEXT UNIQUE, n INTEGER CHECK (n < 100), r REAL, b BLOB);
    CREATE TABLE c(k TEXT, line INTEGER, t TEXT REFERENCES t(k), PRIMARY KEY(k, line)) WITHOUT ROWID;
    CREATE INDEX by_n ON t(n)";
const WATCH: [&str; 2] = ["t", "c"];
/// Flips in a quick run.
const FLIPS: usize = 100;

fn setting(name: &str) -> Option<u64> {
    std::env::var(name).ok().and_then(|value| value.parse().ok())
}

/// A database that has seen everything: own and remote entries, history that is forgotten, deletes, rows set aside, notes,
/// free pages.
fn sound(folder: &Path) -> PathBuf {
    let mut a = Node::new(1, SCHEMA, &WATCH);
    for n in 0..60 {
        a.sql(&format!(
            "INSERT INTO t VALUES('key {n}', 'text {n} {}', {n}, {n} / 8.0, randomblob({}));
             INSERT INTO c VALUES('key {n}', {n}, 'key {n}')",
            "long ".repeat(n % 7 * 40),
            n * 3
        ));
        if n % 10 == 0 {
            a.capture();
        }
    }
    a.capture();
    a.sql("DELETE FROM c WHERE line < 20; DELETE FROM t WHERE n < 20; UPDATE t SET r = 0.5 WHERE n > 50");
    a.capture();
    a.forget();
    a.sql("UPDATE t SET r = 0.25 WHERE n > 55; DELETE FROM c WHERE line = 30");
    a.capture();
    a.commit_with(|commit| commit.notes = vec![("a note".into(), Some(vec![7; 200].into()))]);
    let mut remote = Remote::new(9);
    for n in 0..30 {
        let content = format!(r#"{{"k":"far {n}","n":{n},"v":"far {n}","other":[1, {n}]}}"#);
        a.receive(&mut remote, "t", &format!("far {n}"), Some(&content), (1 << 60) + n);
    }
    a.receive(&mut remote, "t", "no", Some(r#"{"k":"no","n":500,"v":null}"#), (1 << 60) + 100);
    a.receive(&mut remote, "t", "dead", None, (1 << 60) + 101);
    let path = folder.join("sound.db");
    a.app.execute("VACUUM INTO ?1", [path.to_str().unwrap()]).unwrap();
    let copy = Connection::open(&path).unwrap();
    copy.execute_batch(
        "PRAGMA journal_mode = WAL; CREATE TABLE gone AS SELECT * FROM t; DROP TABLE gone;
             DELETE FROM _entgldb_meta WHERE name = 'token'",
    )
    .unwrap();
    copy.close().unwrap();
    path
}

/// Everything that SQL shows: the schema and every row of every table.
fn content(path: &Path) -> rusqlite::Result<BTreeMap<String, Vec<String>>> {
    let connection = Connection::open(path)?;
    let mut found = BTreeMap::new();
    let mut names = connection.prepare("SELECT name FROM sqlite_schema WHERE type = 'table'")?;
    let names: Vec<String> = names.query_map([], |row| row.get(0))?.collect::<Result<_, _>>()?;
    for name in names {
        let columns = match name.as_str() {
            // Which of the entries that are forgotten it was says nothing any more.
            "_entgldb_rows" => {
                "collection_no, key, hlc, author_no, hash, iif((SELECT floor FROM _entgldb_logs WHERE no = entry >> 40)
                 >= entry & ((1 << 40) - 1), NULL, entry)"
            }
            // Half a stamp is read as none.
            "_entgldb_oplog" => {
                "id, hlc, iif(replaces_author_no IS NULL, NULL, replaces_hlc),
                 iif(replaces_hlc IS NULL, NULL, replaces_author_no), op, key, hash, payload"
            }
            "_entgldb_set_aside" => "collection_no, key, hlc, author_no, content",
            _ => "*",
        };
        found.insert(name.clone(), rows(&connection, &format!("SELECT {columns} FROM \"{name}\""))?);
    }
    let kept = "SELECT collection_no, key, json_extract(extra, '$.u'), json_extract(extra, '$.l') FROM _entgldb_rows";
    found.insert("fields without columns".to_owned(), rows(&connection, kept)?);
    found.insert(
        "extras".to_owned(),
        rows(&connection, "SELECT collection_no, key, extra FROM _entgldb_rows")?,
    );
    let why = "SELECT key, collided, blocker, message, table_hash, noted_at FROM _entgldb_set_aside";
    found.insert("why it is set aside".to_owned(), rows(&connection, why)?);
    found.insert("schema".to_owned(), rows(&connection, "SELECT type, name, sql FROM sqlite_schema")?);
    Ok(found)
}

fn rows(connection: &Connection, sql: &str) -> rusqlite::Result<Vec<String>> {
    let mut statement = connection.prepare(sql)?;
    let columns = statement.column_count();
    let mut rows = statement.query([])?;
    let mut found = Vec::new();
    while let Some(row) = rows.next()? {
        let values: rusqlite::Result<Vec<String>> =
            (0..columns).map(|column| Ok(shown(row.get_ref(column)?))).collect();
        found.push(values?.join("|"));
    }
    found.sort();
    Ok(found)
}

fn shown(value: ValueRef<'_>) -> String {
    match value {
        ValueRef::Text(text) => format!("{:?}", String::from_utf8_lossy(text)),
        other => format!("{other:?}"),
    }
}

fn sqlite_finds_it(path: &Path) -> bool {
    let check = Connection::open(path).and_then(|connection| {
        connection.query_row("PRAGMA integrity_check", [], |row| row.get::<_, String>(0))
    });
    check.map_or(true, |answer| answer != "ok")
}

/// What a peer that lacks everything would take from this store: whole logs that lead to their signed heads.
fn what_peers_would_take(path: &Path) -> Option<BTreeMap<LogId, Vec<Entry>>> {
    let mut store = SqliteStore::open(config(path, &WATCH)).ok()?;
    let durable = store.load().ok()?;
    let mut taken = BTreeMap::new();
    for (log, head, _) in &durable.heads {
        let limits = ReadLimits { until: Hlc(u64::MAX >> 1), entries: 100_000, bytes: usize::MAX };
        let floor = durable.floors.iter().find(|(floor, ..)| floor == log);
        let (floor, hlc) = floor.map_or((Seq(0), Hlc::default()), |(_, seq, hlc)| (*seq, *hlc));
        let Ok(stored) = store.read_log(log, floor, &limits) else { continue };
        let hash = store.hash_at(log, floor).ok().flatten().unwrap_or_default();
        let mut chain = Chain::resume(log.clone(), Head { seq: floor, hash }, hlc);
        let entries: Vec<Entry> = stored.into_iter().map(|stored| stored.entry).collect();
        if !entries.iter().all(|entry| chain.link(entry.clone()).is_ok()) {
            continue;
        }
        let key = durable.authors.iter().find(|key| NodeId::of(key) == log.author);
        if let (Some(key), Ok(Some(signed))) = (key, store.signed_until(log, head.seq))
            && signed.head == chain.head()
            && signed.verify(log, key).is_ok()
        {
            taken.insert(log.clone(), entries);
        }
    }
    Some(taken)
}

/// What verify can't check, because nothing else says it: who the engine takes itself for (if it is wrong, the next start
/// begins a new incarnation); of what a row can't hold, the white space and which columns were not set; why a document is
/// set aside, in words; and what the application itself wrote into its schema.
fn no_data_is_in(difference: &str) -> bool {
    let begins = [
        r#"_entgldb_meta: "owner"|"#,
        r#"_entgldb_meta: "incarnation"|"#,
        "extras: ",
        "why it is set aside: ",
    ];
    let is_own_schema = difference.starts_with("schema: ") && !difference.contains("_entgldb_");
    is_own_schema || begins.iter().any(|begin| difference.starts_with(begin))
}

/// Which of the tables show something else than they did, with an example of each.
fn differences(
    sound: &BTreeMap<String, Vec<String>>,
    flipped: &BTreeMap<String, Vec<String>>,
) -> Vec<String> {
    let differs = |(name, rows): &(&String, &Vec<String>)| flipped.get(*name) != Some(*rows);
    let tell = |(name, rows): (&String, &Vec<String>)| {
        let now = flipped.get(name).and_then(|now| now.iter().find(|row| !rows.contains(row)));
        format!("{name}: {}", now.map_or("a row is missing", |row| row))
    };
    sound.iter().filter(differs).map(tell).collect()
}

/// The database before anything was flipped.
struct Sound {
    bytes: Vec<u8>,
    content: BTreeMap<String, Vec<String>>,
    notes: Vec<String>,
    offered: BTreeMap<LogId, Vec<Entry>>,
}

impl Sound {
    fn new(folder: &Path) -> Self {
        let path = sound(folder);
        let report = verify(&path, &mut |_| {}).unwrap();
        assert!(report.is_clean() && !sqlite_finds_it(&path), "{:?}", report.faults);
        let (bytes, content) = (std::fs::read(&path).unwrap(), content(&path).unwrap());
        let offered = what_peers_would_take(&path).unwrap();
        assert!(offered.len() > 30, "a sound store is taken whole");
        Self { bytes, content, notes: report.notes, offered }
    }

    /// How a flipped bit comes to light, in words; the error is what it changed unseen.
    fn fate(&self, path: &Path) -> Result<&'static str, Vec<String>> {
        if !verify(path, &mut |_| {}).is_ok_and(|report| report.is_clean() && report.notes == self.notes) {
            return Ok("found by verify");
        }
        if sqlite_finds_it(path) {
            return Ok("found by SQLite");
        }
        let now = content(path).map_err(|error| vec![error.to_string()])?;
        let differences = differences(&self.content, &now);
        match &differences[..] {
            [] => Ok("in unused bytes"),
            some if some.iter().all(|difference| no_data_is_in(difference)) => Ok("where no data is"),
            _ => Err(differences),
        }
    }
}

#[test]
fn a_flipped_bit_is_detected_or_harmless_and_never_spreads() {
    let folder = tempfile::tempdir().unwrap();
    let sound = Sound::new(folder.path());
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos();
    let seed = setting("ENTGLDB_SEED").unwrap_or((now & 0xffff_ffff) as u64);
    let flips = setting("ENTGLDB_BIT_FLIPS").map_or(FLIPS, |flips| flips as usize);
    let (mut fates, mut unseen) = (BTreeMap::<&str, usize>::new(), Vec::new());
    for flip in 0..flips {
        let drawn = sha256(format!("{seed} {flip}").as_bytes());
        let place = u64::from_be_bytes(drawn[..8].try_into().unwrap()) as usize % (sound.bytes.len() * 8);
        let told = format!("seed {seed}, flip {flip}, bit {place}");
        let mut flipped = sound.bytes.clone();
        flipped[place / 8] ^= 1 << (place % 8);
        let path = folder.path().join(format!("{flip}.db"));
        std::fs::write(&path, &flipped).unwrap();
        match sound.fate(&path) {
            Ok(fate) => *fates.entry(fate).or_default() += 1,
            Err(differences) => unseen.push(format!("{told}: {differences:?}")),
        }
        for (log, entries) in what_peers_would_take(&path).unwrap_or_default() {
            assert_eq!(sound.offered.get(&log), Some(&entries), "{told}: peers would take it");
        }
        for suffix in ["", "-wal", "-shm"] {
            let _ = std::fs::remove_file(folder.path().join(format!("{flip}.db{suffix}")));
        }
    }
    eprintln!("seed {seed}, {flips} flips in {} bytes: {fates:?}", sound.bytes.len());
    assert_eq!(unseen, Vec::<String>::new());
}
