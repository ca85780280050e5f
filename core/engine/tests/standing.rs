//! What a node says of how it stands: problems that are there, tables that are looked through or gone, and nothing of being in
//! sync before all rows are captured.

mod common;

use std::time::{Duration, Instant};

use common::{PATIENCE, Place};
use entgldb::{Event, Events, Node, Status, SyncError, TableState};
use rusqlite::Connection;

const ROWS: u64 = 40_000;

/// A database with a table of notes, opened as its application would.
fn database(place: &Place, name: &str, rows: u64) -> Connection {
    let app = Connection::open(place.path(name)).unwrap();
    app.busy_timeout(PATIENCE).unwrap();
    let sql = "PRAGMA journal_mode = WAL; CREATE TABLE notes(id TEXT PRIMARY KEY, number INTEGER CHECK (number < 1000000))";
    app.execute_batch(sql).unwrap();
    let fill = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?1)
         INSERT INTO notes SELECT 'k' || i, i FROM n WHERE ?1 > 0";
    app.execute(fill, [rows.cast_signed()]).unwrap();
    app
}

/// The events up to and with the first that is wanted.
fn until(events: &Events, wanted: impl Fn(&Event) -> bool) -> Vec<Event> {
    let start = Instant::now();
    let mut seen = Vec::new();
    while start.elapsed() < PATIENCE {
        if let Ok(event) = events.next(Duration::from_millis(100)) {
            let is_it = wanted(&event);
            seen.push(event);
            if is_it {
                return seen;
            }
        }
    }
    panic!("not within {PATIENCE:?}: {seen:?}");
}

/// The status once it is as wanted.
fn status_when(node: &Node, wanted: impl Fn(&Status) -> bool) -> Status {
    let start = Instant::now();
    loop {
        let status = node.status();
        if wanted(&status) {
            return status;
        }
        assert!(start.elapsed() < PATIENCE, "not within {PATIENCE:?}: {status:?}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn a_node_is_not_in_sync_while_rows_that_were_there_before_are_still_to_be_captured() {
    let place = Place::new();
    let (empty, _full) = (database(&place, "empty.db", 0), database(&place, "full.db", ROWS));
    let first = Node::open(place.config("empty.db")).unwrap();
    let (second, events) = Node::open_with_events(place.config_to("full.db", &first)).unwrap();
    let in_between = second.sync_now(Duration::from_millis(1));
    assert!(
        matches!(in_between, Err(SyncError::NoPeer | SyncError::Timeout { capturing: true, .. })),
        "{in_between:?}"
    );
    let looking = &status_when(&second, |status| !status.tables.is_empty()).tables[0];
    assert_eq!((looking.name.as_str(), looking.state), ("notes", TableState::LookingThrough));
    assert_eq!(looking.rows_looked_through + looking.rows_to_look_through, ROWS);

    let seen = until(&events, |event| matches!(event, Event::CaughtUp { .. }));
    let captured: usize =
        seen.iter().map(|event| if let Event::Captured { changes } = event { *changes } else { 0 }).sum();
    eprintln!("{:?} ... {:?}", &seen[..6.min(seen.len())], &seen[seen.len().saturating_sub(6)..]);
    assert_eq!(captured as u64, ROWS, "nothing is in sync before");
    second.sync_now(PATIENCE).unwrap();
    let rows = empty.query_row("SELECT count(*) FROM notes", [], |row| row.get::<_, i64>(0)).unwrap();
    assert_eq!(rows.cast_unsigned(), ROWS);
    let is_done = |event: &Event| matches!(event, Event::LookingThrough { done, of, .. } if done == of);
    let seen = if seen.iter().any(is_done) { seen } else { until(&events, is_done) };
    assert!(seen.iter().any(is_done));
    let tables = second.status().tables;
    assert_eq!((tables[0].state, tables[0].rows_to_look_through), (TableState::Synced, 0));
}

#[test]
fn problems_are_those_that_are_there_now_and_a_dropped_table_is_one_at_once() {
    let place = Place::new();
    let (one, two) = (database(&place, "one.db", 0), database(&place, "two.db", 0));
    one.execute_batch("DROP TABLE notes; CREATE TABLE notes(id TEXT PRIMARY KEY, number INTEGER)").unwrap();
    let first = Node::open(place.config("one.db")).unwrap();
    let (second, events) = Node::open_with_events(place.config_to("two.db", &first)).unwrap();
    one.execute("INSERT INTO notes VALUES ('large', 1000000)", []).unwrap();
    status_when(&second, |status| status.problems == 1);
    one.execute("UPDATE notes SET number = 1", []).unwrap();
    status_when(&second, |status| status.problems == 0);

    two.execute_batch("DROP TABLE notes").unwrap();
    let table_waits =
        |event: &Event| matches!(event, Event::Problem { kind: "table", key, .. } if key.is_empty());
    until(&events, table_waits);
    let status = status_when(&second, |status| status.problems == 1);
    assert_eq!(status.tables[0].state, TableState::Waiting);
    assert!(status.tables[0].reason.as_ref().unwrap().contains("dropped"), "{status:?}");
    two.execute_batch("CREATE TABLE notes(id TEXT PRIMARY KEY, number INTEGER)").unwrap();
    status_when(&second, |status| status.problems == 0 && status.tables[0].state != TableState::Waiting);
}
