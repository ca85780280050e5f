//! Verifying rows against entries, and the application's tables against rows.

use std::collections::HashSet;
use std::ops::ControlFlow;

use bytes::Bytes;
use entgldb_replica::clock::Stamp;
use entgldb_replica::entry::Op;
use entgldb_replica::fingerprint::{Fingerprint, Tally};
use entgldb_replica::id::{Collection, Key, LogId, sha256};
use entgldb_replica::member::members;
use entgldb_replica::merge::Merged;
use entgldb_replica::version::Hash;

use crate::capture::noted;
use crate::failed::{Outcome, While};
use crate::fields::reconcile;
use crate::inspect::dangling;
use crate::journal::aside;
use crate::journal::names::{LogEnd, Names, log_of};
use crate::journal::oplog;
use crate::journal::schema;
use crate::table::definition::Table;
use crate::table::document::{self, Extra};
use crate::table::key;
use crate::table::rows;
use crate::table::value::Sql;
use crate::verify::{Check, Fault};

/// Local changes that wait to be captured; with more, the tables are not compared.
const OUTBOX_COMPARED_MAX: i64 = 100_000;

/// What the application's table is compared with, besides the rows.
pub(crate) struct Compared {
    pub(crate) table: Table,
    /// Keys with changes that wait to be captured.
    pub(crate) noted: HashSet<Key>,
    /// Whether rows without documents may still be found.
    pub(crate) is_scanning: bool,
}

