//! The application's hooks as the engine's `HostStore`.

use std::ffi::c_void;
use std::mem::{MaybeUninit, offset_of, size_of};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use entgldb::{
    Collection, DocId, HookScope, HostCapabilities, HostDocument, HostError, HostResult, HostStore, Key,
    OutboxItem, Side,
};

use crate::failure::Failure;
use crate::reply::{self, Answer, Answers, Call, HookFailed};
use crate::status::{ENTGLDB_ERROR_STORE, ENTGLDB_OK, ENTGLDB_OUTBOX_MOVED, Status};
use crate::types::{Bytes, Doc, Reply, Store};

/// A store must have these.
const REQUIRED_BYTES: usize = offset_of!(Store, begin);
/// No header of ours will ever have a larger one: a greater `struct_size` is a mistake.
const STORE_BYTES_MAX: usize = 4096;

/// Whether `destroy` has run.
#[derive(Default)]
pub(crate) struct Gone {
    is: Mutex<bool>,
    changed: Condvar,
}

impl Gone {
    /// Waits for it, at most so long.
    pub(crate) fn wait(&self, timeout: Duration) -> bool {
        let gone = self.is.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = self.changed.wait_timeout_while(gone, timeout, |gone| !*gone);
        *waited.unwrap_or_else(PoisonError::into_inner).0
    }
}

/// The application's hooks. The last one to let go of them runs `destroy`.
struct Hooks {
    store: Store,
    gone: Arc<Gone>,
}

// SAFETY: the header says that hooks and `destroy` are called from threads of the engine; `ctx` is only passed on.
unsafe impl Send for Hooks {}
// SAFETY: as above; the engine calls one hook at a time.
unsafe impl Sync for Hooks {}

impl Drop for Hooks {
    fn drop(&mut self) {
        if let Some(destroy) = self.store.destroy {
            // What it calls in here must not wait for the engine, which may be waiting for it.
            let _scope = HookScope::enter();
            // SAFETY: the application's own function with its own argument, once.
            unsafe { destroy(self.store.ctx) };
        }
        *self.gone.is.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.gone.changed.notify_all();
    }
}

/// The engine's view of them.
pub(crate) struct Host {
    hooks: Arc<Hooks>,
    pub(crate) patience: Duration,
}

impl Host {
    /// Takes over what the caller passed: from here on `destroy` runs exactly once, whatever happens.
    ///
    /// # Safety
    /// `store` points to as many bytes as its `struct_size` says, and is made as the header says.
    pub(crate) unsafe fn adopt(store: *const Store) -> Result<Self, Failure> {
        if !store.is_aligned() {
            return Err(Failure::argument("store: not where such a struct can lie (alignment)"));
        }
        // SAFETY: `struct_size` is the first field of every version of the struct.
        let size = unsafe { *store.cast::<usize>() };
        if !(size_of::<usize>()..=STORE_BYTES_MAX).contains(&size) {
            return Err(Failure::argument(format!(
                "store.struct_size: {size} cannot be sizeof(entgldb_store)"
            )));
        }
        let mut copy = MaybeUninit::<Store>::zeroed();
        let known = size.min(size_of::<Store>());
        // SAFETY: so many bytes are there, and all bytes zero are a store without hooks.
        let copy = unsafe {
            std::ptr::copy_nonoverlapping(store.cast::<u8>(), copy.as_mut_ptr().cast::<u8>(), known);
            copy.assume_init()
        };
        let host =
            Self { hooks: Arc::new(Hooks { store: copy, gone: Arc::default() }), patience: Duration::MAX };
        // SAFETY: `struct_size` says that so many bytes are there.
        let beyond = unsafe { std::slice::from_raw_parts(store.cast::<u8>().add(known), size - known) };
        if beyond.iter().any(|byte| *byte != 0) {
            return Err(Failure::argument(
                "store.struct_size: it has a hook that this library does not know: the header is newer than the library",
            ));
        }
        host.check(size)?;
        Ok(host)
    }

    fn check(&self, size: usize) -> Result<(), Failure> {
        let Store { apply, read, remove, enumerate, begin, commit, rollback, .. } = self.hooks.store;
        if size < REQUIRED_BYTES {
            return Err(Failure::argument(format!(
                "store.struct_size: {size} is too small for the required hooks"
            )));
        }
        let required = [
            ("apply", apply.is_some()),
            ("read", read.is_some()),
            ("remove", remove.is_some()),
            ("enumerate", enumerate.is_some()),
        ];
        if let Some((name, _)) = required.iter().find(|(_, there)| !there) {
            return Err(Failure::argument(format!("store.{name}: this hook is required, and it is NULL")));
        }
        if begin.is_some() != commit.is_some() || begin.is_some() != rollback.is_some() {
            return Err(Failure::argument("store.begin: begin, commit and rollback are all there or none"));
        }
        Ok(())
    }

