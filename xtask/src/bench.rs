//! `cargo xtask bench`: EntglDb and its control through the same workloads in one run.

use anyhow::{Result, bail};
use clap::Args;
use xshell::cmd;

use crate::python;
use crate::workspace::{Profile, Workspace};

/// What is measured.
#[derive(Args)]
pub(crate) struct Options {
    /// Workloads with their size, such as W1:10000. All of them in their usual sizes if none is named.
    workloads: Vec<String>,
    /// Who takes part, by name. `copy` is the control, which every ratio is relative to.
    #[arg(long, default_value = "copy,entgldb", value_delimiter = ',')]
    peers: Vec<String>,
    /// How to start a peer that is not ours, as NAME=COMMAND. It has to speak the node commands of the harness.
    #[arg(long = "peer", value_name = "NAME=COMMAND")]
    commands: Vec<String>,
    /// How often each workload is run; the table shows medians.
    #[arg(long, default_value_t = 3)]
    runs: u32,
    /// Whether EntglDb and the control sync to the disk before a commit is acknowledged: `normal` or `full`.
    #[arg(long, default_value = "normal")]
    durability: String,
}

/// Builds our node as shipped, and measures.
pub(crate) fn run(workspace: &Workspace, options: &Options) -> Result<()> {
    if !python::is_there(workspace, "the benchmark")? {
        bail!("nothing was measured");
    }
    let Options { workloads, peers, commands, runs, durability } = options;
    let node = workspace.build("entgldb-bench", "entgldb-bench-node", Profile::Release)?;
    let (peers, runs) = (peers.join(","), runs.to_string());
    let commands = commands.iter().flat_map(|command| ["--peer", command]);
    cmd!(
        workspace.shell,
        "python3 bench/harness/bench.py {workloads...} --node {node} --peers {peers} {commands...}"
    )
    .args(["--runs", &runs, "--durability", durability])
    .run()?;
    Ok(())
}

/// The harness's own tests, and all workloads in small: shows that the benchmark works. Its figures mean nothing.
pub(crate) fn rehearse(workspace: &Workspace, profile: Profile) -> Result<()> {
    if !python::is_there(workspace, "the rehearsal of the benchmark")? {
        return Ok(());
    }
    let node = workspace.build("entgldb-bench", "entgldb-bench-node", profile)?;
    cmd!(workspace.shell, "python3 -m unittest discover --start-directory bench/harness").run()?;
    let workloads = ["W1:500", "W2:100", "W3:20", "W4:500", "W5:50", "W8:10"];
    cmd!(workspace.shell, "python3 bench/harness/bench.py {workloads...} --node {node} --runs 1").run()?;
    Ok(())
}
