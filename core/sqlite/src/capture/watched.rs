//! The watched tables as they are now, and what must be done when their schema changes.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use entgldb_replica::id::Collection;
use rusqlite::Connection;

use crate::capture::progress;
use crate::capture::texts::Texts;
use crate::capture::triggers::{self, Installed};
use crate::failed::{Outcome, While};
use crate::fields::reconcile::reconcile;
use crate::journal::names::Names;
use crate::journal::schema;
use crate::table::collation;
use crate::table::definition::{Table, Unwatchable};
use crate::table::key::encoding;

/// The tables that are watched, and the schema they were read under.
#[derive(Default, Debug)]
pub(crate) struct Watched {
    version: i64,
    tables: Vec<Arc<Table>>,
    by_collection: HashMap<Collection, Arc<Table>>,
    by_no: HashMap<i64, Arc<Table>>,
    /// What each table was read from, by the numbers of their collections.
    seen: HashMap<i64, Seen>,
    /// Numbers of tables of whose fields something else is known by now.
    stale: BTreeSet<i64>,
    /// Whether the application has triggers on any of them: then applying must let them fire and put back what they do.
    pub(crate) has_application_triggers: bool,
    /// Numbers of tables that are perhaps being built again ([`crate::capture::rebuild`]).
    pub(crate) perhaps_copied: BTreeSet<i64>,
}

/// What a table was read from.
#[derive(Clone, Debug)]
struct Seen {
    text: Vec<u8>,
    /// The tables that it refers to, also those that are not there.
    parents: Vec<String>,
}

/// SQLite's counter of schema changes.
pub(crate) fn schema_version(connection: &Connection) -> Outcome<i64> {
    connection
        .prepare_cached("PRAGMA main.schema_version")
        .and_then(|mut statement| statement.query_row([], |row| row.get(0)))
        .doing("reading the schema's version")
}

/// The tables that a table refers to, as its definition calls them.
fn parents(connection: &Connection, table: &Table) -> Outcome<Vec<String>> {
    connection
        .prepare_cached("SELECT DISTINCT \"table\" FROM pragma_foreign_key_list(?1)")
        .and_then(|mut statement| statement.query_map([&table.name], |row| row.get(0))?.collect())
        .doing("reading a table's references")
}

impl Watched {
    /// Reads the tables that are others than `before`, brings their triggers in order, and notes which of them must be looked
    /// through because they were written without triggers. To be called in a write transaction. Tables that cannot be watched
    /// any more are left out and named in the second result.
    pub(crate) fn read(
        connection: &Connection,
        names: &mut Names,
        watch: &[Collection],
        before: &Self,
    ) -> Outcome<(Self, Vec<(Collection, Unwatchable)>)> {
        let encoding = encoding(connection)?;
        let is_same_schema = before.version == schema_version(connection)? && !before.tables.is_empty();
        let mut texts = None;
        if !is_same_schema {
            collation::stand_in(connection).doing("looking for collations")?;
            texts = Some(Texts::read(connection)?);
        }
        let (mut watched, mut missing, mut others) = (Self::default(), Vec::new(), Vec::new());
        for collection in watch {
            let no = names.collection_no(connection, collection)?;
            if let Some((table, seen)) = before.unchanged(no, texts.as_ref()) {
                watched.add(table.clone());
                watched.seen.insert(no, seen.clone());
                continue;
            }
            reconcile(connection, names, (no, collection), encoding)?;
            match Table::read(connection, no, collection, encoding)? {
                Ok(table) => others.push(watched.add(Arc::new(table))),
                Err(unwatchable) => missing.push((collection.clone(), unwatchable)),
            }
        }
        for table in &others {
            let installed = triggers::install(connection, table)?;
            if installed != Installed::Unchanged {
                texts = None;
            }
            match installed {
                Installed::Unchanged | Installed::Renewed => {}
                Installed::Displacing => progress::begin_missing(connection, table)?,
                Installed::Anew => progress::begin(connection, names, table)?,
            }
        }
        watched.forget_others(connection)?;
        watched.keep_texts(connection, &others, texts)?;
        watched.version = schema_version(connection)?;
        schema::put(connection, "schema_version", watched.version)?;
        Ok((watched, missing))
    }

