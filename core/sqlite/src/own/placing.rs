//! What a commit does where the documents are in the file, or in a store of the application's.

use std::collections::HashSet;

use bytes::Bytes;
use entgldb_replica::clock::{Stamp, WallMillis};
use entgldb_replica::id::{Collection, DocId, Key};
use entgldb_replica::store::{Commit, Committed, Guard, OutboxMark, Problem, RowWrite};

use super::store::{Keeps, OwnStore};
use super::{Shown, documents, intent, shown};
use crate::failed::{Outcome, SqliteFailed, While};
use crate::file::connection::in_transaction;
use crate::journal::aside::{Aside, Reason};
use crate::journal::commit::{Placing, Step, Stopped, carry_out, check_guard};
use crate::journal::{outbox, schema};

/// What came of bringing a commit's documents into the application's store.
#[derive(Clone, Debug, Default)]
pub struct Placed {
    /// Documents that it shows otherwise than they are.
    pub shown: Vec<Shown>,
    /// Documents that it refuses.
    pub refused: Vec<Refused>,
}

/// A document that the application's store refuses.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Refused {
    /// The document.
    pub doc: DocId,
    /// Its version.
    pub stamp: Stamp,
    /// The content; `None` for a deletion.
    pub content: Option<Bytes>,
    /// Hash of the canonical form of what the store has of it; `None` if it has nothing.
    pub has: Option<[u8; 32]>,
    /// The application's words.
    pub message: String,
}

/// A step of an own file.
pub(super) struct OwnPlacing<'a> {
    pub(super) step: Step<'a>,
    keeps: Keeps,
}

impl<'a> Placing<'a> for OwnPlacing<'a> {
    fn step(&mut self) -> &mut Step<'a> {
        &mut self.step
    }

    fn drain(&mut self, mark: OutboxMark) -> Outcome<()> {
        self.step
            .connection
            .prepare_cached("DELETE FROM _entgldb_recorded WHERE id <= ?1")
            .and_then(|mut statement| statement.execute([mark.0.cast_signed()]))
            .map(drop)
            .doing("removing drained notes")
    }

    fn is_noted(&self, docs: &HashSet<(&Collection, &Key)>) -> Outcome<bool> {
        let Step { connection, names, .. } = &self.step;
        let mut statement = connection
            .prepare_cached("SELECT EXISTS(SELECT 1 FROM _entgldb_outbox WHERE tbl = ?1 AND key = ?2)")
            .doing("looking into the outbox")?;
        let empty = outbox::is_empty(connection)?;
        for (collection, key) in docs.iter().filter(|_| !empty) {
            let Some(no) = names.known_collection(collection) else { continue };
            let found = statement.query_row((no, key.as_str()), |row| row.get::<_, bool>(0));
            if found.doing("looking into the outbox")? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn prove(&mut self, _: &Commit) -> Result<(), Stopped> {
        // Nobody but the engine writes to its own file; a store of the application's is compared by its adapter.
        Ok(())
    }

    fn place(&mut self, writes: &[RowWrite]) -> Result<(), Stopped> {
        for write in writes {
            let (collection, key) = &write.doc;
            let no = self.step.names.collection_no(self.step.connection, collection)?;
            if self.keeps == Keeps::Host {
                // A document has another version now. The application's store has it already.
                shown::remove(self.step.connection, no, key)?;
            }
            let is_member = self.step.place_member(write)?;
            if let Some(content) = write.apply.as_ref()
                && !is_member
                && self.keeps == Keeps::Documents
            {
                documents::put(self.step.connection, no, key, content.as_ref())?;
            }
        }
        Ok(())
    }
}

impl OwnPlacing<'_> {
    /// Sets a document aside that the application's store refuses.
    pub(super) fn refuse(&mut self, refused: &Refused) -> Outcome<()> {
        let Refused { doc, stamp, content, has, message } = refused;
        let reason = Reason::Refused { message: message.clone(), table_hash: *has };
        let aside = Aside { key: doc.1.clone(), stamp: *stamp, content: content.clone(), reason };
        self.step.set_aside(doc, aside)
    }
}

impl OwnStore {
    /// Notes durably what is about to be done in the application's store. Answers `false`, and changes nothing, if the
    /// commit's guard does not hold, or if the disk is nearly full.
    ///
    /// # Errors
    /// When it is not certain that it is durable.
    pub fn intend(&mut self, commit: &Commit) -> Result<bool, SqliteFailed> {
        if commit.guard != Guard::None && !self.journal.has_room() {
            return Ok(false);
        }
        let done = self.transact(commit.wall, |placing| {
            check_guard(placing, commit.guard, &commit.rows)?;
            intent::put(placing.step.connection, commit)?;
            Ok(true)
        });
        match done {
            Err(failed) if failed.is_disk_full() => {
                self.journal.was_full()?;
                Ok(false)
            }
            done => Ok(done?.is_some()),
        }
    }

