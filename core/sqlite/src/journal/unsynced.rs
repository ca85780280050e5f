//! Whether a power cut may have taken commits back.
//!
//! With [`Durability::Normal`] it may, and a node can't tell what it lost from what was never there: the numbers that it
//! would give out next may have been given out, and peers may hold those entries. Waiting for a peer to say so is no way,
//! because the application writes on meanwhile. So after any end but a clean one the oplog counts as a new one: its
//! entries stay, and the node goes on in a new incarnation.

use crate::failed::{Outcome, While};
use crate::file::binding::Bound;
use crate::file::config::Durability;
use crate::file::connection::in_transaction;
use crate::journal::schema;

/// In the engine's state: 1 while commits are made that are not synced each time.
const NAME: &str = "unsynced";

/// Notes durably how commits are made from now on. To be called while commits are still synced.
pub(crate) fn begin(connection: &Bound, durability: Durability) -> Outcome<()> {
    let may_have_lost = schema::get::<bool>(connection, NAME)?.unwrap_or_default();
    let is_unsynced = durability == Durability::Normal;
    if !may_have_lost && !is_unsynced {
        return Ok(());
    }
    in_transaction(connection, |connection| {
        if may_have_lost {
            connection
                .execute("DELETE FROM _entgldb_meta WHERE name IN ('owner', 'incarnation')", [])
                .doing("beginning a new incarnation")?;
        }
        schema::put(connection, NAME, is_unsynced)
    })
}

/// Syncs everything, and notes that nothing can be lost any more.
pub(crate) fn end(connection: &Bound) -> Outcome<()> {
    if schema::get::<bool>(connection, NAME)?.unwrap_or_default() {
        connection.execute_batch("PRAGMA synchronous = FULL").doing("ending")?;
        in_transaction(connection, |connection| schema::put(connection, NAME, false))?;
    }
    Ok(())
}
