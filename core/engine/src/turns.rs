//! Turns of the links, so that no peer makes the others wait.
//!
//! Each link has a queue of its own. The driver takes one event of one link, then one of the next. So whatever a peer sends,
//! between two events of its link every other link, the application's changes and the owner's commands have their turn.

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};

use entgldb_replica::id::LinkId;

/// What has come over each link and waits. How much that can be is limited by the transport.
pub(crate) struct Turns<T> {
    queues: Mutex<HashMap<LinkId, VecDeque<T>>>,
}

impl<T> Default for Turns<T> {
    fn default() -> Self {
        Self { queues: Mutex::default() }
    }
}

impl<T> Turns<T> {
    /// Puts an event at the end of its link's queue. Answers whether nothing waited there: then the link is to be put in
    /// line.
    pub(crate) fn put(&self, link: LinkId, event: T) -> bool {
        let mut queues = self.queues();
        let queue = queues.entry(link).or_default();
        queue.push_back(event);
        queue.len() == 1
    }

    /// Takes the oldest event of a link, and whether the link is to be put in line again.
    pub(crate) fn take(&self, link: LinkId) -> Option<(T, bool)> {
        let mut queues = self.queues();
        let queue = queues.get_mut(&link)?;
        let event = queue.pop_front()?;
        let more = !queue.is_empty();
        if !more {
            queues.remove(&link);
        }
        Some((event, more))
    }

    fn queues(&self) -> MutexGuard<'_, HashMap<LinkId, VecDeque<T>>> {
        self.queues.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_that_floods_has_one_turn_between_two_of_another() {
        let turns = Turns::default();
        let mut line = VecDeque::new();
        let put = |line: &mut VecDeque<LinkId>, link, event| {
            if turns.put(link, event) {
                line.push_back(link);
            }
        };
        let (flood, honest) = (LinkId(1), LinkId(2));
        (0..10_000).for_each(|number| put(&mut line, flood, number));
        put(&mut line, honest, 1);
        put(&mut line, honest, 2);
        assert_eq!(line, [flood, honest]);
        let mut taken = Vec::new();
        while let Some(link) = line.pop_front() {
            let (event, more) = turns.take(link).unwrap();
            taken.push((link, event));
            if more {
                line.push_back(link);
            }
        }
        assert_eq!(taken[..4], [(flood, 0), (honest, 1), (flood, 1), (honest, 2)]);
        assert_eq!(taken.len(), 10_002, "nothing is lost");
        assert!(taken.iter().filter(|(link, _)| *link == flood).is_sorted(), "each link keeps its order");
        assert!(turns.queues().is_empty(), "a link that is gone leaves nothing behind");
    }
}
