//! What documents call the columns of the synced tables.

use std::collections::{BTreeMap, BTreeSet};

use entgldb_replica::id::Collection;
use entgldb_replica::member::members;

use super::Inspector;
use crate::failed::{Outcome, SqliteFailed, While};
use crate::fields::map::{self, Map};
use crate::fields::said;
use crate::journal::names::Names;
use crate::table::document::Extra;

/// Rows that are asked for fields without a column.
const ROWS_ASKED_MAX: i64 = 100_000;

/// The fields of a synced table.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TableFields {
    /// The name under which nodes sync it.
    pub collection: Collection,
    /// The table's name here, if it was renamed.
    pub renamed_to: Option<String>,
    /// Its fields, by name.
    pub fields: Vec<FieldInfo>,
    /// Fields that other members or their documents have and this table lacks, by name.
    pub lacking: Vec<LackingField>,
}

/// A field of a synced table.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct FieldInfo {
    /// What documents call it.
    pub field: String,
    /// Its column; `None` if that was dropped here.
    pub column: Option<String>,
    /// The column's declared type.
    pub declared: String,
    /// Other names that it has or had anywhere, the oldest first.
    pub aliases: Vec<String>,
    /// The value, as JSON, that rows get whose documents do not have the field, where a migration filled it in.
    pub fill: Option<String>,
}

/// A field that this node's table has no column for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LackingField {
    /// What documents call it.
    pub field: String,
    /// The declared type of its column, where a member says so.
    pub declared: Option<String>,
    /// Ids of the members that say that they have it.
    pub members: Vec<String>,
    /// Rows of this node whose documents have it.
    pub rows: u64,
}

impl Inspector {
    /// The fields of all synced tables.
    ///
    /// # Errors
    /// When the store can't be read.
    pub fn fields(&mut self) -> Result<Vec<TableFields>, SqliteFailed> {
        self.connection.execute_batch("BEGIN").doing("beginning to read")?;
        let found = Names::load(&self.connection).and_then(|names| {
            self.names = names;
            self.fields_now()
        });
        self.connection.execute_batch("COMMIT").doing("ending to read")?;
        found
    }

    fn fields_now(&self) -> Outcome<Vec<TableFields>> {
        let mut collections: Vec<&Collection> = self.names.tallies.keys().collect();
        collections.sort();
        let mut found = Vec::new();
        for collection in collections.into_iter().filter(|collection| *collection != members()) {
            let Some(no) = self.names.known_collection(collection) else { continue };
            let map = Map::read(&self.connection, no)?;
            if map.fields.is_empty() {
                continue;
            }
            let fields = map.fields.iter().map(|field| FieldInfo {
                field: field.field.clone(),
                column: field.column.clone(),
                declared: field.declared.clone(),
                aliases: map.names_of(&field.field).into_iter().map(str::to_owned).collect(),
                fill: field.known_fill.clone().or_else(|| field.fill.clone()),
            });
            found.push(TableFields {
                collection: collection.clone(),
                renamed_to: map::renamed_table(&self.connection, no)?,
                fields: fields.collect(),
                lacking: self.lacking(no, collection, &map)?,
            });
        }
        Ok(found)
    }

    fn lacking(&self, no: i64, collection: &Collection, map: &Map) -> Outcome<Vec<LackingField>> {
        let is_here = |name: &str| {
            let name = map.canonical(name).unwrap_or(name);
            map.fields.iter().any(|field| field.column.is_some() && field.field.eq_ignore_ascii_case(name))
        };
        let mut found: BTreeMap<String, LackingField> = BTreeMap::new();
        let lacks = |field: &str| LackingField {
            field: field.to_owned(),
            declared: None,
            members: Vec::new(),
            rows: 0,
        };
        for (node, of, said) in said::all(&self.connection)? {
            if !of.eq_ignore_ascii_case(collection.as_str()) {
                continue;
            }
            let theirs: BTreeSet<_> = said
                .fields
                .into_iter()
                .filter(|field| field.column.is_some())
                .map(|field| (field.field, field.declared))
                .collect();
            for (field, declared) in theirs.into_iter().filter(|(field, _)| !is_here(field)) {
                let lacking = found.entry(field.clone()).or_insert_with(|| lacks(&field));
                lacking.declared.get_or_insert(declared);
                lacking.members.push(node.clone());
            }
        }
        let mut statement = self
            .connection
            .prepare(
                "SELECT extra FROM _entgldb_rows WHERE collection_no = ?1 AND extra IS NOT NULL LIMIT ?2",
            )
            .doing("looking for fields without columns")?;
        let mut rows = statement.query((no, ROWS_ASKED_MAX)).doing("looking for fields without columns")?;
        while let Some(row) = rows.next().doing("looking for fields without columns")? {
            let extra: String = row.get(0).doing("looking for fields without columns")?;
            let Some(extra) = Extra::from_text(&extra) else { continue };
            for name in extra.unknown_fields().filter(|name| !is_here(name)) {
                found.entry(name.clone()).or_insert_with(|| lacks(name)).rows += 1;
            }
        }
        Ok(found.into_values().collect())
    }
}
