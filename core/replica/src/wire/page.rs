//! The bytes of pages.

use bytes::Bytes;

use super::{Page, Run, Table, WireError, array, at_most, collection, invalid, position, proto};
use crate::clock::{Hlc, Stamp};
use crate::entry::{Entry, Op, SignedHead};
use crate::id::{Incarnation, Key, LogId, NodeId, PublicKey};
use crate::limits::{EDIT_SPARE_BYTES, PAGE_ENTRIES_MAX, PAYLOAD_BYTES_HARD};
use crate::version::{Hash, Head, Seq};

pub(super) fn encode_page(page: &Page) -> proto::Page {
    let (mut authors, mut nodes) = (Table::new(), Table::new());
    let runs = page
        .runs
        .iter()
        .map(|run| proto::Run {
            author: authors.index(&run.public_key),
            incarnation: run.log.incarnation.0,
            collection: run.log.collection.as_str().to_owned(),
            first_seq: run.first_seq().0,
            previous: if run.first_seq() == Seq(1) { Bytes::new() } else { run.previous.0.to_vec().into() },
            entries: encode_entries(&run.entries, &mut nodes),
            hash: run.signed.head.hash.0.to_vec().into(),
            signature: run.signed.signature.to_vec().into(),
        })
        .collect();
    proto::Page {
        id: page.id,
        authors: authors.1.iter().map(|key| key.0.to_vec().into()).collect(),
        nodes: nodes.1.iter().map(|id: &NodeId| id.0.to_vec().into()).collect(),
        runs,
    }
}

fn encode_entries(entries: &[(Entry, u32)], nodes: &mut Table<NodeId>) -> Vec<proto::Entry> {
    let mut before = 0;
    let encode = |(entry, check): &(Entry, u32)| {
        let later_by = entry.hlc.0 - before;
        before = entry.hlc.0;
        proto::Entry {
            later_by,
            op: entry.op as u32,
            key: entry.key.as_str().to_owned(),
            payload: entry.payload.clone(),
            replaces_node: entry.replaces.map_or(0, |stamp| 1 + nodes.index(&stamp.node)),
            replaces_earlier: entry.replaces.map_or(0, |stamp| entry.hlc.0.wrapping_sub(stamp.hlc.0)),
            check: *check,
        }
    };
    entries.iter().map(encode).collect()
}

pub(super) fn decode_page(page: proto::Page) -> Result<Page, WireError> {
    let count = page.runs.iter().map(|run| run.entries.len()).sum();
    at_most(count, PAGE_ENTRIES_MAX, "Page.entries", "PAGE_ENTRIES_MAX")?;
    let authors = page
        .authors
        .iter()
        .map(|key| Ok(PublicKey(array(key, "Page.authors")?)))
        .collect::<Result<Vec<_>, WireError>>()?;
    let author_ids: Vec<NodeId> = authors.iter().map(NodeId::of).collect();
    let nodes = page
        .nodes
        .iter()
        .map(|id| Ok(NodeId(array(id, "Page.nodes")?)))
        .collect::<Result<Vec<_>, WireError>>()?;
    let runs = page.runs.into_iter().map(|run| decode_run(run, &authors, &author_ids, &nodes));
    Ok(Page { id: page.id, runs: runs.collect::<Result<_, _>>()? })
}

fn decode_run(
    run: proto::Run,
    authors: &[PublicKey],
    author_ids: &[NodeId],
    nodes: &[NodeId],
) -> Result<Run, WireError> {
    let index = run.author as usize;
    let log = LogId {
        author: *author_ids.get(index).ok_or(invalid("Run.author"))?,
        incarnation: Incarnation(run.incarnation),
        collection: collection(&run.collection, "Run.collection")?,
    };
    let previous = match run.first_seq {
        0 => return Err(invalid("Run.first_seq")),
        1 => Hash::default(),
        _ => Hash(array(&run.previous, "Run.previous")?),
    };
    let last = (run.first_seq - 1).checked_add(run.entries.len() as u64).ok_or(invalid("Run.first_seq"))?;
    let last = position(last, "Run.first_seq")?;
    let mut hlc = Hlc::default();
    let mut entries = Vec::with_capacity(run.entries.len());
    for (seq, entry) in (run.first_seq..=last.0).zip(run.entries) {
        hlc = Hlc(hlc.0.checked_add(entry.later_by).ok_or(invalid("Entry.later_by"))?);
        entries.push(decode_entry(Seq(seq), hlc, entry, nodes)?);
    }
    if entries.is_empty() {
        return Err(invalid("Run.entries"));
    }
    let head = Head { seq: last, hash: Hash(array(&run.hash, "Run.hash")?) };
    let signed = SignedHead { head, hlc, signature: array(&run.signature, "Run.signature")? };
    Ok(Run { log, public_key: authors[index], previous, entries, signed })
}

fn decode_entry(
    seq: Seq,
    hlc: Hlc,
    entry: proto::Entry,
    nodes: &[NodeId],
) -> Result<(Entry, u32), WireError> {
    let replaces = match entry.replaces_node {
        0 => None,
        index => Some(Stamp {
            hlc: Hlc(hlc.0.checked_sub(entry.replaces_earlier).ok_or(invalid("Entry.replaces_earlier"))?),
            node: *nodes.get(index as usize - 1).ok_or(invalid("Entry.replaces_node"))?,
        }),
    };
    let payload_bytes_max = PAYLOAD_BYTES_HARD + EDIT_SPARE_BYTES;
    at_most(entry.payload.len(), payload_bytes_max, "Entry.payload", "PAYLOAD_BYTES_HARD")?;
    let entry_out = Entry {
        seq,
        hlc,
        replaces,
        op: Op::from_number(entry.op.into()).ok_or(invalid("Entry.op"))?,
        key: Key::new(&entry.key).map_err(|reason| WireError::Name { field: "Entry.key", reason })?,
        payload: entry.payload,
    };
    Ok((entry_out, entry.check))
}
