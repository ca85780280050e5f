//! Bringing remote documents into the application's tables.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use bytes::Bytes;
use entgldb_replica::clock::Stamp;
use entgldb_replica::id::{Collection, DocId, Key, sha256};
use entgldb_replica::store::{Commit, OutboxMark, ProblemKind, RowWrite};

use crate::apply::putback::{self, Placed};
use crate::capture::watched::Watched;
use crate::capture::{notes, rebuild};
use crate::failed::{Outcome, While, is_collision, is_refusal};
use crate::fields::gone;
use crate::journal::aside::{Aside, Reason};
use crate::journal::commit::{Placing, Step, Stopped};
use crate::table::definition::Table;
use crate::table::document::{self, Extra, Parsed};
use crate::table::rows;
use crate::table::value::Sql;

/// Most references to nothing that one commit reports.
const DANGLING_REPORTED_MAX: usize = 16;

/// What the application's table did with a document.
pub(crate) enum Fate {
    Placed,
    Collided,
    Refused(String),
}

/// A step that brings documents into the application's tables.
pub(crate) struct Applying<'a> {
    pub(crate) step: Step<'a>,
    pub(super) watched: &'a Watched,
    /// Documents that a trigger of the application does not let in, whatever is done.
    banned: &'a HashMap<DocId, String>,
    /// What was applied, for putting back; only kept if the application has triggers.
    pub(super) placed: Placed,
    /// Documents whose rows do not say it all.
    inexact: Vec<(Arc<Table>, Key, Bytes)>,
    /// Documents that collided, until it is settled which of the rows stay. By table and place in the order of stamps.
    pub(super) colliding: BTreeMap<i64, BTreeMap<(Stamp, Key), Aside>>,
    /// Whether the triggers have been told to be silent.
    is_applying: bool,
}

impl<'a> Applying<'a> {
    pub(crate) fn new(step: Step<'a>, watched: &'a Watched, banned: &'a HashMap<DocId, String>) -> Self {
        Self {
            step,
            watched,
            banned,
            placed: Placed::new(),
            inexact: Vec::new(),
            colliding: BTreeMap::new(),
            is_applying: false,
        }
    }
}

impl Applying<'_> {
    /// The watched table of a collection.
    pub(crate) fn table(&self, collection: &Collection) -> Option<&Arc<Table>> {
        self.watched.table(collection)
    }
}

impl<'a> Placing<'a> for Applying<'a> {
    fn step(&mut self) -> &mut Step<'a> {
        &mut self.step
    }

    fn drain(&mut self, _: OutboxMark) -> Outcome<()> {
        Ok(())
    }

    fn is_noted(&self, docs: &HashSet<(&Collection, &Key)>) -> Outcome<bool> {
        notes::name_any(self.step.connection, self.watched, docs)
    }

    fn prove(&mut self, commit: &Commit) -> Result<(), Stopped> {
        self.prove_all(commit)
    }

    fn place(&mut self, writes: &[RowWrite]) -> Result<(), Stopped> {
        self.apply(writes)?;
        self.settle(writes)?;
        self.finish()?;
        Ok(self.report_dangling(writes)?)
    }
}

