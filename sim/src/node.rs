//! One simulated machine: its store, its clock, and the process that may be running on it.

use std::collections::BTreeSet;
use std::rc::Rc;

use entgldb_replica::{Config, Mark, Replica};

use crate::application::Application;
use crate::clock::{Time, WallClock};
use crate::disk::Disk;
use crate::mutation::Mutation;
use crate::options::Fault;
use crate::resolver::resolvers;
use crate::rng::Rng;
use crate::seen::Setting;
use crate::setting::{asked_for, key, targets};
use crate::store::SimStore;
use crate::tamper::Liar;

/// One node and its machine.
pub(crate) struct Node {
    pub(crate) store: SimStore,
    pub(crate) replica: Option<Replica<SimStore>>,
    pub(crate) clock: WallClock,
    pub(crate) config: Config,
    pub(crate) targets: Vec<(String, usize)>,
    /// True time at which the process's monotonic clock showed zero.
    pub(crate) mono_start: Time,
    /// How far its oplog had come when its process ended.
    pub(crate) mark: Option<Mark>,
    /// How often a process was started.
    pub(crate) starts: u64,
    pub(crate) generation: u64,
    /// Whether it lies.
    pub(crate) liar: Option<Liar>,
    /// Whether there is no such machine: not yet, or not any more.
    pub(crate) absent: bool,
    /// A copy of the machine's disk, to go back to.
    pub(crate) backup: Option<Box<Disk>>,
}

/// A machine as a run begins: nothing on its disk, no process.
pub(crate) fn new_node(setting: &Setting, node: usize) -> Node {
    let options = &setting.options;
    let interests = asked_for(options, &setting.members[node].interests);
    let written = setting.members[node].interests.iter().cloned().collect();
    let merging = if options.merges(node) { interests.clone() } else { BTreeSet::new() };
    let custom = resolvers(options, node, &interests);
    let application = Application::new(Rc::clone(options), node, written);
    let store = SimStore::new(Rc::clone(options), application, node);
    // One node of every second run with poison has a strict schema, and so on: the last one.
    let last = node + 1 == options.nodes;
    store.inner().strict = last && options.faults.contains_key(&Fault::Poison);
    let lies = node == 0 && options.has_liar();
    let others = setting.members.iter().skip(1).map(|member| member.id).collect();
    let skew = options.mutation == Mutation::SkewAccepted;
    Node {
        store,
        replica: None,
        clock: WallClock::right(options.clock_grain_ms),
        config: Config {
            name: format!("n{node}"),
            retention_ms: options.retention_ms,
            interests,
            max_skew_ms: if skew { u64::MAX >> 20 } else { options.max_skew_ms },
            sync_interval_ms: options.sync_interval_ms,
            payload_bytes_max: options.payload_bytes_max,
            frame_bytes_max: options.frame_bytes_max,
            mark: None,
            merging,
            custom,
            limits: options.limits(node),
        },
        targets: targets(setting, node),
        mono_start: Time(0),
        mark: None,
        starts: 0,
        generation: 0,
        liar: lies.then(|| Liar { rng: Rng::of(options.seed, "liar", 0), key: key(node), others }),
        absent: options.clone_of(node).is_some(),
        backup: None,
    }
}
