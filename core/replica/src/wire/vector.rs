//! The bytes of vectors.

use super::{
    OwnHead, RowsHeld, Table, VectorPart, WireError, array, at_most, collection, invalid, position, proto,
};
use crate::clock::Hlc;
use crate::entry::SignedHead;
use crate::fingerprint::Fingerprint;
use crate::id::{Incarnation, LogId, NodeId};
use crate::limits::{INTEREST_MAX, VECTOR_LOGS_MAX};
use crate::version::{Hash, Head, Seq};

pub(super) fn encode_vector(part: &VectorPart) -> proto::Vector {
    let mut authors = Table::new();
    let mut floors = part.floors.iter().peekable();
    let mut floor_of =
        |log: &LogId| floors.next_if(|(other, _)| other == log).map_or(0, |(_, floor)| floor.0);
    let heads = part
        .heads
        .iter()
        .map(|(log, head)| proto::LogHead {
            author: authors.index(&log.author),
            incarnation: log.incarnation.0,
            collection: log.collection.as_str().to_owned(),
            seq: head.seq.0,
            hash: head.hash.0.to_vec(),
            floor: floor_of(log),
        })
        .collect();
    let own = part.own.iter().map(|own| proto::OwnHead {
        incarnation: own.incarnation.0,
        collection: own.collection.as_str().to_owned(),
        seq: own.signed.head.seq.0,
        hash: own.signed.head.hash.0.to_vec(),
        hlc: own.signed.hlc.0,
        signature: own.signed.signature.to_vec(),
    });
    let rows = part.rows.iter().map(|(name, held)| proto::RowsHeld {
        collection: name.as_str().to_owned(),
        count: held.count,
        fingerprint: held.fingerprint.map_or_else(Vec::new, |rows| rows.to_bytes().to_vec()),
    });
    proto::Vector {
        authors: authors.1.iter().map(|id| id.0.to_vec()).collect(),
        heads,
        last_part: part.last,
        own: own.collect(),
        rows: rows.collect(),
    }
}

pub(super) fn decode_vector(vector: proto::Vector) -> Result<VectorPart, WireError> {
    at_most(vector.heads.len(), VECTOR_LOGS_MAX, "Vector.heads", "VECTOR_LOGS_MAX")?;
    let mut floors = Vec::new();
    let heads = vector.heads.into_iter().map(|head| {
        let author = vector.authors.get(head.author as usize).ok_or(invalid("LogHead.author"))?;
        let log = LogId {
            author: NodeId(array(author, "Vector.authors")?),
            incarnation: Incarnation(head.incarnation),
            collection: collection(&head.collection, "LogHead.collection")?,
        };
        if head.floor > head.seq {
            return Err(invalid("LogHead.floor"));
        }
        if head.floor > 0 {
            floors.push((log.clone(), Seq(head.floor)));
        }
        Ok((
            log,
            Head { seq: position(head.seq, "LogHead.seq")?, hash: Hash(array(&head.hash, "LogHead.hash")?) },
        ))
    });
    let heads = heads.collect::<Result<_, WireError>>()?;
    // The engine's own collection is beside those that the nodes sync.
    at_most(vector.own.len(), INTEREST_MAX + 1, "Vector.own", "INTEREST_MAX")?;
    let own = vector.own.iter().map(|own| {
        let head =
            Head { seq: position(own.seq, "OwnHead.seq")?, hash: Hash(array(&own.hash, "OwnHead.hash")?) };
        let signature = array(&own.signature, "OwnHead.signature")?;
        Ok(OwnHead {
            incarnation: Incarnation(own.incarnation),
            collection: collection(&own.collection, "OwnHead.collection")?,
            signed: SignedHead { head, hlc: Hlc(own.hlc), signature },
        })
    });
    at_most(vector.rows.len(), INTEREST_MAX + 1, "Vector.rows", "INTEREST_MAX")?;
    let rows = vector.rows.iter().map(|held| {
        let fingerprint = match held.fingerprint.as_slice() {
            [] => None,
            bytes => Some(Fingerprint::from_bytes(array(bytes, "RowsHeld.fingerprint")?)),
        };
        let name = collection(&held.collection, "RowsHeld.collection")?;
        Ok((name, RowsHeld { count: held.count, fingerprint }))
    });
    let (own, rows) = (own.collect::<Result<_, WireError>>()?, rows.collect::<Result<_, WireError>>()?);
    Ok(VectorPart { heads, own, floors, rows, last: vector.last_part })
}
