//! The events of a node for people: a line for what is worth one, a bar while a lot comes in, and at the bottom of a
//! terminal how things stand.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Instant;

use console::style;
use entgldb::{Config, Event, State, Status};
use indicatif::ProgressBar;

use super::quota::Quota;
use crate::output::{count, plain, span_of_ms, thousands};
use crate::problems::{document, in_words};
use crate::terminal::Terminal;

/// So many entries to come are a catch-up, with a bar of its own; fewer are everyday traffic.
const CATCH_UP_FROM: u64 = 500;
/// Characters of an identity that tell the nodes of a cluster apart.
const SHORT_ID: usize = 8;

/// The view.
pub(super) struct People {
    terminal: Terminal,
    config: Config,
    /// Labels of nodes.
    names: BTreeMap<String, String>,
    peers: BTreeMap<String, Peer>,
    /// What was said last of an address or a node that can't be linked with: it is tried again for ever, and said once.
    unlinked: BTreeMap<String, String>,
    /// Tables that are looked through.
    tables: BTreeMap<String, Work>,
    conflicts: Quota,
    problems: Quota,
    bottom: Option<ProgressBar>,
    stopping: bool,
}

/// What was shown of a linked peer.
#[derive(Default)]
struct Peer {
    in_sync_said: bool,
    catch_up: Option<CatchUp>,
    snapshot: Option<ProgressBar>,
}

/// Long work that counts.
struct Work {
    since: Instant,
    bar: ProgressBar,
}

struct CatchUp {
    since: Instant,
    first: u64,
    have: u64,
    bar: ProgressBar,
}

impl People {
    pub(super) fn new(terminal: Terminal, config: &Config) -> Self {
        let bottom = terminal.attended().then(|| terminal.bottom_line("starting"));
        Self {
            terminal,
            config: config.clone(),
            names: BTreeMap::new(),
            peers: BTreeMap::new(),
            unlinked: BTreeMap::new(),
            tables: BTreeMap::new(),
            conflicts: Quota::default(),
            problems: Quota::default(),
            bottom,
            stopping: false,
        }
    }

    /// Shows an event.
    pub(super) fn tell(&mut self, event: &Event) {
        match event {
            Event::Started { node, name, listen } => self.started(node, name, listen.as_deref()),
            Event::PeerUp { node, name, collections } => self.peer_up(node, name, collections),
            Event::PeerDown { node, name, reason } => self.peer_down(node, name, reason),
            Event::DialFailed { target, reason } => self.dial_failed(target, reason),
            Event::PeerRefused { node, name, reason } => self.peer_refused(node, name, reason),
            Event::SyncProgress { node, have, total } => self.progress(node, *have, *total),
            Event::CaughtUp { node } => self.caught_up(node),
            Event::LookingThrough { table, done, of } => self.looking_through(table, *done, *of),
            Event::Snapshot { node, collection, rows, total, done } => {
                self.snapshot(node, collection, (*rows, *total, *done));
            }
            Event::Conflict { collection, key, winner, .. } => {
                if self.conflicts.spend() {
                    let winner = self.label(&winner.node);
                    let what = if self.deleted_wins(event) { "deletion" } else { "version" };
                    self.warn(format_args!(
                        "conflict in {collection}/{}: the {what} of {winner} stands, the other is kept",
                        plain(key)
                    ));
                }
            }
            Event::Problem { collection, key, kind, message } => {
                if self.problems.spend() {
                    let words = in_words(kind);
                    let what = document(collection, key);
                    self.warn(format_args!("{words}: {}: {}", plain(&what), plain(message)));
                }
            }
            other => self.trouble(other),
        }
    }

