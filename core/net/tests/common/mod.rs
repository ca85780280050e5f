//! Nodes, and somebody in the middle, for the behaviour tests. Loopback only; every wait has an end.

#![allow(dead_code, unreachable_pub, reason = "each test file is a crate of its own and uses its own part")]

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use entgldb_net::{
    CloseReason, ClusterSecret, Codec, DialError, Frame, HandshakeError, Identity, InFlight, NetConfig,
    NetEvent, PeerInfo, SendError, Timing, Transport,
};
use entgldb_replica::id::LinkId;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Handle;
use tokio::sync::mpsc;

/// Longest wait for something that must happen.
pub const SOON: Duration = Duration::from_secs(15);

/// A transport and its events.
pub struct Node {
    pub net: Transport,
    pub identity: Identity,
    events: mpsc::UnboundedReceiver<NetEvent>,
}

/// A config that listens on loopback.
pub fn listening(name: &str) -> NetConfig {
    let mut config = NetConfig::new(name, rand64());
    config.listen = Some(([127, 0, 0, 1], 0).into());
    config
}

/// Deadlines short enough to wait for.
pub fn hasty() -> Timing {
    Timing {
        handshake: Duration::from_millis(600),
        handshake_every: Duration::from_millis(1),
        ping_after: Duration::from_millis(150),
        drop_after: Duration::from_millis(600),
        frame: Duration::from_millis(400),
        close: Duration::from_millis(300),
    }
}

pub fn rand64() -> u64 {
    let mut bytes = [0; 8];
    getrandom::fill(&mut bytes).unwrap();
    u64::from_ne_bytes(bytes)
}

impl Node {
    pub fn start(config: &NetConfig, secret: &ClusterSecret) -> Self {
        Self::start_as(config, secret, Identity::generate())
    }

    pub fn start_as(config: &NetConfig, secret: &ClusterSecret, identity: Identity) -> Self {
        let (sender, events) = mpsc::unbounded_channel();
        let sink = Arc::new(move |event| drop(sender.send(event)));
        let net = Transport::start(&Handle::current(), config, secret, &identity, sink).unwrap();
        Self { net, identity, events }
    }

    pub fn address(&self) -> SocketAddr {
        self.net.local_address().unwrap()
    }

    pub fn dial(&self, address: SocketAddr) {
        self.net.dial(address.to_string());
    }

    pub async fn event(&mut self) -> NetEvent {
        tokio::time::timeout(SOON, self.events.recv()).await.expect("an event in time").expect("a live sink")
    }

    /// What has already happened and was not looked at.
    pub fn event_now(&mut self) -> Option<NetEvent> {
        self.events.try_recv().ok()
    }

    /// Whatever happens within this time.
    pub async fn events_within(&mut self, time: Duration) -> Vec<NetEvent> {
        let mut all = Vec::new();
        let end = tokio::time::Instant::now() + time;
        while let Ok(Some(event)) = tokio::time::timeout_at(end, self.events.recv()).await {
            all.push(event);
        }
        all
    }

    pub async fn link_up(&mut self) -> (LinkId, PeerInfo) {
        loop {
            match self.event().await {
                NetEvent::LinkUp { link, peer, .. } => return (link, peer),
                NetEvent::Refused { .. } => {}
                other => panic!("expected a link, got {other:?}"),
            }
        }
    }

    /// Frames are dropped on the way to it.
    pub async fn link_down(&mut self) -> CloseReason {
        loop {
            match self.event().await {
                NetEvent::LinkDown { reason, .. } => return reason,
                NetEvent::Frame { .. } | NetEvent::Refused { .. } => {}
                other => panic!("expected the end of a link, got {other:?}"),
            }
        }
    }

    pub async fn frame(&mut self) -> Frame {
        self.frame_and_permit().await.0
    }

    pub async fn frame_and_permit(&mut self) -> (Frame, InFlight) {
        match self.event().await {
            NetEvent::Frame { frame, permit, .. } => (frame, permit),
            other => panic!("expected a frame, got {other:?}"),
        }
    }

    pub async fn dial_failed(&mut self) -> DialError {
        match self.event().await {
            NetEvent::DialFailed { reason, .. } => reason,
            other => panic!("expected a failed dial, got {other:?}"),
        }
    }

    pub async fn refused(&mut self) -> HandshakeError {
        match self.event().await {
            NetEvent::Refused { reason, .. } => reason,
            other => panic!("expected a refusal, got {other:?}"),
        }
    }

