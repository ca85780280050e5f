//! The folder with a node's own files: identity, known peers, status, and the lock that keeps it to one process.

use std::fs::{self, File, TryLockError};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// The folder, locked for this process until it is dropped.
#[derive(Debug)]
pub(crate) struct DataDir {
    path: PathBuf,
    _lock: File,
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
    #[error(
        "the data folder {path} is in use: another process runs this node; stop it first, or give another --data-dir"
    )]
    InUse {
        /// The folder.
        path: PathBuf,
    },
}

impl DataDir {
    /// Makes the folder if it is not there, for this user only, and locks it.
    pub(crate) fn lock(path: &Path) -> Result<Self, DataDirError> {
        let io = |source| DataDirError::Io { path: path.to_owned(), source };
        create_private(path).map_err(io)?;
        let lock = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(path.join(LOCK_FILE))
            .map_err(io)?;
        match lock.try_lock() {
            Ok(()) => Ok(Self { path: path.to_owned(), _lock: lock }),
            Err(TryLockError::WouldBlock) => Err(DataDirError::InUse { path: path.to_owned() }),
            Err(TryLockError::Error(source)) => Err(io(source)),
        }
    }

    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
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
