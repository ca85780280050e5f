//! The hybrid logical clock.
//!
//! A stamp orders all changes of all nodes in one line that never contradicts cause and effect: 48 bits of wall time in
//! milliseconds, 16 bits of counter, then the node. The algorithm is the hybrid logical clock of Kulkarni et al.,
//! "Logical Physical Clocks" (2014), with both its send and its receive rule, and one addition: a remote stamp too far
//! ahead of the local wall clock is *not yet* accepted, so that one wrong clock cannot drag all others with it.
//!
//! The clock reads no time. The caller passes [`Now`] with its two clocks.

use std::fmt;

use crate::id::NodeId;

/// Milliseconds since 1970 (UTC) by some machine's wall clock. It may jump either way.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct WallMillis(pub u64);

/// Milliseconds on a clock that never goes back, from any start.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Mono(pub u64);

impl Mono {
    /// This time and so many milliseconds.
    #[must_use]
    pub fn plus(self, ms: u64) -> Self {
        Self(self.0.saturating_add(ms))
    }

    /// Milliseconds since an earlier time; zero if it is not earlier.
    #[must_use]
    pub fn since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

/// The caller's two clocks at one moment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Now {
    /// For waits and deadlines.
    pub mono: Mono,
    /// For stamps.
    pub wall: WallMillis,
}

/// Hybrid logical time: wall milliseconds in the high 48 bits, a counter in the low 16.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Hlc(pub u64);

const COUNTER_BITS: u32 = 16;
const WALL_MAX: u64 = (1 << 48) - 1;

impl Hlc {
    /// The first time in a wall millisecond.
    #[must_use]
    pub fn from_wall(wall: WallMillis) -> Self {
        Self(wall.0.min(WALL_MAX) << COUNTER_BITS)
    }

    /// Its wall part.
    #[must_use]
    pub fn wall(self) -> WallMillis {
        WallMillis(self.0 >> COUNTER_BITS)
    }

    /// The time just after this one. A full counter carries into the milliseconds.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

impl fmt::Debug for Hlc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.wall().0, self.0 & 0xffff)
    }
}

/// The total order of changes: hybrid time, then node.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Stamp {
    /// When.
    pub hlc: Hlc,
    /// Who.
    pub node: NodeId,
}

impl fmt::Debug for Stamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}@{}", self.hlc, self.node.short())
    }
}

/// A remote time that is too far ahead of the local wall clock. Nothing has changed; it may be offered again later.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the entry's time is {ahead_ms} ms ahead of this node's clock; at most {max_ms} ms are accepted")]
pub struct TooFarAhead {
    /// Milliseconds that it is ahead.
    pub ahead_ms: u64,
    /// Milliseconds that it may be ahead.
    pub max_ms: u64,
}

/// One node's hybrid clock. Its value only rises; the caller makes it durable in the same commit as what it stamped.
#[derive(Debug, Clone)]
pub struct Clock {
    last: Hlc,
    max_skew_ms: u64,
}

impl Clock {
    /// A clock that goes on from a durable value.
    #[must_use]
    pub fn resume(last: Hlc, max_skew_ms: u64) -> Self {
        Self { last, max_skew_ms }
    }

    /// The greatest time given or accepted so far.
    #[must_use]
    pub fn last(&self) -> Hlc {
        self.last
    }

    /// Send rule: the time of a change written at `written`, later than everything given or accepted before.
    ///
    /// The write time is not trusted beyond `wall`: a clock that was set back must not leave stamps from the future.
    #[must_use]
    pub fn stamp(&self, written: WallMillis, wall: WallMillis) -> Hlc {
        Hlc::from_wall(written.min(wall)).max(self.last.next())
    }

    /// Whether a remote time may be accepted now.
    ///
    /// # Errors
    /// When it is more than the allowed skew ahead of `wall`.
    pub fn admit(&self, remote: Hlc, wall: WallMillis) -> Result<(), TooFarAhead> {
        let ahead_ms = remote.wall().0.saturating_sub(wall.0);
        if ahead_ms > self.max_skew_ms {
            return Err(TooFarAhead { ahead_ms, max_ms: self.max_skew_ms });
        }
        Ok(())
    }

