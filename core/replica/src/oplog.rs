//! The logs that a node holds, and what it takes into them.
//!
//! A run of entries is taken only if it continues the log without a gap, its hashes lead to the head that came with it,
//! the author's signature over that head holds, and no time in it is too far ahead ([`check_run`]).

use std::collections::{BTreeMap, BTreeSet};

use crate::clock::{Clock, Hlc, Stamp, TooFarAhead, WallMillis};
use crate::entry::{Chain, ChainError, SignatureError};
use crate::fingerprint::{Fingerprint, Tally};
use crate::follow::{Follower, Moves};
use crate::id::{Collection, Incarnation, Key, LogId, NodeId, PublicKey};
use crate::limits::{AUTHOR_LOGS, LOGS_CROWDED, LOGS_MAX};
use crate::store::{Appended, Durable};
use crate::version::{Head, Seq, Vector};
use crate::wire::{Code, Page, Run, check_of};

/// What a node holds, in memory: heads, keys and the fingerprints over them. Small: it grows with logs, not entries.
#[derive(Debug, Default)]
pub(crate) struct Logs {
    vector: Vector,
    times: BTreeMap<LogId, Hlc>,
    authors: BTreeMap<NodeId, PublicKey>,
    vector_digests: BTreeMap<Collection, Fingerprint>,
    tallies: BTreeMap<Collection, Tally>,
    /// Logs whose beginning was forgotten, with the last position that is gone and its time.
    floors: BTreeMap<LogId, (Seq, Hlc)>,
    /// Heads and floors that moved.
    moves: Moves,
    /// How many logs each author has.
    of_author: BTreeMap<NodeId, usize>,
    /// How many entries each author wrote in each incarnation.
    written: BTreeMap<(NodeId, Incarnation), u64>,
}

/// New logs that are taken together, counted by author.
#[derive(Default)]
pub(crate) struct NewLogs {
    of_author: BTreeMap<NodeId, usize>,
    all: usize,
}

impl Logs {
    pub(crate) fn from_durable(durable: &Durable) -> Self {
        let mut logs = Self { tallies: durable.tallies.iter().cloned().collect(), ..Self::default() };
        logs.floors.extend(durable.floors.iter().map(|(log, seq, hlc)| (log.clone(), (*seq, *hlc))));
        for (log, head, hlc) in &durable.heads {
            logs.advance(log, *head, *hlc);
        }
        for key in &durable.authors {
            logs.authors.insert(NodeId::of(key), *key);
        }
        logs
    }

    /// A number that is another one after any head has moved: what was worked out from the heads holds as long as it stays.
    pub(crate) fn moves(&self) -> u64 {
        self.moves.count()
    }

    /// The logs that have changed since a follower looked last; `None` if it is to look at all.
    pub(crate) fn changed(&self, follower: &mut Follower) -> Option<BTreeSet<LogId>> {
        follower.changed(&self.moves)
    }

    pub(crate) fn vector(&self) -> &Vector {
        &self.vector
    }

    /// Entries that an author wrote in one incarnation, over all its collections.
    pub(crate) fn written(&self, author: NodeId, incarnation: Incarnation) -> u64 {
        self.written.get(&(author, incarnation)).copied().unwrap_or_default()
    }

    /// The end of a log, ready to take its next entry.
    pub(crate) fn chain(&self, log: &LogId) -> Chain {
        Chain::resume(log.clone(), self.vector.head(log), self.times.get(log).copied().unwrap_or_default())
    }

    pub(crate) fn key_of(&self, author: &NodeId) -> Option<&PublicKey> {
        self.authors.get(author)
    }

    /// Notes a durable commit.
    pub(crate) fn committed(&mut self, appended: &[Appended], authors: &[PublicKey]) {
        for run in appended {
            self.advance(&run.log, run.signed.head, run.signed.hlc);
        }
        for key in authors {
            self.authors.insert(NodeId::of(key), *key);
        }
    }

    pub(crate) fn set_tally(&mut self, collection: Collection, tally: Tally) {
        self.tallies.insert(collection, tally);
    }

