//! The engine's own alarms: among honest members nothing is ever refused as bad, forked or diverged.

use entgldb_replica::event::Event;

use super::{Checker, Verdict};
use crate::options::Fault;
use crate::seen::Setting;

pub(crate) struct Alarms;

impl Checker for Alarms {
    fn name(&self) -> &'static str {
        "alarms"
    }

    fn told(&mut self, setting: &Setting, node: usize, event: &Event) -> Verdict {
        let faults = &setting.options.faults;
        let (lies, cuts) = (faults.contains_key(&Fault::Tamper), faults.contains_key(&Fault::PowerCut));
        let alarm = match event {
            // Who lies may say anything of itself.
            Event::Diverged { .. } => !lies,
            Event::Refused { .. } | Event::RefusedByPeer { .. } | Event::Forked { .. } => !lies,
            Event::RolledBack { .. } => !lies && !cuts,
            _ => false,
        };
        if alarm { Err(format!("node {node} says {event:?}")) } else { Ok(()) }
    }
}
