//! Which versions of a document were made without knowledge of each other, and what becomes of the document.
//!
//! What lost is noted for the conflict list; nothing is decided by whether it is.

use std::collections::BTreeMap;

use crate::clock::{Hlc, Stamp};
use crate::custom::Resolvers;
use crate::entry::{Entry, Op};
use crate::id::{DocId, NodeId, sha256};
use crate::limits::CONFLICT_BYTES_MAX;
use crate::merge::Merged;
use crate::oplog::Logs;
use crate::resolve::{Chain, Conflict, Relation, Row, Side, Version};
use crate::states::{self, Current};
use crate::store::{ConflictWrite, FirstCopy, Problem, ProblemKind, Store};
use crate::version::Hash;
use crate::waiting::{OpenConflicts, bytes_of};

/// Most versions that are looked at for one page, over all its documents: what is left of it is then noted as conflicts,
/// without a look at what lies between. So nobody can send a page that takes long to compare.
const STEPS_MAX: usize = 16_384;
/// The same for the states that edits are joined into, counted in places: beyond it edits are joined all the same, and noted.
const PLACES_MAX: usize = 1 << 20;
/// Versions of a document that a first copy is compared with, at most.
const OLD_COPY_WALK_MAX: usize = 256;
/// Documents whose last conflicts are remembered.
pub(crate) const BRANCHES_MAX: usize = 10_000;
/// Edits of one document of which an incoming one may be noted to have hidden something.
pub(crate) const LOST_MAX: usize = 4;
/// Conflicts that are remembered of one document: one for each other node that edits it at the same time.
const BRANCHES_OF_ONE_MAX: usize = 8;

/// The last conflicts found of each document: the versions at the ends of two branches, the younger one first.
///
/// Two sides that were apart for long have long branches of the same document. Once the ends of two branches are known to
/// conflict, a version that replaces the losing end conflicts with the winning one too (and may win): there is no need to walk back
/// through thousands of versions for each. In the conflict list it takes the place of the version that it replaced.
pub(crate) type Branches = BTreeMap<DocId, Vec<(Stamp, Stamp)>>;

/// An incoming entry: its stamp, its document, itself, and its payload's hash.
pub(crate) type Incoming<'a> = (Stamp, DocId, &'a Entry, Hash);

pub(crate) type Versions<'a> = BTreeMap<(&'a DocId, Stamp), &'a Entry>;

pub(crate) fn index_versions<'a>(incoming: &'a [Incoming<'a>], open: &OpenConflicts) -> Versions<'a> {
    // Only documents that come more than once or are waited for need it; it stays empty on the way of a catch-up.
    let mut count: BTreeMap<&DocId, u32> = BTreeMap::new();
    for (_, doc, ..) in incoming {
        *count.entry(doc).or_default() += 1;
    }
    let several = incoming.iter().filter(|(_, doc, ..)| count[doc] > 1 || open.has(doc));
    several.map(|(stamp, doc, entry, _)| ((doc, *stamp), *entry)).collect()
}

/// Finds out which versions were made without knowledge of each other.
pub(crate) struct Conflicts<'a, S: Store> {
    store: &'a mut S,
    logs: &'a Logs,
    incoming: Versions<'a>,
    open: &'a OpenConflicts,
    branches: &'a mut Branches,
    resolvers: &'a Resolvers,
    /// The ways back from the versions that stand, as far as they were walked.
    chains: BTreeMap<DocId, Chain>,
    /// Versions that were looked at on these ways.
    steps: usize,
    writes: Vec<ConflictWrite>,
    /// How many of these wait for a version, and their bytes.
    opened: (usize, usize),
    /// Places of states that were looked at.
    places: usize,
    problems: Vec<Problem>,
}

impl<'a, S: Store> Conflicts<'a, S> {
    pub(crate) fn new(
        store: &'a mut S,
        logs: &'a Logs,
        incoming: Versions<'a>,
        (open, branches): (&'a OpenConflicts, &'a mut Branches),
        resolvers: &'a Resolvers,
    ) -> Self {
        let (chains, steps, places) = (BTreeMap::new(), 0, 0);
        let (writes, opened, problems) = (Vec::new(), (0, 0), Vec::new());
        Self {
            store,
            logs,
            incoming,
            open,
            branches,
            resolvers,
            chains,
            steps,
            writes,
            opened,
            places,
            problems,
        }
    }

    /// The store, for reading.
    pub(crate) fn store(&mut self) -> &mut S {
        self.store
    }

    /// What was found: changes of the conflict list, documents that their resolver failed on, and how much was looked at.
    pub(crate) fn into_found(self) -> (Vec<ConflictWrite>, Vec<Problem>, usize) {
        (self.writes, self.problems, self.steps + self.places)
    }

    /// Compares an incoming version with the one that stands, and settles what waited for it.
    pub(crate) fn note(
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
        if found != Relation::Succession && !self.is_old_copy(doc, &loser, replaces)? {
            self.settle(Conflict { doc: doc.clone(), winner, loser, missing: None }, found);
        }
        Ok(())
    }

