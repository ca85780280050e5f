//! From the outbox of an own file to changes.
//!
//! What one call has recorded stays together: it is one unit, and so may several calls be.

use std::collections::HashMap;

use bytes::Bytes;
use entgldb_replica::clock::WallMillis;
use entgldb_replica::id::{DocId, Key};
use entgldb_replica::store::{Change, Drain, OutboxMark, Problem, ProblemKind, UnitLimits};
use serde::de::IgnoredAny;

use super::Recorded;
use super::store::{Look, OwnStore};
use crate::failed::{Outcome, SqliteFailed, While};
use crate::journal::problems::Refusal;

/// Documents whose contents are looked for at once.
const LOOK_AT_ONCE: usize = 256;

/// A note.
struct Note {
    id: i64,
    /// The first note of the same call.
    first: i64,
    doc: DocId,
    at: i64,
    recorded: Recorded,
}

impl OwnStore {
    /// Looks into the outbox, as [`Store::captured`](entgldb_replica::store::Store::captured) does. `look` answers what
    /// documents are now.
    ///
    /// # Errors
    /// Those of `look`, and when the file can't be read.
    pub fn drain<E: From<SqliteFailed>>(
        &mut self,
        limits: &UnitLimits,
        look: &mut Look<'_, E>,
    ) -> Result<Drain, E> {
        let (notes, more) = self.notes(limits)?;
        let Some(last) = notes.last().map(|note| note.id) else { return Ok(Drain::default()) };
        let mut drain = Drain { mark: Some(mark(last)), more, ..Drain::default() };
        let latest = latest(notes);
        let (mut bytes, mut at) = (0, 0);
        let mut ends = Ends::default();
        while at < latest.len() {
            let slice = &latest[at..latest.len().min(at + LOOK_AT_ONCE)];
            let contents = self.contents(slice, look)?;
            for (note, content) in slice.iter().zip(contents) {
                ends.begin(note.first, drain.changes.len());
                let content_bytes = content.as_ref().map_or(0, Bytes::len);
                bytes += content_bytes + note.doc.1.as_str().len();
                if bytes > limits.bytes
                    && let Some((first, count)) = ends.cut()
                {
                    drain.changes.truncate(count);
                    drain.mark = Some(mark(first - 1));
                    drain.more = true;
                    self.keep_refused(&drain);
                    return Ok(drain);
                }
                match unusable(content.as_ref(), limits) {
                    Some(message) => drain.refused.push(problem(&note.doc, message)),
                    None => drain.changes.push(Change {
                        doc: note.doc.clone(),
                        content,
                        written: WallMillis(note.at.max(0).cast_unsigned()),
                    }),
                }
            }
            at += slice.len();
        }
        self.keep_refused(&drain);
        Ok(drain)
    }

    fn keep_refused(&mut self, drain: &Drain) {
        let Some(mark) = drain.mark else { return };
        let refusal =
            |problem: &Problem| Refusal { mark, problem: problem.clone(), shown: None, is_gone: false };
        self.journal.keep_refused(drain.refused.iter().map(refusal).collect());
    }

    fn contents<E: From<SqliteFailed>>(
        &mut self,
        notes: &[Note],
        look: &mut Look<'_, E>,
    ) -> Result<Vec<Option<Bytes>>, E> {
        let asked: Vec<DocId> = notes
            .iter()
            .filter(|note| note.recorded == Recorded::Look)
            .map(|note| note.doc.clone())
            .collect();
        let mut found = if asked.is_empty() { Vec::new() } else { look(self, &asked)? }.into_iter();
        let content = |note: &Note| match &note.recorded {
            Recorded::Look => found.next().flatten(),
            Recorded::Put(content) => Some(content.clone()),
            Recorded::Gone => None,
        };
        Ok(notes.iter().map(content).collect())
    }

