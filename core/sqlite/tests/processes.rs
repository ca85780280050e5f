//! Other processes at the same file: an old SQLite that writes, a long writer, a writer that is killed.

mod common;

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use common::{Node, config};
use entgldb_replica::store::{Committed, Store};
use entgldb_sqlite::{SqliteFailed, SqliteStore};

/// Runs a Python program on the database with Python's own SQLite, which is often years old.
fn python(path: &Path, program: &str) -> Option<Child> {
    let child = Command::new("python3").arg("-c").arg(program).arg(path).stdout(Stdio::piped()).spawn();
    match child {
        Ok(child) => Some(child),
        Err(error) => {
            eprintln!("skipped: python3 cannot be run ({error})");
            None
        }
    }
}

const SCHEMA: &str = "CREATE TABLE t(k TEXT PRIMARY KEY, v TEXT, u INTEGER UNIQUE); CREATE TABLE p(a INTEGER, b TEXT, v REAL, PRIMARY KEY(a, b));
    CREATE UNIQUE INDEX part ON t(lower(v)) WHERE u > 10";

#[test]
fn what_a_program_with_an_old_sqlite_writes_is_captured() {
    let (mut a, mut b) = (Node::new(1, SCHEMA, &["t", "p"]), Node::new(2, SCHEMA, &["t", "p"]));
    let program = "import sqlite3, sys
c = sqlite3.connect(sys.argv[1])
for n in range(300):
    c.execute('INSERT INTO t VALUES(?, ?, ?)', (f'k{n}', f'v{n}', n)); c.commit()
c.executemany('INSERT INTO p VALUES(?, ?, ?)', [(n, f\"it's {n}\", n / 3) for n in range(200)]); c.commit()
c.execute(\"INSERT OR REPLACE INTO t VALUES('new', 'V20', 19)\"); c.commit()
c.execute('DELETE FROM t WHERE u > 250'); c.execute(\"UPDATE p SET a = a + 1000 WHERE a < 10\"); c.commit()
c.execute('DELETE FROM p'); c.rollback()
";
    let Some(mut child) = python(&a.path, program) else { return };
    while child.try_wait().unwrap().is_none() {
        a.capture();
    }
    assert!(child.wait().unwrap().success());
    b.pull(&mut a, 1000);
    for sql in ["SELECT * FROM t ORDER BY k", "SELECT * FROM p ORDER BY a, b"] {
        assert_eq!(a.query(sql), b.query(sql));
    }
    assert_eq!(b.query("SELECT count(*), max(u) FROM t"), ["250|250"]);
    assert_eq!(b.query("SELECT count(*) FROM t WHERE k IN ('k19', 'k20')"), ["0"], "REPLACE evicted both");
    assert_eq!((a.problems.len(), b.problems.len()), (0, 0));
}

#[test]
fn after_a_writer_is_killed_every_commit_it_saw_is_captured_and_nothing_else() {
    let mut a = Node::new(1, SCHEMA, &["t", "p"]);
    let program = "import sqlite3, sys, os
c = sqlite3.connect(sys.argv[1], isolation_level=None)
n = 0
while True:
    n += 1
    c.execute('BEGIN'); c.execute('INSERT INTO t VALUES(?, ?, NULL)', (f'{os.getpid()}-{n}', 'x')); c.execute('COMMIT')
    print(n, flush=True)
";
    let mut seen = 0;
    for round in 0..3 {
        let Some(mut child) = python(&a.path, program) else { return };
        let until = Instant::now() + Duration::from_millis(150 + 37 * round);
        while Instant::now() < until {
            a.capture();
        }
        child.kill().unwrap();
        let output = child.wait_with_output().unwrap();
        seen += String::from_utf8_lossy(&output.stdout).lines().count();
        a.reopen();
    }
    a.capture();
    let rows: usize = a.query("SELECT count(*) FROM t")[0].parse().unwrap();
    assert!(rows >= seen && rows <= seen + 3, "at most the last commit of each was not told of");
    assert_eq!(a.authored, rows);
    let report = entgldb_sqlite::verify(&a.path, &mut |_| {}).unwrap();
    assert_eq!(report.faults, vec![]);
}

#[test]
fn a_locked_database_is_waited_for_and_reported_and_nothing_is_dropped() {
    let mut a = Node::new(1, SCHEMA, &["t", "p"]);
    a.capture();
    let reports = Arc::new(AtomicU32::new(0));
    let counted = reports.clone();
    let mut waiting = config(&a.path, &["t", "p"]);
    waiting.on_busy = Some(Box::new(move |_| {
        counted.fetch_add(1, Ordering::SeqCst);
    }));
    a.store = SqliteStore::open(waiting).unwrap();
    a.sql("INSERT INTO t VALUES('before', 'x', 1)");
    let drain = a.store.captured(&common::limits()).unwrap();
    let unit = a.unit_of(&drain);
    a.sql("BEGIN IMMEDIATE; INSERT INTO t VALUES('held', 'x', 2)");
    let Node { app, mut store, .. } = a;
    let worker = std::thread::spawn(move || {
        let committed = store.commit(&unit).unwrap();
        (store, committed)
    });
    std::thread::sleep(Duration::from_millis(1300));
    assert!(!worker.is_finished());
    app.execute_batch("COMMIT").unwrap();
    let (mut store, committed) = worker.join().unwrap();
    assert_eq!(committed, Committed::Done(vec![]));
    assert!(reports.load(Ordering::SeqCst) >= 1);
    let drain = store.captured(&common::limits()).unwrap();
    let keys: Vec<_> = drain.changes.iter().map(|change| change.doc.1.as_str().to_owned()).collect();
    assert_eq!(keys, ["held"]);
}

#[test]
fn a_wait_for_a_locked_database_ends_when_it_is_told_to_stop() {
    let a = Node::new(1, SCHEMA, &["t", "p"]);
    drop(a.store);
    let stop = Arc::new(AtomicBool::new(false));
    let mut waiting = config(&a.path, &["t", "p"]);
    waiting.stop = stop.clone();
    let mut store = SqliteStore::open(waiting).unwrap();
    a.app.execute_batch("BEGIN IMMEDIATE").unwrap();
    let worker = std::thread::spawn(move || store.captured(&common::limits()));
    std::thread::sleep(Duration::from_millis(50));
    stop.store(true, Ordering::SeqCst);
    assert!(matches!(worker.join().unwrap(), Err(SqliteFailed::Stopped)));
}

#[test]
fn a_crash_between_looking_and_committing_captures_once() {
    let mut a = Node::new(1, SCHEMA, &["t", "p"]);
    a.sql("INSERT INTO t VALUES('x', 'y', 1)");
    let drain = a.store.captured(&common::limits()).unwrap();
    assert!(!drain.changes.is_empty());
    a.reopen();
    a.capture();
    a.reopen();
    a.capture();
    assert_eq!(a.authored, 1);
}
