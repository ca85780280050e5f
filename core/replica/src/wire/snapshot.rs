//! The bytes of snapshots.

use bytes::Bytes;

use super::{
    Chunk, Cursor, Part, Pull, Table, WireError, array, at_most, collection, invalid, position, proto,
};
use crate::clock::{Hlc, Stamp};
use crate::entry::SignedHead;
use crate::id::{Collection, Incarnation, Key, LogId, NodeId, PublicKey, sha256};
use crate::limits::{HELD_HEADS_MAX, PAGE_ENTRIES_MAX, VECTOR_LOGS_MAX};
use crate::resolve::{Document, Row};
use crate::version::{Hash, Head};

pub(super) fn encode_pull(pull: &Pull) -> proto::Pull {
    let mut message = proto::Pull { collection: pull.collection.as_str().to_owned(), ..Default::default() };
    match &pull.from {
        Cursor::Heads(after) => {
            if let Some((author, incarnation)) = after {
                message.after_author = author.0.to_vec();
                message.after_incarnation = incarnation.0;
            }
        }
        Cursor::Rows(after) => {
            message.rows = true;
            message.after_key = after.as_ref().map(|key| key.as_str().to_owned()).unwrap_or_default();
        }
        Cursor::Held(heads) => message.held = heads.iter().map(encode_held).collect(),
    }
    message
}

fn encode_held((author, incarnation, head): &(NodeId, Incarnation, Head)) -> proto::HeldHead {
    proto::HeldHead {
        author: author.0.to_vec(),
        incarnation: incarnation.0,
        seq: head.seq.0,
        hash: head.hash.0.to_vec(),
    }
}

fn decode_held(held: &proto::HeldHead) -> Result<(NodeId, Incarnation, Head), WireError> {
    if held.seq == 0 {
        return Err(invalid("HeldHead.seq"));
    }
    let head =
        Head { seq: position(held.seq, "HeldHead.seq")?, hash: Hash(array(&held.hash, "HeldHead.hash")?) };
    Ok((NodeId(array(&held.author, "HeldHead.author")?), Incarnation(held.incarnation), head))
}

pub(super) fn decode_pull(pull: proto::Pull) -> Result<Pull, WireError> {
    let collection = collection(&pull.collection, "Pull.collection")?;
    if !pull.held.is_empty() {
        at_most(pull.held.len(), HELD_HEADS_MAX, "Pull.held", "HELD_HEADS_MAX")?;
        let heads = pull.held.iter().map(decode_held).collect::<Result<_, _>>()?;
        return Ok(Pull { collection, from: Cursor::Held(heads) });
    }
    let from = match (pull.rows, pull.after_author.as_slice(), pull.after_key.as_str()) {
        (true, _, "") => Cursor::Rows(None),
        (true, _, key) => Cursor::Rows(Some(key_of(key, "Pull.after_key")?)),
        (false, [], _) => Cursor::Heads(None),
        (false, author, _) => {
            let author = NodeId(array(author, "Pull.after_author")?);
            Cursor::Heads(Some((author, Incarnation(pull.after_incarnation))))
        }
    };
    Ok(Pull { collection, from })
}

fn key_of(key: &str, field: &'static str) -> Result<Key, WireError> {
    Key::new(key).map_err(|reason| WireError::Name { field, reason })
}

pub(super) fn encode_chunk(chunk: &Chunk) -> proto::Chunk {
    let mut message = proto::Chunk {
        collection: chunk.collection.as_str().to_owned(),
        last: chunk.last,
        refused: chunk.refused.clone(),
        ahead: chunk.ahead,
        ..Default::default()
    };
    match &chunk.part {
        Part::Heads(heads) => message.heads = heads.iter().map(encode_head).collect(),
        Part::Held(held) => message.held.clone_from(held),
        Part::Rows(rows) => {
            let mut nodes = Table::new();
            message.is_rows = true;
            message.rows = rows.iter().map(|row| encode_row(row, &mut nodes)).collect();
            message.nodes = nodes.1.iter().map(|id: &NodeId| id.0.to_vec()).collect();
        }
    }
    message
}

