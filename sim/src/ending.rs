//! The end of a run: all faults end, everybody comes back, and within a bound of simulated time all is equal and quiet.

use entgldb_replica::Input;
use entgldb_replica::clock::{Hlc, WallMillis};
use entgldb_replica::limits::{
    ACK_MS, BAD_LOG_RETRY_MS, DIAL_BACKOFF_MAX_MS, DROP_AFTER_MS, PAGE_BYTES_TARGET,
};

use std::collections::BTreeSet;

use bytes::Bytes;
use entgldb_replica::id::{Collection, DocId, Key, LogId};
use entgldb_replica::member::members;

use crate::mutation::Mutation;
use crate::options::Fault;
use crate::seen::Ending;
use crate::world::{Event, Stop, World};

fn last_word(collection: Collection, node: usize) -> (DocId, Bytes) {
    let key = Key::new(&format!("last word of {node}")).expect("a short key");
    ((collection, key), Bytes::from_static(b"{\"last\":true}"))
}

/// What counts frames and dials while all should be quiet.
#[derive(Default)]
pub(crate) struct Rest {
    pub(crate) counting: bool,
    pub(crate) frames: Vec<u64>,
    pub(crate) dials: u64,
}

/// How often it is looked whether all is equal.
const LOOK_MS: u64 = 1_000;
/// Time for dials and flows to come to rest.
const SETTLE_MS: u64 = 2 * DIAL_BACKOFF_MAX_MS;
/// How long rows of a snapshot may wait for their history, and how often a snapshot is asked for.
const DEBT_MS: u64 = 60_000;
const SNAPSHOT_MS: u64 = 40_000;
/// How long it must be quiet.
const QUIET_MS: u64 = 30_000;

impl World {
    /// The whole run.
    pub(crate) fn run(&mut self) -> Result<(), Stop> {
        let end = self.now.plus(self.options.safety_ms);
        self.run_until(end)?;
        self.heal()?;
        let begun = self.now;
        self.converge()?;
        self.coverage.add("simulated milliseconds from healing to convergence", self.now.0 - begun.0);
        self.run_until(self.now.plus(SETTLE_MS + self.copied_ms()))?;
        self.rest.counting = true;
        self.run_until(self.now.plus(QUIET_MS))?;
        self.rest.counting = false;
        // Only now: who has lost something learns of it when it meets those who remember, and may fork before.
        self.last_words()?;
        self.converge()?;
        self.redeliver()?;
        self.finish()
    }

    /// Waits until all is equal, but not for ever.
    fn converge(&mut self) -> Result<(), Stop> {
        let bound = self.now.plus(self.bound_ms());
        while !self.is_level() {
            if self.now >= bound {
                let detail = self.describe_difference();
                return self.found(Err(("13 converges", detail)));
            }
            self.run_until(self.now.plus(LOOK_MS))?;
        }
        Ok(())
    }

    /// Everybody writes once more, in every collection: whatever has happened, each must be heard by all.
    fn last_words(&mut self) -> Result<(), Stop> {
        for node in 0..self.nodes.len() {
            if self.nodes[node].absent {
                continue;
            }
            let wall = self.clocks(node).wall;
            let mut inner = self.nodes[node].store.inner();
            let transaction = inner.application.next_transaction();
            for collection in &self.setting.members[node].interests {
                let (doc, content) = last_word(collection.clone(), node);
                inner.disk.write(transaction, doc, Some(content), wall);
            }
            drop(inner);
            self.last_words_said = true;
            self.input(node, Input::LocalChange)?;
        }
        Ok(())
    }

