//! What the tests of nodes without tables share: places, an application's store in memory, waiting.

#![allow(dead_code, unreachable_pub)]

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use bytes::Bytes;
use entgldb::{
    ClusterSecret, Collection, Config, DocId, Durability, Events, HostCapabilities, HostChange, HostDocument,
    HostError, HostResult, HostStore, Key, Node, OutboxItem, Side,
};
use tempfile::TempDir;

/// How long anything may take before a test gives up.
pub const PATIENCE: Duration = Duration::from_secs(30);

pub fn collection(name: &str) -> Collection {
    Collection::new(name).unwrap()
}

pub fn key(key: &str) -> Key {
    Key::new(key).unwrap()
}

pub fn doc(name: &str) -> DocId {
    (collection("notes"), key(name))
}

pub struct Place {
    dir: TempDir,
}

impl Place {
    pub fn new() -> Self {
        let place = Self { dir: tempfile::tempdir().unwrap() };
        let path = place.path("secret");
        std::fs::write(&path, ClusterSecret::generate().to_text().as_bytes()).unwrap();
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        }
        place
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn config(&self, name: &str) -> Config {
        let mut config = Config::new(self.path(name), self.path("secret"));
        config.watch = vec!["notes".to_owned()];
        config.listen = Some("127.0.0.1:0".to_owned());
        config.durability = Durability::Normal;
        config.sync_interval_ms = 200;
        config
    }

    pub fn config_to(&self, name: &str, peer: &Node) -> Config {
        let mut config = self.config(name);
        config.peers = vec![peer.local_address().unwrap().to_string()];
        config
    }
}

