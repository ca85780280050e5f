//! Checking a whole store against itself: chains, signatures, rows, fingerprints, and the application's tables.
//!
//! Read-only, as of one moment, also beside a running engine. Everything is recomputed from the stored bytes. Memory does
//! not grow with the store.

mod bookkeeping;
mod compare;
mod forgotten;

use std::path::Path;

use entgldb_replica::clock::Hlc;
use entgldb_replica::entry::{Chain, SignedHead};
use entgldb_replica::id::{Key, LogId, NodeId};
use entgldb_replica::version::{Hash, Head, Seq};
use rusqlite::Row;
use serde::Serialize;

use crate::failed::{Cause, Outcome, SqliteFailed, While};
use crate::file::error::OpenError;
use crate::inspect::Inspector;
use crate::journal::names::{LogEnd, Names, entry_id, log_of, seq_of};
use crate::journal::note;
use crate::journal::oplog;
use crate::journal::schema;

/// Faults and notes that are listed; all of them are counted.
const LISTED_MAX: usize = 100;
/// How SQLite says that an index is ordered by a collation which only the application has.
const NO_COLLATION: &str = "no such collation sequence";
/// Steps between two reports of progress.
const PROGRESS_EVERY: u64 = 4096;

/// Why a store was not verified.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum VerifyError {
    /// It could not be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The database was never synced.
    #[error("the database has no engine tables: it was never synced")]
    NotAStore,
    /// It could not be read to the end.
    #[error(transparent)]
    Failed(#[from] SqliteFailed),
}

/// How far a verification has come.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
pub struct Progress {
    /// Entries, rows and table rows looked at.
    pub done: u64,
    /// About how many there are.
    pub total: u64,
}

/// Something that must not be.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize)]
pub struct Fault {
    /// The log it is in.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub log: Option<String>,
    /// The position in the log.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seq: Option<u64>,
    /// The collection it is in.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub collection: Option<String>,
    /// The document.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// What is wrong.
    pub what: String,
}

/// What a verification found.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize)]
pub struct Report {
    /// Logs whose chains were recomputed.
    pub logs: u64,
    /// Entries in them.
    pub entries: u64,
    /// Signatures checked.
    pub signatures: u64,
    /// Rows compared with their entries.
    pub rows: u64,
    /// Rows of the application's tables compared with their documents.
    pub table_rows: u64,
    /// Faults found.
    pub faults_total: u64,
    /// The first of them.
    pub faults: Vec<Fault>,
    /// Things to know that are no faults: dangling references, changes that wait, documents set aside.
    pub notes_total: u64,
    /// The first of them.
    pub notes: Vec<String>,
}

impl Report {
    /// Whether nothing is wrong.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.faults_total == 0
    }

    pub(crate) fn fault(&mut self, fault: Fault) {
        self.faults_total += 1;
        if self.faults.len() < LISTED_MAX {
            self.faults.push(fault);
        }
    }

    pub(crate) fn note(&mut self, note: String) {
        self.notes_total += 1;
        if self.notes.len() < LISTED_MAX {
            self.notes.push(note);
        }
    }
}

/// Checks a store. `on_progress` is called now and then.
///
/// # Errors
/// When the store can't be opened or read. Faults are no errors: they are in the report.
pub fn verify(path: &Path, on_progress: &mut dyn FnMut(Progress)) -> Result<Report, VerifyError> {
    let inspector = match Inspector::open(path) {
        Ok(Some(inspector)) => inspector,
        Ok(None) => return Err(VerifyError::NotAStore),
        // Tables that can't be made sense of are what is looked for here.
        Err(OpenError::Failed(failed)) if failed.cause() == Cause::EngineDamaged => {
            let mut report = Report::default();
            report.fault(Fault { what: failed.to_string(), ..Fault::default() });
            return Ok(report);
        }
        Err(error) => return Err(error.into()),
    };
    inspector.connection.execute_batch("BEGIN").doing("beginning to read")?;
    let names = Names::load(&inspector.connection)?;
    let stated = schema::stated(&inspector.connection)?;
    let is_joining =
        schema::forgets(&inspector.connection)? && note::is_joining(&inspector.connection, &names)?;
    let mut check = Check {
        inspector,
        names,
        stated,
        is_joining,
        report: Report::default(),
        progress: Progress { done: 0, total: 0 },
        on_progress,
    };
    check.progress.total = check.total()?;
    check.file()?;
    check.engine_tables()?;
    check.state()?;
    check.notes()?;
    check.clock()?;
    for (log, _) in std::mem::take(&mut check.names.unnumbered) {
        check.report.note(format!(
            "the head of log {log} is beyond any position: it is dropped when the node starts"
        ));
    }
    check.logs()?;
    check.no_entry_is_forgotten()?;
    check.collections()?;
    (check.on_progress)(check.progress);
    Ok(check.report)
}

