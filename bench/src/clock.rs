//! A clock that all processes of a machine read alike.

use rustix::time::{ClockId, clock_gettime};

/// Nanoseconds of the monotonic clock. `Instant` would do, but it keeps its number to itself.
pub(crate) fn monotonic_ns() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    let seconds = u64::try_from(now.tv_sec).expect("the monotonic clock does not run before zero");
    let rest = u64::try_from(now.tv_nsec).expect("nanoseconds within a second are not negative");
    seconds * 1_000_000_000 + rest
}
