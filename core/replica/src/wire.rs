//! Session messages and their bytes.
//!
//! What comes in is parsed into types that can only hold valid values, or refused as a whole with [`WireError`]: a peer
//! that sends such bytes is at fault. The layout is `docs/protocol/session.proto`; `generated.rs` is made from it.

use std::collections::BTreeMap;

use bytes::Bytes;
use prost::Message as _;

use crate::clock::WallMillis;
use crate::entry::{Entry, SignedHead};
use crate::fingerprint::Fingerprint;
use crate::id::{Collection, Incarnation, Key, LogId, NameError, NodeId, PublicKey};
use crate::limits::{INTEREST_MAX, PAGE_ENTRIES_MAX, SEQ_MAX};
use crate::resolve::Document;
use crate::version::{Hash, Head, Seq};

#[rustfmt::skip]
#[allow(missing_docs, unreachable_pub)]
pub(crate) mod generated;
mod page;
mod snapshot;
mod vector;

use generated as proto;
pub use generated::run_result::Code;
use page::{decode_page, encode_page};
use snapshot::{decode_chunk, decode_pull, encode_chunk, encode_pull};
use vector::{decode_vector, encode_vector};

/// Version of the session messages that this crate speaks.
pub const VERSION: u32 = 1;

/// Bytes that are not a valid message. Nothing of them was taken; the sender is at fault.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum WireError {
    /// Not protobuf, or cut off.
    #[error("a message of type {kind} is not readable: {reason}")]
    Unreadable {
        /// The frame's type.
        kind: u64,
        /// What the decoder says.
        reason: String,
    },
    /// A field with a value that it cannot have.
    #[error("{field} has a value that it cannot have")]
    Invalid {
        /// The field, as `Message.field`.
        field: &'static str,
    },
    /// A name that is none.
    #[error("{field}: {reason}")]
    Name {
        /// The field, as `Message.field`.
        field: &'static str,
        /// What is wrong with the name.
        reason: NameError,
    },
    /// More of something than a message may have.
    #[error("{field} has {count}; the limit {limit} allows {max}")]
    TooMany {
        /// The field, as `Message.field`.
        field: &'static str,
        /// How many there are.
        count: usize,
        /// How many there may be.
        max: usize,
        /// Name of the limit.
        limit: &'static str,
    },
}

fn invalid(field: &'static str) -> WireError {
    WireError::Invalid { field }
}

/// A session message.
#[derive(Clone, PartialEq, Debug)]
pub enum Message {
    /// The first one each way.
    Hello(Hello),
    /// What the sender holds, in short.
    Digest(Digest),
    /// What the sender holds, in full.
    Vector(VectorPart),
    /// Whether the receiver of this message may send pages.
    Flow {
        /// It may.
        open: bool,
    },
    /// Entries.
    Page(Page),
    /// What became of a page.
    Ack(Ack),
    /// A question for a piece of a snapshot.
    Pull(Pull),
    /// A piece of a snapshot.
    Chunk(Chunk),
}

/// See `Hello` in the protocol.
#[derive(Clone, PartialEq, Debug)]
pub struct Hello {
    /// Version of the messages.
    pub version: u32,
    /// Birth of the sender's oplog.
    pub incarnation: Incarnation,
    /// Collections that the sender syncs.
    pub interests: Vec<Collection>,
    /// The sender's wall clock.
    pub wall: WallMillis,
    /// Largest frame that the sender takes, in bytes.
    pub frame_bytes_max: u64,
}

/// See `Digest` in the protocol.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Digest {
    /// Over the heads of all shared logs.
    pub vector: Fingerprint,
    /// Over the rows of the shared collections; `None` while the sender's rows are ahead of its vector, in the middle of a
    /// snapshot.
    pub rows: Option<Fingerprint>,
    /// The sender's wall clock.
    pub wall: WallMillis,
}

