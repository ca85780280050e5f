//! The content of the version of a document that stands, wherever it is: in its entry, in the application's table, set
//! aside, or in the document's state. Once its entry is forgotten, the table has the only copy.

use bytes::Bytes;
use entgldb_replica::clock::Stamp;
use entgldb_replica::entry::Op;
use entgldb_replica::id::{Collection, Key, sha256};
use entgldb_replica::member::members;
use entgldb_replica::merge::Merged;
use entgldb_replica::resolve::{Row, Version};
use entgldb_replica::version::Hash;
use rusqlite::{Connection, OptionalExtension};

use crate::failed::{Outcome, While};
use crate::journal::aside;
use crate::journal::journal::Journal;
use crate::journal::member;
use crate::journal::names::Names;
use crate::journal::{oplog, schema};
use crate::table::definition::Table;
use crate::table::document::{self, Extra};
use crate::table::rows;
use crate::table::value::Sql;

/// A row as the table of rows has it.
#[derive(Clone, Debug)]
pub(crate) struct Standing {
    pub(crate) key: Key,
    pub(crate) row: Row,
    /// Number of its entry, which may be forgotten.
    pub(crate) entry: Option<i64>,
    pub(crate) extra: Option<String>,
    /// Hash of what the table shows of it, where that is not the document.
    pub(crate) shown: Option<[u8; 32]>,
    /// Its state, if it has one.
    pub(crate) state: Option<Bytes>,
}

/// What is kept of a document that its row cannot hold.
pub(crate) fn extra_of(connection: &Connection, no: i64, key: &Key) -> Outcome<Option<Extra>> {
    connection
        .prepare_cached("SELECT extra FROM _entgldb_rows WHERE collection_no = ?1 AND key = ?2")
        .and_then(|mut statement| {
            statement.query_row((no, key.as_str()), |row| row.get::<_, Option<String>>(0)).optional()
        })
        .map(|extra| extra.flatten().and_then(|text| Extra::from_text(&text)))
        .doing("reading what a row cannot hold")
}

/// What is to be had of a document's content.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Content {
    /// The version that stands; `None` if it is deleted.
    Is(Option<Bytes>),
    /// It is nowhere as it was: the application has changed it since, or the table.
    Moved,
}

/// Where to look: a collection's number and table, if that is watched.
pub(crate) struct Source<'a> {
    pub(crate) connection: &'a Connection,
    pub(crate) names: &'a Names,
    pub(crate) collection: &'a Collection,
    pub(crate) no: i64,
    pub(crate) table: Option<&'a Table>,
    pub(crate) anything_aside: bool,
}

impl<'a> Source<'a> {
    /// The contents of a collection of a journal.
    pub(crate) fn of(
        journal: &'a Journal,
        collection: &'a Collection,
        no: i64,
        table: Option<&'a Table>,
    ) -> Outcome<Self> {
        let Journal { connection, names, .. } = journal;
        Ok(Self { connection, names, collection, no, table, anything_aside: aside::any(connection)? })
    }
}

