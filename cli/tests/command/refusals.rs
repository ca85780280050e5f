//! What the command refuses to start with: the exit code, and two lines that say what is wrong and what to do.

use std::fs;
use std::process::{Command, Output, Stdio};

use crate::common::{Place, code, entgldb, json_lines, set_mode, stderr, until};

/// Runs a `sync` that must refuse to start.
fn refused(command: &mut Command) -> String {
    let output = command.stdin(Stdio::null()).output().unwrap();
    assert_cannot_start(&output)
}

fn assert_cannot_start(output: &Output) -> String {
    let text = stderr(output);
    assert_eq!(code(output), 3, "{text}");
    assert!(output.stdout.is_empty(), "nothing but results belongs on standard output");
    let lines: Vec<&str> = text.lines().collect();
    assert!(lines.len() == 2 && lines[0].starts_with("error: ") && lines[1].starts_with("try: "), "{text}");
    text
}

#[test]
fn a_wrong_command_line_is_exit_code_2_and_the_help_lists_all_codes() {
    for line in [&["sync"][..], &["sync", "a.db", "--wacht", "t"], &["status"], &["nonsense"], &[]] {
        assert_eq!(code(&entgldb(line)), 2, "{line:?}");
    }
    let help = entgldb(&["--help"]);
    assert_eq!(code(&help), 0);
    let text = String::from_utf8_lossy(&help.stdout).into_owned();
    for exit_code in ["0 ", "1 ", "2 ", "3 ", "4 ", "130 "] {
        assert!(text.lines().any(|line| line.trim_start().starts_with(exit_code)), "{exit_code} in {text}");
    }
}

#[test]
fn a_missing_database_is_named_and_not_created() {
    let place = Place::new();
    let text = refused(&mut place.sync("shop.db", &[]));
    assert!(text.contains("shop.db"), "{text}");
    assert!(!place.path("shop.db").exists());
}

#[test]
fn a_file_that_is_no_database_is_refused_and_left_alone() {
    let place = Place::new();
    fs::write(place.path("shop.db"), "this is a text, and long enough to be mistaken for nothing else")
        .unwrap();
    let before = fs::read(place.path("shop.db")).unwrap();
    refused(&mut place.sync("shop.db", &[]));
    assert_eq!(fs::read(place.path("shop.db")).unwrap(), before);
}

#[test]
fn a_missing_table_is_named_and_so_are_those_there_are() {
    let place = Place::new();
    place.database("shop.db");
    let text = refused(&mut place.sync("shop.db", &["--watch", "itmes"]));
    assert!(text.contains("itmes") && text.contains("items"), "{text}");
}

#[test]
fn a_table_without_a_key_is_refused_with_what_to_do() {
    let place = Place::new();
    place.database("shop.db").execute_batch("CREATE TABLE notes (text TEXT)").unwrap();
    let text = refused(&mut place.sync("shop.db", &["--watch", "notes"]));
    assert!(text.contains("notes") && text.contains("PRIMARY KEY"), "{text}");
}

#[test]
fn a_secret_that_others_can_read_is_refused() {
    let place = Place::new();
    place.database("shop.db");
    set_mode(&place.path("secret"), 0o644);
    let text = refused(&mut place.sync("shop.db", &[]));
    assert!(text.contains("chmod 600") && text.contains("secret"), "{text}");
}

#[test]
fn a_file_that_holds_no_secret_is_refused_without_showing_it() {
    let place = Place::new();
    place.database("shop.db");
    fs::write(place.path("secret"), "hunter2hunter2").unwrap();
    set_mode(&place.path("secret"), 0o600);
    let text = refused(&mut place.sync("shop.db", &[]));
    assert!(text.contains("keygen") && !text.contains("hunter2"), "{text}");
}

