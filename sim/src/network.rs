//! A simulated network of links. Within one direction of a link frames keep their order, as in TCP; between links and
//! directions they do not. What is on its way when a link breaks is lost from some point on.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use entgldb_replica::Link;
use entgldb_replica::id::LinkId;
use entgldb_replica::limits::SEND_QUEUE_FRAMES_MAX;

use crate::clock::Time;
use crate::rng::Rng;

/// What comes out of a link at one end.
#[derive(Debug)]
pub(crate) enum Arrival {
    /// The link stands; the first thing at each end.
    Up(Link),
    Frame {
        kind: u64,
        body: Bytes,
    },
    /// The link is gone; the last thing.
    Down(&'static str),
}

/// One direction of a link.
#[derive(Debug, Default)]
struct Lane {
    items: VecDeque<(Time, Arrival)>,
    /// Whether an event to take the next item out is scheduled.
    pumping: bool,
    /// No item may come earlier than this.
    ready: Time,
    stalled_until: Time,
    /// When something last came out.
    heard: Time,
    /// Whether it ends, even through a partition: its end has given up.
    forced: bool,
}

/// A link between two nodes. Lane and number `n` belong to end `n`; a lane leads to its end.
#[derive(Debug)]
struct Wire {
    ends: [usize; 2],
    links: [LinkId; 2],
    lanes: [Lane; 2],
    live: [bool; 2],
}

/// When to call [`Network::take`], for which wire and end.
pub(crate) type Pump = (Time, u64, usize);

/// See the module's documentation.
pub(crate) struct Network {
    wires: BTreeMap<u64, Wire>,
    by_link: BTreeMap<LinkId, (u64, usize)>,
    /// Directions in which nothing passes, and by how many partitions.
    blocked: BTreeMap<(usize, usize), u32>,
    numbers: u64,
    rng: Rng,
    latency_ms: u64,
    /// To schedule.
    pub(crate) pumps: Vec<Pump>,
}

impl Network {
    pub(crate) fn new(rng: Rng, latency_ms: u64) -> Self {
        let (wires, by_link, blocked) = Default::default();
        Self { wires, by_link, blocked, numbers: 0, rng, latency_ms, pumps: Vec::new() }
    }

    pub(crate) fn latency(&mut self) -> u64 {
        self.rng.between(0, self.latency_ms)
    }

    /// Numbers for the two ends of a new link.
    pub(crate) fn link_ids(&mut self) -> [LinkId; 2] {
        self.numbers += 2;
        [LinkId(self.numbers), LinkId(self.numbers + 1)]
    }

    /// Connects two nodes; each end gets its [`Arrival::Up`] first.
    pub(crate) fn connect(&mut self, now: Time, ends: [usize; 2], links: [Link; 2]) {
        let ids = [links[0].id, links[1].id];
        let number = ids[0].0;
        let fresh = || Lane { heard: now, ..Lane::default() };
        let wire = Wire { ends, links: ids, lanes: [fresh(), fresh()], live: [true, true] };
        self.wires.insert(number, wire);
        for (side, link) in links.into_iter().enumerate() {
            self.by_link.insert(ids[side], (number, side));
            self.push(now, number, side, Arrival::Up(link));
        }
    }

    /// The node and the link's number at the other end.
    pub(crate) fn other_end(&self, link: LinkId) -> Option<(usize, LinkId)> {
        let (number, side) = self.by_link.get(&link)?;
        let wire = self.wires.get(number)?;
        Some((wire.ends[1 - side], wire.links[1 - side]))
    }

    /// Sends a frame. `false` if too many wait already; the link must then be cut.
    pub(crate) fn send(&mut self, now: Time, link: LinkId, kind: u64, body: Bytes) -> bool {
        let Some((number, side)) = self.by_link.get(&link).copied() else { return true };
        let blocked = self.is_blocked(now, number, 1 - side);
        let Some(wire) = self.wires.get(&number) else { return true };
        if !wire.live[side] || !wire.live[1 - side] {
            return true;
        }
        if blocked && wire.lanes[1 - side].items.len() >= SEND_QUEUE_FRAMES_MAX {
            return false;
        }
        self.push(now, number, 1 - side, Arrival::Frame { kind, body });
        true
    }

