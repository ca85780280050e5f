//! Changes of peers that wait until the application is not in the middle of something.
//!
//! An application that reads and then writes in one transaction fails if anybody commits in between, whatever its timeout;
//! with a timeout of 0 any write fails that meets ours. While an application writes in a rhythm, as programs with users do,
//! the moment right after its own commit is the one at which it is least likely to be in a transaction. So what peers send
//! then waits for that moment, for a few hundredths of a second at most, and goes in together with the capture of that
//! commit. An application that does not write waits for nothing.

use std::path::Path;
use std::time::{Duration, Instant};

use entgldb_net::{Frame, InFlight};
use entgldb_replica::Input;
use entgldb_replica::id::LinkId;
use entgldb_replica::wire;

use crate::driver::Driver;

/// So many frames wait at most: more is a catch-up, which is not held up.
const FRAMES_MAX: usize = 16;
/// A larger frame is part of a catch-up too.
const FRAME_BYTES_MAX: usize = 64 << 10;

/// A frame from a peer. Its permit is given back when it has been dealt with.
pub(crate) struct HeldFrame {
    pub(crate) link: LinkId,
    pub(crate) frame: Frame,
    pub(crate) permit: InFlight,
}

/// The frames that wait, in the order in which they came.
#[derive(Default)]
pub(crate) struct Held {
    frames: Vec<HeldFrame>,
    until: Option<Instant>,
}

impl Held {
    /// How long the frames may still wait.
    pub(crate) fn until(&self, now: Instant) -> Duration {
        self.until.map_or(Duration::MAX, |until| until.saturating_duration_since(now))
    }

    pub(crate) fn is_due(&self, now: Instant) -> bool {
        self.until.is_some_and(|until| now >= until)
    }

    /// Whether the frame was taken. A frame that follows one that waits has to wait too: their order counts.
    fn take(&mut self, frame: HeldFrame, until: Option<Instant>) -> Result<(), HeldFrame> {
        let is_small = frame.frame.body.len() <= FRAME_BYTES_MAX && self.frames.len() < FRAMES_MAX;
        match self.until.or(until) {
            Some(until) if is_small => {
                self.until = Some(until);
                self.frames.push(frame);
                Ok(())
            }
            _ => Err(frame),
        }
    }
}

/// How long ago somebody has committed to a database: its log was written then. `None` where that can't be told.
fn log_age(database: &Path) -> Option<Duration> {
    let mut log = database.as_os_str().to_owned();
    log.push("-wal");
    let written = std::fs::metadata(log).ok()?.modified().ok()?;
    // After the clock was set back a log may be dated to later than now: it was written just now.
    Some(written.elapsed().unwrap_or_default())
}

impl Driver {
    /// Looks whether the application has written something.
    pub(crate) fn look(&mut self) {
        let Some(replica) = &mut self.replica else { return };
        let store = replica.store();
        let found = store.outbox_is_empty().and_then(|empty| Ok((!empty, store.is_scanning()?)));
        match found.map(|(has_notes, is_scanning)| (has_notes || is_scanning, is_scanning)) {
            Ok((true, is_scanning)) => {
                let age = if is_scanning { None } else { log_age(&self.recipe.store.path) };
                if age.is_some_and(|age| self.attention.puts_off(age)) {
                    return;
                }
                self.attention.found();
                self.input(Input::LocalChange);
                self.attention.done();
                self.let_in();
            }
            Ok((false, _)) => self.attention.nothing(),
            Err(failed) => self.store_failed(&failed),
        }
    }

    pub(crate) fn take_frame(&mut self, frame: HeldFrame) {
        let writes = frame.frame.kind == wire::Message::PAGE;
        let until = if writes { self.attention.in_a_transaction_until(Instant::now()) } else { None };
        if let Err(frame) = self.held.take(frame, until) {
            self.let_in();
            self.frame_in(frame);
        }
    }

    /// Everything that waits goes in.
    pub(crate) fn let_in(&mut self) {
        self.held.until = None;
        for frame in std::mem::take(&mut self.held.frames) {
            self.frame_in(frame);
        }
    }

    fn frame_in(&mut self, HeldFrame { link, frame, permit }: HeldFrame) {
        self.input(Input::Frame { link, kind: frame.kind, body: frame.body });
        drop(permit);
    }
}
