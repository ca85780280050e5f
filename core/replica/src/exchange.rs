//! Snapshots between two nodes: whom to ask, what to ask next, and answering.

use crate::clock::Now;
use crate::contract::{Output, StoreFailed};
use crate::event::Event;
use crate::id::{Collection, LinkId};
use crate::keeping::Joined;
use crate::limits::ACK_MS;
use crate::replica::{BACKLOG_WAIT_MS, Replica};
use crate::sending::{frame_room, send};
use crate::snapshot::{Asked, Incoming, Purpose, Taking};
use crate::store::{ScanLimits, Store};
use crate::wire::{Chunk, Message, Part};

/// A snapshot that comes from elsewhere than a peer, such as a file: one collection of it, on its way in.
#[derive(Debug)]
pub struct Importing(Incoming);

/// What became of a piece that was imported.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Imported {
    /// It was joined; the next one may come.
    Joined,
    /// The application leaves no gap to join it. Nothing has changed: the same piece may come again a little later.
    Busy,
    /// It can't be joined, and why. What was joined before stays: it is what other members wrote.
    Refused(String),
}

/// Wait before a document is read again whose change is to be captured first.
const CAPTURE_WAIT_MS: u64 = 200;

impl<S: Store> Replica<S> {
    /// Begins to import a collection: nothing of it has come yet.
    pub fn importing(&self, collection: Collection) -> Importing {
        let mut incoming = Incoming::new(collection, self.local.node, &self.ledger.debt);
        // It does not go on by itself.
        incoming.is_noted = false;
        Importing(incoming)
    }

    /// Joins a piece of a snapshot that does not come from a peer: the heads of a collection's logs first, then its rows in
    /// the order of their keys, then the heads as they were after the rows were read; the last piece of each marked so. As
    /// with a peer's snapshot, nothing younger that is here goes, and the heads count as held only at the end.
    ///
    /// # Errors
    /// When the store failed; the replica must then be dropped.
    pub fn import(
        &mut self,
        now: Now,
        importing: &mut Importing,
        chunk: Chunk,
        out: &mut Vec<Output>,
    ) -> Result<Imported, StoreFailed<S::Error>> {
        let mut events = Vec::new();
        self.ledger.debt_due = None;
        let others = self.ledger.snapshot.replace(importing.0.clone());
        let joined = self.ledger.join_chunk(now, chunk, false, &mut events);
        let after = std::mem::replace(&mut self.ledger.snapshot, others);
        out.extend(events.into_iter().map(Output::Event));
        self.local.incarnation = self.ledger.incarnation;
        if let Some(after) = after {
            importing.0 = after;
        }
        Ok(match joined? {
            Joined::Next | Joined::Done => Imported::Joined,
            Joined::Busy => Imported::Busy,
            Joined::Refused(detail) => Imported::Refused(detail),
        })
    }

    /// Begins a snapshot, or goes on with one whose link was cut.
    pub(crate) fn ask_for_snapshot(&mut self, now: Now, out: &mut Vec<Output>) {
        self.ledger.drop_snapshot_if_covered();
        if let Some(link) = self.taking.link {
            if self.taking.chunk.is_none() && now.mono.since(self.taking.asked) >= ACK_MS {
                self.close_for_fault(now, link, "no answer to the question for a piece of a snapshot", out);
            }
            return;
        }
        let (logs, limits) = (&self.ledger.logs, &self.local.limits);
        let known = self.ledger.snapshot.as_ref();
        let goes_on = known.and_then(|known| {
            let mut sessions = self.sessions.iter();
            let able = sessions.find(|(_, session)| session.can_go_on(known, now.mono));
            able.map(|(link, session)| (*link, session.link.peer, None))
        });
        let begins = || {
            self.sessions.iter().find_map(|(link, session)| {
                let (collection, purpose) = session.wanted_snapshot(logs, limits, now.mono)?;
                Some((*link, session.link.peer, Some((collection, purpose))))
            })
        };
        let Some((link, giver, collection)) = goes_on.or_else(begins) else { return };
        if let Some((collection, purpose)) = collection {
            self.ledger.snapshot = Some(match purpose {
                Purpose::History => Incoming::new(collection, giver, &self.ledger.debt),
                Purpose::Repair => {
                    let node = giver;
                    out.push(Output::Event(Event::Repairing { node, collection: collection.clone() }));
                    Incoming::repair(collection, giver)
                }
            });
        } else if let Some(incoming) = &mut self.ledger.snapshot {
            incoming.go_on_with(giver);
        }
        self.taking.link = Some(link);
        self.pull(now, out);
    }

