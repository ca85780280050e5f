//! Comparing the application's store with what the engine knows of it: both are read in the order of the keys, and whatever
//! differs is noted as touched.

use bytes::Bytes;
use entgldb_replica::id::{Collection, Key, sha256};
use rusqlite::Connection;

use super::store::OwnStore;
use super::{Recorded, canonical, intake, shown};
use crate::failed::{Outcome, SqliteFailed, While};
use crate::file::connection::in_transaction;
use crate::journal::aside::{self, Reason};

/// Rows looked at in one piece.
const SLICE: usize = 4096;
/// If more than one of so many documents is missing, it is asked before they are deleted everywhere.
pub(super) const MISSING_ONE_IN_MAX: u64 = 10;

/// What one piece of a comparison has found.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Compared {
    /// Documents that are other than the engine knew.
    pub changed: u64,
    /// Documents that are missing.
    pub missing: u64,
}

/// Documents that are missing in the application's store.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Missing {
    /// How many.
    pub count: u64,
    /// Of so many that the engine knows.
    pub of: u64,
}

impl Missing {
    /// Whether they are so many that it must be asked before they are deleted everywhere.
    #[must_use]
    pub fn is_too_many(&self) -> bool {
        self.count * MISSING_ONE_IN_MAX > self.of
    }
}

/// A collection is to be compared. To be called in a write transaction.
pub(super) fn begin(connection: &Connection, no: i64) -> Outcome<()> {
    connection
        .execute("UPDATE _entgldb_collections SET scan = 1, scan_after = NULL WHERE no = ?1", [no])
        .doing("beginning a comparison")?;
    connection
        .execute("DELETE FROM _entgldb_missing WHERE collection_no = ?1", [no])
        .doing("beginning a comparison")?;
    Ok(())
}

/// What is to be noted of a piece.
#[derive(Default)]
struct Found {
    changed: Vec<Key>,
    missing: Vec<Key>,
}

impl OwnStore {
    /// A collection is to be compared from its beginning; noted durably.
    ///
    /// # Errors
    /// When it is not certain that it is durable.
    pub fn begin_compare(&mut self, collection: &Collection) -> Result<(), SqliteFailed> {
        let no = self.journal.no(collection)?;
        in_transaction(&self.journal.connection, |connection| begin(connection, no))
    }

    /// The collections that are to be compared.
    ///
    /// # Errors
    /// When the file can't be read.
    pub fn to_compare(&self) -> Result<Vec<Collection>, SqliteFailed> {
        let mut due = Vec::new();
        for collection in self.collections() {
            let scan: i64 = self
                .journal
                .connection
                .prepare_cached("SELECT scan FROM _entgldb_collections WHERE name = ?1")
                .and_then(|mut statement| statement.query_row([collection.as_str()], |row| row.get(0)))
                .doing("looking for collections to compare")?;
            if scan != 0 {
                due.push(collection.clone());
            }
        }
        Ok(due)
    }

    /// Compares the documents after a key with what the engine knows, up to another key or to the end. They are in the
    /// order of their keys' bytes. What has changed is noted in the outbox, what is missing in a list.
    ///
    /// # Errors
    /// When the file can't be read or written.
    pub fn compare(
        &mut self,
        collection: &Collection,
        after: Option<&Key>,
        documents: &[(Key, Bytes)],
        until: Option<&Key>,
    ) -> Result<Compared, SqliteFailed> {
        let no = self.journal.no(collection)?;
        let mut documents = documents.iter().peekable();
        let mut after: Option<Key> = after.cloned();
        let mut sum = Compared::default();
        loop {
            let rows = self.known(no, after.as_ref(), until)?;
            let is_last = rows.len() < SLICE;
            let mut found = Found::default();
            for (key, hash) in &rows {
                while let Some((new, _)) = documents.next_if(|(found, _)| found < key) {
                    found.changed.push(new.clone());
                }
                let content = documents.next_if(|(found, _)| found == key).map(|(_, content)| content);
                self.look(no, key, *hash, content, &mut found)?;
            }
            if is_last {
                found.changed.extend(documents.by_ref().map(|(key, _)| key.clone()));
            }
            sum.changed += found.changed.len() as u64;
            sum.missing += found.missing.len() as u64;
            self.note_compared(no, &found)?;
            if is_last {
                return Ok(sum);
            }
            after = rows.last().map(|(key, _)| key.clone());
        }
    }

