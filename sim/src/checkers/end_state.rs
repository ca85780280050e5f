//! 1 and 2 at the end: all that was written and could survive is held by everybody who wants it; rows are its join, and
//! the application's documents are what the rows say.

use std::collections::BTreeMap;

use entgldb_replica::id::{Collection, DocId, sha256};
use entgldb_replica::merge::Merged;
use entgldb_replica::resolve::Row;
use entgldb_replica::version::Hash;

use super::{Checker, Verdict, ensure};
use crate::oracle::{Authored, Oracle};
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
                check_equal(ending, &collection, &component)?;
            }
        }
        Ok(())
    }
}

/// What entries that a node holds say of a document.
#[derive(Default)]
struct Said<'a> {
    /// The youngest of them.
    row: Option<Row>,
    state: Merged,
    /// Everything that anybody wrote of it in entries that the node may have had only the rows of: of another branch of a log,
    /// or gone with the only machine that had them.
    perhaps: Vec<&'a Authored>,
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
    let mut documents: BTreeMap<&DocId, Said<'_>> = BTreeMap::new();
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
            // What came in a snapshot has no hash here. In a log that forked nobody can tell which branch it was.
            let by_snapshot = hash.is_none() && *seq <= disk.floor(log);
            if *seq > held.seq || forked {
                for authored in branches {
                    documents.entry(&authored.doc).or_default().perhaps.push(authored);
                }
            }
            if *seq > held.seq || by_snapshot && forked {
                continue;
            }
            let is_it = |authored: &&Authored| by_snapshot || Some(authored.hash) == hash;
            let Some(authored) = branches.iter().find(is_it) else {
                return Err(format!("node {node} holds another {log} {seq:?} than was written"));
            };
            let said = documents.entry(&authored.doc).or_default();
            if setting.options.has_states() {
                said.state.join(authored.said.clone());
            }
            let younger = |row: &Row| (row.stamp, row.content) < (authored.row.stamp, authored.row.content);
            if said.row.as_ref().is_none_or(younger) {
                said.row = Some(authored.row);
            }
        }
    }
    let resolvers = resolvers(&setting.options, node, [collection]);
    for (doc, mut said) in documents {
        // Stamps rise to the youngest entry in every way of writing; the content is that of all of them.
        if let Some(row) = &mut said.row
            && setting.options.has_states()
        {
            // Where it fails the youngest version stands.
            let _ = said.state.resolve(doc, resolvers.get(collection));
            row.content = said.state.content().map(|content| Hash(sha256(&content)));
        }
        let found = disk.rows.get(doc).copied();
        let explains = |authored: &&Authored, row: &Row| {
            authored.row.stamp == row.stamp
                && (authored.row.content == row.content || setting.options.has_states())
        };
        let is_unsure = !said.perhaps.is_empty()
            && found.map(|row| row.stamp) >= said.row.map(|row| row.stamp)
            && found.is_none_or(|row| {
                said.row.is_some_and(|said| said.stamp == row.stamp && setting.options.has_states())
                    || said.perhaps.iter().any(|authored| explains(authored, &row))
            });
        ensure(found == said.row || is_unsure, || {
            let row = &said.row;
            format!("node {node}: {doc:?} is not the join of what was written: {row:?}, found {found:?}")
        })?;
    }
    for (doc, row) in disk.rows.iter().filter(|((name, _), _)| name == collection) {
        let content = disk.docs.get(doc).map(|content| Hash(sha256(content)));
        ensure(content == row.content, || {
            format!("node {node}: the document {doc:?} is not what its row says")
        })?;
    }
    let stray = disk.docs.keys().find(|doc| doc.0 == *collection && !disk.rows.contains_key(*doc));
    ensure(stray.is_none(), || format!("node {node} has {stray:?}, which nobody wrote"))
}

/// Rows are equal on all nodes, whatever logs they came from.
fn check_equal(ending: &Ending<'_>, collection: &Collection, component: &[usize]) -> Verdict {
    let rows_of = |node: usize| ending.disks[node].rows.iter().filter(|((name, _), _)| name == collection);
    for node in &component[1..] {
        let differs = rows_of(component[0]).zip(rows_of(*node)).find(|(ours, theirs)| ours != theirs);
        ensure(differs.is_none() && rows_of(component[0]).count() == rows_of(*node).count(), || {
            format!("nodes {} and {node} end with other rows: {differs:?}", component[0])
        })?;
    }
    Ok(())
}
