//! Where things are: the root of the source, and what cargo builds from it.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use xshell::{Shell, cmd};

/// How optimised a build is.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Profile {
    /// Quick to build; for tests.
    Dev,
    /// As shipped; for measurements and long runs. Slow to build: the whole program is optimised at once.
    Release,
    /// The library for C programs as shipped: optimised for size.
    Library,
}

impl Profile {
    /// Where cargo puts what it builds.
    pub(crate) fn folder(self) -> Result<PathBuf> {
        Ok(target_folder()?.join(match self {
            Self::Dev => "debug",
            Self::Release => "release",
            Self::Library => "library",
        }))
    }

    /// What to tell cargo.
    fn options(self) -> &'static [&'static str] {
        match self {
            Self::Dev => &[],
            Self::Release => &["--release"],
            Self::Library => &["--profile", "library"],
        }
    }
}

/// What SQLite is built without where it has nothing but the engine's own file to read.
const WITHOUT: &str =
    "-USQLITE_ENABLE_FTS3 -USQLITE_ENABLE_FTS3_PARENTHESIS -USQLITE_ENABLE_FTS5 -USQLITE_ENABLE_RTREE";

/// A shell that stands in the root of the source.
pub(crate) struct Workspace {
    pub(crate) shell: Shell,
    pub(crate) root: PathBuf,
}

impl Workspace {
    /// Finds the root from this crate's place in it.
    pub(crate) fn open() -> Result<Self> {
        let root =
            Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("xtask lies inside the workspace")?;
        let shell = Shell::new()?;
        shell.change_dir(root);
        Ok(Self { shell, root: root.to_owned() })
    }

    /// Builds the libraries for C and returns the folder where they lie.
    pub(crate) fn build_ffi(&self, profile: Profile) -> Result<PathBuf> {
        let options = profile.options();
        let _flags = (profile == Profile::Library).then(|| self.shell.push_env("LIBSQLITE3_FLAGS", WITHOUT));
        cmd!(self.shell, "cargo build --locked {options...} --package entgldb-ffi").run()?;
        profile.folder()
    }

    /// Builds one program and returns where it lies.
    pub(crate) fn build(&self, package: &str, program: &str, profile: Profile) -> Result<PathBuf> {
        let options = profile.options();
        cmd!(self.shell, "cargo build --locked {options...} --package {package} --bin {program}").run()?;
        let path = profile.folder()?.join(format!("{program}{}", std::env::consts::EXE_SUFFIX));
        ensure!(path.is_file(), "cargo built {program}, but it is not at {}", path.display());
        Ok(path)
    }
}

/// Whether this run is the gate for changes, where nothing may be skipped.
pub(crate) fn is_gate() -> bool {
    std::env::var("CI").is_ok_and(|value| value == "true")
}

/// The folder that cargo builds into: this program was just built there, whatever configuration chose it.
pub(crate) fn target_folder() -> Result<PathBuf> {
    let own = std::env::current_exe()?;
    own.ancestors()
        .nth(2)
        .map(Path::to_owned)
        .context("cargo puts programs two folders below the target folder")
}
