//! What a commit does beside the tables that all stores have: documents in the file, what the application's store makes of
//! them, and those that it refuses.

use std::collections::HashSet;

use bytes::Bytes;
use entgldb_replica::clock::{Stamp, WallMillis};
use entgldb_replica::id::{Collection, DocId, Key};
use entgldb_replica::store::{Commit, Committed, Guard, Problem, ProblemKind};
use rusqlite::Connection;

use super::compare::now_ms;
use super::intake::note;
use super::{Number, OwnStore, Recorded, Shown, intent, shown};
use crate::aside::{self, Aside, Reason};
use crate::commit::{Step, Stopped};
use crate::failed::{Outcome, SqliteFailed, While};
use crate::names::Names;
use crate::schema;

/// Writes a document into the file, or removes it. To be called in a write transaction.
pub(crate) fn place(connection: &Connection, no: i64, key: &Key, content: Option<&Bytes>) -> Outcome<()> {
    let written = match content {
        Some(content) => connection
            .prepare_cached(
                "INSERT INTO _entgldb_documents VALUES(?1, ?2, ?3) ON CONFLICT DO UPDATE SET content = excluded.content",
            )
            .and_then(|mut statement| statement.execute((no, key.as_str(), &**content))),
        None => connection
            .prepare_cached("DELETE FROM _entgldb_documents WHERE collection_no = ?1 AND key = ?2")
            .and_then(|mut statement| statement.execute((no, key.as_str()))),
    };
    written.map(drop).doing("writing a document")
}

/// Whether the outbox names one of these documents.
pub(crate) fn outbox_names_any(
    connection: &Connection,
    names: &Names,
    docs: &HashSet<(&Collection, &Key)>,
) -> Outcome<bool> {
    let mut statement = connection
        .prepare_cached("SELECT EXISTS(SELECT 1 FROM _entgldb_outbox WHERE tbl = ?1 AND key = ?2)")
        .doing("looking into the outbox")?;
    let empty = crate::capture::outbox_is_empty(connection)?;
    for (collection, key) in docs.iter().filter(|_| !empty) {
        let Some(no) = names.known_collection(collection) else { continue };
        let found = statement.query_row((no, key.as_str()), |row| row.get::<_, bool>(0));
        if found.doing("looking into the outbox")? {
            return Ok(true);
        }
    }
    Ok(false)
}

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

/// A document in quarantine.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct QuarantineItem {
    /// The document.
    pub doc: DocId,
    /// Its version.
    pub stamp: Stamp,
    /// The content; `None` for a deletion.
    pub content: Option<Bytes>,
}

