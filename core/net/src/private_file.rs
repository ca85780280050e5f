//! Files that only their owner may read.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

/// Why a private file was not read or written. What was there before is unchanged.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PrivateFileError {
    /// Others than the owner have access.
    #[error("{path} can be read or changed by others (mode {mode:03o}); run: chmod 600 {path}", path = .path.display())]
    Exposed {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// It is longer than such a file can be, or not text.
    #[error("{path} does not look like the file it should be", path = .path.display())]
    Content {
        /// The file.
        path: PathBuf,
    },
    /// The operating system refused.
    #[error("cannot access {path}: {source}", path = .path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

impl PrivateFileError {
    fn io(path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { path: path.to_owned(), source }
    }

    /// Whether the file is simply not there.
    pub(crate) fn is_missing(&self) -> bool {
        matches!(self, Self::Io { source, .. } if source.kind() == io::ErrorKind::NotFound)
    }
}

/// Reads a whole file, if nobody else can.
pub(crate) fn read(path: &Path, bytes_max: u64) -> Result<Zeroizing<String>, PrivateFileError> {
    let file = File::open(path).map_err(PrivateFileError::io(path))?;
    refuse_if_exposed(path, &file)?;
    let mut bytes = Zeroizing::new(Vec::with_capacity(1024));
    file.take(bytes_max + 1).read_to_end(&mut bytes).map_err(PrivateFileError::io(path))?;
    let content = || PrivateFileError::Content { path: path.to_owned() };
    if bytes.len() as u64 > bytes_max {
        return Err(content());
    }
    Ok(Zeroizing::new(std::str::from_utf8(&bytes).map_err(|_| content())?.to_owned()))
}

/// Asks the open file, not the path, so that nobody can swap the file in between.
#[cfg(unix)]
fn refuse_if_exposed(path: &Path, file: &File) -> Result<(), PrivateFileError> {
    use std::os::unix::fs::PermissionsExt;
    let mode = file.metadata().map_err(PrivateFileError::io(path))?.permissions().mode() & 0o777;
    if mode & 0o077 == 0 { Ok(()) } else { Err(PrivateFileError::Exposed { path: path.to_owned(), mode }) }
}

/// Where permissions are access control lists, the folder that the file is in decides.
#[cfg(not(unix))]
#[expect(clippy::unnecessary_wraps, reason = "the same signature on every system")]
fn refuse_if_exposed(_: &Path, _: &File) -> Result<(), PrivateFileError> {
    Ok(())
}

/// Creates a file that only the owner may read. After a crash it is either whole or not there.
pub(crate) fn create(path: &Path, content: &str) -> Result<(), PrivateFileError> {
    let mut random = [0; 8];
    getrandom::fill(&mut random)
        .map_err(|_| PrivateFileError::io(path)(io::Error::other("the system gives no random bytes")))?;
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(format!(".{:016x}.tmp", u64::from_be_bytes(random)));
    let temporary = PathBuf::from(temporary);
    let written = write_synced(&temporary, content).and_then(|()| std::fs::rename(&temporary, path));
    if let Err(error) = written {
        // Nothing to add to the first error if this fails too.
        let _ = std::fs::remove_file(&temporary);
        return Err(PrivateFileError::io(path)(error));
    }
    sync_folder(path).map_err(PrivateFileError::io(path))
}

fn write_synced(path: &Path, content: &str) -> io::Result<()> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(path)?;
    file.write_all(content.as_bytes())?;
    file.sync_all()
}

/// The new name itself must survive a power cut too.
#[cfg(unix)]
fn sync_folder(path: &Path) -> io::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(folder)?.sync_all()
}

#[cfg(not(unix))]
#[expect(clippy::unnecessary_wraps, reason = "the same signature on every system")]
fn sync_folder(_: &Path) -> io::Result<()> {
    Ok(())
}