impl Source<'_> {
    /// The content of a document's version that stands.
    pub(crate) fn content(&self, standing: &Standing) -> Outcome<Content> {
        let Some(hash) = standing.row.content else { return self.deleted(standing) };
        if *self.collection == *members() {
            let content = member::read(self.connection, &standing.key)?.filter(|found| is(found, hash));
            return Ok(content.map_or(Content::Moved, |content| Content::Is(Some(content))));
        }
        if let Some(content) = self.in_table(standing, hash)? {
            return Ok(Content::Is(Some(content)));
        }
        if self.anything_aside
            && let Some(aside) = aside::get(self.connection, self.names, self.no, &standing.key)?
            && let Some(content) = aside.content.filter(|content| is(content, hash))
        {
            return Ok(Content::Is(Some(content)));
        }
        if let Some(entry) = standing.entry
            && let Some(version) = oplog::entry_at(self.connection, self.names, entry)?
            && let Some(content) = version.content().filter(|content| is(content, hash))
        {
            return Ok(Content::Is(Some(content)));
        }
        // A document with a state is what that says, however the table writes it.
        let state = match &standing.state {
            Some(state) => Some(state.clone()),
            // The first formats have no table for them.
            None if self.names.proves => {
                schema::state(self.connection, self.no, standing.key.as_str())?.map(Bytes::from)
            }
            None => None,
        };
        let state = state.and_then(|state| Merged::decode(state, standing.row.stamp).ok());
        let content = state.and_then(|state| state.content());
        Ok(content.map_or(Content::Moved, |content| Content::Is(Some(content))))
    }

    /// A deleted document has no content, unless somebody has made it anew since.
    fn deleted(&self, standing: &Standing) -> Outcome<Content> {
        let Some((table, columns)) = self.place(&standing.key) else { return Ok(Content::Is(None)) };
        let now = rows::read(self.connection, table, &columns).doing("reading a row")?;
        let is_gone = now.is_none()
            || (self.anything_aside
                && aside::get(self.connection, self.names, self.no, &standing.key)?.is_some());
        Ok(if is_gone { Content::Is(None) } else { Content::Moved })
    }

    fn place<'k>(&self, key: &'k Key) -> Option<(&Table, Vec<Sql<'k>>)> {
        let table = self.table?;
        Some((table, table.form.decode(key.as_str()).ok()?))
    }

    fn in_table(&self, standing: &Standing, hash: Hash) -> Outcome<Option<Bytes>> {
        let Some((table, columns)) = self.place(&standing.key) else { return Ok(None) };
        if standing.extra.is_none() {
            // Nearly always this is it, and no value is copied for it.
            let content = rows::read_content(self.connection, table, &columns, None);
            match content.doing("reading a row")?.map(Bytes::from) {
                Some(content) if is(&content, hash) => return Ok(Some(content)),
                Some(_) => {}
                None => return Ok(None),
            }
        }
        let Some(now) = rows::read(self.connection, table, &columns).doing("reading a row")? else {
            return Ok(None);
        };
        let extra = standing.extra.as_deref().and_then(Extra::from_text);
        Ok(with_hash(table, &now, extra.as_ref(), hash))
    }
}

fn is(content: &Bytes, hash: Hash) -> bool {
    sha256(content) == hash.0
}

/// The document that a row gives, if it has this hash: as the table is now, or as it was before columns were added to it
/// that nobody has set in this row, or before a column was known to be one of another name.
pub(crate) fn with_hash(table: &Table, row: &[Sql<'_>], extra: Option<&Extra>, hash: Hash) -> Option<Bytes> {
    let found = before_additions(table, row, extra, hash);
    if found.is_some() || table.aliases.is_empty() {
        return found;
    }
    former_names(table).iter().find_map(|former| before_additions(former, row, extra, hash))
}

fn before_additions(table: &Table, row: &[Sql<'_>], extra: Option<&Extra>, hash: Hash) -> Option<Bytes> {
    let content = document::content(table, row, extra);
    if sha256(&content) == hash.0 {
        return Some(content.into());
    }
    let is_unset = |position: &usize| {
        let column = &table.columns[*position];
        let absent = column.absent.as_ref();
        !table.key.contains(position)
            && absent
                .map_or(column.added > 0, |json| *json == document::json_of(&row[*position]).into_bytes())
    };
    // The columns in the order in which they were added: the last of them is the first to go.
    let mut order: Vec<usize> = (0..table.columns.len()).collect();
    order.sort_by_key(|position| (table.columns[*position].added, *position));
    while order.pop().filter(is_unset).is_some() {
        let mut left = order.clone();
        left.sort_unstable();
        let (before, row) = table.only(row, &left);
        let content = document::content(&before, &row, extra);
        if sha256(&content) == hash.0 {
            return Some(content.into());
        }
    }
    None
}

/// The table as it writes documents with other names of its fields: all of their youngest ones, or one of them.
fn former_names(table: &Table) -> Vec<Table> {
    let mut all = table.columns.clone();
    for (alias, position) in &table.aliases {
        all[*position].field.clone_from(alias);
    }
    let one = |(alias, position): &(String, usize)| {
        let mut columns = table.columns.clone();
        columns[*position].field.clone_from(alias);
        columns
    };
    let each = table.aliases.iter().map(one);
    std::iter::once(all).chain(each).map(|columns| table.with_columns(columns)).collect()
}

/// The version that stands, as far as its content is to be had.
pub(crate) fn version(source: &Source<'_>, standing: &Standing, stamp: &Stamp) -> Outcome<Option<Version>> {
    if standing.row.stamp != *stamp {
        return Ok(None);
    }
    Ok(match source.content(standing)? {
        Content::Is(Some(payload)) => Some(Version { replaces: None, op: Op::Put, payload }),
        Content::Is(None) => Some(Version { replaces: None, op: Op::Delete, payload: Bytes::new() }),
        Content::Moved => None,
    })
}
