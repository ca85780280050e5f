//! History goes, rows stay: what is left is enough to check, to give and to go on from.

mod common;

use bytes::Bytes;
use common::{Node, Remote};
use entgldb_replica::clock::WallMillis;
use entgldb_replica::id::{Collection, Incarnation, Key};
use entgldb_replica::member::{Member, document_of};
use entgldb_replica::resolve::Row;
use entgldb_replica::store::{RowWrite, ScanLimits, Store};
use entgldb_replica::version::Hash;
use entgldb_sqlite::{Report, verify};

const SCHEMA: &str = "CREATE TABLE t(k TEXT PRIMARY KEY, v TEXT UNIQUE, n INTEGER CHECK (n < 100))";

fn check(node: &Node) -> Report {
    verify(&node.path, &mut |_| {}).unwrap()
}

fn assert_clean(node: &Node) {
    assert_eq!(check(node).faults, vec![]);
}

/// A node with own rows, remote ones with fields that no column has, deleted ones, and one set aside.
fn lived_in() -> Node {
    let mut a = Node::new(1, SCHEMA, &["t"]);
    a.sql("INSERT INTO t VALUES('own', 'a', 1), ('gone', 'b', 2), ('edited', 'c', 3)");
    a.capture();
    a.sql("DELETE FROM t WHERE k = 'gone'; UPDATE t SET n = 4 WHERE k = 'edited'");
    a.capture();
    let mut remote = Remote::new(9);
    let far = Some(r#"{"k":"far","n":true,"v":"far","other":[1, 2]}"#);
    a.receive(&mut remote, "t", "far", far, 1 << 60);
    a.receive(&mut remote, "t", "no", Some(r#"{"k":"no","n":500,"v":null}"#), (1 << 60) + 1);
    a
}

#[test]
fn entries_go_and_their_rows_are_still_there_to_check_and_to_give() {
    let mut a = lived_in();
    let before = a.scan("t", 2);
    assert_eq!(before.len(), 5);
    a.forget();
    assert_eq!(a.query("SELECT count(*) FROM _entgldb_oplog"), ["0"]);
    assert_eq!(a.query("SELECT count(*) FROM _entgldb_signed"), ["3"], "the heads at the floors stay");
    assert_clean(&a);
    assert_eq!(a.scan("t", 2), before);
    a.reopen();
    assert_eq!(a.scan("t", 100), before);
    for key in ["own", "edited", "far", "no"] {
        assert!(a.content("t", key).is_some(), "{key}: the version that stands is known without its entry");
    }
    assert_eq!(a.content("t", "gone"), None);
}

/// An earlier version took such a head from a snapshot and could not read its own tables any more.
#[test]
fn a_log_whose_head_is_beyond_any_position_is_dropped_and_all_others_go_on() {
    let mut a = lived_in();
    let before = a.scan("t", 100);
    a.sql("UPDATE _entgldb_logs SET seq = 1 << 40, floor = 1 << 40 WHERE no = (SELECT max(no) FROM _entgldb_logs)");
    a.sql("INSERT INTO _entgldb_signed VALUES(0, 1, zeroblob(32), zeroblob(64))");
    let all = a.query("SELECT count(*) FROM _entgldb_logs");
    assert!(check(&a).notes.iter().any(|note| note.contains("beyond any position")));
    a.reopen();
    let left = a.query("SELECT count(*) FROM _entgldb_logs");
    assert_ne!(left, all);
    assert_eq!(a.query("SELECT count(*) FROM _entgldb_signed WHERE id = 0"), ["0"]);
    assert_eq!(a.scan("t", 100), before, "rows stay");
    a.sql("INSERT INTO t VALUES('after', 'z', 9)");
    a.capture();
    let mut remote = Remote::new(8);
    a.receive(&mut remote, "t", "more", Some(r#"{"k":"more","n":1,"v":"more"}"#), (1 << 60) + 5);
    a.reopen();
    assert_eq!(a.scan("t", 100).len(), before.len() + 2);
}

#[test]
fn a_log_goes_on_after_its_beginning_is_forgotten_and_whoever_holds_that_takes_the_rest() {
    let (mut a, mut b) = (Node::new(1, SCHEMA, &["t"]), Node::new(2, SCHEMA, &["t"]));
    a.sql("INSERT INTO t VALUES('one', 'a', 1)");
    b.pull(&mut a, 4096);
    a.forget();
    a.reopen();
    a.sql("INSERT INTO t VALUES('two', 'b', 2); UPDATE t SET n = 5 WHERE k = 'one'");
    b.pull(&mut a, 4096);
    assert_eq!(b.query("SELECT * FROM t ORDER BY k"), ["one|a|5", "two|b|2"]);
    assert_clean(&a);
    assert_clean(&b);
}

#[test]
fn who_joins_by_rows_has_them_all_and_no_deleted_one_and_goes_on_with_history() {
    let mut a = lived_in();
    a.forget();
    let mut b = Node::new(2, SCHEMA, &["t"]);
    b.sql("INSERT INTO t VALUES('local', 'l', 7)");
    b.join(&mut a, "t");
    let rows = "SELECT * FROM t WHERE k <> 'local' ORDER BY k";
    assert_eq!(b.query(rows), a.query(rows));
    assert_eq!(b.scan("t", 3).len(), 6);
    assert_clean(&b);
    a.sql("UPDATE t SET n = 9 WHERE k = 'own'");
    b.pull(&mut a, 4096);
    a.pull(&mut b, 4096);
    assert_eq!(a.query("SELECT * FROM t ORDER BY k"), b.query("SELECT * FROM t ORDER BY k"));
    assert_eq!(b.echo_of("t"), 0, "what came is not captured again");
    assert_clean(&a);
    assert_clean(&b);
}

#[test]
fn history_that_is_held_in_part_is_passed_over_once_a_snapshot_stands_for_it() {
    let (mut a, mut b) = (Node::new(1, SCHEMA, &["t"]), Node::new(2, SCHEMA, &["t"]));
    a.sql("INSERT INTO t VALUES('one', 'a', 1)");
    b.pull(&mut a, 4096);
    a.sql("INSERT INTO t VALUES('two', 'b', 2)");
    a.capture();
    a.forget();
    b.join(&mut a, "t");
    assert_clean(&b);
    b.store.tend(WallMillis(0)).unwrap();
    assert_eq!(b.query("SELECT count(*) FROM _entgldb_oplog"), ["0"]);
    assert_clean(&b);
}

#[test]
fn a_row_that_the_application_has_changed_since_waits_for_its_capture() {
    let mut a = lived_in();
    a.forget();
    a.sql("UPDATE t SET n = 50 WHERE k = 'own'; INSERT INTO t VALUES('gone', NULL, 1)");
    let (t, limits) = (Collection::new("t").unwrap(), ScanLimits { rows: 10, bytes: usize::MAX });
    let scan = a.store.scan(&t, None, &limits).unwrap();
    let keys: Vec<&str> = scan.documents.iter().map(|document| document.key.as_str()).collect();
    assert_eq!((keys, scan.more, scan.moved), (vec!["edited", "far"], false, true));
    let stamp = scan.documents[0].row.stamp;
    let own = (t.clone(), Key::new("own").unwrap());
    assert_eq!(a.store.version(&own, &stamp).unwrap(), None, "its content is nowhere any more");
    a.capture();
    assert_eq!(a.scan("t", 10).len(), 5);
    assert_clean(&a);
}

#[test]
fn a_scan_gives_a_bounded_piece_and_at_least_one_row() {
    let mut a = lived_in();
    let t = Collection::new("t").unwrap();
    let scan = a.store.scan(&t, None, &ScanLimits { rows: 10, bytes: 1 }).unwrap();
    assert_eq!((scan.documents.len(), scan.more), (1, true));
    let scan = a.store.scan(&t, None, &ScanLimits { rows: 5, bytes: usize::MAX }).unwrap();
    assert_eq!((scan.documents.len(), scan.more), (5, false));
}

#[test]
fn columns_that_come_and_go_do_not_keep_forgotten_documents_back() {
    let mut a = lived_in();
    let before = a.scan("t", 10);
    a.forget();
    a.sql("ALTER TABLE t ADD COLUMN added TEXT DEFAULT 'x'; ALTER TABLE t ADD COLUMN more");
    assert_eq!(a.scan("t", 10), before, "nobody has set the new columns");
    assert_clean(&a);
    let authored = a.authored;
    a.sql("DROP TRIGGER _entgldb_update_1; DROP TRIGGER _entgldb_before_update_1; DROP TRIGGER _entgldb_before_insert_1; ALTER TABLE t DROP COLUMN n");
    a.reopen();
    let after = a.scan("t", 10);
    assert_eq!(after.len(), 5);
    assert_eq!(a.authored - authored, 3, "documents lost a field, which is a change like any other");
    assert_clean(&a);
}

#[test]
fn keys_come_in_the_order_of_their_bytes_however_the_database_writes_text() {
    for encoding in ["UTF-8", "UTF-16le", "UTF-16be"] {
        let schema = format!("PRAGMA encoding = '{encoding}'; CREATE TABLE t(k TEXT PRIMARY KEY)");
        let mut a = Node::new(1, &schema, &["t"]);
        let mut keys = vec!["a", "b", "Z", "10", "9", "é", "\u{ff61}", "😀", "\u{100}", "z"];
        for key in &keys {
            a.app.execute("INSERT INTO t VALUES(?1)", [key]).unwrap();
        }
        a.capture();
        a.forget();
        keys.sort_unstable();
        let scanned = a.scan("t", 3);
        let scanned: Vec<&str> = scanned.iter().map(|document| document.key.as_str()).collect();
        assert_eq!(scanned, keys, "{encoding}");
    }
}

#[test]
fn the_file_does_not_grow_under_a_steady_load_while_history_is_forgotten() {
    let mut a = Node::new(1, SCHEMA, &["t"]);
    let mut rounds = Vec::new();
    for round in 0..30 {
        for row in 0..100 {
            a.sql(&format!(
                "INSERT INTO t VALUES('k{row}', 'v{row}', {round}) ON CONFLICT(k) DO UPDATE SET n = excluded.n"
            ));
        }
        a.capture();
        a.forget();
        rounds.push(a.query("PRAGMA page_count")[0].parse::<u64>().unwrap());
    }
    assert!(rounds[29] <= rounds[2], "pages after each round: {rounds:?}");
    assert_clean(&a);
}

#[test]
fn a_file_whose_application_wants_its_room_back_gets_smaller() {
    let schema = format!("PRAGMA auto_vacuum = INCREMENTAL; {SCHEMA}");
    let mut a = Node::new(1, &schema, &["t"]);
    for row in 0..3000 {
        a.sql(&format!("INSERT INTO t VALUES('k{row}', '{}', 1)", format!("{row} ").repeat(200)));
        if row % 1000 == 0 {
            a.capture();
        }
    }
    a.capture();
    a.sql("DELETE FROM t");
    a.capture();
    let before = a.query("PRAGMA page_count")[0].parse::<u64>().unwrap();
    for _ in 0..4 {
        a.forget();
    }
    let after = a.query("PRAGMA page_count")[0].parse::<u64>().unwrap();
    assert!(after < before / 2, "{before} pages before, {after} after");
    assert_clean(&a);
}

#[test]
fn every_kind_of_tampering_with_what_is_left_is_named() {
    let quiet = "INSERT INTO _entgldb_applying VALUES(1); ";
    let cases = [
        ("UPDATE t SET n = 50 WHERE k = 'own'", "content hash"),
        ("DELETE FROM t WHERE k = 'own'", "no row for the document"),
        ("INSERT INTO t VALUES('gone', NULL, 1)", "deleted, but"),
        (
            "UPDATE _entgldb_rows SET extra = replace(extra, '[1, 2]', '[1, 3]') WHERE key = 'far'",
            "content hash",
        ),
        ("UPDATE _entgldb_rows SET extra = '{' WHERE key = 'far'", "kept beside the row"),
        ("UPDATE _entgldb_set_aside SET content = CAST('{}' AS BLOB) WHERE key = 'no'", "what is set aside"),
        ("UPDATE _entgldb_rows SET hash = zeroblob(32) WHERE key = 'own'", "content hash"),
        ("UPDATE _entgldb_rows SET hlc = hlc - 1 WHERE key = 'own'", "fingerprint"),
        ("DELETE FROM _entgldb_rows WHERE key = 'gone'", "number of rows"),
        ("UPDATE _entgldb_collections SET row_count = row_count + 1", "number of rows"),
        ("UPDATE _entgldb_logs SET floor = floor - 1 WHERE no = 1", "where the log begins"),
        ("UPDATE _entgldb_logs SET floor = floor + 1 WHERE no = 1", "where the log begins"),
        ("UPDATE _entgldb_logs SET floor_hlc = floor_hlc + 1 WHERE no = 1", "where the log begins"),
        ("UPDATE _entgldb_signed SET hash = zeroblob(32)", "not the author's"),
        ("DELETE FROM _entgldb_signed", "where the log begins"),
        ("UPDATE _entgldb_notes SET value = CAST('othex' AS BLOB)", "note \"mine\" was altered"),
        ("UPDATE _entgldb_notes SET name = 'yours'", "note \"yours\" was altered"),
        ("UPDATE _entgldb_members SET content = zeroblob(3)", "member's document"),
        ("DELETE FROM _entgldb_members", "member's document"),
    ];
    for (sql, what) in cases {
        let mut a = lived_in();
        a.forget();
        write_member(&mut a);
        a.commit_with(|commit| commit.notes = vec![("mine".into(), Some(Bytes::from_static(b"other")))]);
        assert_clean(&a);
        a.sql(&format!("{quiet}{sql}; DELETE FROM _entgldb_applying"));
        let report = check(&a);
        assert!(report.faults.iter().any(|fault| fault.what.contains(what)), "{sql}: {:?}", report.faults);
    }
}

fn write_member(a: &mut Node) {
    let doc = document_of(&a.id());
    let member = Member {
        name: "a".into(),
        incarnation: Incarnation(1),
        interests: [Collection::new("t").unwrap()].into(),
        acknowledged: Default::default(),
        removed: false,
    };
    let content = member.encode();
    let mut drain = entgldb_replica::store::Drain::default();
    let written = WallMillis(1);
    drain.changes.push(entgldb_replica::store::Change { doc, content: Some(content.clone()), written });
    let mut unit = a.unit_of(&drain);
    for RowWrite { apply, .. } in &mut unit.rows {
        *apply = Some(Some(content.clone()));
    }
    a.commit_with(|commit| *commit = unit);
}

#[test]
fn members_documents_and_notes_are_the_engines_own_and_survive() {
    let mut a = lived_in();
    write_member(&mut a);
    let note = ("mine".to_owned(), Bytes::from_static(b"note"));
    a.commit_with(|commit| commit.notes = vec![(note.0.clone(), Some(note.1.clone()))]);
    a.reopen();
    assert_eq!(a.store.load().unwrap().notes, [note]);
    a.forget();
    let members = a.scan("_entgldb_members", 10);
    assert_eq!(members.len(), 1);
    assert_eq!(
        members[0].row,
        Row {
            stamp: members[0].row.stamp,
            content: Some(Hash(entgldb_replica::id::sha256(members[0].content.as_ref().unwrap()))),
        }
    );
    assert_clean(&a);
    a.commit_with(|commit| commit.notes = vec![("mine".into(), None)]);
    assert_eq!(a.store.load().unwrap().notes, []);
}

#[test]
fn tables_of_the_format_before_are_brought_up_to_this_one() {
    let mut a = lived_in();
    a.sql(
        "ALTER TABLE _entgldb_collections DROP COLUMN row_count; ALTER TABLE _entgldb_logs DROP COLUMN floor;
         ALTER TABLE _entgldb_logs DROP COLUMN floor_hlc; DROP TABLE _entgldb_notes; DROP TABLE _entgldb_members;
         ALTER TABLE _entgldb_rows DROP COLUMN shown; ALTER TABLE _entgldb_problems DROP COLUMN shown;
         ALTER TABLE _entgldb_outbox DROP COLUMN found; DROP TABLE _entgldb_held; DROP TABLE _entgldb_late;
         UPDATE _entgldb_meta SET value = 2 WHERE name = 'format'",
    );
    let found = entgldb_sqlite::inspect::Inspector::open(&a.path).unwrap().unwrap().summary().unwrap();
    assert_eq!(found.collections[0].documents, 4, "an older format can be looked at");
    a.reopen();
    assert_clean(&a);
    assert_eq!(a.store.load().unwrap().tallies[0].1.rows, 5);
    a.forget();
    assert_clean(&a);
}

#[test]
fn a_table_can_be_watched_and_left_alone_while_the_store_is_open() {
    let schema = "CREATE TABLE t(k TEXT PRIMARY KEY); CREATE TABLE Other(k TEXT PRIMARY KEY)";
    let mut a = Node::new(1, schema, &["t"]);
    a.sql("INSERT INTO Other VALUES('before')");
    a.capture();
    assert_eq!(a.authored, 0);
    assert_eq!(a.store.watch("other").unwrap().as_str(), "Other");
    a.capture();
    a.sql("INSERT INTO Other VALUES('watched')");
    a.capture();
    assert_eq!(a.authored, 2);
    a.sql("INSERT INTO Other VALUES('noted')");
    assert!(a.store.unwatch("other").unwrap());
    a.sql("INSERT INTO Other VALUES('unseen')");
    a.capture();
    assert_eq!((a.authored, a.problems.len()), (2, 0));
    assert!(!a.store.unwatch("other").unwrap());
    let triggers = "SELECT count(*) FROM sqlite_schema WHERE type = 'trigger' AND tbl_name = 'Other'";
    assert_eq!(a.query(triggers), ["0"]);
    a.store.watch("Other").unwrap();
    a.capture();
    assert_eq!(a.authored, 4, "what was written meanwhile is found");
    assert!(a.store.watch("none").is_err());
    a.sql("INSERT INTO t VALUES('still')");
    a.capture();
    assert_eq!(a.authored, 5);
    assert_clean(&a);
}
