//! Ways into the parts of this crate that read documents of other nodes, for fuzzers. No part of the public interface: it
//! may change at any time.

use entgldb_replica::id::{Collection, Key};
use rusqlite::Connection;

use crate::json::{self, Kind};
use crate::table::definition::Table;
use crate::table::document::{self, Extra};
use crate::table::key::Encoding;
use crate::table::rows;
use crate::table::value::Sql;

/// A member of a document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Its name, without escapes.
    pub name: String,
    /// The text of its value, as it came.
    pub raw: String,
    /// The same without white space.
    pub compact: String,
    /// If it is a string: the string.
    pub text: Option<String>,
}

/// What the reader of documents says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Read {
    /// A document.
    Document(Vec<Member>),
    /// JSON that is no document for a reason beyond its grammar: its depth, a key twice, a number too large, no object.
    Refused,
    /// No JSON.
    NotJson,
}

/// Takes a document apart.
#[must_use]
pub fn read_document(content: &[u8]) -> Read {
    let fields = match json::fields(content) {
        Ok(fields) => fields,
        Err(json::JsonFault::NotUtf8 | json::JsonFault::Syntax { .. }) => return Read::NotJson,
        Err(_) => return Read::Refused,
    };
    let member = |field: json::Field<'_>| Member {
        text: match field.kind {
            Kind::Text { escaped } => Some(json::unescaped(field.raw, escaped).into_owned()),
            _ => None,
        },
        compact: json::compact(field.raw),
        raw: field.raw.to_owned(),
        name: field.name.into_owned(),
    };
    Read::Document(fields.into_iter().map(member).collect())
}

/// The elements of an array, as text; `None` if it is none.
#[must_use]
pub fn read_array(text: &str) -> Option<Vec<&str>> {
    json::elements(text).ok().map(|elements| elements.into_iter().map(|(raw, _)| raw).collect())
}

/// A table of a database in memory, into which documents are put.
pub struct Shelf {
    connection: Connection,
    table: Table,
}

/// What became of a document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Put {
    /// The table can't hold it.
    Refused,
    /// It is a row now.
    Row {
        /// What capturing the row gives, with what is kept beside it.
        content: Vec<u8>,
        /// Whether anything is kept beside the row.
        has_extra: bool,
        /// Whether the row alone was expected to give the document again.
        is_exact: bool,
        /// The key that the row gives, if it has one.
        key: Option<String>,
    },
}

impl Shelf {
    /// A table made by this SQL, which must name it `t`.
    ///
    /// # Panics
    /// When there is no such table, or it can't be watched: the caller's bug.
    #[must_use]
    pub fn new(sql: &str) -> Self {
        let connection = Connection::open_in_memory().expect("a database in memory opens");
        crate::file::connection::harden(&connection).expect("the settings of every connection of ours");
        connection.execute_batch(sql).expect("the SQL is valid");
        let collection = Collection::new("t").expect("a valid name");
        let read = Table::read(&connection, 1, &collection, Encoding::Utf8).ok();
        let table = read.and_then(Result::ok).expect("the table can be watched");
        Self { connection, table }
    }

    /// Puts a document into the empty table, and takes it out again as capture would.
    ///
    /// # Panics
    /// When the row that was put is not there.
    pub fn put(&mut self, key: &Key, document: &[u8]) -> Put {
        let Ok(parsed) = document::parse(&self.table, key, document) else { return Put::Refused };
        let transaction = self.connection.unchecked_transaction().expect("a transaction begins");
        if !matches!(rows::put(&transaction, &self.table, &parsed), Ok(1)) {
            return Put::Refused;
        }
        let names = self.table.columns.iter().map(|column| crate::quote::identifier(&column.name));
        let sql = format!("SELECT {} FROM t", names.collect::<Vec<_>>().join(","));
        let row: Vec<Sql<'static>> = transaction
            .prepare_cached(&sql)
            .and_then(|mut select| {
                let count = self.table.columns.len();
                select.query_one([], |row| {
                    (0..count).map(|at| Ok(Sql::from(row.get_ref(at)?).into_owned())).collect()
                })
            })
            .expect("exactly the row that was put");
        drop(transaction);
        let extra = Extra::of(&self.table, document, &row).map(|extra| extra.to_text());
        let kept = extra.as_deref().map(|text| Extra::from_text(text).expect("it reads what it wrote"));
        let columns: Vec<_> = self.table.key.iter().map(|position| row[*position].as_ref()).collect();
        Put::Row {
            content: document::content(&self.table, &row, kept.as_ref()),
            has_extra: extra.is_some(),
            is_exact: parsed.is_exact,
            key: self.table.form.encode(&columns).ok().map(|key| key.as_str().to_owned()),
        }
    }
}
