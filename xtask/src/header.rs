//! `include/entgldb.h`: made of `ffi/src`, checked in, compared.

use std::fs;

use anyhow::{Context, Result, ensure};

use crate::workspace::Workspace;

const HEADER: &str = "include/entgldb.h";

/// In the order in which a reader of the header wants them.
const SOURCES: [&str; 7] = ["version", "status", "types", "failure", "node", "buffer", "reply"];

/// Writes the header anew.
pub(crate) fn write(workspace: &Workspace) -> Result<()> {
    fs::write(workspace.root.join(HEADER), made(workspace)?)?;
    eprintln!("wrote {HEADER}");
    Ok(())
}

/// Compares the header with what would be written.
pub(crate) fn check(workspace: &Workspace) -> Result<()> {
    let there = fs::read_to_string(workspace.root.join(HEADER)).context(HEADER)?;
    ensure!(
        there == made(workspace)?,
        "{HEADER} is not what ffi/src says: run `cargo xtask header` and look at the difference"
    );
    Ok(())
}

fn made(workspace: &Workspace) -> Result<String> {
    let ffi = workspace.root.join("ffi");
    let config = cbindgen::Config::from_file(ffi.join("cbindgen.toml")).map_err(anyhow::Error::msg)?;
    let mut builder = cbindgen::Builder::new().with_config(config);
    for source in SOURCES {
        builder = builder.with_src(ffi.join(format!("src/{source}.rs")));
    }
    let mut header = Vec::new();
    builder.generate().context("reading ffi/src")?.write(&mut header);
    let header = String::from_utf8(header)?;
    // One line feed at the end and none before the first line, as in every file here.
    Ok(format!("{}\n", header.trim()))
}
