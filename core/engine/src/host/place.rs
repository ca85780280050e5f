//! Bringing documents into the application's store, and finding those that it refuses.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use entgldb_replica::clock::Stamp;
use entgldb_replica::id::DocId;
use entgldb_replica::limits::{HOOK_BYTES_MAX, HOOK_DOCUMENTS_MAX};
use entgldb_replica::store::{Commit, Problem, Store};
use entgldb_sqlite::SqliteFailed;
use entgldb_sqlite::own::{Placed, QuarantineItem, Refused, Shown, is_lossy_image};
use tracing::warn;

use super::adapter::{HostedStore, Retry, canonical_hash, to_place};
use super::{HostCell, HostDocument, HostError, HostResult};
use crate::store::StoreError;

/// How often a unit is tried as a whole before its documents are tried apart.
const UNIT_ATTEMPTS: usize = 3;
/// First wait before it is tried again; each is five times as long as the one before.
const BACK_OFF: Duration = Duration::from_millis(40);
/// If so many documents are refused one by one and none is taken, it is the store that fails and not the documents.
const REFUSED_ALL_MIN: usize = 16;
/// Documents in quarantine that are tried again in one go.
const RETRIES_AT_ONCE: usize = 64;
/// Longest message of the application's that is kept, in bytes.
const MESSAGE_BYTES_MAX: usize = 2048;

/// A document to write or delete.
#[derive(Clone, Debug)]
pub(super) struct Piece {
    pub(super) doc: DocId,
    pub(super) stamp: Stamp,
    pub(super) content: Option<Bytes>,
}

/// Why an attempt did not come to its end.
pub(super) enum Stopped {
    Moved,
    Failed(Refusal),
    Unavailable(StoreError),
}

impl From<StoreError> for Stopped {
    fn from(failed: StoreError) -> Self {
        Self::Unavailable(failed)
    }
}

impl From<SqliteFailed> for Stopped {
    fn from(failed: SqliteFailed) -> Self {
        Self::Unavailable(failed.into())
    }
}

/// Why documents are not taken.
#[derive(Debug)]
pub(super) struct Refusal {
    pub(super) message: String,
    pub(super) blocked_by: Vec<DocId>,
}

/// Calls of the hooks that write.
pub(super) struct Placing<'a> {
    pub(super) host: &'a HostCell,
    pub(super) stop: &'a AtomicBool,
}

/// Waits before another attempt, unless the node is to stop.
pub(super) fn back_off(attempt: usize, stop: &AtomicBool) {
    let wait = BACK_OFF * 5u32.saturating_pow(u32::try_from(attempt.saturating_sub(1)).unwrap_or(u32::MAX));
    if !stop.load(Ordering::Relaxed) {
        std::thread::sleep(wait.min(Duration::from_secs(1)));
    }
}

impl HostedStore {
    /// Brings a commit's documents into the application's store. `None` if its outbox has moved.
    pub(super) fn place(&mut self, commit: &Commit) -> Result<Option<Placed>, StoreError> {
        let mut pieces: Vec<Piece> = to_place(commit)
            .map(|write| Piece {
                doc: write.doc.clone(),
                stamp: write.row.stamp,
                content: write.apply.clone().flatten(),
            })
            .collect();
        // Oldest first, so that parents come before children.
        pieces.sort_by_key(|piece| piece.stamp);
        self.place_pieces(&pieces)
    }

