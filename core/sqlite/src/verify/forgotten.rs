//! Verifying rows whose entries are forgotten, and those of a snapshot: their contents must have the hashes that the rows
//! say. There is nothing else left to compare them with.

use entgldb_replica::clock::Stamp;
use entgldb_replica::id::{Collection, Key, sha256};
use entgldb_replica::version::Hash;

use crate::failed::Outcome;
use crate::fields::said;
use crate::journal::aside;
use crate::journal::member;
use crate::journal::names::{log_of, seq_of};
use crate::journal::schema;
use crate::reading::standing;
use crate::verify::Check;
use crate::verify::compare::{Compared, Found, RowRecord};

impl Check<'_> {
    /// Whether a row's entry is rightly not here.
    pub(crate) fn is_beyond_entries(&self, collection: &Collection, row: &RowRecord, stamp: Stamp) -> bool {
        let mut of_author = self
            .names
            .logs
            .iter()
            .filter(|(log, _)| log.author == stamp.node && log.collection == *collection);
        match row.entry {
            Some(entry) => of_author.any(|(_, end)| {
                end.no == log_of(entry) && seq_of(entry) <= end.floor && stamp.hlc <= end.floor_hlc
            }),
            None => self.is_joining || of_author.any(|(_, end)| stamp.hlc <= end.floor_hlc),
        }
    }

    /// A row whose entry is not here any more, or never was.
    pub(crate) fn without_entry(
        &mut self,
        no: i64,
        collection: &Collection,
        key: &Key,
        row: &RowRecord,
        stamp: Stamp,
        compared: Option<&Compared>,
    ) -> Outcome<Option<String>> {
        if *collection == *entgldb_replica::member::members() {
            return self.member(key, row);
        }
        if self.stated.contains(&no)
            && let Some(state) = schema::state(self.connection(), no, key.as_str())?
        {
            return self.merged_row(no, key, row, stamp, state, compared);
        }
        let Some(compared) = compared else { return Ok(None) };
        let Some(hash) = row.hash else { return self.table_row(no, key, row, None, compared) };
        if compared.noted.contains(key) {
            return Ok(None);
        }
        if let Some(aside) = aside::get(self.connection(), &self.names, no, key)? {
            let content = aside.content.filter(|content| sha256(content) == hash);
            // What is set aside is compared with itself once its hash is the row's.
            return match content {
                Some(content) => self.table_row(no, key, row, Some(&content), compared),
                None => Ok(Some("what is set aside does not have the row's content hash".into())),
            };
        }
        let Ok(columns) = compared.table.form.decode(key.as_str()) else {
            return Ok(Some("no row of the table can have this key, and it is not set aside".into()));
        };
        let Some(Found { now, extra }) = self.find_altered(key, row, compared, &columns)? else {
            return Ok(None);
        };
        Ok(match now {
            None if compared.is_scanning => None,
            None => Some("the table has no row for the document".into()),
            Some(_) if row.extra.is_some() && extra.is_none() => {
                Some("what is kept beside the row is not what the document says".into())
            }
            Some(now) => {
                let found = standing::with_hash(&compared.table, &now, extra.as_ref(), Hash(hash));
                found.is_none().then(|| {
                    "the table's row does not have the document's content hash, and its entry is forgotten: the row was \
                     altered, or a column was dropped"
                        .into()
                })
            }
        })
    }

    /// The document of a member.
    pub(crate) fn member(&mut self, key: &Key, row: &RowRecord) -> Outcome<Option<String>> {
        let content = member::read(self.connection(), key)?;
        if content.as_ref().map(|content| sha256(content)) != row.hash {
            return Ok(Some("the member's document does not have the row's content hash".into()));
        }
        let is_readable = content.as_ref().is_none_or(|content| {
            if said::parts(key).is_some() {
                said::Said::from_bytes(content).is_some()
            } else {
                entgldb_replica::member::Member::decode(content).is_some()
            }
        });
        Ok((!is_readable).then(|| "the member's document can't be read".into()))
    }
}
