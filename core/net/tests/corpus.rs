//! Replays the committed inputs of the fuzz targets for what peers send: the seeds, and every input that once broke
//! something. The checks are the fuzz targets' own (`fuzz/src`), so no fuzzer is needed.

#![allow(clippy::print_stdout, reason = "the name of an input that breaks something must be seen")]

#[allow(dead_code, unreachable_pub, reason = "shared with the fuzz targets, which use all of it")]
#[path = "../../../fuzz/src/net/mod.rs"]
mod links;
#[allow(dead_code, unreachable_pub, reason = "shared with the fuzz targets, which use all of it")]
#[path = "../../../fuzz/src/replica/mod.rs"]
mod replica;

use std::path::{Path, PathBuf};

/// The committed inputs of a target.
fn inputs(target: &str) -> Vec<PathBuf> {
    let fuzz = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz");
    let folders = ["seeds", "regressions"].map(|kind| fuzz.join(kind).join(target));
    let files = folders.iter().filter_map(|folder| std::fs::read_dir(folder).ok()).flatten();
    let mut files: Vec<PathBuf> = files.map(|file| file.unwrap().path()).collect();
    files.sort();
    files
}

fn replay(checks: &[links::Check]) {
    for (target, check) in checks {
        let inputs = inputs(target);
        assert!(!inputs.is_empty(), "{target} has no inputs");
        for path in inputs {
            // The name of the file that breaks something is the last line before the panic.
            println!("{}", path.display());
            check(&std::fs::read(&path).unwrap());
        }
    }
}

#[test]
fn committed_inputs_break_no_promise_of_links() {
    replay(&links::CHECKS);
}

#[test]
fn committed_inputs_break_no_promise_of_the_replica() {
    replay(&replica::CHECKS);
}
