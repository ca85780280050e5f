//! What a node sends out of its logs.
//!
//! A page is cut at *stamps*, not at sizes: after it, the receiver holds of each author everything up to one time, in all
//! the collections that both sync. Every signed head stands at the end of a unit, so such a cut never splits one. Authors
//! are taken in the order of their times, so that causes travel before effects.

use std::collections::BTreeMap;

use crate::clock::Hlc;
use crate::entry::SignedHead;
use crate::id::{Incarnation, LogId, NodeId};
use crate::limits::{FRAME_BYTES_HARD, PAGE_ENTRIES_MAX};
use crate::oplog::Logs;
use crate::store::{ReadLimits, Store, Stored};
use crate::version::Seq;
use crate::wire::{Run, check_of};

/// The logs of one author since one birth of its oplog, with the position after which to send.
type Positions = BTreeMap<LogId, Seq>;

/// How much more fits into a page.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Room {
    pub(crate) entries: usize,
    pub(crate) bytes: usize,
}

impl Room {
    /// Less room, after a page of `bytes` did not fit where `max` are allowed. `None` if it was the least already: one unit.
    pub(crate) fn less(self, bytes: usize, max: usize) -> Option<Self> {
        // By the share that it was too large, and a bit: entries are not all of one size.
        let shrink = |value: usize| (value.saturating_mul(max) / bytes.max(1) * 3 / 4).max(1);
        let less = Self { entries: shrink(self.entries.min(PAGE_ENTRIES_MAX)), bytes: shrink(self.bytes) };
        (less != self).then_some(less)
    }
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
    mut room: Room,
) -> Result<Vec<Run>, S::Error> {
    let mut queue = queue_all(store, positions)?;
    let mut runs: BTreeMap<LogId, Run> = BTreeMap::new();
    while room.entries > 0 && room.bytes > 0 {
        let Some(((_, group), mut positions)) = queue.pop_first() else { break };
        // Up to where the next author's turn begins.
        let until = queue.first_key_value().map_or(Hlc(u64::MAX), |((hlc, _), _)| *hlc);
        let stretch = match fitting_stretch(store, &positions, until, room)? {
            Some(stretch) => stretch,
            None if runs.is_empty() => match whole_stretch(store, &positions)? {
                Some(stretch) => stretch,
                None => match shortest_run(store, &positions)? {
                    Some(stretch) => stretch,
                    None => continue,
                },
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

/// The shortest run of a single log that there is, of the author whose turn it is. For a peer that takes nothing larger.
///
/// What nodes with different interests have got from each other may be signed at other places in each log, so that no short
/// stretch ends at a signed head in all of them. Then a unit can't stay whole on its way: that, or nothing at all.
pub(crate) fn build_shortest<S: Store>(
    store: &mut S,
    logs: &Logs,
    positions: &Positions,
) -> Result<Vec<Run>, S::Error> {
    let mut runs = BTreeMap::new();
    if let Some((_, positions)) = queue_all(store, positions)?.pop_first()
        && let Some(stretch) = shortest_run(store, &positions)?
    {
        for (log, entries, signed) in stretch.runs {
            let after = positions.get(&log).copied().unwrap_or_default();
            extend_run(store, logs, &mut runs, log, after, entries, signed)?;
        }
    }
    Ok(runs.into_values().collect())
}

/// Whether runs hold entries of more than one unit, as far as times tell.
pub(crate) fn is_several_units(runs: &[Run]) -> bool {
    let times = |run: &Run| run.entries.first().map(|(entry, _)| entry.hlc) == Some(run.signed.hlc);
    let mut ends = runs.iter().map(|run| run.signed.hlc);
    let first = ends.next();
    !runs.iter().all(times) || !ends.all(|end| Some(end) == first)
}

type Queue = BTreeMap<(Hlc, (NodeId, Incarnation)), Positions>;

/// All authors in line.
fn queue_all<S: Store>(store: &mut S, positions: &Positions) -> Result<Queue, S::Error> {
    let mut groups: BTreeMap<(NodeId, Incarnation), Positions> = BTreeMap::new();
    for (log, after) in positions {
        groups.entry((log.author, log.incarnation)).or_default().insert(log.clone(), *after);
    }
    let mut queue = BTreeMap::new();
    for (group, positions) in groups {
        queue_group(store, &mut queue, group, positions)?;
    }
    Ok(queue)
}

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

/// A log, the position after which it was read, and what was read.
type Read<'a> = (&'a LogId, Seq, Vec<Stored>);
/// For each log that was read, the signed head to end with, if anything of it is taken.
type Ends = Vec<Option<SignedHead>>;

/// Lowers `cut` until the last entry of every log at or before it has a signed head; answers those heads.
fn signed_cut_until<S: Store>(
    store: &mut S,
    read: &[Read<'_>],
    cut: &mut Hlc,
) -> Result<Option<Ends>, S::Error> {
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
        let mut entries = 0;
        for (log, after) in positions {
            let last = store.last_at(log, cut)?;
            if last <= *after {
                continue;
            }
            entries += last.0 - after.0;
            if entries > PAGE_ENTRIES_MAX as u64 {
                return Ok(None);
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

/// The shortest run with a signed head at its end, of the log whose next entry is the earliest.
fn shortest_run<S: Store>(store: &mut S, positions: &Positions) -> Result<Option<Stretch>, S::Error> {
    let one = ReadLimits { until: Hlc(u64::MAX), entries: 1, bytes: 1 };
    let mut earliest: Option<(Hlc, &LogId, Seq)> = None;
    for (log, after) in positions {
        if let Some(next) = store.read_log(log, *after, &one)?.first()
            && earliest.is_none_or(|(hlc, ..)| next.entry.hlc < hlc)
        {
            earliest = Some((next.entry.hlc, log, *after));
        }
    }
    let Some((_, log, after)) = earliest else { return Ok(None) };
    let Some(signed) = store.signed_from(log, after.next())? else { return Ok(None) };
    let limits = ReadLimits { until: signed.hlc, entries: PAGE_ENTRIES_MAX, bytes: FRAME_BYTES_HARD };
    let mut entries = store.read_log(log, after, &limits)?;
    entries.truncate(usize::try_from(signed.head.seq.0 - after.0).unwrap_or(usize::MAX));
    let whole = entries.last().map(|last| last.entry.seq) == Some(signed.head.seq);
    Ok(whole.then(|| Stretch { runs: vec![(log.clone(), entries, signed)] }))
}
