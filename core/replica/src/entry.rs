//! Entries, the hash chain that binds them, and the signature over a chain's head.
//!
//! An entry's hash covers its log, its position, the hash before it, its time, the version it replaces, what was done to
//! which key, and the payload. So a signature over one head vouches for the whole prefix. The bytes that are hashed are
//! laid down in `docs/protocol/entry.md`, with golden vectors beside it; they are never re-serialised JSON.

use bytes::Bytes;
use ed25519_dalek::{Signature, Signer, SigningKey, VerifyingKey};
use sha2::{Digest, Sha256};

use crate::clock::{Hlc, Stamp};
use crate::id::{Key, LogId, NodeId, PublicKey, sha256};
use crate::version::{Hash, Head, Seq};

/// What was done to a document.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Op {
    /// The document has the payload as its content.
    Put = 1,
    /// The document is gone; the payload is empty.
    Delete = 2,
    /// A part of the document was written or removed; the payload is the edit (`Merged` in the protocol).
    Edit = 3,
}

impl Op {
    /// The operation with this number on the wire and in storage.
    #[must_use]
    pub fn from_number(number: u64) -> Option<Self> {
        match number {
            1 => Some(Self::Put),
            2 => Some(Self::Delete),
            3 => Some(Self::Edit),
            _ => None,
        }
    }
}

/// One change in a log. Its log and the hash before it are given by the [`Chain`] that links it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Entry {
    /// Position in the log.
    pub seq: Seq,
    /// When it was made; all entries of one unit share it.
    pub hlc: Hlc,
    /// The version that the author saw and overwrote, if there was one.
    pub replaces: Option<Stamp>,
    /// What was done.
    pub op: Op,
    /// To which document.
    pub key: Key,
    /// The content, or nothing for a delete.
    pub payload: Bytes,
}

impl Entry {
    /// Place of this entry in the order of all changes.
    #[must_use]
    pub fn stamp(&self, author: NodeId) -> Stamp {
        Stamp { hlc: self.hlc, node: author }
    }

    /// The content that this entry alone gives the document; `None` if it is gone, or if the entry is an edit.
    #[must_use]
    pub fn content(&self) -> Option<&Bytes> {
        match self.op {
            Op::Put => Some(&self.payload),
            Op::Delete | Op::Edit => None,
        }
    }
}

/// Why an entry does not fit the end of a chain. The chain has not changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ChainError {
    /// Entries between the head and this one are missing.
    #[error("entry {found:?} came where {expected:?} is next: entries between them are missing")]
    Gap {
        /// Position that comes next.
        expected: Seq,
        /// Position that came.
        found: Seq,
    },
    /// The position is taken already.
    #[error("entry {found:?} came where {expected:?} is next: that position is taken")]
    Behind {
        /// Position that comes next.
        expected: Seq,
        /// Position that came.
        found: Seq,
    },
    /// The time is not after the entry before.
    #[error("entry {seq:?} has an earlier time than the one before it")]
    TimeWentBack {
        /// Position of the entry.
        seq: Seq,
    },
    /// A delete with a payload.
    #[error("entry {seq:?} is a delete and has a payload")]
    DeleteWithPayload {
        /// Position of the entry.
        seq: Seq,
    },
    /// The version it claims to replace is not older than itself.
    #[error("entry {seq:?} claims to replace a version that is not older")]
    ReplacesYounger {
        /// Position of the entry.
        seq: Seq,
    },
}

/// An entry that fits its chain, with its hash. [`Chain::link`] is the only way to one, so nothing unchecked is stored.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Linked {
    entry: Entry,
    hash: Hash,
    payload_hash: Hash,
}

impl Linked {
    /// The entry.
    #[must_use]
    pub fn entry(&self) -> &Entry {
        &self.entry
    }

    /// Hash of the entry, over everything that it is.
    #[must_use]
    pub fn hash(&self) -> Hash {
        self.hash
    }

