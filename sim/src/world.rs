//! The event loop: nodes, network and applications, moved by one queue of events in the order of (time, sequence).
//!
//! Nothing here decides what is right; that is the checkers' part. Faults are in `faults.rs`, the end in `ending.rs`.

use std::collections::BTreeMap;
use std::rc::Rc;

use entgldb_replica::clock::{Mono, Now};
use entgldb_replica::{Config, Input, Replica};

use crate::checkers::{Checks, Found, Violation};
use crate::clock::Time;
use crate::coverage::Coverage;
use crate::ending::Rest;
use crate::mutation::Mutation;
use crate::network::Network;
use crate::node::{Node, new_node};
use crate::options::{Fault, Options};
use crate::rng::Rng;
use crate::seen::{Seen, Setting};
use crate::setting::{key_of, setting};
use crate::trace::Trace;

/// Something that will happen.
#[derive(Debug)]
pub(crate) enum Event {
    /// A replica wants to work, unless it was told of something since.
    Wake { node: usize, generation: u64 },
    /// An end of a wire may take the next item.
    Pump { wire: u64, side: usize },
    /// A dial of a process has come to its end.
    Dialled { node: usize, process: u64, target: String, to: usize },
    /// An application writes, and will again.
    Write { node: usize },
    /// The engine is told that something was written.
    Notice { node: usize },
    /// A process is started.
    Start { node: usize },
    /// A scheduled fault strikes.
    Strike(Fault),
    /// A partition is over.
    Unblock(Vec<(usize, usize)>),
    /// A stall is over.
    Kick,
    /// An end that was blocked at that time may give up.
    Patience { wire: u64, side: usize, since: Time },
    /// A clock that was a month ahead is put back.
    ClockBack { node: usize },
    /// The power goes, and with it what was not synced.
    PowerOff { node: usize },
    /// A disk that was full has room again.
    Room { node: usize },
    /// A node syncs again all that it is meant to.
    Interested { node: usize },
}

/// Why a run goes no further.
#[derive(Debug)]
pub(crate) struct Stop;

/// See the module's documentation.
pub(crate) struct World {
    pub(crate) setting: Setting,
    pub(crate) options: Rc<Options>,
    pub(crate) now: Time,
    queue: BTreeMap<(Time, u64), Event>,
    sequence: u64,
    pub(crate) nodes: Vec<Node>,
    pub(crate) network: Network,
    pub(crate) checks: Checks,
    pub(crate) trace: Trace,
    pub(crate) coverage: Coverage,
    /// Whether faults happen.
    pub(crate) stormy: bool,
    pub(crate) rest: Rest,
    /// Whether everybody has written once more after healing.
    pub(crate) last_words_said: bool,
    pub(crate) violation: Option<Violation>,
    pub(crate) rngs: BTreeMap<Fault, Rng>,
    steps: Rng,
    seeds: Rng,
}

/// More events than this at one moment mean that something does not come to rest.
const EVENTS_AT_ONCE_MAX: u64 = 200_000;
/// The same for a whole run.
const EVENTS_MAX: u64 = 10_000_000;
/// Wait before a store that failed is opened again, as the engine waits.
const REOPEN_MS: u64 = 500;

