//! How often each fault and each noteworthy outcome really happened: a fault that never strikes tests nothing.

use std::collections::BTreeMap;
use std::fmt;

use entgldb_replica::event::Event;
use entgldb_replica::store::ProblemKind;

/// Counts by name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Coverage(BTreeMap<String, u64>);

impl Coverage {
    pub(crate) fn add(&mut self, name: impl Into<String>, count: u64) {
        *self.0.entry(name.into()).or_default() += count;
    }

    /// Adds another run's counts.
    pub fn merge(&mut self, other: &Self) {
        for (name, count) in &other.0 {
            self.add(name.clone(), *count);
        }
    }

    /// How often something happened.
    #[must_use]
    pub fn count(&self, name: &str) -> u64 {
        self.0.get(name).copied().unwrap_or(0)
    }
}

/// The name under which something that an engine said is counted.
pub(crate) fn event_name(event: &Event) -> &'static str {
    match event {
        Event::PeerUp { .. } => "event: peer up",
        Event::PeerDown { .. } => "event: peer down",
        Event::Captured { .. } => "event: captured",
        Event::Applied { .. } => "event: applied",
        Event::Conflict(_) => "event: conflict",
        Event::ClockSkew { .. } => "event: clock skew",
        Event::Refused { .. } => "event: refused",
        Event::RefusedByPeer { .. } => "event: refused by peer",
        Event::Forked { .. } => "event: forked",
        Event::RolledBack { .. } => "event: rolled back",
        Event::StartedAnew(_) => "event: started anew",
        Event::Diverged { .. } => "event: diverged",
        Event::Copied { .. } => "event: copied identity",
        Event::Repairing { .. } => "event: repairing",
        Event::SnapshotRefused { .. } => "event: snapshot refused",
        Event::Snapshot { done: true, .. } => "event: snapshot taken",
        Event::Problem(problem) if problem.kind == ProblemKind::NotResolved => "event: not resolved",
        Event::Problem(_) => "event: problem",
        _ => "event: other",
    }
}

impl fmt::Display for Coverage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, count) in &self.0 {
            writeln!(f, "{count:>12}  {name}")?;
        }
        Ok(())
    }
}
