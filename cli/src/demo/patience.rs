//! Waiting for something to become true: never for ever, and not at all once somebody pressed Ctrl-C.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::failure::{Exit, Failure};
use crate::signals;

/// Longest wait for one thing. Everything the demo waits for takes well under a second on a quiet machine.
pub(super) const LONG: Duration = Duration::from_secs(30);

/// Says when it is time to give up.
#[derive(Clone, Default)]
pub(super) struct Patience(Arc<AtomicBool>);

impl Patience {
    /// Ends when the process is asked to stop.
    pub(super) fn until_stopped() -> Result<Self, Failure> {
        let patience = Self::default();
        let stopped = Arc::clone(&patience.0);
        signals::on_stop(move || stopped.store(true, Ordering::Relaxed))?;
        Ok(patience)
    }

    /// Fails once the process is asked to stop.
    pub(super) fn check(&self) -> Result<(), Failure> {
        if self.0.load(Ordering::Relaxed) { Err(Failure::interrupted()) } else { Ok(()) }
    }

    /// Looks again and again until it is so, and says how long that took.
    pub(super) fn wait(
        &self,
        what: &str,
        pause: Duration,
        mut is_so: impl FnMut() -> Result<bool, Failure>,
    ) -> Result<Duration, Failure> {
        let start = Instant::now();
        while start.elapsed() < LONG {
            self.check()?;
            if is_so()? {
                return Ok(start.elapsed());
            }
            thread::sleep(pause);
        }
        Err(Failure::new(
            Exit::CheckFailed,
            format_args!("{what}: not so after {} s", LONG.as_secs()),
            "run the demo again with --keep, then look at the logs and at `entgldb status`",
        ))
    }
}
