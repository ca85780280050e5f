//! What a run is made of, all of it drawn from its seed.
//!
//! Swarm testing (Groce et al., 2012): each run has some kinds of fault at some rates and not the others. A run with all
//! of them at once never gets deep into anything.

use std::collections::BTreeMap;

use entgldb_replica::limits::{FRAME_BYTES_DEFAULT, FRAME_BYTES_HARD, Limits, PAYLOAD_BYTES_DEFAULT};

use crate::mutation::Mutation;
use crate::rng::{PerMillion, Rng};
use crate::writing::Writers;

/// A kind of fault. The name is what coverage and stories print.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
#[non_exhaustive]
pub enum Fault {
    /// A process ends between two steps.
    Crash,
    /// A process ends after a step, with only a part of its outputs carried out.
    CrashAfterStep,
    /// A process ends and takes with it what it had not synced (durability `normal`).
    PowerCut,
    /// A node comes back with its key and an empty store.
    Wipe,
    /// A commit fails and changed nothing.
    CommitFails,
    /// A commit fails and changed everything.
    OutcomeUnknown,
    /// A read fails.
    ReadFails,
    /// The application writes between the engine's look and its commit.
    Ambush,
    /// The application's store reports an applied document as if the application had written it.
    Echo,
    /// The application's schema refuses documents.
    Poison,
    /// A burst of transactions at once.
    Burst,
    /// The engine is not told of a write.
    NoticeLost,
    /// A link breaks, with a part of what is on its way.
    Cut,
    /// A link stands still in one direction.
    Stall,
    /// Nothing gets from some nodes to the others.
    PartitionOneWay,
    /// Two groups of nodes are parted.
    PartitionTwoWay,
    /// One node is parted from all others.
    Isolation,
    /// A second link between two nodes that have one.
    DuplicateLink,
    /// A wall clock steps by up to an hour.
    ClockStep,
    /// A wall clock runs fast or slow.
    ClockDrift,
    /// A wall clock is a month ahead for a while.
    ClockMonth,
    /// Everybody is asked to sync at once.
    SyncNow,
    /// A member alters, forges, invents or garbles what it sends.
    Tamper,
    /// A disk is full for a while: no commit and no write of the application.
    FullDisk,
    /// A node's whole machine is as it was when a backup was taken, and its application writes on at once.
    Restore,
    /// A node's machine is copied, key and all, and both run.
    Clone,
    /// A member signs two branches of its own log.
    Fork,
    /// A member sends as much as it can.
    Flood,
    /// A process ends between two steps of a commit of a store in two parts.
    CrashInCommit,
    /// A member is said to have been removed, whether it has or not.
    RemoveMember,
    /// A node syncs less for a while.
    Interests,
    /// A member asks for pieces of snapshots without end.
    PullFlood,
    /// A member gives snapshots a row at a time.
    SlowSnapshot,
}

/// All kinds.
pub const FAULTS: [Fault; 33] = [
    Fault::Crash,
    Fault::CrashAfterStep,
    Fault::PowerCut,
    Fault::Wipe,
    Fault::CommitFails,
    Fault::OutcomeUnknown,
    Fault::ReadFails,
    Fault::Ambush,
    Fault::Echo,
    Fault::Poison,
    Fault::Burst,
    Fault::NoticeLost,
    Fault::Cut,
    Fault::Stall,
    Fault::PartitionOneWay,
    Fault::PartitionTwoWay,
    Fault::Isolation,
    Fault::DuplicateLink,
    Fault::ClockStep,
    Fault::ClockDrift,
    Fault::ClockMonth,
    Fault::SyncNow,
    Fault::Tamper,
    Fault::FullDisk,
    Fault::Restore,
    Fault::Clone,
    Fault::Fork,
    Fault::Flood,
    Fault::CrashInCommit,
    Fault::RemoveMember,
    Fault::Interests,
    Fault::PullFlood,
    Fault::SlowSnapshot,
];
/// Those of one member, the first node, that means harm.
pub(crate) const LIES: [Fault; 5] =
    [Fault::Tamper, Fault::Fork, Fault::Flood, Fault::PullFlood, Fault::SlowSnapshot];

/// How often a fault happens.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Rate {
    /// Scheduled, with this mean time between two, in milliseconds.
    EveryMs(u64),
    /// Drawn at each occasion.
    Chance(PerMillion),
}

