//! The C interface from outside: programs in C and C++ against the built library, in every way in which others build them.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use xshell::cmd;

use crate::install;
use crate::workspace::{Profile, Workspace, is_gate};

/// What is under valgrind twenty times slower may take as much longer.
const VALGRIND_SECONDS: u32 = 1200;
/// Under valgrind the first few are enough: its instrument is the same memory that the sanitizers watch.
const VALGRIND_CALLS: u32 = 4000;

/// How often the parts are run.
struct Depth {
    /// Calls of the random test.
    calls: u32,
    /// How often one of two tills is killed.
    kills: u32,
    /// How long one test may take.
    seconds: u32,
}

const SHORT: Depth = Depth { calls: 20_000, kills: 3, seconds: 120 };

/// All of it, as short as it can be and still find something.
pub(crate) fn test(workspace: &Workspace) -> Result<()> {
    run(workspace, SHORT)
}

/// All of it, with so many kills and a million random calls, and the library as it is shipped.
pub(crate) fn soak(workspace: &Workspace, kills: u32) -> Result<()> {
    run(workspace, Depth { calls: 1_000_000, kills, seconds: 3600 })?;
    outside(workspace, &workspace.build_ffi(Profile::Library)?)
}

fn run(workspace: &Workspace, depth: Depth) -> Result<()> {
    if !tools_are_there(workspace)? {
        return Ok(());
    }
    // Together, so that cargo chooses one set of features for both.
    cmd!(workspace.shell, "cargo build --locked --package entgldb-ffi --package entgldb-conformance-peer")
        .run()?;
    let built = Profile::Dev.folder()?;
    exported(workspace, &built.join("libentgldb_ffi.so"))?;
    let _calls = workspace.shell.push_env("ENTGLDB_CALLS", depth.calls.to_string());
    let _kills = workspace.shell.push_env("ENTGLDB_KILLS", depth.kills.to_string());
    let peer = format!("-DENTGLDB_CONFORMANCE_PEER={}", built.join("entgldb-conformance-peer").display());
    let seconds = format!("-DENTGLDB_SECONDS={}", depth.seconds);
    programs(workspace, &built, "c-tests", &[&peer, &seconds])?;
    // LeakSanitizer too: the library's memory comes from the same malloc.
    programs(workspace, &built, "c-tests-sanitized", &["-DENTGLDB_SANITIZE=ON", &peer, &seconds])?;
    under_valgrind(workspace, &built)?;
    outside(workspace, &built)
}

/// Whether C and C++ programs can be built here. Says what is missing; where nothing may be skipped, that is an error.
fn tools_are_there(workspace: &Workspace) -> Result<bool> {
    let shell = &workspace.shell;
    let is_there = |program: &str| {
        cmd!(shell, "{program} --version").quiet().ignore_stdout().ignore_stderr().run().is_ok()
    };
    let mut missing: Vec<_> = ["cmake", "ctest", "cc", "c++", "pkg-config", "nm", "objcopy"]
        .into_iter()
        .filter(|tool| !is_there(tool))
        .collect();
    if missing.is_empty() && cmd!(shell, "pkg-config --exists sqlite3").quiet().run().is_err() {
        missing.push("the headers of SQLite (libsqlite3-dev)");
    }
    if missing.is_empty() {
        return Ok(true);
    }
    skipped(&format!("the tests of the C interface need {}", missing.join(", ")))?;
    Ok(false)
}

fn skipped(message: &str) -> Result<()> {
    if is_gate() {
        bail!("{message}");
    }
    eprintln!("SKIPPED: {message}");
    Ok(())
}

/// The library shows its functions and nothing of what it is made of.
fn exported(workspace: &Workspace, library: &Path) -> Result<()> {
    let list =
        cmd!(workspace.shell, "nm --dynamic --defined-only --format=posix {library}").quiet().read()?;
    let mut shown: Vec<_> = list.lines().filter_map(|line| line.split(' ').next()).collect();
    shown.sort_unstable();
    let wanted = install::symbols(workspace)?;
    ensure!(shown == wanted, "{} exports {shown:?}, ffi/symbols.txt says {wanted:?}", library.display());
    Ok(())
}

/// Where builds of C programs lie.
fn folder(built: &Path, name: &str) -> Result<PathBuf> {
    Ok(built.parent().context("cargo builds into a folder of a folder")?.join(name))
}