/// A verification on its way.
pub(crate) struct Check<'a> {
    pub(crate) inspector: Inspector,
    pub(crate) names: Names,
    /// Collections in which documents have states.
    pub(crate) stated: Vec<i64>,
    /// Whether a snapshot is coming in: rows may be ahead of the logs.
    pub(crate) is_joining: bool,
    pub(crate) report: Report,
    progress: Progress,
    on_progress: &'a mut dyn FnMut(Progress),
}

impl Check<'_> {
    pub(crate) fn connection(&self) -> &rusqlite::Connection {
        &self.inspector.connection
    }

    pub(crate) fn step(&mut self) {
        self.progress.done += 1;
        if self.progress.done.is_multiple_of(PROGRESS_EVERY) {
            self.progress.total = self.progress.total.max(self.progress.done);
            (self.on_progress)(self.progress);
        }
    }

    fn total(&self) -> Outcome<u64> {
        let count: i64 = self
            .connection()
            .query_row(
                "SELECT (SELECT count(*) FROM _entgldb_oplog) + 2 * (SELECT count(*) FROM _entgldb_rows)",
                [],
                |row| row.get(0),
            )
            .doing("counting")?;
        Ok(count.cast_unsigned())
    }

    /// The file itself, by SQLite's own check.
    fn file(&mut self) -> Outcome<()> {
        let mut statement = match self.inspector.connection.prepare("PRAGMA main.quick_check") {
            Ok(statement) => statement,
            Err(error) if error.to_string().contains(NO_COLLATION) => {
                self.report.note(format!("SQLite can't check the whole file: {error}"));
                return Ok(());
            }
            Err(source) => return Err(source).doing("checking the file"),
        };
        let mut rows = statement.query([]).doing("checking the file")?;
        loop {
            let row = match rows.next() {
                Ok(Some(row)) => row,
                Ok(None) => break,
                Err(error) if error.to_string().contains(NO_COLLATION) => {
                    self.report.note(format!("SQLite can't check the whole file: {error}"));
                    break;
                }
                Err(source) => return Err(source).doing("checking the file"),
            };
            let what: String = row.get(0).doing("checking the file")?;
            if what != "ok" {
                self.report.fault(Fault {
                    what: format!("SQLite finds the file damaged: {what}"),
                    ..Fault::default()
                });
            }
        }
        Ok(())
    }

    /// Every log: dense from its floor on, chained, signed.
    fn logs(&mut self) -> Outcome<()> {
        let mut logs: Vec<(LogId, LogEnd)> =
            self.names.logs.iter().map(|(log, end)| (log.clone(), *end)).collect();
        logs.sort_by(|a, b| a.0.cmp(&b.0));
        for (log, end) in logs {
            self.report.logs += 1;
            self.chain(&log, &end)?;
            self.signatures(&log, &end)?;
        }
        Ok(())
    }

    fn chain(&mut self, log: &LogId, end: &LogEnd) -> Outcome<()> {
        let fault = |seq: Seq, key: Option<&Key>, what: String| Fault {
            log: Some(log.to_string()),
            seq: Some(seq.0),
            key: key.map(|key| key.as_str().to_owned()),
            what,
            ..Fault::default()
        };
        let Some(floor) = self.floor(log, end)? else {
            let what =
                "no signed head stands where the log begins: what was before it is forgotten".to_owned();
            self.report.fault(fault(end.floor, None, what));
            return Ok(());
        };
        let mut chain = Chain::resume(log.clone(), floor, end.floor_hlc);
        let mut broken = false;
        let mut latest = end.floor_hlc;
        let mut after = entry_id(end.no, end.floor)?;
        loop {
            let page = oplog::page(self.connection(), &self.names, after, entry_id(end.no + 1, Seq(0))?)?;
            let Some(last) = page.last() else { break };
            let before = std::mem::replace(&mut after, entry_id(end.no, last.entry.seq)?);
            if after <= before {
                // A damaged file can lead in circles.
                self.report.fault(fault(last.entry.seq, None, "the entries are out of order".to_owned()));
                return Ok(());
            }
            for stored in page {
                latest = stored.entry.hlc;
                self.report.entries += 1;
                self.step();
                let (seq, key) = (stored.entry.seq, stored.entry.key.clone());
                if broken {
                    continue;
                }
                match chain.link(stored.entry) {
                    Ok(linked) if linked.hash() == stored.hash => {}
                    Ok(_) => {
                        broken = true;
                        let what = "the entry's bytes do not give its hash: it was altered".to_owned();
                        self.report.fault(fault(seq, Some(&key), what));
                    }
                    Err(error) => {
                        broken = true;
                        self.report.fault(fault(seq, Some(&key), error.to_string()));
                    }
                }
            }
        }
        if !broken && (chain.head() != end.head) {
            let what =
                format!("the log ends at {:?}, but its head says {:?}", chain.head().seq, end.head.seq);
            self.report.fault(fault(end.head.seq, None, what));
        } else if !broken && latest != end.hlc {
            let what = "the log's last entry has another time than its head".to_owned();
            self.report.fault(fault(end.head.seq, None, what));
        }
        Ok(())
    }

    /// Where a log begins: the head that its author signed over what is forgotten.
    fn floor(&self, log: &LogId, end: &LogEnd) -> Outcome<Option<Head>> {
        if end.floor == Seq(0) {
            return Ok((end.floor_hlc == Hlc::default()).then(Head::default));
        }
        let signed = oplog::signed_until(self.connection(), &self.names, log, end.floor)?;
        let stands = |signed: &SignedHead| signed.head.seq == end.floor && signed.hlc == end.floor_hlc;
        Ok(signed.filter(stands).map(|signed| signed.head))
    }

    fn signatures(&mut self, log: &LogId, end: &LogEnd) -> Outcome<()> {
        let fault = |seq: Seq, what: String| Fault {
            log: Some(log.to_string()),
            seq: Some(seq.0),
            what,
            ..Fault::default()
        };
        let Some(key) = self.names.public_keys.iter().find(|key| NodeId::of(key) == log.author).copied()
        else {
            self.report.fault(fault(end.head.seq, "the author's public key is missing".into()));
            return Ok(());
        };
        let mut statement = self
            .inspector
            .connection
            .prepare(
                "SELECT s.id, s.hlc, s.hash, s.signature, o.hash, o.hlc FROM _entgldb_signed s LEFT JOIN _entgldb_oplog o ON o.id = s.id
                 WHERE s.id >= ?1 AND s.id < ?2 ORDER BY s.id",
            )
            .doing("reading signatures")?;
        let range = (entry_id(end.no, end.floor)?, entry_id(end.no + 1, Seq(0))?);
        let mut found = statement.query(range).doing("reading signatures")?;
        let mut last = Seq(0);
        while let Some(row) = found.next().doing("reading signatures")? {
            let (signed, entry) = signed_head(row).doing("reading signatures")?;
            last = signed.head.seq;
            self.report.signatures += 1;
            let is_floor = last == end.floor && entry.is_none();
            if !is_floor && entry != Some((signed.head.hash, signed.hlc)) {
                self.report.fault(fault(last, "the signed head is not the entry that the log has".into()));
            } else if let Err(error) = signed.verify(log, &key) {
                self.report.fault(fault(last, error.to_string()));
            }
        }
        if last != end.head.seq {
            self.report
                .fault(fault(end.head.seq, "the log's last entry is not covered by a signature".into()));
        }
        Ok(())
    }

    /// No entry is younger than its document's row, and none belongs to no log.
    fn no_entry_is_forgotten(&mut self) -> Outcome<()> {
        let mut statement = self
            .inspector
            .connection
            .prepare(
                "SELECT o.id, o.key, l.no FROM _entgldb_oplog o LEFT JOIN _entgldb_logs l ON l.no = o.id >> 40
                 LEFT JOIN _entgldb_authors a ON a.no = l.author_no
                 LEFT JOIN _entgldb_rows r ON r.collection_no = l.collection_no AND r.key = o.key
                 LEFT JOIN _entgldb_authors ra ON ra.no = r.author_no
                 WHERE r.key IS NULL OR o.hlc > r.hlc OR (o.hlc = r.hlc AND a.node_id > ra.node_id)",
            )
            .doing("comparing entries with rows")?;
        let mut found = statement.query([]).doing("comparing entries with rows")?;
        while let Some(row) = found.next().doing("comparing entries with rows")? {
            let read =
                || Ok((row.get::<_, i64>(0)?, row.get::<_, String>(1)?, row.get::<_, Option<i64>>(2)?));
            let (id, key, log) = read().doing("comparing entries with rows")?;
            let what = if log.is_some() {
                "the entry is younger than its document's row"
            } else {
                "the entry belongs to no log"
            };
            let log =
                self.names.logs.iter().find(|(_, end)| end.no == log_of(id)).map(|(log, _)| log.to_string());
            self.report.fault(Fault {
                log,
                seq: Some(seq_of(id).0),
                key: Some(key),
                what: what.into(),
                ..Fault::default()
            });
        }
        Ok(())
    }
}

/// A signed head as stored, with hash and time of the entry at its position.
fn signed_head(row: &Row<'_>) -> rusqlite::Result<(SignedHead, Option<(Hash, Hlc)>)> {
    let head = Head { seq: seq_of(row.get(0)?), hash: Hash(row.get(2)?) };
    let signed = SignedHead { head, hlc: Hlc(row.get::<_, i64>(1)?.cast_unsigned()), signature: row.get(3)? };
    let hash: Option<[u8; 32]> = row.get(4)?;
    let hlc: Option<i64> = row.get(5)?;
    Ok((signed, hash.zip(hlc).map(|(hash, hlc)| (Hash(hash), Hlc(hlc.cast_unsigned())))))
}
