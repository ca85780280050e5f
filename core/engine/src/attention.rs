//! When to look whether the application has written something.
//!
//! The operating system tells of writes to the database's files, but before they are visible; so after each message it is
//! looked again for a while. An application that writes all the while is looked at by the clock instead: each look then
//! captures many changes, and nobody listens to every page that it writes.

use std::time::{Duration, Instant};

use entgldb_sqlite::Waker;

/// The database is looked at this often even if no message comes.
const POLL: Duration = Duration::from_millis(250);
/// The same where the operating system can't notify.
const POLL_DEAF: Duration = Duration::from_millis(25);
/// After a message the commit may not be visible yet: looked at again after so many microseconds each.
const LOOK_AGAIN_US: [u64; 6] = [100, 300, 1_000, 3_000, 10_000, 30_000];
/// After a capture the next one waits a little, so that an application that writes without pause is not stopped at every
/// commit by ours: a short while after a few changes, longer after many (from so many on).
const CAPTURE_AGAIN: (Duration, Duration) = (Duration::from_millis(2), Duration::from_millis(20));
/// See [`CAPTURE_AGAIN`].
const MANY_CHANGES: usize = 16;
/// While a catch-up comes in, local writes are looked for by the clock: this long after the last page.
const REST_AFTER_APPLYING: Duration = Duration::from_millis(60);
/// So many times in a row there was something: the application writes all the while.
const STREAK_TO_REST: u32 = 2;

/// Commits of the application with no more between them are a rhythm.
const RHYTHM_GAP_MAX: Duration = Duration::from_millis(150);
/// So long after a commit that was captured the application is taken to pause: a quarter of its rhythm, but no longer.
const PAUSE_MAX: Duration = Duration::from_millis(4);
/// Nothing waits longer for the application's next commit.
const WAIT_FOR_COMMIT_MAX: Duration = Duration::from_millis(60);
/// A commit that is found so late, and later than half of its rhythm, is captured with the next one. File systems date their
/// files to a few milliseconds.
const LATE: Duration = Duration::from_millis(8);

/// See the module's documentation.
pub(crate) struct Attention {
    waker: Waker,
    look_at: Instant,
    /// How often it was looked in vain since the last sign of a write.
    looks: usize,
    /// How often in a row something was found.
    streak: u32,
    /// Whether the next write wakes.
    armed: bool,
    /// No capture before this.
    capture_at: Instant,
    /// Not armed before this: much is being applied, and our own commits would wake us.
    rest_until: Instant,
    rhythm: Rhythm,
    /// Until when a capture waits for the application's next commit.
    put_off: Option<Instant>,
}

/// How the application has written lately.
#[derive(Default)]
struct Rhythm {
    last: Option<Instant>,
    /// From one commit to the next, on average; `None` if the last two were far apart.
    gap: Option<Duration>,
}

impl Rhythm {
    fn committed(&mut self, now: Instant) {
        let gap = self.last.map(|last| now.saturating_duration_since(last));
        self.gap = gap
            .filter(|gap| *gap <= RHYTHM_GAP_MAX)
            .map(|gap| self.gap.map_or(gap, |mean| (mean * 3 + gap) / 4));
        self.last = Some(now);
    }

    /// Until when the capture of a commit of so long ago has to wait, if it is found so late that the application is likely to
    /// be in its next transaction.
    fn too_late_until(&self, now: Instant, age: Duration) -> Option<Instant> {
        let gap = self.gap.filter(|gap| age > LATE.max(*gap / 2) && age < *gap * 2)?;
        Some(now + (gap * 2 - age).min(WAIT_FOR_COMMIT_MAX))
    }

    fn in_a_transaction_until(&self, now: Instant) -> Option<Instant> {
        let (last, gap) = self.last.zip(self.gap)?;
        let pause_ends = last + (gap / 4).min(PAUSE_MAX);
        let next = last + gap * 2;
        (pause_ends < now && now < next).then(|| next.min(now + WAIT_FOR_COMMIT_MAX))
    }
}

impl Attention {
    pub(crate) fn new(waker: Waker) -> Self {
        if let Some(reason) = waker.why_deaf() {
            tracing::warn!(reason, poll = ?POLL_DEAF, "no notifications of file changes here: looking often instead");
        }
        let now = Instant::now();
        Self {
            waker,
            look_at: now,
            looks: 0,
            streak: 0,
            armed: true,
            capture_at: now,
            rest_until: now,
            rhythm: Rhythm::default(),
            put_off: None,
        }
    }

    /// Listens to other files from now on.
    pub(crate) fn listen_to(&mut self, waker: Waker) {
        *self = Self::new(waker);
    }

    /// The next change of the files is told again, although nothing is looked at now.
    pub(crate) fn rearm(&mut self) {
        self.waker.rearm();
    }

    /// When to look next.
    pub(crate) fn due(&self) -> Instant {
        self.look_at
    }

    pub(crate) fn is_due(&self) -> bool {
        Instant::now() >= self.look_at
    }

    /// The files have changed.
    pub(crate) fn woken(&mut self) {
        self.armed = false;
        self.looks = 0;
        self.look_at = self.capture_at;
    }

