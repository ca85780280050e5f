//! `verify` passes what the store made and names what somebody else made of it; `inspect` reads beside the engine.

mod common;

use common::{Node, Remote};
use entgldb_replica::store::{ProblemKind, Store};
use entgldb_sqlite::inspect::Inspector;
use entgldb_sqlite::{OpenError, Report, VerifyError, verify};

const SCHEMA: &str = "CREATE TABLE t(k TEXT PRIMARY KEY, v TEXT UNIQUE, n INTEGER CHECK (n < 100)); CREATE TABLE c(k TEXT PRIMARY KEY, t TEXT REFERENCES t(k))";

fn check(node: &Node) -> Report {
    verify(&node.path, &mut |_| {}).unwrap()
}

/// A node with own and remote entries, deletes, documents that do not fit, and some that are set aside.
fn lived_in() -> Node {
    let mut a = Node::new(1, SCHEMA, &["t", "c"]);
    a.sql("INSERT INTO t VALUES('own', 'a', 1), ('gone', 'b', 2), ('edited', 'c', 3); INSERT INTO c VALUES('child', 'own')");
    a.capture();
    a.sql("DELETE FROM t WHERE k = 'gone'; UPDATE t SET n = 4 WHERE k = 'edited'");
    a.capture();
    let mut remote = Remote::new(9);
    let later = 1 << 60;
    a.receive(&mut remote, "t", "far", Some(r#"{"k":"far","n":true,"v":"far","other":[1, 2]}"#), later);
    a.receive(&mut remote, "t", "no", Some(r#"{"k":"no","n":500,"v":null}"#), later + 1);
    a.receive(&mut remote, "t", "collides", Some(r#"{"k":"collides","n":1,"v":"far"}"#), later - 1);
    a.receive(&mut remote, "t", "dead", None, later + 2);
    a.receive(&mut remote, "c", "orphan", Some(r#"{"k":"orphan","t":"nobody"}"#), later + 3);
    a
}

#[test]
fn a_store_that_has_lived_is_clean_and_what_is_odd_is_noted() {
    let a = lived_in();
    let report = check(&a);
    assert!(report.is_clean(), "{:?}", report.faults);
    assert_eq!((report.entries, report.rows), (11, 9));
    assert!(report.signatures >= 7);
    let notes = report.notes.join("\n");
    for part in ["\"no\"", "\"collides\"", "\"orphan\" of \"c\" refers to a row of \"t\""] {
        assert!(notes.contains(part), "{part} in {notes}");
    }
    assert_eq!(report.notes_total, 3);
    a.sql("INSERT INTO t VALUES('waits', NULL, 1)");
    let report = check(&a);
    assert!(report.is_clean());
    assert!(report.notes.iter().any(|note| note.contains("wait to be captured")));
}

#[test]
fn a_column_added_here_is_no_fault() {
    let a = lived_in();
    a.sql("ALTER TABLE t ADD COLUMN added TEXT DEFAULT 'x'");
    assert_eq!(check(&a).faults, vec![]);
}

#[test]
fn every_kind_of_tampering_is_named() {
    let quiet = "PRAGMA foreign_keys = OFF; INSERT INTO _entgldb_applying VALUES(1); ";
    let cases = [
        ("UPDATE _entgldb_oplog SET payload = '{}' WHERE key = 'own'", "altered"),
        ("UPDATE _entgldb_oplog SET key = 'x' WHERE key = 'own'", "altered"),
        ("DELETE FROM _entgldb_oplog WHERE id = (SELECT min(id) FROM _entgldb_oplog)", "missing"),
        (
            "UPDATE _entgldb_signed SET signature = zeroblob(64) WHERE id = (SELECT min(id) FROM _entgldb_signed)",
            "not the author's",
        ),
        ("DELETE FROM _entgldb_signed WHERE id = (SELECT max(id) FROM _entgldb_signed)", "not covered"),
        ("UPDATE _entgldb_logs SET hash = zeroblob(32) WHERE no = 1", "head"),
        ("UPDATE _entgldb_rows SET hlc = hlc - 1 WHERE key = 'own'", "younger than its document's row"),
        ("UPDATE _entgldb_rows SET hash = zeroblob(32) WHERE key = 'own'", "content hash"),
        ("DELETE FROM _entgldb_rows WHERE key = 'dead'", "younger"),
        ("UPDATE _entgldb_collections SET fingerprint = zeroblob(32)", "fingerprint"),
        ("UPDATE t SET n = 50 WHERE k = 'own'", "not what the document says"),
        ("DELETE FROM t WHERE k = 'own'", "no row for the document"),
        ("INSERT INTO t VALUES('gone', NULL, 1)", "deleted, but"),
        ("INSERT INTO t VALUES('stranger', NULL, 1)", "never captured"),
        (
            "UPDATE _entgldb_rows SET extra = replace(extra, '[1, 2]', '[1, 3]') WHERE key = 'far'",
            "kept beside the row",
        ),
        ("UPDATE _entgldb_rows SET extra = '{' WHERE key = 'far'", "kept beside the row"),
        ("UPDATE _entgldb_set_aside SET content = CAST('{}' AS BLOB) WHERE key = 'no'", "what is set aside"),
        (
            "UPDATE _entgldb_rows SET extra = replace(extra, '\"u\"', '\"U\"') WHERE key = 'far'",
            "kept beside the row",
        ),
        ("UPDATE _entgldb_set_aside SET hlc = hlc + 1 WHERE key = 'no'", "what is set aside"),
        ("UPDATE _entgldb_logs SET hlc = hlc - 1 WHERE no = 1", "another time than its head"),
        ("UPDATE _entgldb_meta SET name = 'formau' WHERE name = 'format'", "do not say their format"),
        ("UPDATE _entgldb_meta SET name = 'ownes' WHERE name = 'owner'", "\"ownes\" that no engine writes"),
        ("UPDATE _entgldb_meta SET value = 1 WHERE name = 'clock'", "clock is behind"),
        ("UPDATE _entgldb_meta SET value = 1 << 62 WHERE name = 'clock'", "clock is ahead"),
        (
            "DROP TRIGGER _entgldb_update_1; CREATE TRIGGER _entgldb_update_1 AFTER UPDATE ON t BEGIN SELECT 1; END",
            "triggers are not as",
        ),
        (
            "PRAGMA writable_schema = ON; UPDATE sqlite_schema SET sql = replace(sql, 'message TEXT', 'message CLOB') WHERE name = '_entgldb_problems'",
            "not as the engine makes it",
        ),
    ];
    for (sql, what) in cases {
        let a = lived_in();
        a.sql(&format!("{quiet}{sql}; DELETE FROM _entgldb_applying"));
        let report = check(&a);
        assert!(!report.is_clean(), "{sql}");
        assert!(report.faults.iter().any(|fault| fault.what.contains(what)), "{sql}: {:?}", report.faults);
    }
}

/// The number of a row as SQLite writes it in a file.
fn varint(number: u64) -> Vec<u8> {
    let mut bytes: Vec<u8> = (0..9).map(|at| (number >> (7 * at)) as u8 & 0x7f | 0x80).collect();
    bytes[0] &= 0x7f;
    while bytes.last() == Some(&0x80) {
        bytes.pop();
    }
    bytes.reverse();
    bytes
}

#[test]
fn entries_that_lead_in_circles_are_a_fault_and_not_the_end_of_all_verifying() {
    let a = lived_in();
    a.sql("PRAGMA wal_checkpoint(TRUNCATE)");
    let longest =
        a.query("SELECT id >> 40, count(*) FROM _entgldb_oplog GROUP BY 1 ORDER BY 2 DESC LIMIT 1").remove(0);
    let (log, entries) = longest.split_once('|').unwrap();
    let id = |seq: u64| varint((log.parse::<u64>().unwrap() << 40) + seq);
    let (first, last) = (id(1), id(entries.parse().unwrap()));
    assert!(first < last);
    let mut bytes = std::fs::read(&a.path).unwrap();
    for at in 0..bytes.len() - last.len() {
        if bytes[at..].starts_with(&last) {
            bytes[at..at + last.len()].copy_from_slice(&first);
        }
    }
    let path = a.folder.path().join("circles.db");
    std::fs::write(&path, bytes).unwrap();
    let (sender, done) = std::sync::mpsc::channel();
    std::thread::spawn(move || sender.send(verify(&path, &mut |_| {}).map(|report| report.faults)));
    let faults = done.recv_timeout(std::time::Duration::from_secs(60)).expect("it comes to an end");
    assert!(faults.is_ok_and(|faults| faults.iter().any(|fault| fault.what.contains("out of order"))));
}

#[test]
fn a_fault_names_log_position_and_key() {
    let a = lived_in();
    a.sql("UPDATE _entgldb_oplog SET payload = '{\"k\":\"own\"}' WHERE key = 'own'");
    let fault = check(&a).faults.remove(0);
    assert_eq!((fault.seq, fault.key.as_deref()), (Some(1), Some("own")));
    assert!(fault.log.unwrap().ends_with("/t"));
}

#[test]
fn a_database_that_was_never_synced_is_told_apart() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("plain.db");
    assert!(matches!(verify(&path, &mut |_| {}), Err(VerifyError::Open(OpenError::NoSuchFile { .. }))));
    rusqlite::Connection::open(&path).unwrap().execute_batch("CREATE TABLE t(k)").unwrap();
    assert!(matches!(verify(&path, &mut |_| {}), Err(VerifyError::NotAStore)));
    assert!(Inspector::open(&path).unwrap().is_none());
}

#[test]
fn a_look_at_the_store_shows_what_is_there_while_the_engine_has_it_open() {
    let mut a = lived_in();
    a.sql("INSERT INTO t VALUES(NULL, NULL, 1), ('waits', NULL, 1)");
    let mut inspector = Inspector::open(&a.path).unwrap().unwrap();
    let summary = inspector.summary().unwrap();
    assert_eq!(summary.owner.unwrap().0, a.id());
    assert_eq!((summary.outbox, summary.set_aside, summary.problems, summary.conflicts), (2, 2, 0, 0));
    let counts: Vec<_> =
        summary.collections.iter().map(|c| (c.collection.as_str(), c.documents, c.tombstones)).collect();
    assert_eq!(counts, [("c", 2, 0), ("t", 5, 2)]);
    assert!(summary.database_bytes > 0);
    a.capture();
    assert_eq!(inspector.summary().unwrap().problems, 1, "it follows what the engine does");
    let problems = inspector.problems(10).unwrap();
    let mut kinds: Vec<_> = problems
        .iter()
        .map(|problem| (problem.key.as_str(), problem.kind, problem.version.is_some()))
        .collect();
    kinds.sort_by_key(|(key, ..)| (*key).to_owned());
    assert_eq!(
        kinds,
        [
            ("collides", ProblemKind::Collided, true),
            ("no", ProblemKind::SetAside, true),
            ("null", ProblemKind::NotCaptured, false),
            ("orphan", ProblemKind::Dangling, false)
        ]
    );
}

#[test]
fn conflicts_are_listed_reopened_while_uncertain_and_dropped_when_they_are_old() {
    use entgldb_replica::clock::{Hlc, Stamp, WallMillis};
    use entgldb_replica::resolve::{Conflict, Side};
    use entgldb_replica::store::{Commit, Committed, ConflictWrite, Guard};
    let mut a = lived_in();
    let doc = a.store.load().unwrap();
    let (owner, clock) = (doc.owner.unwrap(), doc.clock);
    let stamp = |time: u64| Stamp { hlc: Hlc(time << 32), node: a.author.node_id() };
    let conflict = Conflict {
        doc: (
            entgldb_replica::id::Collection::new("t").unwrap(),
            entgldb_replica::id::Key::new("own").unwrap(),
        ),
        winner: Side { stamp: stamp(9), content: Some(bytes::Bytes::from_static(b"{}")) },
        loser: Side { stamp: stamp(8), content: None },
        missing: Some(stamp(7)),
    };
    let commit = |conflicts| Commit {
        owner,
        guard: Guard::None,
        clock,
        wall: WallMillis(1000),
        appended: vec![],
        authors: vec![],
        rows: vec![],
        tallies: vec![],
        adopted: vec![],
        floors: vec![],
        notes: vec![],
        conflicts,
        drained: None,
        first_copy: None,
    };
    let done = a.store.commit(&commit(vec![ConflictWrite::Put(conflict.clone())])).unwrap();
    assert_eq!(done, Committed::Done(vec![]));
    assert_eq!(a.store.load().unwrap().open_conflicts, std::slice::from_ref(&conflict));
    let certain = Conflict { missing: None, ..conflict.clone() };
    let _ = a.store.commit(&commit(vec![ConflictWrite::Put(certain.clone())])).unwrap();
    assert_eq!(a.store.load().unwrap().open_conflicts, []);
    let mut inspector = Inspector::open(&a.path).unwrap().unwrap();
    let listed = inspector.conflicts(10).unwrap();
    assert_eq!(listed.iter().map(|listed| &listed.conflict).collect::<Vec<_>>(), [&certain]);
    a.store.tend(WallMillis(1000)).unwrap();
    assert_eq!(inspector.conflicts(10).unwrap().len(), 1);
    a.store.tend(WallMillis(1001)).unwrap();
    assert_eq!(inspector.conflicts(10).unwrap().len(), 0);
    let _ = a.store.commit(&commit(vec![ConflictWrite::Put(certain.clone())])).unwrap();
    let remove = ConflictWrite::Remove {
        doc: conflict.doc,
        winner: conflict.winner.stamp,
        loser: conflict.loser.stamp,
    };
    let _ = a.store.commit(&commit(vec![remove])).unwrap();
    assert_eq!(inspector.conflicts(10).unwrap().len(), 0);
}
