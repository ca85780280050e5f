//! Who may be a peer, beyond having the cluster secret.
//!
//! The first identity that synced under a label is pinned to it: a later peer with that label and another key is turned away
//! loudly, because either somebody poses as that node, or it lost its identity and a person should know. An optional list
//! lets in only the nodes on it. Pins are in `known_peers.json` in the data folder, which people may edit.
//!
//! Until a peer has synced, its label is only noted: another key may take it, and where there are too many the oldest note
//! goes. So nobody takes labels before their owners come, or all the room, by linking up alone.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use entgldb_replica::id::NodeId;
use entgldb_replica::limits::PEERS_MAX;
use serde::{Deserialize, Serialize};

use crate::data_dir::replace_durably;

const FILE: &str = "known_peers.json";

/// A label and the identity it belongs to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KnownPeer {
    /// The identity.
    pub node: String,
    /// When it was first seen, in milliseconds since 1970.
    pub first_seen_ms: u64,
}

/// The file of known peers can't be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TrustError {
    /// It could not be read or written.
    #[error("{path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It is not the JSON that this program writes.
    #[error("{path} is damaged: {reason}; mend it, or delete it to pin all peers anew")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
}

/// Why a peer was turned away.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum Untrusted {
    #[error("node {0} is not on the list of allowed nodes (allow)")]
    NotAllowed(NodeId),
    #[error(
        "the label {name:?} belongs to node {pinned}, and this is node {found}: somebody poses as it, or it has a new \
         identity. If you know why: `entgldb peers DB --forget {name}`; or give each node its own --name"
    )]
    OtherKey { name: String, pinned: String, found: NodeId },
    #[error("as many peers are known as the limit PEERS_MAX allows ({PEERS_MAX})")]
    TooMany,
}

/// The known peers of one node.
#[derive(Debug)]
pub(crate) struct Trust {
    path: PathBuf,
    /// Pinned, as in the file.
    known: BTreeMap<String, KnownPeer>,
    /// Peers that have not synced yet.
    noted: BTreeMap<String, KnownPeer>,
    allow: Option<Vec<NodeId>>,
}

impl Trust {
    pub(crate) fn load(data_dir: &Path, allow: Option<Vec<NodeId>>) -> Result<Self, TrustError> {
        let path = data_dir.join(FILE);
        Ok(Self { known: read(&path)?, noted: BTreeMap::new(), path, allow })
    }

    /// Decides on an authenticated peer.
    ///
    /// # Errors
    /// Why it is turned away.
    pub(crate) fn admit(&mut self, name: &str, node: NodeId, now_ms: u64) -> Result<(), Untrusted> {
        if self.allow.as_ref().is_some_and(|allow| !allow.contains(&node)) {
            return Err(Untrusted::NotAllowed(node));
        }
        match self.known.get(name) {
            Some(pinned) if pinned.node == node.to_string() => return Ok(()),
            Some(pinned) => {
                let (name, pinned) = (name.to_owned(), pinned.node.clone());
                return Err(Untrusted::OtherKey { name, pinned, found: node });
            }
            None if self.known.len() >= PEERS_MAX => return Err(Untrusted::TooMany),
            None => {}
        }
        if self.known.len() + self.noted.len() >= PEERS_MAX && !self.noted.contains_key(name) {
            let oldest = self.noted.iter().min_by_key(|(_, peer)| peer.first_seen_ms);
            if let Some(oldest) = oldest.map(|(name, _)| name.clone()) {
                self.noted.remove(&oldest);
            }
        }
        let peer = KnownPeer { node: node.to_string(), first_seen_ms: now_ms };
        self.noted.insert(name.to_owned(), peer);
        Ok(())
    }

    /// A peer has synced: its label is pinned durably.
    ///
    /// # Errors
    /// When the pin can't be written. It is tried again the next time that the peer is seen to have synced.
    pub(crate) fn synced(&mut self, name: &str, node: NodeId) -> Result<(), TrustError> {
        let is_its = |peer: &KnownPeer| peer.node == node.to_string();
        let Some(peer) = self.noted.get(name).filter(|peer| is_its(peer)) else { return Ok(()) };
        let mut known = self.known.clone();
        known.insert(name.to_owned(), peer.clone());
        write(&self.path, &known)?;
        self.known = known;
        self.noted.remove(name);
        Ok(())
    }
}