    /// Makes a commit durable whose documents are in the application's store, and forgets the intent. The guard was looked
    /// at before.
    ///
    /// # Errors
    /// When it is not certain that it is durable.
    pub fn commit_placed(&mut self, commit: &Commit, placed: &Placed) -> Result<Committed, SqliteFailed> {
        self.commit_with(commit, Guard::None, &mut |placing| {
            for shown in &placed.shown {
                let no = placing.step.names.collection_no(placing.step.connection, &shown.doc.0)?;
                shown::put(placing.step.connection, no, shown)?;
            }
            for refused in &placed.refused {
                placing.refuse(refused)?;
            }
            intent::forget(placing.step.connection)
        })
    }

    /// What was about to be done in the application's store when the process ended.
    ///
    /// # Errors
    /// When the file can't be read, or what it holds is damaged.
    pub fn intended(&mut self) -> Result<Option<Commit>, SqliteFailed> {
        intent::get(&self.journal.connection, &self.journal.names)
    }

    /// Forgets what was about to be done, because it must be decided again. Its clock is kept: the times that it has seen, or
    /// given out, lie before all that come. What the application's store shows already of what was intended is no change of
    /// the application's.
    ///
    /// # Errors
    /// When it is not certain that it is durable.
    pub fn drop_intent(&mut self, commit: &Commit, shown: &[Shown]) -> Result<(), SqliteFailed> {
        let names = &self.journal.names;
        in_transaction(&self.journal.connection, |connection| {
            intent::forget(connection)?;
            for shown in shown {
                if let Some(no) = names.known_collection(&shown.doc.0) {
                    shown::put(connection, no, shown)?;
                }
            }
            let clock = schema::get::<i64>(connection, "clock")?.unwrap_or_default().cast_unsigned();
            schema::put(connection, "clock", clock.max(commit.clock.0).cast_signed())
        })
    }

    /// Whether a commit's guard holds now.
    ///
    /// # Errors
    /// When the file can't be read.
    pub fn guard_holds(&mut self, commit: &Commit) -> Result<bool, SqliteFailed> {
        let mut holds = false;
        let _ = self.transact(commit.wall, |placing| {
            check_guard(placing, commit.guard, &commit.rows)?;
            holds = true;
            Ok(false)
        })?;
        Ok(holds)
    }

    /// Carries a commit out under a guard, and `more` in the same transaction.
    pub(super) fn commit_with(
        &mut self,
        commit: &Commit,
        guard: Guard,
        more: &mut dyn FnMut(&mut OwnPlacing<'_>) -> Outcome<()>,
    ) -> Outcome<Committed> {
        // To the replica this is a guard that does not hold: the peer is told to come again.
        if guard != Guard::None && !self.journal.has_room() {
            return Ok(Committed::OutboxMoved);
        }
        let refused = self.journal.take_refused(commit.drained);
        let problems = self.transact(commit.wall, |placing| {
            carry_out(placing, commit, guard)?;
            more(placing)?;
            placing.step.note_refused(&refused, &commit.rows)?;
            Ok(true)
        });
        self.journal.committed(guard, refused, problems)
    }

    /// Carries work out in a write transaction. `work` returns whether to keep what it did.
    pub(super) fn transact(
        &mut self,
        wall: WallMillis,
        work: impl FnOnce(&mut OwnPlacing<'_>) -> Result<bool, Stopped>,
    ) -> Outcome<Option<Vec<Problem>>> {
        let keeps = self.keeps;
        let attempted = self.journal.attempt(wall, |step| {
            let mut placing = OwnPlacing { step, keeps };
            let keep = work(&mut placing)?;
            Ok(keep.then_some(placing.step.problems))
        });
        attempted.or_else(|stopped| match stopped {
            Stopped::Failed(failed) => Err(failed),
            Stopped::OutboxMoved => Ok(None),
            Stopped::SchemaChanged | Stopped::Found(_) | Stopped::RolledBack(..) => {
                Err(SqliteFailed::damaged("a trigger is in the engine's own file"))
            }
        })
    }

    /// Work that may wait.
    pub(super) fn tend_all(&mut self, conflicts_before: WallMillis) -> Outcome<Vec<Problem>> {
        self.journal.tend(conflicts_before)?;
        Ok(Vec::new())
    }
}