    /// The notes of the next unit, whole calls of them, and whether there are more.
    fn notes(&self, limits: &UnitLimits) -> Outcome<(Vec<Note>, bool)> {
        let mut statement = self
            .journal
            .connection
            .prepare_cached(
                "SELECT o.id, r.first, o.tbl, o.key, o.at, r.kind, r.content FROM _entgldb_outbox o
                 JOIN _entgldb_recorded r ON r.id = o.id ORDER BY o.id",
            )
            .doing("reading the outbox")?;
        let mut rows = statement.query([]).doing("reading the outbox")?;
        let (mut notes, mut bytes): (Vec<Note>, usize) = (Vec::new(), 0);
        // Where the call begins that is being read.
        let mut begun = 0;
        while let Some(row) = rows.next().doing("reading the outbox")? {
            let note = self.note(row)?;
            let before = notes.last().map(|before| (before.first, before.at));
            if let Some((first, at)) = before.filter(|(first, _)| *first != note.first) {
                let is_later = note.at.abs_diff(at) > limits.gap_ms;
                if is_later || notes.len() >= limits.changes || bytes > limits.bytes {
                    return Ok((cut(notes, begun, bytes, limits), true));
                }
                let _ = first;
                begun = notes.len();
            }
            bytes += match &note.recorded {
                Recorded::Put(content) => content.len(),
                Recorded::Look | Recorded::Gone => 0,
            };
            notes.push(note);
        }
        let count = notes.len();
        let notes = cut(notes, begun, bytes, limits);
        let more = notes.len() < count;
        Ok((notes, more))
    }

    fn note(&self, row: &rusqlite::Row<'_>) -> Outcome<Note> {
        let columns = || {
            let numbers = (row.get(0)?, row.get(1)?, row.get::<_, i64>(2)?, row.get(4)?);
            let content = row.get::<_, Option<Vec<u8>>>(6)?;
            Ok((numbers, row.get::<_, String>(3)?, row.get::<_, i64>(5)?, content))
        };
        let ((id, first, no, at), key, kind, content) = columns().doing("reading the outbox")?;
        let key = Key::new(&key).map_err(|error| SqliteFailed::damaged(error.to_string()))?;
        let recorded = match (kind, content) {
            (Recorded::LOOK, _) => Recorded::Look,
            (Recorded::PUT, Some(content)) => Recorded::Put(content.into()),
            (Recorded::GONE, _) => Recorded::Gone,
            _ => return Err(SqliteFailed::damaged(format!("the note {id} is of kind {kind}"))),
        };
        Ok(Note { id, first, doc: (self.journal.names.collection(no)?.clone(), key), at, recorded })
    }
}

/// Leaves the last call out if the unit is too large with it and has others.
fn cut(mut notes: Vec<Note>, begun: usize, bytes: usize, limits: &UnitLimits) -> Vec<Note> {
    if begun > 0 && (notes.len() > limits.changes || bytes > limits.bytes) {
        notes.truncate(begun);
    }
    notes
}

/// The last note of each document, at the place of its first.
fn latest(notes: Vec<Note>) -> Vec<Note> {
    let mut places: HashMap<DocId, usize> = HashMap::new();
    let mut latest: Vec<Note> = Vec::with_capacity(notes.len());
    for note in notes {
        match places.get(&note.doc) {
            Some(place) => {
                let known: &mut Note = &mut latest[*place];
                known.at = known.at.max(note.at);
                known.recorded = note.recorded;
            }
            None => {
                places.insert(note.doc.clone(), latest.len());
                latest.push(note);
            }
        }
    }
    latest
}

/// Where the calls of a unit end, for cutting it between two of them.
#[derive(Default)]
struct Ends {
    /// First note of the call that is being looked at, and changes before it.
    current: Option<(i64, usize)>,
    is_first: bool,
}

impl Ends {
    fn begin(&mut self, first: i64, count: usize) {
        match self.current {
            Some((known, _)) if known == first => {}
            known => {
                self.is_first = known.is_none();
                self.current = Some((first, count));
            }
        }
    }

    /// The call to cut before; `None` in the first one.
    fn cut(&self) -> Option<(i64, usize)> {
        self.current.filter(|_| !self.is_first)
    }
}

fn mark(id: i64) -> OutboxMark {
    OutboxMark(id.cast_unsigned())
}

fn unusable(content: Option<&Bytes>, limits: &UnitLimits) -> Option<String> {
    let content = content?;
    if content.len() > limits.payload_bytes {
        let (has, most) = (content.len(), limits.payload_bytes);
        return Some(format!(
            "its document has {has} bytes; at most {most} bytes may travel (payload_bytes_max)"
        ));
    }
    serde_json::from_slice::<IgnoredAny>(content).err().map(|error| format!("it is not JSON: {error}"))
}

fn problem((collection, key): &DocId, message: String) -> Problem {
    let (collection, key) = (collection.clone(), key.as_str().to_owned());
    Problem { collection, key, kind: ProblemKind::NotCaptured, message }
}