    /// Sends, waiting while the queue is full.
    pub async fn send(&self, link: LinkId, frame: Frame) {
        let end = tokio::time::Instant::now() + SOON;
        while let Err(error) = self.net.send(link, frame.clone()) {
            assert!(error == SendError::Full && tokio::time::Instant::now() < end, "{error}");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
}

/// The 32 bytes that the text form stands for.
pub fn secret_bytes(secret: &ClusterSecret) -> Vec<u8> {
    let digits = secret.to_text().trim_start_matches("entgldb1-").replace('-', "").to_uppercase();
    data_encoding::BASE32_NOPAD.decode(digits.as_bytes()).unwrap()[..32].to_vec()
}

pub fn plain(kind: u64, body: impl Into<Bytes>) -> Frame {
    Frame { kind, body: body.into(), compress: false }
}

pub fn compressible(kind: u64, body: impl Into<Bytes>) -> Frame {
    Frame { kind, body: body.into(), compress: true }
}

/// Two nodes of one cluster with a link between them: (responder, its link), (initiator, its link).
pub async fn pair() -> ((Node, LinkId), (Node, LinkId)) {
    pair_with(&listening("responder"), &NetConfig::new("initiator", rand64())).await
}

pub async fn pair_with(responder: &NetConfig, initiator: &NetConfig) -> ((Node, LinkId), (Node, LinkId)) {
    let secret = ClusterSecret::generate();
    let mut responder = Node::start(responder, &secret);
    let mut initiator = Node::start(initiator, &secret);
    initiator.dial(responder.address());
    let (from, _) = initiator.link_up().await;
    let (to, _) = responder.link_up().await;
    ((responder, to), (initiator, from))
}

/// Bytes that no codec makes smaller.
pub fn noise(bytes: usize) -> Bytes {
    let mut body = vec![0; bytes];
    getrandom::fill(&mut body).unwrap();
    body.into()
}

/// Documents, roughly.
pub fn documents(bytes: usize) -> Bytes {
    let mut body = String::with_capacity(bytes + 100);
    let mut number = 0u32;
    while body.len() < bytes {
        number += 1;
        body.push_str(&format!(
            "{{\"id\":{number},\"name\":\"article {}\",\"price\":{}.99}}",
            number * 7919 % 1000,
            number % 90
        ));
    }
    body.truncate(bytes);
    body.into()
}

pub fn only(codec: Codec) -> Vec<Codec> {
    vec![codec]
}

/// The direction of a message.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Way {
    /// From the one who dials.
    In,
    /// To the one who dials.
    Out,
}

/// What somebody in the middle does with a message.
pub enum Deed {
    /// Pass these on, each with its length before it.
    Pass(Vec<Vec<u8>>),
    /// Pass these bytes on as they are, then close both sides.
    Cut(Vec<u8>),
    /// Pass these bytes on as they are, then nothing more in this direction, but keep the connection open.
    Hold(Vec<u8>),
}

/// Does what it likes with the n-th message of a direction. Handshake messages and records have the same framing.
pub type Mischief = Arc<dyn Fn(Way, usize, Vec<u8>) -> Deed + Send + Sync>;

/// Listens and leads every connection to `target`, through the mischief.
pub async fn relay(target: SocketAddr, mischief: Mischief) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((near, _)) = listener.accept().await {
            let mischief = Arc::clone(&mischief);
            tokio::spawn(async move {
                let far = TcpStream::connect(target).await.unwrap();
                near.set_nodelay(true).unwrap();
                far.set_nodelay(true).unwrap();
                let (near_read, near_write) = near.into_split();
                let (far_read, far_write) = far.into_split();
                let backwards = Arc::clone(&mischief);
                tokio::select! {
                    () = carry(Way::In, near_read, far_write, mischief) => {}
                    () = carry(Way::Out, far_read, near_write, backwards) => {}
                }
            });
        }
    });
    address
}

/// Ends when one side closed, after what came before was passed on.
async fn carry(way: Way, mut from: OwnedReadHalf, mut to: OwnedWriteHalf, mischief: Mischief) {
    for number in 0.. {
        let Ok(length) = from.read_u16().await else { return };
        let mut message = vec![0; length.into()];
        if from.read_exact(&mut message).await.is_err() {
            return;
        }
        match mischief(way, number, message) {
            Deed::Pass(messages) => {
                for message in messages {
                    let length = u16::try_from(message.len()).unwrap();
                    let wire = [&length.to_be_bytes()[..], &message].concat();
                    if to.write_all(&wire).await.is_err() {
                        return;
                    }
                }
            }
            Deed::Cut(bytes) => {
                let _ = to.write_all(&bytes).await;
                let _ = to.shutdown().await;
                tokio::time::sleep(Duration::from_millis(50)).await;
                return;
            }
            Deed::Hold(bytes) => {
                let _ = to.write_all(&bytes).await;
                std::future::pending::<()>().await;
            }
        }
    }
}

/// Reads until the other side closes; what came.
pub async fn read_to_close(stream: &mut TcpStream) -> Vec<u8> {
    let mut all = Vec::new();
    // A reset is a close without a word too.
    let _ = tokio::time::timeout(SOON, stream.read_to_end(&mut all)).await.expect("the other side closes");
    all
}
