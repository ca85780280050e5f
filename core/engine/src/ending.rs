//! The end of a node: once, from whatever thread, and without waiting where nobody may wait.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam_channel::Sender;
use entgldb_net::Transport;
use tracing::error;

use crate::data_dir::DataDir;
use crate::driver::{self, Message};
use crate::host::{HookWatch, HooksInFlight, InFlight};

/// What runs while a node does.
pub(crate) struct Running {
    pub(crate) runtime: tokio::runtime::Runtime,
    pub(crate) thread: JoinHandle<()>,
    pub(crate) transport: Transport,
    pub(crate) to_driver: Sender<Message>,
    pub(crate) stop: Arc<AtomicBool>,
    pub(crate) data_dir: DataDir,
    pub(crate) watch: Option<HookWatch>,
}

/// See the module's documentation.
pub(crate) struct Ending {
    running: Mutex<Option<Running>>,
    closed: Arc<AtomicBool>,
    ended: Arc<Ended>,
    hooks: Option<HooksInFlight>,
}

/// Whether all is over.
#[derive(Default)]
struct Ended {
    is: Mutex<bool>,
    changed: Condvar,
}

impl Ended {
    fn lock(&self) -> MutexGuard<'_, bool> {
        self.is.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set(&self) {
        *self.lock() = true;
        self.changed.notify_all();
    }
}

impl Ending {
    pub(crate) fn new(running: Running, closed: Arc<AtomicBool>, hooks: Option<HooksInFlight>) -> Self {
        Self { running: Mutex::new(Some(running)), closed, ended: Arc::default(), hooks }
    }

    fn take(&self) -> Option<Running> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Begins the end, the first time. It goes on by itself, on a thread of its own: a runtime can't be ended from one of its
    /// own threads, nor the store's thread waited for by itself.
    pub(crate) fn begin(&self) {
        let Some(running) = self.take() else { return };
        self.closed.store(true, Ordering::Release);
        let ended = Arc::clone(&self.ended);
        let end = move || {
            running.end();
            ended.set();
        };
        let thread = std::thread::Builder::new().name("entgldb-end".to_owned());
        if let Err(error) = thread.spawn(end) {
            // Everything of the node was dropped with the closure; its threads end by themselves.
            error!(%error, "no thread to end the node with");
            self.ended.set();
        }
    }

    /// Waits for the end, for ever or so long. Answers whether it has come.
    pub(crate) fn wait(&self, timeout: Option<Duration>) -> bool {
        let deadline = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
        let mut is = self.ended.lock();
        while !*is {
            is = match deadline {
                None => self.ended.changed.wait(is).unwrap_or_else(PoisonError::into_inner),
                Some(deadline) => {
                    let left = deadline.saturating_duration_since(Instant::now());
                    if left.is_zero() {
                        return false;
                    }
                    let waited = self.ended.changed.wait_timeout(is, left);
                    waited.unwrap_or_else(PoisonError::into_inner).0
                }
            };
        }
        true
    }

    /// The hook that is being called.
    pub(crate) fn running_hook(&self) -> Option<InFlight> {
        self.hooks.as_ref()?.now()
    }

    /// Leaves everything as it is, in a forked process: its threads are not there, and its locks are another's.
    pub(crate) fn forget(&self) {
        if let Ok(mut running) = self.running.try_lock() {
            std::mem::forget(running.take());
        }
    }
}

impl Running {
    fn end(self) {
        let Self { runtime, thread, transport, to_driver, stop, data_dir, watch } = self;
        runtime.block_on(transport.shutdown());
        driver::interrupt(&stop);
        let _ = to_driver.send(Message::Stop);
        // A panic there was reported by its own hook.
        let _ = thread.join();
        drop(watch);
        runtime.shutdown_background();
        drop(data_dir);
    }
}