    /// Events that mean that something is wrong, or that the node is done.
    fn trouble(&self, event: &Event) {
        match event {
            Event::ClockSkew { node, detail } => {
                self.warn(format_args!("clocks differ, here and on {}: {}", self.label(node), plain(detail)));
            }
            Event::Refused { node, detail } => {
                self.alarm(format_args!("refused what {} sent: {}", self.label(node), plain(detail)));
            }
            Event::RefusedByPeer { node, detail } => {
                self.alarm(format_args!(
                    "{} refused what this node sent: {}",
                    self.label(node),
                    plain(detail)
                ));
            }
            Event::Forked { node, log, seq } => self.alarm(format_args!(
                "two histories of log {log} from entry {seq} on, the other one on {}; that log stops here",
                self.label(node)
            )),
            Event::Blocked { node, reason, entry, .. } => {
                let at = entry.as_ref().map_or(String::new(), |entry| format!(" at {}", plain(entry)));
                self.alarm(format_args!(
                    "links with {} end again and again{at}: {}",
                    self.label(node),
                    plain(reason)
                ));
            }
            Event::StartedAnew { detail } => self.warn(format_args!("{detail}; going on in a new incarnation")),
            Event::SnapshotRefused { node, collection, detail } => self.warn(format_args!(
                "no snapshot of {collection} from {}: {}; trying again",
                self.label(node),
                plain(detail)
            )),
            Event::Repairing { node, collection } => self.warn(format_args!(
                "rows of {collection} differ from {} though all changes are the same; joining them",
                self.label(node)
            )),
            Event::Copied { node, .. } => self.alarm(format_args!(
                "two processes run with the identity of {}: neither is let in until one of them is ended. A copied machine \
                 becomes a node of its own without the file `identity` in its data folder",
                self.label(node)
            )),
            Event::MemberRemoved { node, by } => {
                let (node, by) = (self.label(node), self.label(by));
                self.warn(format_args!("member {node} was removed by {by}: no history is kept for it"));
            }
            Event::MemberReturned { node } => {
                self.terminal.say(format_args!("member {} is back", self.label(node)));
            }
            Event::Collections { collections } => {
                self.terminal.say(format_args!("syncing {} from now on", collections.join(", ")));
            }
            Event::RolledBack { node, log } => self.warn(format_args!(
                "this database is an older copy of itself: {} knows more of log {log}; going on from there",
                self.label(node)
            )),
            Event::Diverged { node } => self.alarm(format_args!(
                "rows still differ from {} though all changes are the same; run: entgldb verify {}",
                self.label(node),
                self.config.database.display()
            )),
            Event::StoreBusy { for_ms } => self.warn(format_args!(
                "another program has kept the database locked for {}; waiting",
                span_of_ms(*for_ms)
            )),
            Event::ListenPaused { descriptors_max } => self.warn(format_args!(
                "few of the {descriptors_max} file descriptors are left; taking no connections for now (see ulimit -n)"
            )),
            Event::ListenResumed => self.terminal.say("taking connections again"),
            Event::StoreError { message, retry: true } => {
                self.alarm(format_args!("the database gave an error: {message}; trying again"));
            }
            Event::Lost { count: lost } => {
                self.warn(format_args!("{} left out here: too many at once", count(*lost, "event")));
            }
            Event::Stopped => self.terminal.say(style("stopped").for_stderr().dim()),
            _ => {}
        }
    }

    /// Brings what is not a single event up to date. Called about once a second.
    pub(super) fn refresh(&mut self, status: &Status) {
        let database = self.config.database.display();
        if let Some(more) = self.conflicts.refill() {
            self.warn(format_args!(
                "... and {}; run: entgldb conflicts {database}",
                count(more, "more conflict")
            ));
        }
        if let Some(more) = self.problems.refill() {
            self.warn(format_args!(
                "... and {}; run: entgldb problems {database}",
                count(more, "more problem")
            ));
        }
        if let Some(bottom) = &self.bottom {
            bottom.set_message(standing(status));
        }
    }

    /// The node was told to stop; links that end now are no news.
    pub(super) fn stopping(&mut self) {
        self.stopping = true;
        if let Some(bottom) = self.bottom.take() {
            bottom.finish_and_clear();
        }
        for peer in self.peers.values_mut() {
            peer.catch_up.take().inspect(|catch_up| catch_up.bar.finish_and_clear());
            peer.snapshot.take().inspect(ProgressBar::finish_and_clear);
        }
        for work in std::mem::take(&mut self.tables).into_values() {
            work.bar.finish_and_clear();
        }
        self.terminal.say(style("stopping ...").for_stderr().dim());
    }

