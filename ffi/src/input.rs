//! What callers pass, checked: the only place that reads their memory.

use std::slice;

use crate::failure::Failure;
use crate::status::ENTGLDB_ERROR_LIMIT;
use crate::types::{Bytes, Doc};

/// Documents in one call: more would hold the store up for too long.
const DOCS_MAX: usize = 1 << 20;

/// Reads lent bytes.
///
/// # Safety
/// If `bytes.data` is not NULL, `bytes.len` bytes can be read there until the call that passed them returns.
pub(crate) unsafe fn bytes<'a>(bytes: Bytes, what: &str) -> Result<&'a [u8], Failure> {
    match (bytes.data.is_null(), bytes.len) {
        (_, 0) => Ok(&[]),
        (true, len) => Err(Failure::argument(format!("{what}: the data is NULL and the length {len}"))),
        (false, len) if len > isize::MAX.cast_unsigned() => {
            Err(Failure::argument(format!("{what}: no memory is {len} bytes long")))
        }
        // SAFETY: not NULL, and as long as the caller promises.
        (false, len) => Ok(unsafe { slice::from_raw_parts(bytes.data, len) }),
    }
}

/// Reads lent text.
///
/// # Safety
/// As for [`bytes`].
pub(crate) unsafe fn text<'a>(lent: Bytes, what: &str) -> Result<&'a str, Failure> {
    // SAFETY: the caller's promise is passed on.
    let bytes = unsafe { bytes(lent, what)? };
    str::from_utf8(bytes).map_err(|error| Failure::argument(format!("{what}: not UTF-8: {error}")))
}

/// Reads an array of documents.
///
/// # Safety
/// If `docs` is not NULL, it points to `n` documents.
pub(crate) unsafe fn docs<'a>(docs: *const Doc, n: usize) -> Result<&'a [Doc], Failure> {
    if n > DOCS_MAX {
        return Err(Failure::new(
            ENTGLDB_ERROR_LIMIT,
            format!("n: {n} documents; the limit DOCS_MAX allows {DOCS_MAX} in one call"),
        ));
    }
    // SAFETY: the caller's promise is passed on; `Doc` may hold any bits.
    unsafe { array(docs, n, "docs") }
}

/// Reads an array.
///
/// # Safety
/// If `items` is not NULL, it points to `n` of them, and any bits are a valid one.
pub(crate) unsafe fn array<'a, T>(items: *const T, n: usize, what: &str) -> Result<&'a [T], Failure> {
    if n == 0 {
        return Ok(&[]);
    }
    if items.is_null() {
        return Err(Failure::argument(format!("{what}: NULL, and {n} of them")));
    }
    if !items.is_aligned() {
        return Err(Failure::argument(format!("{what}: not where such a struct can lie (alignment)")));
    }
    // SAFETY: not NULL, aligned, and the caller promises `n` of them.
    Ok(unsafe { slice::from_raw_parts(items, n) })
}

/// A place that a result is written to.
///
/// # Safety
/// If `place` is not NULL, a `T` can be written there until the call returns.
pub(crate) unsafe fn place<'a, T>(
    place: *mut T,
    what: &str,
) -> Result<&'a mut std::mem::MaybeUninit<T>, Failure> {
    if place.is_null() || !place.is_aligned() {
        return Err(Failure::argument(format!("{what}: NULL, or not where such a result can lie")));
    }
    // SAFETY: not NULL, aligned, and writable as the caller promises; nothing is assumed of what it holds.
    Ok(unsafe { &mut *place.cast() })
}
