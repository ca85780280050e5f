//! A store in memory: the store's contract in its smallest form, and an application's documents beside it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bytes::Bytes;
use entgldb_replica::clock::{Hlc, Stamp, WallMillis};
use entgldb_replica::entry::Op;
use entgldb_replica::entry::SignedHead;
use entgldb_replica::fingerprint::Tally;
use entgldb_replica::id::sha256;
use entgldb_replica::id::{Collection, DocId, Incarnation, Key, LogId, NodeId, PublicKey};
use entgldb_replica::member::members;
use entgldb_replica::resolve::{Conflict, Document, Row, Version};
use entgldb_replica::store::{
    Change, Commit, Committed, ConflictWrite, Drain, Durable, Guard, OutboxMark, Problem, ReadLimits, Scan,
    ScanLimits, Store, Stored, UnitLimits,
};
use entgldb_replica::version::{Hash, Head, Seq};

/// What a store can keep in one row, as the one over SQLite does.
const ROW_BYTES_MAX: usize = 16 << 20;

#[derive(Debug, thiserror::Error)]
#[error("the simulated disk failed")]
pub struct DiskFailed;

#[derive(Default, Clone)]
pub struct MemoryStore {
    pub owner: Option<(NodeId, Incarnation)>,
    clock: Hlc,
    pub log: BTreeMap<LogId, Vec<Stored>>,
    pub signed: BTreeMap<LogId, BTreeMap<Seq, SignedHead>>,
    pub rows: BTreeMap<DocId, Row>,
    pub merged: BTreeMap<DocId, Bytes>,
    authors: Vec<PublicKey>,
    pub tallies: BTreeMap<Collection, Tally>,
    /// Entries up to here are forgotten.
    pub floors: BTreeMap<LogId, SignedHead>,
    pub notes: BTreeMap<String, Bytes>,
    pub conflicts: BTreeMap<(DocId, Stamp, Stamp), Conflict>,
    /// The application's own documents, and those of the engine's own collection.
    pub docs: BTreeMap<DocId, Bytes>,
    members: BTreeMap<DocId, Bytes>,
    outbox: VecDeque<(u64, DocId, WallMillis)>,
    next_outbox: u64,
    /// Writes that the application slips in just before the next commits: what races look like from inside.
    pub ambush: VecDeque<(DocId, Option<Bytes>, WallMillis)>,
    pub fail_next_commit: bool,
    pub commits: u64,
    pub versions_read: u64,
    pub scans: u64,
}

impl MemoryStore {
    /// A write by the application.
    pub fn write(&mut self, collection: &str, key: &str, content: Option<&str>, at: WallMillis) {
        let doc = (Collection::new(collection).unwrap(), Key::new(key).unwrap());
        self.write_doc(doc, content.map(|content| content.to_owned().into()), at);
    }

    fn write_doc(&mut self, doc: DocId, content: Option<Bytes>, at: WallMillis) {
        match content {
            Some(content) => drop(self.docs.insert(doc.clone(), content)),
            None => drop(self.docs.remove(&doc)),
        }
        self.next_outbox += 1;
        self.outbox.push_back((self.next_outbox, doc, at));
    }

    /// The head of a log and its time.
    pub fn head(&self, log: &LogId) -> (Head, Hlc) {
        if let Some(last) = self.log.get(log).and_then(|entries| entries.last()) {
            return (Head { seq: last.entry.seq, hash: last.hash }, last.entry.hlc);
        }
        self.floors.get(log).map(|signed| (signed.head, signed.hlc)).unwrap_or_default()
    }

    fn kept(&mut self, doc: &DocId) -> &mut BTreeMap<DocId, Bytes> {
        if doc.0 == *members() { &mut self.members } else { &mut self.docs }
    }

    /// The logs of the application's collections.
    pub fn logs(&self) -> impl Iterator<Item = (&LogId, &Vec<Stored>)> {
        self.log.iter().filter(|(log, _)| log.collection != *members())
    }

    fn floor(&self, log: &LogId) -> Seq {
        self.floors.get(log).map(|signed| signed.head.seq).unwrap_or_default()
    }

    pub fn outbox_len(&self) -> usize {
        self.outbox.len()
    }
}

impl Store for MemoryStore {
    type Error = DiskFailed;

    fn load(&mut self) -> Result<Durable, DiskFailed> {
        let logs: BTreeSet<&LogId> = self.log.keys().chain(self.floors.keys()).collect();
        let heads = logs.into_iter().map(|log| (log.clone(), self.head(log).0, self.head(log).1));
        Ok(Durable {
            owner: self.owner,
            clock: self.clock,
            heads: heads.collect(),
            authors: self.authors.clone(),
            tallies: self.tallies.clone().into_iter().collect(),
            floors: self.floors.iter().map(|(log, s)| (log.clone(), s.head.seq, s.hlc)).collect(),
            notes: self.notes.clone().into_iter().collect(),
            dropped: Vec::new(),
            open_conflicts: self.conflicts.values().filter(|c| c.missing.is_some()).cloned().collect(),
            merged: self.merged.keys().map(|(collection, _)| collection.clone()).collect(),
        })
    }

