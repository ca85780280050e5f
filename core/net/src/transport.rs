//! The handle that the engine holds.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use entgldb_replica::id::LinkId;
use tokio::net::{TcpListener, TcpSocket};
use tokio::runtime::Handle;
use tokio::sync::watch;

use crate::config::{ConfigError, NetConfig};
use crate::event::{Frame, SendError};
use crate::handshake::LocalEnd;
use crate::identity::Identity;
use crate::secret::ClusterSecret;
use crate::shared::{Shared, Sink};
use crate::traffic::Traffic;
use crate::{dialer, listener};

/// Connections that wait in the system until they are taken. Not few: in a flood, who finds no room there is heard again
/// only after a second.
const BACKLOG: u32 = 1024;

/// The links of a node. Cheap to clone; every method may be called from any thread, inside a tokio runtime or not, and
/// none blocks. When the last clone is dropped, the links close as by [`Transport::shutdown`].
#[derive(Clone)]
pub struct Transport(Arc<Inner>);

struct Inner {
    shared: Arc<Shared>,
    handle: Handle,
    /// Every task holds a receiver until it ends, so "closed" means that all have ended.
    stop: watch::Sender<bool>,
    local_address: Option<SocketAddr>,
}

/// An address that is listened on, before anybody is answered: so whoever starts a node learns that the address can't be
/// had before anything else is touched. Connections that come meanwhile wait in the system.
#[derive(Debug)]
pub struct Bound(Option<(TcpListener, SocketAddr)>);

impl Bound {
    /// Listens on the address of a configuration, if it has one.
    ///
    /// # Errors
    /// When the configuration is impossible, or the address cannot be listened on.
    pub fn new(handle: &Handle, config: &NetConfig) -> Result<Self, StartError> {
        config.check()?;
        let Some(address) = config.listen else { return Ok(Self(None)) };
        let listen = |source| StartError::Listen { address, source };
        let listener = bind(handle, address).map_err(listen)?;
        let local_address = listener.local_addr().map_err(listen)?;
        Ok(Self(Some((listener, local_address))))
    }
}

impl Transport {
    /// Starts on the runtime of `handle`, which must have its I/O and time drivers enabled.
    ///
    /// The sink is called from the runtime's threads, from many at once but in order for each link. It must return at
    /// once, and may call the transport. The peer's keys are proven when it gets [`crate::NetEvent::LinkUp`]; whether
    /// this peer is wanted is for the owner to decide.
    ///
    /// # Errors
    /// When the configuration is impossible, or the address cannot be listened on. Nothing was started then.
    pub fn start(
        handle: &Handle,
        config: &NetConfig,
        secret: &ClusterSecret,
        identity: &Identity,
        sink: Sink,
    ) -> Result<Self, StartError> {
        let bound = Bound::new(handle, config)?;
        Ok(Self::start_bound(handle, config, bound, (secret, identity), sink))
    }

    /// Starts as [`Transport::start`] does, with what `bound` listens on for the same configuration.
    pub fn start_bound(
        handle: &Handle,
        config: &NetConfig,
        bound: Bound,
        (secret, identity): (&ClusterSecret, &Identity),
        sink: Sink,
    ) -> Self {
        let local = LocalEnd::new(config, secret, identity);
        let shared = Arc::new(Shared::new(config, local, sink));
        let (stop, stopped) = watch::channel(false);
        let mut local_address = None;
        if let Bound(Some((listener, address))) = bound {
            local_address = Some(address);
            handle.spawn(listener::run(Arc::clone(&shared), listener, stopped));
        }
        Self(Arc::new(Inner { shared, handle: handle.clone(), stop, local_address }))
    }

    /// Where this node listens, with the port that the system chose if it was asked to.
    #[must_use]
    pub fn local_address(&self) -> Option<SocketAddr> {
        self.0.local_address
    }

    /// Dials `host:port`, where host is a name, an IPv4 address or an IPv6 address in brackets; a name's addresses are
    /// tried in order. Ends in one `LinkUp` or one `DialFailed` with this target; after a shutdown in nothing.
    pub fn dial(&self, target: String) {
        // Subscribed first: a shutdown at the same time waits for this task, or is seen here.
        let stop = self.0.stop.subscribe();
        if !*stop.borrow() {
            self.0.handle.spawn(dialer::run(Arc::clone(&self.0.shared), target, stop));
        }
    }

    /// Queues a frame. Frames of one link arrive in order, each whole, at most once; whether it arrived at all only an
    /// answer tells.
    ///
    /// # Errors
    /// When it was not queued: the queue is full, the link is gone, or the frame cannot be sent to this peer.
    pub fn send(&self, link: LinkId, frame: Frame) -> Result<(), SendError> {
        self.0.shared.send(link, frame)
    }

    /// Closes a link: what is queued is still sent, then the peer is told the reason (its first 256 bytes), all for at
    /// most `timing.close`. `LinkDown` comes as for any other end. A link that is gone already is none to close.
    pub fn close(&self, link: LinkId, reason: &str) {
        self.0.shared.close(link, reason);
    }

    /// What went through since the start.
    #[must_use]
    pub fn traffic(&self) -> Traffic {
        self.0.shared.counters.snapshot()
    }

    /// Stops listening and dialling, closes all links, and waits until it is done, for little more than `timing.close`.
    /// The sink is not called again once this has returned. Outside of tokio: `handle.block_on(transport.shutdown())`.
    pub async fn shutdown(&self) {
        self.0.stop.send_replace(true);
        self.0.stop.closed().await;
    }
}

fn bind(handle: &Handle, address: SocketAddr) -> io::Result<TcpListener> {
    let _runtime = handle.enter();
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    // Elsewhere it would let two processes listen at once; on Unix it lets one that was started again listen at once.
    #[cfg(unix)]
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// Why a transport did not start. Nothing was started.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// The configuration is impossible.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The address cannot be listened on.
    #[error("cannot listen on {address}: {source}")]
    Listen {
        /// Which.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
}
