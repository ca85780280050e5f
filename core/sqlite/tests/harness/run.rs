//! One run: what is drawn while it lasts, how it comes to rest, and the order of it all.

use std::cell::RefCell;
use std::rc::Rc;

use entgldb_replica::Input;
use entgldb_replica::limits::PAYLOAD_BYTES_DEFAULT;
use fastrand::Rng;

use super::mix::{Class, Mix};
use super::oracle;
use super::store::Deed;
use super::world::World;

/// Rounds in which nodes that nobody disturbs must come to hold the same.
const ROUNDS_MAX: usize = 150;
/// Rounds without any news until it is believed.
const QUIET_ROUNDS: usize = 3;
/// More than the time after which a store tries again what it has set aside.
const TEND_MS: u64 = 31_000;

/// Runs a mix, and judges what came of it.
///
/// # Panics
/// When the engine has not kept its word.
pub fn run(mix: Mix, seed: u64, trace: &Rc<RefCell<Vec<String>>>) {
    let mut rng = Rng::with_seed(seed ^ 0x9E37_79B9_7F4A_7C15);
    let mut run = Run { world: World::new(mix, &mut rng, trace.clone()), rng, step: 0 };
    run.begin();
    for step in 0..run.world.mix.steps {
        run.step = step;
        run.world.note(format!("{step} at {} ms", run.world.mono));
        run.take_step();
    }
    run.heal();
    oracle::judge(&mut run.world);
}

struct Run {
    world: World,
    rng: Rng,
    step: usize,
}

impl Run {
    fn any(&mut self) -> usize {
        self.rng.usize(..self.world.nodes.len())
    }

    fn has(&self, class: Class) -> bool {
        self.world.mix.has(class)
    }

    /// Files, tables, rows from before the first watch, and the first starts.
    fn begin(&mut self) {
        let count = self.world.nodes.len();
        let joins = |at: usize, run: &Self| run.has(Class::Joins) && at == count - 1;
        self.world.pass(0);
        for at in 0..count {
            let app = self.world.nodes[at].app.clone();
            if joins(at, self) {
                app.borrow_mut().open();
                app.borrow_mut().create_last();
            } else if at > 0 && self.has(Class::Copied) {
                self.copy_first(at);
            } else {
                app.borrow_mut().open();
                app.borrow_mut().create();
                self.write_first(at);
            }
        }
        let first_watch_differs =
            self.has(Class::Copied) || self.has(Class::Existing) || self.has(Class::Many);
        for at in 0..count {
            if !joins(at, self) && (!first_watch_differs || self.rng.bool()) {
                self.world.start(at);
            }
        }
        self.world.link_all();
    }

    /// The file of a node is a copy of the first one's.
    fn copy_first(&mut self, at: usize) {
        let [first, app] = [0, at].map(|at| self.world.nodes[at].app.clone());
        first.borrow_mut().close();
        std::fs::copy(&self.world.nodes[0].path, &self.world.nodes[at].path).expect("the file is copied");
        first.borrow_mut().open();
        app.borrow_mut().open();
        let rows = app.borrow().image();
        self.world.accounts.borrow_mut().copied(at, &rows);
    }

    /// Rows from before the first watch.
    fn write_first(&mut self, at: usize) {
        let app = self.world.nodes[at].app.clone();
        if self.has(Class::Copied) || self.has(Class::Existing) {
            (0..6).for_each(|_| app.borrow_mut().write());
        }
        if self.has(Class::Many) && at == 0 {
            app.borrow_mut().fill();
        }
    }

    fn take_step(&mut self) {
        match self.rng.u8(..100) {
            0..=27 => self.write(),
            28..=45 => self.deliver(),
            46..=65 => self.look(),
            66..=73 => self.migrate(),
            74..=77 => self.kill(),
            78..=80 => self.switch(),
            81..=83 => self.part(),
            84..=89 => self.arm(),
            90 | 91 => self.write_silently(),
            92 | 93 => self.write_large(),
            94 => self.vacuum(),
            _ => self.back_up_or_restore(),
        }
    }

