//! A fork is told: where two neighbours end with two branches of one log, somebody was warned of it.

use std::collections::BTreeSet;

use entgldb_replica::event::Event;
use entgldb_replica::id::LogId;

use super::{Checker, Verdict, ensure};
use crate::mutation::Mutation;
use crate::oracle::Oracle;
use crate::seen::{Ending, Setting};

/// Remembers the logs of which an engine said something.
#[derive(Default)]
pub(crate) struct Forks {
    told: BTreeSet<LogId>,
}

impl Checker for Forks {
    fn name(&self) -> &'static str {
        "forks are told"
    }

    fn told(&mut self, setting: &Setting, _: usize, event: &Event) -> Verdict {
        let log = match event {
            _ if setting.options.mutation == Mutation::ForksUntold => None,
            Event::Forked { log, .. } | Event::RolledBack { log, .. } => Some(log),
            Event::Refused { log, .. } | Event::RefusedByPeer { log, .. } => Some(log),
            _ => None,
        };
        self.told.extend(log.cloned());
        Ok(())
    }

    fn ended(&mut self, setting: &Setting, oracle: &Oracle, ending: &Ending<'_>) -> Verdict {
        for (log, fork) in oracle.forked() {
            for (a, b) in &setting.edges {
                let wants = |node: &usize| {
                    let member = &setting.members[*node];
                    !member.passing && member.interests.contains(&log.collection)
                };
                let (ours, theirs) =
                    (ending.disks[*a].hash_at(log, *fork), ending.disks[*b].hash_at(log, *fork));
                // What is forgotten, or came in a snapshot, can't be compared any more.
                let is_kept = |node: &usize| ending.disks[*node].floor(log) < *fork;
                let apart = wants(a)
                    && wants(b)
                    && is_kept(a)
                    && is_kept(b)
                    && ours.is_some()
                    && theirs.is_some()
                    && ours != theirs;
                ensure(!apart || self.told.contains(log), || {
                    format!("nodes {a} and {b} have two branches of {log} from {fork:?}, and nobody said so")
                })?;
            }
        }
        Ok(())
    }
}
