//! The sending half of a link.
//!
//! A frame leaves as soon as the writer is free: there is no timer and no waiting for more. What has queued up while it
//! was busy goes out together, in as few records and system calls as it fits into. When there is nothing to say for
//! `PING_AFTER_MS`, the writer says just that, unasked: so the peer hears us even while our own reader waits for the
//! engine, or while what the peer sends us keeps its line busy.

use std::pin::pin;
use std::sync::Arc;

use entgldb_replica::limits::COMPRESS_FROM_BYTES;
use tokio::io::AsyncWriteExt;
use tokio::net::tcp::OwnedWriteHalf;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep_until, timeout};

use crate::codec;
use crate::config::{Codec, Timing};
use crate::event::{CloseReason, Frame};
use crate::frame::{ALIVE, CLOSE, put_header};
use crate::handshake::close_body;
use crate::record::{PLAIN_BYTES_MAX, Sealer};
use crate::traffic::{Counters, count};

/// Encrypted bytes that are gathered before they are handed to the operating system.
const WRITE_BYTES: usize = 128 << 10;
/// Larger buffers are given back when a link falls idle.
const IDLE_BUFFER_BYTES: usize = 16 << 10;

pub(crate) struct Writer {
    stream: OwnedWriteHalf,
    sealer: Sealer,
    codec: Option<Codec>,
    timing: Timing,
    counters: Arc<Counters>,
    /// Begins of the next record.
    plain: Vec<u8>,
    /// Records that are not written yet.
    wire: Vec<u8>,
    /// When something was written last.
    sent: Instant,
}

impl Writer {
    pub(crate) fn new(
        stream: OwnedWriteHalf,
        sealer: Sealer,
        codec: Option<Codec>,
        timing: Timing,
        counters: Arc<Counters>,
    ) -> Self {
        Self {
            stream,
            sealer,
            codec,
            timing,
            counters,
            plain: Vec::new(),
            wire: Vec::new(),
            sent: Instant::now(),
        }
    }

    /// Sends until the queue's other end is gone and the queue is empty; then says the parting word, if there is one.
    ///
    /// # Errors
    /// When the peer takes nothing any more, or the socket fails.
    pub(crate) async fn run(
        mut self,
        mut queue: mpsc::Receiver<Frame>,
        parting: oneshot::Receiver<String>,
    ) -> Result<(), CloseReason> {
        // Set again only when it fires: most of the time nothing depends on it.
        let mut quiet = pin!(sleep_until(self.sent + self.timing.ping_after));
        loop {
            tokio::select! {
                biased;
                frame = queue.recv() => match frame {
                    Some(frame) => self.put(frame).await?,
                    None => break,
                },
                () = &mut quiet => {
                    if self.sent.elapsed() >= self.timing.ping_after {
                        self.put_plain(ALIVE, &[]).await?;
                        self.flush().await?;
                    }
                    quiet.as_mut().reset(self.sent + self.timing.ping_after);
                }
            }
            while let Ok(frame) = queue.try_recv() {
                self.put(frame).await?;
            }
            self.flush().await?;
            if queue.is_empty() {
                self.plain.shrink_to(IDLE_BUFFER_BYTES);
                self.wire.shrink_to(IDLE_BUFFER_BYTES);
            }
        }
        if let Ok(reason) = parting.await {
            self.put_plain(CLOSE, close_body(&reason)).await?;
            self.flush().await?;
        }
        // The peer may be gone already; then there is nobody to tell that nothing follows.
        let _ = self.stream.shutdown().await;
        Ok(())
    }

    async fn put(&mut self, frame: Frame) -> Result<(), CloseReason> {
        count(&self.counters.frames_out, 1);
        count(&self.counters.raw_bytes_out, frame.body.len());
        let compressed = match self.codec {
            Some(codec) if frame.compress && frame.body.len() >= COMPRESS_FROM_BYTES => {
                self.compress(codec, &frame).await?
            }
            _ => None,
        };
        match compressed {
            Some((codec, body)) => self.put_body(frame.kind, Some(codec), frame.body.len(), &body).await,
            None => self.put_plain(frame.kind, &frame.body).await,
        }
    }

    async fn compress(
        &mut self,
        codec: Codec,
        frame: &Frame,
    ) -> Result<Option<(Codec, Vec<u8>)>, CloseReason> {
        if !codec::is_slow(codec, frame.body.len()) {
            return Ok(codec::compress_for_peer(codec, &frame.body).map(|body| (codec, body)));
        }
        // What is ready must not wait for what takes long.
        self.flush().await?;
        let body = frame.body.clone();
        let compressed = tokio::task::spawn_blocking(move || codec::compress_for_peer(codec, &body)).await;
        Ok(compressed.map_err(|_| CloseReason::Internal)?.map(|body| (codec, body)))
    }

    async fn put_plain(&mut self, kind: u64, body: &[u8]) -> Result<(), CloseReason> {
        self.put_body(kind, None, body.len(), body).await
    }

    async fn put_body(
        &mut self,
        kind: u64,
        codec: Option<Codec>,
        raw_bytes: usize,
        body: &[u8],
    ) -> Result<(), CloseReason> {
        // The header may reach past the largest record here; the next append seals in time.
        put_header(&mut self.plain, kind, codec, raw_bytes, body.len());
        self.append(body).await
    }

    async fn append(&mut self, mut bytes: &[u8]) -> Result<(), CloseReason> {
        while self.plain.len() + bytes.len() >= PLAIN_BYTES_MAX {
            if self.plain.is_empty() {
                let (record, rest) = bytes.split_at(PLAIN_BYTES_MAX);
                self.sealer.seal(record, &mut self.wire);
                bytes = rest;
            } else {
                let room = PLAIN_BYTES_MAX.saturating_sub(self.plain.len());
                let (fill, rest) = bytes.split_at(room);
                self.plain.extend_from_slice(fill);
                self.sealer.seal(&self.plain[..PLAIN_BYTES_MAX], &mut self.wire);
                self.plain.drain(..PLAIN_BYTES_MAX);
                bytes = rest;
            }
            if self.wire.len() >= WRITE_BYTES {
                self.write().await?;
            }
        }
        self.plain.extend_from_slice(bytes);
        Ok(())
    }

    async fn flush(&mut self) -> Result<(), CloseReason> {
        if !self.plain.is_empty() {
            self.sealer.seal(&self.plain, &mut self.wire);
            self.plain.clear();
        }
        self.write().await
    }

    async fn write(&mut self) -> Result<(), CloseReason> {
        let mut rest = self.wire.as_slice();
        while !rest.is_empty() {
            let written = timeout(self.timing.drop_after, self.stream.write(rest)).await;
            match written.map_err(|_| CloseReason::Stalled)? {
                Ok(0) => return Err(CloseReason::Io(std::io::ErrorKind::WriteZero)),
                Ok(bytes) => {
                    count(&self.counters.wire_bytes_out, bytes);
                    rest = &rest[bytes..];
                    self.sent = Instant::now();
                }
                Err(error) => return Err(CloseReason::Io(error.kind())),
            }
        }
        self.wire.clear();
        Ok(())
    }
}
