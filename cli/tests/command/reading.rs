//! The commands that look at a node and its database from outside: `status`, `peers`, `conflicts`, `verify`.

use crate::common::{Place, code, entgldb, items, json_lines, stderr, until};
use rusqlite::Connection;
use serde_json::Value;

fn status(place: &Place, database: &str) -> (i32, Value) {
    let output = entgldb(&["status", "--json", &place.text(database)]);
    let lines = json_lines(&output);
    assert_eq!(lines.len(), 1, "{}", stderr(&output));
    (code(&output), lines[0].clone())
}

#[test]
fn status_is_right_while_the_node_runs_after_it_stopped_and_after_it_was_killed() {
    let place = Place::new();
    let shop = place.database("shop.db");
    shop.execute("INSERT INTO items VALUES ('a', 'x', 1)", []).unwrap();
    let mut node = place.node("shop.db", &["--name", "till"]);
    until("an entry in the status", || status(&place, "shop.db").1["entries"] == 1);
    let (exit, running) = status(&place, "shop.db");
    assert_eq!((exit, &running["state"], &running["pid"]), (0, &"running".into(), &node.pid().into()));
    assert_eq!((&running["name"], &running["node"]), (&"till".into(), &node.id.as_str().into()));
    let people = entgldb(&["status", &place.text("shop.db")]);
    let text = String::from_utf8_lossy(&people.stdout).into_owned();
    assert!(text.contains("running") && text.contains(&node.address) && text.contains("items"), "{text}");

    node.signal("TERM");
    assert_eq!(node.end().code(), Some(0));
    let (exit, stopped) = status(&place, "shop.db");
    assert_eq!((exit, &stopped["state"]), (1, &"stopped".into()));
    let people = entgldb(&["status", &place.text("shop.db")]);
    let text = String::from_utf8_lossy(&people.stdout).into_owned();
    assert!(text.contains("stopped") && !text.contains(&node.address), "{text}");

    let node = place.node("shop.db", &["--name", "till"]);
    until("running again", || status(&place, "shop.db").0 == 0);
    node.signal("KILL");
    drop(node);
    let (exit, killed) = status(&place, "shop.db");
    assert_eq!((exit, &killed["state"]), (1, &"stopped".into()), "it can't say so itself any more");
}

#[test]
fn peers_shows_who_is_known_and_who_is_linked() {
    let place = Place::new();
    place.database("one.db");
    place.database("two.db");
    let one = place.node("one.db", &["--name", "one"]);
    let two = place.node("two.db", &["--name", "two", "--peer", &one.address]);
    let peers = || json_lines(&entgldb(&["peers", "--json", &place.text("one.db")]));
    until("a linked peer", || peers().iter().any(|peer| peer["linked"] == true));
    assert_eq!((&peers()[0]["name"], &peers()[0]["node"]), (&"two".into(), &two.id.as_str().into()));
    two.stop();
    until("no linked peer", || peers().iter().all(|peer| peer["linked"] == false));
    assert_eq!(peers().len(), 1, "a peer that is away is still known");
    let people = entgldb(&["peers", &place.text("one.db")]);
    assert!(String::from_utf8_lossy(&people.stdout).contains("two"));
}

/// Two databases with one conflict in them, and no node running.
fn conflicting(place: &Place) -> (Connection, Connection) {
    let (one, two) = (place.database("one.db"), place.database("two.db"));
    one.execute("INSERT INTO items VALUES ('a', 'first', 1)", []).unwrap();
    let one_node = place.node("one.db", &["--name", "one"]);
    let two_node = place.node("two.db", &["--name", "two", "--peer", &one_node.address]);
    until("the first version on both sides", || items(&two).len() == 1);
    two_node.stop();
    one.execute("UPDATE items SET text = 'earlier' WHERE id = 'a'", []).unwrap();
    std::thread::sleep(std::time::Duration::from_millis(50));
    two.execute("UPDATE items SET text = 'later' WHERE id = 'a'", []).unwrap();
    let two_node = place.node("two.db", &["--name", "two", "--peer", &one_node.address]);
    until("the later version on both sides", || {
        [&one, &two].iter().all(|database| items(database)[0].1.as_deref() == Some("later"))
    });
    two_node.stop();
    one_node.stop();
    (one, two)
}

