//! `cargo xtask check`: everything that can be said about a change without running it.

use anyhow::{Context, Result};
use xshell::cmd;

use crate::workspace::Workspace;
use crate::{header, tidy};

/// Runs all checks, the quick ones first, and stops at the first that fails.
pub(crate) fn run(workspace: &Workspace) -> Result<()> {
    let shell = &workspace.shell;
    cmd!(shell, "git diff --quiet -- Cargo.lock")
        .quiet()
        .run()
        .context("building this has brought Cargo.lock in line with the manifests: look at the difference and stage it")?;
    cmd!(shell, "cargo fmt --all -- --check").run().context("run `cargo fmt --all`")?;
    tidy::run(workspace)?;
    header::check(workspace)?;
    cmd!(shell, "cargo clippy --locked --workspace --all-targets -- -D warnings").run()?;
    document(workspace)?;
    audit(workspace)
}

/// Only libraries: the command and the facade crate have the same name, and their pages would overwrite each other.
fn document(workspace: &Workspace) -> Result<()> {
    let _flags = workspace.shell.push_env("RUSTDOCFLAGS", "-D warnings");
    cmd!(workspace.shell, "cargo doc --locked --workspace --lib --no-deps").run()?;
    Ok(())
}

/// Licences, sources and known holes of the dependencies. Not demanded: it is a tool of its own, and needs the network.
fn audit(workspace: &Workspace) -> Result<()> {
    let shell = &workspace.shell;
    if cmd!(shell, "cargo deny --version").quiet().ignore_stdout().ignore_stderr().run().is_err() {
        eprintln!("SKIPPED: licences and advisories need cargo-deny: cargo install cargo-deny");
        return Ok(());
    }
    cmd!(shell, "cargo deny --locked check").run()?;
    Ok(())
}
