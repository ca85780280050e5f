//! Nodes: what the header's functions do with the engine's.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use entgldb::{Collection, Config, DocId, GuardError, HostChange, HostStore, Key, NoEvent};

use crate::failure::{Failure, call};
use crate::host::{Gone, Host};
use crate::input;
use crate::registry::Registry;
use crate::status::{ENTGLDB_ERROR_CLOSED, ENTGLDB_ERROR_REFUSED, ENTGLDB_ERROR_TIMEOUT, Status};
use crate::types::{Buffer, Bytes, Doc, Node, Store};

/// How long `entgldb_free` waits for a node that was not closed.
const FREE_WAIT: Duration = Duration::from_secs(5);

static NODES: Registry<Open> = Registry::new("node");

/// A node that somebody holds.
struct Open {
    /// None only while this is dropped.
    engine: Option<entgldb::Node>,
    /// None for a node that keeps its documents itself.
    gone: Option<Arc<Gone>>,
    ended: AtomicBool,
}

impl Open {
    fn engine(&self) -> &entgldb::Node {
        self.engine.as_ref().expect("it is taken out only in drop")
    }

    /// For what the engine would still answer out of its status.
    fn is_open(&self) -> Result<(), Failure> {
        match self.ended.load(Ordering::Relaxed) {
            true => Err(GuardError::Closed.into()),
            false => Ok(()),
        }
    }

    /// Ends the node, and waits for `destroy`.
    fn close(&self, timeout: Duration) -> Result<(), Failure> {
        let deadline = Instant::now() + timeout;
        self.engine().close_within(timeout)?;
        let left = deadline.saturating_duration_since(Instant::now());
        if self.gone.as_ref().is_some_and(|gone| !gone.wait(left)) {
            let message = "the node has ended, but a pending hook has not been finished";
            return Err(Failure::new(ENTGLDB_ERROR_TIMEOUT, message));
        }
        self.ended.store(true, Ordering::Relaxed);
        Ok(())
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        let Some(engine) = self.engine.take() else { return };
        if *self.ended.get_mut() {
            return;
        }
        // Its end may wait for the very thread that this runs on, or for a hook that never returns.
        let waiting = std::thread::Builder::new().name("entgldb-end".to_owned());
        // Without a thread the engine is dropped here, by the closure that could not be sent.
        drop(waiting.spawn(move || drop(engine)));
    }
}

fn find(node: *const Node) -> Result<Arc<Open>, Failure> {
    NODES.get(node.addr())
}

/// Opens a node and starts to sync. `config_json` is described by docs/schema/config.json; required are `database` (the
/// engine's own file, which is made if it is not there and belongs to nobody else; never the application's database),
/// `secret_file` (see `entgldb_keygen`) and `watch` (the collections).
///
/// `store` has the application's hooks; NULL for documents in the engine's own file. It is copied. Hooks may be called before
/// this returns. `store->destroy` is called exactly once, also if this fails (before it returns then).
///
/// On success `*out` is a node to be closed and freed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn entgldb_open(
    config_json: Bytes,
    store: *const Store,
    out: *mut *mut Node,
) -> Status {
    call(|| {
        // Before anything else, so that `destroy` runs whatever is wrong.
        // SAFETY: the caller passes NULL or a store.
        let host = if store.is_null() { None } else { Some(unsafe { Host::adopt(store)? }) };
        // SAFETY: lent for this call.
        let (out, config) = unsafe { (input::place(out, "out")?, input::text(config_json, "config_json")?) };
        let config = Config::from_json(config)?;
        let gone = host.as_ref().map(Host::gone);
        let host = host.map(|mut host| {
            host.patience = Duration::from_millis(config.hook_timeout_ms);
            Box::new(host) as Box<dyn HostStore>
        });
        // Its own queue of events begins with the node's start; this one would only fill up.
        let (engine, _events) = entgldb::Node::open_with_host(config, host)?;
        let open = Open { engine: Some(engine), gone, ended: AtomicBool::new(false) };
        out.write(std::ptr::without_provenance_mut(NODES.insert(Arc::new(open))));
        Ok(())
    })
}