impl Fault {
    /// A rate at which it does harm and leaves time to do something else.
    fn draw(self, rng: &mut Rng) -> Rate {
        let every = |rng: &mut Rng, low, high| Rate::EveryMs(rng.between(low, high));
        let chance = |rng: &mut Rng, high: u64| {
            // Small chances are as interesting as large ones: draw the magnitude first.
            let high = high >> rng.below(6);
            Rate::Chance(PerMillion(u32::try_from(rng.between(high / 2 + 1, high + 1)).unwrap_or(u32::MAX)))
        };
        match self {
            Self::Crash | Self::Cut | Self::Stall | Self::DuplicateLink => every(rng, 1_000, 40_000),
            Self::PartitionOneWay | Self::PartitionTwoWay | Self::Isolation => every(rng, 5_000, 60_000),
            Self::Wipe | Self::PowerCut => every(rng, 20_000, 120_000),
            Self::Restore | Self::FullDisk | Self::Clone => every(rng, 10_000, 60_000),
            Self::ClockStep | Self::ClockDrift | Self::Burst | Self::SyncNow => every(rng, 3_000, 60_000),
            Self::RemoveMember | Self::Interests => every(rng, 5_000, 60_000),
            Self::ClockMonth => every(rng, 30_000, 120_000),
            Self::CrashAfterStep | Self::ReadFails => chance(rng, 8_000),
            Self::CrashInCommit => chance(rng, 20_000),
            Self::Flood | Self::PullFlood => chance(rng, 50_000),
            Self::SlowSnapshot => chance(rng, 1_000_000),
            Self::CommitFails | Self::OutcomeUnknown => chance(rng, 60_000),
            Self::Ambush | Self::Echo => chance(rng, 400_000),
            Self::Poison | Self::NoticeLost => chance(rng, 500_000),
            Self::Tamper | Self::Fork => chance(rng, 300_000),
        }
    }
}

/// Who may dial whom.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Topology {
    /// Everybody with everybody.
    Mesh,
    /// Each with the next, and the last with the first.
    Ring,
    /// Each with the next.
    Line,
    /// All with the first.
    Star,
}

/// Who of two neighbours has the other as a target.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Dialling {
    /// The one with the smaller number.
    OneSide,
    /// Both.
    BothSides,
    /// The one with the smaller number, under two names for the same node.
    TwoNames,
}

/// What the applications do.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Load {
    /// Mean time between two transactions on one node, in milliseconds.
    pub write_every_ms: u64,
    /// Most documents in a transaction.
    pub transaction_documents: u64,
    /// Keys in each collection: few make conflicts.
    pub keys: u64,
    /// Largest document, in bytes.
    pub document_bytes: u64,
    /// Chance that a change is a delete.
    pub delete: PerMillion,
    /// Chance that a write has the same content as others everywhere.
    pub same: PerMillion,
    /// Longest time until the engine learns of a write, in milliseconds.
    pub notice_ms: u64,
    /// Most changes that the store puts into one unit.
    pub unit_changes: usize,
    /// Whether applications write while their engine is off.
    pub offline: bool,
    /// Stop after so many transactions on each node.
    pub transactions_max: u64,
}

/// Everything that a run is made of.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Options {
    /// The seed of all streams.
    pub seed: u64,
    /// Nodes.
    pub nodes: usize,
    /// Collections.
    pub collections: usize,
    /// Whether all nodes are interested in all collections.
    pub uniform: bool,
    /// Who may dial whom.
    pub topology: Topology,
    /// Who has whom as a target.
    pub dialling: Dialling,
    /// Time with faults, in milliseconds.
    pub safety_ms: u64,
    /// What the applications do.
    pub load: Load,
    /// See [`entgldb_replica::Config::max_skew_ms`].
    pub max_skew_ms: u64,
    /// See [`entgldb_replica::Config::sync_interval_ms`].
    pub sync_interval_ms: u64,
    /// See [`entgldb_replica::Config::payload_bytes_max`].
    pub payload_bytes_max: usize,
    /// See [`entgldb_replica::Config::frame_bytes_max`].
    pub frame_bytes_max: usize,
    /// Whether each node has limits of its own, many of them the least that there are.
    pub small: bool,
    /// Longest latency of a link, in milliseconds.
    pub latency_ms: u64,
    /// Longest time that a step takes, in milliseconds.
    pub step_ms: u64,
    /// Longest time until a process that ended is started again, in milliseconds.
    pub restart_ms: u64,
    /// Longest silence until a broken link is noticed, in milliseconds.
    pub silence_ms: u64,
    /// Resolution of the wall clocks, in milliseconds.
    pub clock_grain_ms: u64,
    /// Which faults happen and how often.
    pub faults: BTreeMap<Fault, Rate>,
    /// Whether stores are in two parts: an oplog that is durable first, and the application's store with the rows after it.
    pub split_stores: bool,
    /// Which nodes write documents so that they merge.
    pub merging: Writers,
    /// Which nodes write documents so that a resolver decides on them: some with one that does as nodes without one, all with
    /// one that does anything.
    pub resolving: Writers,
    /// Whether a node's mark of its oplog outlives what happens to its store.
    pub keeps_mark: bool,
    /// How long history is kept; `None` for ever.
    pub retention_ms: Option<u64>,
    /// What is broken on purpose.
    pub mutation: Mutation,
}

