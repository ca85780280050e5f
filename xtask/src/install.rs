//! `cargo xtask install`: headers and libraries laid out for C and C++ programs, found by pkg-config and by CMake.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use xshell::cmd;

use crate::workspace::{Profile, Workspace};

/// What the static library needs of the system, beside libc.
const NATIVE: [&str; 4] = ["-lm", "-lpthread", "-ldl", "-lgcc_s"];
/// The stripped shared library as shipped is smaller than this.
const SHIPPED_BYTES_MAX: u64 = 6 << 20;

/// Where to.
#[derive(Args)]
pub(crate) struct Options {
    /// The folder that gets `include`, `lib` and `share`.
    #[arg(long)]
    prefix: PathBuf,
    /// Installs what the tests use: quick to build, large and slow.
    #[arg(long)]
    debug: bool,
}

/// Builds the libraries and lays everything out.
pub(crate) fn run(workspace: &Workspace, options: &Options) -> Result<()> {
    let profile = if options.debug { Profile::Dev } else { Profile::Library };
    // Relative to where the caller stands, not to the root of the source.
    let prefix = std::env::current_dir()?.join(&options.prefix);
    lay_out(workspace, &workspace.build_ffi(profile)?, &prefix)?;
    eprintln!("installed under {}", prefix.display());
    Ok(())
}

/// Copies headers and libraries from the folder that cargo built them in.
pub(crate) fn lay_out(workspace: &Workspace, built: &Path, prefix: &Path) -> Result<()> {
    if !cfg!(target_os = "linux") {
        bail!(
            "this knows how to name and strip libraries on Linux only; elsewhere take them from {}",
            built.display()
        );
    }
    let shell = &workspace.shell;
    let (include, lib) = (prefix.join("include"), prefix.join("lib"));
    let (sources, cmake) = (prefix.join("share/entgldb"), lib.join("cmake/entgldb"));
    let pkgconfig = lib.join("pkgconfig");
    for folder in [&include, &lib, &sources, &cmake, &pkgconfig] {
        fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
    }
    for header in ["include/entgldb.h", "include/entgldb.hpp"] {
        shell.copy_file(workspace.root.join(header), &include)?;
    }
    for source in ["examples/c/entgldb_sqlite.c", "examples/c/entgldb_sqlite.h"] {
        shell.copy_file(workspace.root.join(source), &sources)?;
    }
    let soname = soname(workspace)?;
    let shared = lib.join(&soname);
    let library = built.join("libentgldb_ffi.so");
    cmd!(shell, "strip --strip-unneeded -o {shared} {library}").run()?;
    let bytes = fs::metadata(&shared)?.len();
    ensure!(
        built != Profile::Library.folder()? || bytes < SHIPPED_BYTES_MAX,
        "{} has {bytes} bytes; it is to have less than {SHIPPED_BYTES_MAX}",
        shared.display()
    );
    let link = lib.join("libentgldb.so");
    let _ = fs::remove_file(&link);
    std::os::unix::fs::symlink(&soname, &link)?;
    static_library(workspace, &built.join("libentgldb_ffi.a"), &lib.join("libentgldb.a"))?;

    let fill = |name: &str, to: PathBuf, native: &str| -> Result<()> {
        let text = fs::read_to_string(workspace.root.join("ffi/install").join(name))?;
        let text = text.replace("@PREFIX@", &prefix.display().to_string()).replace("@SONAME@", &soname);
        Ok(fs::write(to, text.replace("@NATIVE@", native).replace("@VERSION@", env!("CARGO_PKG_VERSION")))?)
    };
    fill("entgldb.pc.in", pkgconfig.join("entgldb.pc"), &NATIVE.join(" "))?;
    let names = NATIVE.map(|flag| flag.trim_start_matches("-l")).join(";");
    fill("entgldbConfig.cmake.in", cmake.join("entgldbConfig.cmake"), &names)?;
    fill("entgldbConfigVersion.cmake.in", cmake.join("entgldbConfigVersion.cmake"), "")
}

/// Exactly these may be seen from outside.
pub(crate) fn symbols(workspace: &Workspace) -> Result<Vec<String>> {
    let list = fs::read_to_string(workspace.root.join("ffi/symbols.txt"))?;
    Ok(list.lines().map(str::to_owned).collect())
}

fn soname(workspace: &Workspace) -> Result<String> {
    let header = fs::read_to_string(workspace.root.join("include/entgldb.h"))?;
    let version = header.lines().find_map(|line| line.strip_prefix("#define ENTGLDB_ABI_VERSION "));
    Ok(format!("libentgldb.so.{}", version.context("the header has no ABI version")?))
}

/// One object in which all but our own functions is local: the SQLite in it must not become the program's.
fn static_library(workspace: &Workspace, from: &Path, to: &Path) -> Result<()> {
    let shell = &workspace.shell;
    let folder = shell.create_temp_dir()?;
    let (whole, ours) = (folder.path().join("whole.o"), folder.path().join("entgldb.o"));
    let symbols = symbols(workspace)?;
    let wanted = symbols.iter().flat_map(|name| ["-u", name]);
    cmd!(shell, "ld -r --gc-sections {wanted...} -o {whole} {from}").run()?;
    // The bitcode that Rust's own objects bring along would only confuse tools that look for it.
    let bitcode = ["--remove-section=.llvmbc", "--remove-section=.llvmcmd"];
    cmd!(
        shell,
        "objcopy --strip-debug {bitcode...} --wildcard --keep-global-symbol=entgldb_* {whole} {ours}"
    )
    .run()?;
    let _ = fs::remove_file(to);
    cmd!(shell, "ar rcs {to} {ours}").run()?;
    ensure!(to.is_file(), "{} was not made", to.display());
    Ok(())
}
