//! From the outbox to changes: which notes make up the next unit, and what the rows they name hold now.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use bytes::Bytes;
use entgldb_replica::clock::WallMillis;
use entgldb_replica::id::{Key, sha256};
use entgldb_replica::limits::PAGE_ENTRIES_TARGET;
use entgldb_replica::store::{Change, Drain, OutboxMark, Problem, ProblemKind, UnitLimits};
use rusqlite::types::ValueRef;
use rusqlite::{Connection, ErrorCode};

use crate::capture::watched::Watched;
use crate::failed::{Outcome, While, code};
use crate::fields::gone;
use crate::journal::aside::{self, Reason};
use crate::journal::names::Names;
use crate::journal::problems::Refusal;
use crate::quote::joined;
use crate::reading::proof::shown_too_large;
use crate::reading::standing::extra_of;
use crate::table::definition::Table;
use crate::table::key::read_note;
use crate::table::rows;
use crate::table::value::{Sql, write_json};

/// Longer notes are cut when read: no key that may travel is as long, and memory must stay bounded.
const NOTE_CHARACTERS_MAX: usize = 8 << 10;

/// What an entry has beside its key and payload when it travels, at most: a unit must fit a frame.
const ENTRY_BYTES: usize = 64;

/// A note of the outbox: this row was touched then.
#[derive(Debug)]
struct Note {
    id: i64,
    table: i64,
    key: Sql<'static>,
    at: i64,
    /// Whether it was found, and not noted by a trigger.
    found: bool,
}

/// What is the same for all rows that are read in one look.
pub(crate) struct Reading {
    anything_aside: bool,
    with_extras: HashSet<i64>,
}

/// One look into the outbox. To be called in a read transaction.
pub(crate) struct Look<'a> {
    pub(crate) connection: &'a Connection,
    pub(crate) names: &'a Names,
    pub(crate) watched: &'a Watched,
    pub(crate) limits: &'a UnitLimits,
}

/// What one look has found.
#[derive(Default)]
pub(crate) struct Drained {
    pub(crate) drain: Drain,
    /// The same as in the drain, with what the table shows.
    pub(crate) refused: Vec<Refusal>,
}

/// What became of one row.
pub(crate) enum Found {
    /// Its document as it is now; `None` if it is gone.
    Document(Key, Option<Bytes>),
    /// It is as it was, or nobody's.
    Nothing,
    /// It could not travel, and is gone.
    Gone(Problem),
    /// It can't travel. The hash is of what the table shows.
    Refused(Problem, Option<[u8; 32]>),
}

