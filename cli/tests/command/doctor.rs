//! `entgldb doctor`: what scripts and people learn of a database before its first sync.

use std::fs;

use crate::common::{Place, code, entgldb, json_lines, stderr, until};

#[test]
fn a_script_learns_by_the_exit_code_and_one_object_whether_the_named_tables_can_be_synced() {
    let place = Place::new();
    place.database("shop.db").execute_batch("CREATE TABLE notes (text TEXT)").unwrap();
    let shop = place.text("shop.db");
    let named = entgldb(&["doctor", &shop, "--watch", "items", "--json"]);
    assert_eq!(code(&named), 0, "{}", stderr(&named));
    let found = json_lines(&named);
    assert_eq!((found.len(), &found[0]["ready"], &found[0]["node_runs"]), (1, &true.into(), &false.into()));
    let all = entgldb(&["doctor", &shop, "--json"]);
    assert_eq!(code(&all), 1);
    let notes = &json_lines(&all)[0]["tables"][1];
    assert_eq!((&notes["name"], &notes["watchable"]), (&"notes".into(), &false.into()));
    assert_eq!(notes["findings"][0]["code"], "no_key");
    for unreadable in ["none.db", "secret"] {
        let output = entgldb(&["doctor", &place.text(unreadable), "--json"]);
        assert_eq!(code(&output), 3, "{unreadable}");
        assert!(stderr(&output).contains(unreadable) && output.stdout.is_empty(), "{}", stderr(&output));
    }
}

#[test]
fn people_see_each_table_its_trouble_and_what_to_do() {
    let place = Place::new();
    place.database("shop.db").execute_batch("CREATE TABLE notes (text TEXT)").unwrap();
    let output = entgldb(&["doctor", &place.text("shop.db")]);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    for expected in
        ["yes  items", "no   notes", "no declared primary key", "try:", "1 of 2 tables can be synced"]
    {
        assert!(text.contains(expected), "{expected} in {text}");
    }
}

#[test]
fn the_doctor_leaves_no_trace_and_works_beside_a_running_node() {
    let place = Place::new();
    let shop = place.database("shop.db");
    shop.execute("INSERT INTO items VALUES ('a', 'x', 1)", []).unwrap();
    drop(shop);
    let shop = place.text("shop.db");
    let before = fs::read(place.path("shop.db")).unwrap();
    let names = || {
        let folder = fs::read_dir(place.path("")).unwrap();
        let mut names: Vec<_> = folder.map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        names
    };
    let names_before = names();
    assert_eq!(code(&entgldb(&["doctor", &shop])), 0);
    assert_eq!(fs::read(place.path("shop.db")).unwrap(), before);
    assert_eq!(names(), names_before);

    let node = place.node("shop.db", &[]);
    until("the node's own facts", || {
        let found = &json_lines(&entgldb(&["doctor", &shop, "--json"]))[0];
        found["node_runs"] == true && found["engine"]["node"] == node.id.as_str()
    });
    let text = String::from_utf8_lossy(&entgldb(&["doctor", &shop]).stdout).into_owned();
    assert!(text.contains("which runs now") && text.contains("watched"), "{text}");
    node.stop();
}
