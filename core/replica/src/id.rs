//! Names of things: nodes, incarnations, collections, keys, logs.
//!
//! Each is a type of its own that can only hold a valid value, so that nothing further in has to check again.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use data_encoding::BASE32_NOPAD;
use sha2::{Digest, Sha256};

use crate::limits::{COLLECTION_BYTES_MAX, KEY_BYTES_MAX};

/// SHA-256 of some bytes.
#[must_use]
pub fn sha256(bytes: &[u8]) -> [u8; 32] {
    Sha256::digest(bytes).into()
}

/// The Ed25519 public key of a node, as 32 bytes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PublicKey(pub [u8; 32]);

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicKey({})", NodeId::of(self).short())
    }
}

/// A node's identity: SHA-256 of its Ed25519 public key.
///
/// For people it is written in base32 with eight check digits at the end ([`fmt::Display`], [`FromStr`]); the first
/// eight digits ([`NodeId::short`]) are enough to tell the nodes of one cluster apart.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId(pub [u8; 32]);

const CHECK_BYTES: usize = 5;

impl NodeId {
    /// The identity that belongs to a public key.
    #[must_use]
    pub fn of(key: &PublicKey) -> Self {
        Self(sha256(&key.0))
    }

    /// The first eight base32 digits: a label for logs and tables, not an identity.
    #[must_use]
    pub fn short(&self) -> String {
        BASE32_NOPAD.encode(&self.0[..5]).to_lowercase()
    }

    fn check(&self) -> [u8; CHECK_BYTES] {
        let mut text = b"entgldb/node-id/v1".to_vec();
        text.extend_from_slice(&self.0);
        let mut check = [0; CHECK_BYTES];
        check.copy_from_slice(&sha256(&text)[..CHECK_BYTES]);
        check
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut bytes = self.0.to_vec();
        bytes.extend_from_slice(&self.check());
        f.write_str(&BASE32_NOPAD.encode(&bytes).to_lowercase())
    }
}

impl fmt::Debug for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "NodeId({})", self.short())
    }
}

/// A text that is not a node identity.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NodeIdError {
    /// Wrong length or digits.
    #[error("a node id has 60 base32 digits (a to z, 2 to 7)")]
    Malformed,
    /// The check digits at the end do not fit the rest: a typing error.
    #[error("the check digits of this node id do not fit: it was not copied exactly")]
    WrongCheck,
}

impl FromStr for NodeId {
    type Err = NodeIdError;

    fn from_str(text: &str) -> Result<Self, NodeIdError> {
        let bytes =
            BASE32_NOPAD.decode(text.trim().to_uppercase().as_bytes()).map_err(|_| NodeIdError::Malformed)?;
        let (id, check) = bytes.split_at_checked(32).ok_or(NodeIdError::Malformed)?;
        let id = Self(id.try_into().map_err(|_| NodeIdError::Malformed)?);
        if check.len() != CHECK_BYTES {
            return Err(NodeIdError::Malformed);
        }
        if check != id.check() { Err(NodeIdError::WrongCheck) } else { Ok(id) }
    }
}

/// A random number drawn when a node's oplog is created. A wiped, cloned or restored oplog gets a new one, so that a
/// sequence number is never used twice within one log.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Incarnation(pub u64);

impl fmt::Debug for Incarnation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// A link to a peer, as the transport numbers it. Never used twice in the life of a process.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct LinkId(pub u64);

/// A name that cannot be a collection or a key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// The name is empty.
    #[error("the name is empty")]
    Empty,
    /// The name is longer than its limit.
    #[error("the name has {bytes} bytes; the limit {limit} allows {max}")]
    TooLong {
        /// Bytes of UTF-8 it has.
        bytes: usize,
        /// Bytes of UTF-8 it may have.
        max: usize,
        /// Name of the limit.
        limit: &'static str,
    },
    /// The name has a character that names must not have.
    #[error("the name has the character U+{0:04X}, which is not allowed")]
    Character(u32),
}

/// The name of a collection: 1 to 128 bytes of UTF-8 without control characters. In SQL, a table's name.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Collection(Arc<str>);

