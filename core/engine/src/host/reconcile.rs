//! Comparing the application's store with what the engine knows of it, a piece at a time between other work: after an end
//! that was not a clean one, for a collection that is new, or on demand.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use bytes::Bytes;
use entgldb_replica::id::{Collection, Key};
use entgldb_replica::limits::HOOK_DOCUMENTS_MAX;
use entgldb_sqlite::own::{Missing, OwnStore};
use tracing::{info, warn};

use super::adapter::HostedStore;
use crate::event::Event;
use crate::status::{Comparing, HostHealth, Unconfirmed};
use crate::store::StoreError;

/// How long it is gone on with at a time.
const GO: Duration = Duration::from_millis(50);
/// How often progress is told.
const TELL: Duration = Duration::from_secs(1);

/// What is being compared.
#[derive(Debug, Default)]
pub(crate) struct Reconciling {
    due: VecDeque<Collection>,
    /// Collections of which all that is missing is deleted everywhere, however much it is.
    confirmed: Vec<Collection>,
    /// Collections of which so much was missing that it waits to be confirmed.
    unconfirmed: BTreeMap<Collection, Missing>,
    current: Current,
}

#[derive(Debug, Default)]
struct Current {
    after: Option<Key>,
    keys: u64,
    changed: u64,
    missing: u64,
    told: Option<Instant>,
}

impl Reconciling {
    /// What a store that is being opened has left to compare, or to be confirmed.
    pub(super) fn of(own: &OwnStore) -> Result<Self, StoreError> {
        let due: VecDeque<Collection> = own.to_compare()?.into();
        let mut unconfirmed = BTreeMap::new();
        for collection in own.collections().iter().filter(|collection| !due.contains(collection)) {
            let missing = own.missing(collection)?;
            if missing.count > 0 {
                unconfirmed.insert(collection.clone(), missing);
            }
        }
        Ok(Self { due, unconfirmed, ..Self::default() })
    }

    /// How it is, without the hooks.
    fn health(&self) -> HostHealth {
        let Current { keys, changed, missing, .. } = self.current;
        let comparing = self.due.front().map(|collection| Comparing {
            collection: collection.to_string(),
            keys,
            changed,
            missing,
        });
        let unconfirmed = self.unconfirmed.iter().map(|(collection, Missing { count, of })| Unconfirmed {
            collection: collection.to_string(),
            missing: *count,
            of: *of,
        });
        HostHealth { hook: None, comparing, unconfirmed: unconfirmed.collect() }
    }

    pub(super) fn is_done(&self) -> bool {
        self.due.is_empty()
    }

    /// Compares these too. One that is being compared is begun anew.
    pub(super) fn add(&mut self, collections: Vec<Collection>) {
        for collection in collections {
            if self.due.front() == Some(&collection) {
                self.current = Current::default();
            } else if !self.due.contains(&collection) {
                self.due.push_back(collection);
            }
        }
    }

    pub(super) fn remove(&mut self, name: &str) {
        if self.due.front().is_some_and(|collection| collection.as_str() == name) {
            self.current = Current::default();
        }
        self.due.retain(|collection| collection.as_str() != name);
        self.unconfirmed.retain(|collection, _| collection.as_str() != name);
    }
}

impl HostedStore {
    /// How the application's store is, as far as the status tells; which hook runs is not known here.
    pub(crate) fn health(&self) -> HostHealth {
        self.reconciling.health()
    }

    /// Compares a collection from its beginning, or all. With `confirm`, what is missing is deleted everywhere, however much
    /// it is. Answers which collections.
    pub(crate) fn reconcile(
        &mut self,
        only: Option<&Collection>,
        confirm: bool,
    ) -> Result<Vec<Collection>, StoreError> {
        let is_meant = |collection: &&Collection| only.is_none_or(|only| only == *collection);
        let collections: Vec<Collection> = self.own.collections().iter().filter(is_meant).cloned().collect();
        for collection in &collections {
            self.own.begin_compare(collection)?;
            self.reconciling.confirmed.retain(|confirmed| confirmed != collection);
        }
        if confirm {
            self.reconciling.confirmed.extend(collections.iter().cloned());
        }
        self.reconciling.add(collections.clone());
        Ok(collections)
    }

