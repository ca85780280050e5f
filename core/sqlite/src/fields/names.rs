//! Names of collections and tables: which table a collection is, also when another program has renamed it.

use entgldb_replica::id::{Collection, NodeId};
use rusqlite::Connection;

use crate::failed::{Outcome, While};
use crate::fields::problems;
use crate::journal::schema;
use crate::table::definition::{self, Unwatchable};

/// This node's id as a text, once it has written something.
pub(crate) fn own(connection: &Connection) -> Outcome<Option<String>> {
    let owner: Option<[u8; 32]> = schema::get(connection, "owner")?;
    Ok(owner.map(|node| NodeId(node).to_string()))
}

/// Notes which table a collection is now. A table with the collection's name is it; else one that our triggers stand on, for they
/// follow a table that is renamed. To be called in a write transaction.
pub(crate) fn follow(connection: &Connection, no: i64, collection: &Collection) -> Outcome<()> {
    let found = definition::find(connection, collection.as_str())?;
    let place = "table";
    if found != Err(Unwatchable::Missing) {
        let forgotten = connection
            .execute("DELETE FROM _entgldb_tables WHERE collection_no = ?1", [no])
            .doing("forgetting a table's other name")?;
        return if forgotten > 0 { problems::solve(connection, no, place) } else { Ok(()) };
    }
    let renamed: Option<String> = connection
        .prepare_cached(
            "SELECT t.name FROM main.sqlite_schema s JOIN main.sqlite_schema t ON t.type = 'table' AND t.name = s.tbl_name COLLATE NOCASE
             WHERE s.type = 'trigger' AND s.name = '_entgldb_insert_' || ?1",
        )
        .and_then(|mut statement| {
            let mut rows = statement.query([no])?;
            rows.next()?.map(|row| row.get(0)).transpose()
        })
        .doing("looking for a table that was renamed")?;
    let Some(renamed) = renamed else { return Ok(()) };
    let noted = connection
        .execute(
            "INSERT INTO _entgldb_tables(collection_no, name) VALUES(?1, ?2) ON CONFLICT DO UPDATE SET name = excluded.name
             WHERE name <> excluded.name",
            (no, &renamed),
        )
        .doing("noting a table's new name")?;
    if noted == 0 {
        return Ok(());
    }
    tracing::warn!(table = %collection, %renamed, "a watched table was renamed; it is synced under its former name");
    let message = format!(
        "the table {:?} is called {renamed:?} now: it is still synced, with other nodes as {:?}",
        collection.as_str(),
        collection.as_str()
    );
    problems::note(connection, no, place, &message)
}

/// The collection of a table that was watched under another name: the name with which it is synced.
pub(crate) fn collection_of(connection: &Connection, table: &str) -> Outcome<Option<String>> {
    connection
        .prepare_cached(
            "SELECT c.name FROM _entgldb_tables t JOIN _entgldb_collections c ON c.no = t.collection_no
             WHERE t.name = ?1 COLLATE NOCASE OR c.name = ?1 COLLATE NOCASE",
        )
        .and_then(|mut statement| {
            let mut rows = statement.query([table])?;
            rows.next()?.map(|row| row.get(0)).transpose()
        })
        .doing("looking for a table's former name")
}
