//! What the command refuses to start with: the exit code, and two lines that say what is wrong and what to do.

use std::fs;
use std::process::{Command, Output, Stdio};

use crate::common::{Place, code, entgldb, set_mode, stderr};

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
