//! Peers with which something does not go on although the link stands: entries that a peer does not take, and entries that do not
//! come. Both sides say so. Only the sender knows why; the receiver sees that what the other one has does not come.

use std::collections::BTreeMap;

use crate::status::{BlockedHealth, PeerHealth};

/// Entries that have not come for so long, while nothing else came either, are reported.
const MISSING_MS: u64 = 30_000;

/// See the module's documentation. By the ids of the peers.
#[derive(Default)]
pub(crate) struct Stalled {
    /// Why a peer does not take entries, and since when.
    refused: BTreeMap<String, (String, u64)>,
    /// How many entries of a peer are missing here, how much had come from anybody, and since when that is so.
    missing: BTreeMap<String, ((u64, u64), u64)>,
}

impl Stalled {
    /// A peer does not take entries.
    pub(crate) fn refused(&mut self, node: &str, detail: &str, now_ms: u64) {
        let since = self.refused.get(node).map_or(now_ms, |(_, since)| *since);
        self.refused.insert(node.to_owned(), (detail.to_owned(), since));
    }

    /// What does not go on with these peers, which are linked. `came` counts all that has come from anybody.
    pub(crate) fn find(&mut self, peers: &[PeerHealth], came: u64, now_ms: u64) -> Vec<BlockedHealth> {
        let any = |node: &String, is_it: fn(&PeerHealth) -> bool| {
            peers.iter().any(|peer| peer.node == *node && is_it(peer))
        };
        self.refused.retain(|node, _| any(node, |peer| peer.waiting_logs > 0));
        self.missing.retain(|node, _| any(node, |peer| peer.behind > 0));
        let mut found = Vec::new();
        for peer in peers {
            if let Some((reason, since)) = self.refused.get(&peer.node) {
                found.push(blocked(peer, reason.clone(), *since));
            }
            if peer.behind == 0 {
                continue;
            }
            let seen = (peer.behind, came);
            let known = self.missing.entry(peer.node.clone()).or_insert((seen, now_ms));
            if known.0 != seen {
                *known = (seen, now_ms);
            }
            if now_ms.saturating_sub(known.1) >= MISSING_MS {
                let reason = format!(
                    "{} of its entries do not come; the status there says why. One may be larger than this node's frame_bytes_max",
                    peer.behind
                );
                found.push(blocked(peer, reason, known.1));
            }
        }
        found
    }
}

fn blocked(peer: &PeerHealth, reason: String, since_ms: u64) -> BlockedHealth {
    let (node, name) = (peer.node.clone(), peer.name.clone());
    BlockedHealth { node, name, reason, entry: None, since_ms, ends: 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(behind: u64, waiting_logs: u64) -> PeerHealth {
        PeerHealth {
            node: "n".to_owned(),
            name: "till".to_owned(),
            we_dialled: true,
            behind,
            ahead: 0,
            in_sync_ms: None,
            skew_ms: 0,
            collections: None,
            waiting_logs,
        }
    }

    fn told(stalled: &mut Stalled, peer: PeerHealth, came: u64, now_ms: u64) -> Vec<(String, u64)> {
        let found = stalled.find(&[peer], came, now_ms);
        found.into_iter().map(|blocked| (blocked.reason, blocked.since_ms)).collect()
    }

    #[test]
    fn what_a_peer_does_not_take_is_told_as_long_as_it_waits() {
        let mut stalled = Stalled::default();
        stalled.refused("n", "too large", 5);
        stalled.refused("n", "too large", 7);
        let large = ("too large".to_owned(), 5);
        assert_eq!(told(&mut stalled, peer(0, 1), 0, 8), [large]);
        assert_eq!(told(&mut stalled, peer(0, 0), 0, 9), []);
        assert_eq!(told(&mut stalled, peer(0, 1), 0, 10), [], "it waits for another reason");
    }

    #[test]
    fn entries_that_do_not_come_are_told_of_after_a_while_in_which_nothing_came() {
        let mut stalled = Stalled::default();
        assert_eq!(told(&mut stalled, peer(2, 0), 0, 0), []);
        assert_eq!(told(&mut stalled, peer(2, 0), 1, 20_000), [], "something has come");
        assert_eq!(told(&mut stalled, peer(2, 0), 1, 49_999), []);
        let late = told(&mut stalled, peer(2, 0), 1, 50_000);
        assert!(late[0].0.starts_with("2 of its entries") && late[0].1 == 20_000, "{late:?}");
        assert_eq!(told(&mut stalled, peer(0, 0), 1, 50_001), []);
        assert_eq!(told(&mut stalled, peer(1, 0), 1, 50_002), [], "the wait begins anew");
    }
}
