//! Who may be a peer, beyond having the cluster secret.
//!
//! The first identity seen under a label is pinned to it: a later peer with that label and another key is turned away
//! loudly, because either somebody poses as that node, or it lost its identity and a person should know. An optional list
//! lets in only the nodes on it. Pins are in `known_peers.json` in the data folder, which people may edit.

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
    known: BTreeMap<String, KnownPeer>,
    allow: Option<Vec<NodeId>>,
}

impl Trust {
    pub(crate) fn load(data_dir: &Path, allow: Option<Vec<NodeId>>) -> Result<Self, TrustError> {
        let path = data_dir.join(FILE);
        Ok(Self { known: read(&path)?, path, allow })
    }

    /// Decides on an authenticated peer; a new label is pinned durably first.
    ///
    /// # Errors
    /// The inner one says why it is turned away; the outer one that the pin could not be written.
    pub(crate) fn admit(
        &mut self,
        name: &str,
        node: NodeId,
        now_ms: u64,
    ) -> Result<Result<(), Untrusted>, TrustError> {
        if self.allow.as_ref().is_some_and(|allow| !allow.contains(&node)) {
            return Ok(Err(Untrusted::NotAllowed(node)));
        }
        match self.known.get(name) {
            Some(pinned) if pinned.node == node.to_string() => return Ok(Ok(())),
            Some(pinned) => {
                let (name, pinned) = (name.to_owned(), pinned.node.clone());
                return Ok(Err(Untrusted::OtherKey { name, pinned, found: node }));
            }
            None if self.known.len() >= PEERS_MAX => return Ok(Err(Untrusted::TooMany)),
            None => {}
        }
        let peer = KnownPeer { node: node.to_string(), first_seen_ms: now_ms };
        self.known.insert(name.to_owned(), peer);
        if let Err(error) = write(&self.path, &self.known) {
            // Else the next attempt would find a pin that no restart knows.
            self.known.remove(name);
            return Err(error);
        }
        Ok(Ok(()))
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
    fn the_first_key_under_a_label_is_pinned_and_another_one_is_refused_until_it_is_forgotten() {
        let dir = tempfile::tempdir().unwrap();
        let mut trust = Trust::load(dir.path(), None).unwrap();
        assert_eq!(trust.admit("till", A, 5).unwrap(), Ok(()));
        assert_eq!(trust.admit("till", A, 6).unwrap(), Ok(()));
        let mut trust = Trust::load(dir.path(), None).unwrap();
        assert!(matches!(trust.admit("till", B, 7).unwrap(), Err(Untrusted::OtherKey { .. })));
        assert_eq!(trust.admit("office", B, 7).unwrap(), Ok(()));
        assert!(forget_peer(dir.path(), "till").unwrap());
        assert!(!forget_peer(dir.path(), "till").unwrap());
        let mut trust = Trust::load(dir.path(), None).unwrap();
        assert_eq!(trust.admit("till", B, 8).unwrap(), Ok(()));
        assert_eq!(known_peers(dir.path()).unwrap()["till"].first_seen_ms, 8);
    }

    #[test]
    fn with_a_list_only_the_nodes_on_it_are_let_in_and_others_are_not_pinned() {
        let dir = tempfile::tempdir().unwrap();
        let mut trust = Trust::load(dir.path(), Some(vec![A])).unwrap();
        assert_eq!(trust.admit("till", B, 5).unwrap(), Err(Untrusted::NotAllowed(B)));
        assert_eq!(trust.admit("till", A, 5).unwrap(), Ok(()));
    }

    #[test]
    fn a_peer_that_could_not_be_pinned_is_not_let_in_the_next_time_either() {
        let dir = tempfile::tempdir().unwrap();
        let mut trust = Trust::load(dir.path(), None).unwrap();
        let blocked = dir.path().join(FILE);
        fs::create_dir(&blocked).unwrap();
        assert!(trust.admit("till", A, 5).is_err());
        assert!(trust.admit("till", A, 6).is_err());
        fs::remove_dir(&blocked).unwrap();
        assert_eq!(trust.admit("till", A, 7).unwrap(), Ok(()));
    }

    #[test]
    fn a_damaged_file_is_refused_and_left_as_it_is() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join(FILE), "{").unwrap();
        assert!(matches!(Trust::load(dir.path(), None), Err(TrustError::Damaged { .. })));
        assert_eq!(fs::read_to_string(dir.path().join(FILE)).unwrap(), "{");
    }
}
