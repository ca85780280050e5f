//! Rows written apart that collide on a unique index end the same on every node.
//!
//! The rule: as if all rows were inserted from the greatest stamp to the smallest, skipping those that collide with one
//! that is there already; of rows with the same stamp (one unit) the one with the greater key goes first. A state in which
//! every skipped row has a younger present row that it collides with, and no two present rows collide, is that one state.
//!
//! Each skipped row remembers one such younger row, its blocker. It has to be looked at again only when its blocker is
//! touched. Looking at the rows to be settled from the youngest down needs one pass: letting a row in can only evict
//! older ones, which come later.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use entgldb_replica::clock::Stamp;
use entgldb_replica::id::Key;
use entgldb_replica::store::{ProblemKind, RowWrite};
use rusqlite::OptionalExtension;

use crate::apply::applying::{Applying, Fate};
use crate::apply::putback;
use crate::capture::notes;
use crate::failed::{Outcome, While};
use crate::fields::gone;
use crate::journal::aside::{self, Aside, Reason};
use crate::journal::commit::Stopped;
use crate::quote::{identifier, joined};
use crate::reading::outgoing;
use crate::reading::standing::{Content, Source};
use crate::table::definition::Table;
use crate::table::document;
use crate::table::rows;
use crate::table::value::Sql;

/// Place of a row in the order in which rows are let in.
type Place = (Stamp, Key);

/// A row that another one collides with.
struct Present {
    key: Key,
    columns: Vec<Sql<'static>>,
    /// Its place; `None` if it has an uncaptured change, which will have the youngest stamp of all.
    place: Option<Place>,
}

