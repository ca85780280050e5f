//! `entgldb demo`: the main job in one command. Two shops with a database each, a node beside each of them in a process of
//! its own, and an application that writes by ordinary SQL and knows nothing of it. What the demo says, it has checked.

mod node;
mod patience;
mod report;
mod schema;
mod shop;
mod speed;
mod stages;

use std::path::Path;

use crate::args::DemoArguments;
use crate::failure::Failure;
use crate::output;
use patience::Patience;
use report::Report;
use stages::Demo;

pub(crate) fn run(arguments: &DemoArguments) -> Result<(), Failure> {
    let patience = Patience::until_stopped()?;
    let folder = tempfile::Builder::new().prefix("entgldb-demo-").tempdir().map_err(|error| {
        Failure::start(
            format_args!("cannot make a temporary folder: {error}"),
            "set TMPDIR to a folder that you may write to",
        )
    })?;
    let outcome = play(folder.path(), Report::new(arguments.json), patience);
    if arguments.keep {
        let folder = folder.keep();
        output::note(format_args!("Kept the databases and logs in {}", folder.display()));
    }
    outcome
}

/// All nodes have ended when this returns, however it returns.
fn play(folder: &Path, report: Report, patience: Patience) -> Result<(), Failure> {
    let mut demo = Demo::set_up(folder, report, patience)?;
    demo.live()?;
    demo.apart()?;
    demo.healed()?;
    demo.conflict()?;
    demo.speed()?;
    demo.verified()?;
    demo.stop()
}