    /// Changes were captured, by looking or otherwise.
    pub(crate) fn captured(&mut self, changes: usize) {
        let pause = if changes < MANY_CHANGES { CAPTURE_AGAIN.0 } else { CAPTURE_AGAIN.1 };
        let now = Instant::now();
        self.capture_at = now + pause;
        self.rhythm.committed(now);
    }

    /// Until when the application is likely to be in a transaction, as far as its rhythm tells: its next commit should have
    /// come by then. `None` if it does not write, or has just committed.
    pub(crate) fn in_a_transaction_until(&self, now: Instant) -> Option<Instant> {
        self.rhythm.in_a_transaction_until(now)
    }

    /// Whether the capture of a commit of so long ago waits for the next one: an application that reads and then writes in one
    /// transaction fails if anybody commits in between.
    pub(crate) fn puts_off(&mut self, age: Duration) -> bool {
        let now = Instant::now();
        let until = match self.put_off {
            Some(until) => self.rhythm.too_late_until(now, age).map(|_| until),
            None => self.rhythm.too_late_until(now, age),
        };
        self.put_off = until.filter(|until| *until > now);
        if let Some(until) = self.put_off {
            if !std::mem::replace(&mut self.armed, true) {
                self.waker.rearm();
            }
            self.look_at = until;
        }
        self.put_off.is_some()
    }

    /// Remote documents were applied.
    pub(crate) fn applied(&mut self, documents: usize) {
        if documents >= MANY_CHANGES {
            self.armed = false;
            self.waker.rest();
            let now = Instant::now();
            self.rest_until = now + REST_AFTER_APPLYING;
            self.look_at = self.look_at.min(now + CAPTURE_AGAIN.1);
        }
    }

    /// A look is about to capture something.
    pub(crate) fn found(&mut self) {
        self.looks = 0;
        self.streak += 1;
        if self.streak >= STREAK_TO_REST {
            self.armed = false;
            self.waker.rest();
        }
    }

    /// What the look found is captured.
    pub(crate) fn done(&mut self) {
        self.look_at = self.capture_at.max(Instant::now() + Duration::from_micros(LOOK_AGAIN_US[0]));
    }

    /// A look found nothing. The first time the waker is armed, and it is looked once more at once: what was written in
    /// between would wake nobody.
    pub(crate) fn nothing(&mut self) {
        self.streak = 0;
        self.look_at = Instant::now();
        if self.look_at < self.rest_until {
            self.look_at += CAPTURE_AGAIN.1;
            return;
        }
        if !std::mem::replace(&mut self.armed, true) {
            self.waker.rearm();
            return;
        }
        let poll = if self.waker.why_deaf().is_some() { POLL_DEAF } else { POLL };
        self.look_at += LOOK_AGAIN_US.get(self.looks).map_or(poll, |us| Duration::from_micros(*us));
        self.looks += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn every(gap: Duration) -> (Rhythm, Instant) {
        let mut rhythm = Rhythm::default();
        let begin = Instant::now();
        (0..10).for_each(|number| rhythm.committed(begin + gap * number));
        (rhythm, begin + gap * 9)
    }

    #[test]
    fn an_application_that_does_not_write_holds_nothing_up() {
        let mut rhythm = Rhythm::default();
        let now = Instant::now();
        assert_eq!(rhythm.in_a_transaction_until(now), None);
        rhythm.committed(now);
        assert_eq!(rhythm.in_a_transaction_until(now + MS * 20), None, "one commit is no rhythm");
        rhythm.committed(now + RHYTHM_GAP_MAX * 2);
        assert_eq!(rhythm.in_a_transaction_until(now + RHYTHM_GAP_MAX * 2 + MS * 20), None);
    }

    #[test]
    fn right_after_a_commit_nothing_waits_and_later_until_the_next_one_should_have_come() {
        let (rhythm, last) = every(MS * 28);
        assert_eq!(rhythm.in_a_transaction_until(last + MS), None);
        assert_eq!(rhythm.in_a_transaction_until(last + MS * 10), Some(last + MS * 56));
        assert_eq!(rhythm.in_a_transaction_until(last + MS * 57), None, "it has stopped writing");
    }

    #[test]
    fn a_commit_that_is_found_late_waits_for_the_next_one() {
        let (rhythm, last) = every(MS * 28);
        assert_eq!(rhythm.too_late_until(last, MS * 14), None, "it is early enough");
        assert_eq!(rhythm.too_late_until(last, MS * 20), Some(last + MS * 36));
        assert_eq!(rhythm.too_late_until(last, MS * 60), None, "it has stopped writing");
        assert_eq!(
            every(MS * 10).0.too_late_until(last, MS * 8),
            None,
            "files are dated to a few milliseconds"
        );
        assert_eq!(Rhythm::default().too_late_until(last, MS * 20), None);
    }

    #[test]
    fn nothing_waits_longer_than_the_limit() {
        let (rhythm, last) = every(RHYTHM_GAP_MAX);
        let now = last + MS * 20;
        assert_eq!(rhythm.in_a_transaction_until(now), Some(now + WAIT_FOR_COMMIT_MAX));
    }
}