    fn push(&mut self, now: Time, number: u64, side: usize, arrival: Arrival) {
        let latency = self.latency();
        let Some(wire) = self.wires.get_mut(&number) else { return };
        let lane = &mut wire.lanes[side];
        lane.ready = lane.ready.max(now.plus(latency));
        lane.items.push_back((lane.ready, arrival));
        self.pump(now, number, side);
    }

    /// Schedules the next item of a lane, if it may come out.
    fn pump(&mut self, now: Time, number: u64, side: usize) {
        if self.is_blocked(now, number, side) {
            return;
        }
        let Some(wire) = self.wires.get_mut(&number) else { return };
        let lane = &mut wire.lanes[side];
        if let Some((ready, _)) = lane.items.front()
            && !lane.pumping
        {
            lane.pumping = true;
            self.pumps.push(((*ready).max(now), number, side));
        }
    }

    fn is_blocked(&self, now: Time, number: u64, side: usize) -> bool {
        let Some(wire) = self.wires.get(&number) else { return false };
        let lane = &wire.lanes[side];
        let parted = self.blocked.contains_key(&(wire.ends[1 - side], wire.ends[side]));
        !lane.forced && (parted || lane.stalled_until > now)
    }

    /// Takes out what a pump was scheduled for: the node, its number of the link, and what arrives there.
    pub(crate) fn take(&mut self, now: Time, number: u64, side: usize) -> Option<(usize, LinkId, Arrival)> {
        self.wires.get_mut(&number)?.lanes[side].pumping = false;
        if self.is_blocked(now, number, side) {
            return None;
        }
        let wire = self.wires.get_mut(&number)?;
        let lane = &mut wire.lanes[side];
        if lane.items.front().is_none_or(|(ready, _)| *ready > now) {
            self.pump(now, number, side);
            return None;
        }
        let (_, arrival) = lane.items.pop_front()?;
        lane.heard = now;
        let (node, link) = (wire.ends[side], wire.links[side]);
        if matches!(arrival, Arrival::Down(_)) {
            self.end(number, side);
        } else {
            self.pump(now, number, side);
        }
        Some((node, link, arrival))
    }

    /// An end takes nothing more.
    fn end(&mut self, number: u64, side: usize) {
        let Some(wire) = self.wires.get_mut(&number) else { return };
        wire.live[side] = false;
        wire.lanes[side].items.clear();
        if wire.live == [false, false] {
            for link in wire.links {
                self.by_link.remove(&link);
            }
            self.wires.remove(&number);
        }
    }

    /// One end has closed: it gets nothing more, the other all that was sent, and then the end.
    pub(crate) fn hang_up(&mut self, now: Time, link: LinkId, reason: &'static str) {
        let Some((number, side)) = self.by_link.get(&link).copied() else { return };
        self.end(number, side);
        self.push(now, number, 1 - side, Arrival::Down(reason));
    }

    /// The wire breaks: each end gets a part of what was on its way, and then the end.
    pub(crate) fn cut(&mut self, now: Time, number: u64, reason: &'static str) {
        for side in 0..2 {
            self.lose_tail(number, side, true);
            self.push(now, number, side, Arrival::Down(reason));
            if let Some(wire) = self.wires.get_mut(&number) {
                wire.lanes[side].forced = true;
            }
            self.pump(now, number, side);
        }
    }

    /// A process has ended. Each peer gets a part of what was on its way to it, or nothing; it notices at once or after
    /// a silence.
    pub(crate) fn drop_node(&mut self, now: Time, node: usize, nothing_left: bool, silence_ms: u64) {
        let numbers: Vec<(u64, usize)> = self.ends_of(node);
        let silent = self.rng.below(3) == 0;
        for (number, side) in numbers {
            self.lose_tail(number, 1 - side, !nothing_left);
            self.end(number, side);
            let notice = if silent { self.rng.between(0, silence_ms) } else { 0 };
            if let Some(wire) = self.wires.get_mut(&number) {
                wire.lanes[1 - side].forced = true;
            }
            self.push(now.plus(notice), number, 1 - side, Arrival::Down("the peer's process has ended"));
        }
    }

