//! The receiving half of a link: records to frames, frames to the sink, and the deadlines of the peer.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, BytesMut};
use entgldb_replica::id::LinkId;
use entgldb_replica::limits::{FRAME_BYTES_PER_SECOND, LINK_IN_FLIGHT_BYTES_MAX};
use tokio::io::AsyncReadExt;
use tokio::net::tcp::OwnedReadHalf;
use tokio::time::{Instant, sleep, timeout_at};

use crate::budget::Budget;
use crate::codec;
use crate::event::{CloseReason, Frame, NetEvent};
use crate::frame::{ALIVE, CLOSE, FrameDecoder, FrameError, SESSION_KINDS, WireFrame};
use crate::handshake::close_text;
use crate::pace::Pace;
use crate::record::{LENGTH_BYTES, Opener};
use crate::shared::Shared;
use crate::traffic::count;

/// Room for one read: a whole record of the largest kind.
const READ_BYTES: usize = LENGTH_BYTES + u16::MAX as usize;

pub(crate) struct Reader {
    link: LinkId,
    shared: Arc<Shared>,
    stream: OwnedReadHalf,
    opener: Opener,
    received: BytesMut,
    frames: FrameDecoder,
    /// When something came last.
    heard: Instant,
    /// When the frame or record that is not complete yet began.
    begun: Option<Instant>,
    /// What this link may hold of the budget for received frames.
    share: Budget,
    pace: Pace,
}

impl Reader {
    pub(crate) fn new(link: LinkId, shared: Arc<Shared>, stream: OwnedReadHalf, opener: Opener) -> Self {
        let frames = shared.local.decoder();
        let received = BytesMut::new();
        let heard = Instant::now();
        let (share, pace) = (Budget::new(LINK_IN_FLIGHT_BYTES_MAX), Pace::new(heard));
        Self { link, shared, stream, opener, received, frames, heard, begun: None, share, pace }
    }

    /// Delivers frames until the link ends; returns why it did.
    pub(crate) async fn run(&mut self) -> CloseReason {
        let Err(reason) = self.read_until_the_end().await;
        reason
    }

    /// Reads and forgets what still comes, so that closing the socket does not destroy our parting word on its way.
    pub(crate) async fn drain(&mut self) {
        let mut scratch = vec![0; READ_BYTES];
        while matches!(self.stream.read(&mut scratch).await, Ok(bytes) if bytes > 0) {}
    }

    async fn read_until_the_end(&mut self) -> Result<Infallible, CloseReason> {
        loop {
            self.read().await?;
            while let Some(record_bytes) = self.whole_record()? {
                self.open(record_bytes)?;
                while let Some(frame) = self.frames.next()? {
                    self.handle(frame).await?;
                    self.begun = None;
                }
            }
            let is_mid = self.frames.is_mid_frame() || !self.received.is_empty();
            self.begun = is_mid.then(|| self.begun.unwrap_or(self.heard));
        }
    }

    /// Waits for bytes or for the first deadline.
    async fn read(&mut self) -> Result<(), CloseReason> {
        self.received.reserve(READ_BYTES);
        let silent = self.heard + self.shared.timing.drop_after;
        let late = self.begun.map(|begun| begun + self.time_for_the_frame());
        let deadline = late.map_or(silent, |late| late.min(silent));
        match timeout_at(deadline, self.stream.read_buf(&mut self.received)).await {
            Ok(Ok(0)) => Err(CloseReason::Truncated),
            Ok(Ok(bytes)) => {
                count(&self.shared.counters.wire_bytes_in, bytes);
                self.heard = Instant::now();
                self.keep_to_the_pace(bytes).await;
                Ok(())
            }
            Ok(Err(error)) => Err(CloseReason::Io(error.kind())),
            Err(_) if late == Some(deadline) => Err(CloseReason::FrameTimeout),
            Err(_) => Err(CloseReason::Silent),
        }
    }

    /// The time that the frame that has begun may take: longer if much of it is there already.
    fn time_for_the_frame(&self) -> Duration {
        let arrived = self.received.len() + self.frames.buffered();
        let earned = Duration::from_secs(1).mul_f64(arrived as f64 / FRAME_BYTES_PER_SECOND as f64);
        earned.max(self.shared.timing.frame)
    }

    /// Reads no faster than this peer may send. The wait is ours: it does not count as silence.
    async fn keep_to_the_pace(&mut self, bytes: usize) {
        let cost = Duration::from_secs(1).mul_f64(bytes as f64 / self.shared.link_bytes_per_second as f64);
        let wait = self.pace.take(Instant::now(), cost);
        if !wait.is_zero() {
            sleep(wait).await;
            self.heard += wait;
            self.begun = self.begun.map(|begun| begun + wait);
        }
    }

    /// The size of the record at the front, without its length, if all of it is there.
    fn whole_record(&self) -> Result<Option<usize>, FrameError> {
        let Some(length) = self.received.first_chunk::<LENGTH_BYTES>() else { return Ok(None) };
        let record_bytes = usize::from(u16::from_be_bytes(*length));
        if Opener::plain_bytes(record_bytes).unwrap_or(0) == 0 {
            return Err(FrameError::Record);
        }
        Ok((self.received.len() >= LENGTH_BYTES + record_bytes).then_some(record_bytes))
    }

    fn open(&mut self, record_bytes: usize) -> Result<(), CloseReason> {
        let plain_bytes = Opener::plain_bytes(record_bytes).ok_or(FrameError::Record)?;
        let sealed = &self.received[LENGTH_BYTES..LENGTH_BYTES + record_bytes];
        let opener = &mut self.opener;
        self.frames
            .receive(plain_bytes, |plain| opener.open(sealed, plain))
            .map_err(|_| CloseReason::Tampered)?;
        self.received.advance(LENGTH_BYTES + record_bytes);
        Ok(())
    }

    async fn handle(&mut self, frame: WireFrame) -> Result<(), CloseReason> {
        match frame.kind {
            SESSION_KINDS.. => self.deliver(frame).await,
            CLOSE if frame.codec.is_none() => Err(CloseReason::Peer(close_text(&frame.body))),
            ALIVE if frame.codec.is_none() && frame.body.is_empty() => Ok(()),
            ALIVE | CLOSE => Err(FrameError::Body.into()),
            kind => Err(FrameError::Kind(kind).into()),
        }
    }

    async fn deliver(&mut self, frame: WireFrame) -> Result<(), CloseReason> {
        // What is on the wire was counted as it was read.
        self.keep_to_the_pace(frame.raw_bytes.saturating_sub(frame.body.len())).await;
        let permit = Budget::take(&self.share, &self.shared.budget, frame.raw_bytes).await;
        // The wait was ours: it does not count as silence of the peer.
        self.heard = Instant::now();
        let WireFrame { kind, codec, raw_bytes, body } = frame;
        let body = match codec {
            None => body,
            Some(codec) if codec::is_slow(codec, raw_bytes.max(body.len())) => {
                tokio::task::spawn_blocking(move || codec::decompress(codec, &body, raw_bytes))
                    .await
                    .map_err(|_| CloseReason::Internal)??
            }
            Some(codec) => codec::decompress(codec, &body, raw_bytes)?,
        };
        count(&self.shared.counters.frames_in, 1);
        count(&self.shared.counters.raw_bytes_in, body.len());
        let frame = Frame { kind, body, compress: codec.is_some() };
        (self.shared.sink)(NetEvent::Frame { link: self.link, frame, permit });
        Ok(())
    }
}
