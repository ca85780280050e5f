//! On what kind of file system a file is.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

/// A file system, as the operating system names it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct FileSystem {
    /// Its kind, such as `ext4`, `nfs4` or `fuse.sshfs`.
    pub kind: String,
    /// Where it is mounted.
    pub mounted_at: PathBuf,
    /// Whether its files are on another machine. SQLite's locks and its shared memory can't be relied on there.
    pub is_network: bool,
}

/// Kinds whose files are on another machine, or are given to several kernels at once.
const NETWORK: [&str; 20] = [
    "9p",
    "afs",
    "beegfs",
    "ceph",
    "cifs",
    "coda",
    "fuse.ceph-fuse",
    "fuse.glusterfs",
    "fuse.rclone",
    "fuse.s3fs",
    "fuse.sshfs",
    "gfs2",
    "lustre",
    "ncpfs",
    "nfs",
    "nfs4",
    "ocfs2",
    "smb3",
    "smbfs",
    "virtiofs",
];

/// The file system that a file or folder is on; `None` where the operating system does not say (only Linux does so far).
#[must_use]
pub fn file_system(path: &Path) -> Option<FileSystem> {
    let path = path.canonicalize().ok()?;
    // Of several mounts at one place the last one is what is seen.
    let found = mounts().into_iter().filter(|mount| path.starts_with(&mount.at));
    let mount = found.max_by_key(|mount| mount.at.components().count())?;
    let is_network = NETWORK.contains(&mount.kind.as_str());
    Some(FileSystem { kind: mount.kind, mounted_at: mount.at, is_network })
}

/// A mount.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Mount {
    pub(crate) at: PathBuf,
    pub(crate) kind: String,
}

/// All mounts that this process sees; none where the operating system does not list them.
pub(crate) fn mounts() -> Vec<Mount> {
    let listed = std::fs::read("/proc/self/mountinfo").unwrap_or_default();
    listed.split(|byte| *byte == b'\n').filter_map(mount).collect()
}

/// Reads a line of `/proc/self/mountinfo`: the mount point is the fifth word, the kind the first one after a lone hyphen.
fn mount(line: &[u8]) -> Option<Mount> {
    let words: Vec<&[u8]> = line.split(|byte| *byte == b' ').collect();
    let at = path(words.get(4)?);
    let kind = words.iter().position(|word| *word == b"-").and_then(|hyphen| words.get(hyphen + 1))?;
    Some(Mount { at, kind: String::from_utf8_lossy(kind).into_owned() })
}

/// White space and backslashes are written as a backslash and three octal digits.
fn path(word: &[u8]) -> PathBuf {
    let mut bytes = Vec::with_capacity(word.len());
    let mut rest = word;
    while let Some((first, after)) = rest.split_first() {
        let digits = after.get(..3).and_then(|digits| std::str::from_utf8(digits).ok());
        match digits.and_then(|digits| u8::from_str_radix(digits, 8).ok()).filter(|_| *first == b'\\') {
            Some(byte) => {
                bytes.push(byte);
                rest = &after[3..];
            }
            None => {
                bytes.push(*first);
                rest = after;
            }
        }
    }
    PathBuf::from(os_string(bytes))
}

#[cfg(unix)]
fn os_string(bytes: Vec<u8>) -> OsString {
    std::os::unix::ffi::OsStringExt::from_vec(bytes)
}

#[cfg(not(unix))]
fn os_string(bytes: Vec<u8>) -> OsString {
    String::from_utf8_lossy(&bytes).into_owned().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_gives_the_place_and_the_kind() {
        let line = b"36 35 98:0 /mnt1 /mnt/my\\040data rw,noatime master:1 - fuse.sshfs user@host:/ rw,errors=continue";
        let expected = Mount { at: PathBuf::from("/mnt/my data"), kind: "fuse.sshfs".to_owned() };
        assert_eq!(mount(line), Some(expected));
        assert_eq!(mount(b""), None);
        assert_eq!(mount(b"1 2 3 4 /at rw no hyphen"), None);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_folder_here_is_on_some_file_system_and_a_missing_one_on_none() {
        let folder = tempfile::tempdir().unwrap();
        let found = file_system(folder.path()).unwrap();
        assert!(
            !found.kind.is_empty() && folder.path().canonicalize().unwrap().starts_with(&found.mounted_at)
        );
        assert_eq!(file_system(Path::new("/nowhere/at/all")), None);
    }
}
