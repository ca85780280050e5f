//! From changes to commits: what a step will make durable, decided before anything is written.
//!
//! [`Planner::plan_local`] turns captured changes into signed entries; [`Planner::plan_remote`] joins checked entries into the rows. Both
//! read the store and leave it alone: the result is one [`Commit`].

use std::collections::BTreeMap;

use crate::clock::{Clock, Hlc, Stamp, WallMillis};
use crate::conflicts::{BRANCHES_MAX, Branches, Conflicts, Incoming, index_versions};
use crate::entry::{AuthorKey, Entry, Op, SignedHead};
use crate::fingerprint::{Fingerprint, Tally};
use crate::id::{Collection, DocId, Incarnation, LogId, NodeId, PublicKey, sha256};
use crate::oplog::Logs;
use crate::resolve::{Row, takes_over};
use crate::states::{Current, States, Written};
use crate::store::{Appended, Change, Commit, Drain, FirstCopy, Guard, Problem, RowWrite, Store};
use crate::version::Hash;
use crate::waiting::OpenConflicts;

/// What a plan is made from: the state of a replica, for reading.
pub(crate) struct Planner<'a> {
    pub(crate) logs: &'a Logs,
    pub(crate) clock: &'a Clock,
    pub(crate) key: &'a AuthorKey,
    pub(crate) node: NodeId,
    pub(crate) incarnation: Incarnation,
    pub(crate) wall: WallMillis,
    pub(crate) states: States<'a>,
}

/// A captured change that leaves its document other than its row says.
struct Changed<'a> {
    change: &'a Change,
    before: Option<Row>,
    content: Option<Hash>,
}

/// What becomes of one.
struct Captured<'a> {
    doc: &'a DocId,
    before: Option<Row>,
    content: Option<Hash>,
    written: Written,
}

/// What is to be committed, and what to tell once it is.
pub(crate) struct Planned {
    pub(crate) commit: Commit,
    pub(crate) problems: Vec<Problem>,
    /// Versions, and places of states, that were looked at.
    pub(crate) work: usize,
}

