//! From changes to commits: what a step will make durable, decided before anything is written.
//!
//! [`Planner::plan_local`] turns captured changes into signed entries; [`Planner::plan_remote`] joins checked entries into the rows. Both
//! read the store and leave it alone: the result is one [`Commit`].

use std::collections::BTreeMap;

use bytes::Bytes;

use crate::clock::{Clock, Hlc, Stamp, WallMillis};
use crate::entry::{AuthorKey, Entry, Op, SignedHead};
use crate::fingerprint::{Fingerprint, Tally};
use crate::id::{Collection, DocId, Incarnation, LogId, NodeId, PublicKey, sha256};
use crate::merge::Merged;
use crate::oplog::Logs;
use crate::resolve::{Conflict, Relation, Row, Side, Version, relation, takes_over};
use crate::states::{self, States, Written};
use crate::store::{Appended, Change, Commit, ConflictWrite, Drain, Guard, RowWrite, Store};
use crate::version::Hash;

/// Most conflicts that wait for a version to arrive; beyond that a new one counts as certain.
const OPEN_CONFLICTS_MAX: usize = 10_000;

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
            adopted: Vec::new(),
            floors: Vec::new(),
            notes: Vec::new(),
        }
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
        let mut commit = self.commit(Guard::None, self.clock.last());
        commit.drained = drain.mark;
        if changed.is_empty() {
            return Ok(commit);
        }
        let mut hlc = Hlc::default();
        for Changed { change, before, .. } in &changed {
            hlc = hlc.max(self.clock.stamp(change.written, self.wall));
            hlc = hlc.max(before.map_or(hlc, |row| row.stamp.hlc.next()));
        }
        commit.clock = hlc;
        let stamp = Stamp { hlc, node: self.node };
        let mut captured = Vec::with_capacity(changed.len());
        for Changed { change, before, content } in changed {
            let doc = &change.doc;
            let state = self.states.read(store, doc, before.as_ref())?;
            let Some(written) = self.states.write(store, doc, state, change.content.as_ref(), stamp) else {
                continue;
            };
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
    ) -> Result<Commit, S::Error> {
        let incoming = sort_incoming(appended);
        let mut current = read_current(store, &incoming)?;
        if branches.len() > BRANCHES_MAX {
            branches.clear();
        }
        let versions = index_versions(&incoming, open);
        let mut conflicts =
            Conflicts { store, logs: self.logs, incoming: versions, open, branches, writes: Vec::new() };
        for (stamp, doc, entry, payload_hash) in &incoming {
            let now = current.get_mut(doc).expect("every incoming document was read");
            if !now.is_read {
                now.is_read = true;
                now.state = self.states.read(conflicts.store, doc, now.now.as_ref())?;
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
        let conflicts = conflicts.writes;
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
        Ok(commit)
    }
}

/// What is known of the collections' rows together after these are written.
pub(crate) fn tallies(logs: &Logs, rows: &[RowWrite]) -> Vec<(Collection, Tally)> {
    let mut tallies: BTreeMap<&Collection, Tally> = BTreeMap::new();
    for write in rows {
        let (collection, key) = &write.doc;
        let tally = tallies.entry(collection).or_insert_with(|| logs.tally(collection));
        match &write.before {
            Some(before) => tally.fingerprint.remove(Fingerprint::of_row(key, &before.stamp)),
            None => tally.rows += 1,
        }
        tally.fingerprint.add(Fingerprint::of_row(key, &write.row.stamp));
    }
    tallies.into_iter().map(|(collection, tally)| (collection.clone(), tally)).collect()
}

/// Conflicts that are not certain yet, by document.
pub(crate) type OpenConflicts = BTreeMap<DocId, Vec<Conflict>>;

/// Documents whose last conflicts are remembered.
const BRANCHES_MAX: usize = 10_000;
/// Edits of one document of which an incoming one may be noted to have hidden something.
const LOST_MAX: usize = 4;
/// Conflicts that are remembered of one document: one for each other node that edits it at the same time.
const BRANCHES_OF_ONE_MAX: usize = 8;

/// The last conflicts found of each document: the versions at the ends of two branches, the younger one first.
///
/// Two sides that were apart for long have long branches of the same document. Once the ends of two branches are known to
/// conflict, a version that replaces the losing end conflicts with the winning one too (and may win): there is no need to walk back
/// through thousands of versions for each. In the conflict list it takes the place of the version that it replaced.
pub(crate) type Branches = BTreeMap<DocId, Vec<(Stamp, Stamp)>>;

/// A document on its way through [`Planner::plan_remote`].
struct Current {
    before: Option<Row>,
    now: Option<Row>,
    content: Option<Bytes>,
    /// Its state, if it merges; read with its first entry.
    state: Option<Merged>,
    is_read: bool,
    /// Whether the state is another one than before.
    is_joined: bool,
}

/// An incoming entry: its stamp, its document, itself, and its payload's hash.
type Incoming<'a> = (Stamp, DocId, &'a Entry, Hash);

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
    let current = |row: Option<Row>| Current {
        before: row,
        now: row,
        content: None,
        state: None,
        is_read: false,
        is_joined: false,
    };
    Ok(docs.into_iter().zip(rows.into_iter().map(current)).collect())
}

