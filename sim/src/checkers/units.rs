//! A unit stays whole: a node takes all of its entries in one commit or none, if all nodes want the same collections.

use std::collections::BTreeMap;

use entgldb_replica::clock::Hlc;
use entgldb_replica::store::Guard;

use super::{Checker, Verdict, ensure};
use crate::options::Fault;
use crate::oracle::{Oracle, UnitId};
use crate::seen::{Committed, Setting};

#[derive(Default)]
pub(crate) struct Units {
    /// Up to here a part of a unit may come in a snapshot, which is of one collection, or is forgotten.
    in_parts: Hlc,
}

impl Checker for Units {
    fn name(&self) -> &'static str {
        "units stay whole"
    }

    fn committed(&mut self, setting: &Setting, oracle: &Oracle, node: usize, seen: &Committed) -> Verdict {
        let adopted = seen.commit.adopted.iter().map(|(_, signed)| signed.hlc);
        self.in_parts = adopted.chain(seen.floor_times.values().copied()).fold(self.in_parts, Hlc::max);
        // Who lies may leave a part out, and so does a peer that syncs less for a while.
        let is_apart = |fault| setting.options.faults.contains_key(&fault);
        let lies = is_apart(Fault::Tamper) || is_apart(Fault::Interests);
        if seen.commit.guard == Guard::None || lies || !setting.is_uniform() {
            return Ok(());
        }
        let mut found: BTreeMap<UnitId, usize> = BTreeMap::new();
        for run in &seen.commit.appended {
            for linked in &run.entries {
                let unit = (run.log.author, run.log.incarnation, linked.entry().hlc);
                *found.entry(unit).or_default() += 1;
            }
        }
        for (unit, count) in found {
            // A fork stops one log of several: what its author wrote at once can't stay together then.
            if oracle.is_doubtful(unit.0, unit.1) || unit.2 <= self.in_parts {
                continue;
            }
            let whole = oracle.unit(&unit);
            ensure(whole == Some(count), || {
                format!("node {node} takes {count} entries of the unit {unit:?}, which has {whole:?}")
            })?;
        }
        Ok(())
    }
}
