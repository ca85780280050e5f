//! The scenarios in `tests/scenarios/`: real processes, real databases, real kills.

use anyhow::Result;
use clap::Args;
use xshell::cmd;

use crate::python;
use crate::workspace::{Profile, Workspace};

/// How long the long form is.
#[derive(Args)]
pub(crate) struct Soak {
    /// How many times an engine or a writer is killed at a random moment.
    #[arg(long, default_value_t = 200)]
    kills: u32,
    /// How long the nodes stay apart, in minutes.
    #[arg(long, default_value_t = 10)]
    apart_minutes: u32,
    /// The seed of the random moments, to repeat a run; drawn if not given.
    #[arg(long)]
    seed: Option<u64>,
}

/// All scenarios, each as short as it can be and still find something.
pub(crate) fn short(workspace: &Workspace) -> Result<()> {
    if !python::is_there(workspace, "the scenarios with real processes")? {
        return Ok(());
    }
    let program = workspace.build("entgldb-cli", "entgldb", Profile::Dev)?;
    let _program = workspace.shell.push_env("ENTGLDB_PROGRAM", program);
    cmd!(workspace.shell, "python3 -m unittest discover --verbose --start-directory tests/scenarios")
        .run()?;
    Ok(())
}

/// The scenario of three nodes in a line, as long as asked for.
pub(crate) fn soak(workspace: &Workspace, soak: &Soak) -> Result<()> {
    if !python::is_there(workspace, "the soak")? {
        anyhow::bail!("nothing was tested");
    }
    let shell = &workspace.shell;
    let program = workspace.build("entgldb-cli", "entgldb", Profile::Release)?;
    let _program = shell.push_env("ENTGLDB_PROGRAM", program);
    let _kills = shell.push_env("ENTGLDB_KILLS", soak.kills.to_string());
    let _apart = shell.push_env("ENTGLDB_APART_SECONDS", (soak.apart_minutes * 60).to_string());
    let _seed = soak.seed.map(|seed| shell.push_env("ENTGLDB_SEED", seed.to_string()));
    cmd!(
        shell,
        "python3 -m unittest discover --verbose --start-directory tests/scenarios --pattern test_line.py"
    )
    .run()?;
    Ok(())
}
