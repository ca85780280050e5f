//! One engine on one file: a second one is refused by name, and a file that is swapped under a store is left alone.

mod common;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use common::{config, limits, query};
use entgldb_replica::store::Store;
use entgldb_sqlite::{
    FileChange, Holder, OpenError, RepairError, SqliteConfig, SqliteFailed, SqliteStore, repair, verify,
};
use rusqlite::Connection;
use rusqlite::backup::Backup;

const SCHEMA: &str = "CREATE TABLE t(k TEXT PRIMARY KEY, v TEXT); INSERT INTO t VALUES('a', '1'), ('b', '2')";

/// An application's database, and the engines that may work on it.
struct Place {
    folder: tempfile::TempDir,
    path: PathBuf,
    app: Connection,
}

impl Place {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("app.db");
        let app = Connection::open(&path).unwrap();
        app.execute_batch(SCHEMA).unwrap();
        Self { folder, path, app }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// An engine with a data folder of its own.
    fn holder(&self, name: &str) -> Holder {
        std::fs::create_dir_all(self.file(name)).unwrap();
        Holder::new("0123456789abcdef", name, &self.file(name))
    }

    fn open_at(&self, path: &Path, holder: &Holder) -> Result<SqliteStore, OpenError> {
        SqliteStore::open(SqliteConfig { holder: holder.clone(), ..config(path, &["t"]) })
    }

    fn open(&self, holder: &Holder) -> SqliteStore {
        self.open_at(&self.path, holder).unwrap()
    }

    /// A copy of the database as it is.
    fn copy(&self, name: &str) -> PathBuf {
        self.app.execute("VACUUM INTO ?1", [self.file(name).to_str().unwrap()]).unwrap();
        self.file(name)
    }

    /// What anybody finds who opens the database now.
    fn found(&self, sql: &str) -> Vec<String> {
        query(&Connection::open(&self.path).unwrap(), sql)
    }

    fn files(&self) -> Vec<String> {
        let files = std::fs::read_dir(self.folder.path()).unwrap();
        files.map(|file| file.unwrap().file_name().into_string().unwrap()).collect()
    }
}

/// Writes a copy of a database over another one, as `.restore` does.
fn restore(from: &Path, to: &Path) {
    let from = Connection::open(from).unwrap();
    let mut to = Connection::open(to).unwrap();
    Backup::new(&from, &mut to).unwrap().run_to_completion(1000, Duration::ZERO, None).unwrap();
}

/// Looks as a node does, until the store finds that its file is another one.
fn change(store: &mut SqliteStore) -> FileChange {
    for _ in 0..500 {
        match store.outbox_is_empty() {
            Ok(_) => std::thread::sleep(Duration::from_millis(10)),
            Err(SqliteFailed::FileChanged(change)) => return change,
            Err(failed) => panic!("{failed}"),
        }
    }
    panic!("the change was not noticed");
}

/// Has the store commit something.
fn commit_something(store: &mut SqliteStore) {
    assert!(store.unwatch("t").unwrap());
    store.watch("t").unwrap();
}

/// An engine on a thread of its own that looks into its outbox, as nodes do.
struct Running {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Running {
    fn start(mut store: SqliteStore) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                store.outbox_is_empty().unwrap();
                std::thread::sleep(Duration::from_millis(5));
            }
            store.close().unwrap();
        });
        Self { stop, thread: Some(thread) }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let ended = self.thread.take().map(JoinHandle::join);
        assert!(matches!(ended, Some(Ok(()))) || std::thread::panicking());
    }
}

/// What a second engine must not change: all but its question.
fn all_but_the_question(path: &Path) -> Vec<String> {
    let connection = Connection::open(path).unwrap();
    let mut found = query(&connection, "SELECT type, name, sql FROM sqlite_schema ORDER BY 1, 2");
    found.extend(query(
        &connection,
        "SELECT name, quote(value) FROM _entgldb_meta WHERE name NOT IN ('challenge', 'commits') ORDER BY 1",
    ));
    found.extend(query(&connection, "SELECT * FROM t ORDER BY 1"));
    found.extend(query(&connection, "SELECT no, name, scan FROM _entgldb_collections"));
    found
}

#[test]
fn a_second_engine_is_refused_by_name_and_changes_nothing() {
    let place = Place::new();
    let (first, second) = (place.holder("first"), place.holder("second"));
    let running = Running::start(place.open(&first));
    let before = all_but_the_question(&place.path);
    let mut paths = vec![place.path.clone()];
    #[cfg(unix)]
    {
        std::os::unix::fs::symlink(&place.path, place.file("link.db")).unwrap();
        paths.push(place.file("link.db"));
    }
    for path in paths {
        let refused = place.open_at(&path, &second).unwrap_err();
        assert!(matches!(refused, OpenError::InUse { .. }) && refused.is_final(), "{refused}");
        let folder = place.file("first").canonicalize().unwrap().display().to_string();
        for what in ["node \"first\" (01234567)", &format!("process {}", std::process::id()), &folder] {
            assert!(refused.to_string().contains(what), "{refused}");
        }
        assert_eq!(all_but_the_question(&place.path), before);
    }
    drop(running);
    // A clean end leaves nobody to ask.
    let left = "SELECT name FROM _entgldb_meta WHERE name IN ('token', 'holder', 'challenge')";
    assert_eq!(place.found(left), Vec::<String>::new());
    place.open(&second).close().unwrap();
}