#[test]
fn an_identity_that_others_can_read_is_refused() {
    let place = Place::new();
    place.database("shop.db");
    place.node("shop.db", &[]).stop();
    let identity = place.path("shop.db-entgldb").join("identity");
    assert_eq!(crate::common::mode(&identity), 0o600);
    set_mode(&identity, 0o640);
    let text = refused(&mut place.sync("shop.db", &[]));
    assert!(text.contains("identity") && text.contains("chmod 600"), "{text}");
}

#[test]
fn addresses_that_are_none_are_refused_and_named() {
    let place = Place::new();
    place.database("shop.db");
    for (option, value) in [("--peer", "office"), ("--peer", "office:0"), ("--listen", "everywhere")] {
        let text = refused(&mut place.sync("shop.db", &[option, value]));
        assert!(text.contains(value), "{text}");
    }
}

#[test]
fn an_address_in_use_is_refused_and_named() {
    let place = Place::new();
    place.database("one.db");
    place.database("two.db");
    let one = place.node("one.db", &[]);
    let text = refused(&mut place.sync("two.db", &["--listen", &one.address]));
    assert!(text.contains(&one.address), "{text}");
}

#[test]
fn a_second_process_for_one_node_is_refused() {
    let place = Place::new();
    place.database("shop.db");
    let _node = place.node("shop.db", &[]);
    let text = refused(&mut place.sync("shop.db", &[]));
    assert!(text.contains("another process"), "{text}");
}

