//! SECURITY.md names a test for each threat; this holds it to that.

use std::collections::BTreeSet;
use std::path::Path;

fn collect(folder: &Path, functions: &mut BTreeSet<String>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            collect(&path, functions);
        } else if path.extension().is_some_and(|ending| ending == "rs" || ending == "py") {
            for line in std::fs::read_to_string(&path).unwrap_or_default().lines() {
                let line = line.trim_start();
                let line = line.strip_prefix("async ").unwrap_or(line);
                let name = line.strip_prefix("fn ").or_else(|| line.strip_prefix("def "));
                functions.extend(name.and_then(|name| Some(name.split_once('(')?.0.to_owned())));
            }
        }
    }
}

#[test]
fn every_test_that_security_md_names_is_there() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let mut functions = BTreeSet::new();
    for folder in ["core", "cli", "sim", "tests"] {
        collect(&root.join(folder), &mut functions);
    }
    let text = std::fs::read_to_string(root.join("SECURITY.md")).unwrap();
    let quoted = text.split('`').skip(1).step_by(2);
    let is_test = |name: &&str| {
        name.matches('_').count() > 3
            && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
    };
    let named: BTreeSet<&str> = quoted.filter(is_test).collect();
    assert!(named.len() > 60, "only {} tests are named", named.len());
    let missing: Vec<_> = named.iter().filter(|name| !functions.contains(**name)).collect();
    assert!(missing.is_empty(), "{missing:?}");
}
