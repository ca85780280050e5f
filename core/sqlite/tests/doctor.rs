//! Looking a database over before it is synced.

mod common;

use std::path::{Path, PathBuf};

use common::{Node, config};
use entgldb_sqlite::doctor::{Diagnosis, DoctorOptions, TableDiagnosis, Weight, doctor};
use entgldb_sqlite::{OpenError, SqliteStore};
use rusqlite::Connection;
use rusqlite::functions::FunctionFlags;

struct Database {
    _folder: tempfile::TempDir,
    path: PathBuf,
    application: Connection,
}

/// A database as its application made it, which has a collation and a function of its own.
fn database(sql: &str) -> Database {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("app.db");
    let application = Connection::open(&path).unwrap();
    application.create_collation("german", |a, b| a.to_lowercase().cmp(&b.to_lowercase())).unwrap();
    let flags = FunctionFlags::SQLITE_DETERMINISTIC | FunctionFlags::SQLITE_INNOCUOUS;
    application.create_scalar_function("valid", 1, flags, |_| Ok(true)).unwrap();
    application.execute_batch(sql).unwrap();
    Database { _folder: folder, path, application }
}

fn look(path: &Path, watch: &[&str]) -> Result<Diagnosis, OpenError> {
    let watch = watch.iter().map(|name| (*name).to_owned()).collect();
    doctor(path, &DoctorOptions { watch, payload_bytes_max: 1 << 20 }, &mut |_, _, _| {})
}

fn table<'a>(found: &'a Diagnosis, name: &str) -> &'a TableDiagnosis {
    found.tables.iter().find(|table| table.name == name).unwrap_or_else(|| panic!("no {name} in {found:?}"))
}

fn codes(table: &TableDiagnosis) -> Vec<&str> {
    table.findings.iter().map(|finding| finding.code).collect()
}

/// Names and contents of the files in the database's folder.
fn files(database: &Database) -> Vec<(String, Vec<u8>)> {
    let folder = database.path.parent().unwrap();
    let mut found: Vec<_> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .map(|path| (path.file_name().unwrap().to_string_lossy().into_owned(), std::fs::read(&path).unwrap()))
        .collect();
    found.sort();
    found
}

#[test]
fn each_table_is_told_whether_it_can_be_watched_and_why_not() {
    let database = database(
        "CREATE TABLE fine(id TEXT PRIMARY KEY, v); INSERT INTO fine VALUES ('a', 1), ('b', 2);
         CREATE TABLE keyless(a, b); INSERT INTO keyless VALUES (1, 2);
         CREATE TABLE counted(id INTEGER PRIMARY KEY AUTOINCREMENT, v);
         CREATE TABLE numbered(id INTEGER PRIMARY KEY, v);
         CREATE TABLE nulls(id TEXT PRIMARY KEY, v); INSERT INTO nulls VALUES (NULL, 1), (NULL, 2), ('a', 3);
         CREATE TABLE collated(id TEXT COLLATE german PRIMARY KEY);
         CREATE TABLE indexed(id TEXT PRIMARY KEY, v TEXT); CREATE INDEX german_v ON indexed(v COLLATE german);
         CREATE TABLE computed(id TEXT PRIMARY KEY, v, w AS (valid(v)));
         CREATE TABLE checked(id TEXT PRIMARY KEY, v CHECK (valid(v)));
         CREATE TABLE triggered(id TEXT PRIMARY KEY, v);
         CREATE TRIGGER t AFTER INSERT ON triggered BEGIN SELECT valid(NEW.v); END;
         CREATE VIEW shown AS SELECT * FROM fine;
         CREATE VIRTUAL TABLE search USING fts5(v);
         CREATE TABLE \"odd\nname\"(id TEXT PRIMARY KEY);
         CREATE TABLE child(id TEXT PRIMARY KEY, parent REFERENCES gone(id))",
    );
    let found = look(&database.path, &[]).unwrap();
    assert!(!found.ready);
    for (name, watchable, expected) in [
        ("fine", true, &[][..]),
        ("keyless", false, &["no_key"]),
        ("counted", true, &["autoincrement"]),
        ("numbered", true, &["rowid_key"]),
        ("nulls", true, &["null_key"]),
        ("collated", false, &["unknown_collation"]),
        ("indexed", false, &["unknown_collation"]),
        ("computed", false, &["unknown_function"]),
        ("checked", false, &["unknown_function"]),
        ("triggered", false, &["unknown_function"]),
        ("shown", false, &["not_a_table"]),
        ("search", false, &["not_a_table"]),
        ("search_data", false, &["not_a_table"]),
        ("odd\nname", false, &["bad_name"]),
        ("child", true, &["no_parent"]),
    ] {
        let table = table(&found, name);
        assert_eq!((table.watchable, codes(table).as_slice()), (watchable, expected), "{table:?}");
    }
    assert_eq!(table(&found, "fine").rows, Some(2));
    assert_eq!(table(&found, "fine").key, ["id"]);
    assert_eq!(table(&found, "keyless").rows, Some(1));
    assert!(!table(&found, "shown").asked, "nobody asks for a view");
    assert!(table(&found, "collated").findings[0].what.contains("german"));
    assert!(table(&found, "computed").findings[0].what.contains("valid()"));
    assert!(table(&found, "nulls").findings[0].what.starts_with("2 rows"));
}

