//! What leaves a node: pages cut to the frames that the peer takes.

use std::collections::BTreeMap;

use crate::clock::{Hlc, Now, WallMillis};
use crate::contract::{Link, Output, StoreFailed};
use crate::event::Event;
use crate::id::{LinkId, LogId};
use crate::ledger::Ledger;
use crate::limits::FRAME_OVERHEAD_BYTES;
use crate::page::{Room, is_several_units};
use crate::session::{Local, Session};
use crate::store::Store;
use crate::version::Seq;
use crate::wire::{Ack, Message, Page, Run};

/// Bytes that a page of several units leaves free, for itself and for each run: a relay sends the same units under longer
/// numbers, and must not find that they do not fit any more.
const PAGE_SPARE: usize = 32;
const RUN_SPARE: usize = 40;
/// How well a peer's clock is known: what was said of it has travelled.
const SKEW_SPARE_MS: u64 = 1_000;
/// Bytes of a result in an acknowledgement beside its text, at most.
const RESULT_BYTES: usize = 24;

/// Pages built in one step, each for every peer that lacks the same and takes as much.
pub(crate) type Built = Vec<((BTreeMap<LogId, Seq>, (Room, Hlc)), Vec<Run>)>;

/// Sends one page to a peer that may get one, as large as its frames allow; answers whether there is more to do.
///
/// A unit that fits no frame of the peer waits, with its author's others, and is told of; everybody else's entries go on.
pub(crate) fn send_page<S: Store>(
    session: &mut Session,
    ledger: &mut Ledger<S>,
    local: &Local,
    Now { mono: now, wall }: Now,
    built: &mut Built,
    out: &mut Vec<Output>,
) -> Result<bool, StoreFailed<S::Error>> {
    let positions = session.to_send(local, &ledger.logs, now);
    if positions.is_empty() {
        return Ok(false);
    }
    let (link, id) = (session.link.id, session.outgoing().next_page());
    let max = frame_room(&session.link);
    let latest = latest_for(session, local, wall);
    let mut room =
        Some(Room { entries: local.limits.page_entries, bytes: local.limits.page_bytes.min(max).max(1) });
    let runs = loop {
        let runs = match room {
            Some(room) => build(ledger, built, &positions, (room, latest))?,
            None => ledger.shortest_page(&positions)?,
        };
        if runs.is_empty() && latest < Hlc(u64::MAX) {
            session.outgoing().hold_for_their_time(positions.into_keys(), now);
            return Ok(false);
        }
        if runs.is_empty() {
            session.outgoing().hold(positions.into_keys(), now);
            return Ok(false);
        }
        let page = send(link, &Message::Page(Page { id, runs: runs.clone() }));
        let bytes = page_bytes(page.body_len(), id);
        let spare = PAGE_SPARE + RUN_SPARE * runs.len();
        let less = room.and_then(|room| room.less(bytes + spare, max));
        let is_small = bytes + spare <= max || less.is_none() || !is_several_units(&runs);
        if bytes <= max && is_small {
            out.push(page);
            break runs;
        }
        if less.is_none() && (room.is_none() || !is_several_units(&runs)) {
            let log = runs[0].log.clone();
            session.outgoing().hold_unit(&log, now);
            let most = session.link.frame_bytes_max;
            let detail = format!("a unit of {bytes} bytes does not fit the peer's frame_bytes_max of {most}");
            out.push(Output::Event(Event::RefusedByPeer { node: session.link.peer, log, detail }));
            return Ok(true);
        }
        room = less;
    };
    session.outgoing().page_out(&runs, now);
    Ok(!session.to_send(local, &ledger.logs, now).is_empty())
}

/// The latest time that a peer takes, as far as is known; most peers take all that there is.
fn latest_for(session: &mut Session, local: &Local, wall: WallMillis) -> Hlc {
    if !session.outgoing().is_behind_in_time() {
        return Hlc(u64::MAX);
    }
    let theirs = wall.0.saturating_add_signed(session.skew_ms);
    Hlc::from_wall(WallMillis(theirs.saturating_add(local.max_skew_ms).saturating_sub(SKEW_SPARE_MS)))
}

/// Bytes that a body to a peer may have.
pub(crate) fn frame_room(link: &Link) -> usize {
    link.frame_bytes_max.saturating_sub(FRAME_OVERHEAD_BYTES)
}

/// Bytes of a page without its number, which is another one on each link: what a peer may send is what can be passed on.
fn page_bytes(body: usize, id: u64) -> usize {
    body.saturating_sub(1 + prost::length_delimiter_len(usize::try_from(id).unwrap_or(usize::MAX)))
}

/// Whether a page that came can be passed on to peers that take frames of the same size.
pub(crate) fn can_be_passed_on(body: usize, id: u64, frame_bytes_max: usize) -> bool {
    page_bytes(body, id) <= frame_bytes_max.saturating_sub(FRAME_OVERHEAD_BYTES)
}

/// The page for a peer, from those built in this step if one fits.
fn build<S: Store>(
    ledger: &mut Ledger<S>,
    built: &mut Built,
    positions: &BTreeMap<LogId, Seq>,
    room: (Room, Hlc),
) -> Result<Vec<Run>, S::Error> {
    if let Some((_, runs)) = built.iter().find(|((known, size), _)| known == positions && *size == room) {
        return Ok(runs.clone());
    }
    let runs = ledger.page(positions, room)?;
    built.push(((positions.clone(), room), runs.clone()));
    Ok(runs)
}

/// Takes the texts for people out of an acknowledgement that would not fit the peer's frames with them.
pub(crate) fn fit_ack(ack: &mut Ack, frame_bytes_max: usize) {
    let bytes: usize = ack.results.iter().map(|result| result.detail.len() + RESULT_BYTES).sum();
    if bytes + FRAME_OVERHEAD_BYTES > frame_bytes_max {
        ack.results.iter_mut().for_each(|result| result.detail.clear());
    }
}

/// A message as an output.
pub(crate) fn send(link: LinkId, message: &Message) -> Output {
    let (kind, body) = message.encode();
    Output::Send { link, kind, body, compress: message.has_documents() }
}