impl World {
    pub(crate) fn new(options: Options, story: bool) -> Self {
        let options = Rc::new(options);
        let setting = setting(&options);
        let seed = options.seed;
        let nodes: Vec<Node> = (0..options.nodes).map(|node| new_node(&setting, node)).collect();
        let mut world = Self {
            now: Time(0),
            queue: BTreeMap::new(),
            sequence: 0,
            network: Network::new(Rng::of(seed, "network", 0), options.latency_ms),
            checks: Checks::new(options.nodes),
            trace: Trace::new(story),
            coverage: Coverage::default(),
            stormy: true,
            rest: Rest { frames: vec![0; options.nodes], ..Rest::default() },
            last_words_said: false,
            violation: None,
            rngs: options.faults.keys().map(|f| (*f, Rng::of(seed, "strike", *f as u64))).collect(),
            steps: Rng::of(seed, "steps", 0),
            seeds: Rng::of(seed, "processes", 0),
            setting,
            options,
            nodes,
        };
        if world.options.faults.contains_key(&Fault::Fork) {
            world.checks.oracle().let_sign_anything(world.setting.members[0].id);
        }
        if world.options.mutation == Mutation::NeverHealed {
            world.part_first_edge();
        }
        for node in 0..world.nodes.len() {
            let wait = world.steps.below(2_000);
            world.schedule(wait, Event::Start { node });
            let wait = world.steps.wait(world.options.load.write_every_ms);
            world.schedule(wait, Event::Write { node });
        }
        world.schedule_faults();
        world
    }

    pub(crate) fn schedule(&mut self, after_ms: u64, event: Event) {
        self.schedule_at(self.now.plus(after_ms), event);
    }

    fn schedule_at(&mut self, at: Time, event: Event) {
        self.sequence += 1;
        self.queue.insert((at, self.sequence), event);
    }

    /// Lets simulated time pass.
    pub(crate) fn run_until(&mut self, end: Time) -> Result<(), Stop> {
        let mut at_once = 0;
        while let Some((at, _)) = self.queue.keys().next().copied() {
            if at > end {
                break;
            }
            at_once = if at > self.now { 0 } else { at_once + 1 };
            if at_once > EVENTS_AT_ONCE_MAX {
                return self
                    .found(Err(("comes to rest", format!("{EVENTS_AT_ONCE_MAX} events at one moment"))));
            }
            if self.trace.events() > EVENTS_MAX {
                return self.found(Err(("comes to rest", format!("{EVENTS_MAX} events in one run"))));
            }
            self.now = at;
            let Some((_, event)) = self.queue.pop_first() else { break };
            self.happen(event)?;
        }
        self.now = end;
        Ok(())
    }

    fn happen(&mut self, event: Event) -> Result<(), Stop> {
        match event {
            Event::Wake { node, generation } => {
                let due = self.nodes[node].generation == generation;
                if due { self.input(node, Input::Tick) } else { Ok(()) }
            }
            Event::Pump { wire, side } => {
                let arrived = self.network.take(self.now, wire, side);
                self.schedule_pumps();
                arrived.map_or(Ok(()), |(node, link, arrival)| self.arrive(node, link, arrival))
            }
            Event::Dialled { node, process, target, to } => self.dialled(node, process, target, to),
            Event::Write { node } => {
                self.write(node, 1);
                let wait = self.steps.wait(self.options.load.write_every_ms);
                self.schedule(wait, Event::Write { node });
                Ok(())
            }
            Event::Notice { node } => {
                if self.options.mutation == Mutation::NeverRests {
                    self.schedule(0, Event::Notice { node });
                }
                self.input(node, Input::LocalChange)
            }
            Event::PowerOff { node } => {
                if self.stormy && self.power_cut(node) {
                    self.coverage.add(format!("{:?}", Fault::PowerCut), 1);
                    self.trace.tell(self.now, || format!("PowerCut (node {node})"));
                }
                Ok(())
            }
            Event::Room { node } => {
                self.nodes[node].store.inner().full = false;
                Ok(())
            }
            Event::Interested { node } => {
                let interests = self.nodes[node].config.interests.clone();
                self.input(node, Input::Interests(interests))
            }
            Event::Start { node } => self.start(node),
            Event::Strike(fault) => self.strike(fault),
            Event::Unblock(directions) => {
                if self.stormy {
                    self.network.unblock(self.now, &directions);
                    self.schedule_pumps();
                }
                Ok(())
            }
            Event::Kick => {
                self.network.kick(self.now);
                self.schedule_pumps();
                Ok(())
            }
            Event::Patience { wire, side, since } => {
                if self.network.give_up(self.now, wire, side, since) {
                    self.coverage.add("link given up after silence", 1);
                }
                self.schedule_pumps();
                Ok(())
            }
            Event::ClockBack { node } => {
                if self.stormy {
                    self.nodes[node].clock.step(-crate::clock::MONTH_MS);
                }
                Ok(())
            }
        }
    }

