//! What comes out of a hook: its answers, and its end, which may come from another thread.

use std::any::Any;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use entgldb::{Collection, DocId, Key};

use crate::failure::{Failure, call};
use crate::input;
use crate::registry::Registry;
use crate::status::{
    ENTGLDB_ERROR_CLOSED, ENTGLDB_ERROR_LIMIT, ENTGLDB_ERROR_TIMEOUT, ENTGLDB_OK, ENTGLDB_PENDING, Status,
};
use crate::types;

/// The longest text of an error that is kept, in bytes.
const ERROR_BYTES_MAX: usize = 4 << 10;
/// The largest document, in bytes: what the engine allows at most.
const CONTENT_BYTES_MAX: usize = 15 << 20;
/// Documents in the way of others that are kept; the next attempt tells of the rest.
const BLOCKED_MAX: usize = 64;

static REPLIES: Registry<Reply> = Registry::new("reply");

/// Which answers a hook may give.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Answers {
    /// None, only a status.
    None,
    /// None but `entgldb_reply_blocked`, in a hook that fails.
    Blocked,
    /// `entgldb_reply_doc` or `entgldb_reply_missing`.
    Documents,
    /// `entgldb_reply_entry`.
    Entries,
    /// `entgldb_reply_change`.
    Changes,
}

/// One answer, in the order in which they were given.
#[derive(Debug)]
pub(crate) enum Answer {
    Document(Option<Bytes>),
    Entry { key: String, content: Option<Bytes> },
    Change { id: u64, collection: String, key: String, written_ms: u64 },
}

/// Why a hook has no answer.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum HookFailed {
    /// It said so, or broke the rules.
    Refused { status: Status, message: String, blocked_by: Vec<DocId> },
    /// It answered `ENTGLDB_PENDING` and was not finished in time. It still is in flight.
    Expired,
}

/// One call of one hook.
pub(crate) struct Call {
    pub(crate) name: &'static str,
    pub(crate) answers: Answers,
    /// The most answers that it may give.
    pub(crate) most: usize,
    /// How long it may be pending.
    pub(crate) patience: Duration,
}

struct Reply {
    call: Call,
    state: Mutex<State>,
    finished: Condvar,
}

#[derive(Default)]
struct State {
    /// What the hook was lent, and the hooks themselves: both have to live until the hook has ended, also beyond its deadline.
    kept: Option<Box<dyn Any + Send>>,
    given: Vec<Answer>,
    error: Option<String>,
    blocked_by: Vec<DocId>,
    /// What the hook did that it must not.
    misuse: Option<String>,
    status: Option<Status>,
    expired: bool,
}

impl Reply {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes an answer, if this hook may give such a one, and one more.
    fn give(&self, kind: Answers, answer: Answer) -> Result<(), Failure> {
        let mut state = self.open_for(kind)?;
        let wrong = if state.given.len() >= self.call.most {
            let (name, most) = (self.call.name, self.call.most);
            Some(Failure::new(ENTGLDB_ERROR_LIMIT, format!("the hook {name} may give {most} answers here")))
        } else {
            None
        };
        if let Some(failure) = wrong {
            state.misuse.get_or_insert_with(|| failure.message.clone());
            return Err(failure);
        }
        state.given.push(answer);
        Ok(())
    }

    /// Its state, if it is not over and its hook may give such answers.
    fn open_for(&self, kind: Answers) -> Result<MutexGuard<'_, State>, Failure> {
        let mut state = self.state();
        if state.expired || state.status.is_some() {
            return Err(Failure::new(ENTGLDB_ERROR_CLOSED, "the reply is over"));
        }
        if kind != self.call.answers {
            let message = format!("the hook {} gives other answers than this", self.call.name);
            state.misuse.get_or_insert_with(|| message.clone());
            return Err(Failure::argument(message));
        }
        Ok(state)
    }
}

impl State {
    /// How the hook ended. Lets go of what it was lent.
    fn outcome(&mut self, call: &Call, status: Status) -> Result<Vec<Answer>, HookFailed> {
        self.kept = None;
        if status < ENTGLDB_OK {
            let message =
                self.error.take().unwrap_or_else(|| format!("the hook {} failed ({status})", call.name));
            let blocked_by = std::mem::take(&mut self.blocked_by);
            return Err(HookFailed::Refused { status, message, blocked_by });
        }
        let refused = |status, message| Err(HookFailed::Refused { status, message, blocked_by: Vec::new() });
        match self.misuse.take() {
            Some(misuse) => refused(crate::status::ENTGLDB_ERROR_INVALID_ARGUMENT, misuse),
            None if status == ENTGLDB_OK => Ok(std::mem::take(&mut self.given)),
            None => refused(
                crate::status::ENTGLDB_ERROR_INVALID_ARGUMENT,
                format!("the hook {} answered {status}, which means nothing here", call.name),
            ),
        }
    }
}

