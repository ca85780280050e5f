//! Opening a database with the engine's tables in it.

use rusqlite::Connection;

use crate::failed::{Outcome, SqliteFailed, While};
use crate::file::binding::Bound;
use crate::file::challenge::{Claimant, bind, claim};
use crate::file::config::{Durability, SqliteConfig};
use crate::file::connection::{connect, journal_mode, switch_to_wal};
use crate::file::error::{FORMAT, OpenError};
use crate::file::identity::has_log;
use crate::journal::{schema, unsynced};

/// Opens a connection as a store needs it. Before the first start, in a database without the engine's tables, `check` may
/// refuse it while nothing is written yet. `make` makes what the kind of store needs beside those tables, in one transaction
/// with them: a first start that fails leaves nothing behind.
pub(crate) fn open(
    config: &mut SqliteConfig,
    check: impl FnOnce(&Connection) -> Result<(), OpenError>,
    make: impl FnOnce(&Connection) -> Outcome<()>,
) -> Result<Bound, OpenError> {
    let path = config.path.clone();
    let had_log = has_log(&path);
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
    let claimant = Claimant { path: &path, holder: &config.holder, stop: &config.stop, had_log };
    let mut make = Some(make);
    let claimed = claim(&connection, claimant, |connection| tables(connection, &before, &mut make));
    if claimed.is_err() && found.is_none() && !before.eq_ignore_ascii_case("wal") {
        // The first error is the one that matters; and another program that has it open by now keeps it in WAL mode.
        let _ = connection.query_row("PRAGMA main.journal_mode = DELETE", [], |_| Ok(()));
    }
    claimed?;
    let connection = bind(connection, claimant)?;
    unsynced::begin(&connection, config.durability)?;
    if config.durability == Durability::Normal {
        connection.execute_batch("PRAGMA synchronous = NORMAL").doing("setting up the connection")?;
    }
    Ok(connection)
}

/// Makes the engine's tables, or brings those of an earlier version up to this one.
fn tables(
    connection: &Connection,
    journal_mode: &str,
    make: &mut Option<impl FnOnce(&Connection) -> Outcome<()>>,
) -> Outcome<()> {
    match schema::format(connection)? {
        Some(found) if found < FORMAT => schema::upgrade(connection),
        Some(_) => Ok(()),
        None => {
            schema::create(connection)?;
            schema::put(connection, schema::JOURNAL_BEFORE, journal_mode)?;
            make.take().map_or(Ok(()), |make| make(connection))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::file::holder::Holder;

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
            holder: Holder::unnamed(),
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