    pub(crate) fn tally(&self, collection: &Collection) -> Tally {
        self.tallies.get(collection).copied().unwrap_or_default()
    }

    /// The time of a log's last entry; the lowest there is if it has none.
    pub(crate) fn time_of(&self, log: &LogId) -> Hlc {
        self.times.get(log).copied().unwrap_or(Hlc(0))
    }

    /// The last position of a log that is forgotten; zero if nothing is.
    pub(crate) fn floor(&self, log: &LogId) -> Seq {
        self.floors.get(log).map(|(seq, _)| *seq).unwrap_or_default()
    }

    /// Notes that entries are forgotten.
    pub(crate) fn forget(&mut self, log: &LogId, floor: Seq, hlc: Hlc) {
        self.moves.note(log);
        self.floors.insert(log.clone(), (floor, hlc));
    }

    /// Notes that a snapshot stands for a log up to a head.
    pub(crate) fn adopt(&mut self, log: &LogId, head: Head, hlc: Hlc) {
        self.advance(log, head, hlc);
        self.forget(log, head.seq, hlc);
    }

    /// Whether the version with this stamp may be among what is forgotten of a collection.
    pub(crate) fn is_forgotten(&self, collection: &Collection, stamp: Stamp) -> bool {
        let mut floors = self.floors.iter();
        floors.any(|(log, (_, hlc))| {
            log.collection == *collection && log.author == stamp.node && *hlc >= stamp.hlc
        })
    }

    /// Fingerprints over the heads and over the rows of some collections.
    pub(crate) fn digests<'a>(
        &self,
        collections: impl IntoIterator<Item = &'a Collection>,
    ) -> (Fingerprint, Fingerprint) {
        let (mut vector, mut rows) = (Fingerprint::default(), Fingerprint::default());
        for collection in collections {
            vector.add(self.vector_digests.get(collection).copied().unwrap_or_default());
            rows.add(self.tally(collection).fingerprint);
        }
        (vector, rows)
    }

    /// Whether a log may be taken beside others that are new as well: it is known, or there is room for it.
    pub(crate) fn admit(&self, log: &LogId, new: &mut NewLogs) -> bool {
        if self.vector.head(log).seq > Seq(0) {
            return true;
        }
        let of = |counts: &BTreeMap<NodeId, usize>| counts.get(&log.author).copied().unwrap_or_default();
        let all = self.vector.len() + new.all;
        let is_crowded = all >= LOGS_CROWDED && of(&self.of_author) + of(&new.of_author) >= AUTHOR_LOGS;
        if all >= LOGS_MAX || is_crowded {
            return false;
        }
        *new.of_author.entry(log.author).or_default() += 1;
        new.all += 1;
        true
    }

    fn advance(&mut self, log: &LogId, head: Head, hlc: Hlc) {
        self.moves.note(log);
        let before = self.vector.advance(log, head);
        *self.written.entry((log.author, log.incarnation)).or_default() +=
            head.seq.0.saturating_sub(before.seq.0);
        if before.seq == Seq(0) && head.seq > Seq(0) {
            *self.of_author.entry(log.author).or_default() += 1;
        }
        let digest = self.vector_digests.entry(log.collection.clone()).or_default();
        if before.seq > Seq(0) {
            digest.remove(Fingerprint::of_head(log, &before));
        }
        digest.add(Fingerprint::of_head(log, &head));
        self.times.insert(log.clone(), hlc);
    }
}