impl Look<'_> {
    /// The next unit.
    pub(crate) fn drain(&self) -> Outcome<Drained> {
        let notes = self.notes()?;
        let Some(window) = self.window(&notes) else { return Ok(Drained::default()) };
        let more = window < notes.len();
        let later = if more && self.is_long_ago(&notes[0])? { self.last_notes()? } else { false };
        let reading = self.reading()?;
        let mut latest: HashMap<(i64, Vec<u8>), i64> = HashMap::new();
        for note in &notes[..window] {
            let at = latest.entry((note.table, identity(&note.key))).or_insert(note.at);
            *at = note.at.max(*at);
        }
        let mut drain = Drain { mark: Some(mark(&notes[window - 1])), more, ..Drain::default() };
        let mut shown: Vec<Option<[u8; 32]>> = Vec::new();
        let mut gone: Vec<Problem> = Vec::new();
        let mut bytes = 0;
        for note in &notes[..window] {
            let Some(at) = latest.remove(&(note.table, identity(&note.key))) else { continue };
            if later && self.is_noted_after(note, notes[window - 1].id)? {
                continue;
            }
            let Some(table) = self.watched.numbered(note.table) else {
                self.report_homeless(note, &mut drain.refused)?;
                shown.resize(drain.refused.len(), None);
                continue;
            };
            match self.look(table, &note.key, &reading)? {
                Found::Nothing => {}
                Found::Gone(problem) => gone.push(problem),
                Found::Refused(problem, shows) => {
                    drain.refused.push(problem);
                    shown.push(shows);
                }
                Found::Document(key, content) => {
                    bytes += self.bytes_of(&key, content.as_ref());
                    if bytes > self.limits.bytes && !drain.changes.is_empty() {
                        drain.mark = Some(OutboxMark((note.id - 1).cast_unsigned()));
                        drain.more = true;
                        break;
                    }
                    let written = WallMillis(at.max(0).cast_unsigned());
                    drain.changes.push(Change { doc: (table.collection.clone(), key), content, written });
                }
            }
        }
        let mark = drain.mark.unwrap_or(OutboxMark(0));
        let refusal = |(problem, shown): (&Problem, _)| Refusal {
            mark,
            problem: problem.clone(),
            shown,
            is_gone: false,
        };
        // Taken off the list first: another row may go by the same shortened key.
        let gone = gone.into_iter().map(|problem| Refusal { mark, problem, shown: None, is_gone: true });
        let refused = gone.chain(drain.refused.iter().zip(shown).map(refusal)).collect();
        Ok(Drained { drain, refused })
    }

    /// Bytes that a change takes in a unit.
    pub(crate) fn bytes_of(&self, key: &Key, content: Option<&Bytes>) -> usize {
        content.map_or(0, Bytes::len) + key.as_str().len() + ENTRY_BYTES
    }

    /// What is the same for all rows that are read in one look.
    pub(crate) fn reading(&self) -> Outcome<Reading> {
        Ok(Reading { anything_aside: aside::any(self.connection)?, with_extras: self.with_extras()? })
    }

    /// A table that is gone, or watched no more: one report is enough.
    fn report_homeless(&self, note: &Note, refused: &mut Vec<Problem>) -> Outcome<()> {
        let collection = self.names.collection(note.table)?.clone();
        if refused.iter().all(|problem| problem.collection != collection) {
            refused.push(Problem {
                collection,
                key: String::new(),
                kind: ProblemKind::NotCaptured,
                message: "the table is gone, so its last changes are not captured".into(),
            });
        }
        Ok(())
    }

    /// The oldest notes: one more than a unit may have.
    fn notes(&self) -> Outcome<Vec<Note>> {
        let sql = format!(
            "SELECT id, tbl, CASE WHEN length(key) > {NOTE_CHARACTERS_MAX} THEN substr(key, 1, {NOTE_CHARACTERS_MAX}) ELSE key END, at, found
             FROM _entgldb_outbox ORDER BY id LIMIT ?1"
        );
        let mut statement = self.connection.prepare_cached(&sql).doing("reading the outbox")?;
        let notes = statement.query_map([self.limits.changes.cast_signed() + 1], |row| {
            Ok(Note {
                id: row.get(0)?,
                table: row.get::<_, Option<i64>>(1)?.unwrap_or_default(),
                key: Sql::from(row.get_ref(2)?).into_owned(),
                at: row.get::<_, Option<i64>>(3)?.unwrap_or_default(),
                found: row.get::<_, Option<bool>>(4)?.unwrap_or_default(),
            })
        });
        notes.and_then(Iterator::collect).doing("reading the outbox")
    }

    /// How many of the notes make up the next unit.
    fn window(&self, notes: &[Note]) -> Option<usize> {
        if notes.is_empty() {
            return None;
        }
        let gap = |pair: &[Note]| pair[1].at.abs_diff(pair[0].at);
        let limit = notes.len().min(self.limits.changes);
        let ends = |pair: &[Note]| gap(pair) > self.limits.gap_ms || pair[0].found != pair[1].found;
        let ends = notes[..limit].windows(2).position(ends);
        if let Some(end) = ends {
            return Some(end + 1);
        }
        if notes.len() <= self.limits.changes {
            return Some(notes.len());
        }
        // Too many for one unit. The notes of one transaction have nearly equal times: cut where the times differ most.
        let most = PAGE_ENTRIES_TARGET.min(self.limits.changes);
        let least = most.div_ceil(2);
        (least..=most).max_by_key(|end| gap(&notes[end - 1..=*end]))
    }

    /// Whether the outbox spans more time than a unit may.
    fn is_long_ago(&self, first: &Note) -> Outcome<bool> {
        let last: i64 = self
            .connection
            .prepare_cached("SELECT coalesce(at, 0) FROM _entgldb_outbox ORDER BY id DESC LIMIT 1")
            .and_then(|mut statement| statement.query_row([], |row| row.get(0)))
            .doing("reading the outbox")?;
        Ok(last.abs_diff(first.at) > self.limits.gap_ms)
    }

    /// Makes a table of the last note of each row, once for a backlog: a row that is written again further on belongs to
    /// its last write.
    fn last_notes(&self) -> Outcome<bool> {
        let (first, last): (i64, i64) = self
            .connection
            .query_row("SELECT min(id), max(id) FROM _entgldb_outbox", [], |row| {
                Ok((row.get(0)?, row.get(1)?))
            })
            .doing("reading the outbox")?;
        self.connection
            .execute_batch(
                "CREATE TEMP TABLE IF NOT EXISTS _entgldb_last(tbl, key, id, PRIMARY KEY(tbl, key))",
            )
            .doing("ordering a backlog")?;
        let known: Option<i64> = self
            .connection
            .query_row("SELECT max(id) FROM temp._entgldb_last", [], |row| row.get(0))
            .doing("ordering a backlog")?;
        if known.is_none_or(|known| known <= first || known > last) {
            self.connection
                .execute_batch(
                    "DELETE FROM temp._entgldb_last;
                     INSERT INTO temp._entgldb_last SELECT tbl, key, max(id) FROM _entgldb_outbox GROUP BY tbl, key HAVING count(*) > 1;
                     INSERT INTO temp._entgldb_last SELECT NULL, NULL, max(id) FROM _entgldb_outbox",
                )
                .doing("ordering a backlog")?;
        }
        Ok(true)
    }

    /// Whether the row is noted again behind the window. The table of last notes may be out of date, so the note it tells
    /// of is looked at.
    fn is_noted_after(&self, note: &Note, window_end: i64) -> Outcome<bool> {
        self.connection
            .prepare_cached(
                "SELECT EXISTS(SELECT 1 FROM temp._entgldb_last l, main._entgldb_outbox o WHERE l.tbl = ?1 AND l.key IS ?2
                 AND l.id > ?3 AND o.id = l.id AND o.tbl = ?1 AND o.key IS ?2)",
            )
            .and_then(|mut statement| statement.query_row((note.table, &note.key, window_end), |row| row.get(0)))
            .doing("reading the outbox")
    }

    fn with_extras(&self) -> Outcome<HashSet<i64>> {
        let mut statement = self
            .connection
            .prepare_cached("SELECT no FROM _entgldb_collections WHERE has_extras")
            .doing("reading the collections")?;
        let numbers = statement.query_map([], |row| row.get(0));
        numbers.and_then(Iterator::collect).doing("reading the collections")
    }

    /// Reads the row that a note names.
    fn look(&self, table: &Arc<Table>, noted: &Sql<'_>, reading: &Reading) -> Outcome<Found> {
        let Some(columns) = read_note(noted.as_ref(), table.key.len(), table.encoding) else {
            return Ok(refused(table, noted, "its key is too long, or cannot be read", None));
        };
        self.look_at(table, &columns, reading)
    }

    /// Reads the row with these key columns.
    pub(crate) fn look_at(
        &self,
        table: &Arc<Table>,
        columns: &[Sql<'_>],
        reading: &Reading,
    ) -> Outcome<Found> {
        let refs: Vec<ValueRef<'_>> = columns.iter().map(Sql::as_ref).collect();
        let key = match table.form.encode(&refs) {
            Ok(key) => key,
            Err(message) => {
                let found = refused(table, &name_of(&refs), &message, None);
                return Ok(match found {
                    Found::Refused(problem, _) if !self.is_there(table, columns)? => Found::Gone(problem),
                    found => found,
                });
            }
        };
        let has_extras = reading.with_extras.contains(&table.no);
        let extra = if has_extras { extra_of(self.connection, table.no, &key)? } else { None };
        let extra = gone::carried(self.connection, self.names, table, &key, extra)?;
        let name = Sql::text(key.as_str());
        let content = match rows::read_content(self.connection, table, columns, extra.as_ref()) {
            Ok(content) => content,
            Err(error) if code(&error) == Some(ErrorCode::TooBig) => {
                return Ok(refused(table, &name, &self.too_large(None), Some(shown_too_large())));
            }
            Err(error) => return Err(error).doing("reading a row"),
        };
        if let Some(content) = &content
            && content.len() > self.limits.payload_bytes
        {
            let message = self.too_large(Some(content.len()));
            return Ok(refused(table, &name, &message, Some(sha256(content))));
        }
        if reading.anything_aside && self.is_left_over(table, &key, content.as_deref())? {
            return Ok(Found::Nothing);
        }
        Ok(Found::Document(key, content.map(Bytes::from)))
    }

    /// Whether a row with these key columns is there, or may be: a long key was cut.
    fn is_there(&self, table: &Table, columns: &[Sql<'_>]) -> Outcome<bool> {
        let is_cut =
            |column: &Sql<'_>| matches!(column, Sql::Text(text) if text.len() >= NOTE_CHARACTERS_MAX);
        if columns.iter().any(is_cut) {
            return Ok(true);
        }
        let names = table.key_columns();
        let same = names.iter().enumerate().map(|(number, name)| format!("{name} IS ?{}", number + 1));
        let sql = format!("SELECT 1 FROM main.{} WHERE {} LIMIT 1", table.quoted, joined(same, " AND "));
        let read = || {
            let mut statement = self.connection.prepare_cached(&sql)?;
            rows::bind(&mut statement, 1, columns.iter())?;
            Ok(statement.raw_query().next()?.is_some())
        };
        read().doing("looking for a row")
    }

    fn too_large(&self, bytes: Option<usize>) -> String {
        let has = bytes.map_or_else(|| "more".into(), |bytes| format!("{bytes} bytes"));
        format!(
            "its document has {has}; at most {} bytes may travel (payload_bytes_max)",
            self.limits.payload_bytes
        )
    }

    /// Whether the row is only what the table still has of a document whose newer version its schema refuses.
    fn is_left_over(&self, table: &Table, key: &Key, content: Option<&[u8]>) -> Outcome<bool> {
        let Some(aside) = aside::get(self.connection, self.names, table.no, key)? else { return Ok(false) };
        Ok(match (aside.reason, content) {
            (Reason::Refused { table_hash: Some(hash), .. }, Some(content)) => hash == sha256(content),
            _ => false,
        })
    }
}

fn mark(note: &Note) -> OutboxMark {
    OutboxMark(note.id.cast_unsigned())
}

/// Bytes that are the same for the same key, of the same type.
fn identity(key: &Sql<'_>) -> Vec<u8> {
    let mut out = Vec::new();
    match key {
        Sql::Text(text) => out.extend_from_slice(text),
        other => {
            out.push(0xff);
            write_json(&mut out, other.as_ref());
        }
    }
    out
}

/// What a row without a usable key is called in a report.
fn name_of(columns: &[ValueRef<'_>]) -> Sql<'static> {
    match columns {
        [one] => Sql::from(*one).into_owned(),
        several => {
            let mut name = vec![b'['];
            for (number, column) in several.iter().enumerate() {
                if number > 0 {
                    name.push(b',');
                }
                write_json(&mut name, *column);
            }
            name.push(b']');
            Sql::Text(name.into())
        }
    }
}

fn refused(table: &Table, key: &Sql<'_>, message: &str, shown: Option<[u8; 32]>) -> Found {
    let mut name = match key {
        Sql::Text(text) => String::from_utf8_lossy(text).into_owned(),
        other => {
            let mut out = Vec::new();
            write_json(&mut out, other.as_ref());
            String::from_utf8_lossy(&out).into_owned()
        }
    };
    if let Some((end, _)) = name.char_indices().nth(200) {
        name.truncate(end);
    }
    let problem = Problem {
        collection: table.collection.clone(),
        key: name,
        kind: ProblemKind::NotCaptured,
        message: message.to_owned(),
    };
    Found::Refused(problem, shown)
}
