//! Python runs the scenarios and the benchmark harness: it brings a SQLite of its own, so that what writes the
//! databases there is another program with another copy of SQLite, as in real life.

use anyhow::{Result, bail};
use xshell::cmd;

use crate::workspace::{Workspace, is_gate};

/// Whether the Python work can be done here. Says so when it can't; where nothing may be skipped, that is an error.
pub(crate) fn is_there(workspace: &Workspace, what_for: &str) -> Result<bool> {
    let shell = &workspace.shell;
    let probe = "import sqlite3, sys; sys.exit(sys.version_info < (3, 9))";
    if cmd!(shell, "python3 -c {probe}").quiet().ignore_stderr().run().is_ok() {
        return Ok(true);
    }
    let message = format!(
        "{what_for} needs python3, 3.9 or later, with its sqlite3 module: install it, or put it in PATH"
    );
    if is_gate() {
        bail!("{message}");
    }
    eprintln!("SKIPPED: {message}");
    Ok(false)
}