/// Why a run was not taken. Nothing of it was stored.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RunError {
    /// A time too far ahead: not yet. It may be offered again later.
    #[error("not yet: {0}")]
    ClockSkew(#[from] TooFarAhead),
    /// Entries before the first one are missing here.
    #[error("entries between {have:?} and {first:?} are missing")]
    Gap {
        /// Held up to here.
        have: Seq,
        /// First entry of the run.
        first: Seq,
    },
    /// The run does not continue what is held: two histories under one name.
    #[error(
        "entry {at:?} is another one than the one held here: the log has forked, or one side's copy is damaged"
    )]
    Forked {
        /// Position of the last common or first differing entry.
        at: Seq,
    },
    /// An entry is not what its author wrote.
    #[error(
        "entry {seq:?} (key {key:?}) is damaged or altered: it does not have the hash it had when it was written"
    )]
    Damaged {
        /// Its position.
        seq: Seq,
        /// Its key.
        key: Key,
    },
    /// The entries do not lead to the signed head, and none of them can be told to be the altered one.
    #[error("entries {first:?} to {last:?} do not lead to the head that their author signed")]
    WrongHead {
        /// First entry of the run.
        first: Seq,
        /// Last entry of the run.
        last: Seq,
    },
    /// The entries contradict each other.
    #[error(transparent)]
    Chain(#[from] ChainError),
    /// The signature does not hold.
    #[error("entries up to {last:?}: {reason}")]
    Signature {
        /// Last entry of the run.
        last: Seq,
        /// What is wrong with it.
        reason: SignatureError,
    },
}

/// Checks a run against what is held. `Ok(None)` if all of it is held already.
pub(crate) fn check_run(
    logs: &Logs,
    clock: &Clock,
    wall: WallMillis,
    run: Run,
) -> Result<Option<Appended>, RunError> {
    let (first, signed) = (run.first_seq(), run.signed.clone());
    let mut chain = logs.chain(&run.log);
    let have = chain.head();
    if signed.head.seq <= have.seq {
        if signed.head.seq == have.seq && signed.head.hash != have.hash {
            verify_alone(&run)?;
            return Err(RunError::Forked { at: have.seq });
        }
        return Ok(None);
    }
    clock.admit(signed.hlc, wall)?;
    if first > have.seq.next() {
        return Err(RunError::Gap { have: have.seq, first });
    }
    if first == have.seq.next() && run.previous != have.hash {
        verify_alone(&run)?;
        return Err(RunError::Forked { at: have.seq });
    }
    signed
        .verify(&run.log, &run.public_key)
        .map_err(|reason| RunError::Signature { last: signed.head.seq, reason })?;
    let mut entries = Vec::with_capacity(run.entries.len());
    for (entry, check) in run.entries {
        if entry.seq <= have.seq {
            continue;
        }
        let linked = chain.link(entry)?;
        if check_of(&linked.hash()) != check {
            let (seq, key) = (linked.entry().seq, linked.entry().key.clone());
            return Err(RunError::Damaged { seq, key });
        }
        entries.push(linked);
    }
    if chain.head() != signed.head {
        return Err(RunError::WrongHead { first, last: signed.head.seq });
    }
    Ok(Some(Appended { log: run.log, entries, signed }))
}

/// Checks that a run is what its author signed, whatever it follows: only then it is another branch, which nobody else can
/// make up.
fn verify_alone(run: &Run) -> Result<(), RunError> {
    let (first, signed) = (run.first_seq(), &run.signed);
    let last = signed.head.seq;
    let verified = signed.verify(&run.log, &run.public_key);
    verified.map_err(|reason| RunError::Signature { last, reason })?;
    let before = Head { seq: Seq(first.0.saturating_sub(1)), hash: run.previous };
    let mut chain = Chain::resume(run.log.clone(), before, Hlc::default());
    for (entry, _) in &run.entries {
        chain.link(entry.clone())?;
    }
    if chain.head() == signed.head { Ok(()) } else { Err(RunError::WrongHead { first, last }) }
}

/// Why a new log is not taken.
const TOO_MANY_LOGS: &str =
    "there are too many logs, over all or of this author (LOGS_MAX, LOGS_CROWDED): no new one is taken";

/// The runs of a page, sorted into those to take and those to refuse.
#[derive(Default)]
pub(crate) struct Verdicts {
    /// Checked, with the author's key.
    pub(crate) taken: Vec<(Appended, PublicKey)>,
    /// Why not, for the peer and for people.
    pub(crate) refused: Vec<(LogId, Code, String)>,
    /// Of those, the logs of which the peer has another branch.
    pub(crate) forked: Vec<LogId>,
}

