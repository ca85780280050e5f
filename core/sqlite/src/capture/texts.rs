//! What a watched table follows from, as one text: its statement in the schema, its indexes and triggers, the tables that it
//! refers to, and the other names of its columns. A table is read again only if this text has changed. So a change of the schema
//! costs one reading of `sqlite_schema` and what has changed, however many tables are watched.

use std::collections::HashMap;

use rusqlite::Connection;

use crate::failed::{Outcome, While};
use crate::fields::tables;
use crate::table::definition::Table;

/// Parts, each behind its length.
type Text = Vec<u8>;

/// The schema and the aliases as they are at one moment.
#[derive(Default)]
pub(crate) struct Texts {
    /// All that belongs to a table or has its name, by the name in small letters.
    all: HashMap<Vec<u8>, Text>,
    /// The statement of a table alone.
    tables: HashMap<Vec<u8>, Text>,
    /// By the number of the collection.
    aliases: HashMap<i64, Text>,
}

impl Texts {
    pub(crate) fn read(connection: &Connection) -> Outcome<Self> {
        let mut texts = Self::default();
        texts.read_schema(connection).doing("reading the schema")?;
        texts.with_new_aliases(connection)
    }

    /// The same under the same schema, after what is known of fields may have changed.
    pub(crate) fn with_new_aliases(mut self, connection: &Connection) -> Outcome<Self> {
        self.aliases.clear();
        if tables::are_there(connection)? {
            self.read_aliases(connection).doing("reading the tables' aliases")?;
        }
        Ok(self)
    }

    fn read_schema(&mut self, connection: &Connection) -> rusqlite::Result<()> {
        let mut statement = connection.prepare_cached(
            "SELECT rowid, type, name, tbl_name, sql FROM main.sqlite_schema ORDER BY rowid",
        )?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            let bytes = |column: usize| {
                Ok::<_, rusqlite::Error>(row.get_ref(column)?.as_bytes_or_null()?.unwrap_or_default())
            };
            let (kind, name, table, sql) = (bytes(1)?, bytes(2)?, bytes(3)?.to_ascii_lowercase(), bytes(4)?);
            if kind == b"table" {
                add(self.tables.entry(table.clone()).or_default(), &[name, sql]);
            }
            // Triggers name indexes by their place in the schema.
            let place: i64 = row.get(0)?;
            add(self.all.entry(table).or_default(), &[&place.to_le_bytes(), kind, name, sql]);
        }
        Ok(())
    }

    fn read_aliases(&mut self, connection: &Connection) -> rusqlite::Result<()> {
        let mut statement = connection.prepare_cached(
            "SELECT collection_no, at, node, alias, field FROM _entgldb_aliases ORDER BY collection_no, alias, field, node",
        )?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            let at: i64 = row.get(1)?;
            let bytes = |column: usize| row.get_ref(column)?.as_bytes().map_err(rusqlite::Error::from);
            add(
                self.aliases.entry(row.get(0)?).or_default(),
                &[&at.to_le_bytes(), bytes(2)?, bytes(3)?, bytes(4)?],
            );
        }
        Ok(())
    }

    /// The text of a table that refers to these others.
    pub(crate) fn of(&self, table: &Table, parents: &[String]) -> Text {
        let of_names = [table.collection.as_str(), &table.name].map(|name| find(&self.all, name));
        let of_parents = parents.iter().map(|parent| find(&self.tables, parent));
        let aliases = self.aliases.get(&table.no).map_or(&[][..], Vec::as_slice);
        let mut text = Text::new();
        of_names.into_iter().chain(of_parents).chain([aliases]).for_each(|part| add(&mut text, &[part]));
        text
    }
}

fn find<'a>(texts: &'a HashMap<Vec<u8>, Text>, table: &str) -> &'a [u8] {
    texts.get(&table.as_bytes().to_ascii_lowercase()).map_or(&[], Vec::as_slice)
}

fn add(text: &mut Text, parts: &[&[u8]]) {
    for part in parts {
        text.extend_from_slice(&part.len().to_le_bytes());
        text.extend_from_slice(part);
    }
}
