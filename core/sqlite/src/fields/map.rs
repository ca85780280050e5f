//! The durable map from columns to fields, and back.

use rusqlite::{Connection, OptionalExtension};

use crate::failed::{Outcome, While};
use crate::fields::tables;

/// A field as this node knows it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Field {
    pub(crate) field: String,
    /// Its column here; `None` if that was dropped.
    pub(crate) column: Option<String>,
    /// The column's declared type, when it was last seen.
    pub(crate) declared: String,
    /// The column's place among those of the table, when it was last seen.
    pub(crate) position: i64,
    /// Zero if it was there at the first watch, else its place in the order in which columns were added.
    pub(crate) added: i64,
    /// The one value (JSON) that all rows had when the column was found.
    pub(crate) fill: Option<String>,
    /// How many rows that were; two stands for more.
    pub(crate) fill_rows: i64,
    /// Whether the rows had several values then.
    pub(crate) is_computed: bool,
    /// The fill that all nodes agree on.
    pub(crate) known_fill: Option<String>,
    /// When it got its column, in milliseconds since 1970.
    pub(crate) named_at: i64,
}

/// Another name of a field.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct Alias {
    /// When it was registered, in milliseconds since 1970. The oldest registration of a name counts.
    pub(crate) at: i64,
    pub(crate) field: String,
    pub(crate) alias: String,
    /// Who registered it; empty for this node.
    pub(crate) node: String,
}

/// What is known of a table's fields.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub(crate) struct Map {
    pub(crate) fields: Vec<Field>,
    /// The oldest first.
    pub(crate) aliases: Vec<Alias>,
}

impl Map {
    /// Reads what is known of a collection's fields. Nothing in a database of an earlier format.
    pub(crate) fn read(connection: &Connection, no: i64) -> Outcome<Self> {
        if !tables::are_there(connection)? {
            return Ok(Self::default());
        }
        Ok(Self { fields: fields(connection, no)?, aliases: aliases(connection, no)? })
    }

    /// The field of a column.
    pub(crate) fn of_column(&self, column: &str) -> Option<&Field> {
        let is_it = |name: &String| name.eq_ignore_ascii_case(column);
        self.fields.iter().find(|field| field.column.as_ref().is_some_and(is_it))
    }

    /// The field with this name.
    pub(crate) fn field(&self, name: &str) -> Option<&Field> {
        self.fields.iter().find(|field| field.field == name)
    }

    /// The field that a name stands for as an alias. The oldest registration of each name counts; an alias of an alias is followed.
    pub(crate) fn canonical(&self, name: &str) -> Option<&str> {
        let mut found = self.registered(name)?;
        for _ in 0..self.aliases.len() {
            match self.registered(found) {
                Some(next) if next != name => found = next,
                _ => break,
            }
        }
        Some(found)
    }

    fn registered(&self, name: &str) -> Option<&str> {
        let first = self.aliases.iter().find(|alias| alias.alias == name)?;
        (first.field != name).then_some(&*first.field)
    }

    /// All names of a field besides its own, the oldest first.
    pub(crate) fn names_of(&self, field: &str) -> Vec<&str> {
        let mut names: Vec<&str> = Vec::new();
        for Alias { alias, .. } in &self.aliases {
            if alias != field && !names.contains(&&**alias) && self.canonical(alias) == Some(field) {
                names.push(alias);
            }
        }
        names
    }
}

fn fields(connection: &Connection, no: i64) -> Outcome<Vec<Field>> {
    let mut statement = connection
        .prepare_cached(
            "SELECT field, column_name, declared, added, fill, is_computed, known_fill, named_at, position, fill_rows FROM _entgldb_fields
             WHERE collection_no = ?1 ORDER BY field",
        )
        .doing("reading a table's fields")?;
    let found = statement.query_map([no], |row| {
        Ok(Field {
            field: row.get(0)?,
            column: row.get(1)?,
            declared: row.get(2)?,
            added: row.get(3)?,
            fill: row.get(4)?,
            is_computed: row.get(5)?,
            known_fill: row.get(6)?,
            named_at: row.get(7)?,
            position: row.get(8)?,
            fill_rows: row.get(9)?,
        })
    });
    found.and_then(Iterator::collect).doing("reading a table's fields")
}

fn aliases(connection: &Connection, no: i64) -> Outcome<Vec<Alias>> {
    let mut statement = connection
        .prepare_cached(
            "SELECT at, node, alias, field FROM _entgldb_aliases WHERE collection_no = ?1 ORDER BY at, field, alias, node",
        )
        .doing("reading a table's aliases")?;
    let found = statement.query_map([no], |row| {
        Ok(Alias { at: row.get(0)?, node: row.get(1)?, alias: row.get(2)?, field: row.get(3)? })
    });
    found.and_then(Iterator::collect).doing("reading a table's aliases")
}

/// Writes a field. To be called in a write transaction.
pub(crate) fn put(connection: &Connection, no: i64, field: &Field) -> Outcome<()> {
    connection
        .prepare_cached(
            "INSERT INTO _entgldb_fields(collection_no, field, column_name, declared, added, fill, is_computed, known_fill, named_at, position, fill_rows)
             VALUES(?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11) ON CONFLICT(collection_no, field) DO UPDATE SET
             column_name = excluded.column_name, declared = excluded.declared, added = excluded.added, fill = excluded.fill,
             is_computed = excluded.is_computed, known_fill = excluded.known_fill, named_at = excluded.named_at, position = excluded.position,
             fill_rows = excluded.fill_rows",
        )
        .and_then(|mut statement| {
            statement.execute((
                no,
                &field.field,
                &field.column,
                &field.declared,
                field.added,
                &field.fill,
                field.is_computed,
                &field.known_fill,
                field.named_at,
                field.position,
                field.fill_rows,
            ))
        })
        .doing("writing a field")?;
    Ok(())
}

/// Removes a field that was only another name of one.
pub(crate) fn remove(connection: &Connection, no: i64, field: &str) -> Outcome<()> {
    connection
        .execute("DELETE FROM _entgldb_fields WHERE collection_no = ?1 AND field = ?2", (no, field))
        .doing("removing a field")?;
    Ok(())
}

/// Registers an alias. One that is there already keeps its time.
pub(crate) fn put_alias(connection: &Connection, no: i64, alias: &Alias) -> Outcome<()> {
    connection
        .prepare_cached(
            "INSERT OR IGNORE INTO _entgldb_aliases(collection_no, alias, field, at, node) VALUES(?1, ?2, ?3, ?4, ?5)",
        )
        .and_then(|mut statement| {
            statement.execute((no, &alias.alias, &alias.field, alias.at, &alias.node))
        })
        .doing("registering an alias")?;
    Ok(())
}

/// The table that a collection was renamed to, if it was.
pub(crate) fn renamed_table(connection: &Connection, no: i64) -> Outcome<Option<String>> {
    if !tables::are_there(connection)? {
        return Ok(None);
    }
    connection
        .prepare_cached("SELECT name FROM _entgldb_tables WHERE collection_no = ?1")
        .and_then(|mut statement| statement.query_row([no], |row| row.get(0)).optional())
        .doing("reading a table's name")
}
