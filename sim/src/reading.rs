//! What a simulated store reads for its replica, with the faults of reading.

use bytes::Bytes;
use entgldb_replica::clock::{Hlc, Stamp, WallMillis};
use entgldb_replica::entry::Op;
use entgldb_replica::id::{Collection, DocId, Key, LogId, sha256};
use entgldb_replica::member::{Member, members};
use entgldb_replica::resolve::{Document, Row, Version};
use entgldb_replica::store::{
    Change, Drain, Durable, OutboxMark, ReadLimits, Scan, ScanLimits, Stored, UnitLimits,
};
use entgldb_replica::version::{Hash, Head, Seq};

use crate::mutation::Mutation;
use crate::store::{DiskFailed, Inner};

impl Inner {
    pub(crate) fn load(&mut self) -> Result<Durable, DiskFailed> {
        self.read()?;
        self.looked = None;
        self.redo();
        let disk = &self.disk;
        let mut heads: Vec<(LogId, Head, Hlc)> = Vec::new();
        for log in disk.logs() {
            let (head, hlc) = disk.head(log);
            heads.push((log.clone(), head, hlc));
        }
        if self.is_mutated(Mutation::HeadForgotten)
            && let Some((owner, _)) = disk.owner
        {
            heads.retain(|(log, ..)| log.author != owner);
        }
        let forgotten = self.is_mutated(Mutation::ClockForgotten);
        if forgotten {
            // The times of the heads too: the engine would notice that its own logs are younger than its clock.
            heads.iter_mut().for_each(|(_, _, hlc)| *hlc = Hlc::default());
        }
        Ok(Durable {
            owner: disk.owner,
            clock: if forgotten { Hlc::default() } else { disk.clock },
            heads,
            authors: disk.authors.clone(),
            tallies: disk.tallies.clone().into_iter().collect(),
            floors: disk.floors.iter().map(|(log, s)| (log.clone(), s.head.seq, s.hlc)).collect(),
            notes: disk.notes.clone().into_iter().collect(),
            open_conflicts: disk.conflicts.values().filter(|c| c.missing.is_some()).cloned().collect(),
            merged: disk.merged.keys().map(|(collection, _)| collection.clone()).collect(),
            dropped: Vec::new(),
        })
    }

    pub(crate) fn captured(&mut self, limits: &UnitLimits) -> Result<Drain, DiskFailed> {
        self.read()?;
        let most = limits.changes.min(self.options.load.unit_changes);
        let mut drain = Drain::default();
        let mut bytes = 0;
        let mut last = None;
        for item in &self.disk.outbox {
            let content = self.disk.docs.get(&item.doc).cloned();
            let size = content.as_ref().map_or(0, Bytes::len);
            let full = drain.changes.len() >= most || bytes + size > limits.bytes;
            let apart = |at: WallMillis| at.0.abs_diff(item.written.0) > limits.gap_ms;
            // What was written at once is not taken apart.
            if let Some((transaction, at)) = last
                && transaction != item.transaction
                && (full || apart(at))
            {
                drain.more = true;
                break;
            }
            last = Some((item.transaction, item.written));
            bytes += size;
            drain.changes.retain(|change: &Change| change.doc != item.doc);
            drain.changes.push(Change { doc: item.doc.clone(), content, written: item.written });
            drain.mark = Some(OutboxMark(item.id));
        }
        // What was changed again later belongs to that later unit, with its younger stamp and its company.
        let read_to = drain.mark.map_or(0, |mark| mark.0);
        let outbox = &self.disk.outbox;
        drain.changes.retain(|change| !outbox.iter().any(|item| item.id > read_to && item.doc == change.doc));
        if self.is_mutated(Mutation::OutboxDropped) && drain.changes.len() > 1 {
            drain.changes.pop();
        }
        self.capturing = drain.mark.is_some();
        self.looked = Some(drain.clone());
        Ok(drain)
    }