    fn pull(&mut self, now: Now, out: &mut Vec<Output>) {
        if let (Some(link), Some(incoming)) = (self.taking.link, &mut self.ledger.snapshot)
            && let Some(session) = self.sessions.get(&link)
        {
            self.taking.asked = now.mono;
            let pull = incoming.pull(frame_room(&session.link));
            out.push(send(link, &Message::Pull(pull)));
        }
    }

    /// Joins the piece of a snapshot that waits, once local changes are captured.
    pub(crate) fn join_chunk(
        &mut self,
        now: Now,
        out: &mut Vec<Output>,
    ) -> Result<(), StoreFailed<S::Error>> {
        let Some((chunk, at)) = self.taking.chunk.take() else { return Ok(()) };
        let Some(link) = self.taking.link else { return Ok(()) };
        let impatient = now.mono.since(at) >= BACKLOG_WAIT_MS;
        if self.ledger.backlog && !impatient {
            self.taking.chunk = Some((chunk, at));
            return Ok(());
        }
        let Some(session) = self.sessions.get(&link) else { return Ok(()) };
        let (node, collection) = (session.link.peer, chunk.collection.clone());
        let total = session.rows_of(&collection);
        let mut events = Vec::new();
        let again = chunk.clone();
        let before = self.ledger.incarnation;
        let rows = self.ledger.snapshot.as_ref().map_or(0, |incoming| incoming.rows);
        let brought = match &chunk.part {
            Part::Rows(rows) => rows.len() as u64,
            Part::Heads(_) | Part::Held(_) => 0,
        };
        let joined = self.ledger.join_chunk(now, chunk, impatient, &mut events)?;
        out.extend(events.into_iter().map(Output::Event));
        let rows = rows + brought;
        if self.ledger.incarnation != before {
            self.local.incarnation = self.ledger.incarnation;
        }
        let done = matches!(joined, Joined::Done);
        match joined {
            Joined::Busy => self.taking.chunk = Some((again, at)),
            Joined::Refused(detail) => {
                self.taking = Taking::default();
                if let Some(session) = self.sessions.get_mut(&link) {
                    session.snapshot_over(collection.clone(), now.mono);
                }
                out.push(Output::Event(Event::SnapshotRefused {
                    node,
                    collection: collection.clone(),
                    detail,
                }));
            }
            Joined::Next | Joined::Done => {
                if brought > 0 || done {
                    if let Some(session) = self.sessions.get_mut(&link) {
                        session.piece_joined();
                    }
                    let total = total.max(rows);
                    out.push(Output::Event(Event::Snapshot {
                        node,
                        collection: collection.clone(),
                        rows,
                        total,
                        done,
                    }));
                }
                self.pull(now, out);
            }
        }
        if done {
            self.taking = Taking::default();
            if let Some(session) = self.sessions.get_mut(&link) {
                session.snapshot_over(collection, now.mono);
            }
            self.tell_vector(now, link, out)?;
        }
        Ok(())
    }

    /// Tells a peer what this node holds now.
    fn tell_vector(
        &mut self,
        now: Now,
        link: LinkId,
        out: &mut Vec<Output>,
    ) -> Result<(), StoreFailed<S::Error>> {
        let Some(session) = self.sessions.get_mut(&link) else { return Ok(()) };
        let effects = session.send_vector(now, &self.local, &self.ledger.logs);
        self.carry_out(now, link, effects, out)
    }

    /// Answers one question for a piece of a snapshot, once local changes are captured.
    pub(crate) fn give_chunk(
        &mut self,
        now: Now,
        out: &mut Vec<Output>,
    ) -> Result<(), StoreFailed<S::Error>> {
        if self.giving.front().is_none_or(|asked| asked.again > now.mono) {
            return Ok(());
        }
        let Some(asked) = self.giving.pop_front() else { return Ok(()) };
        let Some(session) = self.sessions.get(&asked.link) else { return Ok(()) };
        let limits = ScanLimits {
            rows: self.local.limits.page_entries,
            bytes: self.local.limits.page_bytes.min(session.link.frame_bytes_max),
        };
        match self.ledger.chunk(&asked.pull, limits, frame_room(&session.link))? {
            Some(chunk) => out.push(send(asked.link, &Message::Chunk(chunk))),
            None if now.mono.since(asked.at) < BACKLOG_WAIT_MS => {
                let again = now.mono.plus(CAPTURE_WAIT_MS);
                self.giving.push_back(Asked { again, ..asked });
            }
            None => {
                let refused =
                    "the next document is not as its row says, and its change can't be captured".to_owned();
                let (collection, part) = (asked.pull.collection, Part::Rows(Vec::new()));
                let chunk = Chunk { collection, part, last: false, refused, ahead: false };
                out.push(send(asked.link, &Message::Chunk(chunk)));
            }
        }
        Ok(())
    }
}
