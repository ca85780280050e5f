//! Following which logs have changed, so that nothing has to look through all of them.
//!
//! A node may have very many logs, of which nearly all are quiet. What is worked out over all logs is worked out once and then
//! kept up to date log by log: the cost of a write does not grow with the number of quiet logs.

use std::cell::Cell;
use std::collections::{BTreeSet, VecDeque};
use std::fmt;

use crate::id::LogId;

/// Changes that are remembered; whoever is further behind looks through all logs once.
const REMEMBERED: usize = 1_024;

/// The last changes of heads and floors.
#[derive(Debug, Default)]
pub(crate) struct Moves {
    count: u64,
    last: VecDeque<LogId>,
}

impl Moves {
    /// Notes that a log has changed.
    pub(crate) fn note(&mut self, log: &LogId) {
        self.count += 1;
        if self.last.len() == REMEMBERED {
            self.last.pop_front();
        }
        self.last.push_back(log.clone());
    }

    /// How many there have been.
    pub(crate) fn count(&self) -> u64 {
        self.count
    }

    /// Those after the first `count`, if they are remembered.
    fn since(&self, count: u64) -> Option<impl Iterator<Item = &LogId>> {
        let missed = usize::try_from(self.count.checked_sub(count)?).ok()?;
        let first = self.last.len().checked_sub(missed)?;
        Some(self.last.iter().skip(first))
    }
}

/// What one follower has still to look at.
#[derive(Debug, Default)]
pub(crate) struct Follower {
    /// How many moves it has followed; `None` before it has looked through all logs.
    followed: Option<u64>,
    /// Logs that changed in another way than by a move.
    touched: BTreeSet<LogId>,
}

impl Follower {
    /// A log has changed in another way.
    pub(crate) fn touch(&mut self, log: &LogId) {
        if self.followed.is_some() && !self.touched.contains(log) {
            self.touched.insert(log.clone());
        }
    }

    /// Everything may have changed.
    pub(crate) fn start_over(&mut self) {
        *self = Self::default();
    }

    /// The logs to look at, once each; `None` if it is all of them.
    pub(crate) fn changed(&mut self, moves: &Moves) -> Option<BTreeSet<LogId>> {
        let moved = self.followed.and_then(|count| moves.since(count));
        let mut touched = std::mem::take(&mut self.touched);
        self.followed = Some(moves.count());
        touched.extend(moved?.cloned());
        Some(touched)
    }
}

/// What a follower has worked out, brought up to date when somebody asks.
#[derive(Default)]
pub(crate) struct Kept<T>(Cell<T>);

impl<T: Default> Kept<T> {
    /// Brings it up to date, or reads it.
    pub(crate) fn with<R>(&self, use_it: impl FnOnce(&mut T) -> R) -> R {
        let mut kept = self.0.take();
        let answer = use_it(&mut kept);
        self.0.set(kept);
        answer
    }
}

impl<T> fmt::Debug for Kept<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Kept")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::{Collection, Incarnation, NodeId};

    fn log(number: u64) -> LogId {
        let collection = Collection::new("t").unwrap();
        LogId { author: NodeId([1; 32]), incarnation: Incarnation(number), collection }
    }

    fn changed(follower: &mut Follower, moves: &Moves) -> Option<Vec<u64>> {
        follower.changed(moves).map(|logs| logs.iter().map(|log| log.incarnation.0).collect())
    }

    #[test]
    fn all_logs_are_looked_at_once_and_then_those_that_have_changed() {
        let (mut moves, mut follower) = (Moves::default(), Follower::default());
        moves.note(&log(1));
        follower.touch(&log(2));
        assert_eq!(changed(&mut follower, &moves), None);
        assert_eq!(changed(&mut follower, &moves), Some(vec![]));
        moves.note(&log(4));
        moves.note(&log(3));
        moves.note(&log(4));
        follower.touch(&log(5));
        assert_eq!(changed(&mut follower, &moves), Some(vec![3, 4, 5]));
        follower.start_over();
        assert_eq!(changed(&mut follower, &moves), None);
        (0..REMEMBERED as u64).for_each(|number| moves.note(&log(number)));
        assert_eq!(changed(&mut follower, &moves).map(|logs| logs.len()), Some(REMEMBERED));
        (0..=REMEMBERED as u64).for_each(|number| moves.note(&log(number)));
        assert_eq!(changed(&mut follower, &moves), None, "that was too much to remember");
    }
}
