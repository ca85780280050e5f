//! Links that come up and go: which is kept of several, who is not let in, and what is forgotten with a link.

use crate::blocked::BlockedPeer;
use crate::clock::Now;
use crate::contract::{Link, Output, StoreFailed};
use crate::copies::Copied;
use crate::event::Event;
use crate::id::LinkId;
use crate::limits::SESSIONS_MAX;
use crate::replica::Replica;
use crate::session::Session;
use crate::store::Store;
use crate::taking::Taking;

/// What both processes are told that run with one identity.
const COPIED: &str = "two processes run with this node's identity: end one of them. If this machine is a copy of another, remove \
                      the file `identity` from the copy's data folder, so that it becomes a node of its own";

impl<S: Store> Replica<S> {
    pub(crate) fn link_up(
        &mut self,
        now: Now,
        link: Link,
        out: &mut Vec<Output>,
    ) -> Result<(), StoreFailed<S::Error>> {
        if link.peer == self.local.node {
            if let Some(target) = &link.target {
                self.peers.is_ourselves(target);
            }
            out.push(Output::Close { link: link.id, reason: "this is the same node".to_owned() });
            return Ok(());
        }
        let (node, name) = (link.peer, link.name.clone());
        if let Some(found) = self.copies.meet(node, link.instance, now.mono) {
            if found == Copied::Now {
                out.push(Output::Event(Event::Copied { node, name }));
            }
            if let Some(target) = &link.target {
                self.peers.dial_failed(target, COPIED.to_owned(), now.mono);
            }
            let linked = self.sessions.values().find(|session| session.link.peer == node);
            for id in linked.map(|session| session.link.id).into_iter().chain([link.id]) {
                self.close(now, id, COPIED, out);
            }
            return Ok(());
        }
        let dialler = |link: &Link| if link.we_dialled { self.local.node } else { link.peer };
        let other = self.sessions.values().find(|session| session.link.peer == link.peer);
        let other = other.map(|session| session.link.clone());
        // Both sides keep the link that the smaller node dialled, of two that it dialled the newer one; a peer that was
        // started again has only the new one.
        let is_kept = |other: &Link| other.instance == link.instance && dialler(&link) > dialler(other);
        if other.as_ref().is_some_and(is_kept) {
            if let Some(target) = &link.target {
                self.peers.covered(target, link.peer);
            }
            let reason = "there is another link between these nodes".to_owned();
            out.push(Output::Close { link: link.id, reason });
            return Ok(());
        }
        if other.is_none() && self.sessions.len() >= SESSIONS_MAX {
            let reason = format!("the limit SESSIONS_MAX allows {SESSIONS_MAX} links");
            if let Some(target) = &link.target {
                self.peers.dial_failed(target, reason.clone(), now.mono);
            }
            out.push(Output::Close { link: link.id, reason });
            return Ok(());
        }
        if let Some(target) = &link.target {
            self.peers.linked(target, link.id, link.peer, now.mono);
        }
        let id = link.id;
        let (session, hello) = Session::open(link, &self.local, now);
        self.sessions.insert(id, session);
        // Only now: the node stays linked, so an address that led to the old link rests instead of being dialled again.
        if let Some(other) = other {
            self.close(now, other.id, "a newer link between these nodes took over", out);
        }
        self.carry_out(now, id, vec![hello], out)
    }

    /// Peers with which nothing gets past a fault.
    pub(crate) fn blocked(&self) -> impl Iterator<Item = &BlockedPeer> {
        self.ends.blocked().filter(|blocked| {
            let is_past = |session: &Session| session.is_past(&blocked.place, &self.ledger.logs);
            let mut links = self.sessions.values().filter(|session| session.link.peer == blocked.node);
            !links.any(is_past)
        })
    }

    /// Forgets a link and asks the transport to close it.
    pub(crate) fn close(&mut self, now: Now, link: LinkId, reason: &str, out: &mut Vec<Output>) {
        self.forget_link(now, link, (reason, false), out);
        out.push(Output::Close { link, reason: reason.to_owned() });
    }

    /// The same because of what the peer sent, or did not.
    pub(crate) fn close_for_fault(&mut self, now: Now, link: LinkId, reason: &str, out: &mut Vec<Output>) {
        self.forget_link(now, link, (reason, true), out);
        out.push(Output::Close { link, reason: reason.to_owned() });
    }

    pub(crate) fn forget_link(
        &mut self,
        now: Now,
        link: LinkId,
        (reason, is_fault): (&str, bool),
        out: &mut Vec<Output>,
    ) {
        let Some(mut session) = self.sessions.remove(&link) else { return };
        self.inbox.retain(|received| received.link != link);
        self.giving.retain(|asked| asked.link != link);
        if self.taking.link == Some(link) {
            self.taking = Taking::default();
            self.ledger.snapshot.take_if(|incoming| incoming.is_repair() || !incoming.has_begun());
        }
        let node = session.link.peer;
        let node_is_linked = self.sessions.values().any(|other| other.link.peer == node);
        if self.ends.place(&node).is_some_and(|place| session.is_past(place, &self.ledger.logs)) {
            self.ends.passed(&node);
        }
        // Of two links between the same nodes one is closed; that is no fault.
        let blocked = if is_fault && !node_is_linked {
            let place = session.outgoing().place(&self.ledger.logs);
            self.ends.ended((node, &session.link.name), reason, place, now.wall)
        } else {
            None
        };
        let blocked = blocked.cloned().map(Event::Blocked);
        let name = session.link.name;
        self.peers.unlinked(link, node, node_is_linked, reason, now.mono);
        out.push(Output::Event(Event::PeerDown { node, name, reason: reason.to_owned() }));
        out.extend(blocked.map(Output::Event));
    }
}
