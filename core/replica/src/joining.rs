//! Rows of a snapshot joined into those that are here.

use crate::apply::{Planned, Planner, tallies};
use crate::clock::{Hlc, Stamp};
use crate::conflicts::{Branches, Conflicts, LOST_MAX, Versions};
use crate::id::{DocId, NodeId, sha256};
use crate::merge::Merged;
use crate::resolve::{Conflict, Document, Relation, Row, Side, takes_over};
use crate::snapshot::Incoming;
use crate::states;
use crate::store::{Guard, RowWrite, Store};
use crate::version::Hash;
use crate::waiting::OpenConflicts;

impl Planner<'_> {
    /// Joins a piece of a snapshot into the rows: a commit, guarded against uncaptured local changes.
    pub(crate) fn plan_snapshot<S: Store>(
        &self,
        store: &mut S,
        (open, branches): (&OpenConflicts, &mut Branches),
        incoming: &Incoming,
        documents: &[Document],
        guard: Guard,
    ) -> Result<Planned, S::Error> {
        let doc_of = |document: &Document| (incoming.collection.clone(), document.key.clone());
        let docs: Vec<DocId> = documents.iter().map(doc_of).collect();
        let rows = store.rows(&docs)?;
        let mut commit = self.commit(guard, self.clock.last());
        let resolvers = self.states.custom;
        let mut conflicts = Conflicts::new(store, self.logs, Versions::new(), (open, branches), resolvers);
        for ((doc, document), before) in docs.into_iter().zip(documents).zip(rows) {
            let state = self.states.read(conflicts.store(), &doc, before.as_ref())?;
            let write = if document.merged.is_some() || state.is_some() {
                join_state(&mut conflicts, (doc, before, state), document, incoming)?
            } else {
                if let Some(before) = before {
                    note_loser(&mut conflicts, &doc, document, before, incoming)?;
                }
                let stands = takes_over(before.as_ref(), &document.row.stamp, document.row.content);
                let apply = Some(document.content.clone());
                stands.then(|| RowWrite { doc, row: document.row, before, apply, merged: None })
            };
            commit.rows.extend(write);
        }
        let (writes, problems, work) = conflicts.into_found();
        commit.conflicts = writes;
        commit.rows.sort_by(|a, b| (a.row.stamp, &a.doc).cmp(&(b.row.stamp, &b.doc)));
        let latest = commit.rows.last().map_or(Hlc::default(), |write| write.row.stamp.hlc);
        commit.clock = commit.clock.max(latest);
        commit.tallies = tallies(self.logs, &commit.rows);
        Ok(Planned { commit, problems, work })
    }
}

/// Joins the state of a document that merges, on either side or on both.
fn join_state<S: Store>(
    conflicts: &mut Conflicts<'_, S>,
    (doc, before, state): (DocId, Option<Row>, Option<Merged>),
    document: &Document,
    incoming: &Incoming,
) -> Result<Option<RowWrite>, S::Error> {
    let was = match state {
        Some(state) => state,
        None => {
            let version = match &before {
                Some(row) => conflicts.store().version(&doc, &row.stamp)?,
                None => None,
            };
            states::base(before.as_ref(), version)
        }
    };
    let stamp = document.row.stamp;
    let told = document.merged.clone().and_then(|bytes| Merged::decode(bytes, stamp).ok());
    let told = told.unwrap_or_else(|| Merged::replaced(stamp, document.content.as_ref()));
    let mut after = was.clone();
    after.join(told.clone());
    conflicts.fit(&doc, &was, &mut after, stamp);
    if after.has_heads() {
        conflicts.resolve(&doc, &mut after);
    }
    if let Some(here) = before.filter(|here| here.content != document.row.content) {
        note_lost(conflicts, (&doc, here), (&was, &told, &after), incoming)?;
    }
    // An edit that says nothing moves the row's stamp alone; nodes that never got it must end with the same.
    if after == was && before.is_some_and(|here| here.stamp >= stamp) {
        return Ok(None);
    }
    let content = after.content();
    let hash = content.as_ref().map(|content| Hash(sha256(content)));
    let newest = before.map_or(stamp, |row| row.stamp.max(stamp));
    let merged = Some(after.encode(newest));
    // Also where only the state changes: the document may have been set aside.
    Ok(Some(RowWrite {
        doc,
        row: Row { stamp: newest, content: hash },
        before,
        apply: Some(content),
        merged,
    }))
}

/// Notes what was written of a document that merges, here or there, and does not show any more, unless its author or whoever
/// replaced it knew of the other.
fn note_lost<S: Store>(
    conflicts: &mut Conflicts<'_, S>,
    (doc, here): (&DocId, Row),
    (was, told, after): (&Merged, &Merged, &Merged),
    incoming: &Incoming,
) -> Result<(), S::Error> {
    let last = Stamp { hlc: Hlc(u64::MAX), node: NodeId([u8::MAX; 32]) };
    let known = conflicts.store().version(doc, &here.stamp)?.and_then(|version| version.replaces);
    let is_settled = |stamp: &Stamp| incoming.covers(&Row { stamp: *stamp, content: None });
    let ours = was.lost_in(after).into_iter().filter(|stamp| !is_settled(stamp));
    let ours = ours.rev().take(LOST_MAX).map(|stamp| (stamp, was.content(), told.newest()));
    let theirs = told.lost_in(after).into_iter().rev().take(LOST_MAX);
    let theirs = theirs.map(|stamp| (stamp, after.preferring(told, last), was.newest()));
    for (stamp, content, by) in ours.chain(theirs.collect::<Vec<_>>()) {
        let Some(by) = by.filter(|by| *by > stamp && content != after.content()) else { continue };
        // Of what the peer has it can be told whether the version that stands here was made from it.
        let is_theirs = by == here.stamp;
        let found = if is_theirs { conflicts.relate(doc, stamp, known)? } else { Relation::Conflict };
        if found == Relation::Conflict {
            let (winner, loser) = (Side { stamp: by, content: after.content() }, Side { stamp, content });
            conflicts.settle(Conflict { doc: doc.clone(), winner, loser, missing: None }, found);
        }
    }
    if after.has_heads() {
        for side in told.sides().iter().rev().take(LOST_MAX) {
            conflicts.note_sides(doc, side.stamp, was, told, after);
        }
    }
    Ok(())
}

/// Notes which version loses, if the two were made apart.
fn note_loser<S: Store>(
    conflicts: &mut Conflicts<'_, S>,
    doc: &DocId,
    document: &Document,
    here: Row,
    incoming: &Incoming,
) -> Result<(), S::Error> {
    // What the snapshot stands for was settled by those who have the history of it.
    if here.content == document.row.content || here.stamp == document.row.stamp || incoming.covers(&here) {
        return Ok(());
    }
    let known = conflicts.store().version(doc, &here.stamp)?;
    let replaces = known.as_ref().and_then(|version| version.replaces);
    let here_side = Side { stamp: here.stamp, content: known.and_then(|version| version.content()) };
    let told = Side { stamp: document.row.stamp, content: document.content.clone() };
    let (winner, loser, found) = if here.stamp < document.row.stamp {
        (told, here_side, Relation::Conflict)
    } else {
        let found = conflicts.relate(doc, told.stamp, replaces)?;
        (here_side, told, found)
    };
    if found == Relation::Conflict {
        conflicts.settle(Conflict { doc: doc.clone(), winner, loser, missing: None }, found);
    }
    Ok(())
}
