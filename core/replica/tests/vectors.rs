//! Golden vectors: the bytes of entries, heads and messages never change within a version.
//!
//! `docs/protocol/vectors.json` is for every other implementation, and for every later version of this one. Run with
//! `ENTGLDB_UPDATE=1` to write it anew, which is right only together with a new domain string.

use std::path::Path;

use data_encoding::HEXLOWER;
use entgldb_replica::clock::{Hlc, Stamp, WallMillis};
use entgldb_replica::custom::Resolver;
use entgldb_replica::entry::{AuthorKey, Chain, Entry, Op, SignedHead};
use entgldb_replica::fingerprint::Fingerprint;
use entgldb_replica::id::{Collection, Incarnation, Key, LogId, NodeId, sha256};
use entgldb_replica::merge::Merged;
use entgldb_replica::version::{Head, Seq};
use entgldb_replica::wire::{Message, Page, Run, check_of};
use serde_json::{Value, json};

const SEED: [u8; 32] = [0x5e; 32];

fn entries() -> Vec<Entry> {
    let base = Hlc::from_wall(WallMillis(1_800_000_000_000));
    let other = NodeId([0xab; 32]);
    let entry = |seq: u64, op, key: &str, payload: &'static str, replaces| Entry {
        seq: Seq(seq),
        hlc: Hlc(base.0 + (seq << 16) + seq),
        replaces,
        op,
        key: Key::new(key).unwrap(),
        payload: payload.into(),
    };
    let older = Stamp { hlc: Hlc(base.0 - 1), node: other };
    vec![
        entry(1, Op::Put, "1", r#"{"id":1,"name":"Espresso","price":1.5}"#, None),
        entry(2, Op::Put, "schlüssel", r#"{"id":"schlüssel","note":"\u0001 \"quoted\""}"#, Some(older)),
        entry(3, Op::Delete, r#"["a",2]"#, "", Some(older)),
        entry(4, Op::Put, &"k".repeat(1024), "", None),
    ]
}

/// Versions of a document that a resolver decides on: what two authors wrote apart over a put, what a third made of both, and
/// the state in between, all as `Merged` messages.
fn versions() -> Value {
    let at =
        |time: u64, node: u8| Stamp { hlc: Hlc((1_800_000_000_000 << 16) + time), node: NodeId([node; 32]) };
    let first = Merged::replaced(at(1, 0xaa), Some(&r#"{"n":1}"#.into()));
    let (one, two) =
        (first.version(Some(r#"{"n":2}"#.into()), at(2, 0xbb), 256), first.version(None, at(3, 0xcc), 256));
    let mut state = first;
    state.join(one.clone());
    state.join(two.clone());
    let doc = (Collection::new("c").unwrap(), Key::new("k").unwrap());
    state.resolve(&doc, Some(&Resolver::new(|_, _, _| Some(r#"{ "n": 3 }"#.into())))).unwrap();
    let last = state.version(Some(r#"{"n":4}"#.into()), at(4, 0xaa), 256);
    let short = state.version(Some(r#"{"n":4}"#.into()), at(4, 0xaa), 1);
    let edit = |edit: &Merged, stamp: Stamp| {
        let bytes = edit.encode(stamp);
        assert_eq!(Merged::decode_edit(bytes.clone(), stamp).as_ref(), Ok(edit));
        json!({"hlc": stamp.hlc.0.to_string(), "node": HEXLOWER.encode(&stamp.node.0), "payload": HEXLOWER.encode(&bytes)})
    };
    json!({
        "apart": [edit(&one, at(2, 0xbb)), edit(&two, at(3, 0xcc))],
        "state": edit_state(&state, at(3, 0xcc)),
        "content": String::from_utf8_lossy(&state.content().unwrap()),
        "over_both": edit(&last, at(4, 0xaa)),
        "over_both_with_room_for_one_author": edit(&short, at(4, 0xaa)),
    })
}

fn edit_state(state: &Merged, row: Stamp) -> Value {
    let bytes = state.encode(row);
    assert_eq!(Merged::decode(bytes.clone(), row).as_ref(), Ok(state));
    HEXLOWER.encode(&bytes).into()
}

fn vectors() -> Value {
    let key = AuthorKey::from_seed(&SEED);
    let log = LogId {
        author: key.node_id(),
        incarnation: Incarnation(0x0123_4567_89ab_cdef),
        collection: Collection::new("Bestell \"Positionen\"").unwrap(),
    };
    let mut chain = Chain::resume(log.clone(), Head::default(), Hlc::default());
    let mut listed = Vec::new();
    let (mut sent, mut contents) = (Vec::new(), Vec::new());
    for entry in entries() {
        let linked = chain.link(entry.clone()).unwrap();
        listed.push(json!({
            "seq": entry.seq.0,
            "hlc": entry.hlc.0.to_string(),
            "replaces": entry.replaces.map(|s| json!({"hlc": s.hlc.0.to_string(), "node": HEXLOWER.encode(&s.node.0)})),
            "op": entry.op as u8,
            "key": entry.key.as_str(),
            "payload": String::from_utf8_lossy(&entry.payload),
            "payload_hash": HEXLOWER.encode(&linked.payload_hash().0),
            "hash": HEXLOWER.encode(&linked.hash().0),
        }));
        sent.push((entry, check_of(&linked.hash())));
        contents.push(linked.payload_hash());
    }
    let last = sent.last().unwrap().0.hlc;
    let signed = SignedHead::sign(&key, &log, chain.head(), last);
    let row = Fingerprint::of_row(&sent[0].0.key, &sent[0].0.stamp(log.author), Some(&contents[0]));
    let head = Fingerprint::of_head(&log, &chain.head());
    let run = Run {
        log: log.clone(),
        public_key: key.public_key(),
        previous: Default::default(),
        entries: sent,
        signed,
    };
    let signature = HEXLOWER.encode(&run.signed.signature);
    let (kind, body) = Message::Page(Page { id: 1, runs: vec![run] }).encode();
    json!({
        "about": "Golden vectors of EntglDb's entries and heads; see entry.md. Integers beyond 2^53 are strings.",
        "author_seed": HEXLOWER.encode(&SEED),
        "public_key": HEXLOWER.encode(&key.public_key().0),
        "node_id": HEXLOWER.encode(&log.author.0),
        "node_id_text": log.author.to_string(),
        "incarnation": format!("{:016x}", log.incarnation.0),
        "collection": log.collection.as_str(),
        "entries": listed,
        "head_signature": signature,
        "row_fingerprint": HEXLOWER.encode(&row.to_bytes()),
        "head_fingerprint": HEXLOWER.encode(&head.to_bytes()),
        "page_frame_type": kind,
        "versions": versions(),
        "page_body_sha256": HEXLOWER.encode(&sha256(&body)),
    })
}

#[test]
fn entries_heads_and_pages_have_the_bytes_of_the_golden_vectors() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/protocol/vectors.json");
    let fresh = format!("{}\n", serde_json::to_string_pretty(&vectors()).unwrap());
    if std::env::var_os("ENTGLDB_UPDATE").is_some() {
        std::fs::write(&path, &fresh).unwrap();
    }
    let golden = std::fs::read_to_string(&path).expect("docs/protocol/vectors.json is checked in");
    assert_eq!(golden, fresh);
}