#[test]
fn an_engine_that_does_not_answer_loses_the_file_and_writes_nothing_any_more() {
    let place = Place::new();
    let mut frozen = place.open(&place.holder("first"));
    let second = place.open(&place.holder("second"));
    let before = all_but_the_question(&place.path);
    let failed =
        frozen.watch("t").map(drop).and(frozen.captured(&limits()).map(drop).map_err(OpenError::from));
    let is_told = matches!(failed, Err(OpenError::Failed(SqliteFailed::FileChanged(FileChange::OtherRun))));
    assert!(is_told, "{failed:?}");
    assert_eq!(change(&mut frozen), FileChange::OtherRun);
    assert!(frozen.unwatch("t").is_err());
    assert!(frozen.close().is_err(), "the other engine's name stays in the file");
    assert_eq!(all_but_the_question(&place.path), before);
    second.close().unwrap();
}

#[test]
fn an_engine_that_is_gone_for_certain_is_not_asked() {
    let place = Place::new();
    drop(place.open(&place.holder("first")));
    let by_trigger =
        "CREATE TABLE asked(x); CREATE TRIGGER put AFTER INSERT ON _entgldb_meta WHEN NEW.name = 'challenge'
                      BEGIN INSERT INTO asked VALUES(1); END";
    place.app.execute_batch(by_trigger).unwrap();
    // The same data folder, whose lock its engine has: the one before it has ended without a word.
    drop(place.open(&place.holder("first")));
    assert_eq!(place.found("SELECT count(*) FROM asked"), ["0"]);
    drop(place.open(&place.holder("second")));
    assert_eq!(place.found("SELECT count(*) FROM asked"), ["1"]);
}

#[cfg(unix)]
#[test]
fn a_file_with_a_hard_link_is_not_taken_from_an_engine_that_can_not_be_asked() {
    let place = Place::new();
    // Within one process SQLite itself refuses a second name. So that one is gone, as another process would be for this one.
    drop(place.open(&place.holder("first")));
    std::fs::hard_link(&place.path, place.file("other.db")).unwrap();
    let Place { folder, path, app } = place;
    drop(app);
    let place = Place { app: Connection::open_in_memory().unwrap(), folder, path };
    let refused = place.open_at(&place.file("other.db"), &place.holder("second")).unwrap_err();
    assert!(matches!(refused, OpenError::SeveralNames { .. }) && refused.is_final(), "{refused}");
    assert!(refused.to_string().contains("node \"first\""), "{refused}");
}

#[test]
fn a_copy_from_before_the_first_start_that_is_written_over_the_file_is_told_and_watched() {
    let place = Place::new();
    let plain = place.copy("plain.db");
    let holder = place.holder("first");
    let mut store = place.open(&holder);
    restore(&plain, &place.path);
    assert_eq!(change(&mut store), FileChange::NoEngineTables);
    drop(store);
    let mut store = place.open(&holder);
    place.app.execute_batch("INSERT INTO t VALUES('c', '3')").unwrap();
    assert!(!store.outbox_is_empty().unwrap());
}

#[test]
fn a_copy_of_this_very_run_that_is_put_back_is_told_by_the_counter_alone() {
    let place = Place::new();
    let holder = place.holder("first");
    let mut store = place.open(&holder);
    let backup = place.copy("backup.db");
    commit_something(&mut store);
    restore(&backup, &place.path);
    let before = all_but_the_question(&place.path);
    assert_eq!(change(&mut store), FileChange::OtherState);
    drop(store);
    assert_eq!(all_but_the_question(&place.path), before);
    commit_something(&mut place.open(&holder));
    assert_eq!(verify(&place.path, &mut |_| {}).unwrap().faults, vec![]);
}

#[test]
fn a_write_is_refused_after_a_swap_even_if_nothing_was_looked_at_before() {
    let place = Place::new();
    let mut store = place.open(&place.holder("first"));
    let backup = place.copy("backup.db");
    commit_something(&mut store);
    restore(&backup, &place.path);
    let failed = store.unwatch("t");
    let is_told = matches!(failed, Err(SqliteFailed::FileChanged(FileChange::OtherState)));
    assert!(is_told, "{failed:?}");
}