    fn captured(&mut self, limits: &UnitLimits) -> Result<Drain, DiskFailed> {
        let mut drain = Drain::default();
        let mut before: Option<WallMillis> = None;
        for (id, doc, at) in &self.outbox {
            if before.is_some_and(|before| at.0.abs_diff(before.0) > limits.gap_ms)
                || drain.changes.len() >= limits.changes
            {
                drain.more = true;
                break;
            }
            before = Some(*at);
            drain.changes.retain(|change: &Change| change.doc != *doc);
            let content = self.docs.get(doc).cloned();
            drain.changes.push(Change { doc: doc.clone(), content, written: *at });
            drain.mark = Some(OutboxMark(*id));
        }
        Ok(drain)
    }

    fn rows(&mut self, docs: &[DocId]) -> Result<Vec<Option<Row>>, DiskFailed> {
        Ok(docs.iter().map(|doc| self.rows.get(doc).copied()).collect())
    }

    fn merged(&mut self, docs: &[DocId]) -> Result<Vec<Option<Bytes>>, DiskFailed> {
        Ok(docs.iter().map(|doc| self.merged.get(doc).cloned()).collect())
    }

    fn version(&mut self, doc: &DocId, stamp: &Stamp) -> Result<Option<Version>, DiskFailed> {
        self.versions_read += 1;
        let logs = self.log.iter().filter(|(log, _)| log.author == stamp.node && log.collection == doc.0);
        let mut found = logs.flat_map(|(_, entries)| entries);
        let found = found.find(|stored| stored.entry.hlc == stamp.hlc && stored.entry.key == doc.1);
        if let Some(found) = found {
            return Ok(Some(Version::of(&found.entry)));
        }
        let Some(row) = self.rows.get(doc).copied().filter(|row| row.stamp == *stamp) else {
            return Ok(None);
        };
        let content = self.kept(doc).get(doc).cloned();
        let is_standing = content.as_ref().map(|content| Hash(sha256(content))) == row.content;
        let op = if content.is_some() { Op::Put } else { Op::Delete };
        let payload = content.unwrap_or_default();
        Ok(is_standing.then_some(Version { replaces: None, op, payload }))
    }

    fn scan(
        &mut self,
        collection: &Collection,
        after: Option<&Key>,
        limits: &ScanLimits,
    ) -> Result<Scan, DiskFailed> {
        self.scans += u64::from(*collection != *members());
        let mut scan = Scan::default();
        let mut bytes = 0;
        for (doc, row) in self.rows.iter().filter(|(doc, _)| doc.0 == *collection) {
            if after.is_some_and(|after| doc.1 <= *after) {
                continue;
            }
            if scan.documents.len() >= limits.rows || bytes >= limits.bytes {
                scan.more = true;
                break;
            }
            let docs = if doc.0 == *members() { &self.members } else { &self.docs };
            let content = docs.get(doc).cloned();
            if content.as_ref().map(|content| Hash(sha256(content))) != row.content {
                scan.moved = true;
                break;
            }
            bytes += content.as_ref().map_or(0, Bytes::len);
            let merged = self.merged.get(doc).cloned();
            scan.documents.push(Document { key: doc.1.clone(), row: *row, content, merged });
        }
        Ok(scan)
    }

    fn read_log(&mut self, log: &LogId, after: Seq, limits: &ReadLimits) -> Result<Vec<Stored>, DiskFailed> {
        let mut bytes = 0;
        let mut read = Vec::new();
        assert!(after >= self.floor(log), "what is forgotten is not asked for");
        for stored in self.log.get(log).into_iter().flatten().filter(|stored| stored.entry.seq > after) {
            if stored.entry.hlc > limits.until || read.len() >= limits.entries || bytes >= limits.bytes {
                break;
            }
            bytes += stored.entry.payload.len();
            read.push(stored.clone());
        }
        Ok(read)
    }

    fn last_at(&mut self, log: &LogId, hlc: Hlc) -> Result<Seq, DiskFailed> {
        let entries = self.log.get(log).map_or(&[][..], Vec::as_slice);
        let count = entries.partition_point(|stored| stored.entry.hlc <= hlc) as u64;
        Ok(Seq(self.floor(log).0 + count))
    }

    fn hash_at(&mut self, log: &LogId, seq: Seq) -> Result<Option<Hash>, DiskFailed> {
        if let Some(signed) = self.floors.get(log).filter(|signed| signed.head.seq == seq) {
            return Ok(Some(signed.head.hash));
        }
        let mut entries = self.log.get(log).into_iter().flatten();
        Ok(entries.find(|stored| stored.entry.seq == seq).map(|stored| stored.hash))
    }

