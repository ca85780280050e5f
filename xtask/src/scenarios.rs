//! The scenarios in `tests/scenarios/`: real processes, real databases, real kills.

use anyhow::{Result, bail, ensure};
use clap::Args;
use xshell::cmd;

use crate::workspace::{Profile, Workspace};
use crate::{field, interface, python};

/// How long the long form is.
#[derive(Args)]
pub(crate) struct Soak {
    /// How long the simulator draws new seeds, in minutes; 0 leaves it out.
    #[arg(long, default_value_t = 10)]
    minutes: u64,
    /// How many times an engine or a writer is killed at a random moment.
    #[arg(long, default_value_t = 200)]
    kills: u32,
    /// How many times the power of a machine is cut, for each durability. Needs root.
    #[arg(long, default_value_t = 100)]
    power_cuts: u32,
    /// How many writes and syncs of each kind fail, one a run; 0 means every one of them. Needs strace.
    #[arg(long, default_value_t = 0)]
    io_faults: u32,
    /// How often a database is put back to an older copy, alone and as often with its node's folder.
    #[arg(long, default_value_t = 100)]
    restores: u32,
    /// How many single bits of a database file are flipped.
    #[arg(long, default_value_t = 1000)]
    bit_flips: u32,
    /// How long the nodes stay apart, in minutes.
    #[arg(long, default_value_t = 10)]
    apart_minutes: u32,
    /// How long a node is frozen, in seconds; links are dropped after 90.
    #[arg(long, default_value_t = 120)]
    frozen_seconds: u32,
    /// How long each kind of bad network lasts, in seconds. Needs root.
    #[arg(long, default_value_t = 60)]
    storm_seconds: u32,
    /// How many rows the first capture of a large table has; with 1,500,000 it takes more than half a minute.
    #[arg(long, default_value_t = 1_500_000)]
    field_rows: u32,
    /// How long the old and the new version of an application work side by side, in seconds.
    #[arg(long, default_value_t = 60)]
    side_by_side_seconds: u32,
    /// The seed of the random moments, to repeat a run; drawn if not given. The simulator has seeds of its own.
    #[arg(long)]
    seed: Option<u64>,
}

impl Soak {
    /// What the scenarios and the tests look for.
    fn settings(&self) -> Vec<(&'static str, String)> {
        let mut settings = vec![
            ("ENTGLDB_KILLS", self.kills.to_string()),
            ("ENTGLDB_POWER_CUTS", self.power_cuts.to_string()),
            ("ENTGLDB_IO_FAULTS", self.io_faults.to_string()),
            ("ENTGLDB_RESTORES", self.restores.to_string()),
            ("ENTGLDB_BIT_FLIPS", self.bit_flips.to_string()),
            ("ENTGLDB_APART_SECONDS", (self.apart_minutes * 60).to_string()),
            ("ENTGLDB_FROZEN_SECONDS", self.frozen_seconds.to_string()),
            ("ENTGLDB_STORM_SECONDS", self.storm_seconds.to_string()),
            ("ENTGLDB_FIELD_ROWS", self.field_rows.to_string()),
            ("ENTGLDB_FIELD_SIDE_BY_SIDE_SECONDS", self.side_by_side_seconds.to_string()),
            // With a table of more than a million rows everything takes longer.
            ("ENTGLDB_FIELD_SECONDS", "600".to_owned()),
        ];
        settings.extend(self.seed.map(|seed| ("ENTGLDB_SEED", seed.to_string())));
        settings
    }

    /// What will be run, for whoever waits for it.
    fn plan(&self) -> String {
        let faults = match self.io_faults {
            0 => "every write and sync".to_owned(),
            some => format!("{some} of each kind of write and sync"),
        };
        format!(
            "soak:\n  simulator: {} minutes of new seeds\n  bit flips: {}\n  scenarios: {} kills, {} restored databases, {} power cuts of \
             each durability, {faults} failing, {} minutes apart, {} s frozen, {} s of each bad network, \
             {} rows captured at first, old and new side by side for {} s, real Django, Alembic and drizzle-kit, and all others in \
             their only form\n  the C interface: a million random calls, two tills killed {} times; what needs root or a tool that is missing says so and is skipped",
            self.minutes,
            self.bit_flips,
            self.kills,
            self.restores,
            self.power_cuts,
            self.apart_minutes,
            self.frozen_seconds,
            self.storm_seconds,
            self.field_rows,
            self.side_by_side_seconds,
            self.kills,
        )
    }
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

/// The simulator, bit flips and all scenarios, as long as asked for. Every part is run, also after one has failed.
pub(crate) fn soak(workspace: &Workspace, soak: &Soak) -> Result<()> {
    if !python::is_there(workspace, "the soak")? {
        bail!("nothing was tested");
    }
    eprintln!("{}", soak.plan());
    let shell = &workspace.shell;
    let program = workspace.build("entgldb-cli", "entgldb", Profile::Release)?;
    let _program = shell.push_env("ENTGLDB_PROGRAM", program);
    let _settings: Vec<_> =
        soak.settings().into_iter().map(|(name, value)| shell.push_env(name, value)).collect();
    let _tools: Vec<_> =
        field::install(workspace)?.into_iter().map(|(name, path)| shell.push_env(name, path)).collect();
    let minutes = soak.minutes.to_string();
    let mut failed = Vec::new();
    let mut part = |name: &'static str, result: xshell::Result<()>| {
        if let Err(error) = result {
            eprintln!("FAILED: {name}: {error}");
            failed.push(name);
        }
    };
    if soak.minutes > 0 {
        let simulator =
            cmd!(shell, "cargo run --locked --release --package entgldb-sim -- --minutes {minutes}");
        part("the simulator", simulator.run());
    }
    let flips = cmd!(shell, "cargo test --locked --package entgldb-sqlite --test bit_flips -- --nocapture");
    part("the bit flips", flips.run());
    let scenarios = cmd!(shell, "python3 -m unittest discover --verbose --start-directory tests/scenarios");
    part("the scenarios", scenarios.run());
    if let Err(error) = interface::soak(workspace, soak.kills) {
        eprintln!("FAILED: the C interface: {error:#}");
        failed.push("the C interface");
    }
    ensure!(failed.is_empty(), "failed: {}", failed.join(", "));
    Ok(())
}
