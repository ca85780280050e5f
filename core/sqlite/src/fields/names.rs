//! Names of collections and tables: which table a collection is, also when another program has renamed it.

use std::sync::Arc;

use entgldb_replica::id::Collection;
use entgldb_replica::member::Member;
use rusqlite::Connection;

use crate::failed::{Outcome, While};
use crate::fields::{problems, said, tables};
use crate::journal::names::Names;
use crate::journal::schema;
use crate::table::definition::{self, Table, Unwatchable};

/// Notes which table a collection is now. A table with the collection's name is it; else one that our triggers stand on, for they
/// follow a table that is renamed. To be called in a write transaction.
pub(crate) fn follow(connection: &Connection, no: i64, collection: &Collection) -> Outcome<()> {
    let found = definition::find(connection, collection.as_str())?;
    let place = "table";
    // A view may have taken the name, so that older programs find the rows.
    if found.is_ok() {
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

/// Whether a table of this name was synced before.
pub(crate) fn is_known(connection: &Connection, name: &str) -> Outcome<bool> {
    if schema::format(connection)?.is_none() {
        return Ok(false);
    }
    connection
        .query_row(
            "SELECT EXISTS(SELECT 1 FROM _entgldb_collections WHERE name = ?1 COLLATE NOCASE)",
            [name],
            |row| row.get(0),
        )
        .doing("reading the collections")
}

/// The table of a collection that was renamed.
pub(crate) fn table_of(connection: &Connection, collection: &str) -> Outcome<Option<String>> {
    renamed(
        connection,
        "SELECT t.name FROM _entgldb_tables t JOIN _entgldb_collections c ON c.no = t.collection_no WHERE c.name = ?1 COLLATE NOCASE",
        collection,
    )
}

/// The collection of a table that was watched under another name: the name with which it is synced. Not if a table of that name is
/// there again.
pub(crate) fn collection_of(connection: &Connection, table: &str) -> Outcome<Option<String>> {
    let sql = "SELECT c.name FROM _entgldb_tables t JOIN _entgldb_collections c ON c.no = t.collection_no WHERE t.name = ?1 COLLATE NOCASE";
    let found = renamed(connection, sql, table)?;
    match found {
        Some(name) if definition::find(connection, &name)?.is_err() => Ok(Some(name)),
        _ => Ok(None),
    }
}

fn renamed(connection: &Connection, sql: &str, name: &str) -> Outcome<Option<String>> {
    if !tables::are_there(connection)? {
        return Ok(None);
    }
    connection
        .prepare_cached(sql)
        .and_then(|mut statement| {
            let mut rows = statement.query([name])?;
            rows.next()?.map(|row| row.get(0)).transpose()
        })
        .doing("looking for a table's other name")
}

/// The name with which nodes sync a table. It is the table's own, except where it was renamed here or on a node that has said so;
/// and of several spellings that differ in capitals, which SQLite does not tell apart, all take the first in the order of bytes.
pub(crate) fn agreed(connection: &Connection, table: &str) -> Outcome<String> {
    if !tables::are_there(connection)? {
        return Ok(table.to_owned());
    }
    Known::read(connection)?.agreed(connection, table)
}

/// What members say of names.
struct Known {
    /// Collection, and the table's name on the node that says so.
    tables: Vec<(String, String)>,
    /// All collections that members sync.
    interests: Vec<Collection>,
}

impl Known {
    fn read(connection: &Connection) -> Outcome<Self> {
        let said = said::all(connection)?.into_iter().map(|(_, collection, said)| (collection, said.table));
        let mut tables: Vec<(String, String)> =
            said.filter(|(collection, table)| !collection.eq_ignore_ascii_case(table)).collect();
        tables.sort();
        let mut statement = connection
            .prepare_cached("SELECT content FROM _entgldb_members WHERE key NOT LIKE 'fields/%'")
            .doing("reading the members")?;
        let contents = statement.query_map([], |row| row.get::<_, Vec<u8>>(0));
        let contents: Vec<Vec<u8>> = contents.and_then(Iterator::collect).doing("reading the members")?;
        let members = contents.into_iter().filter_map(|content| Member::decode(&content.into()));
        let interests =
            members.filter(|member| !member.removed).flat_map(|member| member.interests).collect();
        Ok(Self { tables, interests })
    }

    fn agreed(&self, connection: &Connection, table: &str) -> Outcome<String> {
        let name = match collection_of(connection, table)? {
            Some(name) => name,
            None => self.renamed_elsewhere(connection, table)?.unwrap_or_else(|| table.to_owned()),
        };
        let same = self.interests.iter().filter(|other| other.as_str().eq_ignore_ascii_case(&name));
        let first = same.map(|other| other.as_str().to_owned()).min();
        Ok(first.filter(|first| *first < name).unwrap_or(name))
    }

    /// The name with which another node syncs a table that is called like this there, if this database has no table of that name.
    fn renamed_elsewhere(&self, connection: &Connection, table: &str) -> Outcome<Option<String>> {
        for (name, _) in self.tables.iter().filter(|(_, said)| said.eq_ignore_ascii_case(table)) {
            let is_free =
                || definition::find(connection, name).map(|found| found == Err(Unwatchable::Missing));
            if Collection::new(name).is_ok() && is_free()? {
                return Ok(Some(name.clone()));
            }
        }
        Ok(None)
    }
}

/// Whether members sync one of these tables under another name than this node does.
pub(crate) fn differ(connection: &Connection, watched: &[Arc<Table>]) -> Outcome<bool> {
    if !tables::are_there(connection)? {
        return Ok(false);
    }
    let known = Known::read(connection)?;
    for table in watched {
        if known.agreed(connection, &table.name)? != table.collection.as_str() {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Notes under which collections these tables are synced. To be called in a write transaction.
pub(crate) fn adopt(
    connection: &Connection,
    names: &mut Names,
    watch: &[(Collection, String)],
) -> Outcome<()> {
    watch.iter().try_for_each(|(collection, table)| adopt_one(connection, names, table, collection))
}

/// Notes under which collection a table is synced, and forgets the notes of the one that it was before: the whole table is looked
/// through for the new one.
fn adopt_one(
    connection: &Connection,
    names: &mut Names,
    table: &str,
    collection: &Collection,
) -> Outcome<()> {
    let no = names.collection_no(connection, collection)?;
    for notes in ["_entgldb_outbox", "_entgldb_held"] {
        let sql = format!(
            "DELETE FROM {notes} WHERE tbl IN (SELECT no FROM _entgldb_collections WHERE no <> ?1
             AND (name = ?2 COLLATE NOCASE OR name = ?3 COLLATE NOCASE))"
        );
        connection
            .execute(&sql, (no, table, collection.as_str()))
            .doing("forgetting notes under another name")?;
    }
    if !table.eq_ignore_ascii_case(collection.as_str()) {
        connection
            .execute(
                "INSERT INTO _entgldb_tables(collection_no, name) VALUES(?1, ?2)
                 ON CONFLICT DO UPDATE SET name = excluded.name",
                (no, table),
            )
            .doing("noting a table's other name")?;
    }
    Ok(())
}