    fn write(&mut self) {
        let at = self.any();
        self.world.nodes[at].app.borrow_mut().write();
    }

    fn deliver(&mut self) {
        for _ in 0..self.rng.usize(1..6) {
            let busy = self.world.busy();
            if busy.is_empty() {
                return;
            }
            let (from, to) = busy[self.rng.usize(..busy.len())];
            self.world.note(format!("  frame from {from} to {to}"));
            self.world.deliver(from, to);
        }
    }

    fn look(&mut self) {
        let ms = if self.rng.u8(..4) == 0 { self.rng.u64(..5000) } else { self.rng.u64(..400) };
        self.world.pass(ms);
        self.world.link_all();
        let at = self.any();
        self.world.note(format!("  node {at} looks"));
        self.world.input(at, Input::LocalChange);
        if self.rng.bool() {
            for at in 0..self.world.nodes.len() {
                self.world.input(at, Input::Tick);
            }
        }
    }

    fn migrate(&mut self) {
        let at = self.any();
        self.world.nodes[at].app.borrow_mut().migrate();
    }

    fn kill(&mut self) {
        let at = self.any();
        if !self.has(Class::Kill) || !self.world.is_on(at) {
            return;
        }
        let cleanly = self.rng.u8(..4) == 0;
        self.world.note(format!("  node {at} ends{}", if cleanly { " cleanly" } else { "" }));
        self.world.stop(at, cleanly);
        self.world.start(at);
    }

    /// Turns a node off, or on again.
    fn switch(&mut self) {
        let at = self.any();
        if self.world.is_on(at) {
            if self.has(Class::Off) {
                self.world.note(format!("  node {at} is turned off"));
                let cleanly = self.rng.bool();
                self.world.stop(at, cleanly);
            }
        } else {
            if self.has(Class::Large) && self.rng.bool() {
                self.world.nodes[at].payload_bytes_max = PAYLOAD_BYTES_DEFAULT;
            }
            self.world.start(at);
        }
    }

    fn part(&mut self) {
        if !self.has(Class::Partition) {
            return;
        }
        let (one, other) = (self.any(), self.any());
        if one == other {
            return;
        }
        let pair = (one.min(other), one.max(other));
        if self.world.parted.contains(&pair) {
            self.world.note(format!("  {pair:?} may be linked again"));
            self.world.parted.retain(|parted| *parted != pair);
        } else {
            self.world.note(format!("  {pair:?} are parted"));
            self.world.parted.push(pair);
            self.world.unlink(pair, "parted");
        }
    }

    /// Something will happen between two calls of a store.
    fn arm(&mut self) {
        let at = self.any();
        let mut deeds = Vec::new();
        if self.has(Class::Gap) {
            deeds.extend([Deed::Write, Deed::Write]);
            deeds.extend(self.world.nodes[at].app.borrow().has_to_migrate().then_some(Deed::Migrate));
            deeds.extend(self.has(Class::Silent).then_some(Deed::WriteSilently));
            deeds.extend(self.has(Class::Kill).then_some(Deed::Kill));
        }
        if deeds.is_empty() {
            return;
        }
        let gaps = self.world.nodes[at].gaps.clone();
        for _ in 0..self.rng.usize(1..4) {
            let deed = deeds[self.rng.usize(..deeds.len())];
            gaps.borrow_mut().armed.push_back((self.rng.u64(..12), deed));
        }
    }

    fn write_silently(&mut self) {
        let at = self.any();
        if self.has(Class::Silent) {
            self.world.nodes[at].app.borrow_mut().write_silently();
        }
    }

    fn write_large(&mut self) {
        let at = self.any();
        if self.has(Class::Large) {
            self.world.nodes[at].app.borrow_mut().write_large();
        }
    }

    fn vacuum(&mut self) {
        let at = self.any();
        if self.has(Class::Vacuum) {
            self.world.nodes[at].app.borrow().vacuum();
        }
    }

