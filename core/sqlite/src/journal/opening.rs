//! Opening a database with the engine's tables in it.

use rusqlite::Connection;

use crate::failed::{Outcome, While};
use crate::file::config::{Durability, SqliteConfig};
use crate::file::connection::{connect, in_transaction};
use crate::file::error::{FORMAT, OpenError};
use crate::journal::{schema, unsynced};

/// Opens a connection as a store needs it. Creates the engine's tables if there are none.
pub(crate) fn open(config: &mut SqliteConfig) -> Result<Connection, OpenError> {
    let path = config.path.clone();
    let connection = connect(config)?;
    match schema::format(&connection)? {
        Some(found) if found > FORMAT => return Err(OpenError::NewerFormat { path, found }),
        Some(found) if found < FORMAT => in_transaction(&connection, schema::upgrade)?,
        Some(_) => {}
        None => in_transaction(&connection, create_tables)?,
    }
    unsynced::begin(&connection, config.durability)?;
    if config.durability == Durability::Normal {
        connection.execute_batch("PRAGMA synchronous = NORMAL").doing("setting up the connection")?;
    }
    Ok(connection)
}

/// Another process may have been faster.
fn create_tables(connection: &Connection) -> Outcome<()> {
    if schema::format(connection)?.is_none() { schema::create(connection) } else { Ok(()) }
}
