//! Target `entry`: the hash chain and the signatures over its heads.
//!
//! Input: choices that make a log, a number of entries, and now and then a signature and what is changed of it.

use std::sync::OnceLock;

use bytes::Bytes;
use entgldb_replica::clock::{Hlc, Stamp};
use entgldb_replica::entry::{AuthorKey, Chain, ChainError, Entry, Op, SignedHead};
use entgldb_replica::id::{Collection, Incarnation, Key, LogId, NodeId};
use entgldb_replica::version::{Hash, Head, Seq};
use sha2::{Digest, Sha256};

use super::Choices;

const ENTRIES_MAX: usize = 16;

/// An entry is linked if and only if it continues its log, with the hash that the documentation says.
///
/// # Panics
/// When that does not hold.
pub fn check(data: &[u8]) {
    let mut choices = Choices(data);
    // Signatures are slow. Few inputs that were made from one with a signature have one too.
    let sum = data.iter().fold(0u8, |sum, byte| sum.wrapping_add(*byte));
    let wants_signature = choices.byte() % 32 == 1 && sum.is_multiple_of(16);
    let key = key();
    let log = LogId {
        author: author(&mut choices, key),
        incarnation: Incarnation(choices.number()),
        collection: name(&mut choices),
    };
    let (mut head, mut hlc) =
        (Head { seq: Seq(choices.number() >> 1), hash: Hash([choices.byte(); 32]) }, Hlc(choices.number()));
    let mut chain = Chain::resume(log.clone(), head, hlc);
    for _ in 0..ENTRIES_MAX {
        if choices.is_empty() {
            break;
        }
        let Some(entry) = entry(&mut choices, head, hlc) else { continue };
        let expected = expected(&log, head, hlc, &entry);
        let linked = chain.link(entry.clone());
        match (&linked, &expected) {
            (Ok(linked), Ok(hash)) => {
                assert_eq!(linked.hash(), *hash, "not the documented hash");
                assert_eq!(
                    (linked.entry(), linked.payload_hash().0),
                    (&entry, <[u8; 32]>::from(Sha256::digest(&entry.payload)))
                );
                (head, hlc) = (Head { seq: entry.seq, hash: *hash }, entry.hlc);
            }
            (Err(error), Err(wrong)) => assert!(is(*error, wrong), "{error} where {wrong} was expected"),
            _ => panic!("{linked:?} where {expected:?} was expected"),
        }
        assert_eq!(chain.head(), head, "the head moved without an entry");
    }
    if wants_signature {
        check_signature(&mut choices, key, LogId { author: key.node_id(), ..log }, head, hlc);
    }
}

fn key() -> &'static AuthorKey {
    static KEY: OnceLock<AuthorKey> = OnceLock::new();
    KEY.get_or_init(|| AuthorKey::from_seed(&[9; 32]))
}

fn author(choices: &mut Choices<'_>, key: &AuthorKey) -> NodeId {
    match choices.byte() {
        0 => key.node_id(),
        byte => NodeId([byte; 32]),
    }
}

fn name(choices: &mut Choices<'_>) -> Collection {
    let length = choices.one_of(132);
    let text = String::from_utf8_lossy(choices.bytes(length));
    match Collection::new(&text) {
        Ok(collection) => {
            assert!((1..=128).contains(&text.len()) && !text.contains(char::is_control));
            collection
        }
        Err(_) => Collection::new("c").expect("a valid name"),
    }
}

