//! `entgldb keygen`: who can read what it writes, and what it never overwrites.

use std::fs;

use crate::common::{code, entgldb, json_lines, mode, stderr};

#[test]
fn a_new_secret_is_for_its_owner_only_and_is_not_shown() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("cluster.secret");
    let made = entgldb(&["keygen", file.to_str().unwrap()]);
    assert_eq!(code(&made), 0, "{}", stderr(&made));
    assert_eq!(mode(&file), 0o600);
    assert!(made.stdout.is_empty(), "nothing of it may end up in a log or a scrollback");
    let text = fs::read_to_string(&file).unwrap();
    let secret = text.lines().last().unwrap();
    assert!(secret.starts_with("entgldb1-"), "{text}");
    assert!(!stderr(&made).contains(secret));
}

#[test]
fn a_dash_prints_the_secret_and_each_one_is_new() {
    let (one, two) = (entgldb(&["keygen", "-"]), entgldb(&["keygen", "-"]));
    assert_eq!((code(&one), code(&two)), (0, 0));
    assert!(one.stdout.starts_with(b"entgldb1-"));
    assert_eq!(one.stdout.iter().filter(|byte| **byte == b'\n').count(), 1);
    assert_ne!(one.stdout, two.stdout);
}

#[test]
fn an_existing_file_is_never_overwritten_nor_one_behind_a_link() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("cluster.secret");
    fs::write(&file, "precious").unwrap();
    let link = dir.path().join("link");
    std::os::unix::fs::symlink(dir.path().join("not-there"), &link).unwrap();
    for path in [&file, &link] {
        let refused = entgldb(&["keygen", path.to_str().unwrap()]);
        assert_eq!(code(&refused), 3);
        assert!(stderr(&refused).contains("exists already"), "{}", stderr(&refused));
    }
    assert_eq!(fs::read_to_string(&file).unwrap(), "precious");
    assert!(!dir.path().join("not-there").exists());
}

#[test]
fn json_names_the_file_or_holds_the_secret() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("s");
    let made = entgldb(&["keygen", "--json", file.to_str().unwrap()]);
    assert_eq!(json_lines(&made)[0]["secret_file"], file.to_str().unwrap());
    let shown = entgldb(&["keygen", "--json", "-"]);
    assert!(json_lines(&shown)[0]["secret"].as_str().unwrap().starts_with("entgldb1-"));
}
