//! Simulated clocks: one true time, and for each node a wall clock that is more or less wrong.

use entgldb_replica::clock::WallMillis;

/// What a right wall clock shows when the simulation starts.
const WALL_START_MS: u64 = 1_800_000_000_000;
/// A month.
pub(crate) const MONTH_MS: i64 = 30 * 24 * 3_600_000;

/// Simulated true time, in milliseconds since the start.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub(crate) struct Time(pub(crate) u64);

impl Time {
    pub(crate) fn plus(self, ms: u64) -> Self {
        Self(self.0 + ms)
    }
}

/// A node's wall clock.
#[derive(Clone, Copy, Debug)]
pub(crate) struct WallClock {
    /// What it shows minus the true time, when its drift began.
    offset_ms: i64,
    /// Milliseconds gained in a million.
    drift_per_million: i64,
    drifting_since: Time,
    grain_ms: u64,
}

impl WallClock {
    pub(crate) fn right(grain_ms: u64) -> Self {
        Self { offset_ms: 0, drift_per_million: 0, drifting_since: Time(0), grain_ms: grain_ms.max(1) }
    }

    pub(crate) fn read(&self, now: Time) -> WallMillis {
        let shown = (WALL_START_MS + now.0).saturating_add_signed(self.offset(now));
        WallMillis(shown / self.grain_ms * self.grain_ms)
    }

    /// Steps by so many milliseconds.
    pub(crate) fn step(&mut self, ms: i64) {
        self.offset_ms += ms;
    }

    /// Runs fast or slow from now on.
    pub(crate) fn drift(&mut self, now: Time, per_million: i64) {
        self.offset_ms = self.offset(now);
        self.drifting_since = now;
        self.drift_per_million = per_million;
    }

    /// Is right again, or ahead by as much as it takes to show at least `least`.
    pub(crate) fn heal(&mut self, now: Time, least: WallMillis) {
        *self = Self::right(self.grain_ms);
        let ahead = (least.0 + self.grain_ms).saturating_sub(WALL_START_MS + now.0);
        self.offset_ms = i64::try_from(ahead).unwrap_or(i64::MAX);
    }

    fn offset(&self, now: Time) -> i64 {
        let passed = i64::try_from(now.0 - self.drifting_since.0).unwrap_or(i64::MAX);
        self.offset_ms + passed.saturating_mul(self.drift_per_million) / 1_000_000
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_drifts_steps_and_heals() {
        let mut clock = WallClock::right(1);
        clock.drift(Time(1_000), 1_000);
        assert_eq!(clock.read(Time(2_000_000 + 1_000)).0, WALL_START_MS + 2_001_000 + 2_000);
        clock.step(-5_000);
        assert_eq!(clock.read(Time(1_000)).0, WALL_START_MS + 1_000 - 5_000);
        clock.heal(Time(9_000), WallMillis(0));
        assert_eq!(clock.read(Time(9_000)).0, WALL_START_MS + 9_000);
        let future = WallMillis(WALL_START_MS + 100_000);
        clock.heal(Time(9_000), future);
        assert!(clock.read(Time(9_000)) >= future);
    }
}
