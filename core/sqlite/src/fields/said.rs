//! What nodes tell each other of their tables: a document for each node and table, written by that node alone, among those of the
//! members. Every node folds all of them in the same way.

use entgldb_replica::id::{Collection, Key, NodeId};
use rusqlite::Connection;
use serde::{Deserialize, Serialize};

use crate::failed::{Outcome, While};
use crate::fields::map::{self, Alias, Map};
use crate::journal::schema;

/// How the keys of these documents begin. No id of a member does.
pub(crate) const PREFIX: &str = "fields/";
/// The first text after all that begin so.
const AFTER_PREFIX: &str = "fields0";
/// Fields and aliases that are read of one document. SQLite allows 2,000 columns, unless it is built otherwise.
const SAID_MAX: usize = 4_096;

/// What a node says of a table.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct Said {
    /// The table's name there.
    pub(crate) table: String,
    pub(crate) fields: Vec<SaidField>,
    pub(crate) aliases: Vec<SaidAlias>,
}

/// What a node says of a field.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct SaidField {
    pub(crate) field: String,
    /// Its column there; none if that was dropped.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) column: Option<String>,
    /// The column's declared type.
    pub(crate) declared: String,
    /// The value, as JSON, that all rows had when the column was added.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) fill: Option<String>,
    /// Whether that was a single row, which somebody may have written since.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) one_row: bool,
    /// When it got its column, in milliseconds since 1970.
    pub(crate) at: i64,
}

/// Another name of a field.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct SaidAlias {
    pub(crate) alias: String,
    pub(crate) field: String,
    pub(crate) at: i64,
}

impl Said {
    /// Reads such a document. `None` if it is none.
    pub(crate) fn from_bytes(content: &[u8]) -> Option<Self> {
        let said: Self = serde_json::from_slice(content).ok()?;
        (said.fields.len() + said.aliases.len() <= SAID_MAX).then_some(said)
    }

    /// The document's bytes: always the same for the same.
    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("lists of texts and numbers are always JSON")
    }
}

/// The key of a node's document about a table.
pub(crate) fn key(node: &NodeId, collection: &Collection) -> Option<Key> {
    Key::new(&format!("{PREFIX}{node}/{collection}")).ok()
}

/// This node's id as a text, once it has written something.
fn own_id(connection: &Connection) -> Outcome<Option<String>> {
    let owner: Option<[u8; 32]> = schema::get(connection, "owner")?;
    Ok(owner.map(|node| NodeId(node).to_string()))
}

/// The node that such a document is of, and the collection that it is about; `None` if the key is none of theirs.
pub(crate) fn parts(key: &Key) -> Option<(&str, &str)> {
    key.as_str().strip_prefix(PREFIX)?.split_once('/')
}

/// What this node has to say of a table. `None` while documents call everything as the table does, and always have.
pub(crate) fn own(connection: &Connection, no: i64, collection: &Collection) -> Outcome<Option<Said>> {
    let map = Map::read(connection, no)?;
    let renamed = map::renamed_table(connection, no)?;
    let is_plain =
        map.fields.iter().all(|field| field.added == 0 && field.column.as_ref() == Some(&field.field));
    let aliases: Vec<SaidAlias> = map
        .aliases
        .iter()
        .filter(|alias| alias.node.is_empty())
        .map(|alias| SaidAlias { alias: alias.alias.clone(), field: alias.field.clone(), at: alias.at })
        .collect();
    if is_plain && aliases.is_empty() && renamed.is_none() {
        return Ok(None);
    }
    let fields = map.fields.into_iter().map(|field| SaidField {
        field: field.field,
        column: field.column,
        declared: field.declared,
        fill: field.fill,
        one_row: field.fill_rows == 1,
        at: field.named_at,
    });
    let table = renamed.unwrap_or_else(|| collection.as_str().to_owned());
    Ok(Some(Said { table, fields: fields.collect(), aliases }))
}

/// What all nodes say: node, collection and document. Documents that cannot be read are passed over.
pub(crate) fn all(connection: &Connection) -> Outcome<Vec<(String, String, Said)>> {
    all_where(connection, |_| true)
}

/// What all nodes say of those collections.
fn all_where(
    connection: &Connection,
    mut is_wanted: impl FnMut(&str) -> bool,
) -> Outcome<Vec<(String, String, Said)>> {
    let mut statement = connection
        .prepare_cached("SELECT key, content FROM _entgldb_members WHERE key >= ?1 AND key < ?2 ORDER BY key")
        .doing("reading what members say of their tables")?;
    let mut rows =
        statement.query([PREFIX, AFTER_PREFIX]).doing("reading what members say of their tables")?;
    let mut found = Vec::new();
    while let Some(row) = rows.next().doing("reading what members say of their tables")? {
        let read = || Ok((row.get::<_, String>(0)?, row.get::<_, Vec<u8>>(1)?));
        let (key, content) = read().doing("reading what members say of their tables")?;
        let Some((node, collection)) = key[PREFIX.len()..].split_once('/') else { continue };
        if !is_wanted(collection) {
            continue;
        }
        found.extend(Said::from_bytes(&content).map(|said| (node.to_owned(), collection.to_owned(), said)));
    }
    Ok(found)
}

/// Takes over what other nodes say of a collection: their aliases, and the fills that all agree on. To be called in a write transaction.
pub(crate) fn learn(connection: &Connection, no: i64, collection: &Collection) -> Outcome<()> {
    let own = own_id(connection)?;
    let said: Vec<(String, Said)> = all_where(connection, |of| of.eq_ignore_ascii_case(collection.as_str()))?
        .into_iter()
        .map(|(node, _, said)| (node, said))
        .collect();
    for (node, said) in said.iter().filter(|(node, _)| own.as_ref() != Some(node)) {
        for SaidAlias { alias, field, at } in &said.aliases {
            let alias = Alias { at: *at, field: field.clone(), alias: alias.clone(), node: node.clone() };
            map::put_alias(connection, no, &alias)?;
        }
    }
    for field in Map::read(connection, no)?.fields {
        let mine = field.fill.as_ref().map(|fill| (field.fill_rows == 1, field.named_at, fill));
        let theirs = said.iter().flat_map(|(_, said)| &said.fields).filter(|said| said.field == field.field);
        let fills = theirs.filter_map(|said| Some((said.one_row, said.at, said.fill.as_ref()?))).chain(mine);
        let known = fills.min().map(|(_, _, fill)| fill.clone());
        if known.is_some() && known != field.known_fill {
            map::put(connection, no, &map::Field { known_fill: known, ..field.clone() })?;
        }
    }
    Ok(())
}
