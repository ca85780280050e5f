//! What must hold of the victim after every script.

use std::collections::BTreeMap;

use bytes::Bytes;
use entgldb_replica::clock::Hlc;
use entgldb_replica::entry::Chain;
use entgldb_replica::fingerprint::{Fingerprint, Tally};
use entgldb_replica::id::{Collection, DocId, LogId, sha256};
use entgldb_replica::member::members;
use entgldb_replica::resolve::{Row, takes_over};
use entgldb_replica::store::{Store, Stored};
use entgldb_replica::version::{Hash, Head, Seq};

use super::cast::{HELD, cast};
use super::memory::MemoryStore;
use super::world::World;

/// Checks all promises.
///
/// # Panics
/// When one is broken.
pub fn hold(world: &mut World) {
    let heads = world.known_logs();
    let written = std::mem::take(&mut world.written);
    let has_asked = world.has_asked_for_rows;
    let store = world.store();
    let waiting: Vec<DocId> = store.ambush.iter().map(|(doc, ..)| doc.clone()).collect();
    assert_eq!(store.outbox_len(), 0, "a write is not captured");
    chains_are_whole(store);
    nobody_else_wrote_in_the_name_of(store);
    let only_entries = !has_asked && store.floors.is_empty();
    rows_are_the_join_of_entries(store, only_entries);
    documents_are_the_rows(store);
    writes_are_entries(store, &written, &waiting);
    memory_is_what_is_durable(store, &heads);
    world.written = written;
}

fn chains_are_whole(store: &MemoryStore) {
    for (log, entries) in &store.log {
        // Where a snapshot stands for the beginning, or it is forgotten, the log begins there.
        let floor = store.floors.get(log).map(|signed| (signed.head, signed.hlc)).unwrap_or_default();
        let mut chain = Chain::resume(log.clone(), floor.0, floor.1);
        for stored in entries {
            let linked = chain.link(stored.entry.clone()).expect("no gap, no time that goes back");
            assert_eq!(linked.hash(), stored.hash, "{log}: a hash that is not its entry's");
        }
        let signed = store.signed.get(log).and_then(|signed| signed.last_key_value());
        assert_eq!(signed.map(|(_, signed)| signed.head), Some(chain.head()), "{log}: the end is not signed");
        let is_wanted = ["a", "b", members().as_str()].contains(&log.collection.as_str());
        assert!(is_wanted, "{log} was not asked for");
    }
}

/// Whatever is held of an author is what that author signed.
fn nobody_else_wrote_in_the_name_of(store: &MemoryStore) {
    let cast = cast();
    for (log, entries) in &store.log {
        if log.author == cast.victim.node_id() {
            continue;
        }
        let Some(last) = entries.last() else { continue };
        let at = usize::try_from(last.entry.seq.0).expect("few") - 1;
        let is_genuine = |history: &super::cast::History| {
            history.run.log == *log && history.hashes.get(at) == Some(&last.hash)
        };
        assert!(cast.histories.iter().any(is_genuine), "{log}: an entry that its author did not sign");
    }
    for history in &cast.honest_logs[..2] {
        let held = store.head(&history.run.log).0.seq;
        assert!(held >= Seq(HELD as u64), "entries of another author were lost");
    }
}

fn rows_are_the_join_of_entries(store: &mut MemoryStore, only_entries: bool) {
    let mut rows: BTreeMap<DocId, Row> = BTreeMap::new();
    let mut latest = Hlc::default();
    for (log, entries) in &store.log {
        for Stored { entry, .. } in entries {
            let doc = (log.collection.clone(), entry.key.clone());
            let stamp = entry.stamp(log.author);
            let content = entry.content().map(|content| Hash(sha256(content)));
            latest = latest.max(entry.hlc);
            if takes_over(rows.get(&doc), &stamp, content) {
                rows.insert(doc, Row { stamp, content });
            }
        }
    }
    if only_entries {
        assert_eq!(store.rows, rows, "rows are not the join of the entries");
    }
    for (doc, row) in &rows {
        let stands = store.rows.get(doc).is_some_and(|found| found.stamp >= row.stamp);
        assert!(stands, "an entry is younger than the row of {doc:?}");
    }
    let durable = store.load().unwrap_or_else(|error| panic!("{error}"));
    assert!(durable.clock >= latest, "the clock is behind an entry");
    let mut tallies: BTreeMap<Collection, Tally> = BTreeMap::new();
    for (doc, row) in &store.rows {
        let tally = tallies.entry(doc.0.clone()).or_default();
        tally.fingerprint.add(Fingerprint::of_row(&doc.1, &row.stamp, row.content.as_ref()));
        tally.rows += 1;
    }
    assert_eq!(durable.tallies.into_iter().collect::<BTreeMap<_, _>>(), tallies);
    for conflict in store.conflicts.values() {
        assert!(conflict.winner.stamp >= conflict.loser.stamp, "the younger version loses");
    }
}

fn documents_are_the_rows(store: &MemoryStore) {
    let rows = store.rows.iter().filter(|((collection, _), _)| collection != members());
    let rows = rows.filter_map(|(doc, row)| Some((doc.clone(), row.content?))).collect::<BTreeMap<_, _>>();
    let docs = store.docs.iter().map(|(doc, content)| (doc.clone(), Hash(sha256(content)))).collect();
    assert_eq!(rows, docs, "the application's documents are not what its rows say");
}

/// Every write of the application is an entry of the victim's own.
fn writes_are_entries(store: &MemoryStore, written: &BTreeMap<DocId, Option<Bytes>>, waiting: &[DocId]) {
    let own = cast().victim.node_id();
    for (doc, content) in written.iter().filter(|(doc, _)| !waiting.contains(doc)) {
        let mut logs = store.log.iter().filter(|(log, _)| log.author == own && log.collection == doc.0);
        let is_it = |stored: &Stored| stored.entry.key == doc.1 && stored.entry.content() == content.as_ref();
        let is_there = logs.any(|(_, entries)| entries.iter().any(is_it));
        // A delete of what was not there need not be told.
        assert!(is_there || content.is_none(), "a write of the application was lost: {doc:?} {content:?}");
    }
}

fn memory_is_what_is_durable(store: &mut MemoryStore, heads: &[(LogId, Head)]) {
    let durable = store.load().unwrap_or_else(|error| panic!("{error}"));
    let durable: BTreeMap<LogId, Head> =
        durable.heads.into_iter().map(|(log, head, _)| (log, head)).collect();
    let known: BTreeMap<LogId, Head> = heads.iter().cloned().collect();
    assert_eq!(known, durable, "it claims other than it has");
}