    pub(crate) fn schedule_pumps(&mut self) {
        for (at, wire, side) in std::mem::take(&mut self.network.pumps) {
            self.schedule_at(at, Event::Pump { wire, side });
        }
    }

    /// The two clocks of a node's process.
    pub(crate) fn clocks(&self, node: usize) -> Now {
        let own = &self.nodes[node];
        Now { mono: Mono(self.now.0 - own.mono_start.0), wall: own.clock.read(self.now) }
    }

    /// A process begins.
    fn start(&mut self, node: usize) -> Result<(), Stop> {
        if self.nodes[node].replica.is_some() || self.nodes[node].absent {
            return Ok(());
        }
        self.trace.mix(self.now, "start", node, ());
        let seed = self.seeds.u64();
        let now = self.now;
        let own = &mut self.nodes[node];
        own.starts += 1;
        own.mono_start = now;
        let mark =
            own.mark.filter(|_| self.options.keeps_mark && self.options.mutation != Mutation::MarkForgotten);
        let (config, store) = (Config { mark, ..own.config.clone() }, own.store.clone());
        let clocks = self.clocks(node);
        self.nodes[node].store.inner().wall = clocks.wall;
        let opened = Replica::open(config, store, key_of(&self.options, node), seed, clocks);
        // A store that had begun a commit ends it first.
        self.absorb(node)?;
        match opened {
            Ok(mut replica) => {
                for (target, _) in &self.nodes[node].targets {
                    let added = replica.add_peer(target, clocks);
                    added.expect("a run has few targets");
                }
                self.trace.tell(now, || format!("node {node} starts"));
                self.nodes[node].replica = Some(replica);
                self.input(node, Input::Tick)
            }
            Err(failed) => {
                self.trace.tell(now, || format!("node {node} does not start: {failed}"));
                self.schedule(1_000, Event::Start { node });
                Ok(())
            }
        }
    }

    /// A process ends. What it had not synced may go with it.
    pub(crate) fn stop(&mut self, node: usize, nothing_left: bool) {
        self.stop_for(node, nothing_left, 0);
    }

    /// The same; it is started again not before so many milliseconds.
    fn stop_for(&mut self, node: usize, nothing_left: bool, least_ms: u64) {
        let Some(replica) = self.nodes[node].replica.take() else { return };
        self.nodes[node].mark = Some(replica.mark());
        self.nodes[node].generation += 1;
        self.network.drop_node(self.now, node, nothing_left, self.options.silence_ms);
        self.schedule_pumps();
        let wait = self.steps.between(0, self.options.restart_ms);
        self.schedule(least_ms + wait, Event::Start { node });
    }

    /// The application writes.
    pub(crate) fn write(&mut self, node: usize, transactions: u64) {
        let load = &self.options.load;
        let (notice_ms, offline) = (load.notice_ms, load.offline);
        let off = self.nodes[node].replica.is_none() && !offline || self.nodes[node].absent;
        self.update_pause(node);
        if off {
            return;
        }
        let wall = self.clocks(node).wall;
        let mut inner = self.nodes[node].store.inner();
        inner.wall = wall;
        for _ in 0..transactions {
            if inner.application.transactions() < self.options.load.transactions_max {
                inner.transact();
            }
        }
        drop(inner);
        let lost = self.chance(Fault::NoticeLost);
        let wait = if lost { 10_000 } else { self.steps.between(0, notice_ms) };
        self.schedule(wait, Event::Notice { node });
    }

