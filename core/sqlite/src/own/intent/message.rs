//! A commit as protobuf. Only this program reads what it has written, and the version of the tables is that of this format.

use bytes::Bytes;
use entgldb_replica::clock::{Hlc, Stamp as ReplicaStamp, WallMillis};
use entgldb_replica::entry::{Chain, Entry as ReplicaEntry, Op, SignedHead};
use entgldb_replica::fingerprint::{Fingerprint, Tally as ReplicaTally};
use entgldb_replica::id::{Collection, DocId, Incarnation, Key, LogId, NodeId, PublicKey};
use entgldb_replica::resolve::{Conflict as ReplicaConflict, Row as ReplicaRow, Side as ReplicaSide};
use entgldb_replica::store::{Appended, Commit, ConflictWrite, Guard, OutboxMark, RowWrite};
use entgldb_replica::version::{Hash, Head as ReplicaHead, Seq};

use crate::failed::{Outcome, SqliteFailed};
use crate::journal::names::Names;

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Step {
    #[prost(bytes = "bytes", tag = "1")]
    node: Bytes,
    #[prost(fixed64, tag = "2")]
    incarnation: u64,
    #[prost(uint32, tag = "3")]
    guard: u32,
    #[prost(uint64, tag = "4")]
    clock: u64,
    #[prost(uint64, tag = "5")]
    wall: u64,
    #[prost(message, repeated, tag = "6")]
    runs: Vec<Run>,
    #[prost(bytes = "bytes", repeated, tag = "7")]
    authors: Vec<Bytes>,
    #[prost(message, repeated, tag = "8")]
    rows: Vec<Row>,
    #[prost(message, repeated, tag = "9")]
    tallies: Vec<Tally>,
    #[prost(message, repeated, tag = "10")]
    conflicts: Vec<Conflict>,
    #[prost(uint64, optional, tag = "11")]
    drained: Option<u64>,
    #[prost(message, repeated, tag = "12")]
    adopted: Vec<Signed>,
    #[prost(message, repeated, tag = "13")]
    floors: Vec<Signed>,
    #[prost(message, repeated, tag = "14")]
    notes: Vec<Note>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Log {
    #[prost(bytes = "bytes", tag = "1")]
    author: Bytes,
    #[prost(fixed64, tag = "2")]
    incarnation: u64,
    #[prost(string, tag = "3")]
    collection: String,
}

/// A log's head; of a floor only the position.
#[derive(Clone, PartialEq, prost::Message)]
struct Signed {
    #[prost(message, optional, tag = "1")]
    log: Option<Log>,
    #[prost(uint64, tag = "2")]
    seq: u64,
    #[prost(bytes = "bytes", tag = "3")]
    hash: Bytes,
    #[prost(uint64, tag = "4")]
    hlc: u64,
    #[prost(bytes = "bytes", tag = "5")]
    signature: Bytes,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Run {
    #[prost(message, optional, tag = "1")]
    signed: Option<Signed>,
    #[prost(message, repeated, tag = "2")]
    entries: Vec<Entry>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Stamp {
    #[prost(uint64, tag = "1")]
    hlc: u64,
    #[prost(bytes = "bytes", tag = "2")]
    node: Bytes,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Entry {
    #[prost(uint64, tag = "1")]
    seq: u64,
    #[prost(uint64, tag = "2")]
    hlc: u64,
    #[prost(message, optional, tag = "3")]
    replaces: Option<Stamp>,
    #[prost(uint32, tag = "4")]
    op: u32,
    #[prost(string, tag = "5")]
    key: String,
    #[prost(bytes = "bytes", tag = "6")]
    payload: Bytes,
}

/// A version of a document: its stamp, and its content or the hash of it.
#[derive(Clone, PartialEq, prost::Message)]
struct Side {
    #[prost(message, optional, tag = "1")]
    stamp: Option<Stamp>,
    #[prost(bytes = "bytes", optional, tag = "2")]
    content: Option<Bytes>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Row {
    #[prost(string, tag = "1")]
    collection: String,
    #[prost(string, tag = "2")]
    key: String,
    #[prost(message, optional, tag = "3")]
    row: Option<Side>,
    #[prost(message, optional, tag = "4")]
    before: Option<Side>,
    /// 0 nothing to apply, 1 a deletion, 2 the content.
    #[prost(uint32, tag = "5")]
    apply: u32,
    #[prost(bytes = "bytes", tag = "6")]
    content: Bytes,
    #[prost(bytes = "bytes", optional, tag = "7")]
    merged: Option<Bytes>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Tally {
    #[prost(string, tag = "1")]
    collection: String,
    #[prost(bytes = "bytes", tag = "2")]
    fingerprint: Bytes,
    #[prost(uint64, tag = "3")]
    rows: u64,
}

/// With `remove` the contents are left out.
#[derive(Clone, PartialEq, prost::Message)]
struct Conflict {
    #[prost(bool, tag = "1")]
    remove: bool,
    #[prost(string, tag = "2")]
    collection: String,
    #[prost(string, tag = "3")]
    key: String,
    #[prost(message, optional, tag = "4")]
    winner: Option<Side>,
    #[prost(message, optional, tag = "5")]
    loser: Option<Side>,
    #[prost(message, optional, tag = "6")]
    missing: Option<Stamp>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Note {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(bytes = "bytes", optional, tag = "2")]
    value: Option<Bytes>,
}

fn bytes(bytes: &[u8]) -> Bytes {
    Bytes::copy_from_slice(bytes)
}

impl Step {
    pub(super) fn of(commit: &Commit) -> Self {
        let guard = match commit.guard {
            Guard::None => 0,
            Guard::OutboxEmpty => 1,
            Guard::OutboxDisjoint => 2,
        };
        Self {
            node: bytes(&commit.owner.0.0),
            incarnation: commit.owner.1.0,
            guard,
            clock: commit.clock.0,
            wall: commit.wall.0,
            runs: commit.appended.iter().map(Run::of).collect(),
            authors: commit.authors.iter().map(|key| bytes(&key.0)).collect(),
            rows: commit.rows.iter().map(Row::of).collect(),
            tallies: commit.tallies.iter().map(Tally::of).collect(),
            conflicts: commit.conflicts.iter().map(Conflict::of).collect(),
            drained: commit.drained.map(|mark| mark.0),
            adopted: commit.adopted.iter().map(|(log, signed)| Signed::of(log, signed)).collect(),
            floors: commit
                .floors
                .iter()
                .map(|(log, seq)| Signed { log: Some(Log::of(log)), seq: seq.0, ..Signed::default() })
                .collect(),
            notes: commit
                .notes
                .iter()
                .map(|(name, value)| Note { name: name.clone(), value: value.clone() })
                .collect(),
        }
    }

    /// The commit, to be made on top of what `names` says that is durable.
    pub(super) fn commit(self, names: &Names) -> Outcome<Commit> {
        let signed = |signed: Signed| {
            let (head, log) = (signed.head()?, signed.log()?);
            Ok((log, head))
        };
        Ok(Commit {
            owner: (NodeId(array(&self.node)?), Incarnation(self.incarnation)),
            guard: match self.guard {
                0 => Guard::None,
                1 => Guard::OutboxEmpty,
                _ => Guard::OutboxDisjoint,
            },
            clock: Hlc(self.clock),
            wall: WallMillis(self.wall),
            appended: self.runs.into_iter().map(|run| run.appended(names)).collect::<Outcome<_>>()?,
            authors: self.authors.iter().map(|key| Ok(PublicKey(array(key)?))).collect::<Outcome<_>>()?,
            rows: self.rows.into_iter().map(Row::write).collect::<Outcome<_>>()?,
            tallies: self.tallies.into_iter().map(Tally::tally).collect::<Outcome<_>>()?,
            conflicts: self.conflicts.into_iter().map(Conflict::write).collect::<Outcome<_>>()?,
            drained: self.drained.map(OutboxMark),
            first_copy: None,
            adopted: self.adopted.into_iter().map(signed).collect::<Outcome<_>>()?,
            floors: self
                .floors
                .iter()
                .map(|floor| Ok((floor.log()?, Seq(floor.seq))))
                .collect::<Outcome<_>>()?,
            notes: self.notes.into_iter().map(|note| (note.name, note.value)).collect(),
        })
    }
}

fn wrong(what: &str) -> SqliteFailed {
    SqliteFailed::damaged(format!("what was about to be done has a wrong {what}"))
}

fn array<const N: usize>(bytes: &[u8]) -> Outcome<[u8; N]> {
    bytes.try_into().map_err(|_| wrong("length"))
}

fn doc(collection: &str, key: &str) -> Outcome<DocId> {
    let name = Collection::new(collection).map_err(|_| wrong("collection"))?;
    Ok((name, Key::new(key).map_err(|_| wrong("key"))?))
}

impl Log {
    fn of(log: &LogId) -> Self {
        Self {
            author: bytes(&log.author.0),
            incarnation: log.incarnation.0,
            collection: log.collection.as_str().to_owned(),
        }
    }
}

impl Signed {
    fn of(log: &LogId, signed: &SignedHead) -> Self {
        Self {
            log: Some(Log::of(log)),
            seq: signed.head.seq.0,
            hash: bytes(&signed.head.hash.0),
            hlc: signed.hlc.0,
            signature: bytes(&signed.signature),
        }
    }

    fn log(&self) -> Outcome<LogId> {
        let log = self.log.as_ref().ok_or_else(|| wrong("log"))?;
        Ok(LogId {
            author: NodeId(array(&log.author)?),
            incarnation: Incarnation(log.incarnation),
            collection: Collection::new(&log.collection).map_err(|_| wrong("collection"))?,
        })
    }

    fn head(&self) -> Outcome<SignedHead> {
        Ok(SignedHead {
            head: ReplicaHead { seq: Seq(self.seq), hash: Hash(array(&self.hash)?) },
            hlc: Hlc(self.hlc),
            signature: array(&self.signature)?,
        })
    }
}

impl Run {
    fn of(appended: &Appended) -> Self {
        Self {
            signed: Some(Signed::of(&appended.log, &appended.signed)),
            entries: appended.entries.iter().map(|linked| Entry::of(linked.entry())).collect(),
        }
    }

    fn appended(self, names: &Names) -> Outcome<Appended> {
        let signed = self.signed.ok_or_else(|| wrong("head"))?;
        let log = signed.log()?;
        let (head, hlc) = names.logs.get(&log).map_or_else(Default::default, |end| (end.head, end.hlc));
        let mut chain = Chain::resume(log.clone(), head, hlc);
        let link = |entry: Entry| chain.link(entry.entry()?).map_err(|error| wrong(&error.to_string()));
        let entries = self.entries.into_iter().map(link).collect::<Outcome<_>>()?;
        Ok(Appended { log, entries, signed: signed.head()? })
    }
}

impl Stamp {
    fn of(stamp: &ReplicaStamp) -> Self {
        Self { hlc: stamp.hlc.0, node: bytes(&stamp.node.0) }
    }

    fn stamp(&self) -> Outcome<ReplicaStamp> {
        Ok(ReplicaStamp { hlc: Hlc(self.hlc), node: NodeId(array(&self.node)?) })
    }
}

impl Entry {
    fn of(entry: &ReplicaEntry) -> Self {
        Self {
            seq: entry.seq.0,
            hlc: entry.hlc.0,
            replaces: entry.replaces.as_ref().map(Stamp::of),
            op: u32::from(entry.op as u8),
            key: entry.key.as_str().to_owned(),
            payload: entry.payload.clone(),
        }
    }

    fn entry(self) -> Outcome<ReplicaEntry> {
        Ok(ReplicaEntry {
            seq: Seq(self.seq),
            hlc: Hlc(self.hlc),
            replaces: self.replaces.as_ref().map(Stamp::stamp).transpose()?,
            op: Op::from_number(u64::from(self.op)).ok_or_else(|| wrong("operation"))?,
            key: Key::new(&self.key).map_err(|_| wrong("key"))?,
            payload: self.payload,
        })
    }
}

impl Side {
    fn of_row(row: &ReplicaRow) -> Self {
        Self { stamp: Some(Stamp::of(&row.stamp)), content: row.content.map(|hash| bytes(&hash.0)) }
    }

    fn of(side: &ReplicaSide) -> Self {
        Self { stamp: Some(Stamp::of(&side.stamp)), content: side.content.clone() }
    }

    fn stamp(&self) -> Outcome<ReplicaStamp> {
        self.stamp.as_ref().ok_or_else(|| wrong("stamp"))?.stamp()
    }

    fn row(&self) -> Outcome<ReplicaRow> {
        let content = self.content.as_ref().map(|hash| Ok(Hash(array(hash)?))).transpose()?;
        Ok(ReplicaRow { stamp: self.stamp()?, content })
    }

    fn side(self) -> Outcome<ReplicaSide> {
        Ok(ReplicaSide { stamp: self.stamp()?, content: self.content })
    }
}

impl Row {
    fn of(write: &RowWrite) -> Self {
        let (apply, content) = match &write.apply {
            None => (0, Bytes::new()),
            Some(None) => (1, Bytes::new()),
            Some(Some(content)) => (2, content.clone()),
        };
        Self {
            collection: write.doc.0.as_str().to_owned(),
            key: write.doc.1.as_str().to_owned(),
            row: Some(Side::of_row(&write.row)),
            before: write.before.as_ref().map(Side::of_row),
            apply,
            content,
            merged: write.merged.clone(),
        }
    }

    fn write(self) -> Outcome<RowWrite> {
        Ok(RowWrite {
            doc: doc(&self.collection, &self.key)?,
            row: self.row.ok_or_else(|| wrong("row"))?.row()?,
            before: self.before.as_ref().map(Side::row).transpose()?,
            apply: match self.apply {
                0 => None,
                1 => Some(None),
                _ => Some(Some(self.content)),
            },
            merged: self.merged,
        })
    }
}

impl Tally {
    fn of((collection, tally): &(Collection, ReplicaTally)) -> Self {
        Self {
            collection: collection.as_str().to_owned(),
            fingerprint: bytes(&tally.fingerprint.to_bytes()),
            rows: tally.rows,
        }
    }

    fn tally(self) -> Outcome<(Collection, ReplicaTally)> {
        let collection = Collection::new(&self.collection).map_err(|_| wrong("collection"))?;
        let fingerprint = Fingerprint::from_bytes(array(&self.fingerprint)?);
        Ok((collection, ReplicaTally { fingerprint, rows: self.rows }))
    }
}

impl Conflict {
    fn of(write: &ConflictWrite) -> Self {
        let bare = |stamp: &ReplicaStamp| Some(Side { stamp: Some(Stamp::of(stamp)), content: None });
        match write {
            ConflictWrite::Put(conflict) => Self {
                remove: false,
                collection: conflict.doc.0.as_str().to_owned(),
                key: conflict.doc.1.as_str().to_owned(),
                winner: Some(Side::of(&conflict.winner)),
                loser: Some(Side::of(&conflict.loser)),
                missing: conflict.missing.as_ref().map(Stamp::of),
            },
            ConflictWrite::Remove { doc, winner, loser } => Self {
                remove: true,
                collection: doc.0.as_str().to_owned(),
                key: doc.1.as_str().to_owned(),
                winner: bare(winner),
                loser: bare(loser),
                missing: None,
            },
        }
    }

    fn write(self) -> Outcome<ConflictWrite> {
        let doc = doc(&self.collection, &self.key)?;
        let (Some(winner), Some(loser)) = (self.winner, self.loser) else { return Err(wrong("conflict")) };
        if self.remove {
            return Ok(ConflictWrite::Remove { doc, winner: winner.stamp()?, loser: loser.stamp()? });
        }
        let missing = self.missing.as_ref().map(Stamp::stamp).transpose()?;
        let (winner, loser) = (winner.side()?, loser.side()?);
        Ok(ConflictWrite::Put(ReplicaConflict { doc, winner, loser, missing }))
    }
}

#[cfg(test)]
mod tests {
    use entgldb_replica::entry::AuthorKey;
    use prost::Message;

    use super::*;

    fn commit() -> Commit {
        let key = AuthorKey::from_seed(&[7; 32]);
        let stamp = |hlc| ReplicaStamp { hlc: Hlc(hlc), node: key.node_id() };
        let collection = Collection::new("t").unwrap();
        let log =
            LogId { author: key.node_id(), incarnation: Incarnation(5), collection: collection.clone() };
        let doc = (collection.clone(), Key::new("k").unwrap());
        let mut chain = Chain::resume(log.clone(), ReplicaHead::default(), Hlc::default());
        let entry = |seq, op, payload: &'static [u8], replaces| ReplicaEntry {
            seq: Seq(seq),
            hlc: Hlc(100 + seq),
            replaces,
            op,
            key: doc.1.clone(),
            payload: Bytes::from_static(payload),
        };
        let entries = vec![
            chain.link(entry(1, Op::Put, b"1", None)).unwrap(),
            chain.link(entry(2, Op::Delete, b"", Some(stamp(101)))).unwrap(),
        ];
        let signed = SignedHead::sign(&key, &log, chain.head(), Hlc(102));
        let row = |hlc, content| ReplicaRow { stamp: stamp(hlc), content };
        let write = |apply, before, merged| RowWrite {
            doc: doc.clone(),
            row: row(102, Some(Hash([1; 32]))),
            before,
            apply,
            merged,
        };
        let side = |hlc, content: Option<&'static [u8]>| ReplicaSide {
            stamp: stamp(hlc),
            content: content.map(Bytes::from_static),
        };
        Commit {
            owner: (key.node_id(), Incarnation(9)),
            guard: Guard::OutboxDisjoint,
            clock: Hlc(200),
            wall: WallMillis(3),
            appended: vec![Appended { log: log.clone(), entries, signed }],
            authors: vec![key.public_key()],
            rows: vec![
                write(None, None, None),
                write(Some(None), Some(row(50, None)), Some(Bytes::new())),
                write(Some(Some(Bytes::new())), Some(row(50, Some(Hash([2; 32])))), Some("state".into())),
            ],
            tallies: vec![(collection, ReplicaTally { rows: 4, ..ReplicaTally::default() })],
            conflicts: vec![
                ConflictWrite::Put(ReplicaConflict {
                    doc: doc.clone(),
                    winner: side(9, Some(b"w")),
                    loser: side(8, None),
                    missing: Some(stamp(7)),
                }),
                ConflictWrite::Remove { doc: doc.clone(), winner: stamp(9), loser: stamp(6) },
            ],
            drained: Some(OutboxMark(0)),
            first_copy: None,
            adopted: vec![(log.clone(), SignedHead::sign(&key, &log, chain.head(), Hlc(102)))],
            floors: vec![(log, Seq(1))],
            notes: vec![("one".into(), None), ("two".into(), Some(Bytes::new()))],
        }
    }

    #[test]
    fn a_commit_is_read_back_as_it_was_written() {
        let written = commit();
        let bytes = Step::of(&written).encode_to_vec();
        let read = Step::decode(bytes.as_slice()).unwrap().commit(&Names::default()).unwrap();
        assert_eq!(format!("{read:?}"), format!("{written:?}"));
    }

    #[test]
    fn what_no_engine_writes_is_refused() {
        let names = Names::default();
        let wrong = |change: &dyn Fn(&mut Step)| {
            let mut step = Step::of(&commit());
            change(&mut step);
            step.commit(&names).unwrap_err().to_string()
        };
        assert!(wrong(&|step| step.node = Bytes::from_static(b"short")).contains("length"));
        assert!(wrong(&|step| step.rows[0].key = String::new()).contains("key"));
        assert!(wrong(&|step| step.rows[0].row = None).contains("row"));
        assert!(wrong(&|step| step.runs[0].entries[1].seq = 7).contains("what was about to be done"));
    }
}
