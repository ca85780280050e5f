//! `cargo xtask test`: every test, from the smallest to real processes.

use anyhow::Result;
use xshell::cmd;

use crate::workspace::{Profile, Workspace};
use crate::{bench, interface, scenarios};

/// Runs all tests in the quick profile: what the optimiser does is the benchmark's and the demo's business.
pub(crate) fn run(workspace: &Workspace) -> Result<()> {
    let shell = &workspace.shell;
    cmd!(shell, "cargo test --locked --workspace --all-targets").run()?;
    cmd!(shell, "cargo test --locked --workspace --doc").run()?;
    interface::test(workspace)?;
    scenarios::short(workspace)?;
    bench::rehearse(workspace, Profile::Dev)
}
