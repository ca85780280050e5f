//! Target `wire`: session messages.
//!
//! Input: the type, the body.

use bytes::Bytes;
use entgldb_replica::id::{NodeId, sha256};
use entgldb_replica::limits::{
    EDIT_SPARE_BYTES, HELD_HEADS_MAX, INTEREST_MAX, PAGE_ENTRIES_MAX, PAYLOAD_BYTES_HARD, VECTOR_LOGS_MAX,
};
use entgldb_replica::version::{Hash, Seq};
use entgldb_replica::wire::{Chunk, Cursor, Message, Page, Part, Pull};

/// A message that is taken is within the limits and survives being written; nothing else happens with other bytes.
///
/// # Panics
/// When that does not hold.
pub fn check(data: &[u8]) {
    let [kind, body @ ..] = data else { return };
    let Ok(Some(message)) = Message::decode((*kind).into(), Bytes::copy_from_slice(body)) else { return };
    match &message {
        Message::Hello(hello) => {
            assert!(hello.version > 0 && hello.interests.len() <= INTEREST_MAX);
        }
        Message::Vector(part) => assert!(part.heads.len() <= VECTOR_LOGS_MAX),
        Message::Page(page) => check_page(page),
        Message::Ack(ack) => assert!(ack.results.len() <= PAGE_ENTRIES_MAX),
        Message::Chunk(Chunk { part: Part::Heads(heads), .. }) => {
            assert!(heads.len() <= VECTOR_LOGS_MAX);
            assert!(heads.iter().all(|(log, key, _)| log.author == NodeId::of(key)));
        }
        Message::Chunk(Chunk { part: Part::Rows(rows), .. }) => {
            assert!(rows.len() <= PAGE_ENTRIES_MAX);
            assert!(
                rows.is_sorted_by(|one, next| one.key < next.key),
                "in the order of their keys, each once"
            );
            for row in rows {
                let content = row.content.as_ref().map(|content| Hash(sha256(content)));
                assert_eq!(row.row.content, content, "a row says what its content is");
            }
        }
        Message::Chunk(Chunk { part: Part::Held(held), .. }) => assert!(held.len() <= HELD_HEADS_MAX),
        Message::Pull(Pull { from: Cursor::Held(heads), .. }) => assert!(heads.len() <= HELD_HEADS_MAX),
        Message::Pull(_) | Message::Digest(_) | Message::Flow { .. } => {}
    }
    let (kind_again, written) = message.encode();
    assert_eq!(kind_again, u64::from(*kind));
    let again = Message::decode(kind_again, written.clone()).expect("it reads what it wrote");
    assert_eq!(again.as_ref(), Some(&message), "writing changed a message");
    assert_eq!(message.encode().1, written, "one message has one form");
}

fn check_page(page: &Page) {
    let mut entries = 0;
    for run in &page.runs {
        assert_eq!(run.log.author, NodeId::of(&run.public_key));
        assert!(!run.entries.is_empty() && run.first_seq() > Seq(0));
        let (mut seq, mut hlc) = (run.first_seq(), run.entries[0].0.hlc);
        for (entry, _) in &run.entries {
            assert!(entry.seq == seq && entry.hlc >= hlc, "positions are dense, times do not fall");
            assert!(entry.payload.len() <= PAYLOAD_BYTES_HARD + EDIT_SPARE_BYTES);
            assert!(entry.replaces.is_none_or(|stamp| stamp.hlc <= entry.hlc));
            (seq, hlc) = (Seq(seq.0.wrapping_add(1)), entry.hlc);
        }
        let last = &run.entries[run.entries.len() - 1].0;
        assert_eq!((run.signed.head.seq, run.signed.hlc), (last.seq, last.hlc));
        entries += run.entries.len();
    }
    assert!(entries <= PAGE_ENTRIES_MAX);
}