    pub(super) fn placing(&self) -> Placing<'_> {
        Placing { host: &self.host, stop: &self.stop }
    }

    fn place_pieces(&mut self, pieces: &[Piece]) -> Result<Option<Placed>, StoreError> {
        let mut attempt = 1;
        let refusal = loop {
            match self.placing().attempt(pieces, &[]) {
                Ok(shown) => return Ok(Some(Placed { shown, refused: Vec::new() })),
                Err(Stopped::Moved) => return Ok(None),
                Err(Stopped::Unavailable(failed)) => return Err(failed),
                // What is in the way would be so the next time.
                Err(Stopped::Failed(refusal))
                    if attempt == UNIT_ATTEMPTS || !refusal.blocked_by.is_empty() =>
                {
                    break refusal;
                }
                Err(Stopped::Failed(_)) => {
                    back_off(attempt, &self.stop);
                    attempt += 1;
                }
            }
        };
        warn!(
            documents = pieces.len(),
            "the application's store refuses a unit; its documents are tried apart"
        );
        let mut placed = Placed::default();
        let mut taken = 0;
        match self.apart(pieces, refusal, &mut placed, &mut taken) {
            Ok(()) => {
                // What was in the way may be another version, or gone, by the end of the unit.
                if self.is_crowded && !placed.refused.is_empty() {
                    self.retry_soon();
                }
                Ok(Some(placed))
            }
            Err(Stopped::Moved) => Ok(None),
            Err(Stopped::Unavailable(failed)) => Err(failed),
            Err(Stopped::Failed(refusal)) => Err(StoreError::host("apply", refusal.message)),
        }
    }

    /// Halves a unit that was refused until what is refused is a single document. What is taken is committed piece by piece:
    /// should the outbox move in between, the whole is done again.
    fn apart(
        &mut self,
        pieces: &[Piece],
        refusal: Refusal,
        placed: &mut Placed,
        taken: &mut usize,
    ) -> Result<(), Stopped> {
        if let [piece] = pieces {
            if self.settle(piece, refusal, placed)? {
                *taken += 1;
            } else if *taken == 0 && placed.refused.len() >= REFUSED_ALL_MIN {
                let message = placed.refused.pop().map(|refused| refused.message).unwrap_or_default();
                return Err(Stopped::Unavailable(StoreError::host("apply", message)));
            }
            return Ok(());
        }
        let (first, second) = pieces.split_at(pieces.len() / 2);
        for half in [first, second] {
            match self.placing().attempt(half, &[]) {
                Ok(shown) => {
                    *taken += half.len();
                    placed.shown.extend(shown);
                }
                Err(Stopped::Failed(refusal)) => self.apart(half, refusal, placed, taken)?,
                Err(stopped) => return Err(stopped),
            }
        }
        Ok(())
    }

    /// Tries documents in quarantine again, if that is due.
    pub(super) fn retry_quarantine(&mut self) -> Result<Vec<Problem>, StoreError> {
        let Some(retry) = self.retries.clone() else { return Ok(Vec::new()) };
        // A local change comes first.
        if !self.outbox_is_empty()? {
            return Ok(Vec::new());
        }
        let Some(collection) = self.own.collections().get(retry.collection).cloned() else {
            self.retries = std::mem::take(&mut self.retries_again).then(Retry::default);
            return Ok(Vec::new());
        };
        if retry.collection == 0 && retry.after.is_none() {
            self.is_crowded = false;
        }
        let items = self.own.quarantine(&collection, retry.after.as_ref(), RETRIES_AT_ONCE)?;
        self.retries = Some(match items.last() {
            Some(last) if items.len() == RETRIES_AT_ONCE => {
                Retry { after: Some(last.doc.1.clone()), ..retry }
            }
            _ => Retry { collection: retry.collection + 1, after: None },
        });
        self.retry(&items)
    }

    fn retry(&mut self, items: &[QuarantineItem]) -> Result<Vec<Problem>, StoreError> {
        let mut told = Vec::new();
        for QuarantineItem { doc, stamp, content } in items {
            let piece = Piece { doc: doc.clone(), stamp: *stamp, content: content.clone() };
            let mut placed = Placed::default();
            let stands = match self.placing().attempt(std::slice::from_ref(&piece), &[]) {
                Ok(shown) => {
                    placed.shown = shown;
                    Ok(true)
                }
                Err(Stopped::Failed(refusal)) => self.settle(&piece, refusal, &mut placed),
                Err(stopped) => Err(stopped),
            };
            match stands {
                // At once: one of the next may take its place.
                Ok(true) => told.extend(self.own.release(std::slice::from_ref(doc), &placed.shown)?),
                Ok(false) | Err(Stopped::Failed(_)) => {}
                Err(Stopped::Moved) => {
                    self.retry_soon();
                    break;
                }
                Err(Stopped::Unavailable(failed)) => return Err(failed),
            }
        }
        Ok(told)
    }

    /// Tries documents in quarantine again from the beginning, the next time that there is time.
    pub(crate) fn retry_soon(&mut self) {
        self.retries = Some(Retry::default());
    }

    /// The same, but does not begin anew with what is being tried: under a steady load it would never come to its end.
    pub(super) fn retry_after_all(&mut self) {
        match self.retries {
            Some(_) => self.retries_again = true,
            None => self.retry_soon(),
        }
    }

    /// Tries one document in quarantine again now. `None` if there is no such document.
    pub(crate) fn retry_one(&mut self, doc: &DocId) -> Result<Option<Vec<Problem>>, StoreError> {
        let Some(item) = self.own.quarantined(doc)? else { return Ok(None) };
        Ok(Some(self.retry(&[item])?))
    }

    /// Writes a document that the application did not write itself. The inner error is the store's refusal.
    pub(crate) fn place_local(
        &mut self,
        doc: DocId,
        content: Option<Bytes>,
    ) -> Result<Result<(), String>, StoreError> {
        let rows = self.own.rows(std::slice::from_ref(&doc))?;
        let stamp = rows.into_iter().next().flatten().map(|row| row.stamp);
        let Some(stamp) = stamp else { return Ok(Err("the document is not known".to_owned())) };
        let piece = Piece { doc, stamp, content };
        match self.placing().attempt(std::slice::from_ref(&piece), &[]) {
            Ok(_) => Ok(Ok(())),
            Err(Stopped::Failed(refusal)) => Ok(Err(refusal.message)),
            Err(Stopped::Moved) => Ok(Err("the application writes without pause".to_owned())),
            Err(Stopped::Unavailable(failed)) => Err(failed),
        }
    }

    /// Drops a document from quarantine: what the store has in its place stays there, and is no change. Answers whether there
    /// was such a document.
    pub(crate) fn discard(&mut self, doc: &DocId) -> Result<bool, StoreError> {
        Ok(self.own.discard(doc)?)
    }
}