    /// A member that has not heard another's last word in a collection that they share.
    fn unheard(&self, disks: &[std::cell::Ref<'_, crate::disk::Disk>]) -> Option<String> {
        for collection in self.setting.collections() {
            for component in self.setting.components(&collection) {
                let pairs = component.iter().flat_map(|a| component.iter().map(move |b| (*a, *b)));
                for (speaker, hearer) in pairs {
                    let (doc, content) = last_word(collection.clone(), speaker);
                    let heard = disks[hearer].docs.get(&doc) == Some(&content);
                    if !heard && !self.is_unaware_of_fork(disks, speaker, &collection) {
                        return Some(format!("node {hearer} has not heard {doc:?} of node {speaker}"));
                    }
                }
            }
        }
        None
    }

    /// Whether a node writes in a log that forked, and no neighbour holds the other branch to show it. Members further away
    /// can't tell it yet.
    fn is_unaware_of_fork(
        &self,
        disks: &[std::cell::Ref<'_, crate::disk::Disk>],
        node: usize,
        collection: &Collection,
    ) -> bool {
        let Some((author, incarnation)) = disks[node].owner else { return false };
        let log = LogId { author, incarnation, collection: collection.clone() };
        let Some(fork) = self.checks.oracle_view().fork_of(&log) else { return false };
        let own = disks[node].hash_at(&log, fork);
        let edges = self.setting.edges.iter().filter(|(a, b)| *a == node || *b == node);
        let mut neighbours = edges.map(|(a, b)| if *a == node { *b } else { *a });
        neighbours.all(|other| {
            let shown = disks[other].hash_at(&log, fork);
            shown.is_none() || shown == own
        })
    }

    /// How much longer a node may not be let in that had a clone.
    fn copied_ms(&self) -> u64 {
        if self.options.faults.contains_key(&Fault::Clone) { SETTLE_MS } else { 0 }
    }

    /// The longest that healing may take: every wait that a fault may have left behind, one after the other.
    fn bound_ms(&self) -> u64 {
        let options = &self.options;
        let waits = self.copied_ms()
            + ACK_MS
            + BAD_LOG_RETRY_MS
            + 2 * DIAL_BACKOFF_MAX_MS
            + DROP_AFTER_MS
            + options.silence_ms;
        let hops = options.nodes as u64;
        let entries: usize = self.nodes.iter().map(|node| node.store.disk().entries()).max().unwrap_or(0);
        // The least pages hold one entry, and the least that may be on their way is one page.
        let pages = if options.has_small_pages() { entries as u64 } else { 0 };
        // Large documents fill a frame with a few; each is asked for by itself.
        let bytes_of = |disk: &crate::disk::Disk| disk.docs.values().map(bytes::Bytes::len).sum::<usize>();
        let bytes = self.nodes.iter().map(|node| bytes_of(&node.store.disk())).max().unwrap_or(0);
        let chunks = (3 * bytes / options.frame_bytes_max.min(PAGE_BYTES_TARGET)) as u64;
        let there_and_back = 2 * options.latency_ms + 2 * options.step_ms + 2;
        let travel = hops * (8 * options.sync_interval_ms + 20 * options.latency_ms) + pages * there_and_back;
        // Then rows may be found to differ, and each neighbour's are joined.
        let rows = DEBT_MS
            + hops * (2 * SNAPSHOT_MS + 8 * options.sync_interval_ms)
            + (pages + hops * chunks) * there_and_back;
        waits + options.restart_ms + travel + rows
    }

    fn heal(&mut self) -> Result<(), Stop> {
        self.trace.tell(self.now, || "all faults end".to_owned());
        self.stormy = false;
        self.network.heal(self.now);
        if self.options.mutation == Mutation::NeverHealed {
            self.part_first_edge();
        }
        if self.options.mutation == Mutation::DocumentForgotten {
            let mut inner = self.nodes[0].store.inner();
            let waiting: BTreeSet<DocId> = inner.disk.outbox.iter().map(|item| item.doc.clone()).collect();
            let found = inner.disk.docs.keys().find(|doc| !waiting.contains(*doc)).cloned();
            found.map(|doc| inner.disk.docs.remove(&doc));
        }
        self.schedule_pumps();
        let latest = self.nodes.iter().map(|node| node.store.disk().latest).max().unwrap_or_default();
        for node in 0..self.nodes.len() {
            // What a liar has said of itself holds as long as its links do: it becomes honest by starting anew.
            if self.nodes[node].liar.take().is_some() {
                self.stop(node, false);
            }
            let mut inner = self.nodes[node].store.inner();
            inner.armed = false;
            inner.full = false;
            inner.paused = true;
            drop(inner);
            self.heal_clock(node, latest);
            if self.options.clone_of(node).is_some() {
                self.retire(node);
                continue;
            }
            if self.nodes[node].replica.is_none() {
                self.schedule(0, Event::Start { node });
            }
            self.input(node, Input::LocalChange)?;
        }
        Ok(())
    }

    /// Nothing passes between the first two neighbours.
    pub(crate) fn part_first_edge(&mut self) {
        let (a, b) = self.setting.edges[0];
        self.network.block(&[(a, b), (b, a)]);
    }

    /// Clocks are right, or as late as the latest stamp: the time that wrong clocks claimed has come.
    fn heal_clock(&mut self, node: usize, latest: Hlc) {
        let broken = self.options.mutation == Mutation::ClockNotHealed;
        let least = if broken { WallMillis(0) } else { latest.wall() };
        if !(broken && node == 0) {
            self.nodes[node].clock.heal(self.now, least);
        }
    }

    /// Whether all that must become equal is equal, and nothing waits.
    fn is_level(&self) -> bool {
        let up = self.nodes.iter().all(|node| node.replica.is_some() || node.absent);
        let disks: Vec<_> = self.nodes.iter().map(|node| node.store.disk()).collect();
        let present = disks.iter().zip(&self.nodes).filter(|(_, node)| !node.absent);
        let captured = present.map(|(disk, _)| disk).all(|d| d.outbox.is_empty() && d.aside.is_empty());
        let heard = !self.last_words_said || self.unheard(&disks).is_none();
        up && captured && heard && self.difference(&disks).is_none()
    }

    /// Two nodes that hold different entries of a collection which should be equal by the end.
    fn difference(&self, disks: &[std::cell::Ref<'_, crate::disk::Disk>]) -> Option<String> {
        for collection in self.setting.collections().into_iter().chain([members().clone()]) {
            for component in self.setting.components(&collection) {
                let first = component[0];
                for node in &component[1..] {
                    let (ours, theirs) = (disks[first].logs(), disks[*node].logs());
                    let mut logs = ours.iter().chain(&theirs).filter(|log| log.collection == collection);
                    let differs = logs.find(|log| {
                        let (ours, theirs) = (disks[first].head(log).0, disks[*node].head(log).0);
                        // Beyond a fork each goes its way; up to there all have all.
                        let fork = self.checks.oracle_view().fork_of(log);
                        let apart = fork.is_some_and(|fork| ours.seq.min(theirs.seq).next() >= fork);
                        ours != theirs && !apart
                    });
                    if let Some(log) = differs {
                        let (ours, theirs) = (disks[first].head(log).0, disks[*node].head(log).0);
                        return Some(format!("{log}: node {first} has {ours:?}, node {node} has {theirs:?}"));
                    }
                    let rows_of = |node: usize| {
                        let rows = disks[node].rows.iter();
                        rows.filter(|((name, _), _)| *name == collection)
                    };
                    if !rows_of(first).eq(rows_of(*node)) {
                        return Some(format!("{collection}: nodes {first} and {node} have other rows"));
                    }
                }
            }
        }
        None
    }

    fn describe_difference(&self) -> String {
        let disks: Vec<_> = self.nodes.iter().map(|node| node.store.disk()).collect();
        let waiting: Vec<usize> = disks.iter().map(|disk| disk.outbox.len()).collect();
        let difference = self.difference(&disks).or_else(|| self.unheard(&disks));
        let difference = difference.unwrap_or_else(|| "nothing differs".to_owned());
        let up: Vec<bool> = self.nodes.iter().map(|node| node.replica.is_some()).collect();
        let bound = self.bound_ms();
        format!("not equal {bound} ms after healing: {difference}; outboxes {waiting:?}, running {up:?}")
    }

    /// The checks of the end.
    fn finish(&mut self) -> Result<(), Stop> {
        let links = self.network.links(self.nodes.len());
        let disks = self.nodes.iter().map(|node| node.store.disk()).collect();
        let frames = std::mem::take(&mut self.rest.frames);
        let quiet_dials = self.rest.dials;
        let ending = Ending { disks, quiet_frames: &frames, quiet_ms: QUIET_MS, links, quiet_dials };
        let found = self.checks.ended(&self.setting, &ending);
        drop(ending);
        self.found(found)
    }
}