    pub(crate) fn rows(&mut self, docs: &[DocId]) -> Result<Vec<Option<Row>>, DiskFailed> {
        self.read()?;
        let all = match self.capturing {
            true => self.is_mutated(Mutation::RowsForgottenAtCapture),
            false => self.is_mutated(Mutation::RowsForgotten),
        };
        let tombstones = self.is_mutated(Mutation::TombstonesForgotten) && !self.capturing;
        let known = |row: &Row| !(all || tombstones && row.content.is_none());
        Ok(docs.iter().map(|doc| self.disk.rows.get(doc).copied().filter(known)).collect())
    }

    pub(crate) fn version(&mut self, doc: &DocId, stamp: &Stamp) -> Result<Option<Version>, DiskFailed> {
        self.read()?;
        let place = self.disk.versions.get(&(doc.clone(), *stamp));
        if let Some((log, seq)) = place.filter(|(log, seq)| *seq > self.disk.floor(log)) {
            return Ok(self.disk.log.get(log).and_then(|log| log.get(seq)).map(|s| Version::of(&s.entry)));
        }
        let Some(row) = self.disk.rows.get(doc).filter(|row| row.stamp == *stamp) else { return Ok(None) };
        let Some(content) = self.standing(doc, row) else { return Ok(None) };
        let op = if content.is_some() { Op::Put } else { Op::Delete };
        Ok(Some(Version { replaces: None, op, payload: content.unwrap_or_default() }))
    }

    /// The content of a row; `None` if the application has changed the document since.
    pub(crate) fn standing(&self, doc: &DocId, row: &Row) -> Option<Option<Bytes>> {
        let content = self.disk.aside.get(doc).cloned().unwrap_or_else(|| self.disk.docs.get(doc).cloned());
        (content.as_ref().map(|content| Hash(sha256(content))) == row.content).then_some(content)
    }

    pub(crate) fn scan(
        &mut self,
        collection: &Collection,
        after: Option<&Key>,
        limits: &ScanLimits,
    ) -> Result<Scan, DiskFailed> {
        self.read()?;
        let mut scan = Scan::default();
        let mut bytes = 0;
        let rows = self.disk.rows.iter().filter(|(doc, _)| doc.0 == *collection);
        for (doc, row) in rows.filter(|(doc, _)| after.is_none_or(|after| doc.1 > *after)) {
            if scan.documents.len() >= limits.rows || bytes >= limits.bytes {
                scan.more = true;
                break;
            }
            let Some(content) = self.standing(doc, row) else {
                scan.moved = true;
                break;
            };
            let merged = self.disk.merged.get(doc).cloned();
            bytes += content.as_ref().map_or(0, Bytes::len) + merged.as_ref().map_or(0, Bytes::len);
            scan.documents.push(Document { key: doc.1.clone(), row: *row, content, merged });
        }
        if collection == members() && self.is_mutated(Mutation::AcknowledgedTooMuch) {
            scan.documents.iter_mut().for_each(exaggerate);
        }
        Ok(scan)
    }

    pub(crate) fn read_log(
        &mut self,
        log: &LogId,
        after: Seq,
        limits: &ReadLimits,
    ) -> Result<Vec<Stored>, DiskFailed> {
        self.read()?;
        let mut bytes = 0;
        let mut read = Vec::new();
        if after < self.disk.floor(log) {
            return Err(DiskFailed("it was asked for what is forgotten"));
        }
        let entries = self.disk.log.get(log).into_iter();
        for (_, stored) in entries.flat_map(|entries| entries.range(after.next()..)) {
            if stored.entry.hlc > limits.until || read.len() >= limits.entries || bytes >= limits.bytes {
                break;
            }
            bytes += stored.entry.payload.len();
            read.push(stored.clone());
        }
        Ok(read)
    }
}

/// Makes a member's document say that the member holds far more than it does.
fn exaggerate(document: &mut Document) {
    if let Some(mut member) = document.content.as_ref().and_then(Member::decode) {
        member.acknowledged.values_mut().for_each(|seq| seq.0 += 1_000_000);
        document.content = Some(member.encode());
    }
}