impl Placing<'_> {
    pub(super) fn refused(&self, piece: &Piece, mut message: String) -> Result<Refused, Stopped> {
        let has = self.read(std::slice::from_ref(&piece.doc)).map_err(Stopped::Unavailable)?;
        let mut end = message.len().min(MESSAGE_BYTES_MAX);
        while !message.is_char_boundary(end) {
            end -= 1;
        }
        message.truncate(end);
        let has = canonical_hash(has.first().and_then(Option::as_ref));
        let Piece { doc, stamp, content } = piece.clone();
        Ok(Refused { doc, stamp, content, has, message })
    }

    /// One attempt at all of these documents, as one transaction if the store has such, in place of others that go.
    pub(super) fn attempt(&self, pieces: &[Piece], instead_of: &[DocId]) -> Result<Vec<Shown>, Stopped> {
        let transactions = self.host.capabilities.transactions;
        if transactions {
            self.host.call("begin", |host| host.begin()).map_err(stopped)?;
        }
        let result = self.delete(instead_of).and_then(|()| self.write(pieces));
        if !transactions {
            return result;
        }
        let shown = match result {
            Ok(shown) => shown,
            Err(stopped) => {
                self.roll_back();
                return Err(stopped);
            }
        };
        match self.host.call("commit", |host| host.commit()) {
            Ok(()) => Ok(shown),
            Err(error) => {
                self.roll_back();
                Err(stopped(error))
            }
        }
    }

    fn roll_back(&self) {
        // The first failure is the one that matters.
        if let Err(error) = self.host.call("rollback", |host| host.rollback()) {
            warn!(%error, "the rollback hook failed");
        }
    }

    fn write(&self, pieces: &[Piece]) -> Result<Vec<Shown>, Stopped> {
        let puts: Vec<HostDocument> = pieces.iter().filter_map(document).collect();
        let gone: Vec<DocId> =
            pieces.iter().filter(|piece| piece.content.is_none()).map(|piece| piece.doc.clone()).collect();
        let mut shown = Vec::new();
        let mut rest = puts.as_slice();
        while !rest.is_empty() {
            let (batch, after) = rest.split_at(batch_len(rest));
            self.host.call("apply", |host| host.apply(batch)).map_err(stopped)?;
            self.read_back(batch, &mut shown)?;
            rest = after;
        }
        self.delete(&gone)?;
        Ok(shown)
    }

    fn delete(&self, docs: &[DocId]) -> Result<(), Stopped> {
        for batch in docs.chunks(HOOK_DOCUMENTS_MAX) {
            self.host.call("delete", |host| host.delete(batch)).map_err(stopped)?;
        }
        Ok(())
    }

    /// Looks what the store makes of documents that it has just taken. Inside a transaction nobody else can have written
    /// them; without one only what such a store may have dropped counts, and anything else is left for a change of the
    /// application's.
    fn read_back(&self, batch: &[HostDocument], shown: &mut Vec<Shown>) -> Result<(), Stopped> {
        let docs: Vec<DocId> = batch.iter().map(|doc| (doc.collection.clone(), doc.key.clone())).collect();
        let found = self.read(&docs).map_err(Stopped::Unavailable)?;
        for ((document, doc), now) in batch.iter().zip(docs).zip(found) {
            if now.as_ref() == Some(&document.content) {
                continue;
            }
            let is_ours = self.host.capabilities.transactions
                || now.as_ref().is_some_and(|now| is_lossy_image(now, &document.content));
            if is_ours {
                let hash = canonical_hash(now.as_ref());
                shown.push(Shown { doc, hash, content: Some(document.content.clone()) });
            }
        }
        Ok(())
    }

    /// What documents are now in the application's store.
    pub(super) fn read(&self, docs: &[DocId]) -> Result<Vec<Option<Bytes>>, StoreError> {
        let mut found = Vec::with_capacity(docs.len());
        for docs in docs.chunks(HOOK_DOCUMENTS_MAX) {
            let contents = self.ask("read", |host| host.read(docs))?;
            if contents.len() != docs.len() {
                let (asked, got) = (docs.len(), contents.len());
                return Err(StoreError::host("read", format!("{got} answers to {asked} questions")));
            }
            found.extend(contents);
        }
        Ok(found)
    }

    /// Calls a hook that only reads; a failure is tried again, and then counts as a failure of the store.
    pub(super) fn ask<T>(
        &self,
        hook: &'static str,
        mut work: impl FnMut(&mut dyn super::HostStore) -> HostResult<T>,
    ) -> Result<T, StoreError> {
        let mut attempt = 1;
        loop {
            match self.host.call(hook, &mut work) {
                Ok(answer) => return Ok(answer),
                Err(HostError::Failed { message }) if attempt < UNIT_ATTEMPTS => {
                    warn!(hook, message, attempt, "a hook failed; it is tried again");
                    back_off(attempt, self.stop);
                    attempt += 1;
                }
                Err(error) => return Err(StoreError::host(hook, error.to_string())),
            }
        }
    }
}