#[test]
fn rows_that_are_too_large_and_keys_that_cannot_travel_are_counted_and_named() {
    let database = database(
        "CREATE TABLE blobs(id TEXT PRIMARY KEY, v);
         INSERT INTO blobs VALUES ('small', zeroblob(700000)), ('large', zeroblob(800000)), ('nul', NULL),
         ('control', printf('%.*c', 200000, char(1))), ('text', printf('%.*c', 1000000, 'x'));
         INSERT INTO blobs VALUES (printf('%.*c', 1025, 'k'), 1), (printf('%.*c', 1024, 'k'), 1), ('', 1),
         (CAST(x'610062' AS TEXT), 1)",
    );
    let found = look(&database.path, &[]).unwrap();
    let blobs = table(&found, "blobs");
    assert_eq!((blobs.rows, codes(blobs)), (Some(9), vec!["bad_key", "too_large"]));
    assert!(blobs.watchable && found.ready, "what can't travel does not keep the others");
    assert!(blobs.findings[0].what.starts_with("3 rows"), "{}", blobs.findings[0].what);
    assert!(blobs.findings[1].what.starts_with("2 rows (large, control)"), "{}", blobs.findings[1].what);
}

#[test]
fn the_doctor_and_the_store_agree_on_what_is_too_large() {
    let size = |bytes: usize| {
        format!(
            "CREATE TABLE t(id TEXT PRIMARY KEY, v); INSERT INTO t VALUES ('a', printf('%.*c', {bytes}, 'x'))"
        )
    };
    // {"id":"a","v":"..."} has 17 bytes besides.
    for (bytes, fits) in [((1 << 20) - 17, true), ((1 << 20) - 16, false)] {
        let found = look(&database(&size(bytes)).path, &[]).unwrap();
        assert_eq!(codes(&found.tables[0]).is_empty(), fits, "{bytes}: {found:?}");
        let mut node = Node::new(1, &size(bytes), &["t"]);
        node.capture();
        assert_eq!(node.store.problem_count().unwrap() == 0, fits, "{bytes}");
    }
}

#[test]
fn tables_that_are_named_decide_whether_it_is_ready() {
    let database = database(
        "CREATE TABLE Items(id TEXT PRIMARY KEY, shop REFERENCES shops(id)); CREATE TABLE shops(id TEXT PRIMARY KEY);
         CREATE TABLE keyless(a); CREATE VIEW shown AS SELECT 1",
    );
    assert!(!look(&database.path, &[]).unwrap().ready);
    let found = look(&database.path, &["items"]).unwrap();
    assert!(found.ready);
    assert_eq!(codes(table(&found, "Items")), ["other_case", "foreign_key"]);
    assert!(!table(&found, "keyless").asked && !table(&found, "shops").asked);
    assert!(codes(table(&look(&database.path, &["Items", "shops"]).unwrap(), "Items")).is_empty());
    for name in ["keyless", "shown", "nothing", "_entgldb_rows"] {
        let found = look(&database.path, &["Items", name]).unwrap();
        assert!(!found.ready && !table(&found, name).watchable, "{name}: {found:?}");
    }
}

