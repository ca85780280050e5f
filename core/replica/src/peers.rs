//! Whom to dial, and when.
//!
//! A target is an address that somebody gave (`host:port`). It is dialled until it leads to a link; a target that leads
//! to a node we have a link with already rests until that link is gone. Waits double from 1 s to 60 s, each spread at
//! random by half, so that a cluster does not dial in step after a power cut.

use std::collections::BTreeMap;

use fastrand::Rng;

use crate::clock::Mono;
use crate::id::{LinkId, NodeId};
use crate::limits::{DIAL_BACKOFF_FIRST_MS, DIAL_BACKOFF_MAX_MS, PEERS_MAX};

/// A link that lived at least this long starts the waits over.
const STABLE_MS: u64 = 10_000;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Waiting {
        until: Mono,
    },
    Dialling,
    Linked {
        link: LinkId,
        since: Mono,
    },
    /// It leads to a node that has a link already.
    Covered {
        by: NodeId,
    },
    /// It leads to ourselves.
    Ourselves,
}

#[derive(Debug)]
struct Target {
    state: State,
    backoff_ms: u64,
    node: Option<NodeId>,
    error: Option<String>,
}

/// What is known of a target, for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TargetStatus {
    /// The address as it was given.
    pub target: String,
    /// The node it led to, last time it led anywhere.
    pub node: Option<NodeId>,
    /// Whether a link to it stands.
    pub linked: bool,
    /// Why it does not.
    pub error: Option<String>,
}

/// There are as many peers as a node remembers; the new one was not added.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("there are {max} peers already; the limit PEERS_MAX allows no more")]
pub struct TooManyPeers {
    max: usize,
}

/// The table of targets.
#[derive(Debug)]
pub(crate) struct Peers {
    targets: BTreeMap<String, Target>,
    rng: Rng,
}

impl Peers {
    pub(crate) fn new(rng: Rng) -> Self {
        Self { targets: BTreeMap::new(), rng }
    }

    /// Adds a target, to be dialled at once. One that is there already is dialled at once if it waits.
    pub(crate) fn add(&mut self, target: &str, now: Mono) -> Result<(), TooManyPeers> {
        if let Some(known) = self.targets.get_mut(target) {
            if matches!(known.state, State::Waiting { .. }) {
                known.state = State::Waiting { until: now };
            }
            return Ok(());
        }
        if self.targets.len() >= PEERS_MAX {
            return Err(TooManyPeers { max: PEERS_MAX });
        }
        let state = State::Waiting { until: now };
        let target_state = Target { state, backoff_ms: DIAL_BACKOFF_FIRST_MS, node: None, error: None };
        self.targets.insert(target.to_owned(), target_state);
        Ok(())
    }

    /// Targets whose wait is over; they count as being dialled from now on.
    pub(crate) fn due(&mut self, now: Mono) -> Vec<String> {
        let mut due = Vec::new();
        for (name, target) in &mut self.targets {
            if matches!(target.state, State::Waiting { until } if until <= now) {
                target.state = State::Dialling;
                due.push(name.clone());
            }
        }
        due
    }

    pub(crate) fn next_due(&self) -> Option<Mono> {
        let waits = self.targets.values().filter_map(|target| match target.state {
            State::Waiting { until } => Some(until),
            _ => None,
        });
        waits.min()
    }

    /// Every waiting target is due now.
    pub(crate) fn hurry(&mut self, now: Mono) {
        for target in self.targets.values_mut() {
            if matches!(target.state, State::Waiting { .. }) {
                target.state = State::Waiting { until: now };
            }
        }
    }

    pub(crate) fn dial_failed(&mut self, name: &str, reason: String, now: Mono) {
        let spread = self.rng.f64();
        if let Some(target) = self.targets.get_mut(name)
            && target.state == State::Dialling
        {
            target.error = Some(reason);
            target.wait(now, spread);
        }
    }

    pub(crate) fn linked(&mut self, name: &str, link: LinkId, node: NodeId, now: Mono) {
        if let Some(target) = self.targets.get_mut(name) {
            target.state = State::Linked { link, since: now };
            target.node = Some(node);
            target.error = None;
        }
    }

    /// The target leads to a node that has another link.
    pub(crate) fn covered(&mut self, name: &str, by: NodeId) {
        if let Some(target) = self.targets.get_mut(name) {
            target.state = State::Covered { by };
            target.node = Some(by);
            target.error = None;
        }
    }

    pub(crate) fn is_ourselves(&mut self, name: &str) {
        if let Some(target) = self.targets.get_mut(name) {
            target.state = State::Ourselves;
            target.error = Some("this address leads to this node itself".to_owned());
        }
    }

