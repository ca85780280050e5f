//! One checker for each invariant of the design; see the files. Each is proven able to fail in `tests/mutations.rs`.

mod alarms;
mod capture_first;
mod captured_once;
mod causes;
mod chains;
mod claims;
mod end_state;
mod equal_vectors;
mod forgetting;
mod forks;
mod interests;
mod limits;
mod no_echo;
mod quiet;
mod refusals;
mod resurrection;
mod rows_rise;
mod stamps_rise;
mod units;

use entgldb_replica::event::Event;

use crate::disk::Disk;
use crate::oracle::Oracle;
use crate::seen::{Committed, Ending, Sent, Setting};

/// What a checker says: nothing, or what is wrong.
pub(crate) type Verdict = Result<(), String>;

/// Something that must always hold.
pub(crate) trait Checker {
    /// Its name, as reports print it.
    fn name(&self) -> &'static str;

    /// Something became durable on a node.
    fn committed(&mut self, _: &Setting, _: &Oracle, _node: usize, _: &Committed) -> Verdict {
        Ok(())
    }

    /// A node sends a message.
    fn sent(&mut self, _: &Setting, _: &Sent<'_>) -> Verdict {
        Ok(())
    }

    /// A node tells something to its caller.
    fn told(&mut self, _: &Setting, _node: usize, _: &Event) -> Verdict {
        Ok(())
    }

    /// A node's disk is another one from now on: empty, or an older state.
    fn replaced(&mut self, _node: usize, _: &Disk) {}

    /// It is over: all is healed and has come to rest.
    fn ended(&mut self, _: &Setting, _: &Oracle, _: &Ending<'_>) -> Verdict {
        Ok(())
    }
}

/// An invariant that did not hold.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("[{checker}] {detail} (at {at_ms} ms)")]
pub struct Violation {
    /// Which one.
    pub checker: &'static str,
    /// What was seen.
    pub detail: String,
    /// When, in simulated milliseconds.
    pub at_ms: u64,
}

/// All checkers and the oracle.
pub(crate) struct Checks {
    oracle: Oracle,
    checkers: Vec<Box<dyn Checker>>,
}

impl Checks {
    pub(crate) fn new(nodes: usize) -> Self {
        // Where two would see the same fault, the one that names it best comes first.
        let checkers: Vec<Box<dyn Checker>> = vec![
            Box::new(alarms::Alarms),
            Box::new(chains::Chains),
            Box::new(stamps_rise::StampsRise::new(nodes)),
            Box::new(causes::Causes),
            Box::new(captured_once::CapturedOnce),
            Box::new(no_echo::NoEcho),
            Box::new(capture_first::CaptureFirst),
            Box::new(resurrection::Resurrection::new(nodes)),
            Box::new(rows_rise::RowsRise),
            Box::new(equal_vectors::EqualVectors::new(nodes)),
            Box::new(units::Units::default()),
            Box::new(forgetting::Forgetting::new(nodes)),
            Box::new(interests::Interests::default()),
            Box::new(claims::Claims::default()),
            Box::new(limits::Limits::default()),
            Box::new(refusals::Refusals::default()),
            Box::new(end_state::EndState),
            Box::new(forks::Forks::default()),
            Box::new(quiet::Quiet),
        ];
        Self { oracle: Oracle::default(), checkers }
    }

    pub(crate) fn oracle_view(&self) -> &Oracle {
        &self.oracle
    }

    pub(crate) fn oracle(&mut self) -> &mut Oracle {
        &mut self.oracle
    }

    pub(crate) fn committed(&mut self, setting: &Setting, node: usize, seen: &Committed) -> Found {
        let oracle = &self.oracle;
        let found = first(&mut self.checkers, |checker| checker.committed(setting, oracle, node, seen));
        self.oracle.note(seen);
        if setting.members[node].passing {
            self.oracle.note_passing(seen);
        }
        found
    }

    pub(crate) fn sent(&mut self, setting: &Setting, sent: &Sent<'_>) -> Found {
        first(&mut self.checkers, |checker| checker.sent(setting, sent))
    }

    pub(crate) fn told(&mut self, setting: &Setting, node: usize, event: &Event) -> Found {
        first(&mut self.checkers, |checker| checker.told(setting, node, event))
    }

    pub(crate) fn replaced(&mut self, node: usize, disk: &Disk) {
        self.checkers.iter_mut().for_each(|checker| checker.replaced(node, disk));
    }

    pub(crate) fn ended(&mut self, setting: &Setting, ending: &Ending<'_>) -> Found {
        let oracle = &self.oracle;
        first(&mut self.checkers, |checker| checker.ended(setting, oracle, ending))
    }
}

/// A checker's name and what it saw.
pub(crate) type Found = Result<(), (&'static str, String)>;

fn first(checkers: &mut [Box<dyn Checker>], mut ask: impl FnMut(&mut dyn Checker) -> Verdict) -> Found {
    for checker in checkers {
        ask(checker.as_mut()).map_err(|detail| (checker.name(), detail))?;
    }
    Ok(())
}

/// `Err` with the text unless the condition holds.
pub(crate) fn ensure(condition: bool, detail: impl FnOnce() -> String) -> Verdict {
    if condition { Ok(()) } else { Err(detail()) }
}