    /// Goes on for a while. Answers whether there is more to compare.
    pub(super) fn reconcile_on(&mut self) -> Result<bool, StoreError> {
        let until = Instant::now() + GO;
        while let Some(collection) = self.reconciling.due.front().cloned() {
            // What was found is captured first, so that the outbox stays small.
            if Instant::now() >= until || !self.own.outbox_is_empty()? {
                return Ok(true);
            }
            if self.compare_piece(&collection)? {
                self.end(&collection)?;
            }
        }
        Ok(false)
    }

    /// Compares one piece of a collection. Answers whether it was the last one.
    fn compare_piece(&mut self, collection: &Collection) -> Result<bool, StoreError> {
        let after = self.reconciling.current.after.clone();
        let found =
            self.ask("enumerate", |host| host.enumerate(collection, after.as_ref(), HOOK_DOCUMENTS_MAX))?;
        let keys = after.iter().chain(found.iter().map(|(key, _)| key));
        if !keys.clone().zip(keys.skip(1)).all(|(one, next)| one < next) {
            return Err(StoreError::host("enumerate", "the keys do not come in the order of their bytes"));
        }
        let until = found.last().map(|(key, _)| key.clone());
        let documents = self.with_contents(collection, found)?;
        let compared = self.own.compare(collection, after.as_ref(), &documents, until.as_ref())?;
        let current = &mut self.reconciling.current;
        current.keys += documents.len() as u64;
        current.changed += compared.changed;
        current.missing += compared.missing;
        current.after = until.clone().or(after);
        if current.told.is_none_or(|told| told.elapsed() >= TELL) {
            current.told = Some(Instant::now());
            self.tell(collection, false);
        }
        Ok(until.is_none())
    }

    /// The contents of all of them; one that is gone in between is left out.
    fn with_contents(
        &mut self,
        collection: &Collection,
        found: Vec<(Key, Option<Bytes>)>,
    ) -> Result<Vec<(Key, Bytes)>, StoreError> {
        let lacking: Vec<_> = found
            .iter()
            .filter(|(_, content)| content.is_none())
            .map(|(key, _)| (collection.clone(), key.clone()))
            .collect();
        let mut read = self.read(&lacking)?.into_iter();
        let whole =
            |(key, content): (Key, Option<Bytes>)| Some((key, content.or_else(|| read.next().flatten())?));
        Ok(found.into_iter().filter_map(whole).collect())
    }

    fn end(&mut self, collection: &Collection) -> Result<(), StoreError> {
        let missing = self.own.missing(collection)?;
        let confirmed = self.reconciling.confirmed.contains(collection);
        let delete = confirmed || !missing.is_too_many();
        self.own.end_compare(collection, delete)?;
        self.reconciling.unconfirmed.remove(collection);
        self.reconciling.confirmed.retain(|other| other != collection);
        self.tell(collection, true);
        if !delete {
            self.reconciling.unconfirmed.insert(collection.clone(), missing);
            let Missing { count, of } = missing;
            warn!(%collection, missing = count, of, "too many documents are missing to delete them unasked");
            let collection = collection.to_string();
            self.hub.tell(&Event::ReconcileStopped { collection, missing: count, of });
        }
        self.reconciling.due.pop_front();
        self.reconciling.current = Current::default();
        Ok(())
    }

    fn tell(&self, collection: &Collection, done: bool) {
        let Current { keys, changed, missing, .. } = self.reconciling.current;
        if done {
            info!(%collection, keys, changed, missing, "the application's store was compared");
        }
        let collection = collection.to_string();
        self.hub.tell(&Event::Reconcile { collection, keys, changed, missing, done });
    }
}
