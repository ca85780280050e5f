//! Being asked to stop: Ctrl-C, SIGTERM, the end of standard input.

use std::io::{self, Read};
use std::process;
use std::thread;

use crate::failure::{Exit, Failure};

/// Calls `stop` when the process is asked to stop. Asked a second time, the process ends at once: a node may be killed at
/// any moment without harm.
pub(crate) fn on_stop(stop: impl FnOnce() + Send + 'static) -> Result<(), Failure> {
    let failed = |error: io::Error| {
        Failure::start(format_args!("cannot listen for signals: {error}"), "free some threads or open files")
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build().map_err(failed)?;
    let mut signals = {
        let _context = runtime.enter();
        Signals::listen().map_err(failed)?
    };
    let wait = move || {
        runtime.block_on(signals.next());
        stop();
        runtime.block_on(signals.next());
        process::exit(Exit::Interrupted as i32);
    };
    thread::Builder::new().name("signals".to_owned()).spawn(wait).map_err(failed)?;
    Ok(())
}

/// Calls `stop` when standard input ends.
pub(crate) fn on_stdin_end(stop: impl FnOnce() + Send + 'static) -> Result<(), Failure> {
    let wait = move || {
        let mut stdin = io::stdin().lock();
        let mut ignored = [0; 256];
        while !matches!(stdin.read(&mut ignored), Ok(0) | Err(_)) {}
        stop();
    };
    let spawned = thread::Builder::new().name("stdin".to_owned()).spawn(wait);
    spawned.map(drop).map_err(|error| {
        Failure::start(format_args!("cannot watch standard input: {error}"), "free some threads")
    })
}

#[cfg(unix)]
struct Signals {
    interrupt: tokio::signal::unix::Signal,
    terminate: tokio::signal::unix::Signal,
}

#[cfg(unix)]
impl Signals {
    fn listen() -> io::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        Ok(Self { interrupt: signal(SignalKind::interrupt())?, terminate: signal(SignalKind::terminate())? })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}

#[cfg(not(unix))]
struct Signals;

#[cfg(not(unix))]
impl Signals {
    #[expect(clippy::unnecessary_wraps, reason = "the same signature on every system")]
    fn listen() -> io::Result<Self> {
        Ok(Self)
    }

    async fn next(&mut self) {
        if tokio::signal::ctrl_c().await.is_err() {
            std::future::pending().await
        }
    }
}