    /// Whether the schema has changed, but nothing that these tables follow from: the schema's version then. To be called in a
    /// transaction.
    pub(crate) fn changed_elsewhere(&self, connection: &Connection) -> Outcome<Option<i64>> {
        collation::stand_in(connection).doing("looking for collations")?;
        if !self.stale.is_empty() {
            return Ok(None);
        }
        let texts = Texts::read(connection)?;
        let is_same = |table: &Arc<Table>| self.unchanged(table.no, Some(&texts)).is_some();
        if self.tables.iter().all(is_same) { schema_version(connection).map(Some) } else { Ok(None) }
    }

    /// The table, unless it is another one by now. Without texts the schema is the one that was read.
    fn unchanged(&self, no: i64, texts: Option<&Texts>) -> Option<(&Arc<Table>, &Seen)> {
        let (table, seen) = (self.by_no.get(&no)?, self.seen.get(&no)?);
        let is_same = |texts: &Texts| texts.of(table, &seen.parents) == seen.text;
        (!self.stale.contains(&no) && texts.is_none_or(is_same)).then_some((table, seen))
    }

    /// Remembers what tables were read from. The texts are those of the schema as it is now, if there are any.
    fn keep_texts(
        &mut self,
        connection: &Connection,
        tables: &[Arc<Table>],
        texts: Option<Texts>,
    ) -> Outcome<()> {
        if tables.is_empty() {
            return Ok(());
        }
        let texts = match texts {
            Some(texts) => texts.with_new_aliases(connection)?,
            None => Texts::read(connection)?,
        };
        for table in tables {
            let parents = parents(connection, table)?;
            self.seen.insert(table.no, Seen { text: texts.of(table, &parents), parents });
        }
        Ok(())
    }

    fn add(&mut self, table: Arc<Table>) -> Arc<Table> {
        self.has_application_triggers |= table.has_application_triggers;
        self.by_collection.insert(table.collection.clone(), table.clone());
        self.by_no.insert(table.no, table.clone());
        self.tables.push(table.clone());
        table
    }

    /// A table that was watched once and is not any more needs no triggers.
    fn forget_others(&self, connection: &Connection) -> Outcome<()> {
        let mut statement =
            connection.prepare("SELECT no FROM _entgldb_collections").doing("reading the collections")?;
        let numbers: Vec<i64> = statement
            .query_map([], |row| row.get(0))
            .and_then(Iterator::collect)
            .doing("reading the collections")?;
        for no in numbers.into_iter().filter(|no| !self.by_no.contains_key(no)) {
            triggers::remove(connection, no)?;
        }
        Ok(())
    }

    /// Makes a table be read again before it is used, as after a change of the schema.
    pub(crate) fn expire(&mut self, collection: &str) {
        let is_it = |table: &&Arc<Table>| table.collection.as_str().eq_ignore_ascii_case(collection);
        if let Some(table) = self.tables.iter().find(is_it) {
            self.stale.insert(table.no);
        }
    }

    /// Goes on under a schema that has changed elsewhere.
    pub(crate) fn goes_on_under(&mut self, version: i64) {
        self.version = version;
    }

    /// Whether the tables are still as they were read.
    pub(crate) fn is_current(&self, connection: &Connection) -> Outcome<bool> {
        Ok(self.stale.is_empty() && schema_version(connection)? == self.version)
    }

    pub(crate) fn is_perhaps_copied(&self, no: i64) -> bool {
        self.perhaps_copied.contains(&no)
    }

    pub(crate) fn tables(&self) -> &[Arc<Table>] {
        &self.tables
    }

    pub(crate) fn table(&self, collection: &Collection) -> Option<&Arc<Table>> {
        self.by_collection.get(collection)
    }