/// A part of a vector.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct VectorPart {
    /// Heads of logs.
    pub heads: Vec<(LogId, Head)>,
    /// Of these, the heads of the receiver's own logs, with its own signatures: what makes a node that was restored from
    /// an older copy believe it.
    pub own: Vec<OwnHead>,
    /// Of these, logs that the sender has forgotten the beginning of, with the last position that is gone.
    pub floors: Vec<(LogId, Seq)>,
    /// In the last part: what the sender has of each shared collection's rows.
    pub rows: Vec<(Collection, RowsHeld)>,
    /// Whether the vector is complete with this part.
    pub last: bool,
}

/// What a node has of a collection's rows.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub struct RowsHeld {
    /// How many, those of deleted documents too.
    pub count: u64,
    /// Over the rows; `None` while they are ahead of the vector.
    pub fingerprint: Option<Fingerprint>,
}

/// A head of a log whose author receives it.
#[derive(Clone, PartialEq, Debug)]
pub struct OwnHead {
    /// The birth of the author's oplog.
    pub incarnation: Incarnation,
    /// The log's collection.
    pub collection: Collection,
    /// The head, signed by its author.
    pub signed: SignedHead,
}

/// Entries of any number of logs, whole units only.
#[derive(Clone, PartialEq, Debug)]
pub struct Page {
    /// Dense from 1 within a link and direction.
    pub id: u64,
    /// The runs.
    pub runs: Vec<Run>,
}

/// Consecutive entries of one log.
#[derive(Clone, PartialEq, Debug)]
pub struct Run {
    /// The log.
    pub log: LogId,
    /// The author's key.
    pub public_key: PublicKey,
    /// Hash of the entry before the first one.
    pub previous: Hash,
    /// The entries, never empty, each with the first four bytes of the hash that the sender has for it.
    pub entries: Vec<(Entry, u32)>,
    /// The author's signature over the last one.
    pub signed: SignedHead,
}

impl Run {
    /// Position of the first entry.
    #[must_use]
    pub fn first_seq(&self) -> Seq {
        self.entries.first().map_or(self.signed.head.seq, |(entry, _)| entry.seq)
    }
}

/// What became of a page.
#[derive(Clone, PartialEq, Debug)]
pub struct Ack {
    /// The page.
    pub page: u64,
    /// One result for each of its runs, in order.
    pub results: Vec<RunResult>,
}

/// What became of a run.
#[derive(Clone, PartialEq, Debug)]
pub struct RunResult {
    /// Taken, or why not.
    pub code: Code,
    /// Position up to which the receiver holds the log.
    pub seq: Seq,
    /// For people; empty if taken.
    pub detail: String,
}

/// A question for the next piece of a snapshot of a collection.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Pull {
    /// The collection.
    pub collection: Collection,
    /// From where.
    pub from: Cursor,
}

/// A place in a snapshot: all heads come before all rows.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Cursor {
    /// No place: which of these heads of logs of the collection the giver holds, never empty.
    Held(Vec<(NodeId, Incarnation, Head)>),
    /// After the head of this author's log, or at the first head.
    Heads(Option<(NodeId, Incarnation)>),
    /// After this key, or at the first row.
    Rows(Option<Key>),
}

/// A piece of a snapshot.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Chunk {
    /// The collection.
    pub collection: Collection,
    /// What it brings.
    pub part: Part,
    /// Whether it brings the last heads, or the last rows.
    pub last: bool,
    /// Why it brings nothing although it is not the last one; empty otherwise.
    pub refused: String,
    /// Whether the giver's rows may be ahead of its heads: it has a part of another's snapshot itself.
    pub ahead: bool,
}

/// What a piece of a snapshot brings.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Part {
    /// Heads that are covered by the rows to come, with their authors' keys; in order.
    Heads(Vec<(LogId, PublicKey, SignedHead)>),
    /// Rows, in the order of their keys.
    Rows(Vec<Document>),
    /// Of each head that was asked for whether the giver holds it.
    Held(Vec<bool>),
}

