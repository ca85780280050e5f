//! Opening a database with the engine's tables in it.

use rusqlite::Connection;

use crate::failed::{Outcome, SqliteFailed, While};
use crate::file::binding::Bound;
use crate::file::challenge::{Claimant, claim};
use crate::file::config::{Durability, SqliteConfig};
use crate::file::connection::connect;
use crate::file::error::{FORMAT, OpenError};
use crate::journal::{schema, unsynced};

/// Opens a connection as a store needs it. Creates the engine's tables if there are none.
pub(crate) fn open(config: &mut SqliteConfig) -> Result<Bound, OpenError> {
    let path = config.path.clone();
    let connection = connect(config)?;
    if let Some(found) = schema::format(&connection)?.filter(|found| *found > FORMAT) {
        return Err(OpenError::NewerFormat { path, found });
    }
    let claimant = Claimant { path: &path, holder: &config.holder, stop: &config.stop };
    let connection = claim(connection, claimant, tables)?;
    unsynced::begin(&connection, config.durability)?;
    if config.durability == Durability::Normal {
        connection.execute_batch("PRAGMA synchronous = NORMAL").doing("setting up the connection")?;
    }
    Ok(connection)
}

/// Makes the engine's tables, or brings those of an earlier version up to this one.
fn tables(connection: &Connection) -> Outcome<()> {
    match schema::format(connection)? {
        Some(found) if found < FORMAT => schema::upgrade(connection),
        Some(_) => Ok(()),
        None if schema::definitions(connection)?.is_empty() => schema::create(connection),
        None => Err(SqliteFailed::damaged("the table _entgldb_meta is missing")),
    }
}
