//! What the replica has noted for itself: bytes under a name, each with its hash, because a note decides what is taken for
//! held.

use bytes::Bytes;
use entgldb_replica::id::sha256;
use entgldb_replica::version::Seq;
use entgldb_replica::wire::Message;
use rusqlite::Connection;

use crate::failed::{Outcome, SqliteFailed, While};
use crate::journal::names::Names;

/// A note, and whether it is as it was written.
pub(crate) struct Note {
    pub(crate) name: String,
    pub(crate) value: Bytes,
    pub(crate) is_sound: bool,
}

/// All notes.
pub(crate) fn all(connection: &Connection) -> Outcome<Vec<Note>> {
    let mut statement = connection
        .prepare("SELECT name, value, hash FROM _entgldb_notes ORDER BY name")
        .doing("reading notes")?;
    let notes = statement.query_map([], |row| {
        let (name, value): (String, Vec<u8>) = (row.get(0)?, row.get(1)?);
        let is_sound = row.get_ref(2)?.as_blob_or_null()?.is_some_and(|hash| *hash == hash_of(&name, &value));
        Ok(Note { name, value: value.into(), is_sound })
    });
    notes.and_then(Iterator::collect).doing("reading notes")
}

/// All notes, for the replica.
pub(crate) fn load(connection: &Connection) -> Outcome<Vec<(String, Bytes)>> {
    let sound = |note: Note| match note.is_sound {
        true => Ok((note.name, note.value)),
        false => Err(SqliteFailed::damaged(format!("the note {:?} was altered", note.name))),
    };
    all(connection)?.into_iter().map(sound).collect()
}

/// Whether rows of a snapshot are here whose history does not count as held yet. The replica notes what those stand for.
pub(crate) fn is_joining(connection: &Connection, names: &Names) -> Outcome<bool> {
    let is_owed = |note: Note| match Message::decode(Message::VECTOR, note.value) {
        Ok(Some(Message::Vector(part))) => {
            let held = |log| names.logs.get(log).map_or(Seq(0), |end| end.head.seq);
            !part.rows.is_empty() || part.heads.iter().any(|(log, head)| held(log) < head.seq)
        }
        _ => false,
    };
    Ok(all(connection)?.into_iter().filter(|note| note.name == "snapshot.debt").any(is_owed))
}

/// Writes a note, or removes it. To be called in a write transaction.
pub(crate) fn write(connection: &Connection, name: &str, value: Option<&Bytes>) -> Outcome<()> {
    let written = match value {
        Some(value) => connection
            .prepare_cached(
                "INSERT INTO _entgldb_notes VALUES(?1, ?2, ?3)
                 ON CONFLICT DO UPDATE SET value = excluded.value, hash = excluded.hash",
            )
            .and_then(|mut statement| statement.execute((name, &**value, hash_of(name, value).as_slice()))),
        None => connection
            .prepare_cached("DELETE FROM _entgldb_notes WHERE name = ?1")
            .and_then(|mut statement| statement.execute([name])),
    };
    written.map(drop).doing("writing a note")
}

fn hash_of(name: &str, value: &[u8]) -> [u8; 32] {
    let mut bytes = Vec::with_capacity(name.len() + 1 + value.len());
    bytes.extend_from_slice(name.as_bytes());
    bytes.push(0);
    bytes.extend_from_slice(value);
    sha256(&bytes)
}