    /// Whether a first copy is only what the winning version, or one before it, was made from: a database that was set up as a
    /// copy of another one. Nothing of it is lost.
    fn is_old_copy(
        &mut self,
        doc: &DocId,
        loser: &Side,
        mut replaced: Option<Stamp>,
    ) -> Result<bool, S::Error> {
        if loser.stamp.hlc > FirstCopy::TIME_MAX {
            return Ok(false);
        }
        for _ in 0..OLD_COPY_WALK_MAX {
            let Some(stamp) = replaced else { return Ok(false) };
            let Some(version) = self.version(doc, stamp)? else { return Ok(false) };
            if version.op == Op::Put && version.content() == loser.content {
                return Ok(true);
            }
            replaced = version.replaces;
        }
        Ok(false)
    }

    /// Settles what waited for a version that has come.
    fn note_arrival(&mut self, doc: &DocId, stamp: Stamp) -> Result<(), S::Error> {
        let open = self.open;
        for conflict in open.waiting(doc, stamp) {
            let found = self.relate(doc, conflict.loser.stamp, Some(stamp))?;
            self.settle(conflict.clone(), found);
        }
        Ok(())
    }

    /// Joins an entry into the state of a document, and notes what no longer shows for want of knowing of each other.
    pub(crate) fn join(
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
        if current.weight == 0 {
            current.weight = before.weight();
        }
        current.weight += said.weight();
        if self.places.saturating_add(current.weight) > PLACES_MAX {
            self.join_unlooked(doc, (stamp, entry.replaces), before, said, current);
            return Ok(());
        }
        self.places += current.weight;
        let mut after = before.clone();
        after.join(said.clone());
        self.fit(doc, &before, &mut after, stamp);
        if after.has_heads() {
            self.resolve(doc, &mut after);
        }
        if let Some(row) = current.now
            && entry.replaces != Some(row.stamp)
            && stamp != row.stamp
        {
            let versions = (stamp, entry.replaces);
            if said.has_heads() {
                self.note_seen(doc, stamp, &row, &said, &after)?;
            } else {
                self.note_lost(doc, versions, &row, &before.without_heads(), &said, &after.without_heads())?;
            }
        }
        if after.has_heads() {
            self.note_sides(doc, stamp, &before, &said, &after);
        }
        current.is_joined |= after != before || current.now.is_none();
        let content = current.now.and_then(|row| row.content);
        let newest = current.now.map_or(stamp, |row| row.stamp.max(stamp));
        (current.now, current.state) = (Some(Row { stamp: newest, content }), Some(after));
        Ok(())
    }

    /// Joins an edit where the work of a page is used up. Whatever may be hidden by it, or hide it, is noted, unless it is known to
    /// its author.
    fn join_unlooked(
        &mut self,
        doc: &DocId,
        (stamp, replaces): (Stamp, Option<Stamp>),
        before: Merged,
        said: Merged,
        current: &mut Current,
    ) {
        let edit = Side { stamp, content: said.content() };
        let newest = current.now.map_or(stamp, |row| row.stamp.max(stamp));
        // What stood before the first such edit, and then each of them.
        let stood = || before.newest().map(|stamp| Side { stamp, content: before.content() });
        let stood = current.unlooked.take().or_else(stood);
        let is_known = |side: &Side| replaces == Some(side.stamp);
        let (loser, younger) = match stood {
            Some(stood) if stood.stamp > stamp => (Some(edit), stood),
            stood => (stood.filter(|side| !is_known(side)), edit),
        };
        for loser in loser.into_iter().filter(|side| side.stamp < newest) {
            let winner = Side { stamp: newest, content: None };
            self.put(Conflict { doc: doc.clone(), winner, loser, missing: None });
        }
        current.unlooked = Some(younger);
        let mut state = before;
        state.join(said);
        let content = current.now.and_then(|row| row.content);
        (current.now, current.state) = (Some(Row { stamp: newest, content }), Some(state));
        current.is_joined = true;
    }

    /// Works out what a document shows, once all entries are joined into its state.
    pub(crate) fn show(&mut self, doc: &DocId, current: &mut Current) {
        let (Some(row), Some(mut state)) = (current.now, current.state.take()) else { return };
        if current.unlooked.is_some() {
            if state.fit(row.stamp) {
                self.problems.push(Problem::too_large(doc));
            }
            self.resolve(doc, &mut state);
        }
        let content = state.content();
        let hash = content.as_ref().map(|content| Hash(sha256(content)));
        current.now = Some(Row { content: hash, ..row });
        (current.content, current.state) = (content, Some(state));
    }