impl Check<'_> {
    /// Every collection's rows, fingerprint and table.
    pub(crate) fn collections(&mut self) -> Outcome<()> {
        let mut names: Vec<Collection> = self.names.tallies.keys().cloned().collect();
        names.sort();
        for collection in names {
            let Some(no) = self.names.known_collection(&collection) else { continue };
            let compared = self.compared(no, &collection)?;
            self.rows(no, &collection, compared.as_ref())?;
            if let Some(compared) = &compared {
                self.triggers(&compared.table)?;
                self.strangers(compared)?;
                self.dangling(&compared.table)?;
            }
        }
        Ok(())
    }

    /// The table behind a collection, if it is watched and can be compared.
    fn compared(&mut self, no: i64, collection: &Collection) -> Outcome<Option<Compared>> {
        if *collection == *members() {
            return Ok(None);
        }
        let watched: bool = self
            .connection()
            .query_row(
                "SELECT EXISTS(SELECT 1 FROM main.sqlite_schema WHERE type = 'trigger' AND name = '_entgldb_insert_' || ?1)",
                [no],
                |row| row.get(0),
            )
            .doing("looking for triggers")?;
        let encoding = key::encoding(self.connection())?;
        let table = Table::read(self.connection(), no, collection, encoding)?;
        let (true, Ok(table)) = (watched, table) else {
            self.report.note(format!("the table {collection:?} is not watched now: it was not compared"));
            return Ok(None);
        };
        if !reconcile::is_known(self.connection(), no, &table.name)? {
            self.report.note(format!(
                "columns of {collection:?} are gone and others are new since the engine has looked: it was not compared"
            ));
            return Ok(None);
        }
        let (waiting, scan): (i64, i64) = self
            .connection()
            .query_row(
                "SELECT (SELECT count(*) FROM _entgldb_outbox WHERE tbl = ?1), (SELECT scan FROM _entgldb_collections WHERE no = ?1)",
                [no],
                |row| Ok((row.get(0)?, row.get(1)?)),
            )
            .doing("reading the outbox")?;
        if waiting > 0 {
            self.report.note(format!("{waiting} changes of {collection:?} wait to be captured"));
        }
        if waiting > OUTBOX_COMPARED_MAX {
            return Ok(None);
        }
        let noted = noted::keys(self.connection(), &table)?;
        Ok(Some(Compared { table, noted, is_scanning: scan != 0 }))
    }

    /// Every row is its entry, the fingerprint is that of the rows, and the table has what the rows say.
    fn rows(&mut self, no: i64, collection: &Collection, compared: Option<&Compared>) -> Outcome<()> {
        let mut tally = Tally::default();
        let mut after: Option<String> = None;
        loop {
            let page = row_page(self.connection(), &self.names, no, after.as_deref())?;
            let Some(last) = page.last() else { break };
            if after.as_ref().is_some_and(|after| *after >= last.key) {
                // A damaged file can lead in circles.
                self.report.fault(Fault {
                    collection: Some(collection.as_str().to_owned()),
                    key: Some(last.key.clone()),
                    what: "the rows are out of order".into(),
                    ..Fault::default()
                });
                return Ok(());
            }
            after = Some(last.key.clone());
            for row in page {
                self.report.rows += 1;
                self.step();
                let what = self.row(no, collection, &row, &mut tally, compared)?;
                if let Some(what) = what {
                    self.report.fault(Fault {
                        collection: Some(collection.as_str().to_owned()),
                        key: Some(row.key.clone()),
                        what,
                        ..Fault::default()
                    });
                }
            }
        }
        if self.names.tallies.get(collection) != Some(&tally) {
            let what = "the collection's fingerprint or number of rows is not that of its rows".into();
            self.report.fault(Fault {
                collection: Some(collection.as_str().to_owned()),
                what,
                ..Fault::default()
            });
        }
        Ok(())
    }

    fn row(
        &mut self,
        no: i64,
        collection: &Collection,
        row: &RowRecord,
        tally: &mut Tally,
        compared: Option<&Compared>,
    ) -> Outcome<Option<String>> {
        let Ok(key) = Key::new(&row.key) else { return Ok(Some("the row's key is not valid".into())) };
        let stamp = self.names.stamp(row.hlc, row.author_no)?;
        tally.fingerprint.add(Fingerprint::of_row(&key, &stamp, row.hash.map(Hash).as_ref()));
        tally.rows += 1;
        if self.is_beyond_entries(collection, row, stamp) {
            return self.without_entry(no, collection, &key, row, stamp, compared);
        }
        // A row that came with a snapshot does not know its entry, which may have come since.
        let doc = (collection.clone(), key.clone());
        let entry = match row.entry {
            None => oplog::entry_of(self.connection(), &self.names, &doc, &stamp)?,
            entry => entry,
        };
        // It may also be of an entry that no log here can have: gone with the only machine that had it, or in another branch.
        let Some(entry) = entry else {
            return self.without_entry(no, collection, &key, row, stamp, compared);
        };
        let of_log = |(log, end): (&LogId, &LogEnd)| end.no == log_of(entry) && log.author == stamp.node;
        let belongs = self.names.logs.iter().any(of_log);
        let stored = oplog::page(self.connection(), &self.names, entry - 1, entry + 1)?.pop();
        let Some(stored) =
            stored.filter(|stored| belongs && stored.entry.key == key && stored.entry.hlc == stamp.hlc)
        else {
            return Ok(Some("the row's entry is another document's, or missing".into()));
        };
        if self.stated.contains(&no)
            && let Some(state) = schema::state(self.connection(), no, &row.key)?
        {
            return self.merged_row(no, &key, row, stamp, state, compared);
        }
        let hash = (stored.entry.op == Op::Put).then(|| sha256(&stored.entry.payload));
        if hash != row.hash {
            return Ok(Some("the row's content hash is not that of its entry".into()));
        }
        if *collection == *members() {
            return self.member(&key, row);
        }
        let Some(compared) = compared else { return Ok(None) };
        self.table_row(no, &key, row, stored.entry.content().map(|content| &**content), compared)
    }

    /// A document that merges is what its state says, however the table writes it. What a resolver made of several versions
    /// is kept with them.
    pub(crate) fn merged_row(
        &mut self,
        no: i64,
        key: &Key,
        row: &RowRecord,
        stamp: Stamp,
        state: Vec<u8>,
        compared: Option<&Compared>,
    ) -> Outcome<Option<String>> {
        let Ok(state) = Merged::decode(state.into(), stamp) else {
            return Ok(Some("the document's state can't be read".into()));
        };
        let content = state.content();
        if state.newest().is_some_and(|newest| newest > stamp) || content.is_some() != row.hash.is_some() {
            return Ok(Some("the row is not what the document's state says".into()));
        }
        if state.has_heads() && content.as_deref().map(sha256) != row.hash {
            return Ok(Some("the row's content hash is not that of the versions that stand".into()));
        }
        let Some(compared) = compared else { return Ok(None) };
        let now = match compared.table.form.decode(key.as_str()) {
            Ok(columns) => rows::read(self.connection(), &compared.table, &columns).doing("reading a row")?,
            Err(_) => None,
        };
        let extra = row.extra.as_deref().and_then(Extra::from_text);
        let now = now.map(|now| Bytes::from(document::content(&compared.table, &now, extra.as_ref())));
        let json = compared.table.columns.iter().filter(|column| column.is_json);
        let json = json.map(|column| column.field.clone()).collect();
        if now.is_some() && !state.has_heads() && state.edit(now.as_ref(), &json, stamp).is_none() {
            self.report.table_rows += 1;
            return Ok(None);
        }
        self.table_row(no, key, row, content.as_deref(), compared)
    }

    pub(crate) fn table_row(
        &mut self,
        no: i64,
        key: &Key,
        row: &RowRecord,
        content: Option<&[u8]>,
        compared: &Compared,
    ) -> Outcome<Option<String>> {
        if compared.noted.contains(key) {
            return Ok(None);
        }
        if let Some(aside) = aside::get(self.connection(), &self.names, no, key)? {
            self.report.note(format!(
                "{key:?} of {:?} is set aside: {}",
                compared.table.collection,
                aside.reason.message()
            ));
            let same = aside.content.as_deref() == content
                && aside.stamp == self.names.stamp(row.hlc, row.author_no)?;
            return Ok((!same).then(|| "what is set aside is not what the document says".into()));
        }
        let Ok(columns) = compared.table.form.decode(key.as_str()) else {
            return Ok(
                content.map(|_| "no row of the table can have this key, and it is not set aside".into())
            );
        };
        let Some(Found { now, extra }) = self.find_altered(key, row, compared, &columns)? else {
            return Ok(None);
        };
        Ok(match (now, content) {
            (None, None) => None,
            (Some(_), None) => Some("the document is deleted, but the table has a row for it".into()),
            (None, Some(_)) if compared.is_scanning => None,
            (None, Some(_)) => Some("the table has no row for the document".into()),
            (Some(now), Some(content)) => {
                let same = document::row_matches(&compared.table, key, content, &now, extra.as_ref());
                let fits = match (&row.extra, &extra) {
                    (None, _) => true,
                    (Some(_), None) => false,
                    (Some(_), Some(extra)) => extra.fits(&compared.table, content, &now),
                };
                match (same, fits) {
                    (false, _) => Some("the table's row is not what the document says".into()),
                    (true, false) => Some("what is kept beside the row is not what the document says".into()),
                    (true, true) => None,
                }
            }
        })
    }

    /// What the table has for a key, and what is kept beside it. `None` if it is what the engine left there: then there is
    /// nothing to compare.
    pub(crate) fn find_altered(
        &mut self,
        key: &Key,
        row: &RowRecord,
        compared: &Compared,
        columns: &[Sql<'_>],
    ) -> Outcome<Option<Found>> {
        let now = rows::read(self.connection(), &compared.table, columns).doing("reading a row")?;
        self.report.table_rows += 1;
        let extra = row.extra.as_deref().and_then(Extra::from_text);
        let is_as_left = match &now {
            Some(now) => {
                let content = document::content(&compared.table, now, extra.as_ref());
                self.is_as_left(key, row, compared, &content)?
            }
            None => false,
        };
        Ok((!is_as_left).then_some(Found { now, extra }))
    }

    /// Whether a row shows what the engine left there, though that is not the document: under another schema, or because what
    /// the application wrote can't travel.
    fn is_as_left(&self, key: &Key, row: &RowRecord, compared: &Compared, content: &[u8]) -> Outcome<bool> {
        let shows = sha256(content);
        if row.shown == Some(shows) {
            return Ok(true);
        }
        if !self.names.proves {
            return Ok(false);
        }
        self.connection()
            .prepare_cached(
                "SELECT EXISTS(SELECT 1 FROM _entgldb_problems WHERE collection_no = ?1 AND key = ?2 AND shown = ?3)",
            )
            .and_then(|mut statement| {
                statement.query_row((compared.table.no, key.as_str(), shows.as_slice()), |row| row.get(0))
            })
            .doing("reading problems")
    }

    /// Rows of the table that no document stands for.
    fn strangers(&mut self, compared: &Compared) -> Outcome<()> {
        let table = &compared.table;
        if compared.is_scanning {
            self.report.note(format!("{:?} is still being looked through", table.collection));
            return Ok(());
        }
        let sql = format!("SELECT {} FROM main.{}", table.key_columns().join(", "), table.quoted);
        let mut statement = self.inspector.connection.prepare(&sql).doing("reading a table")?;
        let mut known = self
            .inspector
            .connection
            .prepare("SELECT EXISTS(SELECT 1 FROM _entgldb_rows WHERE collection_no = ?1 AND key = ?2)")
            .doing("reading a table")?;
        let mut found = statement.query([]).doing("reading a table")?;
        while let Some(row) = found.next().doing("reading a table")? {
            let columns: Vec<Sql<'_>> = (0..table.key.len())
                .map(|column| Ok(Sql::from(row.get_ref(column)?)))
                .collect::<rusqlite::Result<_>>()
                .doing("reading a table")?;
            let key = match table.form.encode(&columns.iter().map(Sql::as_ref).collect::<Vec<_>>()) {
                Ok(key) => key,
                Err(why) => {
                    self.report.note(format!("a row of {:?} cannot travel: {why}", table.collection));
                    continue;
                }
            };
            if compared.noted.contains(&key)
                || known.query_row((table.no, key.as_str()), |row| row.get(0)).doing("reading a table")?
            {
                continue;
            }
            if self.is_problem(table.no, &key)? {
                continue;
            }
            self.report.fault(Fault {
                collection: Some(table.collection.as_str().to_owned()),
                key: Some(key.as_str().to_owned()),
                what: "the table's row was never captured".into(),
                ..Fault::default()
            });
        }
        Ok(())
    }

    /// Whether a row is known not to travel.
    fn is_problem(&self, no: i64, key: &Key) -> Outcome<bool> {
        self.connection()
            .query_row(
                "SELECT EXISTS(SELECT 1 FROM _entgldb_problems WHERE collection_no = ?1 AND key = ?2)",
                (no, key.as_str()),
                |row| row.get(0),
            )
            .doing("reading problems")
    }

    fn dangling(&mut self, table: &Table) -> Outcome<()> {
        let Self { inspector, report, .. } = self;
        dangling::each(&inspector.connection, table, |key, parent| {
            let key = key.map_or_else(|| "a row".to_owned(), |key| format!("{key:?}"));
            let collection = &table.collection;
            report.note(format!("{key} of {collection:?} refers to a row of {parent:?} that is not there"));
            Ok(ControlFlow::Continue(()))
        })
        .map(drop)
    }
}

