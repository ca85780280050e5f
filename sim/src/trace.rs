//! What happened, as one number to compare, and as a story to read.

use std::collections::VecDeque;
use std::hash::{DefaultHasher, Hash, Hasher};

use entgldb_replica::Input;

use crate::clock::Time;

/// Lines of a story that are kept: the last ones.
const LINES_MAX: usize = 150;
/// Longest line; contents of documents are long and boring.
const CHARACTERS_MAX: usize = 200;

/// See the module's documentation.
pub(crate) struct Trace {
    hasher: DefaultHasher,
    lines: Option<VecDeque<String>>,
    events: u64,
}

impl Trace {
    /// `story` tells whether to keep lines.
    pub(crate) fn new(story: bool) -> Self {
        Self { hasher: DefaultHasher::new(), lines: story.then(VecDeque::new), events: 0 }
    }

    /// Takes an event into the hash.
    pub(crate) fn mix(&mut self, now: Time, what: &'static str, node: usize, more: impl Hash) {
        self.events += 1;
        (now.0, what, node).hash(&mut self.hasher);
        more.hash(&mut self.hasher);
    }

    /// Adds a line to the story; `line` is only made if there is one.
    pub(crate) fn tell(&mut self, now: Time, line: impl FnOnce() -> String) {
        if let Some(lines) = &mut self.lines {
            if lines.len() >= LINES_MAX {
                lines.pop_front();
            }
            let line: String = line().chars().take(CHARACTERS_MAX).collect();
            lines.push_back(format!("{:>9.3} s  {line}", now.0 as f64 / 1000.0));
        }
    }

    pub(crate) fn hash(&self) -> u64 {
        self.hasher.finish()
    }

    pub(crate) fn events(&self) -> u64 {
        self.events
    }

    pub(crate) fn into_story(self) -> Vec<String> {
        self.lines.map(Vec::from).unwrap_or_default()
    }

    /// Takes what a replica is told into the hash.
    pub(crate) fn mix_input(&mut self, now: Time, node: usize, input: &Input) {
        match input {
            Input::Frame { link, kind, .. } => self.mix(now, "frame", node, (link, kind)),
            Input::LinkUp(link) => self.mix(now, "up", node, link.id),
            Input::LinkDown { link, .. } => self.mix(now, "down", node, link),
            Input::DialFailed { target, .. } => self.mix(now, "dial failed", node, target),
            Input::LocalChange => self.mix(now, "local", node, ()),
            Input::Interests(interests) => self.mix(now, "interests", node, interests),
            Input::RemoveMember(member) => self.mix(now, "remove", node, member),
            Input::SyncNow => self.mix(now, "sync now", node, ()),
            Input::Tick => self.mix(now, "tick", node, ()),
        }
    }
}
