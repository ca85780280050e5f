//! What a node holds, in as many messages as it takes.

use std::collections::BTreeSet;

use crate::fingerprint::Tally;
use crate::id::{Collection, LogId};
use crate::oplog::Logs;
use crate::version::Seq;
use crate::wire::{RowsHeld, VectorPart};

/// Bytes of a vector's part beside its heads, and of a head beside its collection's name; more than it can be.
pub(crate) const VECTOR_BYTES: usize = 32;
pub(crate) const HEAD_BYTES: usize = 132;
/// The same of what is said of a collection's rows.
const ROWS_BYTES: usize = 60;
/// The same of a head's proof.
pub(crate) const PROOF_BYTES: usize = 150;

/// What a part may have.
#[derive(Clone, Copy, Debug)]
pub(crate) struct VectorRoom {
    pub(crate) logs: usize,
    pub(crate) bytes: usize,
}

/// The heads of all shared logs in parts that each have room. `has_proof` tells the logs of which the proof is added later.
pub(crate) fn vector_parts(
    logs: &Logs,
    shared: &BTreeSet<Collection>,
    is_ahead_of_vector: bool,
    room: VectorRoom,
    has_proof: impl Fn(&LogId) -> bool,
) -> Vec<VectorPart> {
    let mut parts = vec![VectorPart::default()];
    let mut bytes = VECTOR_BYTES;
    for (log, head) in logs.vector().iter().filter(|(log, _)| shared.contains(&log.collection)) {
        let name = log.collection.as_str().len();
        let proof = if has_proof(log) { PROOF_BYTES + name } else { 0 };
        bytes += HEAD_BYTES + name + proof;
        let part = parts.last_mut().expect("there is a first part");
        if part.heads.len() >= room.logs || bytes > room.bytes {
            bytes = VECTOR_BYTES + HEAD_BYTES + name + proof;
            parts.push(VectorPart::default());
        }
        let part = parts.last_mut().expect("there is a first part");
        part.heads.push((log.clone(), *head));
        let floor = logs.floor(log);
        if floor > Seq(0) {
            part.floors.push((log.clone(), floor));
        }
    }
    let held = shared.iter().map(|name| {
        let Tally { fingerprint, rows: count } = logs.tally(name);
        (name.clone(), RowsHeld { count, fingerprint: (!is_ahead_of_vector).then_some(fingerprint) })
    });
    let rows_bytes: usize = shared.iter().map(|name| ROWS_BYTES + name.as_str().len()).sum();
    let has_room_alone = VECTOR_BYTES + rows_bytes <= room.bytes;
    if bytes + rows_bytes > room.bytes && has_room_alone {
        parts.push(VectorPart::default());
        bytes = VECTOR_BYTES;
    }
    let part = parts.last_mut().expect("there is a first part");
    part.last = true;
    // For more names than a frame has room for, nothing is said of rows: they can't be compared then.
    if bytes + rows_bytes <= room.bytes {
        part.rows = held.collect();
    }
    parts
}