    /// Tells when `destroy` has run.
    pub(crate) fn gone(&self) -> Arc<Gone> {
        Arc::clone(&self.hooks.gone)
    }

    fn ctx(&self) -> *mut c_void {
        self.hooks.store.ctx
    }

    /// Only a call that is still in flight beyond its deadline holds the hooks too.
    fn is_free(&self) -> HostResult<()> {
        match Arc::strong_count(&self.hooks) {
            1 => Ok(()),
            _ => Err(HostError::unavailable("an earlier hook is pending and was not finished in time")),
        }
    }

    /// Calls one hook. `lent` is what it is lent.
    fn ask<L: Lent>(
        &self,
        (name, answers, most): (&'static str, Answers, usize),
        lent: L,
        hook: impl FnOnce(&[Doc], *mut Reply) -> Status,
    ) -> HostResult<Vec<Answer>> {
        self.is_free()?;
        let docs = lent.docs();
        let (first, count) = (docs.as_ptr(), docs.len());
        let kept = Kept { _docs: docs, _lent: lent, _hooks: Arc::clone(&self.hooks) };
        let call = Call { name, answers, most, patience: self.patience };
        let begin = Instant::now();
        // SAFETY: `kept` holds them, does not move them, and is kept until the hook has ended.
        let answer =
            reply::ask(call, kept, |reply| hook(unsafe { std::slice::from_raw_parts(first, count) }, reply));
        answer.map_err(|failed| match failed {
            HookFailed::Refused { status: ENTGLDB_ERROR_STORE, message, .. } => {
                HostError::unavailable(message)
            }
            HookFailed::Refused { message, blocked_by, .. } if blocked_by.is_empty() => {
                HostError::failed(message)
            }
            HookFailed::Refused { message, blocked_by, .. } => HostError::Blocked { by: blocked_by, message },
            HookFailed::Expired => {
                let ms = begin.elapsed().as_millis();
                HostError::unavailable(format!(
                    "the hook {name} was pending for {ms} ms and was not finished"
                ))
            }
        })
    }
}

/// What a hook is lent. The documents that [`Lent::docs`] makes point to memory that stays where it is when this moves.
trait Lent: Send + 'static {
    /// As the hook sees it.
    fn docs(&self) -> Vec<Doc>;
}

struct Kept<L> {
    _docs: Vec<Doc>,
    _lent: L,
    _hooks: Arc<Hooks>,
}

// SAFETY: the documents point to what is kept beside them, and nothing writes to that.
unsafe impl<L: Send> Send for Kept<L> {}

fn lend(bytes: &[u8]) -> Bytes {
    Bytes { data: bytes.as_ptr(), len: bytes.len() }
}

const NOTHING: Bytes = Bytes { data: std::ptr::null(), len: 0 };

fn doc(collection: &Collection, key: &Key, content: Bytes, hlc: u64) -> Doc {
    let (collection, key) = (lend(collection.as_str().as_bytes()), lend(key.as_str().as_bytes()));
    Doc { collection, key, content, hlc, reserved: [0; 3] }
}

impl Lent for Vec<HostDocument> {
    fn docs(&self) -> Vec<Doc> {
        self.iter().map(|each| doc(&each.collection, &each.key, lend(&each.content), each.hlc)).collect()
    }
}

impl Lent for Vec<DocId> {
    fn docs(&self) -> Vec<Doc> {
        self.iter().map(|(collection, key)| doc(collection, key, NOTHING, 0)).collect()
    }
}

/// Where `enumerate` goes on.
struct Place(Collection, Option<Key>);

impl Lent for Place {
    fn docs(&self) -> Vec<Doc> {
        let key = self.1.as_ref().map_or(NOTHING, |key| lend(key.as_str().as_bytes()));
        vec![Doc {
            collection: lend(self.0.as_str().as_bytes()),
            key,
            content: NOTHING,
            hlc: 0,
            reserved: [0; 3],
        }]
    }
}

/// The versions that `resolve` decides between.
struct Heads(DocId, Vec<Side>);

impl Lent for Heads {
    fn docs(&self) -> Vec<Doc> {
        let (collection, key) = &self.0;
        let content = |side: &Side| side.content.as_ref().map_or(NOTHING, |content| lend(content));
        self.1.iter().map(|side| doc(collection, key, content(side), side.stamp.hlc.0)).collect()
    }
}

impl Lent for () {
    fn docs(&self) -> Vec<Doc> {
        Vec::new()
    }
}

/// A hook that the engine asks for only where the capabilities say that it is there.
fn there<T>(hook: Option<T>) -> HostResult<T> {
    hook.ok_or_else(|| HostError::failed("the store has no such hook"))
}