    /// The greatest remote time that [`Clock::admit`] accepts now.
    #[must_use]
    pub fn horizon(&self, wall: WallMillis) -> Hlc {
        Hlc((wall.0.saturating_add(self.max_skew_ms).min(WALL_MAX) << COUNTER_BITS) | 0xffff)
    }

    /// Receive rule and memory of what was given: the clock is at least at `time` from now on.
    pub fn advance(&mut self, time: Hlc) {
        self.last = self.last.max(time);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_wall_clock_set_back_does_not_take_the_stamps_back() {
        let mut clock = Clock::resume(Hlc::from_wall(WallMillis(10_000)), 1_000);
        let first = clock.stamp(WallMillis(4_000), WallMillis(4_000));
        assert_eq!(first, Hlc::from_wall(WallMillis(10_000)).next());
        clock.advance(first);
        assert!(clock.stamp(WallMillis(3_000), WallMillis(3_000)) > first);
    }

    #[test]
    fn a_write_time_from_the_future_is_not_trusted_beyond_the_wall_clock() {
        let clock = Clock::resume(Hlc::default(), 1_000);
        assert_eq!(clock.stamp(WallMillis(99_000), WallMillis(5_000)).wall(), WallMillis(5_000));
    }

    #[test]
    fn an_old_edit_keeps_its_old_time() {
        let clock = Clock::resume(Hlc::from_wall(WallMillis(1_000)), 1_000);
        assert_eq!(clock.stamp(WallMillis(2_000), WallMillis(90_000)).wall(), WallMillis(2_000));
    }

    #[test]
    fn a_remote_time_at_the_skew_limit_is_admitted_and_one_millisecond_more_is_not() {
        let clock = Clock::resume(Hlc::default(), 1_000);
        let wall = WallMillis(50_000);
        assert_eq!(clock.admit(clock.horizon(wall), wall), Ok(()));
        let over = clock.horizon(wall).next();
        assert_eq!(clock.admit(over, wall), Err(TooFarAhead { ahead_ms: 1_001, max_ms: 1_000 }));
    }

    #[test]
    fn the_last_millisecond_that_a_stamp_can_hold_is_the_last_that_there_is() {
        let last = (1 << 48) - 1;
        assert_eq!(Hlc::from_wall(WallMillis(last)).wall(), WallMillis(last));
        assert_eq!(Hlc::from_wall(WallMillis(last + 1)), Hlc::from_wall(WallMillis(last)));
        assert_eq!(Hlc::from_wall(WallMillis(u64::MAX)), Hlc::from_wall(WallMillis(last)));
        let clock = Clock::resume(Hlc::default(), 1_000);
        assert_eq!(clock.horizon(WallMillis(last - 1_000)), Hlc(u64::MAX));
        assert_eq!(clock.horizon(WallMillis(last)), Hlc(u64::MAX), "and nothing is beyond it");
    }

    #[test]
    fn a_full_counter_carries_into_the_milliseconds() {
        let full = Hlc((7 << 16) | 0xffff);
        assert_eq!(full.next(), Hlc::from_wall(WallMillis(8)));
    }

    proptest! {
        #[test]
        fn stamps_rise_whatever_the_wall_clock_does(steps in prop::collection::vec((any::<bool>(), 0u64..100_000), 1..100)) {
            let mut clock = Clock::resume(Hlc::default(), 5_000);
            for (local, wall) in steps {
                let before = clock.last();
                let wall = WallMillis(wall);
                let time = if local { clock.stamp(wall, wall) } else { Hlc::from_wall(wall) };
                if local {
                    prop_assert!(time > before);
                }
                clock.advance(time);
                prop_assert!(clock.last() >= before && clock.last() >= time);
            }
        }
    }
}
