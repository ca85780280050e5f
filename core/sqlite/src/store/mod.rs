//! The store of a replica in the application's own database.

mod count;
mod health;
mod looking;
mod reading;
mod tables;
mod tend;
mod watching;

use std::collections::{BTreeSet, HashSet};

use bytes::Bytes;
use entgldb_replica::clock::{Hlc, Stamp, WallMillis};
use entgldb_replica::entry::SignedHead;
use entgldb_replica::id::{Collection, DocId, Key, LogId, NodeId, sha256};
use entgldb_replica::member::{Member, members};
use entgldb_replica::resolve::{Row, Version};
use entgldb_replica::store::{
    Change, Commit, Committed, Drain, Durable, Guard, Problem, ReadLimits, RowWrite, Scan, ScanLimits, Store,
    Stored, UnitLimits,
};
use entgldb_replica::version::{Hash, Seq};

pub use count::LookedThrough;
pub use health::TableHealth;
pub use tables::SqliteStore;

use crate::apply::applying::Applying;
use crate::capture::outbox::{Drained, Look};
use crate::capture::scan;
use crate::failed::{Outcome, SqliteFailed};
use crate::fields::{self, gone, names, said};
use crate::journal::commit::carry_out;
use crate::journal::member;
use crate::reading::standing::extra_of;

impl Store for SqliteStore {
    type Error = SqliteFailed;

    fn load(&mut self) -> Outcome<Durable> {
        self.journal.load()
    }

    fn captured(&mut self, limits: &UnitLimits) -> Outcome<Drain> {
        self.journal.look_at_file()?;
        self.begin_to_look_all_through()?;
        self.refresh()?;
        let (problems, more) = self.catch_up()?;
        let mut drain = self.look(limits)?;
        drain.more |= more;
        drain.refused.extend(problems);
        drain.refused.append(&mut self.news_of_schema()?);
        Ok(drain)
    }

    fn rows(&mut self, docs: &[DocId]) -> Outcome<Vec<Option<Row>>> {
        self.journal.rows(docs)
    }

    fn merged(&mut self, docs: &[DocId]) -> Outcome<Vec<Option<Bytes>>> {
        self.journal.merged(docs)
    }

    fn json_fields(&self, collection: &Collection) -> BTreeSet<String> {
        let columns = self.watched.table(collection).into_iter().flat_map(|table| &table.columns);
        columns.filter(|column| column.is_json).map(|column| column.field.clone()).collect()
    }

    fn version(&mut self, doc: &DocId, stamp: &Stamp) -> Outcome<Option<Version>> {
        match self.journal.version(doc, stamp)? {
            None => self.standing_version(doc, stamp),
            found => Ok(found),
        }
    }

    fn read_log(&mut self, log: &LogId, after: Seq, limits: &ReadLimits) -> Outcome<Vec<Stored>> {
        self.journal.read_log(log, after, limits)
    }

    fn last_at(&mut self, log: &LogId, hlc: Hlc) -> Outcome<Seq> {
        self.journal.last_at(log, hlc)
    }

    fn hash_at(&mut self, log: &LogId, seq: Seq) -> Outcome<Option<Hash>> {
        self.journal.hash_at(log, seq)
    }

    fn signed_until(&mut self, log: &LogId, seq: Seq) -> Outcome<Option<SignedHead>> {
        self.journal.signed_until(log, seq)
    }

    fn signed_from(&mut self, log: &LogId, seq: Seq) -> Outcome<Option<SignedHead>> {
        self.journal.signed_from(log, seq)
    }

    fn scan(&mut self, collection: &Collection, after: Option<&Key>, limits: &ScanLimits) -> Outcome<Scan> {
        self.scan_rows(collection, after, limits)
    }

    fn commit(&mut self, commit: &Commit) -> Outcome<Committed> {
        let guard = commit.guard;
        // To the replica this is a guard that does not hold: the peer is told to come again.
        if guard != Guard::None && !self.journal.has_room() {
            return Ok(Committed::OutboxMoved);
        }
        let refused = self.journal.take_refused(commit.drained);
        let looked = self.looked.take();
        let copying = self.looking.copying.take();
        let problems = self.transact(commit.wall, |applying| {
            carry_out(applying, commit, guard)?;
            applying.step.note_refused(&refused, &commit.rows)?;
            keep_gone(applying, commit)?;
            if let (Some(copying), Some(captured)) = (&copying, commit.first_copy) {
                copying.commit(applying.step.connection, captured)?;
            }
            if let Some((mark, looked)) = &looked
                && commit.drained == Some(*mark)
            {
                note_unchanged(applying, looked, commit)?;
            }
            Ok(true)
        });
        if let Ok(kept) = &problems {
            self.hear(commit)?;
            if kept.is_some() && commit.drained.is_some() {
                self.was_captured();
            }
        }
        self.journal.committed(guard, refused, problems)
    }

    fn tend(&mut self, conflicts_before: WallMillis) -> Outcome<Vec<Problem>> {
        self.tend_all(conflicts_before)
    }

