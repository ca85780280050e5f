//! Whether the disk has room for what other nodes send.
//!
//! A full disk stops remote changes first: they wait at their senders, while the application's own have nowhere else to
//! go. So remote changes leave a reserve alone.

use std::path::Path;
use std::time::{Duration, Instant};

/// Free bytes that remote changes leave alone, at most; on a small file system, a part of it.
const RESERVE_BYTES_MAX: u64 = 64 << 20;
/// The part of a small file system that is left alone: one in so many.
const RESERVE_PART: u64 = 8;
/// After the disk was found full in the middle of a commit, remote changes wait at least so long, whatever it says of
/// itself: it may have room for anything but the next one.
const FULL_WAIT: Duration = Duration::from_secs(5);

/// What is known of the room on the disk.
#[derive(Debug, Default)]
pub(crate) struct Room {
    is_short: bool,
    full_until: Option<Instant>,
}

impl Room {
    /// Looks whether there is room for a remote change in the file system of `database`.
    pub(crate) fn look(&mut self, database: &Path) -> bool {
        let found_full = self.full_until.is_some_and(|until| Instant::now() < until);
        self.is_short = found_full || free(database).is_some_and(|free| free.is_short(wal_bytes(database)));
        !self.is_short
    }

    /// A commit found the disk full.
    pub(crate) fn was_full(&mut self) {
        self.full_until = Some(Instant::now() + FULL_WAIT);
        self.is_short = true;
    }

    /// What the last look, or commit, has found.
    pub(crate) fn is_short(&self) -> bool {
        self.is_short
    }
}

#[derive(Clone, Copy)]
struct Free {
    bytes: u64,
    of: u64,
}

impl Free {
    /// What is in the WAL wants room in the database too.
    fn is_short(self, wal_bytes: u64) -> bool {
        self.bytes < RESERVE_BYTES_MAX.min(self.of / RESERVE_PART).saturating_add(wal_bytes)
    }
}

fn wal_bytes(database: &Path) -> u64 {
    let mut wal = database.as_os_str().to_owned();
    wal.push("-wal");
    std::fs::metadata(wal).map_or(0, |file| file.len())
}

/// Room on the file system; `None` where it does not say, and the disk is only known to be full when it is.
#[cfg(unix)]
fn free(database: &Path) -> Option<Free> {
    let state = rustix::fs::statvfs(database).ok()?;
    let bytes = |blocks: u64| blocks.saturating_mul(state.f_frsize);
    Some(Free { bytes: bytes(state.f_bavail), of: bytes(state.f_blocks) })
}

#[cfg(not(unix))]
fn free(_: &Path) -> Option<Free> {
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_large_disk_keeps_a_fixed_reserve_and_a_small_one_a_part_of_itself() {
        let free = |bytes, of| Free { bytes, of }.is_short(0);
        assert!(free((64 << 20) - 1, 1 << 40));
        assert!(!free(64 << 20, 1 << 40));
        assert!(free((1 << 20) - 1, 8 << 20));
        assert!(!free(1 << 20, 8 << 20));
        assert!(!free(0, 0), "a file system that does not know its size never counts as full");
    }

    #[test]
    fn what_the_wal_holds_is_kept_room_for() {
        let free = Free { bytes: 3 << 20, of: 8 << 20 };
        assert!(!free.is_short(2 << 20));
        assert!(free.is_short((2 << 20) + 1));
    }

    #[test]
    fn after_the_disk_was_full_there_is_no_room_for_a_while_whatever_it_says() {
        let folder = tempfile::tempdir().unwrap();
        let mut room = Room::default();
        assert!(!room.is_short());
        room.was_full();
        assert!(room.is_short());
        assert!(!room.look(folder.path()));
        room.full_until = Some(Instant::now());
        assert_eq!(room.look(folder.path()), !room.is_short());
    }
}
