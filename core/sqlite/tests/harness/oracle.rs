//! What must be true once everything has come to rest.

use std::collections::{BTreeMap, BTreeSet};

use entgldb_replica::clock::Hlc;
use entgldb_replica::id::{DocId, LogId};
use entgldb_replica::store::{ReadLimits, Store};
use entgldb_replica::version::Seq;
use entgldb_sqlite::inspect::Inspector;
use entgldb_sqlite::verify;

use super::accounts::{Accounts, How, Image, Origin, Written, ids, ids_in};
use super::mix::{Class, SET_ASIDE_IS_FORGOTTEN};
use super::shape::TABLE;
use super::world::World;

/// Judges a world that has come to rest.
///
/// # Panics
/// With everything that is wrong.
pub fn judge(world: &mut World) {
    let images: Vec<Image> = world.nodes.iter().map(|node| node.app.borrow().image()).collect();
    let mut wrong = Vec::new();
    equal(&images, &mut wrong);
    sound(world, &mut wrong);
    let kept = kept(world);
    let accounts = world.accounts.clone();
    nothing_is_lost(&accounts.borrow(), &images[0], &kept, &mut wrong);
    nothing_comes_back(&accounts.borrow(), &images[0], world.mix.has(Class::Merge), &mut wrong);
    // A file that was put back issues again what nobody has.
    if !world.mix.has(Class::Restore) {
        no_echo(world, &mut wrong);
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// All nodes show the same.
fn equal(images: &[Image], wrong: &mut Vec<String>) {
    for (at, image) in images.iter().enumerate().skip(1) {
        let docs: BTreeSet<&String> = images[0].keys().chain(image.keys()).collect();
        for doc in docs {
            let (one, other) = (images[0].get(doc), image.get(doc));
            if one != other {
                wrong.push(format!("DIFFER: {doc}: node 0 {}, node {at} {}", shown(one), shown(other)));
            }
        }
    }
}

fn shown(row: Option<&BTreeMap<usize, Option<String>>>) -> String {
    let Some(row) = row else { return "no row".into() };
    let value = |value: &Option<String>| match value {
        Some(value) => value.chars().take(10).collect(),
        None => "NULL".to_owned(),
    };
    row.iter().map(|(field, now)| format!("{field}:{}", value(now))).collect::<Vec<_>>().join(" ")
}

/// Each store checks out against itself.
fn sound(world: &World, wrong: &mut Vec<String>) {
    for (at, node) in world.nodes.iter().enumerate() {
        let report = verify(&node.path, &mut |_| {}).expect("the store can be verified");
        for fault in report.faults {
            wrong.push(format!("VERIFY: node {at}: {fault:?}"));
        }
    }
}

/// The values that are in a list of some node: conflicts, documents set aside.
fn kept(world: &World) -> BTreeSet<Written> {
    let mut kept = BTreeSet::new();
    for node in &world.nodes {
        let inspector = Inspector::open(&node.path).expect("the store can be inspected");
        let mut inspector = inspector.expect("the store was opened before");
        for listed in inspector.conflicts(100_000).expect("conflicts are read") {
            let doc = listed.conflict.doc.1.as_str();
            for side in [listed.conflict.winner, listed.conflict.loser] {
                let ids = ids_in(side.content.as_deref().unwrap_or_default());
                kept.extend(ids.into_iter().map(|id| (doc.to_owned(), id)));
            }
        }
        kept.extend(set_aside(&mut inspector));
    }
    kept
}

/// The values in documents that are set aside.
pub fn set_aside(inspector: &mut Inspector) -> BTreeSet<Written> {
    let mut found = BTreeSet::new();
    for problem in inspector.problems(100_000).expect("problems are read") {
        let content = problem.version.and_then(|(_, content)| content);
        let ids = ids_in(content.as_deref().unwrap_or_default());
        found.extend(ids.into_iter().map(|id| (problem.key.clone(), id)));
    }
    found
}

/// Every value that a user wrote is there, or in a list, or was taken away by a user who saw it.
fn nothing_is_lost(accounts: &Accounts, image: &Image, kept: &BTreeSet<Written>, wrong: &mut Vec<String>) {
    for (written, origin) in &accounts.written {
        let (doc, id) = written;
        let is_there = ids(image.get(doc)).contains_key(id);
        if is_there
            || accounts.dropped_fields.contains(&origin.field)
            || accounts.excused.contains(written)
            || accounts.went_unseen(written, origin)
            || accounts.was_superseded(written)
            || kept.contains(written)
            || SET_ASIDE_IS_FORGOTTEN && accounts.set_aside.contains(written)
        {
            continue;
        }
        let row = shown(image.get(doc));
        wrong.push(format!(
            "LOST: {doc}: w{id:06} of node {}, field {}; there is {row}",
            origin.node, origin.field
        ));
    }
}

/// No row is there of which a user has taken away every value knowingly: the user's version is younger. Where fields merge, no
/// value is there that a user has overwritten knowingly; but a row that was deleted comes back whole with a concurrent edit, and
/// what was overwritten before it was deleted may never have been seen by the engine.
fn nothing_comes_back(accounts: &Accounts, image: &Image, merges: bool, wrong: &mut Vec<String>) {
    for (doc, row) in image {
        let touches_dropped = |(written, origin): (&Written, &Origin)| {
            written.0 == *doc && accounts.dropped_fields.contains(&origin.field)
        };
        if accounts.written.iter().any(touches_dropped) {
            continue;
        }
        let there = ids(Some(row));
        let is = |id: &u64, how| accounts.is_superseded(&(doc.clone(), *id), how);
        let is_gone = |id: &u64| is(id, How::Overwritten) || is(id, How::Deleted);
        let was_deleted = accounts
            .written
            .keys()
            .any(|written| written.0 == *doc && accounts.is_superseded(written, How::Deleted));
        let is_old = !there.is_empty() && there.keys().all(is_gone);
        if is_old || merges && !was_deleted && there.keys().any(|id| is(id, How::Overwritten)) {
            wrong.push(format!("CAME BACK: {doc}: {}", shown(Some(row))));
        }
    }
}

/// No node has more entries of a document than its users changed it.
fn no_echo(world: &mut World, wrong: &mut Vec<String>) {
    let accounts = world.accounts.clone();
    for (at, node) in world.nodes.iter_mut().enumerate() {
        let author = node.key.node_id();
        let replica = node.replica.as_mut().expect("all nodes are on");
        let logs: Vec<LogId> = replica
            .vector()
            .iter()
            .map(|(log, _)| log.clone())
            .filter(|log| log.author == author && log.collection.as_str() == TABLE)
            .collect();
        let mut count: BTreeMap<DocId, u64> = BTreeMap::new();
        for log in logs {
            let limits = ReadLimits { until: Hlc(u64::MAX), entries: 100_000, bytes: usize::MAX };
            for stored in replica.store().read_log(&log, Seq(0), &limits).expect("the log is read") {
                *count.entry((log.collection.clone(), stored.entry.key)).or_default() += 1;
            }
        }
        for ((_, key), entries) in count {
            let changes = accounts.borrow().changes.get(&(at, key.as_str().to_owned())).copied();
            let changes = changes.unwrap_or(0);
            if entries > changes {
                wrong.push(format!("ECHO: {key:?}: node {at} has {entries} entries of {changes} changes"));
            }
        }
    }
}
