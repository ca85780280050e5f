//! One step of the replica, made durable in one transaction.
//!
//! A [`Step`] writes what every store has: entries, rows, conflicts, notes. Where the documents themselves are kept differs;
//! that is what [`Placing`] stands for.

use std::collections::{HashMap, HashSet};

use bytes::Bytes;
use entgldb_replica::clock::{Stamp, WallMillis};
use entgldb_replica::entry::Linked;
use entgldb_replica::id::{Collection, DocId, Key};
use entgldb_replica::member::members;
use entgldb_replica::resolve::{Conflict, Side};
use entgldb_replica::store::{Commit, ConflictWrite, Guard, OutboxMark, Problem, ProblemKind, RowWrite};
use rusqlite::Connection;

use crate::failed::{Outcome, SqliteFailed, While};
use crate::journal::aside::{self, Aside, Reason};
use crate::journal::names::{Names, entry_id};
use crate::journal::problems::Refusal;
use crate::journal::{conflicts, member, note, oplog, outbox, problems, schema};

/// Why a step did not come to its end.
pub(crate) enum Stopped {
    /// The store has failed.
    Failed(SqliteFailed),
    /// The guard does not hold.
    OutboxMoved,
    /// The schema is another one than the step was prepared for.
    SchemaChanged,
    /// Rows that are about to be changed are not as the engine left them.
    Found(Vec<DocId>),
    /// A trigger of the application rolled the whole transaction back because of this document.
    RolledBack(DocId, String),
}

impl From<SqliteFailed> for Stopped {
    fn from(failed: SqliteFailed) -> Self {
        Self::Failed(failed)
    }
}

/// Where a store keeps its documents: what a commit does there.
pub(crate) trait Placing<'a> {
    /// The step that this is a part of.
    fn step(&mut self) -> &mut Step<'a>;

    /// Deletes what is kept with the notes of the outbox up to a mark.
    fn drain(&mut self, mark: OutboxMark) -> Outcome<()>;

    /// Whether the outbox names one of these documents.
    fn is_noted(&self, docs: &HashSet<(&Collection, &Key)>) -> Outcome<bool>;

    /// Makes sure that what the remote ones of these changes replace is as the engine left it.
    fn prove(&mut self, commit: &Commit) -> Result<(), Stopped>;

    /// Brings the remote ones of these changes into their places.
    fn place(&mut self, writes: &[RowWrite]) -> Result<(), Stopped>;
}

/// A write transaction on its way.
pub(crate) struct Step<'a> {
    pub(crate) connection: &'a Connection,
    pub(crate) names: &'a mut Names,
    pub(crate) wall: WallMillis,
    pub(crate) problems: Vec<Problem>,
    pub(crate) anything_aside: bool,
}

/// Carries a whole commit out. The caller has begun the transaction and ends it.
pub(crate) fn carry_out<'a>(
    placing: &mut impl Placing<'a>,
    commit: &Commit,
    guard: Guard,
) -> Result<(), Stopped> {
    if let Some(mark) = commit.drained {
        placing.drain(mark)?;
        outbox::delete_until(placing.step().connection, mark)?;
    }
    check_guard(placing, guard, &commit.rows)?;
    placing.prove(commit)?;
    let step = placing.step();
    for key in &commit.authors {
        step.names.keep_public_key(step.connection, key)?;
    }
    step.append(commit)?;
    step.take_back(commit)?;
    placing.place(&commit.rows)?;
    placing.step().note(commit)?;
    Ok(())
}

/// Stops the step if its guard does not hold.
pub(crate) fn check_guard<'a>(
    placing: &mut impl Placing<'a>,
    guard: Guard,
    rows: &[RowWrite],
) -> Result<(), Stopped> {
    let moved = match guard {
        Guard::None => false,
        Guard::OutboxEmpty => !outbox::is_empty(placing.step().connection)?,
        Guard::OutboxDisjoint => {
            let applied = rows.iter().filter(|row| row.apply.is_some());
            placing.is_noted(&applied.map(|row| (&row.doc.0, &row.doc.1)).collect())?
        }
    };
    if moved { Err(Stopped::OutboxMoved) } else { Ok(()) }
}