fn read(path: &Path) -> Result<BTreeMap<String, KnownPeer>, TrustError> {
    match fs::read_to_string(path) {
        Ok(text) => serde_json::from_str(&text)
            .map_err(|error| TrustError::Damaged { path: path.to_owned(), reason: error.to_string() }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(BTreeMap::new()),
        Err(source) => Err(TrustError::Io { path: path.to_owned(), source }),
    }
}

fn write(path: &Path, known: &BTreeMap<String, KnownPeer>) -> Result<(), TrustError> {
    let text = serde_json::to_string_pretty(known).expect("labels and identities are text");
    replace_durably(path, text.as_bytes()).map_err(|source| TrustError::Io { path: path.to_owned(), source })
}

/// The peers that a node knows, by label, from another process.
///
/// # Errors
/// When the file can't be read.
pub fn known_peers(data_dir: &Path) -> Result<BTreeMap<String, KnownPeer>, TrustError> {
    read(&data_dir.join(FILE))
}

/// Forgets a label, so that the next node that comes with it is pinned. The node must not run meanwhile. `false` if the
/// label is not known.
///
/// # Errors
/// When the file can't be read or written.
pub fn forget_peer(data_dir: &Path, name: &str) -> Result<bool, TrustError> {
    let path = data_dir.join(FILE);
    let mut known = read(&path)?;
    let found = known.remove(name).is_some();
    if found {
        write(&path, &known)?;
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: NodeId = NodeId([1; 32]);
    const B: NodeId = NodeId([2; 32]);

    #[test]
    fn the_first_key_that_syncs_under_a_label_is_pinned_and_another_one_is_refused_until_it_is_forgotten() {
        let dir = tempfile::tempdir().unwrap();
        let mut trust = Trust::load(dir.path(), None).unwrap();
        assert_eq!(trust.admit("till", A, 5), Ok(()));
        trust.synced("till", A).unwrap();
        assert_eq!(trust.admit("till", A, 6), Ok(()));
        let mut trust = Trust::load(dir.path(), None).unwrap();
        assert!(matches!(trust.admit("till", B, 7), Err(Untrusted::OtherKey { .. })));
        assert_eq!(trust.admit("office", B, 7), Ok(()));
        assert!(forget_peer(dir.path(), "till").unwrap());
        assert!(!forget_peer(dir.path(), "till").unwrap());
        let mut trust = Trust::load(dir.path(), None).unwrap();
        assert_eq!(trust.admit("till", B, 8), Ok(()));
        trust.synced("till", B).unwrap();
        assert_eq!(known_peers(dir.path()).unwrap()["till"].first_seen_ms, 8);
    }

    #[test]
    fn a_label_that_somebody_took_and_never_synced_under_is_its_owners_when_that_comes() {
        let dir = tempfile::tempdir().unwrap();
        let mut trust = Trust::load(dir.path(), None).unwrap();
        assert_eq!(trust.admit("till", B, 5), Ok(()));
        assert_eq!(trust.admit("till", A, 6), Ok(()));
        trust.synced("till", B).unwrap();
        trust.synced("till", A).unwrap();
        assert!(matches!(trust.admit("till", B, 7), Err(Untrusted::OtherKey { .. })));
        assert_eq!(known_peers(dir.path()).unwrap()["till"].node, A.to_string());
    }

    #[test]
    fn made_up_labels_take_no_room_from_anybody() {
        let dir = tempfile::tempdir().unwrap();
        let mut trust = Trust::load(dir.path(), None).unwrap();
        trust.admit("till", A, 1).unwrap();
        trust.synced("till", A).unwrap();
        for number in 0..3 * PEERS_MAX as u64 {
            assert_eq!(trust.admit(&format!("made up {number}"), B, 2 + number), Ok(()));
        }
        assert!(trust.noted.len() < PEERS_MAX);
        assert_eq!(trust.admit("office", A, 9_000), Ok(()), "somebody new can join");
        trust.synced("office", A).unwrap();
        let known = known_peers(dir.path()).unwrap();
        assert_eq!(known.keys().collect::<Vec<_>>(), ["office", "till"]);
    }

    #[test]
    fn pins_over_the_limit_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let peer = KnownPeer { node: A.to_string(), first_seen_ms: 1 };
        let known = (0..PEERS_MAX).map(|number| (number.to_string(), peer.clone())).collect();
        write(&dir.path().join(FILE), &known).unwrap();
        let mut trust = Trust::load(dir.path(), None).unwrap();
        assert_eq!(trust.admit("one more", B, 2), Err(Untrusted::TooMany));
        assert_eq!(trust.admit("7", A, 2), Ok(()));
    }

    #[test]
    fn with_a_list_only_the_nodes_on_it_are_let_in_and_others_are_not_noted() {
        let dir = tempfile::tempdir().unwrap();
        let mut trust = Trust::load(dir.path(), Some(vec![A])).unwrap();
        assert_eq!(trust.admit("till", B, 5), Err(Untrusted::NotAllowed(B)));
        assert!(trust.noted.is_empty());
        assert_eq!(trust.admit("till", A, 5), Ok(()));
    }

    #[test]
    fn a_pin_that_could_not_be_written_is_written_the_next_time() {
        let dir = tempfile::tempdir().unwrap();
        let mut trust = Trust::load(dir.path(), None).unwrap();
        let blocked = dir.path().join(FILE);
        fs::create_dir(&blocked).unwrap();
        trust.admit("till", A, 5).unwrap();
        assert!(trust.synced("till", A).is_err());
        fs::remove_dir(&blocked).unwrap();
        trust.synced("till", A).unwrap();
        assert!(known_peers(dir.path()).unwrap().contains_key("till"));
    }

    #[test]
    fn a_damaged_file_is_refused_and_left_as_it_is() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join(FILE), "{").unwrap();
        assert!(matches!(Trust::load(dir.path(), None), Err(TrustError::Damaged { .. })));
        assert_eq!(fs::read_to_string(dir.path().join(FILE)).unwrap(), "{");
    }
}