    /// Whether the application rests.
    fn update_pause(&mut self, node: usize) {
        let resting = !self.stormy && self.options.mutation != Mutation::NeverQuiet;
        self.nodes[node].store.inner().paused = resting;
    }

    /// Hands something to a replica and carries out what it answers.
    pub(crate) fn input(&mut self, node: usize, input: Input) -> Result<(), Stop> {
        let clocks = self.clocks(node);
        let Some(mut replica) = self.nodes[node].replica.take() else { return Ok(()) };
        self.update_pause(node);
        self.nodes[node].store.inner().wall = clocks.wall;
        self.trace.mix_input(self.now, node, &input);
        let result = replica.handle(clocks, input);
        self.nodes[node].replica = Some(replica);
        self.absorb(node)?;
        match result {
            Ok(outputs) => {
                let kept = if self.chance(Fault::CrashAfterStep) {
                    self.coverage.add(format!("{:?}", Fault::CrashAfterStep), 1);
                    self.steps.index(outputs.len() + 1)
                } else {
                    usize::MAX
                };
                self.carry_out(node, outputs, kept)?;
                if kept != usize::MAX {
                    self.trace.tell(self.now, || format!("node {node} crashes after a step"));
                    self.stop(node, false);
                }
            }
            Err(failed) => {
                self.trace.tell(self.now, || format!("node {node}: {failed}"));
                self.stop_for(node, false, REOPEN_MS);
            }
        }
        self.schedule_wake(node);
        Ok(())
    }

    fn schedule_wake(&mut self, node: usize) {
        let step = self.steps.between(0, self.options.step_ms);
        let own = &mut self.nodes[node];
        let Some(replica) = &own.replica else { return };
        own.generation += 1;
        let due = own.mono_start.plus(replica.next_wake().0);
        let event = Event::Wake { node, generation: own.generation };
        let at = if due <= self.now { self.now.plus(step) } else { due };
        self.schedule_at(at, event);
    }

    /// Shows the checkers what a store has seen.
    pub(crate) fn absorb(&mut self, node: usize) -> Result<(), Stop> {
        self.collect_faults(node);
        let seen = std::mem::take(&mut self.nodes[node].store.inner().seen);
        for seen in seen {
            match seen {
                Seen::Written(docs) => {
                    self.coverage.add("transactions of applications", 1);
                    self.trace.tell(self.now, || format!("node {node}: the application writes {docs:?}"));
                }
                Seen::Committed(committed) => {
                    let (vector, rows) = (committed.vector_sum, committed.rows_sum);
                    self.trace.mix(self.now, "commit", node, (vector, rows));
                    self.coverage.add("commits", 1);
                    self.trace.tell(self.now, || {
                        let runs = committed.commit.appended.iter();
                        let runs: Vec<String> =
                            runs.map(|run| format!("{} to {}", run.log, run.signed.head.seq.0)).collect();
                        format!("node {node} commits {}", runs.join(", "))
                    });
                    let found = self.checks.committed(&self.setting, node, &committed);
                    self.found(found)?;
                }
            }
        }
        Ok(())
    }

    fn collect_faults(&mut self, node: usize) {
        for (fault, count) in std::mem::take(&mut self.nodes[node].store.inner().happened) {
            self.coverage.add(format!("{fault:?}"), count);
        }
    }

    /// Whether a fault strikes at this occasion.
    pub(crate) fn chance(&mut self, fault: Fault) -> bool {
        let chance = self.options.chance(fault);
        self.stormy && self.rngs.get_mut(&fault).is_some_and(|rng| rng.chance(chance))
    }

    /// Notes what a checker found.
    pub(crate) fn found(&mut self, found: Found) -> Result<(), Stop> {
        let Err((checker, detail)) = found else { return Ok(()) };
        self.trace.tell(self.now, || format!("VIOLATION [{checker}] {detail}"));
        self.violation = Some(Violation { checker, detail, at_ms: self.now.0 });
        Err(Stop)
    }
}