#[test]
fn a_configuration_with_a_mistake_is_refused_with_the_place_of_it() {
    let place = Place::new();
    let config = place.path("node.json");
    fs::write(&config, r#"{"database": "shop.db", "secret_file": "secret", "watch": ["items", 5]}"#).unwrap();
    let text = assert_cannot_start(&entgldb(&["sync", "--config", config.to_str().unwrap()]));
    assert!(text.contains("node.json") && text.contains("watch[1]"), "{text}");
}

#[test]
fn a_mistyped_log_level_is_refused() {
    let place = Place::new();
    place.database("shop.db");
    let text = refused(&mut place.sync("shop.db", &["--log", "debgu"]));
    assert!(text.contains("debgu"), "{text}");
}

#[test]
fn reading_commands_say_when_no_node_has_run_on_a_database() {
    let place = Place::new();
    place.database("shop.db");
    for command in ["status", "peers", "conflicts", "problems", "verify"] {
        for database in ["shop.db", "other.db"] {
            let output = entgldb(&[command, &place.text(database)]);
            let text = assert_cannot_start(&output);
            assert!(text.contains(database), "{command}: {text}");
        }
    }
    assert!(!place.path("other.db").exists());
}

/// A database that a node has synced, with one item.
fn synced(place: &Place, name: &str) {
    place.database(name).execute("INSERT INTO items VALUES ('a', 'x', 1)", []).unwrap();
    let node = place.node(name, &[]);
    until("an entry", || {
        let status = entgldb(&["status", "--json", &place.text(name)]);
        json_lines(&status).iter().any(|status| status["entries"] == 1)
    });
    node.stop();
}

/// What a command that failed says, which must be two lines that fit the reason.
fn complaint(output: &Output) -> String {
    let text = stderr(output);
    assert!([3, 4].contains(&code(output)), "{text}");
    let lines: Vec<&str> = text.lines().collect();
    assert!(lines.len() == 2 && lines[0].starts_with("error: ") && lines[1].starts_with("try: "), "{text}");
    for misleading in ["Query returned", "check the path", "SELECT", "give the database that a node syncs"] {
        assert!(!text.contains(misleading), "{misleading:?} in {text}");
    }
    text
}

#[test]
fn what_is_said_of_damaged_engine_tables_fits_them_in_every_command() {
    let place = Place::new();
    for (number, damage) in [
        "DELETE FROM _entgldb_meta WHERE name = 'format'",
        "DROP TABLE _entgldb_meta",
        "UPDATE _entgldb_collections SET fingerprint = 'nonsense'",
        "DELETE FROM _entgldb_authors",
    ]
    .iter()
    .enumerate()
    {
        let name = format!("shop-{number}.db");
        synced(&place, &name);
        place.open(&name).execute_batch(damage).unwrap();
        let database = place.text(&name);
        let verified = entgldb(&["verify", &database]);
        let text = String::from_utf8_lossy(&verified.stdout).into_owned();
        assert!(code(&verified) == 1 && text.contains("damaged"), "{damage}, verify: {text}");
        for command in ["problems", "conflicts", "members"] {
            let text = complaint(&entgldb(&[command, &database]));
            assert!(text.contains("damaged") && text.contains(&name), "{damage}, {command}: {text}");
            assert!(
                text.contains("entgldb doctor") && text.contains("not concerned"),
                "{damage}, {command}: {text}"
            );
        }
        let text = complaint(&place.sync(&name, &[]).stdin(Stdio::null()).output().unwrap());
        assert!(text.contains("damaged") && text.contains("entgldb doctor"), "{damage}, sync: {text}");
        let doctor = entgldb(&["doctor", &database]);
        let text = String::from_utf8_lossy(&doctor.stdout).into_owned();
        assert!(
            code(&doctor) == 1 && text.contains("damaged") && text.contains("--repair"),
            "{damage}: {text}"
        );
        let repaired = entgldb(&["doctor", &database, "--repair", "--json"]);
        assert_eq!(code(&repaired), 0, "{damage}: {}", stderr(&repaired));
        assert_ne!(json_lines(&repaired)[0]["repaired"]["damage"], serde_json::json!([]), "{damage}");
        let again = entgldb(&["doctor", &database, "--repair"]);
        assert!(code(&again) == 0 && again.stdout.starts_with(b"Nothing was damaged"), "{damage}: {again:?}");
        place.node(&name, &[]).stop();
        assert_eq!(code(&entgldb(&["verify", &database])), 0, "{damage}");
    }
}

#[test]
fn what_is_said_of_a_damaged_file_fits_it() {
    let place = Place::new();
    synced(&place, "shop.db");
    let file = fs::File::options().write(true).open(place.path("shop.db")).unwrap();
    let length = usize::try_from(file.metadata().unwrap().len()).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&file, &vec![0xee; length - 4096], 4096).unwrap();
    let database = place.text("shop.db");
    for output in [
        entgldb(&["verify", &database]),
        entgldb(&["problems", &database]),
        entgldb(&["doctor", &database]),
        place.sync("shop.db", &[]).stdin(Stdio::null()).output().unwrap(),
    ] {
        let text = complaint(&output);
        assert!(text.contains("the file is damaged") && text.contains("backup"), "{text}");
    }
    fs::write(place.path("shop.db"), "no database, and long enough not to be taken for an empty one")
        .unwrap();
    for command in ["verify", "doctor", "detach"] {
        let text = complaint(&entgldb(&[command, &database]));
        assert!(text.contains("encrypted") && text.contains("shop.db"), "{command}: {text}");
    }
}

#[test]
fn what_is_said_of_a_locked_database_fits_it() {
    let place = Place::new();
    let shop = place.database("shop.db");
    shop.execute_batch("BEGIN EXCLUSIVE").unwrap();
    let text = complaint(&entgldb(&["problems", &place.text("shop.db")]));
    assert!(text.contains("locked by another program") && text.contains("shop.db"), "{text}");
}

#[test]
fn a_table_that_can_not_be_watched_is_named_with_the_command_that_tells_which_can() {
    let place = Place::new();
    place
        .database("shop.db")
        .execute_batch("CREATE VIEW shown AS SELECT 1; CREATE TABLE notes (text TEXT)")
        .unwrap();
    for (table, hint) in [("shown", "entgldb doctor"), ("notes", "entgldb doctor"), ("itmes", "--watch")] {
        let text =
            complaint(&place.sync("shop.db", &["--watch", table]).stdin(Stdio::null()).output().unwrap());
        assert!(text.contains(table) && text.contains(hint) && text.contains("shop.db"), "{text}");
    }
}
