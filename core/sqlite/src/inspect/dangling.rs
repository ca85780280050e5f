//! Rows that refer to rows that are not there: a parent was deleted on one node while a child was added on another, or has not
//! come yet.
//!
//! They are looked for when somebody asks, so that the answer is true whatever the application has done about them.

use std::ops::ControlFlow;

use entgldb_replica::clock::{Hlc, WallMillis};
use entgldb_replica::member::members;
use entgldb_replica::store::ProblemKind;
use rusqlite::{Connection, OptionalExtension};

use super::{Inspector, ListedProblem};
use crate::failed::{Outcome, While};
use crate::fields::reconcile;
use crate::table::definition::Table;
use crate::table::key;
use crate::table::value::Sql;

const DOING: &str = "looking for dangling references";

/// Gives each row of a table that refers to nothing to `found`, with its key, if it has one that can travel, and the parent's table.
pub(crate) fn each(
    connection: &Connection,
    table: &Table,
    mut found: impl FnMut(Option<String>, &str) -> Outcome<ControlFlow<()>>,
) -> Outcome<ControlFlow<()>> {
    for reference in &table.references {
        let mut statement = connection.prepare(&reference.dangling).doing(DOING)?;
        let mut rows = statement.query([]).doing(DOING)?;
        while let Some(row) = rows.next().doing(DOING)? {
            let columns: Vec<Sql<'_>> = (0..table.key.len())
                .map(|column| Ok(Sql::from(row.get_ref(column)?)))
                .collect::<rusqlite::Result<_>>()
                .doing(DOING)?;
            let refs: Vec<_> = columns.iter().map(Sql::as_ref).collect();
            let key = table.form.encode(&refs).ok().map(|key| key.as_str().to_owned());
            if found(key, &reference.parent)?.is_break() {
                return Ok(ControlFlow::Break(()));
            }
        }
    }
    Ok(ControlFlow::Continue(()))
}

impl Inspector {
    /// Rows of watched tables that refer to nothing, at most `count`.
    pub(super) fn dangling(&self, count: usize) -> Outcome<Vec<ListedProblem>> {
        let encoding = key::encoding(&self.connection)?;
        let mut collections: Vec<_> = self.names.tallies.keys().collect();
        collections.sort();
        let mut listed = Vec::new();
        for collection in collections.into_iter().filter(|collection| **collection != *members()) {
            let Some(no) = self.names.known_collection(collection) else { continue };
            let Ok(table) = Table::read(&self.connection, no, collection, encoding)? else { continue };
            if table.references.is_empty() || !reconcile::is_known(&self.connection, no, &table.name)? {
                continue;
            }
            let _ = each(&self.connection, &table, |key, parent| {
                if listed.len() >= count {
                    return Ok(ControlFlow::Break(()));
                }
                // A row that can't travel is in the list for that.
                let Some(key) = key else { return Ok(ControlFlow::Continue(())) };
                listed.push(ListedProblem {
                    collection: collection.clone(),
                    kind: ProblemKind::Dangling,
                    message: message(parent),
                    version: None,
                    noted: self.written(no, &key)?,
                    key,
                });
                Ok(ControlFlow::Continue(()))
            })?;
        }
        Ok(listed)
    }

    /// When the version of a row that stands was written.
    fn written(&self, no: i64, key: &str) -> Outcome<WallMillis> {
        let hlc: Option<i64> = self
            .connection
            .prepare_cached("SELECT hlc FROM _entgldb_rows WHERE collection_no = ?1 AND key = ?2")
            .and_then(|mut statement| statement.query_row((no, key), |row| row.get(0)).optional())
            .doing(DOING)?;
        Ok(hlc.map_or(WallMillis(0), |hlc| Hlc(hlc.cast_unsigned()).wall()))
    }
}

fn message(parent: &str) -> String {
    format!(
        "it refers to a row of {parent:?} that is not there: write that row again, or change or delete this one; a migration that \
         checks all foreign keys refuses it"
    )
}
