//! Documents that can't stand together in the application's store, as under a UNIQUE constraint: of those that collide the
//! youngest stays, on every node, as in a table of the built-in store. So all show the same, whatever came first.
//!
//! What has to go is in quarantine: it is in the rows as everywhere, its place in the application's store is empty, and it is
//! tried again after every change until there is room.

use entgldb_replica::id::DocId;
use entgldb_replica::resolve::Row;
use entgldb_replica::store::Store;
use entgldb_sqlite::own::{Placed, Refused};

use super::adapter::HostedStore;
use super::place::{Piece, Refusal, Stopped};
use crate::store::StoreError;

/// What keeps a document out of the application's store.
enum InTheWay {
    /// Only what must go for it, as it is to be set aside.
    Older(Vec<Refused>),
    /// Something that must not.
    Younger(DocId),
    /// Something that the engine does not know, or not as it is there now.
    Unknown,
}

impl HostedStore {
    /// Decides about a document that is refused alone: of those that can't stand together the younger stays. Answers whether this
    /// one does.
    pub(super) fn settle(
        &mut self,
        piece: &Piece,
        refusal: Refusal,
        placed: &mut Placed,
    ) -> Result<bool, Stopped> {
        let Refusal { mut message, mut blocked_by } = refusal;
        self.is_crowded |= !blocked_by.is_empty();
        // Others could not undo what is done here, or would take it for the application's.
        let may_move = self.host.capabilities.transactions && self.host.capabilities.outbox;
        while may_move && !blocked_by.is_empty() {
            let older = match self.in_the_way(&blocked_by, piece)? {
                InTheWay::Older(older) => older,
                InTheWay::Younger(doc) => {
                    let message = format!("{message}: {} {} is younger and has its place", doc.0, doc.1);
                    if !self.leave(piece, &message)? {
                        break;
                    }
                    let Piece { doc, stamp, content } = piece.clone();
                    placed.refused.push(Refused { doc, stamp, content, has: None, message });
                    return Ok(false);
                }
                InTheWay::Unknown => break,
            };
            // First, so that whenever the process ends, what is not there is known to have been put aside, not deleted.
            let told = self.own.set_aside(&older)?;
            match self.placing().attempt(std::slice::from_ref(piece), &blocked_by) {
                Ok(shown) => {
                    placed.shown.extend(shown);
                    self.untold.extend(told);
                    // What was in the way may have kept others out.
                    self.retry_soon();
                    return Ok(true);
                }
                // It may have been done all the same: whatever is there is found out at the next start.
                Err(stopped @ Stopped::Unavailable(_)) => return Err(stopped),
                Err(stopped) => {
                    self.own.release(&blocked_by, &[])?;
                    let Stopped::Failed(more) = stopped else { return Err(stopped) };
                    let known = blocked_by.len();
                    blocked_by.extend(more.blocked_by);
                    blocked_by.sort();
                    blocked_by.dedup();
                    message = more.message;
                    if blocked_by.len() == known {
                        break;
                    }
                }
            }
        }
        placed.refused.push(self.placing().refused(piece, message)?);
        Ok(false)
    }

    /// Looks at documents that are in the way of another one.
    fn in_the_way(&mut self, docs: &[DocId], piece: &Piece) -> Result<InTheWay, StoreError> {
        let rows = self.own.rows(docs)?;
        let is_younger = |(doc, row): &(&DocId, &Option<Row>)| {
            row.is_some_and(|row| row.content.is_some() && (row.stamp, *doc) > (piece.stamp, &piece.doc))
        };
        if let Some((doc, _)) = docs.iter().zip(&rows).find(is_younger) {
            return Ok(InTheWay::Younger(doc.clone()));
        }
        let now = self.read(docs)?;
        let mut older = Vec::with_capacity(docs.len());
        for ((doc, row), now) in docs.iter().zip(rows).zip(now) {
            let Some(row) = row else { return Ok(InTheWay::Unknown) };
            if now.is_none() || !self.is_echo(doc, now.as_ref())? {
                return Ok(InTheWay::Unknown);
            }
            let message = format!("{} {} is younger and has its place", piece.doc.0, piece.doc.1);
            older.push(self.as_it_stands(doc, &row, message)?);
        }
        Ok(InTheWay::Older(older))
    }

    /// A document as it is set aside before the application's store loses it.
    fn as_it_stands(&mut self, doc: &DocId, row: &Row, message: String) -> Result<Refused, StoreError> {
        let content = self.version(doc, &row.stamp)?.and_then(|version| version.content());
        Ok(Refused { doc: doc.clone(), stamp: row.stamp, content, has: None, message })
    }

    /// Takes the version before of a document that has to stay out from the application's store too. Answers `false` if what is
    /// there is not known.
    fn leave(&mut self, piece: &Piece, message: &str) -> Result<bool, Stopped> {
        let docs = std::slice::from_ref(&piece.doc);
        let Some(now) = self.read(docs)?.pop().flatten() else { return Ok(true) };
        let Some(row) = self.own.rows(docs)?.pop().flatten() else { return Ok(false) };
        if !self.is_echo(&piece.doc, Some(&now))? {
            return Ok(false);
        }
        if row.stamp == piece.stamp {
            // It is in quarantine already, and whether something stands in its place is noted there: what is gone is no news.
            match self.placing().attempt(&[], docs) {
                Ok(_) => {}
                Err(Stopped::Failed(_)) => return Ok(false),
                Err(stopped) => return Err(stopped),
            }
            let Piece { doc, stamp, content } = piece.clone();
            self.own.set_aside(&[Refused { doc, stamp, content, has: None, message: message.to_owned() }])?;
            return Ok(true);
        }
        let before = self.as_it_stands(&piece.doc, &row, message.to_owned())?;
        self.own.set_aside(&[before])?;
        let stopped = match self.placing().attempt(&[], docs) {
            Ok(_) => return Ok(true),
            Err(stopped @ Stopped::Unavailable(_)) => return Err(stopped),
            Err(stopped) => stopped,
        };
        self.own.release(docs, &[])?;
        if let Stopped::Failed(_) = stopped { Ok(false) } else { Err(stopped) }
    }
}
