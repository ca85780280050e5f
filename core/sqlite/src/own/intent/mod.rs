//! What is about to be done in the application's store, kept until it is done: a whole commit, so that it can be done again
//! after a crash, whatever of it was done before.

mod message;

use entgldb_replica::id::sha256;
use entgldb_replica::store::Commit;
use prost::Message;
use rusqlite::{Connection, OptionalExtension};

use crate::failed::{Outcome, SqliteFailed, While};
use crate::journal::names::Names;

/// Keeps a commit. There is at most one. To be called in a write transaction.
pub(super) fn put(connection: &Connection, commit: &Commit) -> Outcome<()> {
    let step = message::Step::of(commit).encode_to_vec();
    connection
        .prepare_cached("INSERT OR REPLACE INTO _entgldb_intent VALUES(1, ?1, ?2)")
        .and_then(|mut statement| statement.execute((&step, sha256(&step).as_slice())))
        .map(drop)
        .doing("keeping what is about to be done")
}

/// The commit that is kept, if there is one.
pub(super) fn get(connection: &Connection, names: &Names) -> Outcome<Option<Commit>> {
    let found: Option<(Vec<u8>, Vec<u8>)> = connection
        .query_row("SELECT step, hash FROM _entgldb_intent", [], |row| Ok((row.get(0)?, row.get(1)?)))
        .optional()
        .doing("reading what was about to be done")?;
    let Some((step, hash)) = found else { return Ok(None) };
    if hash != sha256(&step) {
        return Err(SqliteFailed::damaged("what was about to be done was altered"));
    }
    let step = message::Step::decode(step.as_slice())
        .map_err(|error| SqliteFailed::damaged(format!("what was about to be done: {error}")))?;
    step.commit(names).map(Some)
}

/// It is done, or will not be. To be called in a write transaction.
pub(super) fn forget(connection: &Connection) -> Outcome<()> {
    connection
        .prepare_cached("DELETE FROM _entgldb_intent")
        .and_then(|mut statement| statement.execute([]))
        .map(drop)
        .doing("forgetting what was about to be done")
}
