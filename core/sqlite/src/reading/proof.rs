//! The proof that a row of the application's table is as the engine left it.
//!
//! Notes of triggers say where to look first. They do not prove that nothing else has changed: a table may have been built
//! again without triggers, a connection may have switched them off, a BLOB may have been written in place. So before a row
//! is changed, and when a table is looked through, what it shows is compared with what is known of its document.

use bytes::Bytes;
use entgldb_replica::entry::Op;
use entgldb_replica::id::{Key, sha256};
use entgldb_replica::merge::Merged;
use rusqlite::{Connection, ErrorCode, OptionalExtension};

use crate::failed::{Outcome, While, code};
use crate::fields::gone;
use crate::journal::aside::{self, Reason};
use crate::journal::names::Names;
use crate::journal::{oplog, schema};
use crate::reading::outgoing;
use crate::reading::standing::{Standing, with_hash};
use crate::table::definition::Table;
use crate::table::document::{self, Extra};
use crate::table::rows;
use crate::table::value::Sql;

/// Earlier versions of a document that a row is compared with, at most.
const EARLIER_VERSIONS_MAX: usize = 64;

/// Stands for what a row shows whose document is too large to be read.
pub(crate) fn shown_too_large() -> [u8; 32] {
    sha256(b"too large to read")
}

/// What a row proves to be.
#[derive(Debug)]
pub(crate) enum Verdict {
    /// As the engine left it, or absent where nothing is known of it.
    AsLeft,
    /// There is no row although its document exists. That alone is no deletion: a table may be in the middle of being built.
    Gone,
    /// An earlier version of its document: the table was filled from an older copy.
    OldCopy,
    /// Its document under another schema. This is the hash of what it shows now.
    OtherSchema([u8; 32]),
    /// What the application wrote and what cannot travel, with the message that says why.
    CannotTravel { content: Option<Bytes>, noted_at: i64 },
    /// Something that the engine did not leave there.
    Found,
}

/// Where to look.
pub(crate) struct Witness<'a> {
    pub(crate) connection: &'a Connection,
    pub(crate) names: &'a Names,
    pub(crate) anything_aside: bool,
    /// Whether columns may hold what a migration has computed for them.
    pub(crate) after_migration: bool,
}

/// A row, what is kept of its document that it cannot hold, and the content that both give.
type Row<'r> = (&'r [Sql<'r>], Option<&'r Extra>, Vec<u8>);

impl<'a> Witness<'a> {
    pub(crate) fn new(connection: &'a Connection, names: &'a Names) -> Outcome<Self> {
        Ok(Self { connection, names, anything_aside: aside::any(connection)?, after_migration: false })
    }