impl Part {
    /// Whether there is nothing in it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        match self {
            Self::Heads(heads) => heads.is_empty(),
            Self::Rows(rows) => rows.is_empty(),
            Self::Held(held) => held.is_empty(),
        }
    }
}

/// First four bytes of a hash: names a damaged entry without carrying whole hashes.
#[must_use]
pub fn check_of(hash: &Hash) -> u32 {
    u32::from_be_bytes([hash.0[0], hash.0[1], hash.0[2], hash.0[3]])
}

/// Indices for byte strings that repeat within a message.
struct Table<T>(BTreeMap<T, u32>, Vec<T>);

impl<T: Ord + Clone> Table<T> {
    fn new() -> Self {
        Self(BTreeMap::new(), Vec::new())
    }

    fn index(&mut self, value: &T) -> u32 {
        if let Some(index) = self.0.get(value) {
            return *index;
        }
        let index = u32::try_from(self.1.len()).expect("a message has few authors");
        self.0.insert(value.clone(), index);
        self.1.push(value.clone());
        index
    }
}

impl Message {
    /// The frame type of a pull.
    pub(crate) const PULL: u64 = proto::Kind::Pull as u64;
    /// The frame type of a chunk.
    pub const CHUNK: u64 = proto::Kind::Chunk as u64;
    /// The type of [`Message::Page`].
    pub const PAGE: u64 = proto::Kind::Page as u64;
    /// The frame type of a vector.
    pub const VECTOR: u64 = proto::Kind::Vector as u64;

    /// The frame type and body of this message.
    #[must_use]
    pub fn encode(&self) -> (u64, Bytes) {
        let (kind, body) = match self {
            Self::Hello(hello) => (proto::Kind::Hello, encode_hello(hello).encode_to_vec()),
            Self::Digest(digest) => (
                proto::Kind::Digest,
                proto::Digest {
                    vector: digest.vector.to_bytes().to_vec(),
                    rows: digest.rows.map_or_else(Vec::new, |rows| rows.to_bytes().to_vec()),
                    wall_ms: digest.wall.0,
                }
                .encode_to_vec(),
            ),
            Self::Vector(part) => (proto::Kind::Vector, encode_vector(part).encode_to_vec()),
            Self::Flow { open } => (proto::Kind::Flow, proto::Flow { open: *open }.encode_to_vec()),
            Self::Page(page) => (proto::Kind::Page, encode_page(page).encode_to_vec()),
            Self::Ack(ack) => (proto::Kind::Ack, encode_ack(ack).encode_to_vec()),
            Self::Pull(pull) => (proto::Kind::Pull, encode_pull(pull).encode_to_vec()),
            Self::Chunk(chunk) => (proto::Kind::Chunk, encode_chunk(chunk).encode_to_vec()),
        };
        (kind as i32 as u64, body.into())
    }

    /// Whether the message carries documents, which compress well.
    #[must_use]
    pub fn has_documents(&self) -> bool {
        matches!(self, Self::Page(_) | Self::Chunk(_))
    }

