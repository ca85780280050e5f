//! Which processes run with an identity.
//!
//! A node has one process at a time. One that is met again after another process of the same node was met runs beside it: the
//! machine was copied. Both would write positions of the same logs, so neither is let in until only one comes.

use std::collections::BTreeMap;

use crate::clock::Mono;
use crate::id::NodeId;

/// So long after both were met neither is let in; longer than anybody waits before dialling again.
const REFUSED_MS: u64 = 2 * crate::limits::DIAL_BACKOFF_MAX_MS;
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
    /// Each with the time when it was last met, that one last.
    met: Vec<(u64, Mono)>,
    refused_until: Option<Mono>,
}

impl Copies {
    /// A process of a node is met. `None` if it may be let in.
    pub(crate) fn meet(&mut self, node: NodeId, instance: u64, now: Mono) -> Option<Copied> {
        let processes = self.nodes.entry(node).or_default();
        let place = processes.met.iter().position(|(met, _)| *met == instance);
        let is_last = place.is_none_or(|place| place + 1 == processes.met.len());
        if let Some(place) = place {
            processes.met.remove(place);
        }
        processes.met.push((instance, now));
        if processes.met.len() > PROCESSES_MAX {
            processes.met.remove(0);
        }
        let was_refused = processes.refused_until.is_some_and(|until| now < until);
        if !is_last {
            processes.refused_until = Some(now.plus(REFUSED_MS));
        } else if !was_refused {
            processes.refused_until = None;
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
        assert_eq!([met(&mut copies, 1, 0), met(&mut copies, 2, 10)], [None, None]);
        assert_eq!(met(&mut copies, 1, 20), Some(Copied::Now));
        assert_eq!(met(&mut copies, 2, 30), Some(Copied::Before));
        assert_eq!(met(&mut copies, 1, 30 + REFUSED_MS - 1), Some(Copied::Before), "they still take turns");
        // Now the second is ended.
        let since = 30 + REFUSED_MS - 1;
        assert_eq!(met(&mut copies, 1, since + REFUSED_MS - 1), Some(Copied::Before));
        assert_eq!(met(&mut copies, 1, since + REFUSED_MS), None);
        assert_eq!(copies.meet(NodeId([2; 32]), 1, Mono(40)), None, "another node");
        assert_eq!(met(&mut copies, 2, since + REFUSED_MS + 9), Some(Copied::Now), "it is back");
    }
}