    /// Hash of the payload.
    #[must_use]
    pub fn payload_hash(&self) -> Hash {
        self.payload_hash
    }

    /// The head of the log when this is its last entry.
    #[must_use]
    pub fn head(&self) -> Head {
        Head { seq: self.entry.seq, hash: self.hash }
    }
}

/// The end of a log, to which the next entry is linked.
#[derive(Clone)]
pub struct Chain {
    log: LogId,
    head: Head,
    hlc: Hlc,
    /// The hash with the log's name already taken in: the same for every entry of a log.
    named: Sha256,
}

impl Chain {
    /// The end of `log` at `head`. `hlc` is the time of the head's entry (zero if unknown or before the first).
    #[must_use]
    pub fn resume(log: LogId, head: Head, hlc: Hlc) -> Self {
        let mut named = Sha256::new();
        named.update(b"entgldb/entry/v1");
        hash_log(&mut named, &log);
        Self { log, head, hlc, named }
    }

    /// The log.
    #[must_use]
    pub fn log(&self) -> &LogId {
        &self.log
    }

    /// Its head.
    #[must_use]
    pub fn head(&self) -> Head {
        self.head
    }

    /// Links the next entry and moves the head.
    ///
    /// # Errors
    /// When the entry does not come next or contradicts itself. The chain is then as it was.
    pub fn link(&mut self, entry: Entry) -> Result<Linked, ChainError> {
        let payload_hash = Hash(sha256(&entry.payload));
        self.link_hashed(entry, payload_hash)
    }

    /// The same for a caller that has just computed the payload's hash itself.
    pub(crate) fn link_hashed(&mut self, entry: Entry, payload_hash: Hash) -> Result<Linked, ChainError> {
        let (expected, seq) = (self.head.seq.next(), entry.seq);
        if seq > expected {
            return Err(ChainError::Gap { expected, found: seq });
        }
        if seq < expected {
            return Err(ChainError::Behind { expected, found: seq });
        }
        if entry.hlc < self.hlc {
            return Err(ChainError::TimeWentBack { seq });
        }
        if entry.op == Op::Delete && !entry.payload.is_empty() {
            return Err(ChainError::DeleteWithPayload { seq });
        }
        if entry.replaces.is_some_and(|replaced| replaced >= entry.stamp(self.log.author)) {
            return Err(ChainError::ReplacesYounger { seq });
        }
        let hash = self.hash_entry(&entry, &payload_hash);
        self.head = Head { seq, hash };
        self.hlc = entry.hlc;
        Ok(Linked { entry, hash, payload_hash })
    }

    fn hash_entry(&self, entry: &Entry, payload_hash: &Hash) -> Hash {
        let mut fixed = [0u8; 8 + 32 + 8 + 1 + 40 + 1 + 32 + 4];
        let mut end = 0;
        let mut put = |bytes: &[u8]| {
            fixed[end..end + bytes.len()].copy_from_slice(bytes);
            end += bytes.len();
        };
        put(&entry.seq.0.to_be_bytes());
        put(&self.head.hash.0);
        put(&entry.hlc.0.to_be_bytes());
        match entry.replaces {
            Some(stamp) => {
                put(&[1]);
                put(&stamp.hlc.0.to_be_bytes());
                put(&stamp.node.0);
            }
            None => put(&[0]),
        }
        put(&[entry.op as u8]);
        put(&payload_hash.0);
        let key = entry.key.as_str().as_bytes();
        put(&u32::try_from(key.len()).expect("a key has at most 1,024 bytes").to_be_bytes());
        let mut hash = self.named.clone();
        hash.update(&fixed[..end]);
        hash.update(key);
        Hash(hash.finalize().into())
    }
}

fn hash_log(hash: &mut Sha256, log: &LogId) {
    hash.update(log.author.0);
    hash.update(log.incarnation.0.to_be_bytes());
    let name = log.collection.as_str().as_bytes();
    hash.update(u32::try_from(name.len()).expect("a collection name has at most 128 bytes").to_be_bytes());
    hash.update(name);
}