/// The next entry, or one that is wrong in some way; `None` if its key is none.
fn entry(choices: &mut Choices<'_>, head: Head, hlc: Hlc) -> Option<Entry> {
    let shape = choices.byte();
    let seq = match shape & 3 {
        0..=2 => head.seq.0 + 1,
        _ => head.seq.0.wrapping_add(choices.byte().into()).wrapping_sub(2),
    };
    let hlc = match shape >> 2 & 3 {
        0 => hlc,
        1 => hlc.next(),
        2 => Hlc(hlc.0.saturating_add(choices.number() >> 20)),
        _ => Hlc(choices.number()),
    };
    let replaces = match shape >> 4 & 3 {
        0 | 1 => None,
        2 => Some(Stamp {
            hlc: Hlc(hlc.0.saturating_sub(choices.byte().into())),
            node: NodeId([choices.byte(); 32]),
        }),
        _ => Some(Stamp { hlc: Hlc(choices.number()), node: NodeId([choices.byte(); 32]) }),
    };
    let op = if shape & 0x40 == 0 { Op::Put } else { Op::Delete };
    let (key_bytes, payload_bytes) = (choices.byte(), choices.byte());
    let key = String::from_utf8_lossy(choices.bytes(key_bytes.into())).into_owned();
    let payload = Bytes::copy_from_slice(choices.bytes(payload_bytes.into()));
    Some(Entry { seq: Seq(seq), hlc, replaces, op, key: Key::new(&key).ok()?, payload })
}

/// The documented rules and bytes (`docs/protocol/entry.md`), once more.
fn expected(log: &LogId, head: Head, hlc: Hlc, entry: &Entry) -> Result<Hash, &'static str> {
    if entry.seq.0 > head.seq.0 + 1 {
        return Err("gap");
    } else if entry.seq.0 < head.seq.0 + 1 {
        return Err("behind");
    } else if entry.hlc < hlc {
        return Err("time");
    } else if entry.op == Op::Delete && !entry.payload.is_empty() {
        return Err("payload");
    } else if entry.replaces.is_some_and(|stamp| (stamp.hlc, stamp.node) >= (entry.hlc, log.author)) {
        return Err("younger");
    }
    let mut bytes = b"entgldb/entry/v1".to_vec();
    put_log(&mut bytes, log);
    bytes.extend(entry.seq.0.to_be_bytes());
    bytes.extend(head.hash.0);
    bytes.extend(entry.hlc.0.to_be_bytes());
    match entry.replaces {
        None => bytes.push(0),
        Some(stamp) => {
            bytes.push(1);
            bytes.extend(stamp.hlc.0.to_be_bytes());
            bytes.extend(stamp.node.0);
        }
    }
    bytes.push(if entry.op == Op::Put { 1 } else { 2 });
    bytes.extend(Sha256::digest(&entry.payload));
    put_text(&mut bytes, entry.key.as_str());
    Ok(Hash(Sha256::digest(&bytes).into()))
}

fn put_log(bytes: &mut Vec<u8>, log: &LogId) {
    bytes.extend(log.author.0);
    bytes.extend(log.incarnation.0.to_be_bytes());
    put_text(bytes, log.collection.as_str());
}

fn put_text(bytes: &mut Vec<u8>, text: &str) {
    bytes.extend(u32::try_from(text.len()).expect("a name is short").to_be_bytes());
    bytes.extend(text.as_bytes());
}

fn is(error: ChainError, wrong: &str) -> bool {
    match error {
        ChainError::Gap { .. } => wrong == "gap",
        ChainError::Behind { .. } => wrong == "behind",
        ChainError::TimeWentBack { .. } => wrong == "time",
        ChainError::DeleteWithPayload { .. } => wrong == "payload",
        ChainError::ReplacesYounger { .. } => wrong == "younger",
        _ => false,
    }
}

/// A signature holds for what was signed, and for nothing that differs from it in one bit.
fn check_signature(choices: &mut Choices<'_>, key: &AuthorKey, log: LogId, head: Head, hlc: Hlc) {
    let signed = SignedHead::sign(key, &log, head, hlc);
    assert_eq!(signed.verify(&log, &key.public_key()), Ok(()));
    let (what, bit) = (choices.byte(), 1u8 << (choices.byte() % 8));
    let at = choices.one_of(64);
    let (mut log, mut other, mut public_key) = (log, signed, key.public_key());
    match what % 7 {
        0 => other.signature[at] ^= bit,
        1 => other.head.hash.0[at % 32] ^= bit,
        2 => other.head.seq.0 ^= 1 << at,
        3 => other.hlc.0 ^= 1 << at,
        4 => log.incarnation.0 ^= 1 << at,
        5 => public_key.0[at % 32] ^= bit,
        _ => log.author.0[at % 32] ^= bit,
    }
    assert!(other.verify(&log, &public_key).is_err(), "a signature holds for something else");
}
