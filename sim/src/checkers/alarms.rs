//! The engine's own alarms: among honest members nothing is ever refused as bad, forked or diverged, and no link ends
//! for a breach of the protocol.

use entgldb_replica::event::Event;

use super::{Checker, Verdict};
use crate::options::Fault;
use crate::seen::Setting;

/// How the reason of a link's end begins if the peer broke the protocol.
const BREACHES: [&str; 2] = ["protocol violation", "bad message"];

pub(crate) struct Alarms;

impl Checker for Alarms {
    fn name(&self) -> &'static str {
        "alarms"
    }

    fn told(&mut self, setting: &Setting, node: usize, event: &Event) -> Verdict {
        let faults = &setting.options.faults;
        let forks = [Fault::Restore, Fault::Clone, Fault::Fork, Fault::PowerCut];
        let forks = forks.iter().any(|fault| faults.contains_key(fault));
        let lies = setting.options.has_liar();
        let alarm = match event {
            // Who lies may say anything of itself.
            Event::Diverged { .. } => !lies,
            Event::Refused { .. } | Event::RefusedByPeer { .. } | Event::Forked { .. } => !lies && !forks,
            Event::StartedAnew(_) => !forks && !faults.contains_key(&Fault::Wipe),
            Event::Copied { .. } => !faults.contains_key(&Fault::Clone),
            // Nothing that an honest node holds may look like a breach of the protocol to another one.
            Event::PeerDown { reason, .. } => {
                !lies && BREACHES.iter().any(|breach| reason.starts_with(breach))
            }
            // A lie is not enough to make a node believe that it was rolled back.
            Event::RolledBack { .. } => !forks,
            _ => false,
        };
        if alarm { Err(format!("node {node} says {event:?}")) } else { Ok(()) }
    }
}