/// A node's signing key, made from its 32-byte Ed25519 seed. `Debug` does not show it.
#[derive(Clone)]
pub struct AuthorKey(SigningKey);

impl AuthorKey {
    /// The key with this seed.
    #[must_use]
    pub fn from_seed(seed: &[u8; 32]) -> Self {
        Self(SigningKey::from_bytes(seed))
    }

    /// The public half.
    #[must_use]
    pub fn public_key(&self) -> PublicKey {
        PublicKey(self.0.verifying_key().to_bytes())
    }

    /// The identity.
    #[must_use]
    pub fn node_id(&self) -> NodeId {
        NodeId::of(&self.public_key())
    }
}

impl std::fmt::Debug for AuthorKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "AuthorKey({})", self.node_id().short())
    }
}

/// A signature that does not vouch for what it came with. Nothing of it was taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SignatureError {
    /// The public key is not the author's.
    #[error("the public key does not belong to the author")]
    WrongKey,
    /// The signature is not the author's over this head.
    #[error("the signature is not the author's")]
    Forged,
}

/// An author's signature over a head of its log: it vouches for the whole prefix up to it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SignedHead {
    /// The head.
    pub head: Head,
    /// The time of the head's entry.
    pub hlc: Hlc,
    /// Ed25519 over the canonical bytes.
    pub signature: [u8; 64],
}

impl SignedHead {
    /// Signs a head of `log`, which must be one of the signer's own.
    #[must_use]
    pub fn sign(key: &AuthorKey, log: &LogId, head: Head, hlc: Hlc) -> Self {
        let signature = key.0.sign(&signed_bytes(log, &head, hlc)).to_bytes();
        Self { head, hlc, signature }
    }

    /// Checks the signature strictly: one message has one valid set of keys and signatures on every node.
    ///
    /// # Errors
    /// When the key is not the author's, or the signature not the key's.
    pub fn verify(&self, log: &LogId, key: &PublicKey) -> Result<(), SignatureError> {
        if NodeId::of(key) != log.author {
            return Err(SignatureError::WrongKey);
        }
        let key = VerifyingKey::from_bytes(&key.0).map_err(|_| SignatureError::WrongKey)?;
        key.verify_strict(&signed_bytes(log, &self.head, self.hlc), &Signature::from_bytes(&self.signature))
            .map_err(|_| SignatureError::Forged)
    }
}

