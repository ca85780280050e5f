//! Which processes run with an identity.
//!
//! A node has one process at a time. One that is met again and again after another process of the same node runs beside it:
//! the machine was copied. Both would write positions of the same logs, so neither is let in until only one comes. Once or twice
//! is no proof: the last bytes of a process that has ended may arrive after its successor's first.

use std::collections::BTreeMap;

use crate::clock::Mono;
use crate::id::NodeId;

/// So long after both were met neither is let in; longer than anybody waits before dialling again.
const REFUSED_MS: u64 = 2 * crate::limits::DIAL_BACKOFF_MAX_MS;
/// So often a process is met after another one before it is believed.
const RETURNS: u32 = 3;
/// Processes of one node that are remembered. Each start of it is another one.
const PROCESSES_MAX: usize = 8;

/// A node that runs twice.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Copied {
    /// As was just found out.
    Now,
    /// As is known.
    Before,
}

/// See the module's documentation.
#[derive(Debug, Default)]
pub(crate) struct Copies {
    nodes: BTreeMap<NodeId, Processes>,
}

#[derive(Debug, Default)]
struct Processes {
    /// The one that was met last stands last; and how often each was met after another one.
    met: Vec<(u64, u32)>,
    refused_until: Option<Mono>,
}

impl Copies {
    /// A process of a node is met. `None` if it may be let in.
    pub(crate) fn meet(&mut self, node: NodeId, instance: u64, now: Mono) -> Option<Copied> {
        let processes = self.nodes.entry(node).or_default();
        let place = processes.met.iter().position(|(met, _)| *met == instance);
        let is_back = place.is_some_and(|place| place + 1 < processes.met.len());
        let returns = place.map_or(0, |place| processes.met.remove(place).1) + u32::from(is_back);
        processes.met.push((instance, returns));
        if processes.met.len() > PROCESSES_MAX {
            processes.met.remove(0);
        }
        let was_refused = processes.refused_until.is_some_and(|until| now < until);
        if is_back && (was_refused || returns >= RETURNS) {
            processes.refused_until = Some(now.plus(REFUSED_MS));
        } else if !was_refused {
            if processes.refused_until.take().is_some() {
                // Only one has come for so long.
                processes.met.retain(|(met, _)| *met == instance);
            }
            return None;
        }
        Some(if was_refused { Copied::Before } else { Copied::Now })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn met(copies: &mut Copies, instance: u64, at: u64) -> Option<Copied> {
        copies.meet(NodeId([1; 32]), instance, Mono(at))
    }

    #[test]
    fn a_node_that_is_started_again_and_again_is_let_in() {
        let mut copies = Copies::default();
        for instance in 0..30 {
            assert_eq!(met(&mut copies, instance, instance), None);
            assert_eq!(met(&mut copies, instance, instance), None, "another link of the same process");
        }
        assert!(copies.nodes[&NodeId([1; 32])].met.len() <= PROCESSES_MAX);
    }

    #[test]
    fn of_two_processes_that_take_turns_neither_is_let_in_until_one_is_gone() {
        let mut copies = Copies::default();
        assert_eq!([met(&mut copies, 1, 0), met(&mut copies, 2, 1)], [None, None]);
        assert_eq!([met(&mut copies, 1, 2), met(&mut copies, 2, 3)], [None, None], "late last bytes");
        assert_eq!([met(&mut copies, 1, 4), met(&mut copies, 2, 5)], [None, None]);
        assert_eq!(met(&mut copies, 1, 20), Some(Copied::Now));
        assert_eq!(met(&mut copies, 2, 30), Some(Copied::Before));
        assert_eq!(met(&mut copies, 1, 30 + REFUSED_MS - 1), Some(Copied::Before), "they still take turns");
        // Now the second is ended.
        let since = 30 + REFUSED_MS - 1;
        assert_eq!(met(&mut copies, 1, since + REFUSED_MS - 1), Some(Copied::Before));
        assert_eq!(met(&mut copies, 1, since + REFUSED_MS), None);
        assert_eq!(copies.meet(NodeId([2; 32]), 1, Mono(40)), None, "another node");
        let mut turns = (0..9).map(|n| met(&mut copies, 2 - n % 2, since + REFUSED_MS + 9));
        assert_eq!(turns.find_map(|found| found), Some(Copied::Now), "the second is there again");
    }
}
