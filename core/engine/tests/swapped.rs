//! Databases whose file is swapped while their node runs, and second nodes on one file.

mod common;

use std::path::Path;
use std::time::Duration;

use common::{PATIENCE, Place, collection, eventually, key, level};
use entgldb::{Event, Events, Node, OpenError, State, StoreOpenError, verify};
use rusqlite::Connection;
use rusqlite::backup::Backup;

const SCHEMA: &str = "CREATE TABLE notes(k TEXT PRIMARY KEY, v TEXT)";

fn app(path: &Path) -> Connection {
    let app = Connection::open(path).unwrap();
    app.busy_timeout(Duration::from_secs(10)).unwrap();
    app
}

/// What anybody finds who opens the database now; nothing while it is being swapped.
fn rows(path: &Path) -> Vec<String> {
    let read = || {
        let app = Connection::open(path)?;
        app.busy_timeout(Duration::from_secs(10))?;
        let mut statement = app.prepare("SELECT k || '=' || v FROM notes ORDER BY k")?;
        statement.query_map([], |row| row.get(0))?.collect::<rusqlite::Result<_>>()
    };
    read().unwrap_or_default()
}

/// Writes a copy of a database over another one, as `.restore` does.
fn restore(from: &Path, to: &Path) {
    let (from, mut to) = (app(from), app(to));
    Backup::new(&from, &mut to).unwrap().run_to_completion(1000, Duration::ZERO, None).unwrap();
}

/// Two linked nodes with the same rows, and a copy of the first one's database at every stage.
struct Pair {
    place: Place,
    a: Node,
    b: Node,
    events: Events,
}

impl Pair {
    /// `a` has copies of its database from before the first start (`before.db`) and from a moment ago (`backup.db`). Since the
    /// latter, `b` has changed row 1 and `a` row 2.
    fn new() -> Self {
        let place = Place::new();
        for name in ["a.db", "b.db"] {
            let app = app(&place.path(name));
            app.execute_batch(&format!("PRAGMA journal_mode = WAL; {SCHEMA}")).unwrap();
        }
        app(&place.path("a.db")).execute_batch("INSERT INTO notes VALUES('1', 'old'), ('2', 'old')").unwrap();
        copy(&place, "before.db");
        let mut config = place.config("a.db");
        config.name = Some("a".to_owned());
        let (a, events) = Node::open_with_events(config).unwrap();
        let b = Node::open(place.config_to("b.db", &a)).unwrap();
        eventually("the rows are on b", || rows(&place.path("b.db")).len() == 2);
        level(&a, &b);
        copy(&place, "backup.db");
        app(&place.path("b.db")).execute_batch("UPDATE notes SET v = 'newer, by b' WHERE k = '1'").unwrap();
        app(&place.path("a.db")).execute_batch("UPDATE notes SET v = 'newer, by a' WHERE k = '2'").unwrap();
        let pair = Self { place, a, b, events };
        pair.both_end_with(&["1=newer, by b", "2=newer, by a"]);
        pair
    }

    fn a_path(&self) -> std::path::PathBuf {
        self.place.path("a.db")
    }

    fn both_end_with(&self, expected: &[&str]) {
        for name in ["a.db", "b.db"] {
            let path = self.place.path(name);
            eventually(&format!("{name} has {expected:?}; it has {:?}", rows(&path)), || {
                rows(&path) == expected
            });
        }
        level(&self.a, &self.b);
    }

    /// The node has told what happened, and goes on.
    fn is_told(&self, expected: &str) {
        let told =
            |event: Event| matches!(event, Event::DatabaseReplaced { change, .. } if change == expected);
        eventually(&format!("{expected} is told"), || self.events.next(PATIENCE).is_ok_and(told));
    }

    fn write(&self, sql: &str) {
        app(&self.a_path()).execute_batch(sql).unwrap();
    }

    fn all_is_sound(self) {
        eventually("a runs", || self.a.status().state == State::Running);
        self.a.close();
        self.b.close();
        for name in ["a.db", "b.db"] {
            assert_eq!(verify(&self.place.path(name), &mut |_| {}).unwrap().faults, vec![], "{name}");
        }
    }
}

fn copy(place: &Place, name: &str) {
    let to = place.path(name);
    app(&place.path("a.db")).execute("VACUUM INTO ?1", [to.to_str().unwrap()]).unwrap();
}

#[test]
fn a_copy_from_a_moment_ago_put_back_in_place_undoes_nothing() {
    let pair = Pair::new();
    restore(&pair.place.path("backup.db"), &pair.a_path());
    pair.is_told("other_state");
    pair.write("INSERT INTO notes VALUES('3', 'after the restore')");
    pair.both_end_with(&["1=newer, by b", "2=newer, by a", "3=after the restore"]);
    pair.all_is_sound();
}

#[test]
fn a_copy_from_before_the_first_start_put_back_in_place_is_synced_again() {
    let pair = Pair::new();
    restore(&pair.place.path("before.db"), &pair.a_path());
    pair.is_told("no_engine_tables");
    pair.write("INSERT INTO notes VALUES('3', 'after the restore')");
    eventually("it arrives", || rows(&pair.place.path("b.db")).contains(&"3=after the restore".to_owned()));
    level(&pair.a, &pair.b);
    assert_eq!(rows(&pair.a_path()), rows(&pair.place.path("b.db")));
    pair.all_is_sound();
}