/// Documents whose row changes, in the order of their stamps, so that parents come before children.
fn rows_to_write(current: BTreeMap<DocId, Current>) -> Vec<RowWrite> {
    let write = |(doc, current): (DocId, Current)| {
        let row = current.now.filter(|_| current.now != current.before || current.is_joined)?;
        let is_there =
            current.is_joined && current.before.is_some_and(|before| before.content == row.content);
        let apply = (!is_there).then_some(current.content);
        let merged = current.state.map(|state| state.encode(row.stamp));
        Some(RowWrite { doc, row, before: current.before, apply, merged })
    };
    let mut rows: Vec<RowWrite> = current.into_iter().filter_map(write).collect();
    rows.sort_by(|a, b| (a.row.stamp, &a.doc).cmp(&(b.row.stamp, &b.doc)));
    rows
}

type Versions<'a> = BTreeMap<(&'a DocId, Stamp), &'a Entry>;

fn index_versions<'a>(incoming: &'a [Incoming<'a>], open: &OpenConflicts) -> Versions<'a> {
    // Only documents that come more than once or are waited for need it; it stays empty on the way of a catch-up.
    let mut count: BTreeMap<&DocId, u32> = BTreeMap::new();
    for (_, doc, ..) in incoming {
        *count.entry(doc).or_default() += 1;
    }
    let several = incoming.iter().filter(|(_, doc, ..)| count[doc] > 1 || open.contains_key(doc));
    several.map(|(stamp, doc, entry, _)| ((doc, *stamp), *entry)).collect()
}

/// Finds out which versions were made without knowledge of each other.
pub(crate) struct Conflicts<'a, S: Store> {
    store: &'a mut S,
    logs: &'a Logs,
    incoming: Versions<'a>,
    open: &'a OpenConflicts,
    branches: &'a mut Branches,
    writes: Vec<ConflictWrite>,
}

impl<'a, S: Store> Conflicts<'a, S> {
    /// For versions that come without their entries.
    pub(crate) fn new(
        store: &'a mut S,
        logs: &'a Logs,
        open: &'a OpenConflicts,
        branches: &'a mut Branches,
    ) -> Self {
        Self { store, logs, incoming: Versions::new(), open, branches, writes: Vec::new() }
    }

    pub(crate) fn store(&mut self) -> &mut S {
        self.store
    }

    pub(crate) fn into_writes(self) -> Vec<ConflictWrite> {
        self.writes
    }

    /// Compares an incoming version with the one that stands, and settles what waited for it.
    fn note(
        &mut self,
        doc: &DocId,
        stamp: Stamp,
        entry: &Entry,
        standing: Option<&Row>,
    ) -> Result<(), S::Error> {
        self.note_arrival(doc, stamp)?;
        let Some(row) = standing else { return Ok(()) };
        if entry.replaces == Some(row.stamp) || stamp == row.stamp {
            return Ok(());
        }
        let incoming = Side { stamp, content: entry.content().cloned() };
        let known = self.version(doc, row.stamp)?;
        let same = row.content.is_none() && entry.op == Op::Delete
            || known.as_ref().is_some_and(|known| known.op == entry.op && known.payload == entry.payload);
        if same {
            return Ok(());
        }
        let (replaces, content) = known.map_or((None, None), |known| (known.replaces, known.content()));
        let standing = Side { stamp: row.stamp, content };
        let goes_on = self.extends_losing_branch(doc, entry, &standing, replaces);
        let (winner, loser, replaces) = if stamp > row.stamp {
            (incoming, standing, entry.replaces)
        } else {
            (standing, incoming, replaces)
        };
        let found = if goes_on { Relation::Conflict } else { self.relate(doc, loser.stamp, replaces)? };
        if found != Relation::Succession {
            self.settle(Conflict { doc: doc.clone(), winner, loser, missing: None }, found);
        }
        Ok(())
    }

    /// Settles what waited for a version that has come.
    fn note_arrival(&mut self, doc: &DocId, stamp: Stamp) -> Result<(), S::Error> {
        let Some(waiting) = self.open.get(doc) else { return Ok(()) };
        for conflict in waiting.iter().filter(|conflict| conflict.missing == Some(stamp)) {
            let found = self.relate(doc, conflict.loser.stamp, Some(stamp))?;
            self.settle(conflict.clone(), found);
        }
        Ok(())
    }

