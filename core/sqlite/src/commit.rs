//! One step of the replica, made durable in one transaction.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use bytes::Bytes;
use entgldb_replica::clock::WallMillis;
use entgldb_replica::id::{Collection, DocId, Key};
use entgldb_replica::resolve::Conflict;
use entgldb_replica::store::{Commit, ConflictWrite, Guard, Problem, ProblemKind, RowWrite};
use rusqlite::Connection;

use crate::aside::{self, Aside};
use crate::capture;
use crate::failed::{Outcome, SqliteFailed, While};
use crate::names::{Names, entry_id};
use crate::own::{self, Keeps};
use crate::putback::{self, Placed};
use crate::table::Table;
use crate::watched::Watched;
use crate::{note, oplog, schema};

/// Why a step did not come to its end.
pub(crate) enum Stopped {
    /// The store has failed.
    Failed(SqliteFailed),
    /// The guard does not hold.
    OutboxMoved,
    /// A trigger of the application rolled the whole transaction back because of this document.
    RolledBack(DocId, String),
}

impl From<SqliteFailed> for Stopped {
    fn from(failed: SqliteFailed) -> Self {
        Self::Failed(failed)
    }
}

/// A step on its way.
pub(crate) struct Step<'a> {
    pub(crate) connection: &'a Connection,
    pub(crate) names: &'a mut Names,
    pub(crate) watched: &'a Watched,
    /// Documents that a trigger of the application does not let in, whatever is done.
    pub(crate) banned: &'a HashMap<DocId, String>,
    pub(crate) wall: WallMillis,
    /// Who keeps the documents, if this is the engine's own file.
    pub(crate) home: Option<Keeps>,
    pub(crate) problems: Vec<Problem>,
    /// What was applied, for putting back; only kept if the application has triggers.
    pub(crate) placed: Placed,
    /// Documents whose rows do not say it all.
    pub(crate) inexact: Vec<(Arc<Table>, Key, Bytes)>,
    /// Documents that collided, until it is settled which of the rows stay. By table and place in the order of stamps.
    pub(crate) colliding: BTreeMap<i64, BTreeMap<(entgldb_replica::clock::Stamp, Key), Aside>>,
    pub(crate) anything_aside: bool,
    /// Whether the triggers have been told to be silent.
    pub(crate) is_applying: bool,
}

impl<'a> Step<'a> {
    pub(crate) fn new(
        connection: &'a Connection,
        names: &'a mut Names,
        watched: &'a Watched,
        banned: &'a HashMap<DocId, String>,
        wall: WallMillis,
    ) -> Outcome<Self> {
        Ok(Self {
            anything_aside: aside::any(connection)?,
            connection,
            names,
            watched,
            banned,
            wall,
            home: None,
            problems: Vec::new(),
            placed: Placed::new(),
            inexact: Vec::new(),
            colliding: BTreeMap::new(),
            is_applying: false,
        })
    }

    /// Carries a whole commit out. The caller has begun the transaction and ends it.
    pub(crate) fn carry_out(&mut self, commit: &Commit, guard: Guard) -> Result<(), Stopped> {
        if let Some(mark) = commit.drained {
            if self.home.is_some() {
                self.connection
                    .prepare_cached("DELETE FROM _entgldb_recorded WHERE id <= ?1")
                    .and_then(|mut statement| statement.execute([mark.0.cast_signed()]))
                    .doing("removing drained notes")?;
            }
            self.connection
                .prepare_cached("DELETE FROM _entgldb_outbox WHERE id <= ?1")
                .and_then(|mut statement| statement.execute([mark.0.cast_signed()]))
                .doing("removing drained notes")?;
        }
        self.check_guard(guard, &commit.rows)?;
        for key in &commit.authors {
            self.names.keep_public_key(self.connection, key)?;
        }
        self.append(commit)?;
        self.apply(&commit.rows)?;
        self.settle(&commit.rows)?;
        self.finish()?;
        self.report_dangling(&commit.rows)?;
        self.note(commit)?;
        Ok(())
    }