#[test]
fn conflicts_lists_the_version_that_stands_and_the_one_that_lost_on_both_sides() {
    let place = Place::new();
    let _databases = conflicting(&place);
    for database in ["one.db", "two.db"] {
        let output = entgldb(&["conflicts", "--json", &place.text(database)]);
        assert_eq!(code(&output), 0, "{}", stderr(&output));
        let lines = json_lines(&output);
        assert_eq!(lines.len(), 1, "{lines:?}");
        assert_eq!((&lines[0]["collection"], &lines[0]["key"]), (&"items".into(), &"a".into()));
        assert_eq!(lines[0]["winner"]["content"]["text"], "later");
        assert_eq!(lines[0]["loser"]["content"]["text"], "earlier");
        let people = entgldb(&["conflicts", &place.text(database)]);
        let text = String::from_utf8_lossy(&people.stdout).into_owned();
        assert!(text.contains("later") && text.contains("earlier") && text.contains("items/a"), "{text}");
    }
}

#[test]
fn a_losing_version_is_restored_while_no_node_runs_and_travels_with_the_next_start() {
    let place = Place::new();
    let (one, two) = conflicting(&place);
    let list = json_lines(&entgldb(&["conflicts", "--json", &place.text("one.db")]));
    let version = list[0]["version"].to_string();
    let restore = |more: &[&str]| {
        let path = place.text("one.db");
        entgldb(&[&["conflicts", path.as_str(), "restore"], more].concat())
    };
    for (wrong, words) in [
        (&["items", "nobody"][..], "no losing version"),
        (&["items", "a", "--version", "999"], "no losing version 999"),
        (&["nothing", "a"], "no losing version"),
    ] {
        let output = restore(wrong);
        assert_eq!(code(&output), 3, "{}", stderr(&output));
        assert!(stderr(&output).contains(words) && stderr(&output).contains("try:"), "{}", stderr(&output));
    }
    let output = restore(&["items", "a", "--version", &version, "--json"]);
    assert_eq!(code(&output), 0, "{}", stderr(&output));
    let line = &json_lines(&output)[0];
    assert_eq!((line["version"].to_string(), &line["is_deletion"]), (version, &false.into()));
    assert_eq!(items(&one)[0].1.as_deref(), Some("earlier"));
    let output = restore(&["items", "a"]);
    assert!(String::from_utf8_lossy(&output.stdout).contains("items/a is as it was"), "{}", stderr(&output));

    let one_node = place.node("one.db", &["--name", "one"]);
    let two_node = place.node("two.db", &["--name", "two", "--peer", &one_node.address]);
    until("the restored version on both sides", || items(&two)[0].1.as_deref() == Some("earlier"));
    two_node.stop();
    one_node.stop();
    assert_eq!(code(&entgldb(&["verify", &place.text("one.db")])), 0);
}

#[test]
fn a_limit_shows_the_newest_and_says_that_there_may_be_more() {
    let place = Place::new();
    let _databases = conflicting(&place);
    let output = entgldb(&["conflicts", &place.text("one.db"), "--limit", "1"]);
    assert_eq!(code(&output), 0);
    assert!(stderr(&output).contains("--limit"), "{}", stderr(&output));
    let all = entgldb(&["conflicts", &place.text("one.db")]);
    assert!(!stderr(&all).contains("--limit"), "{}", stderr(&all));
}

#[test]
fn problems_shows_a_row_that_one_database_does_not_take_and_the_others_go_on() {
    let place = Place::new();
    let (one, two) = (place.database("one.db"), place.open("two.db"));
    let strict = "CREATE TABLE items (id TEXT PRIMARY KEY, text TEXT, number INTEGER CHECK (number < 100))";
    two.execute_batch(strict).unwrap();
    let one_node = place.node("one.db", &["--name", "one"]);
    let mut two_node = place.node("two.db", &["--name", "two", "--peer", &one_node.address]);
    one.execute_batch("INSERT INTO items VALUES ('big', 'x', 1000), ('small', 'y', 1)").unwrap();
    let told = two_node.wait_for("problem");
    assert_eq!((&told["kind"], &told["key"]), (&"set_aside".into(), &"big".into()));
    until("the other row", || items(&two).len() == 1);
    let lines = json_lines(&entgldb(&["problems", "--json", &place.text("two.db")]));
    assert_eq!(lines.len(), 1, "{lines:?}");
    assert_eq!((&lines[0]["kind"], &lines[0]["content"]["number"]), (&"set_aside".into(), &1000.into()));
    let people = entgldb(&["problems", &place.text("two.db")]);
    assert!(String::from_utf8_lossy(&people.stdout).contains("items/big"));
    assert!(json_lines(&entgldb(&["problems", "--json", &place.text("one.db")])).is_empty());
}