    /// Joins an entry into the state of a document that merges, and notes whose edits no longer show for want of knowing
    /// of each other.
    fn join(
        &mut self,
        doc: &DocId,
        stamp: Stamp,
        entry: &Entry,
        current: &mut Current,
    ) -> Result<(), S::Error> {
        self.note_arrival(doc, stamp)?;
        let before = match current.state.take() {
            Some(state) => state,
            None => {
                let version = match &current.now {
                    Some(row) => self.version(doc, row.stamp)?,
                    None => None,
                };
                states::base(current.now.as_ref(), version)
            }
        };
        let said = states::said(entry, stamp);
        let mut after = before.clone();
        after.join(said.clone());
        let content = after.content();
        if let Some(row) = current.now
            && entry.replaces != Some(row.stamp)
            && stamp != row.stamp
        {
            self.note_lost(doc, (stamp, entry.replaces), &row, &before, &said, &after)?;
        }
        current.is_joined |= after != before || current.now.is_none();
        let was = current.now.map(|row| row.stamp);
        let newest = after.newest().max(was).unwrap_or(stamp);
        current.now =
            Some(Row { stamp: newest, content: content.as_ref().map(|content| Hash(sha256(content))) });
        (current.content, current.state) = (content, Some(after));
        Ok(())
    }

    fn note_lost(
        &mut self,
        doc: &DocId,
        (stamp, replaces): (Stamp, Option<Stamp>),
        row: &Row,
        before: &Merged,
        said: &Merged,
        after: &Merged,
    ) -> Result<(), S::Error> {
        let last = Stamp { hlc: Hlc(u64::MAX), node: NodeId([u8::MAX; 32]) };
        if !said.lost_in(after).is_empty() && row.stamp > stamp {
            let winner = Side { stamp: row.stamp, content: after.content() };
            let loser = Side { stamp, content: after.preferring(said, last) };
            let known = self.version(doc, row.stamp)?.and_then(|version| version.replaces);
            let found = self.relate(doc, stamp, known)?;
            self.settle_lost(Conflict { doc: doc.clone(), winner, loser, missing: None }, found);
        }
        let lost = before.lost_in(after).into_iter().filter(|lost| *lost < stamp);
        for lost in lost.rev().take(LOST_MAX) {
            let winner = Side { stamp, content: after.content() };
            let loser = Side { stamp: lost, content: before.content() };
            let found = self.relate(doc, lost, replaces)?;
            self.settle_lost(Conflict { doc: doc.clone(), winner, loser, missing: None }, found);
        }
        Ok(())
    }

    fn settle_lost(&mut self, conflict: Conflict, found: Relation) {
        if found != Relation::Succession {
            self.settle(conflict, found);
        }
    }

    /// Whether the entry replaces the losing end of two branches whose winning end is the standing version, or was
    /// replaced by it. If so the conflict of the replaced version goes.
    fn extends_losing_branch(
        &mut self,
        doc: &DocId,
        entry: &Entry,
        standing: &Side,
        standing_replaces: Option<Stamp>,
    ) -> bool {
        let Some(ends) = self.branches.get_mut(doc) else { return false };
        let goes_on = |(winner, loser): &(Stamp, Stamp)| {
            entry.replaces == Some(*loser)
                && (standing.stamp == *winner || standing_replaces == Some(*winner))
        };
        let Some(place) = ends.iter().position(goes_on) else { return false };
        let (winner, loser) = ends.remove(place);
        self.writes.push(ConflictWrite::Remove { doc: doc.clone(), winner, loser });
        true
    }

    pub(crate) fn relate(
        &mut self,
        doc: &DocId,
        older: Stamp,
        younger_replaces: Option<Stamp>,
    ) -> Result<Relation, S::Error> {
        relation(older, younger_replaces, |stamp| {
            let version = self.version(doc, stamp)?;
            // What is forgotten was known to all: nothing that comes now was made before it.
            let is_gone = version.is_none() && self.logs.is_forgotten(&doc.0, stamp);
            Ok(if is_gone { Some(None) } else { version.map(|version| version.replaces) })
        })
    }

    fn version(&mut self, doc: &DocId, stamp: Stamp) -> Result<Option<Version>, S::Error> {
        match self.incoming.get(&(doc, stamp)) {
            Some(entry) => Ok(Some(Version::of(entry))),
            None => self.store.version(doc, &stamp),
        }
    }

    pub(crate) fn settle(&mut self, mut conflict: Conflict, found: Relation) {
        match found {
            Relation::Succession => self.writes.push(ConflictWrite::Remove {
                doc: conflict.doc,
                winner: conflict.winner.stamp,
                loser: conflict.loser.stamp,
            }),
            Relation::Conflict => {
                conflict.missing = None;
                let ends = self.branches.entry(conflict.doc.clone()).or_default();
                ends.truncate(BRANCHES_OF_ONE_MAX - 1);
                ends.insert(0, (conflict.winner.stamp, conflict.loser.stamp));
                self.writes.push(ConflictWrite::Put(conflict));
            }
            Relation::Unknown { missing } => {
                conflict.missing = (self.open.len() < OPEN_CONFLICTS_MAX).then_some(missing);
                self.writes.push(ConflictWrite::Put(conflict));
            }
        }
    }
}
