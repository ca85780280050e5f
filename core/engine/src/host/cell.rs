//! The one place where the application's hooks are called.

use std::any::Any;
use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crossbeam_channel::{RecvTimeoutError, Sender, bounded};
use entgldb_replica::custom::{Resolver, ResolverFailed};
use tracing::warn;

use super::{HostCapabilities, HostError, HostResult, HostStore};
use crate::event::Event;
use crate::hub::Hub;

thread_local! {
    static DEPTH: Cell<u32> = const { Cell::new(0) };
}

/// Whether the calling thread is inside a hook, so that it must not wait for the engine.
#[must_use]
pub fn in_hook() -> bool {
    DEPTH.get() > 0
}

/// Marks the calling thread as inside a hook until it is dropped. The engine does that around every hook; a binding that
/// carries a hook out on a thread of its own does it there too, so that a call back in is refused instead of hanging.
#[derive(Debug)]
pub struct HookScope(std::marker::PhantomData<*const ()>);

impl HookScope {
    /// Enters.
    #[must_use]
    pub fn enter() -> Self {
        DEPTH.set(DEPTH.get() + 1);
        Self(std::marker::PhantomData)
    }
}

impl Drop for HookScope {
    fn drop(&mut self) {
        DEPTH.set(DEPTH.get().saturating_sub(1));
    }
}

/// A hook that is being called.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct InFlight {
    pub(crate) hook: &'static str,
    pub(crate) since: Instant,
}

impl InFlight {
    pub(crate) fn for_ms(&self) -> u64 {
        u64::try_from(self.since.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}

/// The application's store, shared by what calls it: the adapter, and the resolvers of its collections. All of that is on
/// the engine's one store thread, so the lock is never waited for. Whoever lets go last drops the store.
#[derive(Clone)]
pub(crate) struct HostCell {
    store: Arc<Mutex<Box<dyn HostStore>>>,
    in_flight: HooksInFlight,
    pub(crate) capabilities: HostCapabilities,
}

/// Which hook is being called, for whoever watches.
#[derive(Clone, Default, Debug)]
pub(crate) struct HooksInFlight(Arc<Mutex<Option<InFlight>>>);

impl HooksInFlight {
    pub(crate) fn now(&self) -> Option<InFlight> {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set(&self, hook: Option<InFlight>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = hook;
    }
}

/// How long a hook may run before it is told of, and how often it is looked.
const SLOW: Duration = Duration::from_secs(5);
const LOOK: Duration = Duration::from_secs(1);

/// Tells of hooks that take long, from a thread of its own, until it is dropped.
#[derive(Debug)]
pub(crate) struct HookWatch {
    // Closing it ends the thread.
    _end: Sender<()>,
}

impl HookWatch {
    pub(crate) fn start(hooks: HooksInFlight, hub: Hub) -> std::io::Result<Self> {
        let (end, ended) = bounded::<()>(1);
        let watch = move || {
            let mut told: Option<(Instant, Duration)> = None;
            while ended.recv_timeout(LOOK) == Err(RecvTimeoutError::Timeout) {
                let Some(running) = hooks.now() else { continue };
                let InFlight { hook, since } = running;
                let next = match told {
                    Some((known, at)) if known == since => at * 2,
                    _ => SLOW,
                };
                if since.elapsed() >= next {
                    told = Some((since, next));
                    let for_ms = running.for_ms();
                    warn!(hook, for_ms, "a hook of the application's store takes long");
                    hub.tell(&Event::HookSlow { hook, for_ms });
                }
            }
        };
        std::thread::Builder::new().name("entgldb-hooks".to_owned()).spawn(watch)?;
        Ok(Self { _end: end })
    }
}

impl std::fmt::Debug for HostCell {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("HostCell").field("capabilities", &self.capabilities).finish_non_exhaustive()
    }
}

impl HostCell {
    pub(crate) fn new(store: Box<dyn HostStore>) -> Self {
        // A store that can't say what it has, has nothing.
        let asked = catch_unwind(AssertUnwindSafe(|| store.capabilities()));
        let capabilities = asked.unwrap_or_default();
        Self { store: Arc::new(Mutex::new(store)), in_flight: HooksInFlight::default(), capabilities }
    }

    pub(crate) fn in_flight(&self) -> HooksInFlight {
        self.in_flight.clone()
    }

    /// The hook that decides between versions, as a resolver.
    pub(crate) fn resolver(&self) -> Resolver {
        let host = self.clone();
        Resolver::fallible(move |collection, key, versions| {
            let doc = (collection.clone(), key.clone());
            let resolved = host.call("resolve", |store| store.resolve(&doc, versions));
            resolved.map_err(|error| ResolverFailed(error.to_string()))
        })
    }

    /// Calls one hook.
    pub(crate) fn call<T>(
        &self,
        hook: &'static str,
        work: impl FnOnce(&mut dyn HostStore) -> HostResult<T>,
    ) -> HostResult<T> {
        let mut store = self.store.lock().unwrap_or_else(PoisonError::into_inner);
        let _scope = HookScope::enter();
        self.in_flight.set(Some(InFlight { hook, since: Instant::now() }));
        // What a panic left half done in the store is the store's own affair: it is called as after any failure.
        let answer = catch_unwind(AssertUnwindSafe(|| work(&mut **store)));
        self.in_flight.set(None);
        answer.unwrap_or_else(|panic| {
            Err(HostError::failed(format!("the {hook} hook panicked: {}", words(&*panic))))
        })
    }
}

fn words(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("without a message")
}