#[test]
fn more_tables_than_a_node_syncs_are_told() {
    let tables: String = (0..257).map(|n| format!("CREATE TABLE t{n}(id TEXT PRIMARY KEY);")).collect();
    let database = database(&tables);
    let weight = |found: &Diagnosis| {
        let finding = found.findings.iter().find(|finding| finding.code == "too_many_tables");
        finding.map(|finding| finding.weight)
    };
    let all = look(&database.path, &[]).unwrap();
    assert_eq!((weight(&all), all.ready), (Some(Weight::Warning), true));
    let names: Vec<String> = (0..257).map(|n| format!("t{n}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let named = look(&database.path, &names).unwrap();
    assert_eq!((weight(&named), named.ready), (Some(Weight::Blocks), false));
    assert_eq!(weight(&look(&database.path, &names[..256]).unwrap()), None);
}

#[test]
fn no_byte_and_no_file_changes_whatever_the_journal_mode_and_whoever_uses_it() {
    for mode in ["DELETE", "TRUNCATE", "WAL"] {
        let database = database(&format!(
            "PRAGMA journal_mode = {mode}; CREATE TABLE t(id TEXT PRIMARY KEY, v); INSERT INTO t VALUES ('a', 1)"
        ));
        let while_open = files(&database);
        let found = look(&database.path, &[]).unwrap();
        assert_eq!(found.file.journal_mode.eq_ignore_ascii_case("wal"), mode == "WAL", "{found:?}");
        // The index of a WAL is memory that is shared; reading notes in it who reads.
        let without_index = |files: Vec<(String, Vec<u8>)>| -> Vec<_> {
            files.into_iter().filter(|(name, _)| !name.ends_with("-shm")).collect()
        };
        assert_eq!(without_index(files(&database)), without_index(while_open), "{mode}, in use");
        let Database { _folder, path, application } = database;
        application.close().unwrap();
        let database = Database { _folder, path, application: Connection::open_in_memory().unwrap() };
        let before = files(&database);
        let found = look(&database.path, &[]).unwrap();
        assert_eq!(found.file.journal_mode.eq_ignore_ascii_case("wal"), mode == "WAL", "{found:?}");
        assert_eq!(found.tables[0].rows, Some(1));
        assert_eq!(files(&database), before, "{mode}, not in use");
    }
}

#[test]
fn a_database_that_was_synced_shows_whose_it_is_and_what_waits() {
    let mut node =
        Node::new(1, "CREATE TABLE t(id TEXT PRIMARY KEY); CREATE TABLE u(id TEXT PRIMARY KEY)", &["t"]);
    node.capture();
    node.app.execute("INSERT INTO t VALUES ('waits')", []).unwrap();
    let found = look(&node.path, &["t"]).unwrap();
    let engine = found.engine.as_ref().unwrap();
    assert_eq!(engine.pending, Some(1));
    assert!(table(&found, "t").watched && !table(&found, "u").watched);
    assert_eq!(found.tables.len(), 2, "the engine's own tables are none of the application's");
    assert!(found.ready, "{found:?}");
}

#[test]
fn engine_tables_that_are_damaged_are_told_and_the_application_s_are_looked_at_all_the_same() {
    for damage in [
        "DROP TABLE _entgldb_rows",
        "DROP TABLE _entgldb_meta",
        "DELETE FROM _entgldb_meta WHERE name = 'format'",
        "UPDATE _entgldb_collections SET fingerprint = x'00'",
        "UPDATE _entgldb_meta SET value = 'nonsense' WHERE name = 'clock'",
    ] {
        let mut node =
            Node::new(1, "CREATE TABLE t(id TEXT PRIMARY KEY); INSERT INTO t VALUES ('a')", &["t"]);
        node.capture();
        let Node { path, app, store, folder: _folder, .. } = node;
        store.close().unwrap();
        app.execute_batch(damage).unwrap();
        let found = look(&path, &[]).unwrap();
        assert!(found.findings.iter().any(|finding| finding.code == "engine_damaged"), "{damage}: {found:?}");
        assert!(!found.ready && table(&found, "t").rows == Some(1), "{damage}: {found:?}");
    }
}

#[test]
fn what_is_no_database_or_can_not_be_read_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("app.db");
    assert!(matches!(look(&path, &[]), Err(OpenError::NoSuchFile { .. })));
    std::fs::write(&path, "this is a text file, long enough to be no empty database".repeat(100)).unwrap();
    assert!(matches!(look(&path, &[]), Err(OpenError::NotADatabase { .. })));
    std::fs::write(&path, "").unwrap();
    let empty = look(&path, &[]).unwrap();
    assert!(!empty.ready && empty.findings.iter().any(|finding| finding.code == "no_tables"));
    assert!(SqliteStore::open(config(&path, &["t"])).is_err());
}