impl Planner<'_> {
    pub(crate) fn commit(&self, guard: Guard, clock: Hlc) -> Commit {
        Commit {
            owner: (self.node, self.incarnation),
            guard,
            clock,
            wall: self.wall,
            appended: Vec::new(),
            authors: Vec::new(),
            rows: Vec::new(),
            tallies: Vec::new(),
            conflicts: Vec::new(),
            drained: None,
            first_copy: None,
            adopted: Vec::new(),
            floors: Vec::new(),
            notes: Vec::new(),
        }
    }

    /// A commit that changes nothing yet.
    pub(crate) fn own_commit(&self) -> Commit {
        self.commit(Guard::None, self.clock.last())
    }

    /// Turns one look into the outbox into a commit. Changes that leave a document as its row says are not changes:
    /// that is how an echo, or a write that was undone before it was seen, ends here.
    pub(crate) fn plan_local<S: Store>(&self, store: &mut S, drain: &Drain) -> Result<Commit, S::Error> {
        let docs: Vec<DocId> = drain.changes.iter().map(|change| change.doc.clone()).collect();
        let rows = store.rows(&docs)?;
        let mut changed: Vec<Changed<'_>> = Vec::with_capacity(rows.len());
        for (change, before) in drain.changes.iter().zip(rows) {
            let content = change.content.as_ref().map(|content| Hash(sha256(content)));
            if before.map_or(content.is_some(), |row| row.content != content) {
                changed.push(Changed { change, before, content });
            }
        }
        let mut commit = self.own_commit();
        commit.drained = drain.mark;
        commit.first_copy = drain.first_copy;
        if changed.is_empty() {
            return Ok(commit);
        }
        let hlc = self.time_of(&changed, drain.first_copy);
        commit.clock = self.clock.last().max(hlc);
        let stamp = Stamp { hlc, node: self.node };
        let mut captured = Vec::with_capacity(changed.len());
        for Changed { change, before, content } in changed {
            let doc = &change.doc;
            let state = self.states.read(store, doc, before.as_ref())?;
            let place = (doc, before.as_ref());
            let written = self.states.write(store, place, state, change.content.as_ref(), stamp)?;
            let Some(mut written) = written else { continue };
            let _ = written.after.as_mut().map(|after| after.fit(stamp));
            let row = Row { stamp, content };
            let merged = written.after.as_ref().map(|after| after.encode(stamp));
            commit.rows.push(RowWrite { doc: doc.clone(), row, before, apply: None, merged });
            captured.push(Captured { doc, before, content, written });
        }
        commit.tallies = tallies(self.logs, &commit.rows);
        commit.appended = self.sign_runs(hlc, captured);
        if self.logs.key_of(&self.node).is_none() {
            commit.authors.push(self.key.public_key());
        }
        Ok(commit)
    }

    /// The time of a unit: that of its last write, or the lowest there is for first copies. No entry has a time before the end
    /// of its log, so copies for a log that has begun are writes like any other.
    fn time_of(&self, changed: &[Changed<'_>], first_copy: Option<FirstCopy>) -> Hlc {
        let fits = |copy: &FirstCopy| {
            changed.iter().all(|Changed { change, before, .. }| {
                let (author, incarnation) = (self.node, self.incarnation);
                let log = LogId { author, incarnation, collection: change.doc.0.clone() };
                before.is_none() && self.logs.time_of(&log) < copy.time()
            })
        };
        if let Some(copy) = first_copy.filter(fits) {
            return copy.time();
        }
        let written = changed.iter().map(|changed| self.clock.stamp(changed.change.written, self.wall));
        let replaced = changed.iter().filter_map(|changed| changed.before.as_ref()).map(after);
        written.chain(replaced).max().unwrap_or_default()
    }

    /// One signed run for each collection that changed.
    fn sign_runs(&self, hlc: Hlc, captured: Vec<Captured<'_>>) -> Vec<Appended> {
        let mut by_collection: BTreeMap<&Collection, Vec<Captured<'_>>> = BTreeMap::new();
        for captured in captured {
            by_collection.entry(&captured.doc.0).or_default().push(captured);
        }
        let mut runs = Vec::with_capacity(by_collection.len());
        for (collection, changes) in by_collection {
            let (author, incarnation) = (self.node, self.incarnation);
            let log = LogId { author, incarnation, collection: collection.clone() };
            let mut chain = self.logs.chain(&log);
            let link = |Captured { doc, before, content, written }: Captured<'_>| {
                let payload_hash = match written.op {
                    Op::Put => content,
                    Op::Delete | Op::Edit => None,
                };
                let payload_hash = payload_hash.unwrap_or_else(|| Hash(sha256(&written.payload)));
                let entry = Entry {
                    seq: chain.head().seq.next(),
                    hlc,
                    replaces: before.map(|row| row.stamp),
                    op: written.op,
                    key: doc.1.clone(),
                    payload: written.payload,
                };
                let linked = chain.link_hashed(entry, payload_hash);
                linked.expect("an own entry continues its own log and is younger than all it saw")
            };
            let entries = changes.into_iter().map(link).collect();
            let signed = SignedHead::sign(self.key, &log, chain.head(), hlc);
            runs.push(Appended { log, entries, signed });
        }
        runs
    }

    /// Joins entries that the oplog has checked into the rows: a commit, guarded against uncaptured local changes.
    pub(crate) fn plan_remote<S: Store>(
        &self,
        store: &mut S,
        open: &OpenConflicts,
        branches: &mut Branches,
        appended: &[(Appended, PublicKey)],
        guard: Guard,
    ) -> Result<Planned, S::Error> {
        let incoming = sort_incoming(appended);
        let mut current = read_current(store, &incoming)?;
        if branches.len() > BRANCHES_MAX {
            branches.clear();
        }
        let versions = index_versions(&incoming, open);
        let mut conflicts = Conflicts::new(store, self.logs, versions, (open, branches), self.states.custom);
        for (stamp, doc, entry, payload_hash) in &incoming {
            let now = current.get_mut(doc).expect("every incoming document was read");
            if !now.is_read {
                now.is_read = true;
                now.state = self.states.read(conflicts.store(), doc, now.now.as_ref())?;
            }
            if entry.op == Op::Edit || now.state.is_some() {
                conflicts.join(doc, *stamp, entry, now)?;
                continue;
            }
            conflicts.note(doc, *stamp, entry, now.now.as_ref())?;
            let content = entry.content().map(|_| *payload_hash);
            if takes_over(now.now.as_ref(), stamp, content) {
                now.now = Some(Row { stamp: *stamp, content });
                now.content = entry.content().cloned();
            }
        }
        current.iter_mut().for_each(|(doc, current)| conflicts.show(doc, current));
        let (conflicts, problems, work) = conflicts.into_found();
        let latest = incoming.last().map_or(Hlc::default(), |(stamp, ..)| stamp.hlc);
        let mut commit = self.commit(guard, self.clock.last().max(latest));
        commit.rows = rows_to_write(current);
        commit.tallies = tallies(self.logs, &commit.rows);
        commit.conflicts = conflicts;
        let mut authors: BTreeMap<NodeId, PublicKey> = BTreeMap::new();
        for (run, key) in appended {
            if self.logs.key_of(&run.log.author).is_none() {
                authors.insert(run.log.author, *key);
            }
            commit.appended.push(run.clone());
        }
        commit.authors = authors.into_values().collect();
        Ok(Planned { commit, problems, work })
    }
}