    fn ends_of(&self, node: usize) -> Vec<(u64, usize)> {
        let ends = self.wires.iter().flat_map(|(number, wire)| (0..2).map(move |side| (*number, side, wire)));
        let own = ends.filter(|(_, side, wire)| wire.ends[*side] == node && wire.live[*side]);
        own.map(|(number, side, _)| (number, side)).collect()
    }

    fn lose_tail(&mut self, number: u64, side: usize, keep_some: bool) {
        let Some(wire) = self.wires.get_mut(&number) else { return };
        let items = &mut wire.lanes[side].items;
        // The first word, that the link stands, is never lost: the transport has said it or will say that it failed.
        let first = usize::from(matches!(items.front(), Some((_, Arrival::Up(_)))));
        let most = items.len().max(first);
        let keep = if keep_some { self.rng.between(first as u64, most as u64) } else { first as u64 };
        items.truncate(usize::try_from(keep).unwrap_or(usize::MAX));
    }

    /// A random wire, if there is one.
    pub(crate) fn any_wire(&self, rng: &mut Rng) -> Option<u64> {
        let numbers: Vec<u64> = self.wires.keys().copied().collect();
        (!numbers.is_empty()).then(|| *rng.pick(&numbers))
    }

    /// Stops one direction of a wire for a while. Answers when to call [`Network::kick`].
    pub(crate) fn stall(&mut self, now: Time, number: u64, side: usize, ms: u64) -> Time {
        let until = now.plus(ms);
        if let Some(wire) = self.wires.get_mut(&number) {
            wire.lanes[side].stalled_until = until;
        }
        until
    }

    /// Blocks directions.
    pub(crate) fn block(&mut self, directions: &[(usize, usize)]) {
        for direction in directions {
            *self.blocked.entry(*direction).or_default() += 1;
        }
    }

    /// Undoes one [`Network::block`].
    pub(crate) fn unblock(&mut self, now: Time, directions: &[(usize, usize)]) {
        for direction in directions {
            if let Some(count) = self.blocked.get_mut(direction) {
                *count -= 1;
                if *count == 0 {
                    self.blocked.remove(direction);
                }
            }
        }
        self.kick(now);
    }

    /// All partitions and stalls are over.
    pub(crate) fn heal(&mut self, now: Time) {
        self.blocked.clear();
        for wire in self.wires.values_mut() {
            wire.lanes.iter_mut().for_each(|lane| lane.stalled_until = now);
        }
        self.kick(now);
    }

    /// Lets everything go on that may.
    pub(crate) fn kick(&mut self, now: Time) {
        let numbers: Vec<u64> = self.wires.keys().copied().collect();
        for number in numbers {
            (0..2).for_each(|side| self.pump(now, number, side));
        }
    }

    /// Whether two nodes can reach each other both ways.
    pub(crate) fn is_open(&self, a: usize, b: usize) -> bool {
        !self.blocked.contains_key(&(a, b)) && !self.blocked.contains_key(&(b, a))
    }

    /// Ends that are blocked now, to look at again when their patience is over.
    pub(crate) fn blocked_ends(&self, now: Time) -> Vec<(u64, usize)> {
        let all = self.wires.keys().flat_map(|number| [(*number, 0), (*number, 1)]);
        all.filter(|(number, side)| self.is_blocked(now, *number, *side)).collect()
    }

    /// An end that has heard nothing since then gives the link up.
    pub(crate) fn give_up(&mut self, now: Time, number: u64, side: usize, since: Time) -> bool {
        let blocked = self.is_blocked(now, number, side);
        let silent = self.wires.get(&number).is_some_and(|wire| wire.lanes[side].heard <= since);
        if blocked && silent {
            self.cut(now, number, "silence");
        }
        blocked && silent
    }

    /// Links of each node.
    pub(crate) fn links(&self, nodes: usize) -> Vec<usize> {
        let mut links = vec![0; nodes];
        for wire in self.wires.values().filter(|wire| wire.live == [true, true]) {
            wire.ends.iter().for_each(|end| links[*end] += 1);
        }
        links
    }
}
