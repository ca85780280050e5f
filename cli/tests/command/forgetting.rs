//! `members`, `watch`, `unwatch` and `snapshot`, with the node running and without.

use crate::common::{Place, code, entgldb, items, json_lines, stderr, until};

#[test]
fn members_are_shown_and_one_that_is_gone_is_removed_through_the_running_node() {
    let place = Place::new();
    place.database("one.db");
    place.database("two.db");
    // With a short retention members introduce themselves soon.
    let soon = ["--retention-hours", "0.001"];
    let one = place.node("one.db", &[&soon[..], &["--name", "one"]].concat());
    let two = place.node("two.db", &[&soon[..], &["--name", "two", "--peer", &one.address]].concat());
    let members = || json_lines(&entgldb(&["members", "--json", &place.text("one.db")]));
    until("both members", || members().len() == 2);
    let gone = two.id.clone();
    two.stop();
    let removed = entgldb(&["members", "remove", &place.text("one.db"), &gone[..12], "--json"]);
    assert_eq!(code(&removed), 0, "{}", stderr(&removed));
    assert_eq!(json_lines(&removed)[0]["removed"], gone.as_str());
    let found = members().into_iter().find(|member| member["node"] == gone.as_str()).unwrap();
    assert_eq!((&found["removed"], &found["removed_by"]), (&true.into(), &one.id.as_str().into()));
    let itself = entgldb(&["members", "remove", &place.text("one.db"), &one.id]);
    assert_eq!(code(&itself), 3);
    assert!(stderr(&itself).contains("the node itself"), "{}", stderr(&itself));
    let nobody = entgldb(&["members", "remove", &place.text("one.db"), "zz"]);
    assert_eq!(code(&nobody), 3);
    one.stop();
    let people = entgldb(&["members", &place.text("one.db")]);
    let text = String::from_utf8_lossy(&people.stdout).into_owned();
    assert!(text.contains("this node") && text.contains("removed by"), "{text}");
}

#[test]
fn a_running_node_is_told_to_sync_one_more_table_and_one_less() {
    let place = Place::new();
    let shop = place.database("shop.db");
    shop.execute_batch("CREATE TABLE notes (id TEXT PRIMARY KEY)").unwrap();
    let away = entgldb(&["watch", &place.text("shop.db"), "notes"]);
    assert_eq!(code(&away), 3);
    assert!(stderr(&away).contains("--watch"), "{}", stderr(&away));
    let mut node = place.node("shop.db", &[]);
    let watched = entgldb(&["watch", &place.text("shop.db"), "NOTES", "--json"]);
    assert_eq!(code(&watched), 0, "{}", stderr(&watched));
    assert_eq!(json_lines(&watched)[0]["watched"], "notes");
    assert_eq!(node.wait_for("collections")["collections"], serde_json::json!(["items", "notes"]));
    let unwatched = entgldb(&["unwatch", &place.text("shop.db"), "items"]);
    assert_eq!(code(&unwatched), 0, "{}", stderr(&unwatched));
    assert_eq!(node.wait_for("collections")["collections"], serde_json::json!(["notes"]));
    let last = entgldb(&["unwatch", &place.text("shop.db"), "notes"]);
    assert_eq!(code(&last), 3);
    assert!(stderr(&last).contains("only table"), "{}", stderr(&last));
    node.stop();
}

#[test]
fn a_snapshot_goes_from_one_database_to_others_with_and_without_a_node() {
    let place = Place::new();
    let one = place.database("one.db");
    let two = place.database("two.db");
    let three = place.database("three.db");
    one.execute("INSERT INTO items VALUES ('a', 'x', 1), ('b', 'y', 2)", []).unwrap();
    let file = place.text("items.snapshot");
    let never = entgldb(&["snapshot", "export", &place.text("one.db"), &file]);
    assert_eq!(code(&never), 3, "no node has run");
    let node = place.node("one.db", &[]);
    let exported = || entgldb(&["snapshot", "export", &place.text("one.db"), &file, "--json"]);
    until("both rows in the file", || {
        let exported = exported();
        code(&exported) == 0 && json_lines(&exported)[0]["rows"] == 2
    });
    node.stop();
    assert_eq!(json_lines(&exported())[0]["rows"], 2, "without a node too");

    let arguments = ["snapshot", "import", &place.text("two.db"), &file, "--watch", "items", "--json"];
    let imported = entgldb(&arguments);
    assert_eq!(code(&imported), 0, "{}", stderr(&imported));
    assert_eq!(json_lines(&imported)[0]["rows"], 2);
    assert_eq!(items(&two), items(&one));
    assert_eq!(code(&entgldb(&["verify", &place.text("two.db")])), 0);

    let node = place.node("three.db", &[]);
    let imported = entgldb(&["snapshot", "import", &place.text("three.db"), &file]);
    assert_eq!(code(&imported), 0, "{}", stderr(&imported));
    assert_eq!(items(&three), items(&one));
    node.stop();

    let mut bytes = std::fs::read(&file).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&file, bytes).unwrap();
    let damaged = entgldb(&arguments);
    assert_eq!(code(&damaged), 1, "{}", stderr(&damaged));
    assert!(stderr(&damaged).contains("not as it was written"), "{}", stderr(&damaged));
}