/// Checks the runs of a page. Runs that are held already are in neither list.
pub(crate) fn check_page(logs: &Logs, clock: &Clock, wall: WallMillis, page: Page) -> Verdicts {
    let mut verdicts = Verdicts::default();
    let mut waits: BTreeMap<(NodeId, Incarnation), (Code, String)> = BTreeMap::new();
    let (mut seen, mut new, mut is_told) = (BTreeSet::new(), NewLogs::default(), false);
    for run in page.runs {
        let (log, key) = (run.log.clone(), run.public_key);
        if !logs.admit(&log, &mut new) {
            // Told once for all that come together: there may be very many.
            let told = if is_told { String::new() } else { format!("{log}: {TOO_MANY_LOGS}") };
            verdicts.refused.push((log, Code::Bad, told));
            is_told = true;
            continue;
        }
        if !seen.insert(log.clone()) {
            verdicts.refused.push((log, Code::Bad, "the log came twice in one page".to_owned()));
            continue;
        }
        match check_run(logs, clock, wall, run) {
            Ok(Some(appended)) => verdicts.taken.push((appended, key)),
            Ok(None) => {}
            Err(error) => {
                if let RunError::Forked { .. } = error {
                    verdicts.forked.push(log.clone());
                }
                let code = match error {
                    RunError::ClockSkew(_) => Code::ClockSkew,
                    RunError::Gap { .. } => Code::Gap,
                    _ => Code::Bad,
                };
                let detail = format!("{log}: {error}");
                if code != Code::Bad {
                    waits.insert((log.author, log.incarnation), (code, detail.clone()));
                }
                verdicts.refused.push((log, code, detail));
            }
        }
    }
    // A unit may lie in several logs of its author: if one of them has to wait, all do.
    let waits_for = |run: &Appended| waits.get(&(run.log.author, run.log.incarnation)).cloned();
    let (taken, waiting) = verdicts.taken.into_iter().partition(|(run, _)| waits_for(run).is_none());
    verdicts.taken = taken;
    let waiting: Vec<(Appended, PublicKey)> = waiting;
    for (run, _) in waiting {
        if let Some((code, detail)) = waits_for(&run) {
            verdicts.refused.push((run.log, code, detail));
        }
    }
    verdicts
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::version::Hash;

    fn log(author: u8, incarnation: usize) -> LogId {
        let (author, collection) = (NodeId([author; 32]), Collection::new("t").unwrap());
        LogId { author, incarnation: Incarnation(incarnation as u64), collection }
    }

    fn holding(logs: impl IntoIterator<Item = LogId>) -> Logs {
        let head = Head { seq: Seq(1), hash: Hash([1; 32]) };
        let heads = logs.into_iter().map(|log| (log, head, Hlc(1))).collect();
        Logs::from_durable(&Durable { heads, ..Durable::default() })
    }

    /// How many of so many new logs of an author are taken, all at once.
    fn taken(logs: &Logs, author: u8, count: usize) -> usize {
        let mut new = NewLogs::default();
        (0..count).filter(|number| logs.admit(&log(author, 1_000_000 + number), &mut new)).count()
    }

    #[test]
    fn one_author_can_take_half_of_the_room_for_logs_and_leaves_the_rest_to_all_others() {
        assert_eq!(taken(&holding([]), 66, LOGS_MAX), LOGS_CROWDED);
        let logs = holding((0..LOGS_CROWDED).map(|number| log(66, number)));
        assert_eq!(taken(&logs, 66, 10), 0, "no more of whoever has very many");
        assert_eq!(taken(&logs, 1, 10_000), AUTHOR_LOGS, "an author with few has room");
        assert!(logs.admit(&log(66, 7), &mut NewLogs::default()), "what is known goes on");
    }

    #[test]
    fn there_are_never_more_logs_than_the_limit() {
        let authors = (LOGS_MAX / AUTHOR_LOGS) as u8;
        let logs = (0..authors).flat_map(|author| (0..AUTHOR_LOGS).map(move |number| log(author, number)));
        let logs = holding(logs);
        assert_eq!(logs.vector().len(), LOGS_MAX);
        assert_eq!(taken(&logs, 200, 10), 0);
        assert!(logs.admit(&log(0, 7), &mut NewLogs::default()), "what is known goes on");
    }
}
