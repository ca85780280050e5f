//! The house rules that a machine can check: files use only files above them, and stay short.

use std::path::Path;

/// Files in the order of dependency: each may use those above it.
const ORDER: [&str; 49] = [
    "limits",
    "id",
    "clock",
    "version",
    "fingerprint",
    "entry",
    "json",
    "step",
    "place",
    "resolve",
    "heads",
    "merge",
    "wire",
    "member",
    "edit",
    "bounds",
    "custom",
    "laws",
    "store",
    "states",
    "blocked",
    "event",
    "follow",
    "oplog",
    "page",
    "waiting",
    "conflicts",
    "apply",
    "retain",
    "snapshot",
    "taking",
    "joining",
    "peers",
    "copies",
    "contract",
    "ledger",
    "keeping",
    "outgoing",
    "giver",
    "vectors",
    "violation",
    "session",
    "asking",
    "flow",
    "sending",
    "replica",
    "meeting",
    "exchange",
    "lib",
];
const LINES_MAX: usize = 500;

fn source(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("src").join(format!("{name}.rs"));
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn before_tests(source: &str) -> impl Iterator<Item = &str> {
    source.lines().take_while(|line| !line.starts_with("#[cfg(test)]"))
}

#[test]
fn every_file_is_in_the_order() {
    let mut found: Vec<String> = std::fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("src"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.is_file())
        .map(|path| path.file_stem().unwrap().to_str().unwrap().to_owned())
        .collect();
    let mut listed: Vec<&str> = ORDER.to_vec();
    listed.sort_unstable();
    found.sort();
    assert_eq!(found, listed);
}

#[test]
fn a_file_uses_only_files_above_it() {
    for (place, name) in ORDER.iter().enumerate().take(ORDER.len() - 1) {
        let source = source(name);
        for used in before_tests(&source).flat_map(|line| line.split("crate::").skip(1)) {
            let module = used.split(|c: char| !c.is_alphanumeric() && c != '_').next().unwrap();
            let used_place = ORDER.iter().position(|other| *other == module);
            let above = used_place.is_some_and(|used_place| used_place < place);
            assert!(above, "{name}.rs uses crate::{module}, which is not above it");
        }
    }
}

#[test]
fn no_file_is_longer_than_the_limit_before_its_tests() {
    for name in ORDER {
        let lines = before_tests(&source(name)).count();
        assert!(lines <= LINES_MAX, "{name}.rs has {lines} lines before its tests: split it by idea");
    }
}