    pub(crate) fn numbered(&self, no: i64) -> Option<&Arc<Table>> {
        self.by_no.get(&no)
    }

    pub(crate) fn version(&self) -> i64 {
        self.version
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fields::map::{self, Alias};
    use crate::journal::schema as engine;

    const TABLES: [&str; 4] = ["plain", "parent", "child", "orphan"];

    fn read(connection: &Connection, before: &Watched) -> Watched {
        let watch = TABLES.map(|name| Collection::new(name).unwrap());
        let mut names = Names::load(connection).unwrap();
        let (watched, missing) = Watched::read(connection, &mut names, &watch, before).unwrap();
        assert_eq!(missing, []);
        watched
    }

    /// The tables that are read again after a change.
    fn read_again(connection: &Connection, before: &mut Watched) -> Vec<&'static str> {
        let is_elsewhere = before.changed_elsewhere(connection).unwrap().is_some();
        let after = read(connection, before);
        let collection = |name: &&str| Collection::new(name).unwrap();
        let is_other = |name: &&str| {
            let (before, after) = (before.table(&collection(name)), after.table(&collection(name)));
            !Arc::ptr_eq(before.unwrap(), after.unwrap())
        };
        let others: Vec<&str> = TABLES.into_iter().filter(is_other).collect();
        assert_eq!(is_elsewhere, others.is_empty());
        *before = after;
        others
    }

    #[test]
    fn a_change_of_the_schema_has_only_those_tables_read_again_that_follow_from_it() {
        let connection = Connection::open_in_memory().unwrap();
        engine::create(&connection).unwrap();
        let tables = "CREATE TABLE plain(id TEXT PRIMARY KEY, v TEXT UNIQUE); CREATE TABLE parent(id TEXT PRIMARY KEY, v TEXT);
            CREATE TABLE child(id TEXT PRIMARY KEY, up TEXT REFERENCES parent);
            CREATE TABLE orphan(id TEXT PRIMARY KEY, up TEXT REFERENCES \"Later\");";
        connection.execute_batch(tables).unwrap();
        let mut watched = read(&connection, &Watched::default());
        let no = watched.table(&Collection::new("plain").unwrap()).unwrap().no;
        let steps: [(&str, &[&str]); 11] = [
            ("CREATE TABLE elsewhere(id); CREATE INDEX e ON elsewhere(id); CREATE VIEW w AS SELECT 1", &[]),
            ("ALTER TABLE plain ADD COLUMN w TEXT", &["plain"]),
            ("CREATE UNIQUE INDEX i ON plain(w)", &["plain"]),
            ("DROP INDEX i", &["plain"]),
            ("CREATE TRIGGER a AFTER INSERT ON plain BEGIN SELECT 1; END", &["plain"]),
            (&format!("DROP TRIGGER _entgldb_insert_{no}"), &["plain"]),
            ("ALTER TABLE parent ADD COLUMN w TEXT", &["parent", "child"]),
            ("CREATE TABLE later(id TEXT PRIMARY KEY)", &["orphan"]),
            ("ALTER TABLE plain RENAME TO other", &["plain"]),
            ("ALTER TABLE other ADD COLUMN x TEXT", &["plain"]),
            ("CREATE VIEW plain AS SELECT * FROM other", &["plain"]),
        ];
        for (sql, wanted) in steps {
            connection.execute_batch(sql).unwrap();
            assert_eq!(read_again(&connection, &mut watched), wanted, "{sql}");
            assert_eq!(read_again(&connection, &mut watched), [""; 0], "{sql}");
        }
        let alias = Alias { at: 1, field: "v".to_owned(), alias: "u".to_owned(), node: String::new() };
        map::put_alias(&connection, no, &alias).unwrap();
        // As whoever registers one by hand tells a node.
        connection.execute_batch("CREATE TABLE told(id); DROP TABLE told").unwrap();
        assert_eq!(read_again(&connection, &mut watched), ["plain"]);
        watched.expire("CHILD");
        assert_eq!(read_again(&connection, &mut watched), ["child"]);
    }
}
