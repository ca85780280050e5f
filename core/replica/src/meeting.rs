//! Links that come up: which is kept of several, and who is not let in.

use crate::clock::Now;
use crate::contract::{Link, Output, StoreFailed};
use crate::copies::Copied;
use crate::event::Event;
use crate::limits::SESSIONS_MAX;
use crate::replica::Replica;
use crate::session::Session;
use crate::store::Store;

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
}
