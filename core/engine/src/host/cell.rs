//! The one place where the application's hooks are called.

use std::any::Any;
use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::{HostCapabilities, HostError, HostResult, HostStore};

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

    /// How long a hook has been running, and which.
    pub(crate) fn running(&self) -> Option<(&'static str, Duration)> {
        self.now().map(|hook| (hook.hook, hook.since.elapsed()))
    }

    fn set(&self, hook: Option<InFlight>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = hook;
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