impl<'a> Step<'a> {
    pub(crate) fn new(connection: &'a Connection, names: &'a mut Names, wall: WallMillis) -> Outcome<Self> {
        let anything_aside = aside::any(connection)?;
        Ok(Self { connection, names, wall, problems: Vec::new(), anything_aside })
    }

    fn append(&mut self, commit: &Commit) -> Result<(), Stopped> {
        let mut entries: HashMap<(i64, i64, u64, &str), i64> = HashMap::new();
        for appended in &commit.appended {
            let end = oplog::append(self.connection, self.names, appended)?;
            let collection = self.names.collection_no(self.connection, &appended.log.collection)?;
            let author = self.names.author(self.connection, &appended.log.author)?;
            for linked in &appended.entries {
                let entry = linked.entry();
                let place = (collection, author, entry.hlc.0, entry.key.as_str());
                entries.insert(place, entry_id(end.no, entry.seq)?);
            }
        }
        let mut upsert = self
            .connection
            .prepare_cached(
                "INSERT INTO _entgldb_rows(collection_no, key, hlc, author_no, hash, entry) VALUES(?1, ?2, ?3, ?4, ?5, ?6)
                 ON CONFLICT DO UPDATE SET hlc = excluded.hlc, author_no = excluded.author_no, hash = excluded.hash,
                 entry = CASE WHEN excluded.entry IS NULL AND hlc = excluded.hlc AND author_no = excluded.author_no THEN entry ELSE excluded.entry END,
                 extra = CASE WHEN ?7 THEN extra END, shown = NULL",
            )
            .doing("writing rows")?;
        for RowWrite { doc, row, apply, merged, .. } in &commit.rows {
            let collection = self.names.collection_no(self.connection, &doc.0)?;
            let author = self.names.author(self.connection, &row.stamp.node)?;
            let entry = entries.get(&(collection, author, row.stamp.hlc.0, doc.1.as_str()));
            let hash = row.content.as_ref().map(|hash| hash.0.as_slice());
            let keeps_extra = apply.is_none() && row.content.is_some();
            upsert
                .execute((
                    collection,
                    doc.1.as_str(),
                    row.stamp.hlc.0.cast_signed(),
                    author,
                    hash,
                    entry,
                    keeps_extra,
                ))
                .doing("writing rows")?;
            if let Some(state) = merged {
                schema::put_state(self.connection, collection, doc.1.as_str(), state)?;
            }
        }
        Ok(())
    }

    /// A newer version, from here or elsewhere, takes the place of one that is set aside. Who wrote it here did not see the one
    /// that was set aside, so that one is kept in the conflict list.
    fn take_back(&mut self, commit: &Commit) -> Outcome<()> {
        for RowWrite { doc, row, apply, .. } in commit.rows.iter().filter(|_| self.anything_aside) {
            let no = self.names.collection_no(self.connection, &doc.0)?;
            let Some(aside) = aside::get(self.connection, self.names, no, &doc.1)? else { continue };
            aside::remove(self.connection, no, &doc.1)?;
            let content = written(commit, doc, row.stamp);
            if apply.is_none() && content != aside.content {
                let winner = Side { stamp: row.stamp, content };
                let loser = Side { stamp: aside.stamp, content: aside.content };
                let conflict = Conflict { doc: doc.clone(), winner, loser, missing: None };
                conflicts::put(self.connection, self.names, &conflict, self.wall)?;
            }
            self.problems.push(problem(doc, ProblemKind::CameBack, "a newer version has taken its place"));
        }
        Ok(())
    }

    /// Writes a member's document, which every store keeps in the same place. Returns whether it is one.
    pub(crate) fn place_member(&mut self, write: &RowWrite) -> Outcome<bool> {
        let is_member = write.doc.0 == *members();
        if let Some(content) = write.apply.as_ref().filter(|_| is_member) {
            member::write(self.connection, &write.doc.1, content.as_ref())?;
        }
        Ok(is_member)
    }

