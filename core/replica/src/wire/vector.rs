//! The bytes of vectors.

use super::{OwnHead, Table, VectorPart, WireError, array, at_most, collection, invalid, proto};
use crate::clock::Hlc;
use crate::entry::SignedHead;
use crate::id::{Incarnation, LogId, NodeId};
use crate::limits::{INTEREST_MAX, VECTOR_LOGS_MAX};
use crate::version::{Hash, Head, Seq};

pub(super) fn encode_vector(part: &VectorPart) -> proto::Vector {
    let mut authors = Table::new();
    let heads = part
        .heads
        .iter()
        .map(|(log, head)| proto::LogHead {
            author: authors.index(&log.author),
            incarnation: log.incarnation.0,
            collection: log.collection.as_str().to_owned(),
            seq: head.seq.0,
            hash: head.hash.0.to_vec(),
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
    proto::Vector {
        authors: authors.1.iter().map(|id| id.0.to_vec()).collect(),
        heads,
        last_part: part.last,
        own: own.collect(),
    }
}

pub(super) fn decode_vector(vector: proto::Vector) -> Result<VectorPart, WireError> {
    at_most(vector.heads.len(), VECTOR_LOGS_MAX, "Vector.heads", "VECTOR_LOGS_MAX")?;
    let heads = vector.heads.into_iter().map(|head| {
        let author = vector.authors.get(head.author as usize).ok_or(invalid("LogHead.author"))?;
        let log = LogId {
            author: NodeId(array(author, "Vector.authors")?),
            incarnation: Incarnation(head.incarnation),
            collection: collection(&head.collection, "LogHead.collection")?,
        };
        Ok((log, Head { seq: Seq(head.seq), hash: Hash(array(&head.hash, "LogHead.hash")?) }))
    });
    let heads = heads.collect::<Result<_, WireError>>()?;
    at_most(vector.own.len(), INTEREST_MAX, "Vector.own", "INTEREST_MAX")?;
    let own = vector.own.iter().map(|own| {
        let head = Head { seq: Seq(own.seq), hash: Hash(array(&own.hash, "OwnHead.hash")?) };
        let signature = array(&own.signature, "OwnHead.signature")?;
        Ok(OwnHead {
            incarnation: Incarnation(own.incarnation),
            collection: collection(&own.collection, "OwnHead.collection")?,
            signed: SignedHead { head, hlc: Hlc(own.hlc), signature },
        })
    });
    Ok(VectorPart { heads, own: own.collect::<Result<_, WireError>>()?, last: vector.last_part })
}
