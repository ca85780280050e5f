//! The logs that a node holds, what it takes into them, and what it sends out of them.
//!
//! **In:** a run of entries is taken only if it continues the log without a gap, its hashes lead to the head that came
//! with it, the author's signature over that head holds, and no time in it is too far ahead ([`check_run`]).
//!
//! **Out:** a page is cut at *stamps*, not at sizes: after it, the receiver holds of each author everything up to one
//! time, in all the collections that both sync. Every signed head stands at the end of a unit, so such a cut never
//! splits one ([`build_page`]). Authors are taken in the order of their times, so that causes travel before effects.

use std::collections::BTreeMap;

use crate::clock::{Clock, Hlc, TooFarAhead, WallMillis};
use crate::entry::{Chain, ChainError, SignatureError, SignedHead};
use crate::fingerprint::Fingerprint;
use crate::id::{Collection, Incarnation, Key, LogId, NodeId, PublicKey};
use crate::limits::{FRAME_BYTES_HARD, PAGE_BYTES_TARGET, PAGE_ENTRIES_MAX, PAGE_ENTRIES_TARGET};
use crate::store::{Appended, Durable, ReadLimits, Store, Stored};
use crate::version::{Head, Seq, Vector};
use crate::wire::{Run, check_of};

/// What a node holds, in memory: heads, keys and the fingerprints over them. Small: it grows with logs, not entries.
#[derive(Debug, Default)]
pub(crate) struct Logs {
    vector: Vector,
    times: BTreeMap<LogId, Hlc>,
    authors: BTreeMap<NodeId, PublicKey>,
    vector_digests: BTreeMap<Collection, Fingerprint>,
    row_digests: BTreeMap<Collection, Fingerprint>,
}

impl Logs {
    pub(crate) fn from_durable(durable: &Durable) -> Self {
        let mut logs =
            Self { row_digests: durable.fingerprints.iter().cloned().collect(), ..Self::default() };
        for (log, head, hlc) in &durable.heads {
            logs.advance(log, *head, *hlc);
        }
        for key in &durable.authors {
            logs.authors.insert(NodeId::of(key), *key);
        }
        logs
    }

    pub(crate) fn vector(&self) -> &Vector {
        &self.vector
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

    pub(crate) fn set_row_digest(&mut self, collection: Collection, digest: Fingerprint) {
        self.row_digests.insert(collection, digest);
    }

    pub(crate) fn row_digest(&self, collection: &Collection) -> Fingerprint {
        self.row_digests.get(collection).copied().unwrap_or_default()
    }

    /// Fingerprints over the heads and over the rows of some collections.
    pub(crate) fn digests<'a>(
        &self,
        collections: impl IntoIterator<Item = &'a Collection>,
    ) -> (Fingerprint, Fingerprint) {
        let (mut vector, mut rows) = (Fingerprint::default(), Fingerprint::default());
        for collection in collections {
            vector.add(self.vector_digests.get(collection).copied().unwrap_or_default());
            rows.add(self.row_digest(collection));
        }
        (vector, rows)
    }