    /// Rows after a key, up to another one or to the end.
    fn known(
        &self,
        no: i64,
        after: Option<&Key>,
        until: Option<&Key>,
    ) -> Outcome<Vec<(Key, Option<[u8; 32]>)>> {
        // Two statements: with one and an OR, SQLite would look at all rows behind the last key each time.
        let until = match until {
            Some(until) => (" AND key <= ?4", until.as_str()),
            None => ("", ""),
        };
        let sql = format!(
            "SELECT key, hash FROM _entgldb_rows WHERE collection_no = ?1 AND key > ?2{} ORDER BY key LIMIT ?3",
            until.0
        );
        let mut statement = self.journal.connection.prepare_cached(&sql).doing("reading rows")?;
        let after = after.map_or("", Key::as_str);
        let limit = SLICE.cast_signed();
        let rows = match until {
            ("", _) => statement.query((no, after, limit)),
            (_, until) => statement.query((no, after, limit, until)),
        };
        let mut rows = rows.doing("reading rows")?;
        let mut found = Vec::new();
        while let Some(row) = rows.next().doing("reading rows")? {
            let read = || Ok((Key::new(row.get_ref(0)?.as_str()?), row.get::<_, Option<[u8; 32]>>(1)?));
            let (key, hash) = read().doing("reading rows")?;
            found.push((key.map_err(|error| SqliteFailed::damaged(error.to_string()))?, hash));
        }
        Ok(found)
    }

    fn look(
        &self,
        no: i64,
        key: &Key,
        hash: Option<[u8; 32]>,
        content: Option<&Bytes>,
        found: &mut Found,
    ) -> Outcome<()> {
        if content.map(|content| sha256(content)) == hash {
            return Ok(());
        }
        let shows = content.map(|content| sha256(&canonical(content)));
        let connection = &self.journal.connection;
        if let Some((shown, _)) = shown::get(connection, no, key)?
            && shown == shows
        {
            return Ok(());
        }
        if aside::any(connection)?
            && let Some(aside) = aside::get(connection, &self.journal.names, no, key)?
            && let Reason::Refused { table_hash, .. } = aside.reason
            && (content.is_none() || table_hash == shows)
        {
            return Ok(());
        }
        match content {
            Some(_) => found.changed.push(key.clone()),
            None => found.missing.push(key.clone()),
        }
        Ok(())
    }

    fn note_compared(&self, no: i64, found: &Found) -> Outcome<()> {
        if found.changed.is_empty() && found.missing.is_empty() {
            return Ok(());
        }
        in_transaction(&self.journal.connection, |connection| {
            for key in &found.changed {
                // Each by itself: nobody knows what was written together.
                intake::note(connection, (no, key.as_str()), &Recorded::Look, intake::now_ms(), &mut None)?;
            }
            for key in &found.missing {
                connection
                    .prepare_cached("INSERT OR IGNORE INTO _entgldb_missing VALUES(?1, ?2)")
                    .and_then(|mut insert| insert.execute((no, key.as_str())))
                    .doing("noting a missing document")?;
            }
            Ok(())
        })
    }

    /// Documents of a collection that a comparison did not find and that nothing was decided about.
    ///
    /// # Errors
    /// When the file can't be read.
    pub fn missing(&self, collection: &Collection) -> Result<Missing, SqliteFailed> {
        let no = self.journal.no(collection)?;
        let count = |sql: &str| {
            self.journal
                .connection
                .query_row(sql, [no], |row| row.get::<_, i64>(0))
                .map(i64::cast_unsigned)
                .doing("counting missing documents")
        };
        let missing = count("SELECT count(*) FROM _entgldb_missing WHERE collection_no = ?1")?;
        if missing == 0 {
            return Ok(Missing::default());
        }
        let of = count("SELECT count(*) FROM _entgldb_rows WHERE collection_no = ?1 AND hash IS NOT NULL")?;
        Ok(Missing { count: missing, of })
    }

    /// Ends a comparison. With `delete` the missing documents are noted as touched, so that those that are still missing are
    /// deleted everywhere; else they stay in the list.
    ///
    /// # Errors
    /// When it is not certain that it is durable.
    pub fn end_compare(&mut self, collection: &Collection, delete: bool) -> Result<(), SqliteFailed> {
        let no = self.journal.no(collection)?;
        in_transaction(&self.journal.connection, |connection| {
            connection
                .execute("UPDATE _entgldb_collections SET scan = 0 WHERE no = ?1", [no])
                .doing("ending a comparison")?;
            if !delete {
                return Ok(());
            }
            let mut statement = connection
                .prepare_cached("SELECT key FROM _entgldb_missing WHERE collection_no = ?1 ORDER BY key")
                .doing("reading missing documents")?;
            let mut rows = statement.query([no]).doing("reading missing documents")?;
            while let Some(row) = rows.next().doing("reading missing documents")? {
                let key: String = row.get(0).doing("reading missing documents")?;
                intake::note(connection, (no, &key), &Recorded::Look, intake::now_ms(), &mut None)?;
            }
            connection
                .execute("DELETE FROM _entgldb_missing WHERE collection_no = ?1", [no])
                .map(drop)
                .doing("ending a comparison")
        })
    }
}
