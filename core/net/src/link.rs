//! The life of one authenticated link: up, frames, down, and a parting word where one can be said.

use std::net::SocketAddr;
use std::sync::Arc;

use entgldb_replica::limits::SEND_QUEUE_FRAMES_MAX;
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot, watch};
use tokio::time::timeout;

use crate::event::{CloseReason, NetEvent};
use crate::handshake::Established;
use crate::reader::Reader;
use crate::shared::{LinkHandle, Shared};
use crate::writer::Writer;

/// A connection whose handshake is done on both sides.
pub(crate) struct Connection {
    pub(crate) stream: TcpStream,
    pub(crate) address: SocketAddr,
    pub(crate) established: Established,
    /// What was dialled, if we did.
    pub(crate) target: Option<String>,
    /// The place that it takes among the authenticated links.
    pub(crate) session: OwnedSemaphorePermit,
}

/// Runs a link to its end. Whoever awaits this holds `stop` longer than anything here lives.
pub(crate) async fn run(shared: &Arc<Shared>, connection: Connection, stop: &mut watch::Receiver<bool>) {
    let Connection { stream, address, established, target, session: _session } = connection;
    let Established { peer, sealer, opener, codec } = established;
    let (queue, queued) = mpsc::channel(SEND_QUEUE_FRAMES_MAX);
    let (close, mut close_asked) = oneshot::channel();
    let (parting, parting_word) = oneshot::channel();
    let handle = LinkHandle { queue, close, peer_frame_bytes_max: peer.frame_bytes_max };
    let guard = shared.register(handle);
    let link = guard.link;
    tracing::debug!(link = link.0, peer = %peer.node.short(), %address, "link up");
    (shared.sink)(NetEvent::LinkUp { link, peer, address, we_dialled: target.is_some(), target });

    let (read_half, write_half) = stream.into_split();
    let counters = Arc::clone(&shared.counters);
    let writer = Writer::new(write_half, sealer, codec, shared.timing, counters);
    let mut writer = tokio::spawn(writer.run(queued, parting_word));
    let mut reader = Reader::new(link, Arc::clone(shared), read_half, opener);
    let reason = tokio::select! {
        reason = reader.run() => reason,
        asked = &mut close_asked => asked.map_or(CloseReason::Internal, CloseReason::Local),
        ended = &mut writer => match ended {
            Ok(Err(reason)) => reason,
            _ => CloseReason::Internal,
        },
        _ = stop.wait_for(|stop| *stop) => CloseReason::Shutdown,
    };
    let word = reason.parting_word();
    guard.down(reason);
    if let Some(word) = word {
        // If the writer has just failed, there is nobody to say it to.
        let _ = parting.send(word);
        let farewell = async {
            let _ = (&mut writer).await;
            reader.drain().await;
        };
        let _ = timeout(shared.timing.close, farewell).await;
    }
    writer.abort();
}