    fn back_up_or_restore(&mut self) {
        let at = self.any();
        if !self.has(Class::Restore) {
            return;
        }
        if self.world.nodes[at].backup.is_none() {
            return self.back_up(at);
        }
        let Some((copy, migrated, event)) = self.world.nodes[at].backup.take() else { return };
        self.world.note(format!("  node {at} is put back"));
        let was_on = self.world.is_on(at);
        self.world.stop(at, self.rng.bool());
        let app = self.world.nodes[at].app.clone();
        app.borrow_mut().close();
        std::fs::copy(&copy, &self.world.nodes[at].path).expect("the copy is put back");
        app.borrow_mut().migrated = migrated;
        app.borrow_mut().open();
        self.world.accounts.borrow_mut().put_back(at, event);
        if was_on {
            self.world.start(at);
        }
    }

    fn back_up(&mut self, at: usize) {
        let app = self.world.nodes[at].app.clone();
        if !app.borrow().is_open() {
            return;
        }
        let event = self.world.accounts.borrow().now();
        let copy = self.world.file(&format!("{at}-{}.copy", self.step));
        app.borrow().back_up(&copy);
        self.world.nodes[at].backup = Some((copy, app.borrow().migrated, event));
    }

    /// Nobody is disturbed any more, all migrations are carried out, and everything comes to rest.
    fn heal(&mut self) {
        self.world.note("everything is healed".into());
        self.world.parted.clear();
        for at in 0..self.world.nodes.len() {
            self.world.nodes[at].gaps.borrow_mut().armed.clear();
            self.world.start(at);
        }
        while let Some(at) = self.next_to_migrate() {
            self.world.nodes[at].app.borrow_mut().migrate();
            let ms = self.rng.u64(..1500);
            self.world.round(ms);
        }
        if self.has(Class::Large) {
            for at in 0..self.world.nodes.len() {
                self.world.stop(at, true);
                self.world.nodes[at].payload_bytes_max = PAYLOAD_BYTES_DEFAULT;
                self.world.start(at);
            }
        }
        self.settle();
        if self.has(Class::Silent) {
            (0..self.world.nodes.len()).for_each(|at| self.world.nodes[at].app.borrow_mut().touch());
            self.settle();
        }
    }

    fn next_to_migrate(&mut self) -> Option<usize> {
        let waiting = |at: &usize| self.world.nodes[*at].app.borrow().has_to_migrate();
        let waiting: Vec<usize> = (0..self.world.nodes.len()).filter(waiting).collect();
        if waiting.is_empty() { None } else { Some(waiting[self.rng.usize(..waiting.len())]) }
    }

    fn settle(&mut self) {
        self.settle_for(700);
        // What was set aside is tried again from time to time.
        for _ in 0..3 {
            self.world.round(TEND_MS);
        }
        self.settle_for(700);
    }

    fn settle_for(&mut self, ms: u64) {
        let mut quiet = 0;
        for _ in 0..ROUNDS_MAX {
            self.world.round(ms);
            quiet = if self.is_quiet() { quiet + 1 } else { 0 };
            if quiet == QUIET_ROUNDS {
                return;
            }
        }
        panic!("the nodes do not come to rest: {}", self.unrest());
    }

    fn is_quiet(&mut self) -> bool {
        self.world.nodes.iter_mut().all(|node| {
            let Some(replica) = &mut node.replica else { return false };
            let is_level = replica.is_level();
            let store = &mut replica.store().inner;
            is_level
                && store.outbox_is_empty().expect("the outbox is read")
                && !store.is_scanning().expect("the collections are read")
        })
    }

    fn unrest(&mut self) -> String {
        let mut text = String::new();
        for (at, node) in self.world.nodes.iter_mut().enumerate() {
            let Some(replica) = &mut node.replica else { continue };
            let status = replica.status();
            let peers: Vec<_> =
                status.peers.iter().map(|peer| (peer.behind, peer.ahead, peer.held)).collect();
            let store = &mut replica.store().inner;
            text += &format!(
                "node {at}: backlog {}, peers {peers:?}, outbox empty {:?}, scanning {:?}; ",
                status.backlog,
                store.outbox_is_empty(),
                store.is_scanning()
            );
        }
        text
    }
}