#[cfg(unix)]
#[test]
fn a_copy_renamed_over_the_database_is_followed() {
    let pair = Pair::new();
    std::fs::rename(pair.place.path("backup.db"), pair.a_path()).unwrap();
    pair.is_told("other_file");
    eventually("a runs", || pair.a.status().state == State::Running);
    pair.write("INSERT INTO notes VALUES('3', 'after the rename')");
    pair.both_end_with(&["1=newer, by b", "2=newer, by a", "3=after the rename"]);
    pair.all_is_sound();
}

#[cfg(unix)]
#[test]
fn a_vacuumed_copy_of_now_renamed_over_the_database_is_the_same_database() {
    let pair = Pair::new();
    copy(&pair.place, "vacuumed.db");
    std::fs::rename(pair.place.path("vacuumed.db"), pair.a_path()).unwrap();
    pair.is_told("other_file");
    eventually("a runs", || pair.a.status().state == State::Running);
    pair.write("INSERT INTO notes VALUES('3', 'after it')");
    pair.both_end_with(&["1=newer, by b", "2=newer, by a", "3=after it"]);
    pair.all_is_sound();
}

#[cfg(unix)]
#[test]
fn a_database_deleted_and_created_again_gets_its_rows_from_the_peer() {
    let pair = Pair::new();
    std::fs::remove_file(pair.a_path()).unwrap();
    pair.is_told("missing");
    // SQLite removes the log that the old file has left; if the engine puts it aside at that very moment, SQLite says that it is gone.
    eventually("the new file is made", || {
        app(&pair.a_path()).execute_batch(&format!("PRAGMA journal_mode = WAL; {SCHEMA}")).is_ok()
    });
    pair.write("INSERT INTO notes VALUES('3', 'in the new file')");
    pair.both_end_with(&["1=newer, by b", "2=newer, by a", "3=in the new file"]);
    pair.all_is_sound();
}

#[cfg(unix)]
#[test]
fn a_database_moved_away_is_told_and_goes_on_when_it_is_back() {
    let pair = Pair::new();
    // As long as somebody reads an older state the log can't be emptied.
    let reader = app(&pair.a_path());
    reader.execute_batch("BEGIN; SELECT * FROM notes").unwrap();
    pair.write("INSERT INTO notes VALUES('3', 'in the log')");
    pair.both_end_with(&["1=newer, by b", "2=newer, by a", "3=in the log"]);
    std::fs::rename(pair.a_path(), pair.place.path("elsewhere.db")).unwrap();
    pair.is_told("missing");
    let status = pair.a.status();
    assert_eq!(status.state, State::Recovering);
    assert!(status.last_error.is_some_and(|said| said.contains("-wal")));
    drop(reader);
    app(&pair.place.path("b.db")).execute_batch("UPDATE notes SET v = 'meanwhile' WHERE k = '1'").unwrap();
    std::fs::rename(pair.place.path("elsewhere.db"), pair.a_path()).unwrap();
    pair.both_end_with(&["1=meanwhile", "2=newer, by a", "3=in the log"]);
    pair.all_is_sound();
}

#[cfg(unix)]
#[test]
fn a_log_deleted_under_a_database_takes_nothing_with_it() {
    let pair = Pair::new();
    std::fs::remove_file(pair.place.path("a.db-wal")).unwrap();
    pair.is_told("wal_missing");
    eventually("a runs", || pair.a.status().state == State::Running);
    pair.write("INSERT INTO notes VALUES('3', 'after it')");
    pair.both_end_with(&["1=newer, by b", "2=newer, by a", "3=after it"]);
    pair.all_is_sound();
}

#[test]
fn a_second_node_on_the_file_is_refused_by_name_and_the_first_goes_on() {
    let pair = Pair::new();
    let mut config = pair.place.config("a.db");
    config.data_dir = Some(pair.place.path("other-data"));
    let Err(refused) = Node::open(config) else { panic!("two nodes run on one file") };
    assert!(matches!(&refused, OpenError::Store(StoreOpenError::InUse { .. })), "{refused}");
    assert!(refused.to_string().contains("node \"a\""), "{refused}");
    pair.write("INSERT INTO notes VALUES('3', 'x')");
    pair.both_end_with(&["1=newer, by b", "2=newer, by a", "3=x"]);
    pair.all_is_sound();
}

#[test]
fn documents_go_on_after_a_copy_of_their_file_was_put_back() {
    let place = Place::new();
    let (node, events) = Node::open_with_host(place.config("own.db"), None).unwrap();
    let documents = node.documents().unwrap();
    documents.put(&collection("notes"), &key("a"), "1").unwrap();
    eventually("it is captured", || node.status().captured == 1);
    app(&place.path("own.db"))
        .execute("VACUUM INTO ?1", [place.path("backup.db").to_str().unwrap()])
        .unwrap();
    documents.put(&collection("notes"), &key("b"), "2").unwrap();
    eventually("it is captured", || node.status().captured == 2);
    restore(&place.path("backup.db"), &place.path("own.db"));
    let told = |event: Event| matches!(event, Event::DatabaseReplaced { change: "other_state", .. });
    eventually("it is told", || events.next(PATIENCE).is_ok_and(told));
    eventually("it can be written to", || documents.put(&collection("notes"), &key("c"), "3").is_ok());
    let get =
        |name: &str| documents.get(&collection("notes"), &key(name)).unwrap().map(|found| found.to_vec());
    assert_eq!((get("a"), get("b"), get("c")), (Some(b"1".to_vec()), None, Some(b"3".to_vec())));
    eventually("a runs", || node.status().state == State::Running && !node.status().backlog);
    node.close();
    assert_eq!(verify(&place.path("own.db"), &mut |_| {}).unwrap().faults, vec![]);
}
