//! `entgldb demo`: it keeps its word, and leaves nothing behind.

use std::fs;
use std::process::Stdio;
use std::time::Duration;

use crate::common::{code, json_lines, program, stderr, until};

#[test]
fn the_demo_passes_checks_what_it_claims_and_leaves_nothing_behind() {
    let temp = tempfile::tempdir().unwrap();
    let output = program().args(["demo", "--json"]).env("TMPDIR", temp.path()).output().unwrap();
    let lines = json_lines(&output);
    assert_eq!(code(&output), 0, "{}\n{lines:#?}", stderr(&output));
    let claims: Vec<_> = lines.iter().filter(|line| line["claim"].is_string()).collect();
    assert!(claims.len() >= 12 && claims.iter().all(|claim| claim["holds"] == true), "{claims:#?}");
    let figures: Vec<_> = lines.iter().filter_map(|line| line["figure"].as_str()).collect();
    assert_eq!(figures, ["commit_to_visible", "catch_up"]);
    let last = lines.last().unwrap();
    assert_eq!((&last["result"], &last["checks"]), (&"passed".into(), &claims.len().into()));
    assert_eq!(fs::read_dir(temp.path()).unwrap().count(), 0, "the temporary folder is gone");
}

#[test]
fn an_interrupted_demo_ends_its_nodes_and_leaves_nothing_behind() {
    let temp = tempfile::tempdir().unwrap();
    let mut command = program();
    command.arg("demo").env("TMPDIR", temp.path()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut demo = command.spawn().unwrap();
    let databases = || {
        let folders = fs::read_dir(temp.path()).unwrap().filter_map(Result::ok);
        folders.map(|folder| folder.path().join("office.db-entgldb").join("lock")).any(|lock| lock.exists())
    };
    until("the second node", databases);
    let sent = std::process::Command::new("kill").args(["-s", "INT", &demo.id().to_string()]).status();
    assert!(sent.unwrap().success());
    let mut end = None;
    until("the end of the demo", || {
        end = demo.try_wait().unwrap();
        end.is_some()
    });
    assert_eq!(end.and_then(|status| status.code()), Some(130));
    std::thread::sleep(Duration::from_millis(100));
    assert_eq!(fs::read_dir(temp.path()).unwrap().count(), 0, "no node is left that would write there");
}