impl Collection {
    /// Checks a name.
    ///
    /// # Errors
    /// When it is empty, too long, or has a control character.
    pub fn new(name: &str) -> Result<Self, NameError> {
        check_length(name, COLLECTION_BYTES_MAX, "COLLECTION_BYTES_MAX")?;
        match name.chars().find(|c| c.is_control()) {
            Some(c) => Err(NameError::Character(c.into())),
            None => Ok(Self(name.into())),
        }
    }

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether it is the same name but for capitals, which some databases do not tell apart.
    #[must_use]
    pub fn differs_in_capitals(&self, other: &Self) -> bool {
        self != other && self.0.eq_ignore_ascii_case(&other.0)
    }
}

/// Whether any of these names are the same but for capitals.
pub(crate) fn differ_in_capitals<'a>(
    ours: impl IntoIterator<Item = &'a Collection>,
    theirs: &[Collection],
) -> bool {
    ours.into_iter().any(|ours| theirs.iter().any(|theirs| ours.differs_in_capitals(theirs)))
}

impl fmt::Display for Collection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Collection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", &*self.0)
    }
}

/// The key of a document in its collection: 1 to 1,024 bytes of UTF-8 without NUL, compared byte by byte.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key(Arc<str>);

impl Key {
    /// Checks a key.
    ///
    /// # Errors
    /// When it is empty, too long, or has a NUL.
    pub fn new(key: &str) -> Result<Self, NameError> {
        check_length(key, KEY_BYTES_MAX, "KEY_BYTES_MAX")?;
        if key.contains('\0') { Err(NameError::Character(0)) } else { Ok(Self(key.into())) }
    }

    /// The key.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", &*self.0)
    }
}

fn check_length(name: &str, max: usize, limit: &'static str) -> Result<(), NameError> {
    match name.len() {
        0 => Err(NameError::Empty),
        bytes if bytes > max => Err(NameError::TooLong { bytes, max, limit }),
        _ => Ok(()),
    }
}

/// A document's address: its collection and its key.
pub type DocId = (Collection, Key);

/// The name of a log: whose changes, since which birth of that node's oplog, of which collection.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LogId {
    /// The node that made the changes.
    pub author: NodeId,
    /// The birth of that node's oplog.
    pub incarnation: Incarnation,
    /// The collection that the changes are in.
    pub collection: Collection,
}

impl fmt::Display for LogId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{:?}/{}", self.author.short(), self.incarnation, self.collection)
    }
}

impl fmt::Debug for LogId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_id_survives_its_text_form_and_a_typing_error_is_found() {
        let id = NodeId::of(&PublicKey([7; 32]));
        let text = id.to_string();
        assert_eq!(text.len(), 60);
        assert_eq!(text.parse(), Ok(id));
        let mut wrong = text.clone();
        wrong.replace_range(3..4, if &text[3..4] == "a" { "b" } else { "a" });
        assert_eq!(wrong.parse::<NodeId>(), Err(NodeIdError::WrongCheck));
        assert_eq!("abc".parse::<NodeId>(), Err(NodeIdError::Malformed));
        assert_eq!(text[..56].parse::<NodeId>(), Err(NodeIdError::Malformed));
    }

    #[test]
    fn names_at_the_limit_pass_and_one_byte_more_is_refused_with_the_limit() {
        assert!(Collection::new(&"c".repeat(COLLECTION_BYTES_MAX)).is_ok());
        assert!(matches!(
            Collection::new(&"c".repeat(COLLECTION_BYTES_MAX + 1)),
            Err(NameError::TooLong { limit: "COLLECTION_BYTES_MAX", .. })
        ));
        assert!(Key::new(&"k".repeat(KEY_BYTES_MAX)).is_ok());
        assert!(matches!(
            Key::new(&"k".repeat(KEY_BYTES_MAX + 1)),
            Err(NameError::TooLong { limit: "KEY_BYTES_MAX", .. })
        ));
    }

    #[test]
    fn odd_names_are_told_apart_and_forbidden_characters_are_refused() {
        assert_eq!(Collection::new(""), Err(NameError::Empty));
        assert_eq!(Collection::new("a\nb"), Err(NameError::Character(10)));
        assert_eq!(Key::new("a\0b"), Err(NameError::Character(0)));
        assert!(Key::new("a\nb").is_ok());
        assert_ne!(Key::new("e\u{301}").unwrap(), Key::new("\u{e9}").unwrap());
        assert!(Collection::new("Bestell\"positionen; --").is_ok());
    }
}
