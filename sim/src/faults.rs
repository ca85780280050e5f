//! Faults that strike at their own times. The others strike where they have their occasion: in the store, in the loop.

use std::collections::BTreeSet;

use entgldb_replica::Input;
use entgldb_replica::id::LogId;
use entgldb_replica::version::Seq;

use crate::clock::MONTH_MS;
use crate::disk::Disk;
use crate::mutation::Mutation;
use crate::options::{Fault, Rate};
use crate::rng::Rng;
use crate::world::{Event, Stop, World};

/// Transactions in a burst.
const BURST: u64 = 20;

impl World {
    pub(crate) fn schedule_faults(&mut self) {
        let scheduled: Vec<Fault> = self.options.faults.keys().copied().collect();
        scheduled.into_iter().for_each(|fault| self.schedule_next(fault));
    }

    fn schedule_next(&mut self, fault: Fault) {
        if let Some(Rate::EveryMs(mean)) = self.options.faults.get(&fault).copied() {
            let wait = self.rng(fault).wait(mean);
            self.schedule(wait, Event::Strike(fault));
        }
    }

    fn rng(&mut self, fault: Fault) -> &mut Rng {
        self.rngs.get_mut(&fault).expect("a stream for each fault of the run")
    }

    pub(crate) fn strike(&mut self, fault: Fault) -> Result<(), Stop> {
        if !self.stormy {
            return Ok(());
        }
        self.schedule_next(fault);
        let count = self.nodes.len();
        let node = self.rng(fault).index(count);
        self.trace.mix(self.now, "fault", node, fault as u64);
        let happened = match fault {
            Fault::Crash => self.crash(node),
            Fault::PowerCut => self.stop_syncing(node),
            Fault::Wipe => self.wipe(node),
            Fault::Restore => self.restore(node),
            Fault::Clone => self.clone_machine(),
            Fault::FullDisk => self.fill_disk(node),
            Fault::Cut => self.cut(),
            Fault::Stall => self.stall(),
            Fault::PartitionOneWay | Fault::PartitionTwoWay | Fault::Isolation => self.part(fault, node),
            Fault::DuplicateLink => self.duplicate(node),
            Fault::ClockStep | Fault::ClockDrift | Fault::ClockMonth => self.bend_clock(fault, node),
            Fault::Burst => {
                self.write(node, BURST);
                true
            }
            Fault::RemoveMember => {
                let other = self.rng(fault).index(count);
                let removed = self.setting.members[other].id;
                self.input(node, Input::RemoveMember(removed))?;
                other != node
            }
            Fault::Interests => self.lose_interest(node)?,
            Fault::SyncNow => {
                for node in 0..count {
                    self.input(node, Input::SyncNow)?;
                }
                true
            }
            _ => false,
        };
        if happened {
            self.coverage.add(format!("{fault:?}"), 1);
            self.trace.tell(self.now, || format!("{fault:?} (node {node})"));
        }
        Ok(())
    }

    fn crash(&mut self, node: usize) -> bool {
        let runs = self.nodes[node].replica.is_some();
        self.stop(node, false);
        runs
    }

    /// From now on a disk does not sync, and in a moment the power goes.
    fn stop_syncing(&mut self, node: usize) -> bool {
        let left = Box::new(self.nodes[node].store.disk().clone());
        self.nodes[node].store.inner().synced = Some(left);
        let ms = self.rng(Fault::PowerCut).between(1, 5_000);
        self.schedule(ms, Event::PowerOff { node });
        false
    }

    pub(crate) fn power_cut(&mut self, node: usize) -> bool {
        let before = self.nodes[node].store.disk().clone();
        self.stop(node, true);
        if !self.nodes[node].store.inner().lose_unsynced() {
            return false;
        }
        self.lost(node, &before);
        if !self.nodes[node].store.disk().outbox.is_empty() {
            self.coverage.add("PowerCut over a filled outbox", 1);
        }
        true
    }

    /// From now on a node writes positions that others may know already.
    fn let_fork(&mut self, node: usize) {
        let owner = self.nodes[node].store.disk().owner;
        if let Some(owner) = owner {
            self.checks.oracle().let_fork(owner);
        }
    }

    /// Takes a backup, or goes back to the one there is.
    fn restore(&mut self, node: usize) -> bool {
        if self.nodes[node].absent {
            return false;
        }
        let before = self.nodes[node].store.disk().clone();
        let again = self.rng(Fault::Restore).coin();
        let backup = match &self.nodes[node].backup {
            Some(backup) if again => (**backup).clone(),
            _ => {
                self.nodes[node].backup = Some(Box::new(before));
                return false;
            }
        };
        self.stop(node, false);
        let mut inner = self.nodes[node].store.inner();
        inner.disk = backup;
        inner.synced = None;
        drop(inner);
        self.lost(node, &before);
        // With its mark a node knows at once that its store is an older one.
        if !self.options.keeps_mark {
            self.let_fork(node);
        }
        true
    }

    /// Copies a machine, once.
    fn clone_machine(&mut self) -> bool {
        let clone = self.nodes.len() - 1;
        let Some(original) = self.options.clone_of(clone) else { return false };
        let disk = self.nodes[original].store.disk().clone();
        if !self.nodes[clone].absent || disk.owner.is_none() {
            return false;
        }
        self.nodes[clone].absent = false;
        self.nodes[clone].store.inner().disk = disk;
        let disk = self.nodes[clone].store.disk();
        self.checks.replaced(clone, &disk);
        drop(disk);
        self.let_fork(clone);
        self.schedule(0, Event::Start { node: clone });
        true
    }

    /// A clone is switched off for good.
    pub(crate) fn retire(&mut self, node: usize) {
        let before = self.nodes[node].store.disk().clone();
        self.stop(node, false);
        self.nodes[node].absent = true;
        self.nodes[node].store.inner().disk = Disk::default();
        self.lost(node, &before);
    }

