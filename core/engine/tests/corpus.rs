//! Replays the committed inputs of the fuzz targets for what people write for a node: the seeds, and every input that once broke something.
//! The checks are the fuzz targets' own (`fuzz/src`), so no fuzzer is needed.

#![allow(clippy::print_stdout, reason = "the name of an input that breaks something must be seen")]

#[allow(dead_code, unreachable_pub, reason = "shared with the fuzz targets, which use all of it")]
#[path = "../../../fuzz/src/engine/mod.rs"]
mod written;

use std::path::{Path, PathBuf};

#[test]
fn committed_inputs_break_no_promise_of_configurations() {
    let fuzz = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz");
    for (target, check) in written::CHECKS {
        let folders = ["seeds", "regressions"].map(|kind| fuzz.join(kind).join(target));
        let files = folders.iter().filter_map(|folder| std::fs::read_dir(folder).ok()).flatten();
        let mut paths: Vec<PathBuf> = files.map(|file| file.unwrap().path()).collect();
        paths.sort();
        assert!(!paths.is_empty(), "{target} has no inputs");
        for path in paths {
            // The name of the file that breaks something is the last line before the panic.
            println!("{}", path.display());
            check(&std::fs::read(&path).unwrap());
        }
    }
}