impl Options {
    /// Draws a run from its seed.
    #[must_use]
    pub fn from_seed(seed: u64) -> Self {
        let rng = &mut Rng::of(seed, "options", 0);
        let nodes = rng.between(2, 7);
        let load = Load {
            write_every_ms: *rng.pick(&[300, 1_000, 2_000, 4_000, 8_000, 20_000]),
            transaction_documents: *rng.pick(&[1, 2, 4, 20]),
            keys: *rng.pick(&[1, 3, 12, 100, 1_000]),
            document_bytes: *rng.pick(&[16, 200, 200, 4_000, 60_000]),
            delete: PerMillion(*rng.pick(&[0, 100_000, 500_000])),
            same: PerMillion(*rng.pick(&[0, 50_000, 600_000])),
            notice_ms: *rng.pick(&[0, 5, 250, 3_000]),
            unit_changes: *rng.pick(&[1, 5, 100, 4_096]),
            offline: rng.coin(),
            // Long enough for history to grow, short enough for many seeds.
            transactions_max: Rng::of(seed, "transactions", 0).between(20, 150),
        };
        let mut options = Self {
            seed,
            nodes: usize::try_from(nodes).expect("a few"),
            collections: rng.index(4) + 1,
            uniform: rng.below(3) > 0,
            topology: *rng.pick(&[Topology::Mesh, Topology::Ring, Topology::Line, Topology::Star]),
            dialling: *rng.pick(&[Dialling::OneSide, Dialling::BothSides, Dialling::BothSides]),
            safety_ms: rng.between(20_000, 150_000),
            load: load.clone(),
            max_skew_ms: *rng.pick(&[0, 500, 20_000, 300_000, 300_000]),
            sync_interval_ms: *rng.pick(&[100, 500, 2_000, 2_000, 10_000]),
            payload_bytes_max: *rng.pick(&[PAYLOAD_BYTES_DEFAULT, 64 << 10]),
            frame_bytes_max: draw_frame(seed, &load, false),
            small: Rng::of(seed, "small", 0).below(2) == 0,
            latency_ms: *rng.pick(&[0, 2, 50, 400, 3_000]),
            step_ms: *rng.pick(&[0, 0, 1, 20]),
            restart_ms: *rng.pick(&[0, 500, 5_000, 30_000]),
            silence_ms: *rng.pick(&[1_000, 10_000, 90_000]),
            clock_grain_ms: *rng.pick(&[1, 1, 16, 1_000]),
            faults: draw_faults(rng, seed),
            split_stores: Rng::of(seed, "split", 0).below(2) == 0,
            merging: Writers::None,
            resolving: Writers::None,
            keeps_mark: Rng::of(seed, "mark", 0).coin(),
            retention_ms: *Rng::of(seed, "retention", 0).pick(&[None, Some(0), Some(5_000), Some(30_000)]),
            mutation: Mutation::None,
        };
        options.merging = Writers::draw(seed, "merging", &options.faults);
        if options.merging == Writers::None {
            options.resolving = Writers::draw(seed, "resolving", &options.faults);
        }
        if options.has_states() {
            options.frame_bytes_max = draw_frame(seed, &load, true);
        }
        if options.resolving != Writers::None {
            // A row comes with all its versions in one frame.
            let document = usize::try_from(options.load.document_bytes).unwrap_or(usize::MAX >> 8);
            let versions = options.nodes * (2 * document + (2 << 10));
            options.frame_bytes_max = options.frame_bytes_max.max(versions).min(FRAME_BYTES_HARD);
        }
        if options.has_small_pages() {
            // A history of a thousand pages over a line to the moon teaches nothing and takes an hour.
            options.latency_ms = options.latency_ms.min(50);
        }
        options
    }

    /// A run of this seed in which nothing goes wrong by itself.
    #[must_use]
    pub fn calm(seed: u64) -> Self {
        Self { faults: BTreeMap::new(), ..Self::from_seed(seed) }
    }

    /// The same with one more fault.
    #[must_use]
    pub fn with(mut self, fault: Fault, rate: Rate) -> Self {
        self.faults.insert(fault, rate);
        self
    }

    /// The same with something broken on purpose.
    #[must_use]
    pub fn broken(mut self, mutation: Mutation) -> Self {
        self.mutation = mutation;
        self
    }

    /// Whether a page may be as small as one entry.
    pub(crate) fn has_small_pages(&self) -> bool {
        self.small || self.frame_bytes_max < SMALL_FRAME
    }