    /// Compares the row of a document with what is known of it.
    pub(crate) fn judge(&self, table: &Table, key: &Key, columns: &[Sql<'_>]) -> Outcome<Verdict> {
        let known = outgoing::standing(self.connection, self.names, table.no, key.as_str())?;
        let row = match rows::read(self.connection, table, columns) {
            Ok(row) => row,
            Err(error) if code(&error) == Some(ErrorCode::TooBig) => {
                return self.other(table, key, (known.as_ref(), shown_too_large()), None);
            }
            Err(source) => return Err(source).doing("reading a row"),
        };
        let Some(row) = row else {
            let exists = known.is_some_and(|known| known.row.content.is_some());
            let is_kept_out = exists && self.is_kept_out(table, key)?;
            return Ok(if exists && !is_kept_out { Verdict::Gone } else { Verdict::AsLeft });
        };
        let extra = known.as_ref().and_then(|known| known.extra.as_deref()).and_then(Extra::from_text);
        let extra = gone::carried(self.connection, self.names, table, key, extra)?;
        let content = document::content(table, &row, extra.as_ref());
        let hash = sha256(&content);
        if let Some(known) = &known
            && (known.row.content.is_some_and(|known| known.0 == hash) || known.shown == Some(hash))
        {
            return Ok(Verdict::AsLeft);
        }
        self.other(table, key, (known.as_ref(), hash), Some((&row, extra.as_ref(), content)))
    }

    /// What a row is that does not show its document.
    fn other(
        &self,
        table: &Table,
        key: &Key,
        (known, hash): (Option<&Standing>, [u8; 32]),
        row: Option<Row<'_>>,
    ) -> Outcome<Verdict> {
        if self.anything_aside
            && let Some(aside) = aside::get(self.connection, self.names, table.no, key)?
            && matches!(aside.reason, Reason::Refused { table_hash: Some(left), .. } if left == hash)
        {
            return Ok(Verdict::AsLeft);
        }
        if let Some(noted_at) = self.is_problem(table.no, key, hash)? {
            let content = row.map(|(_, _, content)| Bytes::from(content));
            return Ok(Verdict::CannotTravel { content, noted_at });
        }
        let (Some(known), Some((row, extra, _))) = (known, row) else {
            return Ok(Verdict::Found);
        };
        let shows = |document: &[u8]| {
            document::row_matches(table, key, document, row, extra)
                || (self.after_migration && document::row_holds(table, key, document, row))
        };
        let is_other_schema = match self.document(table.no, known)? {
            Some(document) => shows(&document),
            // Its entry is forgotten: the content hash is all there is to compare with.
            None => known.row.content.is_some_and(|known| with_hash(table, row, extra, known).is_some()),
        };
        if is_other_schema {
            return Ok(Verdict::OtherSchema(hash));
        }
        let is_old = self.replaced_any(table, key, known, &shows)? || self.lost_any(table.no, key, &shows)?;
        Ok(if is_old { Verdict::OldCopy } else { Verdict::Found })
    }

    /// Whether a version that the one that stands has replaced, directly or through others, is one of these.
    fn replaced_any(
        &self,
        table: &Table,
        key: &Key,
        known: &Standing,
        is_it: &impl Fn(&[u8]) -> bool,
    ) -> Outcome<bool> {
        let doc = (table.collection.clone(), key.clone());
        let mut entry = known.entry;
        for _ in 0..EARLIER_VERSIONS_MAX {
            let Some(id) = entry else { break };
            let Some(version) = oplog::entry_at(self.connection, self.names, id)? else { break };
            let Some(stamp) = version.replaces else { break };
            entry = oplog::entry_of(self.connection, self.names, &doc, &stamp)?;
            let Some(id) = entry else { break };
            let earlier = oplog::entry_at(self.connection, self.names, id)?;
            if earlier.and_then(|version| version.content()).is_some_and(|content| is_it(&content)) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Whether a version in the conflict list, which lost against the one that stands or one before it, is one of these.
    fn lost_any(&self, no: i64, key: &Key, is_it: &impl Fn(&[u8]) -> bool) -> Outcome<bool> {
        let mut statement = self
            .connection
            .prepare_cached(
                "SELECT loser_content FROM _entgldb_conflicts WHERE collection_no = ?1 AND key = ?2
                 AND loser_content IS NOT NULL ORDER BY id DESC LIMIT ?3",
            )
            .doing("reading conflicts")?;
        let limit = EARLIER_VERSIONS_MAX.cast_signed();
        let mut found = statement.query((no, key.as_str(), limit)).doing("reading conflicts")?;
        while let Some(row) = found.next().doing("reading conflicts")? {
            let content: Vec<u8> = row.get(0).doing("reading conflicts")?;
            if is_it(&content) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// The document of the version that stands, as far as it is kept outside of the table.
    fn document(&self, no: i64, known: &Standing) -> Outcome<Option<Bytes>> {
        if known.row.content.is_none() {
            return Ok(None);
        }
        if let Some(entry) = known.entry
            && let Some(version) = oplog::entry_at(self.connection, self.names, entry)?
            && version.op == Op::Put
        {
            return Ok(version.content());
        }
        let state = schema::state(self.connection, no, known.key.as_str())?;
        let state = state.and_then(|state| Merged::decode(state.into(), known.row.stamp).ok());
        Ok(state.and_then(|state| state.content()))
    }

    /// Whether the document collides with a younger one, so that the table rightly has no row for it; or whether the table
    /// itself was missing when it came.
    fn is_kept_out(&self, table: &Table, key: &Key) -> Outcome<bool> {
        Ok(self.anything_aside && aside::get(self.connection, self.names, table.no, key)?.is_some())
    }

    /// When it was noted that what a row shows can't travel, if it was.
    fn is_problem(&self, no: i64, key: &Key, shown: [u8; 32]) -> Outcome<Option<i64>> {
        self.connection
            .prepare_cached(
                "SELECT noted_at FROM _entgldb_problems WHERE collection_no = ?1 AND key = ?2 AND shown = ?3",
            )
            .and_then(|mut statement| {
                statement.query_row((no, key.as_str(), shown.as_slice()), |row| row.get(0)).optional()
            })
            .doing("reading problems")
    }
}