    /// Reads a message. `None` for a type that this version does not know: it is passed over.
    ///
    /// # Errors
    /// When the bytes are not a valid message of that type.
    pub fn decode(kind: u64, body: Bytes) -> Result<Option<Self>, WireError> {
        let unreadable = |e: prost::DecodeError| WireError::Unreadable { kind, reason: e.to_string() };
        let known = i32::try_from(kind).ok().and_then(|kind| proto::Kind::try_from(kind).ok());
        Ok(Some(match known {
            Some(proto::Kind::Hello) => {
                Self::Hello(decode_hello(proto::Hello::decode(body).map_err(unreadable)?)?)
            }
            Some(proto::Kind::Digest) => {
                let digest = proto::Digest::decode(body).map_err(unreadable)?;
                Self::Digest(Digest {
                    vector: Fingerprint::from_bytes(array(&digest.vector, "Digest.vector")?),
                    rows: match digest.rows.as_slice() {
                        [] => None,
                        rows => Some(Fingerprint::from_bytes(array(rows, "Digest.rows")?)),
                    },
                    wall: WallMillis(digest.wall_ms),
                })
            }
            Some(proto::Kind::Vector) => {
                Self::Vector(decode_vector(proto::Vector::decode(body).map_err(unreadable)?)?)
            }
            Some(proto::Kind::Flow) => {
                Self::Flow { open: proto::Flow::decode(body).map_err(unreadable)?.open }
            }
            Some(proto::Kind::Page) => {
                Self::Page(decode_page(proto::Page::decode(body).map_err(unreadable)?)?)
            }
            Some(proto::Kind::Ack) => Self::Ack(decode_ack(proto::Ack::decode(body).map_err(unreadable)?)?),
            Some(proto::Kind::Pull) => {
                Self::Pull(decode_pull(proto::Pull::decode(body).map_err(unreadable)?)?)
            }
            Some(proto::Kind::Chunk) => {
                Self::Chunk(decode_chunk(proto::Chunk::decode(body).map_err(unreadable)?)?)
            }
            Some(proto::Kind::Unspecified) | None => return Ok(None),
        }))
    }
}

fn array<const N: usize>(bytes: &[u8], field: &'static str) -> Result<[u8; N], WireError> {
    bytes.try_into().map_err(|_| invalid(field))
}

fn collection(name: &str, field: &'static str) -> Result<Collection, WireError> {
    Collection::new(name).map_err(|reason| WireError::Name { field, reason })
}

/// A position that an entry can have, or the one before the first.
fn position(seq: u64, field: &'static str) -> Result<Seq, WireError> {
    if seq <= SEQ_MAX { Ok(Seq(seq)) } else { Err(invalid(field)) }
}

fn at_most(count: usize, max: usize, field: &'static str, limit: &'static str) -> Result<(), WireError> {
    if count > max { Err(WireError::TooMany { field, count, max, limit }) } else { Ok(()) }
}

fn encode_hello(hello: &Hello) -> proto::Hello {
    proto::Hello {
        version: hello.version,
        incarnation: hello.incarnation.0,
        interests: hello.interests.iter().map(|name| name.as_str().to_owned()).collect(),
        wall_ms: hello.wall.0,
        frame_bytes_max: hello.frame_bytes_max,
    }
}

fn decode_hello(hello: proto::Hello) -> Result<Hello, WireError> {
    at_most(hello.interests.len(), INTEREST_MAX, "Hello.interests", "INTEREST_MAX")?;
    if hello.version == 0 {
        return Err(invalid("Hello.version"));
    }
    Ok(Hello {
        version: hello.version,
        incarnation: Incarnation(hello.incarnation),
        interests: hello
            .interests
            .iter()
            .map(|name| collection(name, "Hello.interests"))
            .collect::<Result<_, _>>()?,
        wall: WallMillis(hello.wall_ms),
        frame_bytes_max: hello.frame_bytes_max,
    })
}

fn encode_ack(ack: &Ack) -> proto::Ack {
    let results = ack.results.iter().map(|result| proto::RunResult {
        code: result.code as i32,
        seq: result.seq.0,
        detail: result.detail.clone(),
    });
    proto::Ack { page: ack.page, results: results.collect() }
}

