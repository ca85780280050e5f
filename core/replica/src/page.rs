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

/// Reads the next page for a peer that holds `positions` and lacks something of each of these logs, and takes nothing that is
/// later than `latest`. May be empty, which means that no signed cut was found.
pub(crate) fn build_page<S: Store>(
    store: &mut S,
    logs: &Logs,
    positions: &Positions,
    mut room: Room,
    latest: Hlc,
) -> Result<Vec<Run>, S::Error> {
    let mut queue = queue_all(store, positions)?;
    let mut runs: BTreeMap<LogId, Run> = BTreeMap::new();
    while room.entries > 0 && room.bytes > 0 {
        let Some(((first, group), mut positions)) = queue.pop_first() else { break };
        if first > latest {
            break;
        }
        // Up to where the next author's turn begins.
        let until = queue.first_key_value().map_or(latest, |((hlc, _), _)| latest.min(*hlc));
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
        if stretch.runs.iter().any(|(.., signed)| signed.hlc > latest) {
            continue;
        }
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
    if ends.is_empty() {
        // Only in a store whose times do not rise: whoever asked for more would ask for ever.
        return Ok(None);
    }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entry::{Entry, Op};
    use crate::id::{Collection, Key, PublicKey};
    use crate::store::Durable;
    use crate::testing::MemoryStore;
    use crate::version::{Hash, Head};

    const PAYLOAD_BYTES: usize = 10;
    const AMPLE: Room = Room { entries: 1_000, bytes: 1 << 20 };

    const EVER: Hlc = Hlc(u64::MAX);

    /// Whether the entry's head is signed.
    const SIGNED: bool = true;
    const UNSIGNED: bool = false;

    fn log(author: u8, collection: &str) -> LogId {
        let (author, collection) =
            (NodeId::of(&PublicKey([author; 32])), Collection::new(collection).unwrap());
        LogId { author, incarnation: Incarnation(1), collection }
    }

    fn hash(seq: u64) -> Hash {
        Hash([u8::try_from(seq % 250).unwrap() + 1; 32])
    }

    /// What a node holds: logs of entries of ten bytes each, of which some heads are signed.
    #[derive(Default)]
    struct Shelf {
        store: MemoryStore,
        heads: Vec<(LogId, Head, Hlc)>,
    }

    impl Shelf {
        fn with(mut self, log: &LogId, entries: impl IntoIterator<Item = (u64, bool)>) -> Self {
            for (seq, (hlc, is_signed)) in (1..).zip(entries) {
                let (hlc, head) = (Hlc(hlc), Head { seq: Seq(seq), hash: hash(seq) });
                let (key, payload) = (Key::new("k").unwrap(), vec![7; PAYLOAD_BYTES].into());
                let entry = Entry { seq: Seq(seq), hlc, replaces: None, op: Op::Put, key, payload };
                self.store.log.entry(log.clone()).or_default().push(Stored { entry, hash: head.hash });
                if is_signed {
                    let signed = SignedHead { head, hlc, signature: [0; 64] };
                    self.store.signed.entry(log.clone()).or_default().insert(head.seq, signed);
                }
                self.heads.retain(|(held, ..)| held != log);
                self.heads.push((log.clone(), head, hlc));
            }
            self
        }

        fn logs(&self) -> Logs {
            let authors = (0..5).map(|author| PublicKey([author; 32])).collect();
            Logs::from_durable(&Durable { heads: self.heads.clone(), authors, ..Durable::default() })
        }

        /// From where to where the next page goes in each of these logs, for a peer that holds so much of them.
        fn page(&mut self, held: &[(&LogId, u64)], room: Room) -> Vec<(LogId, u64, u64)> {
            let (logs, positions) = (self.logs(), positions(held));
            extents(build_page(&mut self.store, &logs, &positions, room, EVER).unwrap())
        }

        fn shortest(&mut self, held: &[(&LogId, u64)]) -> Vec<(LogId, u64, u64)> {
            let (logs, positions) = (self.logs(), positions(held));
            extents(build_shortest(&mut self.store, &logs, &positions).unwrap())
        }
    }

    fn positions(held: &[(&LogId, u64)]) -> Positions {
        held.iter().map(|(log, seq)| ((*log).clone(), Seq(*seq))).collect()
    }

    fn extents(runs: Vec<Run>) -> Vec<(LogId, u64, u64)> {
        let extent = |run: Run| {
            let (first, last) = (run.entries[0].0.seq.0, run.entries[run.entries.len() - 1].0.seq.0);
            assert_eq!(run.signed.head.seq.0, last, "a run ends at its signed head");
            assert_eq!(run.entries.len() as u64, last - first + 1, "a run has no gap");
            assert_eq!(run.previous, if first == 1 { Hash::default() } else { hash(first - 1) });
            (run.log, first, last)
        };
        runs.into_iter().map(extent).collect()
    }

    /// Entries that are a unit each, at these times.
    fn units(times: impl IntoIterator<Item = u64>) -> impl Iterator<Item = (u64, bool)> {
        times.into_iter().map(|hlc| (hlc, SIGNED))
    }

    #[test]
    fn a_page_that_was_too_large_is_made_smaller_by_the_share_that_it_was_and_a_bit() {
        let room = Room { entries: 100, bytes: 1_000 };
        assert_eq!(room.less(2_000, 1_000), Some(Room { entries: 37, bytes: 375 }));
        assert_eq!(room.less(1_000, 1_000), Some(Room { entries: 75, bytes: 750 }));
        assert_eq!(room.less(3_000_000, 1), Some(Room { entries: 1, bytes: 1 }));
        assert_eq!(Room { entries: 1, bytes: 1 }.less(3_000_000, 1), None, "that is one unit");
        let less = Room { entries: usize::MAX, bytes: 1_000 }.less(2_000, 1_000);
        assert_eq!(less, Some(Room { entries: PAGE_ENTRIES_MAX / 2 * 3 / 4, bytes: 375 }));
    }

    #[test]
    fn a_page_holds_as_many_entries_and_bytes_as_there_is_room() {
        let a = log(1, "a");
        let mut shelf = Shelf::default().with(&a, units(1..=10));
        assert_eq!(shelf.page(&[(&a, 0)], AMPLE), [(a.clone(), 1, 10)]);
        assert_eq!(shelf.page(&[(&a, 0)], Room { entries: 4, ..AMPLE }), [(a.clone(), 1, 4)]);
        assert_eq!(shelf.page(&[(&a, 3)], Room { entries: 4, ..AMPLE }), [(a.clone(), 4, 7)]);
        assert_eq!(shelf.page(&[(&a, 0)], Room { bytes: 3 * PAYLOAD_BYTES, ..AMPLE }), [(a.clone(), 1, 3)]);
        assert_eq!(
            shelf.page(&[(&a, 0)], Room { bytes: 3 * PAYLOAD_BYTES + 1, ..AMPLE }),
            [(a.clone(), 1, 4)]
        );
        assert_eq!(shelf.page(&[(&a, 0)], Room { entries: 0, ..AMPLE }), []);
        assert_eq!(shelf.page(&[(&a, 0)], Room { bytes: 0, ..AMPLE }), []);
    }

    #[test]
    fn a_log_whose_times_do_not_rise_is_sent_all_the_same_and_does_not_hold_the_engine() {
        let a = log(1, "a");
        let times = [(9, UNSIGNED), (9, UNSIGNED), (9, SIGNED), (3, UNSIGNED), (4, SIGNED)];
        let mut shelf = Shelf::default().with(&a, times);
        assert_eq!(shelf.page(&[(&a, 3)], Room { entries: 1, ..AMPLE }), [(a.clone(), 4, 5)]);
    }

    #[test]
    fn nothing_is_taken_that_is_later_than_the_peer_may_take_and_all_that_is_not() {
        let (a, b) = (log(1, "a"), log(2, "a"));
        let late = [(4, SIGNED), (5, UNSIGNED), (9, SIGNED)];
        let mut shelf = Shelf::default().with(&a, units([1, 2, 8, 9])).with(&b, late);
        let mut until = |latest| {
            let (logs, held) = (shelf.logs(), positions(&[(&a, 0), (&b, 0)]));
            let mut page = extents(build_page(&mut shelf.store, &logs, &held, AMPLE, Hlc(latest)).unwrap());
            page.sort_by_key(|(log, ..)| *log != a);
            page
        };
        assert_eq!(until(0), []);
        assert_eq!(until(1), [(a.clone(), 1, 1)]);
        assert_eq!(until(7), [(a.clone(), 1, 2), (b.clone(), 1, 1)], "5 is signed at 9 only");
        assert_eq!(until(9), until(u64::MAX), "all of it is old enough");
    }

    #[test]
    fn logs_of_one_author_share_the_room_and_none_is_ahead_of_the_others() {
        let (a, b) = (log(1, "a"), log(1, "b"));
        let both = [(&a, 0), (&b, 0)];
        let mut shelf = Shelf::default().with(&a, units(1..=10)).with(&b, units(1..=10));
        let three = [(a.clone(), 1, 3), (b.clone(), 1, 3)];
        assert_eq!(shelf.page(&both, Room { entries: 6, ..AMPLE }), three);
        assert_eq!(shelf.page(&both, Room { bytes: 6 * PAYLOAD_BYTES, ..AMPLE }), three);
        // Of the second there would be room for what is later than all that was read of the first.
        let mut shelf = Shelf::default().with(&a, units(1..=10)).with(&b, units([1, 9]));
        let five = [(a.clone(), 1, 5), (b.clone(), 1, 1)];
        assert_eq!(shelf.page(&both, Room { entries: 6, ..AMPLE }), five);
        assert_eq!(shelf.page(&both, Room { bytes: 6 * PAYLOAD_BYTES, ..AMPLE }), five);
        // One that has ended leaves its room to the other.
        let mut shelf = Shelf::default().with(&a, units([1])).with(&b, units(1..=10));
        assert_eq!(shelf.page(&both, Room { entries: 8, ..AMPLE }), [(a, 1, 1), (b, 1, 7)]);
    }

    #[test]
    fn authors_take_turns_in_the_order_of_their_times() {
        let (a, b) = (log(1, "a"), log(2, "a"));
        let both = [(&a, 0), (&b, 0)];
        let mut shelf = Shelf::default().with(&a, units([1, 2, 5, 6])).with(&b, units([3, 4]));
        let page = |shelf: &mut Shelf, entries| {
            let mut page = shelf.page(&both, Room { entries, ..AMPLE });
            page.sort_by_key(|(log, ..)| *log != a);
            page
        };
        assert_eq!(page(&mut shelf, 1), [(a.clone(), 1, 1)]);
        assert_eq!(page(&mut shelf, 2), [(a.clone(), 1, 2)]);
        assert_eq!(page(&mut shelf, 3), [(a.clone(), 1, 2), (b.clone(), 1, 1)]);
        assert_eq!(page(&mut shelf, 5), [(a.clone(), 1, 3), (b.clone(), 1, 2)]);
        assert_eq!(page(&mut shelf, 99), [(a.clone(), 1, 4), (b.clone(), 1, 2)]);
    }

    #[test]
    fn a_unit_is_never_split_and_goes_alone_if_it_is_larger_than_the_room() {
        let a = log(1, "a");
        let unit = |hlc| [(hlc, UNSIGNED), (hlc, UNSIGNED), (hlc, SIGNED)];
        let mut shelf = Shelf::default().with(&a, [unit(1), unit(2)].concat());
        assert_eq!(shelf.page(&[(&a, 0)], Room { entries: 2, ..AMPLE }), [(a.clone(), 1, 3)]);
        assert_eq!(shelf.page(&[(&a, 3)], Room { entries: 2, ..AMPLE }), [(a.clone(), 4, 6)]);
        assert_eq!(shelf.page(&[(&a, 0)], Room { entries: 5, ..AMPLE }), [(a.clone(), 1, 3)]);
        assert_eq!(shelf.page(&[(&a, 0)], Room { entries: 6, ..AMPLE }), [(a.clone(), 1, 6)]);
        let mut shelf = Shelf::default().with(&a, [(1, SIGNED)].into_iter().chain(unit(2)));
        assert_eq!(shelf.page(&[(&a, 0)], Room { entries: 2, ..AMPLE }), [(a.clone(), 1, 1)]);
        let b = log(1, "b");
        let mut shelf = Shelf::default().with(&a, unit(5)).with(&b, unit(5));
        let both = [(a.clone(), 1, 3), (b.clone(), 1, 3)];
        assert_eq!(shelf.page(&[(&a, 0), (&b, 0)], Room { entries: 1, ..AMPLE }), both);
    }

    #[test]
    fn what_follows_the_last_signed_head_waits_and_so_does_all_of_its_author_that_is_later() {
        let (a, b) = (log(1, "a"), log(1, "b"));
        let four = [(1, SIGNED), (2, UNSIGNED), (3, SIGNED), (4, UNSIGNED)];
        let mut shelf = Shelf::default().with(&a, four);
        assert_eq!(shelf.page(&[(&a, 1)], AMPLE), [(a.clone(), 2, 3)]);
        assert_eq!(shelf.page(&[(&a, 3)], AMPLE), []);
        let both = [(&a, 0), (&b, 0)];
        let ends = [(1, SIGNED), (3, UNSIGNED)];
        let mut shelf = Shelf::default().with(&a, ends).with(&b, units([1, 3]));
        assert_eq!(shelf.page(&both, AMPLE), [(a.clone(), 1, 1), (b.clone(), 1, 1)], "3 may be one unit");
        let mut shelf = Shelf::default().with(&a, ends).with(&b, units([1, 2]));
        assert_eq!(shelf.page(&both, AMPLE), [(a.clone(), 1, 1), (b.clone(), 1, 2)]);
    }

    #[test]
    fn a_stretch_that_is_signed_late_goes_as_a_whole_with_all_that_is_not_later() {
        let (a, b) = (log(1, "a"), log(1, "b"));
        let both = [(&a, 0), (&b, 0)];
        let late = [(1, UNSIGNED), (2, UNSIGNED), (3, SIGNED)];
        let mut shelf = Shelf::default().with(&a, late).with(&b, units([2, 4]));
        assert_eq!(shelf.page(&both, Room { entries: 1, ..AMPLE }), [(a.clone(), 1, 3), (b.clone(), 1, 1)]);
        let mut shelf = Shelf::default().with(&a, [(9, SIGNED), (9, SIGNED)]).with(&b, late);
        let held = [(&a, 1), (&b, 0)];
        assert_eq!(shelf.page(&held, Room { entries: 1, ..AMPLE }), [(b, 1, 3)]);
    }

    #[test]
    fn a_unit_is_sent_up_to_the_most_entries_that_a_page_may_have() {
        let a = log(1, "a");
        let unit = |count: usize| (1..=count).map(move |n| (1, n == count));
        let most = PAGE_ENTRIES_MAX as u64;
        let mut shelf = Shelf::default().with(&a, unit(PAGE_ENTRIES_MAX));
        assert_eq!(shelf.page(&[(&a, 0)], Room { entries: 9, ..AMPLE }), [(a.clone(), 1, most)]);
        let mut shelf = Shelf::default().with(&a, unit(PAGE_ENTRIES_MAX + 1));
        assert_eq!(shelf.page(&[(&a, 0)], Room { entries: 9, ..AMPLE }), []);
        assert_eq!(shelf.page(&[(&a, 1)], Room { entries: 9, ..AMPLE }), [(a, 2, most + 1)]);
    }

    #[test]
    fn where_logs_of_one_author_are_signed_at_no_common_time_the_earliest_run_of_one_goes_alone() {
        let (a, b, c) = (log(1, "a"), log(1, "b"), log(1, "c"));
        let late = [(1, UNSIGNED), (1, UNSIGNED), (1, SIGNED)];
        let mut shelf = Shelf::default().with(&a, late).with(&b, [(1, UNSIGNED)]);
        let few = Room { entries: 1, ..AMPLE };
        assert_eq!(shelf.page(&[(&a, 0), (&b, 0)], few), [(a.clone(), 1, 3)]);
        let mut shelf =
            Shelf::default().with(&a, [(5, UNSIGNED), (6, SIGNED)]).with(&b, late).with(&c, [(1, UNSIGNED)]);
        assert_eq!(shelf.page(&[(&a, 0), (&b, 0), (&c, 0)], few), [(b, 1, 3)]);
    }

    #[test]
    fn the_shortest_run_ends_at_the_first_signed_head_and_is_of_the_author_whose_turn_it_is() {
        let (a, b) = (log(1, "a"), log(2, "a"));
        let mut shelf = Shelf::default().with(&a, units([1, 2, 2, 4])).with(&b, units([3]));
        assert_eq!(shelf.shortest(&[(&a, 0), (&b, 0)]), [(a.clone(), 1, 1)]);
        assert_eq!(shelf.shortest(&[(&a, 1), (&b, 0)]), [(a.clone(), 2, 2)]);
        assert_eq!(shelf.shortest(&[(&a, 3), (&b, 0)]), [(b.clone(), 1, 1)]);
        assert_eq!(shelf.shortest(&[(&a, 4), (&b, 1)]), []);
        let mut shelf = Shelf::default().with(&a, [(1, SIGNED), (2, UNSIGNED)]);
        assert_eq!(shelf.shortest(&[(&a, 1)]), []);
    }

    #[test]
    fn runs_are_several_units_if_their_times_differ() {
        let runs = |logs: &[(&LogId, Vec<u64>)]| {
            let mut shelf = Shelf::default();
            for (log, times) in logs {
                shelf = shelf.with(log, units(times.iter().copied()));
            }
            let held: Vec<_> = logs.iter().map(|(log, _)| (*log, 0)).collect();
            build_page(&mut shelf.store.clone(), &shelf.logs(), &positions(&held), AMPLE, EVER).unwrap()
        };
        let (a, b) = (log(1, "a"), log(1, "b"));
        assert!(!is_several_units(&runs(&[(&a, vec![1])])));
        assert!(!is_several_units(&runs(&[(&a, vec![1, 1, 1])])));
        assert!(is_several_units(&runs(&[(&a, vec![1, 1, 2])])));
        assert!(!is_several_units(&runs(&[(&a, vec![1, 1]), (&b, vec![1])])));
        assert!(is_several_units(&runs(&[(&a, vec![1, 1]), (&b, vec![2])])));
        assert!(!is_several_units(&[]));
    }
}