/// Calls a hook and waits for its end. `kept` is kept for as long as the hook is in flight, even beyond its deadline.
pub(crate) fn ask(
    call: Call,
    kept: impl Send + 'static,
    hook: impl FnOnce(*mut types::Reply) -> Status,
) -> Result<Vec<Answer>, HookFailed> {
    let state = State { kept: Some(Box::new(kept)), ..State::default() };
    let reply = Arc::new(Reply { call, state: Mutex::new(state), finished: Condvar::new() });
    let number = REPLIES.insert(Arc::clone(&reply));
    let status = hook(std::ptr::without_provenance_mut(number));
    if status == ENTGLDB_PENDING {
        return wait(&reply);
    }
    // If it was finished too, it is not known any more.
    let _ = REPLIES.remove(number);
    let mut state = reply.state();
    if state.status.is_some() {
        let name = reply.call.name;
        state.misuse = Some(format!("the hook {name} finished its reply and answered {status} as well"));
    }
    state.outcome(&reply.call, status)
}

fn wait(reply: &Reply) -> Result<Vec<Answer>, HookFailed> {
    let deadline = Instant::now() + reply.call.patience;
    let mut state = reply.state();
    loop {
        if let Some(status) = state.status {
            return state.outcome(&reply.call, status);
        }
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            state.expired = true;
            state.given.clear();
            return Err(HookFailed::Expired);
        }
        state = reply.finished.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
    }
}

fn find(reply: *const types::Reply) -> Result<Arc<Reply>, Failure> {
    REPLIES.get(reply.addr())
}

fn content(bytes: &[u8]) -> Result<Bytes, Failure> {
    if bytes.len() > CONTENT_BYTES_MAX {
        let message = format!(
            "content: {} bytes; the limit PAYLOAD_BYTES_HARD allows {CONTENT_BYTES_MAX}",
            bytes.len()
        );
        return Err(Failure::new(ENTGLDB_ERROR_LIMIT, message));
    }
    Ok(Bytes::copy_from_slice(bytes))
}

/// In `read` and `resolve`: the next document, which is copied.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn entgldb_reply_doc(reply: *mut types::Reply, content: types::Bytes) -> Status {
    call(|| {
        // SAFETY: lent for this call.
        let bytes = unsafe { input::bytes(content, "content")? };
        find(reply)?.give(Answers::Documents, Answer::Document(Some(self::content(bytes)?)))
    })
}

/// In `read`: the next document is not there. In `resolve`: the document is deleted.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn entgldb_reply_missing(reply: *mut types::Reply) -> Status {
    call(|| find(reply)?.give(Answers::Documents, Answer::Document(None)))
}

/// In `enumerate`: the next document. Its content may be left out (`data` NULL); it is asked for with `read` then.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn entgldb_reply_entry(
    reply: *mut types::Reply,
    key: types::Bytes,
    content: types::Bytes,
) -> Status {
    call(|| {
        // SAFETY: both are lent for this call.
        let (key, bytes) = unsafe { (input::text(key, "key")?, input::bytes(content, "content")?) };
        let content = if content.data.is_null() { None } else { Some(self::content(bytes)?) };
        find(reply)?.give(Answers::Entries, Answer::Entry { key: key.to_owned(), content })
    })
}

/// In `outbox`: the next write that the application has noted. `id` rises from note to note; `written_ms` is the time of
/// the write in milliseconds since 1970.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn entgldb_reply_change(
    reply: *mut types::Reply,
    id: u64,
    collection: types::Bytes,
    key: types::Bytes,
    written_ms: u64,
) -> Status {
    call(|| {
        // SAFETY: both are lent for this call.
        let (collection, key) = unsafe { (input::text(collection, "collection")?, input::text(key, "key")?) };
        let (collection, key) = (collection.to_owned(), key.to_owned());
        find(reply)?.give(Answers::Changes, Answer::Change { id, collection, key, written_ms })
    })
}

/// In `apply`, before it fails: a document of the store that stands in the way of one that is to be written, as under a UNIQUE
/// constraint. Of those that collide the younger stays, on every node: a store with `begin` and `outbox` loses the older ones to
/// it, what has to go is in the quarantine list, and it comes back when there is room. Any other store just refuses.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn entgldb_reply_blocked(
    reply: *mut types::Reply,
    collection: types::Bytes,
    key: types::Bytes,
) -> Status {
    call(|| {
        // SAFETY: both are lent for this call.
        let (collection, key) = unsafe { (input::text(collection, "collection")?, input::text(key, "key")?) };
        let bad = |what, reason| Failure::argument(format!("{what}: {reason}"));
        let collection = Collection::new(collection).map_err(|reason| bad("collection", reason))?;
        let doc = (collection, Key::new(key).map_err(|reason| bad("key", reason))?);
        let reply = find(reply)?;
        let mut state = reply.open_for(Answers::Blocked)?;
        if state.blocked_by.len() < BLOCKED_MAX {
            state.blocked_by.push(doc);
        }
        Ok(())
    })
}

/// In every hook: the text of the error that the hook will answer with. It shows in events, in the quarantine list and in
/// `entgldb_last_error`. Cut at 4 KiB. The last one counts.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn entgldb_reply_error(reply: *mut types::Reply, message: types::Bytes) -> Status {
    call(|| {
        // SAFETY: lent for this call.
        let bytes = unsafe { input::bytes(message, "message")? };
        // A message that is cut, or not quite UTF-8, is better than none.
        let text = String::from_utf8_lossy(&bytes[..bytes.len().min(ERROR_BYTES_MAX)]).into_owned();
        find(reply)?.state().error = Some(text);
        Ok(())
    })
}

