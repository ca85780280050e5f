//! Tools of others that the scenarios in `tests/scenarios/field` run in the soak: they come from the network.

use std::path::{Path, PathBuf};

use anyhow::Result;
use xshell::cmd;

use crate::workspace::{Workspace, target_folder};

/// For a virtual environment; versions whose behaviour the scenarios know.
const PACKAGES: [&str; 3] = ["django==5.2.*", "alembic==1.20.*", "sqlalchemy==2.1.*"];
/// The same for Node.
const MODULES: [&str; 3] = ["drizzle-orm@0.45.4", "drizzle-kit@0.31.11", "better-sqlite3@12.11.1"];

/// Tools of others for the scenarios of the field, as the variables by which those find them. What can't be had is said, and
/// left out.
pub(crate) fn install(workspace: &Workspace) -> Result<Vec<(&'static str, PathBuf)>> {
    let folder = target_folder()?.join("field");
    std::fs::create_dir_all(&folder)?;
    let mut found = Vec::new();
    match python(workspace, &folder) {
        Ok(python) => found.push(("ENTGLDB_FIELD_PYTHON", python)),
        Err(error) => eprintln!("SKIPPED: the scenarios with Django and Alembic: {error:#}"),
    }
    match node(workspace, &folder) {
        Ok(node) => found.push(("ENTGLDB_FIELD_NODE", node)),
        Err(error) => eprintln!("SKIPPED: the scenarios with drizzle-kit: {error:#}"),
    }
    Ok(found)
}

/// A virtual environment.
fn python(workspace: &Workspace, folder: &Path) -> Result<PathBuf> {
    let shell = &workspace.shell;
    let environment = folder.join("python");
    let python = environment.join(if cfg!(windows) { "Scripts/python.exe" } else { "bin/python" });
    if !python.exists() {
        cmd!(shell, "python3 -m venv {environment}").run()?;
    }
    cmd!(shell, "{python} -m pip install --quiet --disable-pip-version-check {PACKAGES...}").run()?;
    Ok(python)
}

/// A folder with modules, and a configuration that takes database and filter from the environment.
fn node(workspace: &Workspace, folder: &Path) -> Result<PathBuf> {
    let shell = &workspace.shell;
    let node = folder.join("node");
    std::fs::create_dir_all(&node)?;
    std::fs::write(node.join("package.json"), r#"{"private": true}"#)?;
    let config = r#"module.exports = { dialect: "sqlite", schema: "./schema.js", dbCredentials: { url: process.env.DATABASE },
  tablesFilter: process.env.TABLES_FILTER.split(",") };"#;
    std::fs::write(node.join("drizzle.config.js"), config)?;
    let _folder = shell.push_dir(&node);
    cmd!(shell, "npm install --no-audit --no-fund {MODULES...}").run()?;
    Ok(node)
}