#[test]
fn verify_finds_nothing_wrong_in_databases_that_have_synced_running_or_not() {
    let place = Place::new();
    let (one, _two) = conflicting(&place);
    for database in ["one.db", "two.db"] {
        let output = entgldb(&["verify", "--json", &place.text(database)]);
        assert_eq!(code(&output), 0, "{:?}", json_lines(&output));
    }
    let _node = place.node("one.db", &[]);
    one.execute("INSERT INTO items VALUES ('b', 'while it runs', 2)", []).unwrap();
    let output = entgldb(&["verify", &place.text("one.db")]);
    assert_eq!(code(&output), 0, "{}", stderr(&output));
}

#[test]
fn verify_names_the_entry_with_a_changed_byte_and_ends_with_1() {
    let place = Place::new();
    let (one, _two) = conflicting(&place);
    let changed = one.execute(
        "UPDATE _entgldb_oplog SET payload = CAST(replace(CAST(payload AS TEXT), 'earlier', 'earlies') AS BLOB)
         WHERE instr(CAST(payload AS TEXT), 'earlier')",
        [],
    );
    assert_eq!(changed.unwrap(), 1);
    let output = entgldb(&["verify", "--json", &place.text("one.db")]);
    assert_eq!(code(&output), 1, "{}", stderr(&output));
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(json_lines(&output).iter().any(|line| line["fault"].is_object()), "{text}");
    let people = entgldb(&["verify", &place.text("one.db")]);
    assert_eq!(code(&people), 1);
    assert!(String::from_utf8_lossy(&people.stdout).contains("items"), "it says where");
    assert_eq!(
        code(&entgldb(&["verify", &place.text("two.db")])),
        0,
        "the other database is not touched by that"
    );
}

#[test]
fn verify_finds_a_row_that_was_changed_behind_the_triggers() {
    let place = Place::new();
    let (one, _two) = conflicting(&place);
    one.execute_batch("INSERT INTO _entgldb_applying VALUES (1)").unwrap();
    one.execute("UPDATE items SET number = 7 WHERE id = 'a'", []).unwrap();
    one.execute_batch("DELETE FROM _entgldb_applying").unwrap();
    let output = entgldb(&["verify", "--json", &place.text("one.db")]);
    assert_eq!(code(&output), 1, "{:?}", json_lines(&output));
}

#[test]
fn a_reader_that_has_seen_enough_is_no_error() {
    let place = Place::new();
    let _databases = conflicting(&place);
    let shell = format!("'{}' conflicts '{}' | true", env!("CARGO_BIN_EXE_entgldb"), place.text("one.db"));
    let piped = std::process::Command::new("sh").args(["-c", &shell]).output().unwrap();
    assert!(piped.stderr.is_empty(), "{}", stderr(&piped));
}

#[test]
fn a_data_folder_elsewhere_names_the_node_in_every_command_with_and_without_the_database() {
    let place = Place::new();
    let shop = place.database("shop.db");
    shop.execute("INSERT INTO items VALUES ('a', 'x', 1)", []).unwrap();
    let (database, folder) = (place.text("shop.db"), place.text("elsewhere"));
    let node = place.node("shop.db", &["--data-dir", &folder]);
    until("an entry", || {
        let status = entgldb(&["status", "--json", "--data-dir", &folder]);
        json_lines(&status).iter().any(|status| status["entries"] == 1)
    });
    for command in ["status", "peers", "members", "conflicts", "problems", "schema", "verify"] {
        for place in [&["--data-dir", &folder][..], &[&database, "--data-dir", &folder]] {
            let output = entgldb(&[&[command, "--json"][..], place].concat());
            assert_eq!(code(&output), 0, "{command} {place:?}: {}", stderr(&output));
        }
    }
    assert_eq!(code(&entgldb(&["status", &database])), 3, "no node has run with the usual folder");
    node.stop();
    let forgotten = entgldb(&["peers", "--data-dir", &folder, "--forget", "nobody", "--json"]);
    assert_eq!(code(&forgotten), 3, "{}", stderr(&forgotten));
}