    /// Brings a state within its limits. What it was before is noted, for parts of it may be gone.
    pub(crate) fn fit(&mut self, doc: &DocId, before: &Merged, after: &mut Merged, stamp: Stamp) {
        if !after.fit(stamp) {
            return;
        }
        self.problems.push(Problem::too_large(doc));
        if let (Some(was), Some(newest)) = (before.newest(), after.newest())
            && was < newest
        {
            let (winner, loser) = (
                Side { stamp: newest, content: after.content() },
                Side { stamp: was, content: before.content() },
            );
            self.settle(Conflict { doc: doc.clone(), winner, loser, missing: None }, Relation::Conflict);
        }
    }

    /// Asks the collection's resolver, if there are several versions to decide between.
    pub(crate) fn resolve(&mut self, doc: &DocId, state: &mut Merged) {
        if let Err(failed) = state.resolve(doc, self.resolvers.get(&doc.0)) {
            self.problems.push(Problem {
                collection: doc.0.clone(),
                key: doc.1.as_str().to_owned(),
                kind: ProblemKind::NotResolved,
                message: failed.to_string(),
            });
        }
    }

    /// Notes versions that nobody has replaced and that do not show: the one that has come, and what stood until now. And
    /// those that the one that has come replaced without naming them.
    pub(crate) fn note_sides(
        &mut self,
        doc: &DocId,
        stamp: Stamp,
        before: &Merged,
        said: &Merged,
        after: &Merged,
    ) {
        let sides = after.sides();
        let content = after.content();
        let chosen = sides.iter().rev().find(|side| side.content == content).or(sides.last());
        let Some(chosen) = chosen else { return };
        let winner = Side { stamp: chosen.stamp, content };
        let stood = before.newest().map(|_| before.content());
        let is_news = |side: &&Side| side.stamp == stamp || stood.as_ref() == Some(&side.content);
        let is_unnamed = |side: &&Side| {
            said.has_heads()
                && !said.names(&side.stamp)
                && sides.iter().all(|standing| standing.stamp != side.stamp)
        };
        let gone = before.sides();
        let lost = sides.iter().filter(is_news).chain(gone.iter().filter(is_unnamed));
        for loser in lost.filter(|side| side.content != winner.content).take(LOST_MAX) {
            let (doc, winner, loser) = (doc.clone(), winner.clone(), loser.clone());
            self.put(Conflict { doc, winner, loser, missing: None });
        }
    }

    /// Notes a version that comes after one whose author says that he had seen it, unless it was really replaced: a node
    /// whose oplog was put back may have written another one under a younger stamp.
    fn note_seen(
        &mut self,
        doc: &DocId,
        stamp: Stamp,
        row: &Row,
        said: &Merged,
        after: &Merged,
    ) -> Result<(), S::Error> {
        let (winner, loser) = (after.content(), said.content());
        if winner == loser || row.stamp < stamp || after.sides().iter().any(|side| side.stamp == stamp) {
            return Ok(());
        }
        let known = self.version(doc, row.stamp)?.and_then(|version| version.replaces);
        let found = self.relate(doc, stamp, known)?;
        let winner = Side { stamp: row.stamp, content: winner };
        let loser = Side { stamp, content: loser };
        self.settle_lost(Conflict { doc: doc.clone(), winner, loser, missing: None }, found);
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
        let Self { store, logs, incoming, chains, steps, .. } = self;
        let incoming: &Versions<'_> = incoming;
        let chain = chains.entry(doc.clone()).or_insert_with(|| Chain::new(younger_replaces));
        chain.relate(older, younger_replaces, |stamp| {
            *steps += 1;
            if *steps > STEPS_MAX {
                // As if nothing had come before it: it counts as a conflict.
                return Ok(Some(None));
            }
            let version = match incoming.get(&(doc, stamp)) {
                Some(entry) => Some(entry.replaces),
                None => store.version(doc, &stamp)?.map(|version| version.replaces),
            };
            // What is forgotten was known to all: nothing that comes now was made before it.
            let is_gone = version.is_none() && logs.is_forgotten(&doc.0, stamp);
            Ok(if is_gone { Some(None) } else { version })
        })
    }

    fn version(&mut self, doc: &DocId, stamp: Stamp) -> Result<Option<Version>, S::Error> {
        match self.incoming.get(&(doc, stamp)) {
            Some(entry) => Ok(Some(Version::of(entry))),
            None => self.store.version(doc, &stamp),
        }
    }

    /// Puts a conflict on the list. Both versions have to fit one row of a store; the one that won is in the document's row too.
    fn put(&mut self, mut conflict: Conflict) {
        if bytes_of(&conflict) > CONFLICT_BYTES_MAX {
            conflict.winner.content = None;
        }
        self.writes.push(ConflictWrite::Put(conflict));
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
                self.put(conflict);
            }
            Relation::Unknown { missing } => {
                let (count, bytes) = (self.opened.0, self.opened.1 + bytes_of(&conflict));
                conflict.missing = self.open.has_room(count, bytes).then_some(missing);
                if conflict.missing.is_some() {
                    self.opened = (count + 1, bytes);
                }
                self.put(conflict);
            }
        }
    }
}
