//! Snapshots between two nodes: whom to ask, what to ask next, and answering.

use crate::clock::{Mono, Now};
use crate::contract::{Output, StoreFailed};
use crate::event::Event;
use crate::id::{Collection, LinkId};
use crate::keeping::Joined;
use crate::limits::{SNAPSHOT_FAST, SNAPSHOT_GIVE_MS, SNAPSHOT_SLOW};
use crate::replica::{BACKLOG_WAIT_MS, Replica};
use crate::sending::{frame_room, send};
use crate::session::Session;
use crate::snapshot::{Asked, Incoming, Purpose};
use crate::store::{ScanLimits, Store};
use crate::taking::Taking;
use crate::wire::{Chunk, Part, Pull};

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

    /// Begins a snapshot, or goes on with one whose link was cut or whose giver is slow.
    pub(crate) fn ask_for_snapshot(&mut self, now: Now, out: &mut Vec<Output>) {
        self.ledger.drop_snapshot_if_covered();
        if let Some(link) = self.taking.link {
            if self.taking.is_overdue(now.mono) {
                self.close_for_fault(now, link, "no answer to the question for a piece of a snapshot", out);
                return;
            }
            if !self.leave_slow_giver(now, link) {
                return;
            }
        }
        let goes_on = self.able_to_go_on(now, |_| true).map(|link| (link, None));
        let begins = || {
            let found = self.sessions.iter().filter_map(|(link, session)| {
                let wanted = session.wanted_snapshot(&self.ledger.logs, &self.local.limits, now.mono)?;
                Some((*link, Some(wanted), session.giver.rank()))
            });
            let found = found.max_by_key(|(link, _, rank)| (*rank, std::cmp::Reverse(*link)));
            found.map(|(link, wanted, _)| (link, wanted))
        };
        let Some((link, wanted)) = goes_on.or_else(begins) else { return };
        let Some(giver) = self.sessions.get(&link).map(|session| session.link.peer) else { return };
        if let Some((collection, purpose)) = wanted {
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
        self.taking = Taking::from(link);
        self.pull(now, out);
    }

    /// The fastest peer, as far as is known, that can go on with the snapshot that has begun.
    fn able_to_go_on(&self, now: Now, is_allowed: impl Fn(&Session) -> bool) -> Option<LinkId> {
        let known = self.ledger.snapshot.as_ref()?;
        let able = |session: &Session| session.can_go_on(known, now.mono) && is_allowed(session);
        let able = self.sessions.iter().filter(|(_, session)| able(session));
        let fastest = able.max_by_key(|(link, session)| (session.giver.rank(), std::cmp::Reverse(**link)));
        fastest.map(|(link, _)| *link)
    }

    /// Leaves a giver that is slow if there is another that may be faster. Each is tried once on its link, so two slow ones don't
    /// take turns.
    fn leave_slow_giver(&mut self, now: Now, link: LinkId) -> bool {
        let Some(pace) = self.taking.pace(now.mono).filter(|pace| *pace < SNAPSHOT_FAST) else {
            return false;
        };
        let Some(incoming) = &self.ledger.snapshot else { return false };
        let is_faster = |session: &Session| {
            session.link.id != link && session.giver.pace.is_none_or(|known| known / 2 > pace)
        };
        // Of any collection: what comes slowly may begin anew, what waits for it would never come.
        let anew = |session: &Session| {
            let wanted = session.wanted_snapshot(&self.ledger.logs, &self.local.limits, now.mono);
            is_faster(session) && wanted.is_some()
        };
        let collection = incoming.collection.clone();
        if incoming.is_repair() || self.able_to_go_on(now, is_faster).is_none() {
            if pace >= SNAPSHOT_SLOW || !self.sessions.values().any(anew) {
                return false;
            }
            self.ledger.snapshot = None;
        }
        if let Some(session) = self.sessions.get_mut(&link) {
            session.giver.pace = Some(pace);
            session.snapshot_over(collection, now.mono);
        }
        self.taking = Taking::default();
        true
    }

    /// Asks for the next piece, if it is time: while one is joined the next one may be on its way.
    pub(crate) fn pull(&mut self, now: Now, out: &mut Vec<Output>) {
        let (Some(link), Some(ahead)) = (self.taking.link, self.taking.may_ask()) else { return };
        let Some(incoming) = &mut self.ledger.snapshot else { return };
        let Some(session) = self.sessions.get_mut(&link) else { return };
        let pull = match ahead {
            Some(from) => Pull { collection: incoming.collection.clone(), from },
            None => incoming.pull(frame_room(&session.link)),
        };
        self.taking.asked(now.mono);
        out.push(send(link, &session.ask(pull)));
    }

    /// Joins the piece of a snapshot that waits, once local changes are captured.
    pub(crate) fn join_chunk(
        &mut self,
        now: Now,
        out: &mut Vec<Output>,
    ) -> Result<(), StoreFailed<S::Error>> {
        let Some((chunk, at)) = self.taking.next() else { return Ok(()) };
        let Some(link) = self.taking.link else { return Ok(()) };
        let impatient = now.mono.since(at) >= BACKLOG_WAIT_MS;
        if self.ledger.backlog && !impatient {
            self.taking.put_back(chunk, at);
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
            Joined::Busy => self.taking.put_back(again, at),
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
        let paced = |at: Mono| self.is_quiet || now.mono.since(at.max(self.given)) >= SNAPSHOT_GIVE_MS;
        let due = |asked: &Asked| asked.again <= now.mono && paced(asked.at);
        let Some(asked) = self.giving.pop_front_if(|asked| due(asked)) else { return Ok(()) };
        self.given = now.mono;
        let Some(session) = self.sessions.get_mut(&asked.link) else { return Ok(()) };
        let limits = ScanLimits {
            rows: self.local.limits.page_entries,
            bytes: self.local.limits.page_bytes.min(session.link.frame_bytes_max),
        };
        match self.ledger.chunk(&asked.pull, limits, frame_room(&session.link))? {
            Some(chunk) => out.push(send(asked.link, &session.answer(chunk))),
            None if now.mono.since(asked.at) < BACKLOG_WAIT_MS => {
                let again = now.mono.plus(CAPTURE_WAIT_MS);
                self.giving.push_back(Asked { again, ..asked });
            }
            None => {
                let refused =
                    "the next document is not as its row says, and its change can't be captured".to_owned();
                let (collection, part) = (asked.pull.collection, Part::Rows(Vec::new()));
                let chunk = Chunk { collection, part, last: false, refused, ahead: false };
                out.push(send(asked.link, &session.answer(chunk)));
            }
        }
        Ok(())
    }
}
