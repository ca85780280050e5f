//! 1 and 2 at the end: all that was written and could survive is held by everybody who wants it; rows are its join, and
//! the application's documents are what the rows say.

use std::collections::BTreeMap;

use entgldb_replica::id::{Collection, DocId, sha256};
use entgldb_replica::merge::Merged;
use entgldb_replica::resolve::Row;
use entgldb_replica::version::Hash;

use super::{Checker, Verdict, ensure};
use crate::oracle::Oracle;
use crate::resolver::resolvers;
use crate::seen::{Ending, Setting};

pub(crate) struct EndState;

impl Checker for EndState {
    fn name(&self) -> &'static str {
        "2 final state"
    }

    fn ended(&mut self, setting: &Setting, oracle: &Oracle, ending: &Ending<'_>) -> Verdict {
        for collection in setting.collections() {
            for component in setting.components(&collection) {
                for node in &component {
                    check_node(setting, oracle, ending, &collection, &component, *node)?;
                }
            }
        }
        Ok(())
    }
}

fn check_node(
    setting: &Setting,
    oracle: &Oracle,
    ending: &Ending<'_>,
    collection: &Collection,
    component: &[usize],
    node: usize,
) -> Verdict {
    let disk = &ending.disks[node];
    let mut join: BTreeMap<&DocId, Row> = BTreeMap::new();
    let mut states: BTreeMap<&DocId, Merged> = BTreeMap::new();
    for (log, entries) in oracle.entries().filter(|(log, _)| log.collection == *collection) {
        let (held, _) = disk.head(log);
        // What an author outside of the component wrote may have got in through a link by chance, or not.
        let inside = component.iter().any(|member| setting.members[*member].id == log.author);
        let inside = inside && !oracle.is_passing(log);
        for (seq, branches) in entries {
            let forked = oracle.fork_of(log).is_some_and(|fork| *seq >= fork);
            ensure(*seq <= held.seq || !inside || forked || oracle.is_perhaps_lost(log, *seq), || {
                format!("node {node} lacks {log} {seq:?} ({:?})", branches[0].doc)
            })?;
            let hash = disk.hash_at(log, *seq);
            let Some(authored) = branches.iter().find(|authored| Some(authored.hash) == hash) else {
                ensure(*seq > held.seq, || {
                    format!("node {node} holds another {log} {seq:?} than was written")
                })?;
                continue;
            };
            if setting.options.has_states() {
                states.entry(&authored.doc).or_default().join(authored.said.clone());
            }
            let row = join.entry(&authored.doc).or_insert(authored.row);
            if (row.stamp, row.content) < (authored.row.stamp, authored.row.content) {
                *row = authored.row;
            }
        }
    }
    // Stamps rise to the youngest entry in every way of writing; the content is that of all of them.
    let resolvers = resolvers(&setting.options, node, [collection]);
    for (doc, mut state) in states {
        // Where it fails the youngest version stands.
        let _ = state.resolve(doc, resolvers.get(collection));
        let content = state.content().map(|content| Hash(sha256(&content)));
        join.entry(doc).and_modify(|row| row.content = content);
    }
    let rows = disk.rows.iter().filter(|((name, _), _)| name == collection);
    let rows: BTreeMap<&DocId, Row> = rows.map(|(doc, row)| (doc, *row)).collect();
    ensure(rows == join, || {
        let differs = join.iter().find(|(doc, row)| rows.get(*doc) != Some(row));
        format!("node {node}: rows are not the join of what was written: {differs:?}")
    })?;
    for (doc, row) in rows {
        let content = disk.docs.get(doc).map(|content| Hash(sha256(content)));
        ensure(content == row.content, || {
            format!("node {node}: the document {doc:?} is not what its row says")
        })?;
    }
    let stray = disk.docs.keys().find(|doc| doc.0 == *collection && !disk.rows.contains_key(*doc));
    ensure(stray.is_none(), || format!("node {node} has {stray:?}, which nobody wrote"))
}
