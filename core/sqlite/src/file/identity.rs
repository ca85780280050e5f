//! Which file a path leads to, told without opening it.
//!
//! The database file is never opened by a descriptor of our own: closing that would drop the POSIX locks that this process
//! holds on the file through SQLite.

use std::fs::Metadata;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use crate::file::change::FileChange;

/// A file, whatever its name.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct FileId {
    device: u64,
    inode: u64,
    /// The number of a deleted file is soon given to another one.
    born: Option<SystemTime>,
}

impl FileId {
    #[cfg(unix)]
    fn of(metadata: &Metadata) -> Self {
        use std::os::unix::fs::MetadataExt;
        Self { device: metadata.dev(), inode: metadata.ino(), born: metadata.created().ok() }
    }

    /// Windows keeps a file from being replaced while SQLite has it open.
    #[cfg(not(unix))]
    fn of(_: &Metadata) -> Self {
        Self { device: 0, inode: 0, born: None }
    }

    /// The file or folder at a path; `None` if there is none.
    pub(crate) fn at(path: &Path) -> io::Result<Option<Self>> {
        match std::fs::metadata(path) {
            Ok(metadata) => Ok(Some(Self::of(&metadata))),
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// As text. Says nothing where files have no numbers.
    pub(crate) fn to_text(self) -> String {
        format!("{}:{}", self.device, self.inode)
    }
}

/// A WAL as it was seen.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Log {
    pub(crate) bytes: u64,
    modified: Option<SystemTime>,
}

/// A database file and its WAL as they were when they were opened.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Identity {
    path: PathBuf,
    wal: PathBuf,
    file: FileId,
    wal_file: FileId,
}

impl Identity {
    /// Notes which files a database that is open in WAL mode has.
    pub(crate) fn of(path: &Path) -> Result<Self, FileChange> {
        let wal = beside(path, "-wal");
        let missing = FileChange::Missing { leaves_wal: false };
        let file = FileId::at(path).ok().flatten().ok_or(missing)?;
        let wal_file = FileId::at(&wal).ok().flatten().ok_or(FileChange::WalMissing)?;
        Ok(Self { path: path.to_owned(), wal, file, wal_file })
    }

    /// Where the WAL is.
    pub(crate) fn wal(&self) -> &Path {
        &self.wal
    }

    /// Looks whether both files are still there. Returns how the log is; `None` if that can't be seen.
    pub(crate) fn look(&self) -> Result<Option<Log>, FileChange> {
        // An error other than "there is none" (a network that is away, a permission) says nothing about the file.
        match FileId::at(&self.path) {
            Ok(Some(found)) if found != self.file => return Err(FileChange::OtherFile),
            Ok(None) => {
                let leaves_wal = std::fs::metadata(&self.wal).is_ok_and(|log| log.len() > 0);
                return Err(FileChange::Missing { leaves_wal });
            }
            Ok(Some(_)) | Err(_) => {}
        }
        match std::fs::metadata(&self.wal) {
            Ok(found) if FileId::of(&found) != self.wal_file => Err(FileChange::OtherWal),
            // A file system without times is known by the size alone.
            Ok(found) => Ok(Some(Log { bytes: found.len(), modified: found.modified().ok() })),
            Err(error) if error.kind() == ErrorKind::NotFound => Err(FileChange::WalMissing),
            Err(_) => Ok(None),
        }
    }

    /// Puts a WAL aside that belongs to the file that was at the path before: SQLite would read it into the new one. One
    /// without content is left. Returns where it is now.
    pub(crate) fn put_stale_wal_aside(&self) -> io::Result<Option<PathBuf>> {
        let is_other = matches!(FileId::at(&self.path), Ok(Some(found)) if found != self.file);
        let is_stale =
            std::fs::metadata(&self.wal).is_ok_and(|log| FileId::of(&log) == self.wal_file && log.len() > 0);
        if !is_other || !is_stale {
            return Ok(None);
        }
        let seconds = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        let aside = beside(&self.path, &format!("-wal.replaced-{seconds}"));
        std::fs::rename(&self.wal, &aside)?;
        match std::fs::remove_file(beside(&self.path, "-shm")) {
            Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
            _ => Ok(Some(aside)),
        }
    }
}

/// The file beside a database, named as SQLite does it: after the file that links lead to.
fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.canonicalize().unwrap_or_else(|_| path.to_owned()).into_os_string();
    name.push(suffix);
    PathBuf::from(name)
}

/// Whether somebody has the database open by this name, or did not close it.
pub(crate) fn has_log(path: &Path) -> bool {
    beside(path, "-wal").exists()
}

/// Whether the file may be reached by a name that leads to another WAL: a hard link, or a mount of the file alone.
pub(crate) fn has_other_names(path: &Path) -> bool {
    has_hard_links(path) || is_mount_point(path)
}

#[cfg(unix)]
fn has_hard_links(path: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    std::fs::metadata(path).is_ok_and(|metadata| metadata.nlink() > 1)
}

#[cfg(not(unix))]
fn has_hard_links(_: &Path) -> bool {
    false
}

fn is_mount_point(path: &Path) -> bool {
    let Ok(path) = path.canonicalize() else { return false };
    crate::file::file_system::mounts().iter().any(|mount| mount.at == path)
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    #[test]
    fn a_replaced_moved_or_split_database_is_noticed() {
        let folder = tempfile::tempdir().unwrap();
        let file = |name: &str| folder.path().join(name);
        let make = || {
            for name in ["a.db", "a.db-wal", "b.db", "a.db-shm"] {
                std::fs::write(file(name), name).unwrap();
            }
        };
        make();
        let identity = Identity::of(&file("a.db")).unwrap();
        identity.look().unwrap();
        assert_eq!(identity.put_stale_wal_aside().unwrap(), None);

        std::fs::rename(file("a.db-wal"), file("w")).unwrap();
        assert_eq!(identity.look(), Err(FileChange::WalMissing));
        std::fs::write(file("a.db-wal"), "other").unwrap();
        assert_eq!(identity.look(), Err(FileChange::OtherWal));
        std::fs::rename(file("w"), file("a.db-wal")).unwrap();
        identity.look().unwrap();

        std::fs::rename(file("a.db"), file("away")).unwrap();
        assert_eq!(identity.look(), Err(FileChange::Missing { leaves_wal: true }));
        std::fs::rename(file("b.db"), file("a.db")).unwrap();
        assert_eq!(identity.look(), Err(FileChange::OtherFile));
        let aside = identity.put_stale_wal_aside().unwrap().unwrap();
        assert_eq!(std::fs::read_to_string(aside).unwrap(), "a.db-wal", "nothing is deleted");
        assert!(!file("a.db-shm").exists() && !file("a.db-wal").exists());
    }

    #[test]
    fn a_hard_link_is_another_name_and_a_symbolic_one_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let file = |name: &str| folder.path().join(name);
        std::fs::write(file("a.db"), "a").unwrap();
        std::os::unix::fs::symlink(file("a.db"), file("s.db")).unwrap();
        assert!(!has_other_names(&file("a.db")) && !has_other_names(&file("s.db")));
        assert_eq!(beside(&file("s.db"), "-wal"), beside(&file("a.db"), "-wal"));
        std::fs::hard_link(file("a.db"), file("b.db")).unwrap();
        assert!(has_other_names(&file("a.db")) && has_other_names(&file("b.db")));
    }
}