    fn started(&self, node: &str, name: &str, listen: Option<&str>) {
        let database: &PathBuf = &self.config.database;
        let say = |label: &str, value: &str| {
            self.terminal.say(format_args!("  {} {value}", style(format!("{label:9}")).for_stderr().dim()));
        };
        self.terminal.say(format_args!(
            "{} {} of {}",
            style("Syncing").for_stderr().green().bold(),
            self.config.watch.join(", "),
            database.display()
        ));
        say("node", &format!("{name}  {node}"));
        say("listens", listen.unwrap_or("no (this node only dials)"));
        if !self.config.peers.is_empty() {
            say("dials", &self.config.peers.join(", "));
        }
        say("stop", "Ctrl-C");
        if listen.is_none() && self.config.peers.is_empty() {
            self.warn("nobody can reach this node and it reaches nobody: give it --listen or --peer");
        }
    }

    fn peer_up(&mut self, node: &str, name: &str, collections: &[String]) {
        self.names.insert(node.to_owned(), name.to_owned());
        self.peers.insert(node.to_owned(), Peer::default());
        self.unlinked.clear();
        let peer = with_id(name, node);
        if collections.is_empty() {
            self.warn(format_args!("linked with {peer}, but it syncs none of this node's tables"));
            return;
        }
        let plus = style("+").for_stderr().green().bold();
        self.terminal.say(format_args!("{plus} linked with {peer}: {}", collections.join(", ")));
    }

    fn peer_down(&mut self, node: &str, name: &str, reason: &str) {
        let peer = self.peers.remove(node);
        if let Some(catch_up) = peer.as_ref().and_then(|peer| peer.catch_up.as_ref()) {
            catch_up.bar.finish_and_clear();
        }
        if let Some(bar) = peer.as_ref().and_then(|peer| peer.snapshot.as_ref()) {
            bar.finish_and_clear();
        }
        if self.stopping || (peer.is_none() && !self.is_news(node, reason)) {
            return;
        }
        let what = if peer.is_some() { "lost" } else { "no link with" };
        let minus = style("-").for_stderr().yellow().bold();
        self.terminal.say(format_args!("{minus} {what} {}: {}", with_id(name, node), plain(reason)));
    }

    fn dial_failed(&mut self, target: &str, reason: &str) {
        if self.is_news(target, reason) {
            self.warn(format_args!("cannot link with {target}: {reason}; trying again"));
        }
    }

    fn peer_refused(&mut self, node: &str, name: &str, reason: &str) {
        if self.is_news(node, reason) {
            self.alarm(format_args!("turned away {}: {}", with_id(name, node), plain(reason)));
        }
    }

    fn is_news(&mut self, whom: &str, reason: &str) -> bool {
        self.unlinked.insert(whom.to_owned(), reason.to_owned()).is_none_or(|said| said != reason)
    }

    fn progress(&mut self, node: &str, have: u64, total: u64) {
        let Some(peer) = self.peers.get_mut(node) else { return };
        if let Some(catch_up) = &mut peer.catch_up {
            catch_up.have = have;
            catch_up.bar.set_length(total.saturating_sub(catch_up.first));
            catch_up.bar.set_position(have.saturating_sub(catch_up.first));
        } else if total.saturating_sub(have) >= CATCH_UP_FROM {
            let label = self.names.get(node).map_or(node, String::as_str).to_owned();
            let to_come = total - have;
            if !self.terminal.attended() {
                self.terminal
                    .say(format_args!("catching up with {label}: {} to come", count(to_come, "entry")));
            }
            let bar = self.terminal.bar(format!("catching up with {label}"), to_come);
            peer.catch_up = Some(CatchUp { since: Instant::now(), first: have, have, bar });
        }
    }