/// Tells of changes that the application has made in its own store, with their content: one unit, which other nodes apply as
/// a whole or not at all. `is_delete` has a byte for each document, not 0 if it was deleted; NULL if none was. Durable on
/// return. At most 4,096 documents and about 3 MiB.
///
/// On a node without a store it writes the documents themselves. Not from inside a hook.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn entgldb_record(
    node: *const Node,
    docs: *const Doc,
    is_delete: *const u8,
    n: usize,
) -> Status {
    call(|| {
        let node = find(node)?;
        // SAFETY: lent for this call.
        let docs = unsafe { input::docs(docs, n)? };
        let is_delete = match is_delete.is_null() {
            true => &[],
            // SAFETY: lent for this call.
            false => unsafe { input::array(is_delete, n, "is_delete")? },
        };
        let changes = docs.iter().enumerate().map(|(number, doc)| {
            // SAFETY: lent for this call.
            let name = unsafe { doc_id(doc, number)? };
            if is_delete.get(number).is_some_and(|byte| *byte != 0) {
                return Ok(HostChange::Delete { doc: name });
            }
            // SAFETY: lent for this call.
            let content = unsafe { input::bytes(doc.content, &format!("docs[{number}].content"))? };
            Ok(HostChange::Put { doc: name, content: bytes::Bytes::copy_from_slice(content) })
        });
        let changes = changes.collect::<Result<Vec<_>, Failure>>()?;
        match node.engine().documents() {
            Some(documents) => Ok(documents.write(&changes)?),
            None => Ok(node.engine().record(&changes)?),
        }
    })
}

/// Tells that the application has written these documents, without their content, which the engine reads through `read` soon.
/// Only `collection` and `key` are looked at. Durable on return. With `n` 0 it only makes the engine look into the outbox.
/// May be called from inside a hook.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn entgldb_touch(node: *const Node, keys: *const Doc, n: usize) -> Status {
    call(|| {
        let node = find(node)?;
        // SAFETY: lent for this call.
        let keys = unsafe { input::docs(keys, n)? };
        // SAFETY: as above.
        let keys = keys.iter().enumerate().map(|(number, doc)| unsafe { doc_id(doc, number) });
        Ok(node.engine().touch(keys.collect::<Result<Vec<_>, Failure>>()?)?)
    })
}

/// Waits until this node and all linked peers are known to hold the same, after a look for what the application has written so
/// far. `peer` is `host:port` of one that must be linked for it, and is dialled if it was not; empty: any. Waits at most
/// `timeout_ms` for all of that, and answers `ENTGLDB_ERROR_TIMEOUT` after it; syncing goes on all the same. Not from inside
/// a hook.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn entgldb_sync_now(node: *const Node, peer: Bytes, timeout_ms: u32) -> Status {
    call(|| {
        let node = find(node)?;
        // SAFETY: lent for this call.
        let peer = unsafe { input::text(peer, "peer")? };
        let peer = Some(peer).filter(|peer| !peer.is_empty());
        Ok(node.engine().sync_with(peer, Duration::from_millis(timeout_ms.into()))?)
    })
}

/// How the node stands, as JSON: health, peers, lag, counters (docs/schema/status.json). At most a second old. Never waits; may
/// be called from inside a hook, and on a closed node.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn entgldb_status_json(node: *const Node, out: *mut Buffer) -> Status {
    call(|| {
        let node = find(node)?;
        // SAFETY: the caller's buffer.
        let out = unsafe { input::place(out, "out")? };
        out.write(Buffer::of(node.engine().status_json()));
        Ok(())
    })
}

