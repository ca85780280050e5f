//! How far this node's oplog had come, kept in the data folder: a database that falls short of it was put back to an older
//! copy, or lost its last commits in a power cut.
//!
//! The file is never ahead of the oplog, so a database that was not touched is never mistaken for an older one. It is never
//! behind what peers were given, whenever the process ends: no position is given out twice. (After a power cut it may be.)

use std::fs::{self, File};
use std::io::{Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use entgldb_replica::Mark;
use entgldb_replica::id::Incarnation;
use serde::{Deserialize, Serialize};
use tracing::warn;

use crate::data_dir::{open_private, replace};

const FILE: &str = "oplog_mark.json";
/// The file always has so many bytes, so that it can be written over in place, with one small write.
const FILE_BYTES: usize = 80;

#[derive(Serialize, Deserialize)]
struct Written {
    incarnation: u64,
    entries: u64,
}

/// The file, and what is in it.
#[derive(Debug)]
pub(crate) struct MarkFile {
    path: PathBuf,
    mark: Option<Mark>,
    is_written: bool,
    open: Option<File>,
}

impl MarkFile {
    /// Reads the file. One that can't be read counts as none: then only a peer can tell that the database is older.
    pub(crate) fn load(data_dir: &Path) -> Self {
        let path = data_dir.join(FILE);
        let mark = match fs::read(&path) {
            Ok(bytes) => match serde_json::from_slice::<Written>(&bytes) {
                Ok(Written { incarnation, entries }) => {
                    Some(Mark { incarnation: Incarnation(incarnation), entries })
                }
                Err(error) => {
                    warn!(file = FILE, %error, "the mark of the oplog can't be read");
                    None
                }
            },
            Err(_) => None,
        };
        Self { path, mark, is_written: true, open: None }
    }

    /// The last mark, written or not.
    pub(crate) fn mark(&self) -> Option<Mark> {
        self.mark
    }

    /// Notes how far the oplog has come.
    pub(crate) fn note(&mut self, mark: Mark) {
        if self.mark != Some(mark) {
            self.mark = Some(mark);
            self.is_written = false;
        }
    }

    /// Writes what was noted, if there is anything new.
    pub(crate) fn write(&mut self) {
        let Some(Mark { incarnation, entries }) = self.mark.filter(|_| !self.is_written) else { return };
        let written = Written { incarnation: incarnation.0, entries };
        let mut bytes = serde_json::to_vec(&written).expect("two numbers are JSON");
        bytes.resize(FILE_BYTES, b' ');
        match self.put(&bytes) {
            Ok(()) => self.is_written = true,
            Err(error) => warn!(file = FILE, %error, "the mark of the oplog can't be written"),
        }
    }

    fn put(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        let file = match &mut self.open {
            Some(file) => file,
            none => {
                // A file of an earlier version is shorter or longer.
                replace(&self.path, bytes)?;
                none.insert(open_private(&self.path)?)
            }
        };
        file.seek(SeekFrom::Start(0))?;
        file.write_all(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_is_read_back_and_a_damaged_one_counts_as_none() {
        let dir = tempfile::tempdir().unwrap();
        let mut file = MarkFile::load(dir.path());
        assert_eq!(file.mark(), None);
        let mark = Mark { incarnation: Incarnation(u64::MAX), entries: 3 };
        file.note(mark);
        assert_eq!(MarkFile::load(dir.path()).mark(), None, "noted is not written");
        file.write();
        assert_eq!(MarkFile::load(dir.path()).mark(), Some(mark));
        fs::write(dir.path().join(FILE), b"{").unwrap();
        assert_eq!(MarkFile::load(dir.path()).mark(), None);
    }
}
