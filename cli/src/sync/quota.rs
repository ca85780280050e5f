//! So many lines of a kind a second, and a count of the rest: a thousand conflicts are one piece of news, not a thousand.

/// Lines of one kind between two refills.
const LINES_MAX: u64 = 5;

/// What is left to say of one kind of event.
#[derive(Default)]
pub(super) struct Quota {
    wanted: u64,
}

impl Quota {
    /// Whether one more may be shown. If not, it is counted.
    pub(super) fn spend(&mut self) -> bool {
        self.wanted += 1;
        self.wanted <= LINES_MAX
    }

    /// Starts anew; says how many were not shown since the last time, if any.
    pub(super) fn refill(&mut self) -> Option<u64> {
        let wanted = std::mem::take(&mut self.wanted);
        wanted.checked_sub(LINES_MAX).filter(|more| *more > 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_too_much_is_counted_instead_and_after_a_while_lines_are_shown_again() {
        let mut quota = Quota::default();
        let shown = (0..LINES_MAX + 7).filter(|_| quota.spend()).count() as u64;
        assert_eq!(shown, LINES_MAX);
        assert_eq!(quota.refill(), Some(7));
        assert_eq!(quota.refill(), None);
        assert!(quota.spend());
    }
}
