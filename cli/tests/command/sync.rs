//! `entgldb sync` as real processes beside databases that other programs write.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::time::Duration;

use rusqlite::Row;

use crate::common::{Node, Place, code, entgldb, items, json_lines, program, set_mode, stderr, until};

/// Bytes of a page of a new SQLite database.
const PAGE: usize = 4096;

/// Two databases that sync, the second node dials the first.
fn pair(place: &Place) -> (Node, Node) {
    let mut one = place.node("one.db", &["--name", "one"]);
    let mut two = place.node("two.db", &["--name", "two", "--peer", &one.address]);
    one.wait_for("peer_up");
    two.wait_for("peer_up");
    (one, two)
}

#[test]
fn what_either_program_commits_appears_in_the_other_database() {
    let place = Place::new();
    let (one, two) = (place.database("one.db"), place.database("two.db"));
    one.execute("INSERT INTO items VALUES ('before', 'there before the node', -1)", []).unwrap();
    let (one_node, two_node) = pair(&place);
    one.execute("INSERT INTO items VALUES ('a', 'from one', 9223372036854775807)", []).unwrap();
    two.execute("INSERT INTO items VALUES ('b', NULL, NULL)", []).unwrap();
    until("three items on both sides", || items(&one).len() == 3 && items(&one) == items(&two));
    two.execute("UPDATE items SET text = 'changed' WHERE id = 'a'", []).unwrap();
    two.execute("DELETE FROM items WHERE id = 'before'", []).unwrap();
    until("the edits of two on one", || items(&one).len() == 2 && items(&one) == items(&two));
    assert_eq!(items(&one)[0], ("a".to_owned(), Some("changed".to_owned()), Some(i64::MAX)));
    one_node.stop();
    two_node.stop();
}

#[test]
fn a_program_with_another_sqlite_is_heard_as_well() {
    let place = Place::new();
    let (_, two) = (place.database("one.db"), place.database("two.db"));
    let _nodes = pair(&place);
    let script = "import sqlite3, sys\n\
                  shop = sqlite3.connect(sys.argv[1], timeout=20)\n\
                  with shop:\n    shop.executemany('INSERT INTO items VALUES (?, ?, ?)',\n        \
                  [(f'p{n}', 'from python', n) for n in range(100)])\n";
    let written = Command::new("python3").args(["-c", script, &place.text("one.db")]).status();
    assert!(written.expect("python3 is needed for this test").success());
    until("100 items written by python", || items(&two).len() == 100);
    assert_eq!(items(&two)[0], ("p0".to_owned(), Some("from python".to_owned()), Some(0)));
}

#[test]
fn what_is_written_while_a_node_is_killed_arrives_once_it_is_back() {
    let place = Place::new();
    let (one, two) = (place.database("one.db"), place.database("two.db"));
    let (one_node, two_node) = pair(&place);
    two_node.signal("KILL");
    drop(two_node);
    one.execute("INSERT INTO items VALUES ('a', 'one', 1)", []).unwrap();
    two.execute("INSERT INTO items VALUES ('b', 'two', 2)", []).unwrap();
    let _two_node = place.node("two.db", &["--name", "two", "--peer", &one_node.address]);
    until("both items on both sides", || items(&one).len() == 2 && items(&one) == items(&two));
}

#[test]
fn each_of_the_ways_to_stop_is_clean() {
    let place = Place::new();
    place.database("shop.db");
    for signal in ["TERM", "INT"] {
        let mut node = place.node("shop.db", &[]);
        node.signal(signal);
        node.wait_for("stopped");
        assert_eq!(node.end().code(), Some(0), "{signal}");
    }
    let mut node = place.node("shop.db", &["--stop-with-stdin"]);
    node.close_stdin();
    node.wait_for("stopped");
    assert_eq!(node.end().code(), Some(0));
}

#[test]
fn a_locked_database_is_waited_for_and_the_wait_can_be_given_up() {
    let place = Place::new();
    let shop = place.database("shop.db");
    shop.execute_batch("BEGIN EXCLUSIVE").unwrap();
    let mut command = place.sync("shop.db", &["--json"]);
    let mut child =
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut told = String::new();
    BufReader::new(child.stderr.as_mut().unwrap()).read_line(&mut told).unwrap();
    assert!(told.contains("shop.db") && told.contains("locked"), "{told}");
    assert!(Command::new("kill").args(["-s", "TERM", &child.id().to_string()]).status().unwrap().success());
    let output = child.wait_with_output().unwrap();
    assert_eq!(code(&output), 130, "{}", stderr(&output));

    let mut waiting = place.sync("shop.db", &["--json"]);
    let unlock = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(300));
        shop.execute_batch("COMMIT").unwrap();
    });
    let node = Node::start(&mut waiting);
    unlock.join().unwrap();
    node.stop();
}