impl OwnStore {
    /// Notes durably what is about to be done in the application's store. Answers `false`, and changes nothing, if the
    /// commit's guard does not hold, or if the disk is nearly full.
    ///
    /// # Errors
    /// When it is not certain that it is durable.
    pub fn intend(&mut self, commit: &Commit) -> Result<bool, SqliteFailed> {
        if commit.guard != Guard::None && !self.sqlite.room.look(&self.sqlite.path) {
            return Ok(false);
        }
        let done = self.sqlite.transact(commit.wall, |step| {
            step.check_guard(commit.guard, &commit.rows)?;
            intent::put(step.connection, commit)?;
            Ok(true)
        });
        match done {
            Err(failed) if failed.is_disk_full() => {
                self.sqlite.names = Names::load(&self.sqlite.connection)?;
                self.sqlite.room.was_full();
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
        self.sqlite.commit_with(commit, Guard::None, &mut |step| {
            for shown in &placed.shown {
                let no = step.names.collection_no(step.connection, &shown.doc.0)?;
                shown::put(step.connection, no, shown)?;
            }
            for refused in &placed.refused {
                step.refuse(refused)?;
            }
            intent::forget(step.connection)?;
            Ok(())
        })
    }

    /// What was about to be done in the application's store when the process ended.
    ///
    /// # Errors
    /// When the file can't be read, or what it holds is damaged.
    pub fn intended(&mut self) -> Result<Option<Commit>, SqliteFailed> {
        intent::get(&self.sqlite.connection, &self.sqlite.names)
    }

    /// Forgets what was about to be done, because it must be decided again. Its clock is kept: the times that it has seen, or
    /// given out, lie before all that come. What the application's store shows already of what was intended is no change of
    /// the application's.
    ///
    /// # Errors
    /// When it is not certain that it is durable.
    pub fn drop_intent(&mut self, commit: &Commit, shown: &[Shown]) -> Result<(), SqliteFailed> {
        let names = &self.sqlite.names;
        crate::open::in_transaction(&self.sqlite.connection, |connection| {
            intent::forget(connection)?;
            for shown in shown {
                if let Some(no) = names.known_collection(&shown.doc.0) {
                    shown::put(connection, no, shown)?;
                }
            }
            let clock = crate::schema::get::<i64>(connection, "clock")?.unwrap_or_default().cast_unsigned();
            crate::schema::put(connection, "clock", clock.max(commit.clock.0).cast_signed())
        })
    }

    /// Whether a commit's guard holds now.
    ///
    /// # Errors
    /// When the file can't be read.
    pub fn guard_holds(&mut self, commit: &Commit) -> Result<bool, SqliteFailed> {
        let mut holds = false;
        let _ = self.sqlite.transact(commit.wall, |step| {
            step.check_guard(commit.guard, &commit.rows)?;
            holds = true;
            Ok(false)
        })?;
        Ok(holds)
    }

    /// Documents in quarantine after one in the order of the keys, or from the beginning; at most `count`.
    ///
    /// # Errors
    /// When the file can't be read.
    pub fn quarantine(
        &mut self,
        collection: &Collection,
        after: Option<&Key>,
        count: usize,
    ) -> Result<Vec<QuarantineItem>, SqliteFailed> {
        if !aside::any(&self.sqlite.connection)? {
            return Ok(Vec::new());
        }
        let no = self.no(collection)?;
        let after = after.map_or("", Key::as_str);
        let waiting = aside::waiting(&self.sqlite.connection, &self.sqlite.names, no, after, count)?;
        let item = |Aside { key, stamp, content, .. }| QuarantineItem {
            doc: (collection.clone(), key),
            stamp,
            content,
        };
        Ok(waiting.into_iter().map(item).collect())
    }

    /// A document in quarantine.
    ///
    /// # Errors
    /// When the file can't be read.
    pub fn quarantined(&self, doc: &DocId) -> Result<Option<QuarantineItem>, SqliteFailed> {
        let Some(aside) = self.aside(doc)? else { return Ok(None) };
        Ok(Some(QuarantineItem { doc: doc.clone(), stamp: aside.stamp, content: aside.content }))
    }

    /// For a document in quarantine: hash of the canonical form of what the application's store has in its place, or none if
    /// it has nothing.
    ///
    /// # Errors
    /// When the file can't be read.
    pub fn refused_in_place_of(&self, doc: &DocId) -> Result<Option<Option<[u8; 32]>>, SqliteFailed> {
        Ok(self.aside(doc)?.and_then(|aside| match aside.reason {
            Reason::Refused { table_hash, .. } => Some(table_hash),
            Reason::Collided { .. } => None,
        }))
    }

    fn aside(&self, (collection, key): &DocId) -> Outcome<Option<Aside>> {
        let Some(no) = self.sqlite.names.known_collection(collection) else { return Ok(None) };
        if !aside::any(&self.sqlite.connection)? {
            return Ok(None);
        }
        aside::get(&self.sqlite.connection, &self.sqlite.names, no, key)
    }

    /// Drops a document from quarantine. What the application's store has in its place counts from now on as how it shows
    /// the document. Answers whether there was such a document.
    ///
    /// # Errors
    /// When it is not certain that it is durable.
    pub fn discard(&mut self, doc: &DocId) -> Result<bool, SqliteFailed> {
        let Some(aside) = self.aside(doc)? else { return Ok(false) };
        let Reason::Refused { table_hash, .. } = aside.reason else { return Ok(false) };
        let no = self.no(&doc.0)?;
        let shown = Shown { doc: doc.clone(), hash: table_hash, content: aside.content };
        crate::open::in_transaction(&self.sqlite.connection, |connection| {
            shown::put(connection, no, &shown)?;
            aside::remove(connection, no, &doc.1)
        })
    }

    /// Takes notes of the application's own outbox over: the documents, and when they were written. `until` is the last
    /// note's number there.
    ///
    /// # Errors
    /// When it is not certain that they are durable.
    pub fn take_notes(&mut self, notes: &[(DocId, u64)], until: u64) -> Result<(), SqliteFailed> {
        let names = &self.sqlite.names;
        let collections = &self.collections;
        crate::open::in_transaction(&self.sqlite.connection, |connection| {
            for ((collection, key), at_ms) in notes {
                if let Some(no) = names.known_collection(collection)
                    && collections.contains(collection)
                {
                    note(connection, (no, key.as_str()), &Recorded::Look, *at_ms, &mut None)?;
                }
            }
            schema::put(connection, Number::OutboxAfter.name(), until.cast_signed())
        })
    }

    /// Sets documents aside that are about to be taken out of the application's store.
    ///
    /// # Errors
    /// When it is not certain that it is durable.
    pub fn set_aside(&mut self, refused: &[Refused]) -> Result<Vec<Problem>, SqliteFailed> {
        let done = self.sqlite.transact(WallMillis(now_ms()), |step| {
            refused.iter().try_for_each(|refused| step.refuse(refused))?;
            Ok(true)
        })?;
        done.ok_or_else(|| SqliteFailed::damaged("nothing was set aside"))
    }

    /// Takes documents out of quarantine that the application's store has taken now, with what it makes of them.
    ///
    /// # Errors
    /// When it is not certain that it is durable.
    pub fn release(&mut self, docs: &[DocId], shown: &[Shown]) -> Result<Vec<Problem>, SqliteFailed> {
        let problem = |(collection, key): &DocId| Problem {
            collection: collection.clone(),
            key: key.as_str().to_owned(),
            kind: ProblemKind::CameBack,
            message: "the store takes it now".to_owned(),
        };
        let names = &self.sqlite.names;
        crate::open::in_transaction(&self.sqlite.connection, |connection| {
            let mut back = Vec::new();
            for doc in docs {
                let Some(no) = names.known_collection(&doc.0) else { continue };
                if aside::remove(connection, no, &doc.1)? {
                    back.push(problem(doc));
                }
                if let Some(shown) = shown.iter().find(|shown| shown.doc == *doc) {
                    shown::put(connection, no, shown)?;
                }
            }
            Ok(back)
        })
    }
}

impl Step<'_> {
    /// Sets a document aside that the application's store refuses.
    fn refuse(&mut self, refused: &Refused) -> Result<(), Stopped> {
        let Refused { doc, stamp, content, has, message } = refused;
        let reason = Reason::Refused { message: message.clone(), table_hash: *has };
        let aside = Aside { key: doc.1.clone(), stamp: *stamp, content: content.clone(), reason };
        Ok(self.set_aside(doc, aside)?)
    }
}
