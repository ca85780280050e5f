//! What callers hold instead of pointers: numbers, looked up at each use. So a node that is used after it was freed, or a
//! reply that is finished twice, is an error with a text, never a fault of memory.

use std::collections::HashMap;
use std::process;
use std::ptr;
use std::sync::atomic::{AtomicPtr, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::failure::Failure;
use crate::status::{ENTGLDB_ERROR_CLOSED, ENTGLDB_ERROR_FORKED};

/// Steps of two from one: never NULL, and never where a struct could lie.
static NEXT: AtomicUsize = AtomicUsize::new(1);

/// Everything of one kind that callers have a number of.
pub(crate) struct Registry<T: 'static> {
    /// Never freed: a fork of the process makes another, as the lock may be held by a thread that it does not have.
    here: AtomicPtr<Here<T>>,
    what: &'static str,
}

struct Here<T> {
    pid: u32,
    /// Numbers below it are of the process that this one is a fork of.
    first: usize,
    live: Mutex<HashMap<usize, Arc<T>>>,
}

impl<T: Send + Sync> Registry<T> {
    pub(crate) const fn new(what: &'static str) -> Self {
        Self { here: AtomicPtr::new(ptr::null_mut()), what }
    }

    /// Gives something a number.
    pub(crate) fn insert(&self, value: Arc<T>) -> usize {
        let mut live = self.own();
        let number = NEXT.fetch_add(2, Ordering::Relaxed);
        live.insert(number, value);
        number
    }

    /// What has this number.
    pub(crate) fn get(&self, number: usize) -> Result<Arc<T>, Failure> {
        let found = self.inherited(number)?.and_then(|live| live.get(&number).cloned());
        found.ok_or_else(|| self.gone(number))
    }

    /// Takes the number away; whoever has looked it up before keeps it.
    pub(crate) fn remove(&self, number: usize) -> Result<Arc<T>, Failure> {
        let found = self.inherited(number)?.and_then(|mut live| live.remove(&number));
        found.ok_or_else(|| self.gone(number))
    }

    fn gone(&self, number: usize) -> Failure {
        match number {
            0 => Failure::argument(format!("the {} is NULL", self.what)),
            _ => Failure::new(ENTGLDB_ERROR_CLOSED, format!("there is no such {} any more", self.what)),
        }
    }

    /// The live ones, unless this is a fork of the process that made them.
    fn inherited(&self, number: usize) -> Result<Option<Live<'_, T>>, Failure> {
        let Some(here) = self.load() else { return Ok(None) };
        if number != 0 && (here.pid != process::id() || number < here.first) {
            return Err(Failure::new(
                ENTGLDB_ERROR_FORKED,
                format!("the {} belongs to the process that this one is a fork of", self.what),
            ));
        }
        Ok(Some(lock(&here.live)))
    }

    fn own(&self) -> Live<'_, T> {
        let found = self.load();
        if let Some(here) = found
            && here.pid == process::id()
        {
            return lock(&here.live);
        }
        let expected = found.map_or(ptr::null_mut(), |here| ptr::from_ref(here).cast_mut());
        let first = NEXT.load(Ordering::Relaxed);
        let made = Box::into_raw(Box::new(Here { pid: process::id(), first, live: Mutex::default() }));
        match self.here.compare_exchange(expected, made, Ordering::AcqRel, Ordering::Acquire) {
            // SAFETY: just made, and from here on never freed.
            Ok(_) => lock(unsafe { &(*made).live }),
            Err(_) => {
                // SAFETY: just made, and nobody else has seen it.
                drop(unsafe { Box::from_raw(made) });
                self.own()
            }
        }
    }

    fn load(&self) -> Option<&'static Here<T>> {
        // SAFETY: NULL, or made by `own` and never freed.
        unsafe { self.here.load(Ordering::Acquire).as_ref() }
    }
}

type Live<'a, T> = MutexGuard<'a, HashMap<usize, Arc<T>>>;

fn lock<T>(live: &Mutex<T>) -> MutexGuard<'_, T> {
    live.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_is_known_until_it_is_removed_and_never_comes_again() {
        static NUMBERS: Registry<&str> = Registry::new("thing");
        assert_eq!(NUMBERS.get(7).unwrap_err().status, ENTGLDB_ERROR_CLOSED);
        let first = NUMBERS.insert(Arc::new("a"));
        assert_eq!(*NUMBERS.get(first).unwrap(), "a");
        assert_eq!(*NUMBERS.remove(first).unwrap(), "a");
        assert_eq!(NUMBERS.remove(first).unwrap_err().status, ENTGLDB_ERROR_CLOSED);
        assert_ne!(NUMBERS.insert(Arc::new("b")), first);
    }

    #[test]
    fn null_is_the_callers_mistake() {
        static NUMBERS: Registry<&str> = Registry::new("thing");
        assert_eq!(NUMBERS.get(0).unwrap_err().status, crate::status::ENTGLDB_ERROR_INVALID_ARGUMENT);
    }
}