fn status(name: &str, status: Status) -> HostResult<()> {
    match status {
        ENTGLDB_OK => Ok(()),
        ENTGLDB_ERROR_STORE => Err(HostError::unavailable(format!("the hook {name} failed ({status})"))),
        other => Err(HostError::failed(format!("the hook {name} failed ({other})"))),
    }
}

impl HostStore for Host {
    fn capabilities(&self) -> HostCapabilities {
        let store = &self.hooks.store;
        HostCapabilities {
            transactions: store.begin.is_some(),
            outbox: store.outbox.is_some(),
            resolve: store.resolve.is_some(),
        }
    }

    fn apply(&mut self, documents: &[HostDocument]) -> HostResult<()> {
        let (ctx, hook) = (self.ctx(), there(self.hooks.store.apply)?);
        let call = ("apply", Answers::Blocked, 0);
        // SAFETY: as the header says; the documents live until the hook has ended.
        self.ask(call, documents.to_vec(), |docs, reply| unsafe {
            hook(ctx, docs.as_ptr(), docs.len(), reply)
        })?;
        Ok(())
    }

    fn read(&mut self, docs: &[DocId]) -> HostResult<Vec<Option<bytes::Bytes>>> {
        let (ctx, hook) = (self.ctx(), there(self.hooks.store.read)?);
        let call = ("read", Answers::Documents, docs.len());
        // SAFETY: as for `apply`.
        let given = self
            .ask(call, docs.to_vec(), |keys, reply| unsafe { hook(ctx, keys.as_ptr(), keys.len(), reply) })?;
        if given.len() != docs.len() {
            let (answers, keys) = (given.len(), docs.len());
            return Err(HostError::failed(format!("the hook read gave {answers} answers for {keys} keys")));
        }
        Ok(given.into_iter().map(content).collect())
    }

    fn delete(&mut self, docs: &[DocId]) -> HostResult<()> {
        let (ctx, hook) = (self.ctx(), there(self.hooks.store.remove)?);
        let call = ("remove", Answers::None, 0);
        // SAFETY: as for `apply`.
        self.ask(call, docs.to_vec(), |keys, reply| unsafe { hook(ctx, keys.as_ptr(), keys.len(), reply) })?;
        Ok(())
    }

    fn enumerate(
        &mut self,
        collection: &Collection,
        after: Option<&Key>,
        limit: usize,
    ) -> HostResult<Vec<(Key, Option<bytes::Bytes>)>> {
        let (ctx, hook) = (self.ctx(), there(self.hooks.store.enumerate)?);
        let call = ("enumerate", Answers::Entries, limit);
        let limit = u32::try_from(limit).unwrap_or(u32::MAX);
        let place = Place(collection.clone(), after.cloned());
        // SAFETY: as for `apply`.
        let given = self.ask(call, place, |place, reply| unsafe {
            hook(ctx, place[0].collection, place[0].key, limit, reply)
        })?;
        let entry = |answer| match answer {
            Answer::Entry { key, content } => Key::new(&key).map(|key| (key, content)).map_err(|reason| {
                HostError::failed(format!("the hook enumerate gave the key {key:?}: {reason}"))
            }),
            _ => unreachable!("a reply takes only the answers that its hook may give"),
        };
        given.into_iter().map(entry).collect()
    }

    fn begin(&mut self) -> HostResult<()> {
        let (ctx, hook) = (self.ctx(), there(self.hooks.store.begin)?);
        self.is_free()?;
        // SAFETY: the application's own function with its own argument.
        status("begin", unsafe { hook(ctx) })
    }

    fn commit(&mut self) -> HostResult<()> {
        let (ctx, hook) = (self.ctx(), there(self.hooks.store.commit)?);
        self.is_free()?;
        // SAFETY: as for `begin`.
        match unsafe { hook(ctx) } {
            ENTGLDB_OUTBOX_MOVED => Err(HostError::OutboxMoved),
            other => status("commit", other),
        }
    }

    fn rollback(&mut self) -> HostResult<()> {
        let (ctx, hook) = (self.ctx(), there(self.hooks.store.rollback)?);
        self.is_free()?;
        // SAFETY: as for `begin`.
        status("rollback", unsafe { hook(ctx) })
    }

    fn outbox(&mut self, after: u64, limit: usize) -> HostResult<Vec<OutboxItem>> {
        let (ctx, hook) = (self.ctx(), there(self.hooks.store.outbox)?);
        let call = ("outbox", Answers::Changes, limit);
        let limit = u32::try_from(limit).unwrap_or(u32::MAX);
        // SAFETY: as for `begin`.
        let given = self.ask(call, (), |_, reply| unsafe { hook(ctx, after, limit, reply) })?;
        let mut last = after;
        let item = |answer| {
            let Answer::Change { id, collection, key, written_ms } = answer else {
                unreachable!("a reply takes only the answers that its hook may give")
            };
            if id <= last {
                return Err(HostError::failed(format!("the hook outbox gave the id {id} after {last}")));
            }
            last = id;
            let bad =
                |reason| HostError::failed(format!("the hook outbox gave {collection:?}/{key:?}: {reason}"));
            let doc = (Collection::new(&collection).map_err(bad)?, Key::new(&key).map_err(bad)?);
            Ok(OutboxItem { id, doc, written_ms })
        };
        given.into_iter().map(item).collect()
    }