fn encode_head((log, key, signed): &(LogId, PublicKey, SignedHead)) -> proto::SnapshotHead {
    proto::SnapshotHead {
        public_key: key.0.to_vec(),
        incarnation: log.incarnation.0,
        seq: signed.head.seq.0,
        hash: signed.head.hash.0.to_vec(),
        hlc: signed.hlc.0,
        signature: signed.signature.to_vec(),
    }
}

fn encode_row(document: &Document, nodes: &mut Table<NodeId>) -> proto::SnapshotRow {
    let Row { stamp, content } = document.row;
    proto::SnapshotRow {
        key: document.key.as_str().to_owned(),
        hlc: stamp.hlc.0,
        node: nodes.index(&stamp.node),
        deleted: content.is_none(),
        content: document.content.clone().unwrap_or_default(),
        merged: document.merged.clone().unwrap_or_default(),
    }
}

pub(super) fn decode_chunk(chunk: proto::Chunk) -> Result<Chunk, WireError> {
    let collection = collection(&chunk.collection, "Chunk.collection")?;
    let part = if !chunk.held.is_empty() {
        at_most(chunk.held.len(), HELD_HEADS_MAX, "Chunk.held", "HELD_HEADS_MAX")?;
        Part::Held(chunk.held)
    } else if chunk.is_rows {
        at_most(chunk.rows.len(), PAGE_ENTRIES_MAX, "Chunk.rows", "PAGE_ENTRIES_MAX")?;
        let ids = chunk.nodes.iter().map(|id| Ok(NodeId(array(id, "Chunk.nodes")?)));
        let nodes = ids.collect::<Result<Vec<_>, WireError>>()?;
        let rows = chunk.rows.into_iter().map(|row| decode_row(row, &nodes));
        let rows = rows.collect::<Result<Vec<_>, WireError>>()?;
        if !rows.is_sorted_by(|a, b| a.key < b.key) {
            return Err(invalid("Chunk.rows"));
        }
        Part::Rows(rows)
    } else {
        at_most(chunk.heads.len(), VECTOR_LOGS_MAX, "Chunk.heads", "VECTOR_LOGS_MAX")?;
        let heads = chunk.heads.into_iter().map(|head| decode_head(head, &collection));
        let heads = heads.collect::<Result<Vec<_>, WireError>>()?;
        if !heads.is_sorted_by(|a, b| a.0 < b.0) {
            return Err(invalid("Chunk.heads"));
        }
        Part::Heads(heads)
    };
    Ok(Chunk { collection, part, last: chunk.last, refused: chunk.refused, ahead: chunk.ahead })
}

fn decode_head(
    head: proto::SnapshotHead,
    collection: &Collection,
) -> Result<(LogId, PublicKey, SignedHead), WireError> {
    let key = PublicKey(array(&head.public_key, "SnapshotHead.public_key")?);
    let log = LogId {
        author: NodeId::of(&key),
        incarnation: Incarnation(head.incarnation),
        collection: collection.clone(),
    };
    let signed = SignedHead {
        head: Head {
            seq: position(head.seq, "SnapshotHead.seq")?,
            hash: Hash(array(&head.hash, "SnapshotHead.hash")?),
        },
        hlc: Hlc(head.hlc),
        signature: array(&head.signature, "SnapshotHead.signature")?,
    };
    if head.seq == 0 {
        return Err(invalid("SnapshotHead.seq"));
    }
    Ok((log, key, signed))
}

fn decode_row(row: proto::SnapshotRow, nodes: &[NodeId]) -> Result<Document, WireError> {
    let node = *nodes.get(row.node as usize).ok_or(invalid("SnapshotRow.node"))?;
    if row.deleted && !row.content.is_empty() {
        return Err(invalid("SnapshotRow.content"));
    }
    let content = (!row.deleted).then_some(row.content);
    let hash = content.as_ref().map(|content: &Bytes| Hash(sha256(content)));
    Ok(Document {
        key: key_of(&row.key, "SnapshotRow.key")?,
        row: Row { stamp: Stamp { hlc: Hlc(row.hlc), node }, content: hash },
        content,
        merged: (!row.merged.is_empty()).then_some(row.merged),
    })
}