#[test]
fn a_quiet_log_is_emptied_so_that_none_is_left_beside_a_file_that_is_renamed_over() {
    let place = Place::new();
    let mut store = place.open(&place.holder("first"));
    commit_something(&mut store);
    let bytes = || std::fs::metadata(place.file("app.db-wal")).unwrap().len();
    // A reader of an older state keeps the log; the engine does not wait for it.
    let reader = Connection::open(&place.path).unwrap();
    reader.execute_batch("BEGIN; SELECT * FROM t").unwrap();
    place.app.execute_batch("UPDATE t SET v = 'newer'").unwrap();
    let until = |looks: usize, store: &mut SqliteStore| {
        (0..looks).any(|_| {
            store.outbox_is_empty().unwrap();
            std::thread::sleep(Duration::from_millis(10));
            bytes() == 0
        })
    };
    assert!(!until(150, &mut store));
    drop(reader);
    assert!(until(1000, &mut store));
    assert_eq!(place.found("SELECT * FROM t ORDER BY k"), ["a|newer", "b|newer"]);
}

#[test]
fn a_database_is_not_repaired_while_an_engine_is_at_work_on_it() {
    let place = Place::new();
    let running = Running::start(place.open(&place.holder("first")));
    let before = all_but_the_question(&place.path);
    assert!(matches!(repair(&place.path), Err(RepairError::Open(OpenError::InUse { .. }))));
    assert_eq!(all_but_the_question(&place.path), before);
    drop(running);
    repair(&place.path).unwrap();
}

#[cfg(unix)]
mod swapped_by_name {
    use super::*;

    /// More than fits a few pages, in the log of the file that is there now only.
    fn heat(place: &Place) {
        place.app.execute_batch("UPDATE t SET v = 'old file'; CREATE TABLE more(x)").unwrap();
        place.app.execute_batch("INSERT INTO more VALUES(zeroblob(300000))").unwrap();
    }

    #[test]
    fn a_file_that_is_renamed_over_is_followed_although_the_log_of_the_old_one_was_hot() {
        let place = Place::new();
        let holder = place.holder("first");
        let mut store = place.open(&holder);
        let newer = place.copy("newer.db");
        Connection::open(&newer).unwrap().execute_batch("INSERT INTO t VALUES('new', 'file')").unwrap();
        heat(&place);
        std::fs::rename(&newer, &place.path).unwrap();
        assert_eq!(change(&mut store), FileChange::OtherFile);
        drop(store);
        commit_something(&mut place.open(&holder));
        assert_eq!(place.found("SELECT k, v FROM t ORDER BY k"), ["a|1", "b|2", "new|file"]);
        assert_eq!(place.found("PRAGMA integrity_check"), ["ok"]);
        let files = place.files();
        assert!(files.iter().any(|name| name.starts_with("app.db-wal.replaced-")), "{files:?}");
    }

    #[test]
    fn a_file_that_is_deleted_and_created_again_is_watched_once_its_tables_are_there() {
        let place = Place::new();
        let holder = place.holder("first");
        let mut store = place.open(&holder);
        heat(&place);
        std::fs::remove_file(&place.path).unwrap();
        assert_eq!(change(&mut store), FileChange::Missing { leaves_wal: true });
        drop(store);
        assert!(matches!(place.open_at(&place.path, &holder), Err(OpenError::NoSuchFile { .. })));
        let app = Connection::open(&place.path).unwrap();
        app.execute_batch("PRAGMA journal_mode = WAL").unwrap();
        assert!(matches!(place.open_at(&place.path, &holder), Err(OpenError::NoSuchTable { .. })));
        app.execute_batch("CREATE TABLE t(k TEXT PRIMARY KEY, v TEXT); INSERT INTO t VALUES('z', '9')")
            .unwrap();
        let mut store = place.open(&holder);
        assert!(store.is_scanning().unwrap());
        assert_eq!(place.found("SELECT * FROM t"), ["z|9"]);
        assert_eq!(place.found("PRAGMA integrity_check"), ["ok"]);
    }

    #[test]
    fn a_file_that_is_moved_away_and_back_has_all_that_was_committed() {
        let place = Place::new();
        let holder = place.holder("first");
        let mut store = place.open(&holder);
        heat(&place);
        std::fs::rename(&place.path, place.file("elsewhere.db")).unwrap();
        assert_eq!(change(&mut store), FileChange::Missing { leaves_wal: true });
        drop(store);
        std::fs::rename(place.file("elsewhere.db"), &place.path).unwrap();
        commit_something(&mut place.open(&holder));
        assert_eq!(place.found("SELECT * FROM t ORDER BY k"), ["a|old file", "b|old file"]);
        assert_eq!(place.found("SELECT length(x) FROM more"), ["300000"]);
    }

    #[test]
    fn what_is_in_a_log_that_is_deleted_is_saved() {
        let place = Place::new();
        let holder = place.holder("first");
        let mut store = place.open(&holder);
        heat(&place);
        std::fs::remove_file(place.file("app.db-wal")).unwrap();
        assert_eq!(change(&mut store), FileChange::WalMissing);
        drop(store);
        let store = place.open(&holder);
        assert_eq!(place.found("SELECT * FROM t ORDER BY k"), ["a|old file", "b|old file"]);
        assert_eq!(place.found("PRAGMA integrity_check"), ["ok"]);
        store.close().unwrap();
    }
}
