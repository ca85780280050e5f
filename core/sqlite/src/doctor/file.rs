//! The database file as a whole, and where it is.

use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use serde::Serialize;

use super::finding::Finding;
use crate::failed::{Outcome, While};
use crate::file::file_system::file_system;
use crate::file::quiet::{Quiet, beside};

/// The first sync writes about as much as the tables hold, and this.
const SPARE_BYTES: u64 = 64 << 20;
/// SQLite before this version can damage a WAL when two connections move it into the database at once.
const SOUND_WAL: i32 = 3_051_003;
/// A clock before 2024 or after 2100 was never set, in milliseconds since 1970.
const PLAUSIBLE_MS: std::ops::Range<u64> = 1_704_067_200_000..4_102_444_800_000;
/// A file that was written so far in the future shows that the clock is behind, in milliseconds.
const AHEAD_MS: u64 = 5 * 60_000;

/// Facts about the file.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct FileFacts {
    /// Bytes of the database and its write-ahead log.
    pub bytes: u64,
    /// Bytes of a page.
    pub page_bytes: u64,
    /// Bytes in pages that nothing uses.
    pub unused_bytes: u64,
    /// How SQLite stores text: `UTF-8`, `UTF-16le` or `UTF-16be`.
    pub encoding: String,
    /// `wal`, or the mode that SQLite keeps a rollback journal in.
    pub journal_mode: String,
    /// Whether another program has the database open, or left a journal when it ended.
    pub in_use: bool,
    /// Free bytes on its disk, where the system says so.
    pub free_bytes: Option<u64>,
    /// The kind of network file system that it is on.
    pub network: Option<String>,
    /// The version of SQLite that looked.
    pub sqlite: &'static str,
}

/// Looks at the file.
pub(super) fn facts(path: &Path, quiet: &Quiet) -> Outcome<FileFacts> {
    let number = |pragma: &str| {
        let sql = format!("PRAGMA main.{pragma}");
        let number = quiet.connection.query_row(&sql, [], |row| row.get::<_, i64>(0));
        number.map(i64::cast_unsigned).doing("reading facts of the file")
    };
    let text = |pragma: &str| {
        let sql = format!("PRAGMA main.{pragma}");
        quiet.connection.query_row(&sql, [], |row| row.get::<_, String>(0)).doing("reading facts of the file")
    };
    let size = |path: &Path| std::fs::metadata(path).map_or(0, |file| file.len());
    let page_bytes = number("page_size")?;
    Ok(FileFacts {
        bytes: size(path) + size(&beside(path, "-wal")),
        page_bytes,
        unused_bytes: number("freelist_count")?.saturating_mul(page_bytes),
        encoding: text("encoding")?,
        journal_mode: if quiet.is_wal { "wal".to_owned() } else { text("journal_mode")? },
        in_use: quiet.is_in_use,
        free_bytes: free_bytes(path),
        network: network(path),
        sqlite: rusqlite::version(),
    })
}

/// What there is to say about them.
pub(super) fn findings(path: &Path, facts: &FileFacts, already_synced: bool) -> Vec<Finding> {
    let mut found = Vec::new();
    if !is_writable(path) {
        found.push(Finding::blocks(
            "read_only",
            "this user may not write the file, or not its folder",
            "give the user that runs sync write permission on both",
        ));
    }
    if let Some(kind) = &facts.network {
        found.push(Finding::blocks(
            "network_file_system",
            format!(
                "the file is on a network file system ({kind}), where WAL mode and locks do not work reliably"
            ),
            "move it to a local disk; programs on several machines get it by sync, not by sharing the file",
        ));
    }
    let wanted = if already_synced { SPARE_BYTES } else { facts.bytes.saturating_add(SPARE_BYTES) };
    if let Some(free) = facts.free_bytes.filter(|free| *free < wanted) {
        found.push(Finding::warning(
            "little_room",
            format!("{free} bytes are free on its disk; the first sync may need {wanted}"),
            "make room: changes of other nodes wait while the disk is nearly full",
        ));
    }
    found.extend(clock(path));
    if facts.journal_mode != "wal" {
        found.push(Finding::advice(
            "journal_mode",
            format!("the journal mode is {:?}; the first sync switches it to WAL, which stays", facts.journal_mode),
            "copy the files with -wal and -shm at their end too, or back up with SQLite's backup or VACUUM INTO; programs that set another journal mode while a node runs get \"database is locked\"",
        ));
    }
    if rusqlite::version_number() < SOUND_WAL {
        found.push(Finding::warning(
            "old_sqlite",
            format!("SQLite {} can damage a WAL when two connections checkpoint at once", facts.sqlite),
            "update it to 3.51.3 or later",
        ));
    }
    found.push(Finding::advice(
        "busy_timeout",
        "the node writes to the database too, for a few milliseconds at a time",
        "have each program wait for locks: PRAGMA busy_timeout = 5000, and BEGIN IMMEDIATE where it reads before it writes",
    ));
    found
}