    fn about(&mut self, node: &NodeId) -> Outcome<Vec<(Key, Bytes)>> {
        let to_tell = std::mem::take(&mut self.to_tell);
        let connection = &self.journal.connection;
        let mut found = Vec::new();
        for table in to_tell.iter().filter_map(|no| self.watched.numbered(*no)) {
            let Some(key) = said::key(node, &table.collection) else { continue };
            let Some(said) = said::own(connection, table.no, &table.collection)? else { continue };
            let content = Bytes::from(said.to_bytes());
            if member::read(connection, &key)?.as_ref() != Some(&content) {
                found.push((key, content));
            }
        }
        Ok(found)
    }
}

impl SqliteStore {
    /// Heeds what members say of their tables.
    fn hear(&mut self, commit: &Commit) -> Outcome<()> {
        let heard = commit.rows.iter().filter(|row| row.doc.0 == *members() && row.apply.is_some());
        let own = commit.owner.0.to_string();
        let (mut fields, mut interests) = (false, false);
        for row in heard {
            let member = row.apply.iter().flatten().find_map(Member::decode);
            if let Some((_, collection)) = said::parts(&row.doc.1).filter(|(node, _)| *node != own) {
                fields = true;
                self.watched.expire(collection);
            }
            interests |= member.is_some_and(|member| {
                let differs =
                    |name: &&Collection| self.watch.iter().any(|ours| ours.differs_in_capitals(name));
                member.interests.iter().any(|name| differs(&name))
            });
        }
        if fields || interests {
            self.is_known_otherwise = names::differ(&self.journal.connection, self.watched.tables())?;
        }
        Ok(())
    }
}

/// Keeps the fields of captured documents that have no column here.
fn keep_gone(applying: &Applying<'_>, commit: &Commit) -> Outcome<()> {
    for run in &commit.appended {
        let Some(table) = applying.table(&run.log.collection).filter(|table| !table.gone.is_empty()) else {
            continue;
        };
        for linked in &run.entries {
            let entry = linked.entry();
            let is_local = |row: &&RowWrite| {
                row.apply.is_none() && row.doc.1 == entry.key && row.doc.0 == run.log.collection
            };
            if let Some(content) = entry.content().filter(|_| commit.rows.iter().any(|row| is_local(&row))) {
                let (connection, key) = (applying.step.connection, &entry.key);
                gone::keep(connection, table, key, extra_of(connection, table.no, key)?, content)?;
            }
        }
    }
    Ok(())
}

impl SqliteStore {
    /// Looks for what is to be captured next.
    fn look(&mut self, limits: &UnitLimits) -> Outcome<Drain> {
        loop {
            self.refresh()?;
            self.begin_to_count()?;
            self.look_through()?;
            let copies_first = !self.looking.urgent.is_empty() || self.looking.took_notes;
            if copies_first && let Some(copies) = self.copies(limits)? {
                return Ok(copies);
            }
            let holds_any = self.hold_notes()?;
            let drain = self.drain(limits)?;
            if drain.mark.is_some() {
                return Ok(drain);
            }
            if let Some(copies) = self.copies(limits)? {
                return Ok(copies);
            }
            if !holds_any || !scan::first_watched(&self.journal.connection, &self.watched)?.is_empty() {
                return Ok(drain);
            }
            // The last first copies were found to be none, and the notes that waited for them are back.
        }
    }

    /// What a person should know of the tables' schemas, once for each time that it is found.
    fn news_of_schema(&mut self) -> Outcome<Vec<Problem>> {
        if !self.has_schema_news {
            return Ok(Vec::new());
        }
        self.has_schema_news = false;
        let all = fields::problems::all(&self.journal.connection, &self.journal.names)?;
        let news = all.iter().filter(|problem| !self.told.contains(problem)).cloned().collect();
        self.told = all;
        Ok(news)
    }

    /// Looks into the outbox.
    fn drain(&mut self, limits: &UnitLimits) -> Outcome<Drain> {
        let Self { journal, watched, .. } = &*self;
        let look = Look { connection: &journal.connection, names: &journal.names, watched, limits };
        let Drained { mut drain, refused } = journal.read(|| look.drain())?;
        drain.more |= self.is_scanning()?;
        self.looking.took_notes = drain.mark.is_some();
        self.journal.keep_refused(refused);
        let content = |change: &Change| Some((change.doc.clone(), change.content.clone()?));
        self.looked = drain.mark.map(|mark| (mark, drain.changes.iter().filter_map(content).collect()));
        Ok(drain)
    }

    fn copies(&mut self, limits: &UnitLimits) -> Outcome<Option<Drain>> {
        self.looking.took_notes = false;
        self.first_copies(limits)
    }
}

/// Documents that were looked at and are no changes, though the table may write them in another way: what it shows is what
/// the engine left.
fn note_unchanged(applying: &mut Applying<'_>, looked: &[(DocId, Bytes)], commit: &Commit) -> Outcome<()> {
    if looked.len() == commit.rows.len() {
        return Ok(());
    }
    let changed: HashSet<&DocId> = commit.rows.iter().map(|row| &row.doc).collect();
    for (doc, content) in looked.iter().filter(|(doc, _)| !changed.contains(doc)) {
        let no = applying.step.names.collection_no(applying.step.connection, &doc.0)?;
        scan::note_shown(applying.step.connection, no, &doc.1, sha256(content))?;
    }
    Ok(())
}