#[test]
fn the_end_of_standard_input_alone_stops_nothing() {
    let place = Place::new();
    let (one, two) = (place.database("one.db"), place.database("two.db"));
    let (mut one_node, _two_node) = pair(&place);
    one_node.close_stdin();
    one.execute("INSERT INTO items VALUES ('a', 'still heard', 1)", []).unwrap();
    until("the item on the other side", || items(&two).len() == 1);
}

#[test]
fn a_node_with_another_secret_gets_nothing_and_learns_why() {
    let place = Place::new();
    let (one, stranger) = (place.database("one.db"), place.database("stranger.db"));
    one.execute("INSERT INTO items VALUES ('a', 'private', 1)", []).unwrap();
    let one_node = place.node("one.db", &["--name", "one"]);
    place.keygen("other-secret");
    let mut command = program();
    command.arg("sync").arg(place.path("stranger.db")).args(["--watch", "items", "--json", "--secret-file"]);
    command.arg(place.path("other-secret")).args(["--peer", &one_node.address]);
    let mut stranger_node = Node::start(&mut command);
    let failed = stranger_node.wait_for("dial_failed");
    assert_eq!(failed["target"], one_node.address.as_str());
    assert!(!failed["reason"].as_str().unwrap().is_empty());
    stranger_node.stop();
    assert!(items(&stranger).is_empty());
}

#[test]
fn another_key_under_a_known_name_is_turned_away_until_it_is_forgotten() {
    let place = Place::new();
    let (one, two) = (place.database("one.db"), place.database("two.db"));
    let (one_node, two_node) = pair(&place);
    // Only who has synced is pinned.
    until("a pin", || place.path("one.db-entgldb").join("known_peers.json").exists());
    two_node.stop();
    one_node.stop();
    std::fs::remove_file(place.path("two.db-entgldb").join("identity")).unwrap();

    let mut one_node = place.node("one.db", &["--name", "one"]);
    let two_node = place.node("two.db", &["--name", "two", "--peer", &one_node.address]);
    let refused = one_node.wait_for("peer_refused");
    assert_eq!((&refused["name"], &refused["node"]), (&"two".into(), &two_node.id.as_str().into()));
    let while_running = entgldb(&["peers", &place.text("one.db"), "--forget", "two"]);
    assert_eq!(code(&while_running), 3, "{}", stderr(&while_running));
    two_node.stop();
    one_node.stop();

    let nobody = entgldb(&["peers", &place.text("one.db"), "--forget", "three"]);
    assert_eq!(code(&nobody), 3);
    let forgotten = entgldb(&["peers", &place.text("one.db"), "--forget", "two"]);
    assert_eq!(code(&forgotten), 0, "{}", stderr(&forgotten));
    let _nodes = pair(&place);
    one.execute("INSERT INTO items VALUES ('a', 'welcome back', 1)", []).unwrap();
    until("the item on the other side", || items(&two).len() == 1);
}

#[test]
fn a_configuration_file_starts_a_node_and_options_take_precedence() {
    let place = Place::new();
    place.database("shop.db");
    let config = serde_json::json!({
        "database": place.path("shop.db"), "secret_file": place.path("secret"), "watch": ["items"],
        "listen": "127.0.0.1:0", "name": "from-the-file", "data_dir": place.path("data"),
    });
    std::fs::write(place.path("node.json"), config.to_string()).unwrap();
    let mut command = program();
    command.args(["sync", "--json", "--config", &place.text("node.json"), "--name", "from-the-option"]);
    let node = Node::start(&mut command);
    assert!(node.address.starts_with("127.0.0.1:") && !node.address.ends_with(":0"), "{}", node.address);
    let status = json_lines(&entgldb(&["status", "--json", "--data-dir", &place.text("data")]));
    assert_eq!(status[0]["name"], "from-the-option");
    assert_eq!(status[0]["listen"], node.address.as_str());
}

