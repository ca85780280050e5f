//! What goes out of replicas and comes in: links, dials and frames, and what a member that lies makes of them.

use entgldb_replica::id::LinkId;
use entgldb_replica::wire::Message;
use entgldb_replica::{Input, Link, Output};

use crate::coverage::event_name;
use crate::mutation::Mutation;
use crate::network::Arrival;
use crate::options::{Fault, LIES};
use crate::seen::Sent;
use crate::world::{Event, Stop, World};

impl World {
    pub(crate) fn dialled(
        &mut self,
        node: usize,
        process: u64,
        target: String,
        to: usize,
    ) -> Result<(), Stop> {
        if self.nodes[node].replica.is_none() || self.nodes[node].starts != process {
            return Ok(());
        }
        let up = self.nodes[to].replica.is_some() && self.network.is_open(node, to);
        if !up {
            return self.input(node, Input::DialFailed { target, reason: "no answer".into() });
        }
        self.connect(node, to, Some(target));
        Ok(())
    }

    /// Makes a link; `a` dialled.
    pub(crate) fn connect(&mut self, a: usize, b: usize, target: Option<String>) {
        let ids = self.network.link_ids();
        let frame_bytes_max = match self.options.mutation {
            Mutation::FrameLimitIgnored => usize::MAX,
            _ => self.options.frame_bytes_max,
        };
        let link = |id: LinkId, peer: usize, target: Option<String>, we_dialled: bool| Link {
            id,
            peer: self.setting.members[peer].id,
            name: format!("node {peer}"),
            instance: (peer as u64) << 32 | self.nodes[peer].starts,
            we_dialled,
            target,
            frame_bytes_max,
        };
        let links = [link(ids[0], b, target, true), link(ids[1], a, None, false)];
        self.network.connect(self.now, [a, b], links);
        self.schedule_pumps();
    }

    pub(crate) fn arrive(&mut self, node: usize, link: LinkId, arrival: Arrival) -> Result<(), Stop> {
        match arrival {
            Arrival::Up(link) => self.input(node, Input::LinkUp(link)),
            Arrival::Frame { kind, body } => self.input(node, Input::Frame { link, kind, body }),
            Arrival::Down(reason) => {
                self.input(node, Input::LinkDown { link, reason: reason.into(), is_fault: false })
            }
        }
    }

    pub(crate) fn carry_out(&mut self, node: usize, outputs: Vec<Output>, kept: usize) -> Result<(), Stop> {
        for output in outputs.into_iter().take(kept) {
            match output {
                Output::Send { link, kind, body, .. } => self.send(node, link, kind, body)?,
                Output::Dial { target } => self.dial(node, target),
                Output::Close { link, reason } => {
                    self.trace.tell(self.now, || format!("node {node} closes {link:?}: {reason}"));
                    self.coverage.add("links closed by an engine", 1);
                    self.network.hang_up(self.now, link, "the peer closed");
                    self.schedule_pumps();
                }
                Output::Event(event) => {
                    self.trace.tell(self.now, || format!("node {node} says {event:?}"));
                    self.coverage.add(event_name(&event), 1);
                    let found = self.checks.told(&self.setting, node, &event);
                    self.found(found)?;
                }
            }
        }
        Ok(())
    }

    fn dial(&mut self, node: usize, target: String) {
        let found = self.nodes[node].targets.iter().find(|(name, _)| *name == target);
        let to = found.map(|(_, to)| *to).expect("a replica dials only what it was given");
        // Whoever switches a clone off for good would take its address out, too.
        self.rest.dials += u64::from(self.rest.counting && !self.nodes[to].absent);
        let wait = 1 + 2 * self.network.latency();
        let process = self.nodes[node].starts;
        self.schedule(wait, Event::Dialled { node, process, target, to });
    }

    fn send(&mut self, node: usize, link: LinkId, kind: u64, body: bytes::Bytes) -> Result<(), Stop> {
        self.trace.mix(self.now, "send", node, (link, kind, &body[..]));
        self.coverage.add("frames", 1);
        if self.rest.counting {
            self.rest.frames[node] += 1;
        }
        let Some((to, peer_link)) = self.network.other_end(link) else { return Ok(()) };
        let message = Message::decode(kind, body.clone());
        let message = message.expect("a replica sends what a replica can read");
        let doubtful = self.nodes[node].liar.is_some() || self.nodes[to].liar.is_some();
        let bytes = body.len();
        let message = message.as_ref();
        let found = {
            let disk = &*self.nodes[node].store.disk();
            let sent = Sent { from: node, to, link, peer_link, doubtful, bytes, message, disk };
            self.checks.sent(&self.setting, &sent)
        };
        self.found(found)?;
        let body = match self.options.mutation {
            Mutation::UnitTorn => crate::tamper::without_last_run(kind, body),
            Mutation::PageAltered => crate::tamper::with_another_payload(kind, body),
            _ => body,
        };
        let frames = self.lie(node, to, kind, body);
        for (kind, body) in frames {
            if !self.network.send(self.now, link, kind, body) {
                self.coverage.add("link cut for a full queue", 1);
                self.network.cut(self.now, link.0 & !1, "the queue is full");
            }
        }
        self.schedule_pumps();
        Ok(())
    }

    /// What a member that lies sends in the place of a frame.
    fn lie(&mut self, node: usize, to: usize, kind: u64, body: bytes::Bytes) -> Vec<(u64, bytes::Bytes)> {
        let struck = LIES.into_iter().find(|fault| self.chance(*fault));
        let Some((liar, fault)) = self.nodes[node].liar.as_mut().zip(struck) else {
            return vec![(kind, body)];
        };
        let (name, frames) = match fault {
            Fault::Fork => liar.fork(to, kind, &body),
            Fault::Flood => liar.flood(kind, &body),
            Fault::PullFlood => liar.ask(kind, &body),
            Fault::SlowSnapshot => liar.give_slowly(kind, &body),
            _ => liar.lie(kind, &body),
        };
        self.coverage.add(format!("{fault:?}: {name}"), 1);
        self.trace.tell(self.now, || format!("node {node} lies to node {to}: {name}"));
        frames
    }
}
