//! Opening a database with the engine's tables in it.

use rusqlite::Connection;

use crate::failed::{Outcome, SqliteFailed, While};
use crate::file::config::{Durability, SqliteConfig};
use crate::file::connection::{connect, in_transaction, journal_mode, switch_to_wal};
use crate::file::error::{FORMAT, OpenError};
use crate::journal::{schema, unsynced};

/// Opens a connection as a store needs it. Before the first start, in a database without the engine's tables, `check` may
/// refuse it while nothing is written yet. `make` makes what the kind of store needs beside those tables, in one transaction
/// with them: a first start that fails leaves nothing behind.
pub(crate) fn open(
    config: &mut SqliteConfig,
    check: impl FnOnce(&Connection) -> Result<(), OpenError>,
    make: impl FnOnce(&Connection) -> Outcome<()>,
) -> Result<Connection, OpenError> {
    let path = config.path.clone();
    let connection = connect(config)?;
    let found = schema::format(&connection)?;
    match found {
        Some(found) if found > FORMAT => return Err(OpenError::NewerFormat { path, found }),
        Some(found) if found < 1 => {
            return Err(SqliteFailed::damaged("they do not say their format").into());
        }
        Some(FORMAT) => {
            if let Some(missing) = schema::missing(&connection)? {
                return Err(SqliteFailed::damaged(format!("{missing} is missing")).into());
            }
        }
        Some(_) => {}
        None if schema::is_partly_there(&connection)? => {
            return Err(SqliteFailed::damaged("_entgldb_meta is missing").into());
        }
        None => check(&connection)?,
    }
    let before = journal_mode(&connection)?;
    switch_to_wal(&connection, &path, &config.stop)?;
    match found {
        Some(FORMAT) => {}
        Some(_) => in_transaction(&connection, schema::upgrade)?,
        None => {
            let made = in_transaction(&connection, |connection| create_tables(connection, &before, make));
            if made.is_err() && !before.eq_ignore_ascii_case("wal") {
                // The first error is the one that matters; and another program that has it open by now keeps it in WAL mode.
                let _ = connection.query_row("PRAGMA main.journal_mode = DELETE", [], |_| Ok(()));
            }
            made?;
        }
    }
    unsynced::begin(&connection, config.durability)?;
    if config.durability == Durability::Normal {
        connection.execute_batch("PRAGMA synchronous = NORMAL").doing("setting up the connection")?;
    }
    Ok(connection)
}

/// Another process may have been faster.
fn create_tables(
    connection: &Connection,
    journal_mode: &str,
    make: impl FnOnce(&Connection) -> Outcome<()>,
) -> Outcome<()> {
    if schema::format(connection)?.is_some() {
        return Ok(());
    }
    schema::create(connection)?;
    schema::put(connection, schema::JOURNAL_BEFORE, journal_mode)?;
    make(connection)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_first_start_that_fails_half_way_leaves_no_table_and_the_journal_mode() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("app.db");
        let application = Connection::open(&path).unwrap();
        application.execute_batch("CREATE TABLE t(id TEXT PRIMARY KEY)").unwrap();
        let mut config = SqliteConfig {
            path: path.clone(),
            watch: vec!["t".to_owned()],
            durability: Durability::Full,
            payload_bytes_max: 1 << 20,
            stop: Default::default(),
            on_busy: None,
        };
        let fails = |connection: &Connection| {
            assert!(schema::format(connection).unwrap().is_some());
            Err(SqliteFailed::damaged("for the test"))
        };
        open(&mut config, |_| Ok(()), fails).unwrap_err();
        assert_eq!(journal_mode(&application).unwrap(), "delete");
        assert_eq!(schema::format(&application).unwrap(), None);
        assert!(!folder.path().join("app.db-wal").exists());

        let connection = open(&mut config, |_| Ok(()), |_| Ok(())).unwrap();
        assert_eq!(schema::get(&connection, schema::JOURNAL_BEFORE).unwrap(), Some("delete".to_owned()));
    }
}
