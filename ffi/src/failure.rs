//! Why a call failed: its status and its text, which the caller's thread can ask for.

use std::cell::RefCell;
use std::ffi::c_char;
use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::status::{ENTGLDB_ERROR_INVALID_ARGUMENT, ENTGLDB_ERROR_PANIC, ENTGLDB_OK, Status};

thread_local! {
    static LAST: RefCell<String> = const { RefCell::new(String::new()) };
}

/// What a function answers instead of doing its work.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) status: Status,
    pub(crate) message: String,
}

impl Failure {
    pub(crate) fn new(status: Status, message: impl Into<String>) -> Self {
        Self { status, message: message.into() }
    }

    /// The caller's mistake.
    pub(crate) fn argument(message: impl Into<String>) -> Self {
        Self::new(ENTGLDB_ERROR_INVALID_ARGUMENT, message)
    }
}

/// Runs the body of an exported function: no panic leaves it, and its failure is kept for `entgldb_last_error`.
pub(crate) fn call(body: impl FnOnce() -> Result<(), Failure>) -> Status {
    match catch_unwind(AssertUnwindSafe(body)) {
        Ok(Ok(())) => ENTGLDB_OK,
        Ok(Err(failure)) => {
            remember(failure.message);
            failure.status
        }
        Err(panic) => {
            remember(format!("a bug of EntglDb: {}", panic_text(panic.as_ref())));
            ENTGLDB_ERROR_PANIC
        }
    }
}

/// A thread that is ending has nobody left who could ask.
fn remember(message: String) {
    let _ = LAST.try_with(|last| *last.borrow_mut() = message);
}

pub(crate) fn panic_text(panic: &(dyn std::any::Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("a panic without a text")
}

/// Copies the text of the last error of a function that was called on this thread into `buf`, cut to `cap - 1` bytes (never
/// within a character) and ended by a NUL. Functions that succeed leave it as it was.
///
/// Returns the length of the whole text without the NUL; 0 if there was no error. `buf` may be NULL if `cap` is 0.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn entgldb_last_error(buf: *mut c_char, cap: usize) -> usize {
    let text = LAST.try_with(|last| last.borrow().clone()).unwrap_or_default();
    if buf.is_null() || cap == 0 {
        return text.len();
    }
    let fits = text.floor_char_boundary(cap - 1);
    // SAFETY: the caller says that `cap` bytes may be written to `buf`; `fits` is at most `cap - 1`, and within the text.
    unsafe {
        std::ptr::copy_nonoverlapping(text.as_ptr(), buf.cast::<u8>(), fits);
        *buf.add(fits) = 0;
    }
    text.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn last() -> String {
        let mut text = [0u8; 200];
        // SAFETY: so many bytes may be written there.
        let length = unsafe { entgldb_last_error(text.as_mut_ptr().cast(), text.len()) };
        String::from_utf8(text[..length].to_vec()).unwrap()
    }

    #[test]
    fn a_panic_becomes_an_error_with_its_text() {
        assert_eq!(call(|| panic!("number {}", 7)), ENTGLDB_ERROR_PANIC);
        assert_eq!(last(), "a bug of EntglDb: number 7");
        assert_eq!(call(|| std::panic::panic_any(7)), ENTGLDB_ERROR_PANIC);
        assert_eq!(last(), "a bug of EntglDb: a panic without a text");
    }

    #[test]
    fn what_succeeds_leaves_the_last_error_as_it_was() {
        assert_eq!(call(|| Err(Failure::argument("no"))), ENTGLDB_ERROR_INVALID_ARGUMENT);
        assert_eq!(call(|| Ok(())), ENTGLDB_OK);
        assert_eq!(last(), "no");
    }
}