/// Builds ffi/tests and runs it.
fn programs(workspace: &Workspace, built: &Path, name: &str, options: &[&str]) -> Result<()> {
    let shell = &workspace.shell;
    let folder = folder(built, name)?;
    // From nothing: CMake refuses a folder in which another clone has built, and cargo's folder may be shared by clones.
    shell.remove_path(&folder)?;
    let library = format!("-DENTGLDB_LIBRARY={}", built.join("libentgldb_ffi.so").display());
    cmd!(shell, "cmake -S ffi/tests -B {folder} {library} {options...}").ignore_stdout().run()?;
    cmd!(shell, "cmake --build {folder} --parallel 2").ignore_stdout().run()?;
    cmd!(shell, "ctest --test-dir {folder} --output-on-failure --no-tests=error").run()?;
    Ok(())
}

fn under_valgrind(workspace: &Workspace, built: &Path) -> Result<()> {
    let shell = &workspace.shell;
    if cmd!(shell, "valgrind --version").quiet().ignore_stdout().ignore_stderr().run().is_err() {
        return skipped("the tests of the C interface under valgrind need valgrind");
    }
    let _calls = shell.push_env("ENTGLDB_CALLS", VALGRIND_CALLS.to_string());
    let runner = "-DENTGLDB_RUNNER=valgrind;-q;--error-exitcode=9;--leak-check=full;--errors-for-leak-kinds=definite;--trace-children=no";
    let seconds = format!("-DENTGLDB_SECONDS={VALGRIND_SECONDS}");
    programs(workspace, built, "c-tests-valgrind", &[runner, &seconds])
}

/// Programs that know nothing of this source, against an installed library: by pkg-config and by CMake, dynamic and static.
fn outside(workspace: &Workspace, built: &Path) -> Result<()> {
    let shell = &workspace.shell;
    let place = shell.create_temp_dir()?;
    let (prefix, source, build) =
        (place.path().join("prefix"), place.path().join("source"), place.path().join("build"));
    install::lay_out(workspace, built, &prefix)?;
    fs::create_dir_all(&source)?;
    for file in ["CMakeLists.txt", "program.c", "program.cpp"] {
        shell.copy_file(workspace.root.join("ffi/tests/outside").join(file), &source)?;
    }
    let _folder = shell.push_dir(place.path());
    let _find = shell.push_env("PKG_CONFIG_PATH", prefix.join("lib/pkgconfig"));
    let _load = shell.push_env("LD_LIBRARY_PATH", prefix.join("lib"));
    let flags = |options: &[&str]| -> Result<Vec<String>> {
        let answer = cmd!(shell, "pkg-config {options...} --cflags --libs entgldb").quiet().read()?;
        Ok(answer.split_whitespace().map(str::to_owned).collect())
    };
    let shared = flags(&[])?;
    // The archive by its name: -lentgldb would be the shared library, and -static all of the system's libraries too.
    let archived: Vec<_> =
        flags(&["--static"])?.into_iter().map(|flag| flag.replace("-lentgldb", "-l:libentgldb.a")).collect();
    let mut made = Vec::new();
    for (compiler, standard, program) in
        [("cc", "-std=c99", "program.c"), ("c++", "-std=c++17", "program.cpp")]
    {
        for (kind, flags) in [("shared", &shared), ("static", &archived)] {
            let out = place.path().join(format!("{kind}-{program}.bin"));
            cmd!(shell, "{compiler} {standard} -Wall -Wextra -Werror {source}/{program} -o {out} {flags...}")
                .run()?;
            made.push(out);
        }
    }
    cmd!(shell, "cmake -S {source} -B {build} -DCMAKE_PREFIX_PATH={prefix}").ignore_stdout().run()?;
    cmd!(shell, "cmake --build {build}").ignore_stdout().run()?;
    made.extend(["c_dynamic", "c_static", "cpp_dynamic", "cpp_static"].map(|name| build.join(name)));
    for program in made {
        let data = shell.create_temp_dir()?;
        let data = data.path();
        let answer = cmd!(shell, "{program} {data}").read()?;
        ensure!(answer.contains("hello"), "{} answered {answer:?}", program.display());
    }
    Ok(())
}
