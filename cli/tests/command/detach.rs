//! `entgldb detach`: everything of EntglDb goes out of a database, its rows stay.

use rusqlite::Connection;

use crate::common::{Place, code, entgldb, items, json_lines, stderr, until};

fn schema(database: &Connection) -> Vec<(String, Option<String>)> {
    let mut statement =
        database.prepare("SELECT type || name || tbl_name, sql FROM sqlite_schema ORDER BY rowid").unwrap();
    let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?))).unwrap();
    rows.map(Result::unwrap).collect()
}

#[test]
fn a_database_is_taken_out_of_sync_and_is_as_before_and_can_be_synced_again() {
    let place = Place::new();
    let one = place.database("one.db");
    one.execute("INSERT INTO items VALUES ('a', 'x', 1)", []).unwrap();
    let before = schema(&one);
    drop(one);
    let two = place.database("two.db");
    let one_node = place.node("one.db", &["--name", "one"]);
    let two_node = place.node("two.db", &["--name", "two", "--peer", &one_node.address]);
    until("the item on the other side", || items(&two).len() == 1);
    let shop = place.text("one.db");
    let running = entgldb(&["detach", &shop, "--yes"]);
    assert_eq!(code(&running), 3);
    assert!(
        stderr(&running).contains("runs") && stderr(&running).contains("stop it"),
        "{}",
        stderr(&running)
    );
    one_node.stop();

    let one = place.open("one.db");
    one.execute("INSERT INTO items VALUES ('b', 'not captured', 2)", []).unwrap();
    drop(one);
    let asked = entgldb(&["detach", &shop]);
    assert_eq!(code(&asked), 3, "a script can't be asked");
    assert!(stderr(&asked).contains("--yes"), "{}", stderr(&asked));
    let detached = entgldb(&["detach", &shop, "--yes", "--json"]);
    assert_eq!(code(&detached), 0, "{}", stderr(&detached));
    let line = &json_lines(&detached)[0];
    assert_eq!((&line["pending"], &line["tables"]), (&1.into(), &serde_json::json!(["items"])));
    assert_eq!((&line["journal_mode"], &line["journal_before"]), (&"delete".into(), &"delete".into()));
    let one = place.open("one.db");
    assert_eq!(schema(&one), before);
    assert_eq!(items(&one).len(), 2);
    drop(one);
    let again = entgldb(&["detach", &shop, "--yes"]);
    assert_eq!(code(&again), 3);
    assert!(stderr(&again).contains("no node has run"), "{}", stderr(&again));

    let one_node = place.node("one.db", &["--name", "one", "--peer", &two_node.address]);
    until("both items on the other side", || items(&two).len() == 2);
    one_node.stop();
    two_node.stop();
    let people = entgldb(&["detach", &shop, "--yes"]);
    assert_eq!(code(&people), 0, "{}", stderr(&people));
    for expected in
        ["synced no more: items", "members remove", "one.db-entgldb stays", "as before the first sync"]
    {
        assert!(stderr(&people).contains(expected), "{expected} in {}", stderr(&people));
    }
}