impl Applying<'_> {
    /// Settles who stays after these changes: newly collided documents, and those that a touched row kept out.
    pub(crate) fn settle(&mut self, writes: &[RowWrite]) -> Result<(), Stopped> {
        if self.step.anything_aside {
            for RowWrite { doc, .. } in writes {
                if let Some(no) = self.step.names.known_collection(&doc.0) {
                    self.reconsider(no, &doc.1)?;
                }
            }
        }
        self.settle_queued()
    }

    /// Settles what is in the queue.
    pub(crate) fn settle_queued(&mut self) -> Result<(), Stopped> {
        while let Some((no, queue)) = self.colliding.pop_first() {
            match self.watched.numbered(no).cloned() {
                Some(table) => self.settle_table(&table, queue)?,
                None => {
                    let collection = self.step.names.collection(no)?.clone();
                    for aside in queue.into_values() {
                        self.step.set_aside(&(collection.clone(), aside.key.clone()), aside)?;
                    }
                }
            }
        }
        Ok(())
    }

    /// Queues the documents that a row kept out.
    pub(super) fn reconsider(&mut self, no: i64, blocker: &Key) -> Outcome<()> {
        for aside in aside::blocked_by(self.step.connection, self.step.names, no, blocker)? {
            self.colliding.entry(no).or_default().insert((aside.stamp, aside.key.clone()), aside);
        }
        Ok(())
    }

    fn settle_table(&mut self, table: &Arc<Table>, mut queue: BTreeMap<Place, Aside>) -> Result<(), Stopped> {
        while let Some((place, aside)) = queue.pop_last() {
            let present = self.colliding_rows(table, &aside)?;
            let younger = present.iter().find(|row| row.place.as_ref().is_none_or(|other| *other > place));
            if let Some(younger) = younger {
                let blocker = Some(younger.key.clone());
                self.keep_out(table, Aside { reason: Reason::Collided { blocker }, ..aside })?;
                continue;
            }
            for older in present {
                let Some(place) = older.place else { continue };
                self.evict(table, &older.key, &older.columns, place, &mut queue)?;
                self.reconsider(table.no, &older.key)?;
                queue.extend(self.colliding.remove(&table.no).unwrap_or_default());
            }
            self.let_in(table, aside)?;
        }
        Ok(())
    }

    fn keep_out(&mut self, table: &Table, aside: Aside) -> Outcome<()> {
        let was_out = aside::get(self.step.connection, self.step.names, table.no, &aside.key)?.is_some();
        if was_out {
            return aside::put(self.step.connection, self.step.names, table.no, &aside, self.step.wall);
        }
        self.step.set_aside(&(table.collection.clone(), aside.key.clone()), aside)
    }

    fn evict(
        &mut self,
        table: &Arc<Table>,
        key: &Key,
        columns: &[Sql<'static>],
        place: Place,
        queue: &mut BTreeMap<Place, Aside>,
    ) -> Result<(), Stopped> {
        let content = self.content_to_evict(table, key, columns)?;
        self.remove_row(table, key)?;
        let aside =
            Aside { key: key.clone(), stamp: place.0, content, reason: Reason::Collided { blocker: None } };
        queue.insert(place, aside);
        Ok(())
    }

    /// The document of a row that has to give way: what was applied in this step, or what stands. Where triggers of the
    /// application have changed the row in this step, the table is not asked.
    fn content_to_evict(
        &mut self,
        table: &Arc<Table>,
        key: &Key,
        columns: &[Sql<'static>],
    ) -> Result<Option<Bytes>, Stopped> {
        if let Some(placed) = self.placed.get(&(table.no, key.clone())) {
            return Ok(placed.clone());
        }
        let connection = self.step.connection;
        let is_touched = self.watched.has_application_triggers
            && putback::is_remembered(connection, table, columns).doing("comparing remembered rows")?;
        if !is_touched {
            self.prove_to_evict(table, key)?;
        }
        let (connection, names) = (self.step.connection, &*self.step.names);
        let source = Source {
            connection,
            names,
            collection: &table.collection,
            no: table.no,
            table: (!is_touched).then_some(&**table),
            anything_aside: self.step.anything_aside,
        };
        if let Some(standing) = outgoing::standing(connection, names, table.no, key.as_str())?
            && let Content::Is(content) = source.content(&standing)?
        {
            return Ok(content);
        }
        let row = rows::read(connection, table, columns).doing("reading a row that collides")?;
        let extra = gone::beside(connection, names, table, key)?;
        Ok(row.map(|row| Bytes::from(document::content(table, &row, extra.as_ref()))))
    }

    fn let_in(&mut self, table: &Arc<Table>, aside: Aside) -> Result<(), Stopped> {
        let doc = (table.collection.clone(), aside.key.clone());
        if let Ok(columns) = table.form.decode(aside.key.as_str())
            && notes::is_noted(self.step.connection, table, &columns)?
        {
            // The application has written a row of its own there, which is not captured yet.
            return Ok(self.keep_out(table, Aside { reason: Reason::Collided { blocker: None }, ..aside })?);
        }
        match self.place(table, &aside.key, aside.content.as_ref())? {
            Fate::Placed => {
                self.remember_place(table, &aside.key, aside.content.clone());
                if aside::remove(self.step.connection, table.no, &aside.key)? {
                    self.step.problem(
                        &doc.0,
                        &doc.1,
                        ProblemKind::CameBack,
                        "nothing is in its way any more",
                    );
                }
            }
            // An index that cannot be looked into: it is tried again from time to time.
            Fate::Collided => {
                self.keep_out(table, Aside { reason: Reason::Collided { blocker: None }, ..aside })?
            }
            Fate::Refused(message) => {
                let reason = Reason::Refused { message, table_hash: None };
                self.step.set_aside(&doc, Aside { reason, ..aside })?;
            }
        }
        Ok(())
    }

    /// The rows of the table that a document collides with.
    fn colliding_rows(&mut self, table: &Arc<Table>, aside: &Aside) -> Result<Vec<Present>, Stopped> {
        let Some(content) = &aside.content else { return Ok(Vec::new()) };
        let Ok(document) = document::parse(table, &aside.key, content) else { return Ok(Vec::new()) };
        let Some(probe) = self.probe(table, &document).doing("trying a row beside its table")? else {
            return Ok(Vec::new());
        };
        let mut keys: BTreeSet<Key> = BTreeSet::new();
        let mut present = Vec::new();
        for unique in &table.uniques {
            let sql = format!(
                "SELECT {} FROM main.{} WHERE {}",
                joined(table.key_columns(), ", "),
                table.quoted,
                unique.collides_with(&probe)
            );
            let mut statement =
                self.step.connection.prepare_cached(&sql).doing("looking for rows that collide")?;
            let mut found = statement.query([]).doing("looking for rows that collide")?;
            while let Some(row) = found.next().doing("looking for rows that collide")? {
                let columns: Vec<Sql<'static>> = (0..table.key.len())
                    .map(|column| Ok(Sql::from(row.get_ref(column)?).into_owned()))
                    .collect::<rusqlite::Result<_>>()
                    .doing("looking for rows that collide")?;
                let refs: Vec<_> = columns.iter().map(Sql::as_ref).collect();
                let Ok(key) = table.form.encode(&refs) else { continue };
                if key != aside.key && keys.insert(key.clone()) {
                    present.push((key, columns));
                }
            }
        }
        present
            .into_iter()
            .map(|(key, columns)| {
                let place = self.place_of(table, &key, &columns)?;
                Ok(Present { key, columns, place })
            })
            .collect()
    }

    /// Makes a document a row of a temporary table that is defined like its own: with the same affinities and generated
    /// columns, so that the unique indexes' terms can be evaluated on it. `None` if even that refuses it.
    fn probe(&self, table: &Table, document: &document::Parsed<'_>) -> rusqlite::Result<Option<String>> {
        let name = format!("temp.{}", identifier(&format!("_entgldb_probe_{}", table.no)));
        let create = format!("CREATE TEMP TABLE IF NOT EXISTS {}{}", &name["temp.".len()..], table.body);
        self.step.connection.execute_batch(&create)?;
        self.step.connection.execute(&format!("DELETE FROM {name}"), [])?;
        let present = document
            .values
            .iter()
            .zip(&table.columns)
            .filter_map(|(value, column)| Some((value.as_ref()?, column)));
        let (values, columns): (Vec<_>, Vec<_>) =
            present.map(|(value, column)| (value, identifier(&column.name))).unzip();
        let parameters = joined((1..=values.len()).map(|number| format!("?{number}")), ", ");
        let sql = format!("INSERT INTO {name}({}) VALUES({parameters})", joined(columns, ", "));
        let mut statement = self.step.connection.prepare_cached(&sql)?;
        rows::bind(&mut statement, 1, values.into_iter())?;
        match statement.raw_execute() {
            Ok(_) => Ok(Some(name)),
            Err(error) if crate::failed::is_refusal(&error) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Where a present row stands in the order; `None` if it has a change that is not captured.
    fn place_of(&self, table: &Table, key: &Key, columns: &[Sql<'_>]) -> Result<Option<Place>, Stopped> {
        if notes::is_noted(self.step.connection, table, columns)? {
            return Ok(None);
        }
        let row: Option<(i64, i64)> = self
            .step
            .connection
            .prepare_cached("SELECT hlc, author_no FROM _entgldb_rows WHERE collection_no = ?1 AND key = ?2")
            .and_then(|mut statement| {
                statement.query_row((table.no, key.as_str()), |row| Ok((row.get(0)?, row.get(1)?))).optional()
            })
            .doing("reading a row's stamp")?;
        match row {
            Some((hlc, author)) => Ok(Some((self.step.names.stamp(hlc, author)?, key.clone()))),
            None => Ok(None),
        }
    }

    /// A row that could not be put back after the application's triggers had changed it.
    pub(crate) fn set_homeless_aside(&mut self, no: i64, key: Key, content: Bytes) -> Outcome<()> {
        let collection = self.step.names.collection(no)?.clone();
        let row: Option<(i64, i64)> = self
            .step
            .connection
            .query_row(
                "SELECT hlc, author_no FROM _entgldb_rows WHERE collection_no = ?1 AND key = ?2",
                (no, key.as_str()),
                |row| Ok((row.get(0)?, row.get(1)?)),
            )
            .optional()
            .doing("reading a row's stamp")?;
        let Some((hlc, author)) = row else { return Ok(()) };
        let stamp = self.step.names.stamp(hlc, author)?;
        let reason = Reason::Collided { blocker: None };
        self.step.set_aside(&(collection, key.clone()), Aside { key, stamp, content: Some(content), reason })
    }
}
