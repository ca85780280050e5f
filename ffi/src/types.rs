//! The types that cross the boundary. Their layout is a promise: see `layout` below and `ffi/tests/layout.c`.

use std::ffi::c_void;

use crate::status::Status;

/// Bytes that are only lent: whoever passes them keeps them, and they are not read after the call that they were passed
/// to has returned. No NUL is needed at the end. `data` may be NULL where `len` is 0.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Bytes {
    /// The first byte.
    pub data: *const u8,
    /// How many there are.
    pub len: usize,
}

/// Bytes that the library has allocated for the caller, who gives them back with `entgldb_buffer_free`, and in no other
/// way. They are text as JSON in UTF-8; a NUL follows that `len` does not count, so `data` can be printed.
///
/// A function that fills one writes to it only if it succeeds, and never frees what it held before.
#[repr(C)]
pub struct Buffer {
    /// The first byte; NULL in an empty one.
    pub data: *mut u8,
    /// How many there are, without the NUL.
    pub len: usize,
    /// The library's own affair.
    pub cap: usize,
}

/// A document, or only the name of one. Set what is not used to zero: `entgldb_doc doc = {0};`.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Doc {
    /// The collection's name: 1 to 128 bytes of UTF-8 without control characters.
    pub collection: Bytes,
    /// The key in it: 1 to 1,024 bytes of UTF-8 without NUL.
    pub key: Bytes,
    /// A JSON object in UTF-8. Empty where only keys are passed, and in deletes.
    pub content: Bytes,
    /// When the version was made: milliseconds since 1970 in the upper 48 bits, a counter in the lower 16. Given to hooks;
    /// ignored in what is passed to the library.
    pub hlc: u64,
    /// Zero.
    pub reserved: [u64; 3],
}

/// What a hook answers with, beside its status. One belongs to one call of one hook: it may be used until the hook has
/// returned, or after `ENTGLDB_PENDING` until `entgldb_reply_finish`, by one thread after another. A use after that is
/// recognised and answered with `ENTGLDB_ERROR_CLOSED`.
pub struct Reply {
    _opaque: [u8; 0],
}

/// A running node. Every function may be called from any thread at any time, also on one that is closed or freed: that is
/// recognised and answered with `ENTGLDB_ERROR_CLOSED`.
pub struct Node {
    _opaque: [u8; 0],
}