/// A row of the table of rows.
pub(crate) struct RowRecord {
    pub(crate) key: String,
    hlc: i64,
    author_no: i64,
    pub(crate) hash: Option<[u8; 32]>,
    pub(crate) entry: Option<i64>,
    pub(crate) extra: Option<String>,
    pub(crate) shown: Option<[u8; 32]>,
}

/// What the application's table has for a key.
pub(crate) struct Found {
    pub(crate) now: Option<Vec<Sql<'static>>>,
    /// What is kept beside the row, if it can be read.
    pub(crate) extra: Option<Extra>,
}

fn row_page(
    connection: &rusqlite::Connection,
    names: &Names,
    no: i64,
    after: Option<&str>,
) -> Outcome<Vec<RowRecord>> {
    let mut statement = connection
        .prepare_cached(&format!(
            "SELECT key, hlc, author_no, hash, entry, extra, {} FROM _entgldb_rows WHERE collection_no = ?1 AND key > ?2
             ORDER BY key LIMIT 1000",
            if names.proves { "shown" } else { "NULL" }
        ))
        .doing("reading rows")?;
    let rows = statement.query_map((no, after.unwrap_or_default()), |row| {
        Ok(RowRecord {
            key: row.get(0)?,
            hlc: row.get(1)?,
            author_no: row.get(2)?,
            hash: row.get(3)?,
            entry: row.get(4)?,
            extra: row.get(5)?,
            shown: row.get(6)?,
        })
    });
    rows.and_then(Iterator::collect).doing("reading rows")
}