pub fn eventually(what: &str, mut check: impl FnMut() -> bool) {
    let start = Instant::now();
    while !check() {
        assert!(start.elapsed() < PATIENCE, "{what} did not happen");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Waits until both hold the same, whatever either has just been told.
pub fn level(a: &Node, b: &Node) {
    for node in [a, b, a] {
        eventually("a link", || node.sync_now(PATIENCE).is_ok());
    }
}

/// How a store in memory behaves.
#[derive(Clone, Default)]
pub struct Manners {
    pub transactions: bool,
    pub outbox: bool,
    pub resolve: bool,
    /// Drops fields that it does not know, and writes numbers and orders members in its own way.
    pub lossy: bool,
    /// Gives no contents when its keys are enumerated.
    pub keys_only: bool,
    /// Documents with this in their key are refused.
    pub poison: Option<&'static str>,
    /// No two documents of a collection may have the same `"email"`.
    pub unique: bool,
}

#[derive(Default)]
pub struct State {
    pub docs: BTreeMap<DocId, Bytes>,
    pub outbox: Vec<OutboxItem>,
    pub outbox_id: u64,
    pub outbox_read: u64,
    pub begun: Option<BTreeMap<DocId, Bytes>>,
    pub manners: Manners,
    /// The hooks that were called.
    pub calls: Vec<String>,
    /// The hook with this number cuts the store off, before or after its effect, or in the middle of it.
    pub cut: Option<(usize, Cut)>,
    pub is_cut: bool,
    /// Before the hook with this number the application writes this, outside of the hooks' transaction.
    pub meddle: Option<(usize, DocId, &'static str)>,
    pub dropped: usize,
    /// Documents that the hooks have brought in.
    pub applied: Vec<HostDocument>,
}

impl State {
    /// Documents that have the email of another one.
    fn in_the_way(&mut self, document: &HostDocument) -> Vec<DocId> {
        let email = |content: &Bytes| {
            let value: serde_json::Value = serde_json::from_slice(content).ok()?;
            value.get("email").cloned()
        };
        let Some(wanted) = email(&document.content).filter(|_| self.manners.unique) else {
            return Vec::new();
        };
        let own = (document.collection.clone(), document.key.clone());
        let docs = target(self).iter();
        docs.filter(|(doc, content)| **doc != own && email(content) == Some(wanted.clone()))
            .map(|(doc, _)| doc.clone())
            .collect()
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Cut {
    Before,
    Middle,
    After,
}

/// An application's store in memory, which outlives the node.
#[derive(Clone, Default)]
pub struct Memory(pub Arc<Mutex<State>>);

impl Memory {
    pub fn new(manners: Manners) -> Self {
        let memory = Self::default();
        memory.state().manners = manners;
        memory
    }

    pub fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }

    pub fn host(&self) -> Box<dyn HostStore> {
        Box::new(MemoryHost(self.clone()))
    }

    /// Whether the application may write a document.
    pub fn takes(&self, doc: &DocId, content: &str) -> bool {
        let (collection, key) = doc.clone();
        let document = HostDocument { collection, key, content: Bytes::from(content.to_owned()), hlc: 0 };
        self.state().in_the_way(&document).is_empty()
    }

    /// The application writes a document, and notes it in its outbox if it has one, as one transaction.
    pub fn write(&self, doc: DocId, content: Option<&str>) {
        let mut state = self.state();
        match content {
            Some(content) => drop(state.docs.insert(doc.clone(), Bytes::from(content.to_owned()))),
            None => drop(state.docs.remove(&doc)),
        }
        if state.manners.outbox {
            state.outbox_id += 1;
            let id = state.outbox_id;
            state.outbox.push(OutboxItem { id, doc, written_ms: now_ms() });
        }
    }

    pub fn get(&self, doc: &DocId) -> Option<String> {
        self.state().docs.get(doc).map(|content| String::from_utf8(content.to_vec()).unwrap())
    }

    pub fn all(&self) -> BTreeMap<DocId, Bytes> {
        self.state().docs.clone()
    }
}

pub fn now_ms() -> u64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_millis() as u64
}

pub struct MemoryHost(pub Memory);

impl MemoryHost {
    /// What [`HostStore::apply`] does, for stores around this one.
    pub fn apply_through(self, documents: &[HostDocument]) -> HostResult<()> {
        let mut host = std::mem::ManuallyDrop::new(self);
        host.apply(documents)
    }
}

impl Drop for MemoryHost {
    fn drop(&mut self) {
        self.0.state().dropped += 1;
    }
}

/// What a lossy store makes of a document.
pub fn lossy(content: &[u8]) -> Bytes {
    let mut value: serde_json::Value = serde_json::from_slice(content).unwrap();
    if let Some(members) = value.as_object_mut() {
        members.remove("unknown");
        for value in members.values_mut() {
            if let Some(number) = value.as_f64().filter(|number| number.fract() == 0.0) {
                *value = serde_json::json!(number as i64);
            }
        }
    }
    Bytes::from(serde_json::to_vec(&value).unwrap())
}

impl MemoryHost {
    fn hook(&mut self, name: &str, effect: impl Fn(&mut State, bool) -> HostResult<()>) -> HostResult<()> {
        let mut state = self.0.state();
        assert_eq!(state.dropped, 0, "a hook after the end");
        state.calls.push(name.to_owned());
        let number = state.calls.len();
        if let Some((_, doc, content)) = state.meddle.take_if(|(at, ..)| *at == number) {
            state.docs.insert(doc.clone(), Bytes::from(content));
            state.outbox_id += 1;
            let id = state.outbox_id;
            state.outbox.push(OutboxItem { id, doc, written_ms: now_ms() });
        }
        let gone = Err(HostError::unavailable("cut off"));
        if state.is_cut {
            return gone;
        }
        let cut = state.cut.filter(|(number, _)| *number == state.calls.len()).map(|(_, cut)| cut);
        if cut.is_some() {
            state.is_cut = true;
        }
        match cut {
            Some(Cut::Before) => gone,
            Some(Cut::Middle) => {
                let _ = effect(&mut state, true);
                gone
            }
            Some(Cut::After) => {
                let _ = effect(&mut state, false);
                gone
            }
            None => effect(&mut state, false),
        }
    }
}

impl HostStore for MemoryHost {
    fn capabilities(&self) -> HostCapabilities {
        let Manners { transactions, outbox, resolve, .. } = self.0.state().manners;
        HostCapabilities { transactions, outbox, resolve }
    }

    fn apply(&mut self, documents: &[HostDocument]) -> HostResult<()> {
        assert!(!documents.is_empty() && documents.len() <= entgldb::HOOK_DOCUMENTS_MAX);
        self.hook("apply", |state, half| {
            let count = if half { documents.len() / 2 } else { documents.len() };
            for document in &documents[..count] {
                if state.manners.poison.is_some_and(|poison| document.key.as_str().contains(poison)) {
                    return Err(HostError::failed(format!("{} is refused", document.key)));
                }
                let by = state.in_the_way(document);
                if !by.is_empty() {
                    return Err(HostError::Blocked { by, message: "the email is taken".to_owned() });
                }
                let content = match state.manners.lossy {
                    true => lossy(&document.content),
                    false => document.content.clone(),
                };
                state.applied.push(document.clone());
                let doc = (document.collection.clone(), document.key.clone());
                target(state).insert(doc, content);
            }
            Ok(())
        })
    }

    fn read(&mut self, docs: &[DocId]) -> HostResult<Vec<Option<Bytes>>> {
        self.hook("read", |_, _| Ok(()))?;
        let mut state = self.0.state();
        Ok(docs.iter().map(|doc| target(&mut state).get(doc).cloned()).collect())
    }

    fn delete(&mut self, docs: &[DocId]) -> HostResult<()> {
        self.hook("delete", |state, half| {
            let count = if half { docs.len() / 2 } else { docs.len() };
            for doc in &docs[..count] {
                target(state).remove(doc);
            }
            Ok(())
        })
    }

    fn enumerate(
        &mut self,
        collection: &Collection,
        after: Option<&Key>,
        limit: usize,
    ) -> HostResult<Vec<(Key, Option<Bytes>)>> {
        self.hook("enumerate", |_, _| Ok(()))?;
        let state = self.0.state();
        let keys_only = state.manners.keys_only;
        let from = after.map_or(std::ops::Bound::Unbounded, |after| {
            std::ops::Bound::Excluded((collection.clone(), after.clone()))
        });
        let found = state.docs.range((from, std::ops::Bound::Unbounded));
        let found = found.filter(|((found, _), _)| found == collection).take(limit);
        Ok(found
            .map(|((_, key), content)| (key.clone(), Some(content.clone()).filter(|_| !keys_only)))
            .collect())
    }

    fn begin(&mut self) -> HostResult<()> {
        self.hook("begin", |state, _| {
            state.begun = Some(state.docs.clone());
            Ok(())
        })
    }

    fn commit(&mut self) -> HostResult<()> {
        self.hook("commit", |state, _| {
            if state.manners.outbox && state.outbox.last().is_some_and(|last| last.id > state.outbox_read) {
                return Err(HostError::OutboxMoved);
            }
            if let Some(docs) = state.begun.take() {
                state.docs = docs;
            }
            Ok(())
        })
    }

    fn rollback(&mut self) -> HostResult<()> {
        self.hook("rollback", |state, _| {
            state.begun = None;
            Ok(())
        })
    }

    fn outbox(&mut self, after: u64, limit: usize) -> HostResult<Vec<OutboxItem>> {
        self.hook("outbox", |_, _| Ok(()))?;
        let mut state = self.0.state();
        state.outbox.retain(|item| item.id > after);
        let found: Vec<OutboxItem> = state.outbox.iter().take(limit).cloned().collect();
        state.outbox_read = found.last().map_or(after, |last| last.id).max(state.outbox_read);
        Ok(found)
    }

    fn resolve(&mut self, _: &DocId, versions: &[Side]) -> HostResult<Option<Bytes>> {
        self.hook("resolve", |_, _| Ok(()))?;
        // The longest stands.
        let longest = versions.iter().filter_map(|side| side.content.clone()).max_by_key(Bytes::len);
        Ok(longest)
    }
}

fn target(state: &mut State) -> &mut BTreeMap<DocId, Bytes> {
    match &mut state.begun {
        Some(docs) => docs,
        None => &mut state.docs,
    }
}

pub fn open(config: entgldb::Config, memory: &Memory) -> (Node, Events) {
    memory.state().dropped = 0;
    Node::open_with_host(config, Some(memory.host())).unwrap()
}

pub fn put(name: &str, content: &str) -> HostChange {
    HostChange::Put { doc: doc(name), content: Bytes::from(content.to_owned()) }
}

/// The application writes and tells of it.
pub fn write(node: &Node, memory: &Memory, name: &str, content: &str) {
    memory.write(doc(name), Some(content));
    node.record(&[put(name, content)]).unwrap();
}

pub fn all_manners() -> Vec<Manners> {
    let plain = Manners::default();
    vec![
        plain.clone(),
        Manners { transactions: true, ..plain.clone() },
        Manners { transactions: true, outbox: true, ..plain.clone() },
        Manners { lossy: true, ..plain.clone() },
        Manners { lossy: true, transactions: true, keys_only: true, ..plain },
    ]
}
