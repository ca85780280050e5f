//! `cargo xtask fuzz`: the fuzz targets in `fuzz/`, one after the other.
//!
//! Not part of the tests: those replay the committed inputs, and need no cargo-fuzz for it.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use xshell::cmd;

use crate::workspace::Workspace;

/// The longest script of `session` that is worth its time, in bytes; the others take a page of text.
const SCRIPT_BYTES_MAX: usize = 160;
const INPUT_BYTES_MAX: usize = 2000;

/// What is run, and for how long.
#[derive(Args)]
pub(crate) struct Options {
    /// One target; all of them if none is named.
    #[arg(long)]
    target: Option<String>,
    /// Executions of each target.
    #[arg(long, default_value_t = 1_000_000)]
    executions: u64,
}

/// Runs the targets and stops at the first that finds something.
pub(crate) fn run(workspace: &Workspace, options: &Options) -> Result<()> {
    let shell = &workspace.shell;
    if cmd!(shell, "cargo fuzz --version").quiet().ignore_stdout().ignore_stderr().run().is_err() {
        bail!("this needs cargo-fuzz and a C++ compiler: cargo install cargo-fuzz");
    }
    let all = targets(&workspace.root)?;
    let chosen: Vec<&String> = match &options.target {
        Some(target) => all.iter().filter(|name| *name == target).collect(),
        None => all.iter().collect(),
    };
    ensure!(!chosen.is_empty(), "there is no such target; there are: {}", all.join(", "));
    // cargo-fuzz asks for options that only a nightly compiler takes, unless a stable one is told to take them.
    let _unstable = shell.push_env("RUSTC_BOOTSTRAP", "1");
    // Hashes and signatures as fast as in a release: they have nothing to tell a fuzzer.
    let _plain = shell.push_env("RUSTC_WRAPPER", workspace.root.join("fuzz/rustc-plain"));
    for target in chosen {
        fuzz(workspace, target, options).with_context(|| format!("the target {target}"))?;
    }
    Ok(())
}

/// The names of the targets, which are the names of their files.
fn targets(root: &Path) -> Result<Vec<String>> {
    let files = fs::read_dir(root.join("fuzz/targets")).context("fuzz/targets")?;
    let mut names = Vec::new();
    for file in files {
        let path = file?.path();
        names.extend(path.file_stem().map(|name| name.to_string_lossy().into_owned()));
    }
    names.sort();
    Ok(names)
}

/// Without a sanitizer: our code has no `unsafe`, and the C of SQLite and zstd would have to be built with one.
fn fuzz(workspace: &Workspace, target: &str, options: &Options) -> Result<()> {
    let shell = &workspace.shell;
    let is_script = target == "session";
    // Its inputs are choices, not texts: comparisons tell nothing about them, and cost half the speed.
    let build: &[&str] = if is_script { &["--no-trace-compares"] } else { &[] };
    let longest = if is_script { SCRIPT_BYTES_MAX } else { INPUT_BYTES_MAX };
    // What is found on the way goes into the first folder; the others are only read.
    let mut folders = vec![format!("fuzz/corpus/{target}"), format!("fuzz/seeds/{target}")];
    let regressions = format!("fuzz/regressions/{target}");
    if workspace.root.join(&regressions).exists() {
        folders.push(regressions);
    }
    fs::create_dir_all(workspace.root.join(&folders[0]))?;
    let _folder = shell.push_dir(&workspace.root);
    let (runs, longest) = (format!("-runs={}", options.executions), format!("-max_len={longest}"));
    cmd!(shell, "cargo fuzz run --sanitizer none {build...} {target} {folders...} -- {runs} {longest}")
        .args(["-timeout=20", "-print_final_stats=1"])
        .run()
        .context("if it wrote an input to fuzz/artifacts, that input breaks a promise: see fuzz/README.md")?;
    Ok(())
}
