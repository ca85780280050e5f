//! What the library hands out.

use std::mem::ManuallyDrop;
use std::ptr;

use crate::types::Buffer;

impl Buffer {
    /// A text for the caller, with a NUL after it.
    pub(crate) fn of(text: String) -> Self {
        let len = text.len();
        let mut bytes = text.into_bytes();
        bytes.push(0);
        let mut bytes = ManuallyDrop::new(bytes);
        Self { data: bytes.as_mut_ptr(), len, cap: bytes.capacity() }
    }
}

/// Gives back what a function wrote to a buffer, and empties it. A buffer that is empty (all zero) or NULL is left alone, so
/// calling it twice does no harm.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn entgldb_buffer_free(buffer: *mut Buffer) {
    if buffer.is_null() {
        return;
    }
    // SAFETY: not NULL; the caller says that it is a buffer.
    let taken = unsafe { ptr::replace(buffer, Buffer { data: ptr::null_mut(), len: 0, cap: 0 }) };
    if !taken.data.is_null() && taken.cap > taken.len {
        // SAFETY: `Buffer::of` made these of a vector of so many bytes and one more, and nobody else frees them.
        drop(unsafe { Vec::from_raw_parts(taken.data, taken.len + 1, taken.cap) });
    }
}