/// The next event as JSON (docs/schema/event.json), waiting for it at most `timeout_ms`; 0 does not wait. Answers
/// `ENTGLDB_ERROR_TIMEOUT` if nothing has happened, `ENTGLDB_ERROR_CLOSED` once the node has ended and all its events are
/// read. One queue for all threads that ask, from the start of the node on; nobody has to read it: what is too much is
/// counted and left out.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn entgldb_next_event(
    node: *const Node,
    timeout_ms: u32,
    out_json: *mut Buffer,
) -> Status {
    call(|| {
        let node = find(node)?;
        // SAFETY: the caller's buffer.
        let out = unsafe { input::place(out_json, "out_json")? };
        let event = node.engine().next_event_json(Duration::from_millis(timeout_ms.into()));
        let event = event.map_err(|none| match none {
            NoEvent::Timeout => Failure::new(ENTGLDB_ERROR_TIMEOUT, none.to_string()),
            NoEvent::Stopped => Failure::new(ENTGLDB_ERROR_CLOSED, none.to_string()),
        })?;
        out.write(Buffer::of(event));
        Ok(())
    })
}

/// Carries out a command given as JSON (docs/schema/command.json) and answers as JSON: `{"command":"peers"}`, and likewise
/// members, conflicts, restore, quarantine, reconcile, snapshot_export and more; on a node without a store put, get, delete and
/// scan. Not from inside a hook.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn entgldb_command(
    node: *const Node,
    request_json: Bytes,
    out_json: *mut Buffer,
) -> Status {
    call(|| {
        let node = find(node)?;
        // SAFETY: lent for this call; the caller's buffer.
        let (request, out) =
            unsafe { (input::text(request_json, "request_json")?, input::place(out_json, "out_json")?) };
        node.is_open()?;
        out.write(Buffer::of(node.engine().command_json(request)?));
        Ok(())
    })
}

/// Ends the node: links are closed with a word, and no hook is called any more. `ENTGLDB_OK` says that no hook runs and
/// `destroy` has returned. `ENTGLDB_ERROR_TIMEOUT` says that a hook is still in flight after `timeout_ms`; the node ends once
/// it has returned, and this may be called again to wait for that. From inside a hook it answers
/// `ENTGLDB_ERROR_REENTRANT`, and the node ends once the hook has returned.
///
/// The node must still be freed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn entgldb_close(node: *mut Node, timeout_ms: u32) -> Status {
    call(|| find(node)?.close(Duration::from_millis(timeout_ms.into())))
}

/// Gives the node back; NULL is left alone. A node that was not closed is closed first, which is waited for up to 5 seconds; a
/// hook that is still in flight then (or from which this is called) keeps the node alive until it has returned, and `destroy`
/// is called after that.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn entgldb_free(node: *mut Node) {
    if node.is_null() {
        return;
    }
    let _ = call(|| {
        let open = NODES.remove(node.addr())?;
        if open.ended.load(Ordering::Relaxed) {
            return Ok(());
        }
        open.close(FREE_WAIT)
    });
}

/// Makes a new file with a cluster secret that nobody has, readable by its owner only. Whoever has a copy of it can join the
/// cluster: carry it to the other machines over a channel that you trust. A file that is there is left alone:
/// `ENTGLDB_ERROR_REFUSED`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn entgldb_keygen(path: Bytes) -> Status {
    call(|| {
        // SAFETY: lent for this call.
        let path = unsafe { input::text(path, "path")? };
        entgldb::ClusterSecret::generate()
            .write_new_file(std::path::Path::new(path))
            .map_err(|error| Failure::new(ENTGLDB_ERROR_REFUSED, format!("{path}: {error}")))
    })
}

/// # Safety
/// What the document points to is lent.
unsafe fn doc_id(doc: &Doc, number: usize) -> Result<DocId, Failure> {
    // SAFETY: the caller's promise is passed on.
    let (collection, key) =
        unsafe { (input::text(doc.collection, "collection"), input::text(doc.key, "key")) };
    let place =
        |failure: Failure| Failure { message: format!("docs[{number}].{}", failure.message), ..failure };
    let (collection, key) = (collection.map_err(place)?, key.map_err(place)?);
    let bad = |field, reason| Failure::argument(format!("docs[{number}].{field}: {reason}"));
    Ok((
        Collection::new(collection).map_err(|reason| bad("collection", reason))?,
        Key::new(key).map_err(|reason| bad("key", reason))?,
    ))
}
