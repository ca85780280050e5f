//! `include/entgldb.h`: made of `ffi/src`, checked in, compared.

use std::fs;

use anyhow::{Context, Result, ensure};

use crate::workspace::Workspace;

const HEADER: &str = "include/entgldb.h";

/// In the order in which a reader of the header wants them.
const SOURCES: [&str; 7] = ["version", "status", "types", "failure", "node", "buffer", "reply"];

/// What cbindgen has no words for.
const INLINE: &str = "\
/**
 * The bytes of a C string, lent as long as it is. NULL gives no bytes.
 */
static inline entgldb_bytes entgldb_str(const char *text) {
    entgldb_bytes bytes;
    bytes.data = (const uint8_t *)text;
    bytes.len = text ? strlen(text) : 0;
    return bytes;
}
";

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
    // The tags are for forward declarations only.
    let header =
        header.replace("struct entgldb_", "entgldb_").replace("typedef entgldb_", "typedef struct entgldb_");
    let (before, end) = header.rsplit_once("#endif").context("the include guard")?;
    let header = format!("{before}{INLINE}\n#endif{end}");
    // One line feed at the end and none before the first line, as in every file here.
    Ok(format!("{}\n", header.trim()))
}