fn decode_ack(ack: proto::Ack) -> Result<Ack, WireError> {
    at_most(ack.results.len(), PAGE_ENTRIES_MAX, "Ack.results", "PAGE_ENTRIES_MAX")?;
    let results = ack.results.into_iter().map(|result| {
        Ok(RunResult {
            code: Code::try_from(result.code).map_err(|_| invalid("RunResult.code"))?,
            seq: position(result.seq, "RunResult.seq")?,
            detail: result.detail,
        })
    });
    Ok(Ack { page: ack.page, results: results.collect::<Result<_, WireError>>()? })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::{Hlc, Stamp};
    use crate::entry::Op;
    use crate::limits::{PAYLOAD_BYTES_HARD, VECTOR_LOGS_MAX};
    use crate::resolve::Row;
    use proptest::prelude::*;

    fn node() -> impl Strategy<Value = NodeId> {
        any::<u8>().prop_map(|byte| NodeId([byte; 32]))
    }

    fn name() -> impl Strategy<Value = Collection> {
        "[a-zA-Z \"ü]{1,20}".prop_map(|name| Collection::new(&name).unwrap())
    }

    fn run() -> impl Strategy<Value = Run> {
        let entry =
            (any::<u16>(), any::<bool>(), "[^\0]{1,30}", "[^\0]{0,50}", prop::option::of((node(), 0u64..9)));
        (
            any::<[u8; 32]>(),
            any::<u64>(),
            name(),
            1u64..1000,
            any::<[u8; 32]>(),
            prop::collection::vec(entry, 1..8),
        )
            .prop_map(|(key, incarnation, collection, first, previous, entries)| {
                let public_key = PublicKey(key);
                let log = LogId {
                    author: NodeId::of(&public_key),
                    incarnation: Incarnation(incarnation),
                    collection,
                };
                let mut hlc = Hlc(1000);
                let entries: Vec<(Entry, u32)> = (first..)
                    .zip(entries)
                    .map(|(seq, (later, put, key, payload, replaces))| {
                        hlc = Hlc(hlc.0 + u64::from(later));
                        let replaces =
                            replaces.map(|(node, earlier)| Stamp { hlc: Hlc(hlc.0 - earlier), node });
                        let op = if put { Op::Put } else { Op::Delete };
                        let key = Key::new(&key).unwrap();
                        (
                            Entry { seq: Seq(seq), hlc, replaces, op, key, payload: payload.into() },
                            u32::from(later),
                        )
                    })
                    .collect();
                let seq = entries.last().unwrap().0.seq;
                let signed = SignedHead { head: Head { seq, hash: Hash(previous) }, hlc, signature: [7; 64] };
                let previous = if first == 1 { Hash::default() } else { Hash(previous) };
                Run { log, public_key, previous, entries, signed }
            })
    }

    fn document() -> impl Strategy<Value = Document> {
        (node(), any::<u64>(), prop::option::of(".{0,20}"), prop::option::of(".{1,20}")).prop_map(
            |(node, hlc, content, merged)| {
                let content = content.map(Bytes::from);
                let hash = content.as_ref().map(|content| Hash(crate::id::sha256(content)));
                let row = Row { stamp: Stamp { hlc: Hlc(hlc), node }, content: hash };
                Document { key: Key::new("k").unwrap(), row, content, merged: merged.map(Bytes::from) }
            },
        )
    }

    fn message() -> impl Strategy<Value = Message> {
        prop_oneof![
            (1u32..9, any::<u64>(), prop::collection::vec(name(), 0..5), any::<u64>(), any::<u64>())
                .prop_map(|(version, incarnation, interests, wall, frame_bytes_max)| {
                    let (incarnation, wall) = (Incarnation(incarnation), WallMillis(wall));
                    Message::Hello(Hello { version, incarnation, interests, wall, frame_bytes_max })
                }),
            (any::<[u8; 32]>(), any::<[u8; 32]>(), any::<u64>()).prop_map(|(vector, rows, wall)| {
                let (vector, rows) = (Fingerprint::from_bytes(vector), Fingerprint::from_bytes(rows));
                let rows = (wall % 2 == 0).then_some(rows);
                Message::Digest(Digest { vector, rows, wall: WallMillis(wall) })
            }),
            any::<bool>().prop_map(|open| Message::Flow { open }),
            (any::<u64>(), prop::collection::vec(run(), 0..4))
                .prop_map(|(id, runs)| Message::Page(Page { id, runs })),
            prop::collection::vec((node(), any::<u64>(), name(), 0..=SEQ_MAX, any::<[u8; 32]>()), 0..5)
                .prop_map(|heads| {
                    let heads = heads.into_iter().map(|(author, incarnation, collection, seq, hash)| {
                        let log = LogId { author, incarnation: Incarnation(incarnation), collection };
                        (log, Head { seq: Seq(seq), hash: Hash(hash) })
                    });
                    let own = |(log, head): &(LogId, Head)| OwnHead {
                        incarnation: log.incarnation,
                        collection: log.collection.clone(),
                        signed: SignedHead { head: *head, hlc: Hlc(7), signature: [8; 64] },
                    };
                    let heads: Vec<(LogId, Head)> = heads.collect();
                    let own = heads.iter().step_by(2).map(own).collect();
                    let forgotten = heads.iter().filter(|(_, head)| head.seq.0 % 3 == 1);
                    let floors = forgotten.map(|(log, head)| (log.clone(), Seq(head.seq.0.div_ceil(2))));
                    let floors = floors.collect();
                    let rows = heads.iter().map(|(log, head)| {
                        let fingerprint = (head.seq.0 % 2 == 0).then(|| Fingerprint::from_bytes(head.hash.0));
                        (log.collection.clone(), RowsHeld { count: head.seq.0, fingerprint })
                    });
                    let rows = rows.collect();
                    Message::Vector(VectorPart { heads, own, floors, rows, last: true })
                }),
            (name(), prop::option::of((node(), any::<u64>()))).prop_map(|(collection, after)| {
                let after = after.map(|(node, incarnation)| (node, Incarnation(incarnation)));
                Message::Pull(Pull { collection, from: Cursor::Heads(after) })
            }),
            prop::collection::vec(run(), 1..4).prop_map(|runs| {
                let collection = runs[0].log.collection.clone();
                let heads = runs.iter().map(|run| (run.log.author, run.log.incarnation, run.signed.head));
                Message::Pull(Pull { collection, from: Cursor::Held(heads.collect()) })
            }),
            (name(), prop::collection::vec(any::<bool>(), 1..9)).prop_map(|(collection, held)| {
                let (part, refused) = (Part::Held(held), String::new());
                Message::Chunk(Chunk { collection, part, last: true, refused, ahead: false })
            }),
            (name(), prop::option::of("[^\0]{1,30}")).prop_map(|(collection, after)| {
                let after = after.map(|key| Key::new(&key).unwrap());
                Message::Pull(Pull { collection, from: Cursor::Rows(after) })
            }),
            (name(), prop::collection::vec(run(), 0..4), any::<bool>()).prop_map(
                |(collection, runs, last)| {
                    let heads = runs.into_iter().map(|run| {
                        let log = LogId { collection: collection.clone(), ..run.log };
                        (log, (run.public_key, run.signed))
                    });
                    let heads: BTreeMap<_, _> = heads.collect();
                    let heads = heads.into_iter().map(|(log, (key, signed))| (log, key, signed)).collect();
                    Message::Chunk(Chunk {
                        collection,
                        part: Part::Heads(heads),
                        last,
                        refused: String::new(),
                        ahead: true,
                    })
                }
            ),
            (name(), prop::collection::btree_map("[^\0]{1,9}", document(), 0..5), ".{0,9}").prop_map(
                |(collection, rows, refused)| {
                    let named = |(key, document): (String, Document)| {
                        let key = Key::new(&key).unwrap();
                        Document { key, ..document }
                    };
                    let rows = rows.into_iter().map(named).collect();
                    Message::Chunk(Chunk {
                        collection,
                        part: Part::Rows(rows),
                        last: false,
                        refused,
                        ahead: false,
                    })
                }
            ),
            (any::<u64>(), prop::collection::vec((0i32..5, 0..=SEQ_MAX, ".{0,20}"), 0..5)).prop_map(
                |(page, results)| {
                    let results = results.into_iter().map(|(code, seq, detail)| RunResult {
                        code: Code::try_from(code).unwrap(),
                        seq: Seq(seq),
                        detail,
                    });
                    Message::Ack(Ack { page, results: results.collect() })
                }
            ),
        ]
    }

    proptest! {
        #[test]
        fn every_message_survives_its_bytes(message in message()) {
            let (kind, body) = message.encode();
            prop_assert_eq!(Message::decode(kind, body), Ok(Some(message)));
        }

        #[test]
        fn arbitrary_bytes_never_panic(kind in 0u64..30, body in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = Message::decode(kind, body.into());
        }

        #[test]
        fn a_cut_message_never_panics(message in message(), keep in 0.0f64..1.0) {
            let (kind, body) = message.encode();
            let cut = (body.len() as f64 * keep) as usize;
            let _ = Message::decode(kind, body.slice(..cut));
        }
    }

    #[test]
    fn a_type_from_a_later_version_is_passed_over() {
        assert_eq!(Message::decode(99, Bytes::from_static(b"anything")), Ok(None));
    }

    #[test]
    fn a_vector_over_the_limit_is_refused_with_its_name() {
        let head = proto::LogHead { collection: "c".into(), hash: vec![0; 32], ..Default::default() };
        let vector = proto::Vector {
            authors: vec![vec![0; 32]],
            heads: vec![head; VECTOR_LOGS_MAX + 1],
            last_part: true,
            own: Vec::new(),
            rows: Vec::new(),
        };
        let refused = Message::decode(proto::Kind::Vector as i32 as u64, vector.encode_to_vec().into());
        assert!(matches!(refused, Err(WireError::TooMany { limit: "VECTOR_LOGS_MAX", .. })), "{refused:?}");
    }

    #[test]
    fn a_page_over_the_limit_is_refused_with_its_name() {
        let entry = proto::Entry { op: 2, key: "k".into(), ..Default::default() };
        let run = proto::Run { entries: vec![entry; PAGE_ENTRIES_MAX + 1], ..Default::default() };
        let page = proto::Page { runs: vec![run], ..Default::default() };
        let refused = Message::decode(proto::Kind::Page as i32 as u64, page.encode_to_vec().into());
        assert!(matches!(refused, Err(WireError::TooMany { limit: "PAGE_ENTRIES_MAX", .. })), "{refused:?}");
    }

    #[test]
    fn a_run_that_ends_at_the_last_position_there_can_be_is_read() {
        let run = proto::Run {
            collection: "c".into(),
            first_seq: SEQ_MAX,
            previous: vec![1; 32].into(),
            entries: vec![proto::Entry { op: 1, key: "k".into(), ..Default::default() }],
            hash: vec![2; 32].into(),
            signature: vec![3; 64].into(),
            ..Default::default()
        };
        let page =
            proto::Page { id: 1, authors: vec![vec![4; 32].into()], runs: vec![run], ..Default::default() };
        let read = Message::decode(proto::Kind::Page as i32 as u64, page.encode_to_vec().into());
        let Ok(Some(Message::Page(read))) = read else { panic!("{read:?}") };
        assert_eq!(read.runs[0].entries[0].0.seq, Seq(SEQ_MAX));
    }

    /// A message of each kind that names a position, with this one.
    fn at_position(seq: u64) -> [(proto::Kind, Bytes); 6] {
        let (hash, signature) = (vec![2; 32], vec![3; 64]);
        let run = proto::Run {
            collection: "c".into(),
            first_seq: seq,
            previous: vec![1; 32].into(),
            entries: vec![proto::Entry { op: 1, key: "k".into(), ..Default::default() }],
            hash: hash.clone().into(),
            signature: signature.clone().into(),
            ..Default::default()
        };
        let page =
            proto::Page { id: 1, authors: vec![vec![4; 32].into()], runs: vec![run], ..Default::default() };
        let head = proto::LogHead { collection: "c".into(), seq, hash: hash.clone(), ..Default::default() };
        let heads = proto::Vector { authors: vec![vec![4; 32]], heads: vec![head], ..Default::default() };
        let own = proto::OwnHead {
            collection: "c".into(),
            seq,
            hash: hash.clone(),
            signature: signature.clone(),
            ..Default::default()
        };
        let own = proto::Vector { own: vec![own], ..Default::default() };
        let held = proto::HeldHead { author: vec![4; 32], seq, hash: hash.clone(), ..Default::default() };
        let pull = proto::Pull { collection: "c".into(), held: vec![held], ..Default::default() };
        let head =
            proto::SnapshotHead { public_key: vec![4; 32], seq, hash, signature, ..Default::default() };
        let chunk = proto::Chunk { collection: "c".into(), heads: vec![head], ..Default::default() };
        let ack =
            proto::Ack { page: 1, results: vec![proto::RunResult { code: 1, seq, ..Default::default() }] };
        [
            (proto::Kind::Page, page.encode_to_vec().into()),
            (proto::Kind::Vector, heads.encode_to_vec().into()),
            (proto::Kind::Vector, own.encode_to_vec().into()),
            (proto::Kind::Pull, pull.encode_to_vec().into()),
            (proto::Kind::Chunk, chunk.encode_to_vec().into()),
            (proto::Kind::Ack, ack.encode_to_vec().into()),
        ]
    }

    #[test]
    fn positions_are_read_up_to_the_last_that_there_can_be() {
        let read = |(kind, body): (proto::Kind, Bytes)| Message::decode(kind as i32 as u64, body);
        for message in at_position(SEQ_MAX) {
            let kind = message.0;
            assert!(read(message).is_ok(), "{kind:?}");
        }
        for seq in [SEQ_MAX + 1, 1 << 41, u64::MAX] {
            for message in at_position(seq) {
                let kind = message.0;
                assert!(matches!(read(message), Err(WireError::Invalid { .. })), "{kind:?} {seq}");
            }
        }
    }

    #[test]
    fn proofs_of_all_collections_that_two_nodes_can_share_are_read_and_more_are_refused() {
        let own = proto::OwnHead {
            collection: "c".into(),
            hash: vec![0; 32],
            signature: vec![0; 64],
            ..Default::default()
        };
        let read = |count: usize| {
            let vector = proto::Vector { own: vec![own.clone(); count], ..Default::default() };
            Message::decode(proto::Kind::Vector as i32 as u64, vector.encode_to_vec().into())
        };
        // The engine's own collection comes to those of the applications.
        assert!(read(INTEREST_MAX + 1).is_ok());
        let refused = read(INTEREST_MAX + 2);
        assert!(matches!(refused, Err(WireError::TooMany { limit: "INTEREST_MAX", .. })), "{refused:?}");
    }

    #[test]
    fn an_edit_of_the_largest_document_is_read_and_a_larger_one_is_refused() {
        let read = |bytes: usize| {
            let payload = Bytes::from(vec![0; bytes]);
            let entry = proto::Entry { op: 3, key: "k".into(), payload, ..Default::default() };
            let run = proto::Run {
                collection: "c".into(),
                first_seq: 1,
                entries: vec![entry],
                hash: vec![2; 32].into(),
                signature: vec![3; 64].into(),
                ..Default::default()
            };
            let authors = vec![vec![4; 32].into()];
            let page = proto::Page { id: 1, authors, runs: vec![run], ..Default::default() };
            Message::decode(proto::Kind::Page as i32 as u64, page.encode_to_vec().into())
        };
        let most = crate::states::edit_bytes_max(PAYLOAD_BYTES_HARD);
        assert!(read(most).is_ok());
        let refused = read(most + 1);
        assert!(
            matches!(refused, Err(WireError::TooMany { limit: "PAYLOAD_BYTES_HARD", .. })),
            "{refused:?}"
        );
    }

    #[test]
    fn interests_over_the_limit_are_refused_with_its_name() {
        let hello =
            proto::Hello { version: 1, interests: vec!["c".into(); INTEREST_MAX + 1], ..Default::default() };
        let refused = Message::decode(proto::Kind::Hello as i32 as u64, hello.encode_to_vec().into());
        assert!(matches!(refused, Err(WireError::TooMany { limit: "INTEREST_MAX", .. })), "{refused:?}");
    }
}
