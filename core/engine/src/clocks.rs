//! This machine's clocks, for the replica, which reads none.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use entgldb_replica::clock::{Mono, Now, WallMillis};

/// The caller's two clocks.
#[derive(Clone, Copy)]
pub(crate) struct Clocks(Instant);

impl Clocks {
    pub(crate) fn start() -> Self {
        Self(Instant::now())
    }

    pub(crate) fn now(self) -> Now {
        let mono = Mono(u64::try_from(self.0.elapsed().as_millis()).unwrap_or(u64::MAX));
        Now { mono, wall: WallMillis(wall_ms()) }
    }

    /// How long until that time.
    pub(crate) fn until(self, mono: Mono) -> Duration {
        Duration::from_millis(mono.0).saturating_sub(self.0.elapsed())
    }
}

/// Milliseconds since 1970.
pub(crate) fn wall_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