/// Ends a hook that has answered `ENTGLDB_PENDING`, or is about to; from any thread, exactly once. `status` is what the hook
/// would have answered. The reply, and what the hook was lent, must not be used afterwards.
///
/// Answers `ENTGLDB_ERROR_TIMEOUT` if the engine had given up waiting (`hook_timeout_ms` of the configuration): the call
/// counts as failed, and is made again. Answers `ENTGLDB_ERROR_CLOSED` if the reply is finished already.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn entgldb_reply_finish(reply: *mut types::Reply, status: Status) -> Status {
    call(|| {
        if status == ENTGLDB_PENDING {
            return Err(Failure::argument("status: a reply is not finished with ENTGLDB_PENDING"));
        }
        let reply = REPLIES.remove(reply.addr())?;
        let mut state = reply.state();
        if state.expired {
            // Perhaps the last who holds the hooks: `destroy` must find no lock held.
            let kept = state.kept.take();
            drop(state);
            drop(kept);
            return Err(Failure::new(
                ENTGLDB_ERROR_TIMEOUT,
                format!("the hook {} took too long: it counts as failed", reply.call.name),
            ));
        }
        state.status = Some(status);
        reply.finished.notify_all();
        Ok(())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn documents(most: usize) -> Call {
        Call { name: "read", answers: Answers::Documents, most, patience: Duration::from_millis(30) }
    }

    fn missing(reply: *mut types::Reply) -> Status {
        // SAFETY: it takes anything.
        unsafe { entgldb_reply_missing(reply) }
    }

    #[test]
    fn answers_come_out_in_order_and_no_more_than_asked_for() {
        let two = ask(documents(2), (), |reply| {
            assert_eq!((missing(reply), missing(reply)), (ENTGLDB_OK, ENTGLDB_OK));
            ENTGLDB_OK
        });
        assert_eq!(two.unwrap().len(), 2);
        let three = ask(documents(2), (), |reply| {
            assert_eq!((missing(reply), missing(reply)), (ENTGLDB_OK, ENTGLDB_OK));
            assert_eq!(missing(reply), ENTGLDB_ERROR_LIMIT);
            ENTGLDB_OK
        });
        assert!(three.is_err());
    }

    #[test]
    fn what_is_in_the_way_is_told_by_a_hook_that_may() {
        let lend = |text: &'static str| types::Bytes { data: text.as_ptr(), len: text.len() };
        // SAFETY: it takes anything, and the texts are there.
        let block = |reply, key| unsafe { entgldb_reply_blocked(reply, lend("t"), lend(key)) };
        let apply = || Call { name: "apply", answers: Answers::Blocked, ..documents(0) };
        let refused = ask(apply(), (), |reply| {
            assert_eq!((block(reply, "a"), block(reply, "b")), (ENTGLDB_OK, ENTGLDB_OK));
            assert!(block(reply, "") < ENTGLDB_OK, "no key");
            ENTGLDB_ERROR_LIMIT
        });
        let Err(HookFailed::Refused { blocked_by, .. }) = refused else { panic!("{refused:?}") };
        assert_eq!(blocked_by.iter().map(|(_, key)| key.as_str()).collect::<Vec<_>>(), ["a", "b"]);
        let other = ask(documents(1), (), |reply| {
            assert!(block(reply, "a") < ENTGLDB_OK);
            ENTGLDB_OK
        });
        assert!(other.is_err(), "not in read");
    }

    #[test]
    fn what_a_pending_hook_was_lent_lives_until_it_is_finished() {
        let lent = Arc::new(());
        let mut late = std::ptr::null_mut();
        let answer = ask(documents(1), Arc::clone(&lent), |reply| {
            late = reply;
            ENTGLDB_PENDING
        });
        assert_eq!(answer.unwrap_err(), HookFailed::Expired);
        assert_eq!(Arc::strong_count(&lent), 2);
        // SAFETY: both take anything.
        unsafe {
            assert_eq!(entgldb_reply_finish(late, ENTGLDB_OK), ENTGLDB_ERROR_TIMEOUT);
            assert_eq!(Arc::strong_count(&lent), 1);
            assert_eq!(entgldb_reply_finish(late, ENTGLDB_OK), ENTGLDB_ERROR_CLOSED);
        }
    }

    #[test]
    fn a_reply_may_be_finished_before_its_hook_returns() {
        let answer = ask(documents(1), (), |reply| {
            // SAFETY: it takes anything.
            unsafe { entgldb_reply_finish(reply, ENTGLDB_OK) };
            ENTGLDB_PENDING
        });
        assert_eq!(answer.unwrap().len(), 0);
        let both = ask(documents(1), (), |reply| {
            // SAFETY: as above.
            unsafe { entgldb_reply_finish(reply, ENTGLDB_OK) };
            ENTGLDB_OK
        });
        assert!(both.is_err());
    }
}