    /// A node syncs less for a while.
    fn lose_interest(&mut self, node: usize) -> Result<bool, Stop> {
        let mut interests = self.nodes[node].config.interests.clone();
        let (count, chance) = (interests.len(), self.rng(Fault::Interests).index(8));
        if count < 2 || self.nodes[node].replica.is_none() {
            return Ok(false);
        }
        let gone = interests.iter().nth(chance % count).cloned();
        interests.retain(|collection| Some(collection) != gone.as_ref());
        let ms = self.rng(Fault::Interests).between(500, 60_000);
        self.schedule(ms, Event::Interested { node });
        self.input(node, Input::Interests(interests))?;
        Ok(true)
    }

    fn fill_disk(&mut self, node: usize) -> bool {
        let ms = self.rng(Fault::FullDisk).between(500, 30_000);
        self.nodes[node].store.inner().full = true;
        self.schedule(ms, Event::Room { node });
        true
    }

    pub(crate) fn wipe(&mut self, node: usize) -> bool {
        let before = self.nodes[node].store.disk().clone();
        self.stop(node, false);
        let mut inner = self.nodes[node].store.inner();
        inner.disk = Disk::default();
        inner.synced = None;
        drop(inner);
        self.lost(node, &before);
        true
    }

    /// Tells the oracle and the checkers that a disk is another one.
    pub(crate) fn lost(&mut self, node: usize, before: &Disk) {
        let mut gone: Vec<(LogId, Seq)> = Vec::new();
        for log in before.logs() {
            // Who got something over a link by chance, from outside of those who must be equal, need not give it back.
            let components = self.setting.components(&log.collection);
            let together = components.iter().find(|component| component.contains(&node));
            let counts = |other: &usize| together.is_some_and(|component| component.contains(other));
            let kept = |seq: Seq| {
                let hash = before.hash_at(log, seq);
                let mut others = (0..self.nodes.len()).filter(counts);
                others.any(|other| self.nodes[other].store.disk().has(log, seq, hash))
            };
            // Who has an entry has all before it, be it by a snapshot.
            let held = (1..=before.head(log).0.seq.0).rev().map(Seq);
            gone.extend(held.take_while(|seq| !kept(*seq)).map(|seq| (log.clone(), seq)));
        }
        self.coverage.add("entries lost with the only machine that had them", gone.len() as u64);
        self.checks.oracle().lose(gone);
        let disk = self.nodes[node].store.disk();
        self.checks.replaced(node, &disk);
    }

    fn cut(&mut self) -> bool {
        let rng = self.rngs.get_mut(&Fault::Cut).expect("a stream for each fault of the run");
        let Some(wire) = self.network.any_wire(rng) else { return false };
        self.network.cut(self.now, wire, "cut");
        self.schedule_pumps();
        true
    }

    fn stall(&mut self) -> bool {
        let rng = self.rngs.get_mut(&Fault::Stall).expect("a stream for each fault of the run");
        let Some(wire) = self.network.any_wire(rng) else { return false };
        let (side, ms) = (rng.index(2), rng.between(100, 40_000));
        let until = self.network.stall(self.now, wire, side, ms);
        self.schedule(until.0 - self.now.0, Event::Kick);
        self.be_patient();
        true
    }

    /// Ends that hear nothing from now on give up after a while.
    fn be_patient(&mut self) {
        let since = self.now;
        let patience = self.options.silence_ms;
        for (wire, side) in self.network.blocked_ends(self.now) {
            self.schedule(patience, Event::Patience { wire, side, since });
        }
    }

    fn part(&mut self, fault: Fault, node: usize) -> bool {
        let count = self.nodes.len();
        let rng = self.rng(fault);
        let group: BTreeSet<usize> = match fault {
            Fault::Isolation => BTreeSet::from([node]),
            _ => (0..count).filter(|_| rng.coin()).collect(),
        };
        let ms = rng.between(500, 60_000);
        let mut directions = Vec::new();
        for a in &group {
            for b in (0..count).filter(|b| !group.contains(b)) {
                directions.push((*a, b));
                if fault != Fault::PartitionOneWay {
                    directions.push((b, *a));
                }
            }
        }
        if directions.is_empty() {
            return false;
        }
        self.network.block(&directions);
        self.be_patient();
        self.schedule(ms, Event::Unblock(directions));
        true
    }

    fn duplicate(&mut self, node: usize) -> bool {
        let count = self.nodes.len();
        let other = (node + 1 + self.rng(Fault::DuplicateLink).index(count - 1)) % count;
        let up = |node: usize| self.nodes[node].replica.is_some();
        let possible = up(node) && up(other) && self.network.is_open(node, other);
        if possible {
            self.connect(node, other, None);
        }
        possible
    }

    fn bend_clock(&mut self, fault: Fault, node: usize) -> bool {
        let now = self.now;
        let rng = self.rng(fault);
        match fault {
            Fault::ClockStep => {
                // From a millisecond to an hour, each magnitude as likely as the others.
                let ms = i64::try_from(rng.between(1, 3_600_000) >> rng.below(20)).expect("an hour");
                let ms = if rng.coin() { ms } else { -ms };
                self.nodes[node].clock.step(ms);
            }
            Fault::ClockDrift => {
                let per_million = i64::try_from(rng.below(200_000)).expect("small") - 100_000;
                self.nodes[node].clock.drift(now, per_million);
            }
            _ => {
                let back = rng.between(500, 30_000);
                self.nodes[node].clock.step(MONTH_MS);
                if self.options.mutation != Mutation::ClockNotHealed {
                    self.schedule(back, Event::ClockBack { node });
                }
            }
        }
        true
    }
}