    fn advance(&mut self, log: &LogId, head: Head, hlc: Hlc) {
        let before = self.vector.advance(log, head);
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
    let (first, signed) = (run.first_seq(), run.signed);
    let mut chain = logs.chain(&run.log);
    let have = chain.head();
    if signed.head.seq <= have.seq {
        let forked = signed.head.seq == have.seq && signed.head.hash != have.hash;
        return if forked { Err(RunError::Forked { at: have.seq }) } else { Ok(None) };
    }
    clock.admit(signed.hlc, wall)?;
    if first > have.seq.next() {
        return Err(RunError::Gap { have: have.seq, first });
    }
    if first == have.seq.next() && run.previous != have.hash {
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

/// The logs of one author since one birth of its oplog, with the position after which to send.
type Positions = BTreeMap<LogId, Seq>;

/// How much more fits into a page.
#[derive(Clone, Copy)]
struct Room {
    entries: usize,
    bytes: usize,
}

/// What one author's logs hold between their positions and one time.
struct Stretch {
    runs: Vec<(LogId, Vec<Stored>, SignedHead)>,
}

/// Reads the next page for a peer that holds `positions` and lacks something of each of these logs. May be empty, which
/// means that no signed cut was found.
pub(crate) fn build_page<S: Store>(
    store: &mut S,
    logs: &Logs,
    positions: &Positions,
) -> Result<Vec<Run>, S::Error> {
    let mut groups: BTreeMap<(NodeId, Incarnation), Positions> = BTreeMap::new();
    for (log, after) in positions {
        groups.entry((log.author, log.incarnation)).or_default().insert(log.clone(), *after);
    }
    let mut queue = BTreeMap::new();
    for (group, positions) in groups {
        queue_group(store, &mut queue, group, positions)?;
    }
    let mut runs: BTreeMap<LogId, Run> = BTreeMap::new();
    let mut room = Room { entries: PAGE_ENTRIES_TARGET, bytes: PAGE_BYTES_TARGET };
    while room.entries > 0 && room.bytes > 0 {
        let Some(((_, group), mut positions)) = queue.pop_first() else { break };
        // Up to where the next author's turn begins.
        let until = queue.first_key_value().map_or(Hlc(u64::MAX), |((hlc, _), _)| *hlc);
        let stretch = match fitting_stretch(store, &positions, until, room)? {
            Some(stretch) => stretch,
            None if runs.is_empty() => match whole_stretch(store, &positions)? {
                Some(stretch) => stretch,
                None => continue,
            },
            None => break,
        };
        for (log, entries, signed) in stretch.runs {
            room.entries = room.entries.saturating_sub(entries.len());
            room.bytes =
                room.bytes.saturating_sub(entries.iter().map(|stored| stored.entry.payload.len()).sum());
            let after = positions.insert(log.clone(), signed.head.seq).unwrap_or_default();
            extend_run(store, logs, &mut runs, log, after, entries, signed)?;
        }
        positions.retain(|log, after| logs.vector().head(log).seq > *after);
        queue_group(store, &mut queue, group, positions)?;
    }
    Ok(runs.into_values().collect())
}

type Queue = BTreeMap<(Hlc, (NodeId, Incarnation)), Positions>;

/// Puts an author's logs in line, by the time of the next entry.
fn queue_group<S: Store>(
    store: &mut S,
    queue: &mut Queue,
    group: (NodeId, Incarnation),
    positions: Positions,
) -> Result<(), S::Error> {
    let one = ReadLimits { until: Hlc(u64::MAX), entries: 1, bytes: 1 };
    let mut first: Option<Hlc> = None;
    for (log, after) in &positions {
        if let Some(next) = store.read_log(log, *after, &one)?.first() {
            first = Some(first.map_or(next.entry.hlc, |hlc| hlc.min(next.entry.hlc)));
        }
    }
    if let Some(first) = first {
        queue.insert((first, group), positions);
    }
    Ok(())
}

fn extend_run<S: Store>(
    store: &mut S,
    logs: &Logs,
    runs: &mut BTreeMap<LogId, Run>,
    log: LogId,
    after: Seq,
    entries: Vec<Stored>,
    signed: SignedHead,
) -> Result<(), S::Error> {
    let entries = entries.into_iter().map(|stored| (stored.entry, check_of(&stored.hash)));
    if let Some(run) = runs.get_mut(&log) {
        run.entries.extend(entries);
        run.signed = signed;
        return Ok(());
    }
    let Some(public_key) = logs.key_of(&log.author).copied() else { return Ok(()) };
    let previous = if after == Seq(0) { None } else { store.hash_at(&log, after)? };
    let (entries, previous) = (entries.collect(), previous.unwrap_or_default());
    runs.insert(log.clone(), Run { log, public_key, previous, entries, signed });
    Ok(())
}

/// The longest stretch not later than `until` that fits: reads as much as fits, then goes back to the last time at
/// which every log has a signed head.
fn fitting_stretch<S: Store>(
    store: &mut S,
    positions: &Positions,
    until: Hlc,
    room: Room,
) -> Result<Option<Stretch>, S::Error> {
    // Each log gets an equal share, so that together they do not exceed the room.
    let share = positions.len().max(1);
    let limits =
        ReadLimits { until, entries: (room.entries / share).max(1), bytes: (room.bytes / share).max(1) };
    let mut read = Vec::with_capacity(positions.len());
    let mut cut = until;
    for (log, after) in positions {
        let entries = store.read_log(log, *after, &limits)?;
        let bytes: usize = entries.iter().map(|stored| stored.entry.payload.len()).sum();
        if let Some(last) = entries.last()
            && (entries.len() >= limits.entries || bytes >= limits.bytes)
        {
            cut = cut.min(last.entry.hlc);
        }
        read.push((log, *after, entries));
    }
    let Some(ends) = signed_cut_until(store, &read, &mut cut)? else { return Ok(None) };
    let mut runs = Vec::new();
    for ((log, after, mut entries), signed) in read.into_iter().zip(ends) {
        let Some(signed) = signed else { continue };
        entries.truncate(usize::try_from(signed.head.seq.0 - after.0).unwrap_or(usize::MAX));
        runs.push((log.clone(), entries, signed));
    }
    Ok(Some(Stretch { runs }))
}

type Read<'a> = (&'a LogId, Seq, Vec<Stored>);

/// Lowers `cut` until the last entry of every log at or before it has a signed head; answers those heads.
fn signed_cut_until<S: Store>(
    store: &mut S,
    read: &[Read<'_>],
    cut: &mut Hlc,
) -> Result<Option<Vec<Option<SignedHead>>>, S::Error> {
    'lower: loop {
        let mut ends = Vec::with_capacity(read.len());
        for (log, after, entries) in read {
            let count = entries.partition_point(|stored| stored.entry.hlc <= *cut);
            if count == 0 {
                ends.push(None);
                continue;
            }
            let last = entries[count - 1].entry.seq;
            match store.signed_until(log, last)?.filter(|signed| signed.head.seq > *after) {
                Some(signed) if signed.head.seq == last => ends.push(Some(signed)),
                Some(signed) => {
                    *cut = signed.hlc;
                    continue 'lower;
                }
                None => {
                    let Some(earlier) = entries[0].entry.hlc.0.checked_sub(1) else { return Ok(None) };
                    *cut = Hlc(earlier);
                    continue 'lower;
                }
            }
        }
        return Ok(ends.iter().any(Option::is_some).then_some(ends));
    }
}

/// The shortest stretch there is, whatever its size: raises the first entry's time until every log has a signed head
/// at it. Used when nothing shorter than a whole unit would do.
fn whole_stretch<S: Store>(store: &mut S, positions: &Positions) -> Result<Option<Stretch>, S::Error> {
    let one = ReadLimits { until: Hlc(u64::MAX), entries: 1, bytes: 1 };
    let mut cut: Option<Hlc> = None;
    for (log, after) in positions {
        if let Some(next) = store.read_log(log, *after, &one)?.first() {
            cut = Some(cut.map_or(next.entry.hlc, |hlc| hlc.min(next.entry.hlc)));
        }
    }
    let Some(mut cut) = cut else { return Ok(None) };
    let ends = 'raise: loop {
        let mut ends = Vec::new();
        for (log, after) in positions {
            let last = store.last_at(log, cut)?;
            if last <= *after {
                continue;
            }
            let Some(signed) = store.signed_from(log, last)? else { return Ok(None) };
            if signed.hlc > cut {
                cut = signed.hlc;
                continue 'raise;
            }
            ends.push((log, *after, signed));
        }
        break ends;
    };
    let limits = ReadLimits { until: cut, entries: PAGE_ENTRIES_MAX, bytes: FRAME_BYTES_HARD };
    let mut runs = Vec::new();
    for (log, after, signed) in ends {
        runs.push((log.clone(), store.read_log(log, after, &limits)?, signed));
    }
    let whole =
        runs.iter().all(|(_, entries, signed)| entries.last().map(|e| e.entry.seq) == Some(signed.head.seq));
    Ok(whole.then_some(Stretch { runs }))
}