    fn resolve(&mut self, doc: &DocId, versions: &[Side]) -> HostResult<Option<bytes::Bytes>> {
        let (ctx, hook) = (self.ctx(), there(self.hooks.store.resolve)?);
        let call = ("resolve", Answers::Documents, 1);
        let heads = Heads(doc.clone(), versions.to_vec());
        // SAFETY: as for `apply`; there are two versions or more.
        let given = self.ask(call, heads, |heads, reply| unsafe {
            let Some(first) = heads.first() else { return crate::status::ENTGLDB_ERROR_INVALID_ARGUMENT };
            hook(ctx, first.collection, first.key, heads.as_ptr(), heads.len(), reply)
        })?;
        given
            .into_iter()
            .next()
            .map(content)
            .ok_or_else(|| HostError::failed("the hook resolve gave no answer"))
    }
}

fn content(answer: Answer) -> Option<bytes::Bytes> {
    match answer {
        Answer::Document(content) => content,
        _ => unreachable!("a reply takes only the answers that its hook may give"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reply::entgldb_reply_doc;

    unsafe extern "C" fn take(_: *mut c_void, _: *const Doc, _: usize, _: *mut Reply) -> Status {
        ENTGLDB_OK
    }

    unsafe extern "C" fn give(_: *mut c_void, _: *const Doc, n: usize, reply: *mut Reply) -> Status {
        for _ in 0..n {
            // SAFETY: the reply of the hook that is running, and bytes that are there.
            unsafe { entgldb_reply_doc(reply, lend(CONTENT)) };
        }
        ENTGLDB_OK
    }

    unsafe extern "C" fn nothing(_: *mut c_void, _: Bytes, _: Bytes, _: u32, _: *mut Reply) -> Status {
        ENTGLDB_OK
    }

    unsafe extern "C" fn well(_: *mut c_void) -> Status {
        ENTGLDB_OK
    }

    unsafe extern "C" fn moved(_: *mut c_void) -> Status {
        ENTGLDB_OUTBOX_MOVED
    }

    const CONTENT: &[u8] = &[b' '; 270];

    fn host() -> Host {
        // SAFETY: all bytes zero are a store without hooks.
        let mut store: Store = unsafe { std::mem::zeroed() };
        store.struct_size = size_of::<Store>();
        store.apply = Some(take);
        store.read = Some(give);
        store.remove = Some(take);
        store.enumerate = Some(nothing);
        store.begin = Some(well);
        store.commit = Some(moved);
        store.rollback = Some(well);
        // SAFETY: it is made as the header says.
        unsafe { Host::adopt(&raw const store) }.unwrap_or_else(|failure| panic!("{}", failure.message))
    }

    #[test]
    fn a_moved_outbox_is_told_apart_from_a_failure() {
        let mut host = host();
        assert_eq!(host.begin(), Ok(()));
        assert_eq!(host.commit(), Err(HostError::OutboxMoved));
    }

    #[test]
    #[ignore = "prints what a hook costs; docs/BENCHMARKS.md says how to run it"]
    fn what_a_hook_costs() {
        let mut host = host();
        for documents in [1usize, 1000] {
            let key =
                |number: usize| (Collection::new("t").unwrap(), Key::new(&format!("k{number}")).unwrap());
            let docs: Vec<DocId> = (0..documents).map(key).collect();
            let content = bytes::Bytes::from_static(CONTENT);
            let full = |(collection, key): &DocId| HostDocument {
                collection: collection.clone(),
                key: key.clone(),
                content: content.clone(),
                hlc: 1,
            };
            let full: Vec<HostDocument> = docs.iter().map(full).collect();
            let calls = 1_000_000 / documents;
            let time = |name: &str, host: &mut Host, call: &dyn Fn(&mut Host)| {
                let begin = Instant::now();
                (0..calls).for_each(|_| call(host));
                let each = begin.elapsed().as_nanos() / calls as u128;
                eprintln!("{name} of {documents}: {each} ns a call");
            };
            time("begin", &mut host, &|host| host.begin().unwrap());
            time("apply", &mut host, &|host| host.apply(&full).unwrap());
            time("read", &mut host, &|host| assert_eq!(host.read(&docs).unwrap().len(), documents));
        }
    }
}
