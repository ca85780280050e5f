//! What functions and hooks answer. A number is never given another meaning.

/// What a function or a hook answers: 0 or more is good, below 0 is an error, whose text `entgldb_last_error` gives.
/// One of the `ENTGLDB_...` constants; their numbers are fixed and never used again for something else.
pub type Status = i32;

/// It is done.
pub const ENTGLDB_OK: i32 = 0;
/// Only from a hook: it is not done yet, and `entgldb_reply_finish` will be called, from whichever thread.
pub const ENTGLDB_PENDING: i32 = 1;
/// Only from the `commit` hook: the application has written since the outbox was read last. Nothing was committed; the
/// engine looks into the outbox and comes again.
pub const ENTGLDB_OUTBOX_MOVED: i32 = 2;

/// The caller's mistake: NULL where something must be, text that is not UTF-8, a name or a key that cannot be one, a
/// reply that does not fit its hook. Nothing happened.
pub const ENTGLDB_ERROR_INVALID_ARGUMENT: i32 = -1;
/// The configuration cannot be used; the text names the field. Nothing was started.
pub const ENTGLDB_ERROR_CONFIG: i32 = -2;
/// The node cannot be opened: a file, the secret, the address. The text says which, and what to do.
pub const ENTGLDB_ERROR_OPEN: i32 = -3;
/// It was not done within the given time. What it may have done anyway is said at each function.
pub const ENTGLDB_ERROR_TIMEOUT: i32 = -4;
/// The node is closed or was never opened, or the reply is over.
pub const ENTGLDB_ERROR_CLOSED: i32 = -5;
/// A call that waits was made from inside a hook, where it would wait for itself. Nothing happened.
pub const ENTGLDB_ERROR_REENTRANT: i32 = -6;
/// This process is a fork of the one that opened the node. The node lives on there; this process must leave it alone.
pub const ENTGLDB_ERROR_FORKED: i32 = -7;
/// A bug of EntglDb, caught at the boundary. The node may be unusable: close it, and report the text.
pub const ENTGLDB_ERROR_PANIC: i32 = -8;
/// A limit, which the text names. Nothing happened.
pub const ENTGLDB_ERROR_LIMIT: i32 = -9;
/// The engine's own file failed, or is full, or read-only since it failed. What was asked for is not durable. From a hook: the
/// application's store cannot be used at all now (locked, full, offline). Nothing is set aside; the engine waits and comes
/// again.
pub const ENTGLDB_ERROR_STORE: i32 = -10;
/// The command was understood and cannot be carried out; the text says why.
pub const ENTGLDB_ERROR_REFUSED: i32 = -11;
/// From a hook: it failed, perhaps because of a single document. It is called again, then document by document, and those that
/// fail alone are set aside. Any other negative number means the same.
pub const ENTGLDB_ERROR_HOOK: i32 = -12;