#[test]
fn people_see_the_address_and_the_identity_and_programs_nothing_on_standard_output() {
    let place = Place::new();
    place.database("shop.db");
    let mut command =
        place.sync("shop.db", &["--listen", "127.0.0.1:0", "--stop-with-stdin", "--name", "till"]);
    let child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    until("a status", || code(&entgldb(&["status", &place.text("shop.db")])) == 0);
    let status = &json_lines(&entgldb(&["status", "--json", &place.text("shop.db")]))[0];
    let output = child.wait_with_output().unwrap();
    assert_eq!(code(&output), 0);
    let text = stderr(&output);
    for expected in ["till", status["node"].as_str().unwrap(), status["listen"].as_str().unwrap(), "items"] {
        assert!(text.contains(expected), "{expected} in {text}");
    }
    assert!(output.stdout.is_empty());
    assert!(!text.contains('\u{1b}'), "no colours into a pipe: {text:?}");
}

#[test]
fn the_log_is_on_standard_error_and_never_holds_a_secret_or_a_document() {
    let place = Place::new();
    let (one, two) = (place.database("one.db"), place.database("two.db"));
    let listening = place.node("one.db", &[]);
    let mut command = place.sync("two.db", &["--json", "--log", "trace", "--stop-with-stdin"]);
    command.args(["--peer", &listening.address]);
    let child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let reader = std::thread::spawn({
        let two = place.open("two.db");
        move || until("the item", || items(&two).len() == 1)
    });
    one.execute("INSERT INTO items VALUES ('a', 'strictly-confidential', 1)", []).unwrap();
    drop(two);
    let arrived = reader.join();
    let output = child.wait_with_output().unwrap();
    arrived.unwrap();
    assert_eq!(code(&output), 0);
    let text = stderr(&output);
    let secret = std::fs::read_to_string(place.path("secret")).unwrap();
    let secret = secret.lines().last().unwrap();
    assert!(text.contains("started"), "{text}");
    assert!(!text.contains("strictly-confidential") && !text.contains(secret), "{text}");
    assert!(!json_lines(&output).is_empty());
}

#[test]
fn a_database_that_cannot_be_written_is_refused() {
    let place = Place::new();
    drop(place.database("shop.db"));
    if std::fs::metadata("/proc/self").is_ok_and(|own| std::os::unix::fs::MetadataExt::uid(&own) == 0) {
        eprintln!("skipped: permissions do not bind root");
        return;
    }
    set_mode(&place.path("shop.db"), 0o400);
    let output = place.sync("shop.db", &[]).stdin(Stdio::null()).output().unwrap();
    assert_eq!(code(&output), 3);
    assert!(stderr(&output).contains("permission"), "{}", stderr(&output));
}

#[test]
fn a_database_that_is_damaged_while_it_runs_ends_the_command_with_4_and_says_so() {
    let place = Place::new();
    let shop = place.database("shop.db");
    let mut command = place.sync("shop.db", &["--json", "--stop-with-stdin"]);
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let stdin = child.stdin.take();
    shop.execute("INSERT INTO items VALUES ('a', 'x', 1)", []).unwrap();
    let entries = || json_lines(&entgldb(&["status", "--json", &place.text("shop.db")]));
    until("an entry", || entries().iter().any(|status| status["entries"] == 1));
    // Everything but the first page becomes garbage; then a commit that touches only that page makes the engine read.
    until("all of it in the file", || {
        // Reading first: this connection may not know yet that there is a WAL.
        assert_eq!(items(&shop).len(), 1);
        let state = |row: &Row| Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?));
        shop.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], state).unwrap() == (0, 0)
    });
    let file = std::fs::File::options().write(true).open(place.path("shop.db")).unwrap();
    let garbage = vec![0xee; usize::try_from(file.metadata().unwrap().len()).unwrap() - PAGE];
    std::os::unix::fs::FileExt::write_all_at(&file, &garbage, PAGE as u64).unwrap();
    shop.execute_batch("PRAGMA user_version = 7").unwrap();
    let mut ended = None;
    until("the end of the command", || {
        ended = child.try_wait().unwrap();
        ended.is_some()
    });
    let output = child.wait_with_output().unwrap();
    drop(stdin);
    let text = stderr(&output);
    assert_eq!(code(&output), 4, "{text}");
    assert!(text.contains("shop.db") && text.lines().count() == 2, "{text}");
    assert!(json_lines(&output).iter().any(|line| line["event"] == "store_error" && line["retry"] == false));
    assert_eq!(code(&entgldb(&["status", &place.text("shop.db")])), 1);
}
