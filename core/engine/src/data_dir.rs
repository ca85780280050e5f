//! The folder with a node's own files: identity, known peers, status, and the lock that keeps it to one process.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs::{self, File, TryLockError};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// The folder, locked for this process until it is dropped. Until it is told to stay, dropping it removes what was not there
/// before: a start that failed leaves no folder behind.
#[derive(Debug)]
pub(crate) struct DataDir {
    path: PathBuf,
    lock: Option<File>,
    trace: Option<Trace>,
}

/// What was there before.
#[derive(Debug)]
struct Trace {
    files: BTreeSet<OsString>,
    /// Folders that were not, the innermost first.
    made: Vec<PathBuf>,
}

/// The folder can't be used. Nothing was started.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DataDirError {
    /// It could not be made or opened.
    #[error("the data folder {path} can't be used: {source}")]
    Io {
        /// The folder.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Another process runs this node.
    #[error("the data folder {path} is in use: another process runs this node; stop it first")]
    InUse {
        /// The folder.
        path: PathBuf,
    },
}

impl DataDir {
    /// Makes the folder if it is not there, for this user only, and locks it.
    pub(crate) fn lock(path: &Path) -> Result<Self, DataDirError> {
        let io = |source| DataDirError::Io { path: path.to_owned(), source };
        let trace = Trace { files: names(path), made: missing(path) };
        let mut folder = Self { path: path.to_owned(), lock: None, trace: Some(trace) };
        create_private(path).map_err(io)?;
        let lock = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(path.join(LOCK_FILE))
            .map_err(io)?;
        match lock.try_lock() {
            Ok(()) => folder.lock = Some(lock),
            Err(TryLockError::WouldBlock) => {
                // Nothing in it is ours.
                folder.trace = None;
                return Err(DataDirError::InUse { path: path.to_owned() });
            }
            Err(TryLockError::Error(source)) => return Err(io(source)),
        }
        Ok(folder)
    }

    /// Locks the folder if a node ever had it; nothing is made.
    pub(crate) fn lock_existing(path: &Path) -> Result<Option<Self>, DataDirError> {
        if path.join(LOCK_FILE).exists() { Self::lock(path).map(Some) } else { Ok(None) }
    }

    /// From now on what is in the folder stays.
    pub(crate) fn keep(&mut self) {
        self.trace = None;
    }

    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for DataDir {
    fn drop(&mut self) {
        let Some(trace) = self.trace.take() else { return };
        // Whoever gets the lock from here on finds a folder that is being removed, and reports that it can't use it. What can't
        // be removed stays: the reason why the start failed is what matters.
        for name in names(&self.path).difference(&trace.files) {
            let file = self.path.join(name);
            let _ = fs::remove_file(&file).or_else(|_| fs::remove_dir(&file));
        }
        drop(self.lock.take());
        for folder in &trace.made {
            let _ = fs::remove_dir(folder);
        }
    }
}

/// The names of what is in a folder.
fn names(path: &Path) -> BTreeSet<OsString> {
    fs::read_dir(path).into_iter().flatten().flatten().map(|entry| entry.file_name()).collect()
}

/// The folders on the way to this one that are not there, the innermost first.
fn missing(path: &Path) -> Vec<PathBuf> {
    let parents = path.ancestors().filter(|folder| !folder.as_os_str().is_empty());
    parents.take_while(|folder| !folder.exists()).map(Path::to_owned).collect()
}

const LOCK_FILE: &str = "lock";

/// Whether a process runs the node with this data folder now. Changes nothing.
#[must_use]
pub fn node_runs(data_dir: &Path) -> bool {
    is_locked(data_dir)
}

/// Whether a process holds the folder's lock now.
pub(crate) fn is_locked(path: &Path) -> bool {
    let lock = File::options().write(true).open(path.join(LOCK_FILE));
    lock.is_ok_and(|lock| matches!(lock.try_lock_shared(), Err(TryLockError::WouldBlock)))
}

fn create_private(path: &Path) -> io::Result<()> {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(path)
}

/// Replaces a file as a whole: readers see the old one or the new one. After a power cut it may be empty.
pub(crate) fn replace(path: &Path, content: &[u8]) -> io::Result<()> {
    let fresh = path.with_extension("new");
    fs::write(&fresh, content)?;
    fs::rename(&fresh, path)
}

/// Replaces a file as a whole; also after a power cut it is the old one or the new one.
pub(crate) fn replace_durably(path: &Path, content: &[u8]) -> io::Result<()> {
    let fresh = path.with_extension("new");
    let mut file = File::create(&fresh)?;
    file.write_all(content)?;
    file.sync_all()?;
    fs::rename(&fresh, path)?;
    sync_folder(path)
}

/// A name is in its folder, and a folder is synced by itself.
#[cfg(unix)]
pub(crate) fn sync_folder(path: &Path) -> io::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(folder)?.sync_all()
}

#[cfg(not(unix))]
#[expect(clippy::unnecessary_wraps, reason = "the same signature on every system")]
pub(crate) fn sync_folder(_: &Path) -> io::Result<()> {
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_for_one_process_at_a_time() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("shop.db-entgldb");
        let first = DataDir::lock(&path).unwrap();
        assert!(is_locked(&path));
        assert!(matches!(DataDir::lock(&path), Err(DataDirError::InUse { .. })));
        drop(first);
        assert!(!is_locked(&path));
        DataDir::lock(&path).unwrap();
    }

    #[test]
    fn a_folder_that_is_not_told_to_stay_leaves_what_was_there_before() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("a").join("b");
        let folder = DataDir::lock(&path).unwrap();
        fs::write(folder.file("identity"), "made").unwrap();
        drop(folder);
        assert_eq!(names(temp.path()).len(), 0);

        fs::create_dir(temp.path().join("a")).unwrap();
        fs::create_dir(&path).unwrap();
        fs::write(path.join("known_peers.json"), "was there").unwrap();
        let folder = DataDir::lock(&path).unwrap();
        fs::write(folder.file("identity"), "made").unwrap();
        assert!(matches!(DataDir::lock(&path), Err(DataDirError::InUse { .. })));
        assert!(path.join("identity").exists(), "a second one does not clean up after the first");
        drop(folder);
        assert_eq!(names(&path), BTreeSet::from(["known_peers.json".into()]));

        let mut folder = DataDir::lock(&path).unwrap();
        folder.keep();
        drop(folder);
        assert!(path.join(LOCK_FILE).exists());
    }

    #[cfg(unix)]
    #[test]
    fn others_cannot_look_into_a_new_folder() {
        use std::os::unix::fs::PermissionsExt;
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("data");
        let _dir = DataDir::lock(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o700);
    }
}