/// What is known of the collections' rows together after these are written.
pub(crate) fn tallies(logs: &Logs, rows: &[RowWrite]) -> Vec<(Collection, Tally)> {
    let mut tallies: BTreeMap<&Collection, Tally> = BTreeMap::new();
    for write in rows {
        let (collection, key) = &write.doc;
        let tally = tallies.entry(collection).or_insert_with(|| logs.tally(collection));
        match &write.before {
            Some(before) => {
                tally.fingerprint.remove(Fingerprint::of_row(key, &before.stamp, before.content.as_ref()))
            }
            None => tally.rows += 1,
        }
        tally.fingerprint.add(Fingerprint::of_row(key, &write.row.stamp, write.row.content.as_ref()));
    }
    tallies.into_iter().map(|(collection, tally)| (collection.clone(), tally)).collect()
}

/// The entries of all runs, in the order of their stamps.
fn sort_incoming(appended: &[(Appended, PublicKey)]) -> Vec<Incoming<'_>> {
    let mut incoming = Vec::new();
    for (run, _) in appended {
        for linked in &run.entries {
            let entry = linked.entry();
            let doc = (run.log.collection.clone(), entry.key.clone());
            incoming.push((entry.stamp(run.log.author), doc, entry, linked.payload_hash()));
        }
    }
    incoming.sort_by_key(|(stamp, ..)| *stamp);
    incoming
}

fn read_current<S: Store>(
    store: &mut S,
    incoming: &[Incoming<'_>],
) -> Result<BTreeMap<DocId, Current>, S::Error> {
    let mut docs: Vec<DocId> = incoming.iter().map(|(_, doc, ..)| doc.clone()).collect();
    docs.sort_unstable();
    docs.dedup();
    let rows = store.rows(&docs)?;
    Ok(docs.into_iter().zip(rows.into_iter().map(Current::of)).collect())
}

/// Documents whose row changes, in the order of their stamps, so that parents come before children.
fn rows_to_write(current: BTreeMap<DocId, Current>) -> Vec<RowWrite> {
    let write = |(doc, current): (DocId, Current)| {
        let row = current.now.filter(|_| current.now != current.before || current.is_joined)?;
        let merged = current.state.map(|state| state.encode(row.stamp));
        // Also where only the state has changed: what the row said may be set aside, and is tried again with this.
        Some(RowWrite { doc, row, before: current.before, apply: Some(current.content), merged })
    };
    let mut rows: Vec<RowWrite> = current.into_iter().filter_map(write).collect();
    rows.sort_by(|a, b| (a.row.stamp, &a.doc).cmp(&(b.row.stamp, &b.doc)));
    rows
}

/// The earliest time of what replaces a row. Out of line: inlined, it is computed for rows that are not there too, and thrown
/// away, which memory checkers report.
#[inline(never)]
fn after(row: &Row) -> Hlc {
    row.stamp.hlc.next()
}