    /// A link is gone; `node_is_linked` tells whether its node still has another one.
    pub(crate) fn unlinked(
        &mut self,
        link: LinkId,
        node: NodeId,
        node_is_linked: bool,
        reason: &str,
        now: Mono,
    ) {
        let spread = self.rng.f64();
        for target in self.targets.values_mut() {
            let concerned = match target.state {
                State::Linked { link: linked, since } if linked == link => {
                    if now.since(since) >= STABLE_MS {
                        target.backoff_ms = DIAL_BACKOFF_FIRST_MS;
                    }
                    true
                }
                State::Covered { by } => by == node && !node_is_linked,
                _ => false,
            };
            if !concerned {
                continue;
            }
            if node_is_linked {
                target.state = State::Covered { by: node };
            } else {
                target.error = Some(reason.to_owned());
                target.wait(now, spread);
            }
        }
    }

    pub(crate) fn status(&self) -> Vec<TargetStatus> {
        let status = |(name, target): (&String, &Target)| TargetStatus {
            target: name.clone(),
            node: target.node,
            linked: matches!(target.state, State::Linked { .. } | State::Covered { .. }),
            error: target.error.clone(),
        };
        self.targets.iter().map(status).collect()
    }
}

impl Target {
    /// Waits between half and all of the back-off, then doubles it.
    fn wait(&mut self, now: Mono, spread: f64) {
        let half = self.backoff_ms / 2;
        // Small numbers: nothing is lost in the conversion.
        let wait = half + (spread * (self.backoff_ms - half) as f64) as u64;
        self.state = State::Waiting { until: now.plus(wait) };
        self.backoff_ms = (self.backoff_ms * 2).min(DIAL_BACKOFF_MAX_MS);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NODE: NodeId = NodeId([1; 32]);

    fn peers() -> Peers {
        let mut peers = Peers::new(Rng::with_seed(1));
        peers.add("a:1", Mono(0)).unwrap();
        peers
    }

    #[test]
    fn waits_double_up_to_a_minute_and_are_never_below_half() {
        let mut peers = peers();
        let (mut now, mut expected) = (Mono(0), DIAL_BACKOFF_FIRST_MS);
        for _ in 0..10 {
            assert_eq!(peers.due(now), ["a:1"]);
            assert!(peers.due(now).is_empty(), "a target is not dialled twice at once");
            peers.dial_failed("a:1", "refused".into(), now);
            let wait = peers.next_due().unwrap().since(now);
            assert!((expected / 2..=expected).contains(&wait), "{wait} of {expected}");
            now = peers.next_due().unwrap();
            expected = (expected * 2).min(DIAL_BACKOFF_MAX_MS);
        }
        assert_eq!(expected, DIAL_BACKOFF_MAX_MS);
    }

    #[test]
    fn a_link_that_lived_long_starts_the_waits_over() {
        let mut peers = peers();
        for _ in 0..6 {
            let now = peers.next_due().unwrap();
            peers.due(now);
            peers.dial_failed("a:1", "refused".into(), now);
        }
        let now = peers.next_due().unwrap();
        peers.due(now);
        peers.linked("a:1", LinkId(1), NODE, now);
        let later = now.plus(STABLE_MS);
        peers.unlinked(LinkId(1), NODE, false, "cut", later);
        assert!(peers.next_due().unwrap().since(later) <= DIAL_BACKOFF_FIRST_MS);
    }

    #[test]
    fn a_target_covered_by_another_link_rests_until_that_is_gone() {
        let mut peers = peers();
        peers.due(Mono(0));
        peers.covered("a:1", NODE);
        assert_eq!(peers.next_due(), None);
        peers.unlinked(LinkId(9), NODE, true, "cut", Mono(10));
        assert_eq!(peers.next_due(), None);
        peers.unlinked(LinkId(9), NODE, false, "cut", Mono(10));
        assert!(peers.next_due().is_some());
    }

    #[test]
    fn a_target_that_leads_to_ourselves_is_never_dialled_again() {
        let mut peers = peers();
        peers.due(Mono(0));
        peers.is_ourselves("a:1");
        assert_eq!(peers.next_due(), None);
        assert!(peers.status()[0].error.is_some());
    }

    #[test]
    fn peers_over_the_limit_are_refused_with_its_name() {
        let mut peers = peers();
        for i in 1..PEERS_MAX {
            peers.add(&format!("b:{i}"), Mono(0)).unwrap();
        }
        assert!(peers.add("c:1", Mono(0)).unwrap_err().to_string().contains("PEERS_MAX"));
    }
}