    fn signed_until(&mut self, log: &LogId, seq: Seq) -> Result<Option<SignedHead>, DiskFailed> {
        let signed = self.signed.get(log).and_then(|signed| signed.range(..=seq).next_back());
        Ok(signed.map(|(_, head)| head.clone()))
    }

    fn signed_from(&mut self, log: &LogId, seq: Seq) -> Result<Option<SignedHead>, DiskFailed> {
        Ok(self.signed.get(log).and_then(|signed| signed.range(seq..).next()).map(|(_, head)| head.clone()))
    }

    fn commit(&mut self, commit: &Commit) -> Result<Committed, DiskFailed> {
        if let Some((doc, content, at)) = self.ambush.pop_front() {
            self.write_doc(doc, content, at);
        }
        if std::mem::take(&mut self.fail_next_commit) {
            return Err(DiskFailed);
        }
        let moved = match commit.guard {
            Guard::None => false,
            Guard::OutboxEmpty => !self.outbox.is_empty(),
            Guard::OutboxDisjoint => {
                commit.rows.iter().any(|write| self.outbox.iter().any(|(_, doc, _)| *doc == write.doc))
            }
        };
        if moved {
            return Ok(Committed::OutboxMoved);
        }
        self.commits += 1;
        self.owner = Some(commit.owner);
        assert!(commit.clock >= self.clock, "the clock never goes back");
        self.clock = commit.clock;
        self.authors.extend(&commit.authors);
        for run in &commit.appended {
            let mut next = self.head(&run.log).0.seq.next();
            let log = self.log.entry(run.log.clone()).or_default();
            for linked in &run.entries {
                assert_eq!(linked.entry().seq, next, "entries are appended without a gap");
                next = next.next();
                log.push(Stored { entry: linked.entry().clone(), hash: linked.hash() });
            }
            self.signed.entry(run.log.clone()).or_default().insert(run.signed.head.seq, run.signed.clone());
        }
        for write in &commit.rows {
            let before = self.rows.insert(write.doc.clone(), write.row);
            assert_eq!(before, write.before, "a row was decided on what it was");
            let rises = |before: Row| match write.merged {
                Some(_) => before.stamp <= write.row.stamp,
                None => (before.stamp, before.content) < (write.row.stamp, write.row.content),
            };
            assert!(before.is_none_or(rises), "a row's stamp only rises");
            let sizes = [write.merged.as_ref(), write.apply.as_ref().and_then(Option::as_ref)];
            assert!(
                sizes.iter().flatten().all(|bytes| bytes.len() <= ROW_BYTES_MAX),
                "a store has no such row"
            );
            match &write.merged {
                Some(state) => drop(self.merged.insert(write.doc.clone(), state.clone())),
                None => drop(self.merged.remove(&write.doc)),
            }
            match &write.apply {
                Some(Some(content)) => drop(self.kept(&write.doc).insert(write.doc.clone(), content.clone())),
                Some(None) => drop(self.kept(&write.doc).remove(&write.doc)),
                None => {}
            }
        }
        self.tallies.extend(commit.tallies.iter().cloned());
        for (log, signed) in &commit.adopted {
            assert!(
                signed.head.seq > self.head(log).0.seq,
                "a head that is adopted is beyond the one before"
            );
            self.log.remove(log);
            self.signed.insert(log.clone(), [(signed.head.seq, signed.clone())].into());
            self.floors.insert(log.clone(), signed.clone());
        }
        for (log, floor) in &commit.floors {
            let signed = self.signed[log][floor].clone();
            self.log.get_mut(log).unwrap().retain(|stored| stored.entry.seq > *floor);
            self.signed.get_mut(log).unwrap().retain(|seq, _| seq >= floor);
            self.floors.insert(log.clone(), signed);
        }
        for (name, note) in &commit.notes {
            match note {
                Some(note) => drop(self.notes.insert(name.clone(), note.clone())),
                None => drop(self.notes.remove(name)),
            }
        }
        for write in &commit.conflicts {
            match write {
                ConflictWrite::Put(conflict) => {
                    let sides = [&conflict.winner, &conflict.loser];
                    let bytes = sides.iter().filter_map(|side| side.content.as_ref()).map(Bytes::len);
                    assert!(bytes.sum::<usize>() <= ROW_BYTES_MAX, "a store has no such row");
                    let key = (conflict.doc.clone(), conflict.winner.stamp, conflict.loser.stamp);
                    self.conflicts.insert(key, conflict.clone());
                }
                ConflictWrite::Remove { doc, winner, loser } => {
                    self.conflicts.remove(&(doc.clone(), *winner, *loser));
                }
            }
        }
        if let Some(mark) = commit.drained {
            self.outbox.retain(|(id, ..)| *id > mark.0);
        }
        Ok(Committed::Done(Vec::new()))
    }

    fn tend(&mut self, _conflicts_before: WallMillis) -> Result<Vec<Problem>, DiskFailed> {
        Ok(Vec::new())
    }
}