fn clock(path: &Path) -> Option<Finding> {
    let since_1970 = |time: SystemTime| {
        let since = time.duration_since(UNIX_EPOCH).ok()?;
        u64::try_from(since.as_millis()).ok()
    };
    let now = since_1970(SystemTime::now());
    let written = std::fs::metadata(path).and_then(|file| file.modified()).ok().and_then(since_1970);
    let what = implausible(now, written)?;
    Some(Finding::warning("clock", what, "set the clock of this machine: the later of two writes wins"))
}

/// What is wrong with a clock, beside a file that was written at some time.
fn implausible(now: Option<u64>, written: Option<u64>) -> Option<String> {
    match now {
        Some(now) if PLAUSIBLE_MS.contains(&now) => {
            let ahead = written?.checked_sub(now).filter(|ahead| *ahead > AHEAD_MS)?;
            Some(format!(
                "the file was written {} minutes in the future: the clock is behind",
                ahead / 60_000
            ))
        }
        _ => Some("the clock of this machine was never set".to_owned()),
    }
}

#[cfg(unix)]
fn is_writable(path: &Path) -> bool {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    [path, folder].iter().all(|place| rustix::fs::access(*place, rustix::fs::Access::WRITE_OK).is_ok())
}

#[cfg(not(unix))]
fn is_writable(path: &Path) -> bool {
    std::fs::metadata(path).is_ok_and(|file| !file.permissions().readonly())
}

#[cfg(unix)]
fn free_bytes(path: &Path) -> Option<u64> {
    let state = rustix::fs::statvfs(path).ok()?;
    Some(state.f_bavail.saturating_mul(state.f_frsize))
}

#[cfg(not(unix))]
fn free_bytes(_: &Path) -> Option<u64> {
    None
}

/// The kind of network file system that a file is on; `None` if it is on none, or the system does not say.
fn network(path: &Path) -> Option<String> {
    file_system(path).filter(|found| found.is_network).map(|found| found.kind)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_was_never_set_or_is_behind_a_file_is_told() {
        let now = PLAUSIBLE_MS.start;
        assert_eq!(implausible(Some(now), Some(now)), None);
        assert_eq!(implausible(Some(now), Some(now + AHEAD_MS)), None);
        assert_eq!(implausible(Some(now), None), None);
        assert!(implausible(Some(now), Some(now + AHEAD_MS + 60_000)).unwrap().contains("6 minutes"));
        for never_set in [None, Some(0), Some(PLAUSIBLE_MS.end)] {
            assert!(implausible(never_set, None).unwrap().contains("never set"));
        }
    }

    #[test]
    fn little_room_a_network_and_rollback_journals_are_told() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("app.db");
        std::fs::write(&path, "").unwrap();
        let facts = FileFacts {
            bytes: 1000,
            page_bytes: 4096,
            unused_bytes: 0,
            encoding: "UTF-8".to_owned(),
            journal_mode: "delete".to_owned(),
            in_use: false,
            free_bytes: Some(SPARE_BYTES + 999),
            network: Some("NFS".to_owned()),
            sqlite: rusqlite::version(),
        };
        let codes = |facts: &FileFacts, synced| -> Vec<&str> {
            findings(&path, facts, synced).iter().map(|finding| finding.code).collect()
        };
        assert_eq!(
            codes(&facts, false),
            ["network_file_system", "little_room", "journal_mode", "busy_timeout"]
        );
        assert_eq!(codes(&facts, true), ["network_file_system", "journal_mode", "busy_timeout"]);
        let sound = FileFacts { network: None, journal_mode: "wal".to_owned(), free_bytes: None, ..facts };
        assert_eq!(codes(&sound, false), ["busy_timeout"]);
    }
}
