//! The folder with a node's own files: identity, known peers, status, and the lock that keeps it to one process.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// The folder, locked for this process until it is dropped. Unless it was marked to stay, dropping it removes what the start
/// created: a failed start leaves no folder behind.
#[derive(Debug)]
pub(crate) struct DataDir {
    path: PathBuf,
    lock: Option<File>,
    trace: Option<Trace>,
    /// The process that locked it.
    pid: u32,
}

/// What was there before.
#[derive(Debug, Default)]
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
    /// Others than this user can change what is in it.
    #[error("the data folder {path} can be changed by others ({why}); run: {command}")]
    Exposed {
        /// The folder.
        path: PathBuf,
        /// Its permission bits, or its owner.
        why: String,
        /// What mends it.
        command: String,
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
        let pid = std::process::id();
        let mut folder = Self { path: path.to_owned(), lock: None, trace: Some(trace), pid };
        create_private(path).map_err(io)?;
        refuse_if_exposed(path)?;
        let mut options = private();
        options.create(true).truncate(false);
        let lock = options.open(path.join(LOCK_FILE)).map_err(io)?;
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
        // In a process that was forked from the one that locked it, all of this is the other's.
        if self.pid != std::process::id() {
            return;
        }
        let is_trace = self.trace.is_some();
        let trace = self.trace.take().unwrap_or_default();
        // A process that gets the lock from here on finds a folder that is being removed, and reports that it can't use it. An
        // error here is ignored: the reason why the start failed matters more.
        let made_here = if is_trace { names(&self.path) } else { BTreeSet::new() };
        for name in made_here.difference(&trace.files) {
            let file = self.path.join(name);
            let _ = fs::remove_file(&file).or_else(|_| fs::remove_dir(&file));
        }
        // A forked process has the file open too, and would keep the lock if it were only closed.
        if let Some(Err(error)) = self.lock.take().map(|lock| lock.unlock()) {
            tracing::warn!(%error, "the data folder stays locked until this process ends");
        }
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

/// Options for a file in the folder: for its owner only, and no link that leads elsewhere.
fn private() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.write(true);
    #[cfg(unix)]
    {
        use std::os::unix::fs::OpenOptionsExt;
        let no_links = rustix::fs::OFlags::NOFOLLOW.bits().cast_signed();
        options.mode(0o600).custom_flags(no_links);
    }
    options
}

/// Opens a file that is there for writing, if it is no link.
pub(crate) fn open_private(path: &Path) -> io::Result<File> {
    private().open(path)
}

/// Makes a new file for this user only. What has its name already goes; what a link of that name leads to stays as it is.
pub(crate) fn create_fresh(path: &Path) -> io::Result<File> {
    let create = || private().create_new(true).open(path);
    match create() {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            fs::remove_file(path)?;
            create()
        }
        made => made,
    }
}

/// Makes a file for this user only, if there is none.
pub(crate) fn create_if_missing(path: &Path) -> io::Result<()> {
    match private().create_new(true).open(path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        _ => Ok(()),
    }
}

/// Anyone who can write into the folder can become this node, or make it accept another node's file as its own. The check uses
/// the open folder, not its path, so that nobody can swap it in between.
#[cfg(unix)]
fn refuse_if_exposed(path: &Path) -> Result<(), DataDirError> {
    use std::os::unix::fs::{MetadataExt, PermissionsExt};
    let io = |source| DataDirError::Io { path: path.to_owned(), source };
    let folder = File::open(path).and_then(|folder| folder.metadata()).map_err(io)?;
    let (mode, owner, user) =
        (folder.permissions().mode() & 0o7777, folder.uid(), rustix::process::geteuid().as_raw());
    let exposed = |why: String, command: &str| {
        let command = format!("{command} {}", path.display());
        Err(DataDirError::Exposed { path: path.to_owned(), why, command })
    };
    if mode & 0o022 != 0 {
        return exposed(format!("mode {mode:03o}"), "chmod go-w");
    }
    if owner != user && owner != 0 {
        return exposed(format!("it belongs to user {owner}, this is user {user}"), &format!("chown {user}"));
    }
    Ok(())
}

/// Where permissions are access control lists, the folder that the data folder is in decides.
#[cfg(not(unix))]
#[expect(clippy::unnecessary_wraps, reason = "the same signature on every system")]
fn refuse_if_exposed(_: &Path) -> Result<(), DataDirError> {
    Ok(())
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
    create_fresh(&fresh)?.write_all(content)?;
    fs::rename(&fresh, path)
}

/// Replaces a file as a whole; also after a power cut it is the old one or the new one.
pub(crate) fn replace_durably(path: &Path, content: &[u8]) -> io::Result<()> {
    let fresh = path.with_extension("new");
    let mut file = create_fresh(&fresh)?;
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
    fn a_folder_is_free_again_though_a_forked_process_still_has_its_lock_open() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("data");
        let mut first = DataDir::lock(&path).unwrap();
        first.keep();
        // What a fork does: the same open file under another descriptor.
        let inherited = first.lock.as_ref().unwrap().try_clone().unwrap();
        drop(first);
        DataDir::lock(&path).unwrap();
        drop(inherited);
    }

    #[cfg(unix)]
    #[test]
    fn a_folder_that_others_can_change_is_refused_with_what_to_do_and_one_that_they_can_read_is_not() {
        use std::os::unix::fs::PermissionsExt;
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("data");
        fs::create_dir(&path).unwrap();
        for mode in [0o777, 0o770, 0o702, 0o1777] {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            let refused = DataDir::lock(&path).unwrap_err().to_string();
            assert!(refused.contains("chmod go-w"), "{mode:o}: {refused}");
            assert!(fs::read_dir(&path).unwrap().next().is_none(), "nothing was made in it");
        }
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        DataDir::lock(&path).unwrap();
    }

    #[cfg(unix)]
    #[test]
    fn files_are_for_their_owner_only_and_no_link_leads_to_another_file() {
        use std::os::unix::fs::{PermissionsExt, symlink};
        let temp = tempfile::tempdir().unwrap();
        let at = |name: &str| temp.path().join(name);
        fs::write(at("victim"), "precious").unwrap();
        for name in ["status.new", "known_peers.new", "oplog_mark.new", "lock"] {
            symlink(at("victim"), at(name)).unwrap();
        }
        replace(&at("status.json"), b"{}").unwrap();
        replace_durably(&at("known_peers.json"), b"{}").unwrap();
        replace(&at("oplog_mark.json"), b"{}").unwrap();
        assert!(matches!(DataDir::lock(temp.path()), Err(DataDirError::Io { .. })), "a lock that is a link");
        assert!(open_private(&at("lock")).is_err());
        assert_eq!(fs::read_to_string(at("victim")).unwrap(), "precious");
        fs::remove_file(at("lock")).unwrap();
        let _dir = DataDir::lock(temp.path()).unwrap();
        create_if_missing(&at("own.db")).unwrap();
        create_if_missing(&at("own.db")).unwrap();
        for name in ["status.json", "known_peers.json", "oplog_mark.json", "lock", "own.db"] {
            let mode = fs::symlink_metadata(at(name)).unwrap().permissions().mode();
            assert_eq!(mode & 0o7777, 0o600, "{name}");
        }
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