/// The application's own store, as hooks. `entgldb_open` copies the struct; `ctx` is passed to each hook.
///
/// Hooks are called from one thread of the engine, one at a time, never nested, with no lock held. What they are passed is
/// lent until they return (after `ENTGLDB_PENDING` until the reply is finished). They may take their time, though nothing
/// syncs meanwhile; a warning event tells of slow ones. From inside of a hook every function that waits answers
/// `ENTGLDB_ERROR_REENTRANT`; `entgldb_touch`, `entgldb_status_json`, `entgldb_free` and the `entgldb_reply_...` functions
/// are allowed. A C++ exception must not leave a hook: `entgldb.hpp` takes care of that.
///
/// No hook may write a document between the application's own write of it and the `entgldb_record` or `entgldb_touch` that tells
/// of it: do both under one lock, and take that lock in `apply` and `remove` too. A store with `begin`, `commit` and `outbox` needs
/// no lock: its database keeps the order.
///
/// A hook answers `ENTGLDB_OK`, `ENTGLDB_PENDING` where it has a reply, or an error, best with a text by
/// `entgldb_reply_error`. What fails is tried again; a document that keeps failing is set aside in the quarantine list,
/// and the others go on.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Store {
    /// `sizeof(entgldb_store)`. It tells the library which hooks the caller's header knew: those beyond it count as NULL.
    pub struct_size: usize,
    /// Passed to each hook.
    pub ctx: *mut c_void,
    /// Required: writes these documents, whether or not they are there. Calling it again with the same must change nothing.
    /// Best in one transaction. At most 1,000 documents and 1 MiB, or one document that is larger. Where others are in a document's
    /// way, tells of them (`entgldb_reply_blocked`) and fails.
    pub apply: Option<
        unsafe extern "C" fn(ctx: *mut c_void, docs: *const Doc, n: usize, reply: *mut Reply) -> Status,
    >,
    /// Required: answers for each key in order, with `entgldb_reply_doc` or `entgldb_reply_missing`.
    pub read: Option<
        unsafe extern "C" fn(ctx: *mut c_void, keys: *const Doc, n: usize, reply: *mut Reply) -> Status,
    >,
    /// Required: deletes these documents; those that are not there count as deleted. At most 1,000.
    pub remove: Option<
        unsafe extern "C" fn(ctx: *mut c_void, keys: *const Doc, n: usize, reply: *mut Reply) -> Status,
    >,
    /// Required: answers with `entgldb_reply_entry` for each document of the collection whose key is greater than `after`
    /// (empty: from the first), in order of the bytes of their keys, at most `limit`. No answer means the end.
    pub enumerate: Option<
        unsafe extern "C" fn(
            ctx: *mut c_void,
            collection: Bytes,
            after: Bytes,
            limit: u32,
            reply: *mut Reply,
        ) -> Status,
    >,
    /// Optional, all three or none: a unit of `apply` and `remove` calls begins. If the one before it was neither committed nor
    /// undone (a hook was not finished in time), undoes that first ...
    pub begin: Option<unsafe extern "C" fn(ctx: *mut c_void) -> Status>,
    /// ... and is made durable when this returns, all of it or nothing. May answer `ENTGLDB_OUTBOX_MOVED` ...
    pub commit: Option<unsafe extern "C" fn(ctx: *mut c_void) -> Status>,
    /// ... or is undone.
    pub rollback: Option<unsafe extern "C" fn(ctx: *mut c_void) -> Status>,
    /// Optional, for stores that note their own writes in the transaction that makes them: answers with
    /// `entgldb_reply_change` for each noted write with an id greater than `after`, in the order of their commits, at most
    /// `limit`. Notes up to `after` are done with and may be dropped. `entgldb_touch` with no keys tells the engine to look.
    pub outbox:
        Option<unsafe extern "C" fn(ctx: *mut c_void, after: u64, limit: u32, reply: *mut Reply) -> Status>,
    /// Optional, for the collections that the configuration names in `custom_hook`: decides between versions of a document that
    /// were made apart, given in order of their age, a deleted one with `content.data` NULL. Answers once, with
    /// `entgldb_reply_doc` or `entgldb_reply_missing` (deleted). It must be a pure function of `heads`, the same on all nodes.
    pub resolve: Option<
        unsafe extern "C" fn(
            ctx: *mut c_void,
            collection: Bytes,
            key: Bytes,
            heads: *const Doc,
            n: usize,
            reply: *mut Reply,
        ) -> Status,
    >,
    /// Optional: `ctx` is not used any more. Called exactly once, after the last hook has returned and the last pending reply
    /// was finished; also when `entgldb_open` fails.
    pub destroy: Option<unsafe extern "C" fn(ctx: *mut c_void)>,
}

/// The sizes and places that compiled programs rely on. `ffi/tests/layout.c` asserts the same of the header.
#[cfg(target_pointer_width = "64")]
mod layout {
    use super::{Buffer, Bytes, Doc, Store};
    use std::mem::{align_of, offset_of, size_of};

    const _: () = assert!(size_of::<Bytes>() == 16 && offset_of!(Bytes, len) == 8);
    const _: () = assert!(size_of::<Buffer>() == 24 && offset_of!(Buffer, cap) == 16);
    const _: () = assert!(size_of::<Doc>() == 80 && align_of::<Doc>() == 8);
    const _: () = assert!(offset_of!(Doc, key) == 16 && offset_of!(Doc, content) == 32);
    const _: () = assert!(offset_of!(Doc, hlc) == 48 && offset_of!(Doc, reserved) == 56);
    const _: () = assert!(size_of::<Store>() == 96 && offset_of!(Store, ctx) == 8);
    const _: () = assert!(offset_of!(Store, apply) == 16 && offset_of!(Store, read) == 24);
    const _: () = assert!(offset_of!(Store, remove) == 32 && offset_of!(Store, enumerate) == 40);
    const _: () = assert!(offset_of!(Store, begin) == 48 && offset_of!(Store, commit) == 56);
    const _: () = assert!(offset_of!(Store, rollback) == 64 && offset_of!(Store, outbox) == 72);
    const _: () = assert!(offset_of!(Store, resolve) == 80 && offset_of!(Store, destroy) == 88);
}