fn document(piece: &Piece) -> Option<HostDocument> {
    Some(HostDocument {
        collection: piece.doc.0.clone(),
        key: piece.doc.1.clone(),
        content: piece.content.clone()?,
        hlc: piece.stamp.hlc.0,
    })
}

/// How many of these documents fit one call.
fn batch_len(documents: &[HostDocument]) -> usize {
    let mut bytes = 0;
    let fits = documents.iter().take(HOOK_DOCUMENTS_MAX).take_while(|document| {
        bytes += document.content.len();
        bytes <= HOOK_BYTES_MAX
    });
    fits.count().max(1)
}

fn stopped(error: HostError) -> Stopped {
    match error {
        HostError::OutboxMoved => Stopped::Moved,
        HostError::Failed { message } => Stopped::Failed(Refusal { message, blocked_by: Vec::new() }),
        HostError::Blocked { by, message } => Stopped::Failed(Refusal { message, blocked_by: by }),
        error => Stopped::Unavailable(StoreError::host("apply", error.to_string())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use entgldb_replica::id::{Collection, Key};

    fn sized(bytes: usize) -> HostDocument {
        HostDocument {
            collection: Collection::new("t").unwrap(),
            key: Key::new("k").unwrap(),
            content: vec![b' '; bytes].into(),
            hlc: 0,
        }
    }

    #[test]
    fn a_batch_ends_at_its_bytes_or_its_count_and_a_large_document_goes_alone() {
        assert_eq!(batch_len(&vec![sized(1); HOOK_DOCUMENTS_MAX + 1]), HOOK_DOCUMENTS_MAX);
        assert_eq!(batch_len(&[sized(HOOK_BYTES_MAX / 2), sized(HOOK_BYTES_MAX / 2), sized(1)]), 2);
        assert_eq!(batch_len(&[sized(HOOK_BYTES_MAX + 1), sized(1)]), 1);
    }
}