    pub(crate) fn check_guard(&self, guard: Guard, rows: &[RowWrite]) -> Result<(), Stopped> {
        let moved = match guard {
            Guard::None => false,
            Guard::OutboxEmpty => !capture::outbox_is_empty(self.connection)?,
            Guard::OutboxDisjoint => {
                let applied: HashSet<(&Collection, &Key)> = rows
                    .iter()
                    .filter(|row| row.apply.is_some())
                    .map(|row| (&row.doc.0, &row.doc.1))
                    .collect();
                match self.home {
                    None => capture::outbox_names_any(self.connection, self.watched, &applied)?,
                    Some(_) => own::outbox_names_any(self.connection, self.names, &applied)?,
                }
            }
        };
        if moved { Err(Stopped::OutboxMoved) } else { Ok(()) }
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
                 extra = CASE WHEN ?7 THEN extra END",
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
            if self.home == Some(Keeps::Host) {
                own::remove_shown(self.connection, collection, &doc.1)?;
            }
            if let Some(state) = merged {
                schema::put_state(self.connection, collection, doc.1.as_str(), state)?;
            }
        }
        Ok(())
    }

    /// What is left to do once the documents are in their places.
    pub(crate) fn finish(&mut self) -> Outcome<()> {
        if self.is_applying {
            for (no, key, content) in putback::put_back(self.connection, self.watched.tables(), &self.placed)?
            {
                self.set_homeless_aside(no, key, content)?;
            }
        }
        for (table, key, content) in std::mem::take(&mut self.inexact) {
            self.keep_extra(&table, &key, &content)?;
        }
        if self.is_applying {
            self.connection
                .prepare_cached("DELETE FROM _entgldb_applying")
                .and_then(|mut statement| statement.execute([]))
                .doing("ending the application of changes")?;
        }
        Ok(())
    }

    fn note(&mut self, commit: &Commit) -> Outcome<()> {
        for write in &commit.conflicts {
            match write {
                ConflictWrite::Put(conflict) => self.put_conflict(conflict)?,
                ConflictWrite::Remove { doc, winner, loser } => {
                    let no = self.names.collection_no(self.connection, &doc.0)?;
                    let winner_author = self.names.author(self.connection, &winner.node)?;
                    let loser_author = self.names.author(self.connection, &loser.node)?;
                    let (winner, loser) = (winner.hlc.0.cast_signed(), loser.hlc.0.cast_signed());
                    self.connection
                        .prepare_cached("DELETE FROM _entgldb_conflicts WHERE collection_no = ?1 AND key = ?2 AND winner_hlc = ?3 AND winner_author_no = ?4 AND loser_hlc = ?5 AND loser_author_no = ?6")
                        .and_then(|mut delete| delete.execute((no, doc.1.as_str(), winner, winner_author, loser, loser_author)))
                        .doing("removing a conflict")?;
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

    fn put_conflict(&mut self, conflict: &Conflict) -> Outcome<()> {
        let Conflict { doc, winner, loser, missing } = conflict;
        let no = self.names.collection_no(self.connection, &doc.0)?;
        let winner_author = self.names.author(self.connection, &winner.stamp.node)?;
        let loser_author = self.names.author(self.connection, &loser.stamp.node)?;
        let (missing_hlc, missing_author) = match missing {
            Some(stamp) => {
                (Some(stamp.hlc.0.cast_signed()), Some(self.names.author(self.connection, &stamp.node)?))
            }
            None => (None, None),
        };
        self.connection
            .prepare_cached(
                "INSERT INTO _entgldb_conflicts(collection_no, key, winner_hlc, winner_author_no, loser_hlc, loser_author_no,
                 winner_content, loser_content, missing_hlc, missing_author_no, noted_at) VALUES(?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)
                 ON CONFLICT(collection_no, key, winner_hlc, winner_author_no, loser_hlc, loser_author_no) DO UPDATE SET
                 missing_hlc = excluded.missing_hlc, missing_author_no = excluded.missing_author_no",
            )
            .and_then(|mut insert| {
                insert.execute((
                    no,
                    doc.1.as_str(),
                    winner.stamp.hlc.0.cast_signed(),
                    winner_author,
                    loser.stamp.hlc.0.cast_signed(),
                    loser_author,
                    winner.content.as_deref(),
                    loser.content.as_deref(),
                    missing_hlc,
                    missing_author,
                    self.wall.0.cast_signed(),
                ))
            })
            .doing("noting a conflict")?;
        Ok(())
    }

    pub(crate) fn problem(
        &mut self,
        collection: &Collection,
        key: &Key,
        kind: ProblemKind,
        message: impl Into<String>,
    ) {
        self.problems.push(Problem {
            collection: collection.clone(),
            key: key.as_str().to_owned(),
            kind,
            message: message.into(),
        });
    }

    /// Keeps the local changes that can't travel in the list of problems, and takes those off it that do now.
    pub(crate) fn note_refused<'p>(
        &mut self,
        refused: impl Iterator<Item = &'p Problem>,
        rows: &[RowWrite],
    ) -> Outcome<()> {
        let any: bool = self
            .connection
            .prepare_cached("SELECT EXISTS(SELECT 1 FROM _entgldb_problems)")
            .and_then(|mut statement| statement.query_row([], |row| row.get(0)))
            .doing("reading problems")?;
        for RowWrite { doc, .. } in rows.iter().filter(|_| any) {
            let no = self.names.collection_no(self.connection, &doc.0)?;
            self.connection
                .prepare_cached("DELETE FROM _entgldb_problems WHERE collection_no = ?1 AND key = ?2")
                .and_then(|mut delete| delete.execute((no, doc.1.as_str())))
                .doing("removing a problem")?;
        }
        for Problem { collection, key, message, .. } in refused {
            let no = self.names.collection_no(self.connection, collection)?;
            self.connection
                .prepare_cached(
                    "INSERT INTO _entgldb_problems(collection_no, key, message, noted_at) VALUES(?1, ?2, ?3, ?4)
                     ON CONFLICT DO UPDATE SET message = excluded.message",
                )
                .and_then(|mut insert| insert.execute((no, key, message, self.wall.0.cast_signed())))
                .doing("noting a problem")?;
        }
        Ok(())
    }
}