    /// A table of a few rows is done before anybody has read that it is looked at.
    fn looking_through(&mut self, table: &str, done: u64, of: u64) {
        if done >= of {
            let Some(work) = self.tables.remove(table) else { return };
            work.bar.finish_and_clear();
            let tick = style("=").for_stderr().green().bold();
            let (rows, seconds) = (count(of, "row"), work.since.elapsed().as_secs_f64());
            self.terminal
                .say(format_args!("{tick} looked through {}: {rows} in {seconds:.1} s", plain(table)));
            return;
        }
        if of < CATCH_UP_FROM {
            return;
        }
        if !self.tables.contains_key(table) {
            if !self.terminal.attended() {
                self.terminal.say(format_args!("looking through {}: {}", plain(table), count(of, "row")));
            }
            let bar = self.terminal.bar(format!("looking through {}", plain(table)), of);
            self.tables.insert(table.to_owned(), Work { since: Instant::now(), bar });
        }
        if let Some(work) = self.tables.get(table) {
            work.bar.set_length(of);
            work.bar.set_position(done);
        }
    }

    fn caught_up(&mut self, node: &str) {
        let label = self.label(node);
        let Some(peer) = self.peers.get_mut(node) else { return };
        let tick = style("=").for_stderr().green().bold();
        if let Some(catch_up) = peer.catch_up.take() {
            catch_up.bar.finish_and_clear();
            let total = catch_up.bar.length().unwrap_or(catch_up.have - catch_up.first);
            let seconds = catch_up.since.elapsed().as_secs_f64();
            self.terminal.say(format_args!(
                "{tick} caught up with {label}: {} in {seconds:.1} s",
                count(total, "entry")
            ));
        } else if !peer.in_sync_said {
            self.terminal.say(format_args!("{tick} in sync with {label}"));
        }
        peer.in_sync_said = true;
    }

    fn snapshot(&mut self, node: &str, collection: &str, (rows, total, done): (u64, u64, bool)) {
        let label = self.label(node);
        let Some(peer) = self.peers.get_mut(node) else { return };
        if done {
            peer.snapshot.take().inspect(ProgressBar::finish_and_clear);
            let tick = style("=").for_stderr().green().bold();
            let rows = count(rows, "row");
            self.terminal.say(format_args!("{tick} snapshot of {collection} from {label}: {rows}"));
            return;
        }
        let bar = peer.snapshot.get_or_insert_with(|| {
            self.terminal.bar(format!("snapshot of {collection} from {label}"), total)
        });
        bar.set_length(total);
        bar.set_position(rows);
    }

    fn deleted_wins(&self, event: &Event) -> bool {
        matches!(event, Event::Conflict { winner, .. } if winner.deleted)
    }

    fn label(&self, node: &str) -> String {
        self.names.get(node).cloned().unwrap_or_else(|| node.chars().take(SHORT_ID).collect())
    }

    fn warn(&self, text: impl std::fmt::Display) {
        self.terminal.say(format_args!("{} {text}", style("!").for_stderr().yellow().bold()));
    }

    fn alarm(&self, text: impl std::fmt::Display) {
        self.terminal.say(format_args!("{} {text}", style("!").for_stderr().red().bold()));
    }
}

fn with_id(name: &str, node: &str) -> String {
    let short: String = node.chars().take(SHORT_ID).collect();
    if name.ends_with(&short) { name.to_owned() } else { format!("{name} ({short})") }
}

/// One line for how things stand.
fn standing(status: &Status) -> String {
    let mut line = format!(
        "{} · {} · {} captured · {} applied",
        count(status.peers.len() as u64, "peer"),
        count(status.entries, "entry"),
        thousands(status.captured),
        thousands(status.applied)
    );
    if status.conflicts > 0 {
        line = format!("{line} · {}", count(status.conflicts, "conflict"));
    }
    if status.state == State::Recovering {
        line = format!("{line} · the database is being opened again");
    }
    line
}