impl Applying<'_> {
    /// Applies the remote ones of these changes, oldest first, so that parents come before children.
    fn apply(&mut self, writes: &[RowWrite]) -> Result<(), Stopped> {
        let mut remote: Vec<(&RowWrite, &Option<Bytes>)> =
            writes.iter().filter_map(|write| Some((write, write.apply.as_ref()?))).collect();
        remote.sort_by_key(|(write, _)| write.row.stamp);
        for (write, content) in remote {
            if !self.step.place_member(write)? {
                let is_new = self.is_proven_by_insert(write);
                self.apply_one(&write.doc, write.row.stamp, content.clone(), is_new)?;
            }
        }
        Ok(())
    }

    fn apply_one(
        &mut self,
        doc: &DocId,
        stamp: Stamp,
        content: Option<Bytes>,
        is_new: bool,
    ) -> Result<(), Stopped> {
        let (collection, key) = doc;
        let Some(table) = self.watched.table(collection).cloned() else {
            let reason =
                Reason::Refused { message: "this database has no such table".into(), table_hash: None };
            return Ok(self.step.set_aside(doc, Aside { key: key.clone(), stamp, content, reason })?);
        };
        let aside = |content, reason| Aside { key: key.clone(), stamp, content, reason };
        match self.place_as(&table, key, content.as_ref(), is_new)? {
            Fate::Placed => {
                self.remember_place(&table, key, content);
                Ok(())
            }
            Fate::Collided => {
                // Its older version must not stand in anybody's way while it is settled who stays.
                self.remove_row(&table, key)?;
                let waiting = aside(content, Reason::Collided { blocker: None });
                self.colliding.entry(table.no).or_default().insert((stamp, key.clone()), waiting);
                Ok(())
            }
            Fate::Refused(message) => {
                let table_hash = self.content_now(&table, key)?.map(|now| sha256(&now));
                Ok(self.step.set_aside(doc, aside(content, Reason::Refused { message, table_hash }))?)
            }
        }
    }

    /// Makes our triggers silent until the end of the step. Without triggers of the application none fire on this
    /// connection at all.
    fn begin_applying(&mut self) -> Outcome<()> {
        if self.watched.has_application_triggers && !self.is_applying {
            self.step
                .connection
                .prepare_cached("INSERT OR IGNORE INTO _entgldb_applying(id) VALUES(1)")
                .and_then(|mut statement| statement.execute([]))
                .doing("beginning the application of changes")?;
            self.is_applying = true;
        }
        Ok(())
    }

    /// Tries to bring a document into its table. If it is not placed, the table is as it was.
    pub(crate) fn place(
        &mut self,
        table: &Arc<Table>,
        key: &Key,
        content: Option<&Bytes>,
    ) -> Result<Fate, Stopped> {
        self.place_as(table, key, content, false)
    }

    /// The same. A document that is new here must not meet a row.
    fn place_as(
        &mut self,
        table: &Arc<Table>,
        key: &Key,
        content: Option<&Bytes>,
        is_new: bool,
    ) -> Result<Fate, Stopped> {
        self.begin_applying()?;
        if self.watched.is_perhaps_copied(table.no) {
            rebuild::remember(self.step.connection, table.no, key, content)?;
        }
        if !self.banned.is_empty()
            && let Some(message) = self.banned.get(&(table.collection.clone(), key.clone()))
        {
            return Ok(Fate::Refused(message.clone()));
        }
        let Some(content) = content else {
            return match table.form.decode(key.as_str()) {
                Ok(columns) => self.attempt(table, key, |applying| {
                    let connection = applying.step.connection;
                    let deleted = rows::delete(connection, table, &columns)?;
                    // A trigger may keep the row without an error.
                    let is_gone = deleted > 0
                        || !table.has_application_triggers
                        || rows::read(connection, table, &columns)?.is_none();
                    Ok(usize::from(is_gone))
                }),
                // No row can have this key.
                Err(_) => Ok(Fate::Placed),
            };
        };
        let document = match document::parse(table, key, content) {
            Ok(document) => document,
            Err(message) => return Ok(Fate::Refused(message)),
        };
        let fate = if is_new {
            self.insert_new(table, key, &document)?
        } else {
            self.attempt(table, key, |applying| rows::put(applying.step.connection, table, &document))?
        };
        if matches!(fate, Fate::Placed) && !document.is_exact {
            self.inexact.push((table.clone(), key.clone(), content.clone()));
        }
        Ok(fate)
    }

    /// Inserts the row of a document that nothing is known of. A row that is there already was written by the application and
    /// not noted: it is captured first.
    fn insert_new(&mut self, table: &Arc<Table>, key: &Key, document: &Parsed<'_>) -> Result<Fate, Stopped> {
        let fate =
            self.attempt(table, key, |applying| rows::insert(applying.step.connection, table, document))?;
        if matches!(fate, Fate::Placed) {
            return Ok(fate);
        }
        let Ok(columns) = table.form.decode(key.as_str()) else { return Ok(fate) };
        let found = rows::read(self.step.connection, table, &columns).doing("reading a row")?;
        match found {
            Some(_) => Err(Stopped::Found(vec![(table.collection.clone(), key.clone())])),
            None => Ok(fate),
        }
    }

    /// Runs one statement on the application's table. An error takes back what the statement did; where the application's
    /// triggers may end it in the middle (`RAISE(FAIL)`), a savepoint does.
    fn attempt(
        &mut self,
        table: &Table,
        key: &Key,
        statement: impl FnOnce(&Self) -> rusqlite::Result<usize>,
    ) -> Result<Fate, Stopped> {
        let batch =
            |sql| self.step.connection.prepare_cached(sql).and_then(|mut s| s.execute([]).map(|_| ()));
        if table.has_application_triggers {
            batch("SAVEPOINT _entgldb_document").doing("beginning a document")?;
        }
        let result = statement(self);
        if result.is_err() && self.step.connection.is_autocommit() {
            let message = result.err().map(|error| error.to_string()).unwrap_or_default();
            return Err(Stopped::RolledBack((table.collection.clone(), key.clone()), message));
        }
        if table.has_application_triggers {
            if result.is_err() {
                batch("ROLLBACK TO _entgldb_document").doing("undoing a document")?;
            }
            batch("RELEASE _entgldb_document").doing("ending a document")?;
        }
        match result {
            Ok(0) if table.key_is_exact => {
                Ok(Fate::Refused("a trigger of the application ignores it".to_owned()))
            }
            Ok(0) => Ok(Fate::Collided),
            Ok(_) => Ok(Fate::Placed),
            Err(error) if is_collision(&error) => Ok(Fate::Collided),
            Err(error) if is_refusal(&error) => Ok(Fate::Refused(error.to_string())),
            Err(source) => Err(source).doing("applying a document").map_err(Stopped::Failed),
        }
    }

    pub(crate) fn remember_place(&mut self, table: &Table, key: &Key, content: Option<Bytes>) {
        if self.watched.has_application_triggers {
            self.placed.insert((table.no, key.clone()), content);
        }
    }

    /// Removes a document's row, if it has one.
    pub(crate) fn remove_row(&mut self, table: &Arc<Table>, key: &Key) -> Result<(), Stopped> {
        self.place(table, key, None)?;
        self.remember_place(table, key, None);
        Ok(())
    }

    /// The document that a row gives now.
    pub(crate) fn content_now(&self, table: &Table, key: &Key) -> Outcome<Option<Vec<u8>>> {
        let Ok(columns) = table.form.decode(key.as_str()) else { return Ok(None) };
        let Some(row) = rows::read(self.step.connection, table, &columns).doing("reading a row")? else {
            return Ok(None);
        };
        let extra = gone::beside(self.step.connection, self.step.names, table, key)?;
        Ok(Some(document::content(table, &row, extra.as_ref())))
    }

    /// Keeps what a document's row does not say.
    pub(crate) fn keep_extra(&mut self, table: &Arc<Table>, key: &Key, content: &[u8]) -> Outcome<()> {
        let Ok(columns) = table.form.decode(key.as_str()) else { return Ok(()) };
        let row = rows::read(self.step.connection, table, &columns).doing("reading a row back")?;
        let extra =
            row.and_then(|row: Vec<Sql<'_>>| Extra::of(table, content, &row)).map(|extra| extra.to_text());
        self.step
            .connection
            .prepare_cached("UPDATE _entgldb_rows SET extra = ?1 WHERE collection_no = ?2 AND key = ?3")
            .and_then(|mut update| update.execute((extra, table.no, key.as_str())))
            .doing("keeping what a row cannot hold")?;
        self.step
            .connection
            .prepare_cached("UPDATE _entgldb_collections SET has_extras = 1 WHERE no = ?1 AND NOT has_extras")
            .and_then(|mut update| update.execute([table.no]))
            .doing("keeping what a row cannot hold")?;
        Ok(())
    }

    /// What is left to do once the documents are in their places.
    pub(crate) fn finish(&mut self) -> Outcome<()> {
        if self.is_applying {
            let tables = self.watched.tables();
            for (no, key, content) in putback::put_back(self.step.connection, tables, &self.placed)? {
                self.set_homeless_aside(no, key, content)?;
            }
        }
        for (table, key, content) in std::mem::take(&mut self.inexact) {
            self.keep_extra(&table, &key, &content)?;
        }
        if self.is_applying {
            self.step
                .connection
                .prepare_cached("DELETE FROM _entgldb_applying")
                .and_then(|mut statement| statement.execute([]))
                .doing("ending the application of changes")?;
        }
        Ok(())
    }

    /// Reports rows that were applied and refer to rows that are not there.
    fn report_dangling(&mut self, writes: &[RowWrite]) -> Outcome<()> {
        let mut reported = 0;
        for RowWrite { doc, apply, .. } in writes {
            let (Some(Some(_)), Some(table)) = (apply, self.watched.table(&doc.0).cloned()) else { continue };
            if table.references.is_empty() || reported == DANGLING_REPORTED_MAX {
                continue;
            }
            let Ok(key) = table.form.decode(doc.1.as_str()) else { continue };
            for reference in &table.references {
                let mut statement = self
                    .step
                    .connection
                    .prepare_cached(&reference.check)
                    .doing("looking for dangling references")?;
                rows::bind(&mut statement, 1, key.iter()).doing("looking for dangling references")?;
                let dangles =
                    statement.raw_query().next().doing("looking for dangling references")?.is_some();
                if dangles && reported < DANGLING_REPORTED_MAX {
                    reported += 1;
                    let message = format!("it refers to a row of {:?} that is not there", reference.parent);
                    self.step.problem(&doc.0, &doc.1, ProblemKind::Dangling, message);
                }
            }
        }
        Ok(())
    }
}