fn signed_bytes(log: &LogId, head: &Head, hlc: Hlc) -> [u8; 32] {
    let mut hash = Sha256::new();
    hash.update(b"entgldb/head/v1");
    hash_log(&mut hash, log);
    hash.update(head.seq.0.to_be_bytes());
    hash.update(head.hash.0);
    hash.update(hlc.0.to_be_bytes());
    hash.finalize().into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::WallMillis;
    use crate::id::{Collection, Incarnation};
    use proptest::prelude::*;

    fn log() -> LogId {
        LogId {
            author: AuthorKey::from_seed(&[1; 32]).node_id(),
            incarnation: Incarnation(42),
            collection: Collection::new("orders").unwrap(),
        }
    }

    fn put(seq: u64, payload: &'static str) -> Entry {
        Entry {
            seq: Seq(seq),
            hlc: Hlc::from_wall(WallMillis(1000 + seq)),
            replaces: None,
            op: Op::Put,
            key: Key::new("k").unwrap(),
            payload: Bytes::from_static(payload.as_bytes()),
        }
    }

    fn chain() -> Chain {
        Chain::resume(log(), Head::default(), Hlc::default())
    }

    #[test]
    fn gaps_taken_positions_and_times_that_go_back_are_told_apart() {
        let mut chain = chain();
        chain.link(put(1, "a")).unwrap();
        assert!(matches!(chain.link(put(3, "a")), Err(ChainError::Gap { found: Seq(3), .. })));
        assert!(matches!(chain.link(put(1, "a")), Err(ChainError::Behind { found: Seq(1), .. })));
        let late = Entry { hlc: Hlc(1), ..put(2, "b") };
        assert!(matches!(chain.link(late), Err(ChainError::TimeWentBack { .. })));
        assert_eq!(chain.head().seq, Seq(1), "a refused entry leaves the chain as it was");
        chain.link(put(2, "b")).unwrap();
    }

    #[test]
    fn an_entry_cannot_replace_a_version_that_is_not_older() {
        let own = put(1, "a").stamp(log().author);
        let entry = Entry { replaces: Some(own), ..put(1, "a") };
        assert!(matches!(chain().link(entry), Err(ChainError::ReplacesYounger { .. })));
    }

    #[test]
    fn every_field_of_an_entry_changes_its_hash() {
        let original = chain().link(put(1, "a")).unwrap().hash();
        let other_stamp = Some(Stamp { hlc: Hlc(1), node: NodeId([9; 32]) });
        let variants = [
            Entry { hlc: put(1, "a").hlc.next(), ..put(1, "a") },
            Entry { replaces: other_stamp, ..put(1, "a") },
            Entry { op: Op::Delete, payload: Bytes::new(), ..put(1, "a") },
            Entry { key: Key::new("l").unwrap(), ..put(1, "a") },
            put(1, "b"),
        ];
        for variant in variants {
            assert_ne!(chain().link(variant.clone()).unwrap().hash(), original, "{variant:?}");
        }
        for log in [
            LogId { author: NodeId([0; 32]), ..log() },
            LogId { incarnation: Incarnation(43), ..log() },
            LogId { collection: Collection::new("order").unwrap(), ..log() },
        ] {
            let mut chain = Chain::resume(log, Head::default(), Hlc::default());
            assert_ne!(chain.link(put(1, "a")).unwrap().hash(), original);
        }
        let before = Head { seq: Seq(0), hash: Hash([1; 32]) };
        let mut chain = Chain::resume(log(), before, Hlc::default());
        assert_ne!(chain.link(put(1, "a")).unwrap().hash(), original);
    }

    #[test]
    fn a_signed_head_vouches_only_for_its_own_log_head_and_author() {
        let key = AuthorKey::from_seed(&[1; 32]);
        let head = chain().link(put(1, "a")).unwrap().head();
        let signed = SignedHead::sign(&key, &log(), head, Hlc(7));
        assert_eq!(signed.verify(&log(), &key.public_key()), Ok(()));
        let stranger = AuthorKey::from_seed(&[2; 32]).public_key();
        assert_eq!(signed.verify(&log(), &stranger), Err(SignatureError::WrongKey));
        let other_log = LogId { incarnation: Incarnation(43), ..log() };
        assert_eq!(signed.verify(&other_log, &key.public_key()), Err(SignatureError::Forged));
        let moved = SignedHead { hlc: Hlc(8), ..signed.clone() };
        assert_eq!(moved.verify(&log(), &key.public_key()), Err(SignatureError::Forged));
        let further = SignedHead { head: Head { seq: Seq(2), ..head }, ..signed };
        assert_eq!(further.verify(&log(), &key.public_key()), Err(SignatureError::Forged));
    }

    proptest! {
        #[test]
        fn no_changed_bit_of_a_signature_passes(byte in 0usize..64, bit in 0u8..8) {
            let key = AuthorKey::from_seed(&[1; 32]);
            let head = chain().link(put(1, "a")).unwrap().head();
            let mut signed = SignedHead::sign(&key, &log(), head, Hlc(7));
            signed.signature[byte] ^= 1 << bit;
            prop_assert_eq!(signed.verify(&log(), &key.public_key()), Err(SignatureError::Forged));
        }
    }
}