    /// Whether a node is a clone, and of which other: the last one, if there is a choice.
    #[must_use]
    pub fn clone_of(&self, node: usize) -> Option<usize> {
        if !self.faults.contains_key(&Fault::Clone) || self.nodes < 3 || node + 1 != self.nodes {
            return None;
        }
        // Not a neighbour in a line, not the middle of a star, and not a member that lies.
        let original = if self.topology == Topology::Star { 1 } else { self.nodes - 3 };
        (original > 0 || !self.has_liar()).then_some(original)
    }

    /// Whether the first node is a member that lies.
    #[must_use]
    pub fn has_liar(&self) -> bool {
        LIES.iter().any(|fault| self.faults.contains_key(fault))
    }

    /// What one node's engine makes and sends at most.
    #[must_use]
    pub fn limits(&self, node: usize) -> Limits {
        let defaults = Limits::default();
        if !self.small {
            return defaults;
        }
        let rng = &mut Rng::of(self.seed, "limits", node as u64);
        Limits {
            unit_changes: *rng.pick(&[1, 3, 50, defaults.unit_changes]),
            unit_bytes: *rng.pick(&[1, 500, 20_000, defaults.unit_bytes]),
            unit_gap_ms: *rng.pick(&[0, 1_000, 1_000, 60_000]),
            page_entries: *rng.pick(&[1, 2, 10, 100, defaults.page_entries]),
            page_bytes: *rng.pick(&[1, 300, 5_000, defaults.page_bytes]),
            pages_in_flight: *rng.pick(&[1, 2, defaults.pages_in_flight]),
            vector_logs: *rng.pick(&[1, 2, defaults.vector_logs]),
            push_links: *rng.pick(&[1, 2, 3, defaults.push_links]),
            catch_up_entries: *rng.pick(&[1, 20, 200, defaults.catch_up_entries]),
            snapshot_entries: *rng.pick(&[1, 20, 100, defaults.snapshot_entries]),
        }
    }

    /// Whether documents have states beside their rows.
    #[must_use]
    pub fn has_states(&self) -> bool {
        self.merging != Writers::None || self.resolving != Writers::None
    }

    /// Whether a node writes documents so that they merge.
    #[must_use]
    pub fn merges(&self, node: usize) -> bool {
        match self.merging {
            Writers::None => false,
            Writers::Some => node.is_multiple_of(2),
            Writers::All => true,
        }
    }

    /// The chance of a fault at one occasion.
    pub(crate) fn chance(&self, fault: Fault) -> PerMillion {
        match self.faults.get(&fault) {
            Some(Rate::Chance(chance)) => *chance,
            _ => PerMillion(0),
        }
    }
}

/// A frame of fewer bytes makes small pages.
const SMALL_FRAME: usize = 64 << 10;

/// A frame limit that holds the largest transaction that an application makes: what does not fit is never sent.
fn draw_frame(seed: u64, load: &Load, merging: bool) -> usize {
    let drawn =
        *Rng::of(seed, "frame", 0).pick(&[1 << 10, 4 << 10, 64 << 10, FRAME_BYTES_DEFAULT, FRAME_BYTES_HARD]);
    let content = load.document_bytes.max(60);
    // An edit may be that much larger than the document that it leaves.
    let content = if merging { 2 * content + 2_048 } else { content };
    let document = 160 + content;
    let runs = 4.min(load.transaction_documents);
    let transaction = 400 + runs * 270 + load.transaction_documents * document;
    drawn.max(usize::try_from(transaction).expect("a few megabytes"))
}

fn draw_faults(rng: &mut Rng, seed: u64) -> BTreeMap<Fault, Rate> {
    // One run in sixteen has no fault at all: what fails there is easy to understand.
    let none = rng.below(16) == 0;
    let mut faults = BTreeMap::new();
    for fault in FAULTS {
        // A stream of its own for each, so that a new kind of fault leaves the old seeds as they were.
        let own = &mut Rng::of(seed, "fault", fault as u64);
        if own.below(3) == 0 && !none {
            faults.insert(fault, fault.draw(own));
        }
    }
    faults
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_fault_is_drawn_by_some_seed_and_none_by_all() {
        let runs: Vec<Options> = (0..200).map(Options::from_seed).collect();
        for fault in FAULTS {
            let with = runs.iter().filter(|run| run.faults.contains_key(&fault)).count();
            assert!((20..150).contains(&with), "{fault:?} in {with} of 200");
        }
        assert!(runs.iter().any(|run| run.faults.is_empty()));
    }

    #[test]
    fn the_same_seed_draws_the_same_run() {
        assert_eq!(Options::from_seed(7), Options::from_seed(7));
        assert_ne!(Options::from_seed(7), Options::from_seed(8));
    }
}