    fn note(&mut self, commit: &Commit) -> Outcome<()> {
        for write in &commit.conflicts {
            match write {
                ConflictWrite::Put(conflict) => {
                    conflicts::put(self.connection, self.names, conflict, self.wall)?;
                }
                ConflictWrite::Remove { doc, winner, loser } => {
                    conflicts::remove(self.connection, self.names, doc, (winner, loser))?;
                }
            }
        }
        for (collection, tally) in &commit.tallies {
            let no = self.names.collection_no(self.connection, collection)?;
            let (print, rows) = (tally.fingerprint.to_bytes(), tally.rows.cast_signed());
            self.connection
                .prepare_cached(
                    "UPDATE _entgldb_collections SET fingerprint = ?1, row_count = ?2 WHERE no = ?3",
                )
                .and_then(|mut update| update.execute((print.as_slice(), rows, no)))
                .doing("writing a fingerprint")?;
            self.names.tallies.insert(collection.clone(), *tally);
        }
        for (log, signed) in &commit.adopted {
            oplog::adopt(self.connection, self.names, log, signed)?;
        }
        for (log, floor) in &commit.floors {
            oplog::forget(self.connection, self.names, log, *floor)?;
        }
        for (name, value) in &commit.notes {
            note::write(self.connection, name, value.as_ref())?;
        }
        schema::put(self.connection, "clock", commit.clock.0.cast_signed())?;
        schema::put(self.connection, "owner", commit.owner.0.0.as_slice())?;
        schema::put(self.connection, "incarnation", commit.owner.1.0.cast_signed())
    }

    pub(crate) fn problem(
        &mut self,
        collection: &Collection,
        key: &Key,
        kind: ProblemKind,
        message: impl Into<String>,
    ) {
        self.problems.push(problem(&(collection.clone(), key.clone()), kind, message));
    }

    pub(crate) fn set_aside(&mut self, doc: &DocId, aside: Aside) -> Outcome<()> {
        let no = self.names.collection_no(self.connection, &doc.0)?;
        aside::put(self.connection, self.names, no, &aside, self.wall)?;
        self.anything_aside = true;
        let kind = match aside.reason {
            Reason::Collided { .. } => ProblemKind::Collided,
            Reason::Refused { .. } => ProblemKind::SetAside,
        };
        self.problem(&doc.0, &doc.1, kind, aside.reason.message());
        Ok(())
    }

    /// Keeps the local changes that can't travel in the list of problems, and takes those off it that do now.
    pub(crate) fn note_refused(&mut self, refused: &[Refusal], rows: &[RowWrite]) -> Outcome<()> {
        let any = problems::any(self.connection)?;
        for RowWrite { doc, .. } in rows.iter().filter(|_| any) {
            let no = self.names.collection_no(self.connection, &doc.0)?;
            problems::remove(self.connection, no, doc.1.as_str())?;
        }
        for Refusal { problem, shown, is_gone, .. } in refused {
            if *is_gone {
                let no = self.names.collection_no(self.connection, &problem.collection)?;
                problems::remove(self.connection, no, &problem.key)?;
            } else {
                problems::put(self.connection, self.names, (problem, *shown), self.wall.0)?;
            }
        }
        Ok(())
    }
}

/// The content that an entry of a commit writes.
fn written(commit: &Commit, doc: &DocId, stamp: Stamp) -> Option<Bytes> {
    let of_author =
        commit.appended.iter().filter(|run| run.log.author == stamp.node && run.log.collection == doc.0);
    let mut entries = of_author.flat_map(|run| &run.entries).map(Linked::entry);
    let entry = entries.find(|entry| entry.hlc == stamp.hlc && entry.key == doc.1)?;
    entry.content().cloned()
}

fn problem((collection, key): &DocId, kind: ProblemKind, message: impl Into<String>) -> Problem {
    Problem { collection: collection.clone(), key: key.as_str().to_owned(), kind, message: message.into() }
}
