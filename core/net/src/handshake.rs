//! The handshake: `Noise_XXpsk3_25519_AESGCM_SHA256`, three messages and one record.
//!
//! ```text
//! initiator                                   responder
//! 1  e                              ------>   fails here without the cluster secret: closed, not one byte answered
//! 2                                 <------   e, ee, s, es, introduction
//! 3  s, se, psk, introduction       ------>   the responder knows the initiator: the link is up
//!                                   <------   first record: ready, or close with a reason
//!    the link is up
//! ```
//!
//! Each message has a big-endian `u16` length before it. No data leaves before both sides are authenticated: the
//! initiator sends nothing after message 3 until it has the responder's first record.

use std::io;

use snow::{Builder, HandshakeState};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use entgldb_replica::limits::PRE_AUTH_BYTES_MAX;

use crate::config::{CLOSE_TEXT_BYTES_MAX, Codec, NetConfig};
use crate::event::PeerInfo;
use crate::frame::{CLOSE, FrameDecoder, FrameError, READY, put_header};
use crate::identity::Identity;
use crate::introduction::{Introduced, IntroductionError, Place, Role, SelfDescription, believe};
use crate::record::{self, Opener, Sealer};
use crate::recordings::{Ephemeral, Recordings};
use crate::schedule::HandshakeKeys;
use crate::secret::ClusterSecret;

const PATTERN: &str = "Noise_XXpsk3_25519_AESGCM_SHA256";
/// An ephemeral key and the tag of an empty payload.
const MESSAGE_1_BYTES: usize = 48;
const HASH_BYTES: usize = 32;
const LENGTH_BYTES: usize = 2;

/// Why a handshake did not lead to a link. Nothing of the other side was delivered.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum HandshakeError {
    /// A message does not authenticate: the other side has another cluster secret or another wire version, is no
    /// EntglDb node at all, or somebody changed the message on its way.
    #[error("a handshake message does not authenticate: another cluster secret, or not an EntglDb node")]
    Stranger,
    /// The other side closed the connection without a word, which is how strangers are treated.
    #[error("the other side closed without a word: it has another cluster secret, or is not an EntglDb node")]
    Rejected,
    /// The other side played a first message that was here before: a recording.
    #[error("the first message was here before: somebody plays a recording")]
    Replayed,
    /// Not done within `HANDSHAKE_MS`.
    #[error("the handshake was not done in time (HANDSHAKE_MS)")]
    Timeout,
    /// A message is longer than `PRE_AUTH_BYTES_MAX`.
    #[error("a handshake message of {0} bytes is over the limit (PRE_AUTH_BYTES_MAX)")]
    TooLong(usize),
    /// The other side has the cluster secret, but does not prove who it is.
    #[error("the introduction of the other side is not accepted: {0}")]
    Introduction(#[from] IntroductionError),
    /// The other side authenticated, then broke the protocol in its first record.
    #[error("the other side broke the protocol: {0}")]
    Protocol(#[from] FrameError),
    /// We reached ourselves.
    #[error("this address leads back to this very node")]
    SelfConnection,
    /// Another process runs with our identity: a copied data folder. One of the two must get an identity of its own.
    #[error("another process runs with this node's identity: one of the two was copied from the other")]
    IdentityCloned,
    /// The other side knows us and does not want the link now.
    #[error("the other side refused: {0}")]
    RefusedByPeer(String),
    /// We have `SESSIONS_MAX` links already.
    #[error("there are as many links as allowed (SESSIONS_MAX)")]
    SessionsFull,
    /// Newer connections needed the place (`PRE_AUTH_MAX`, `PRE_AUTH_PER_ADDRESS_MAX`), and this was the oldest.
    #[error("gave way to newer connections (PRE_AUTH_MAX, PRE_AUTH_PER_ADDRESS_MAX)")]
    PushedOut,
    /// Its address has used up its handshakes (`HANDSHAKES_PER_SECOND`), and as many wait as may.
    #[error("too many handshakes from this address (HANDSHAKES_PER_SECOND)")]
    TooMany,
    /// The operating system's socket failed.
    #[error("the connection failed: {0}")]
    Io(io::ErrorKind),
}

impl From<io::Error> for HandshakeError {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => {
                Self::Rejected
            }
            kind => Self::Io(kind),
        }
    }
}

/// What this node brings to every handshake.
pub(crate) struct LocalEnd {
    keys: HandshakeKeys,
    identity: Identity,
    description: SelfDescription,
    info: PeerInfo,
    codecs: Vec<Codec>,
    recordings: Recordings,
}

/// An authenticated connection.
pub(crate) struct Established {
    pub(crate) peer: PeerInfo,
    pub(crate) sealer: Sealer,
    pub(crate) opener: Opener,
    /// How we compress what we send.
    pub(crate) codec: Option<Codec>,
}

impl LocalEnd {
    pub(crate) fn new(config: &NetConfig, secret: &ClusterSecret, identity: &Identity) -> Self {
        let info = PeerInfo {
            node: identity.node_id(),
            public_key: identity.public_key(),
            name: config.name.clone(),
            instance: config.instance,
            frame_bytes_max: config.frame_bytes_max,
        };
        let codecs = config.codecs_with_brotli();
        let description = SelfDescription::new(&info, &codecs);
        Self {
            keys: HandshakeKeys::derive(secret),
            identity: identity.clone(),
            description,
            info,
            codecs,
            recordings: Recordings::default(),
        }
    }

    pub(crate) fn decoder(&self) -> FrameDecoder {
        FrameDecoder::new(self.info.frame_bytes_max, self.codecs.clone())
    }

    /// Plays the initiator. Returns once the responder has accepted us.
    pub(crate) async fn initiate(&self, stream: &mut TcpStream) -> Result<Established, HandshakeError> {
        let mut noise = self.noise(Role::Initiator);
        write_message(stream, &mut noise, &[]).await?;
        let introduced = self.read_introduction(stream, &mut noise, Role::Responder).await?;
        self.write_introduction(stream, &mut noise, Role::Initiator).await?;
        let mut established = self.establish(noise, introduced);
        self.await_acceptance(stream, &mut established.opener).await?;
        Ok(established)
    }

    /// Plays the responder. The initiator waits until [`accept`] or [`refuse`] is called. `turn` is awaited before the
    /// costly part begins, by those who have got as far as that.
    pub(crate) async fn respond(
        &self,
        stream: &mut TcpStream,
        turn: impl Future<Output = Result<(), HandshakeError>>,
    ) -> Result<Established, HandshakeError> {
        let message = read_message(stream).await?;
        if message.len() != MESSAGE_1_BYTES {
            return Err(HandshakeError::Stranger);
        }
        let mut noise = self.noise(Role::Responder);
        noise.read_message(&message, &mut []).map_err(|_| HandshakeError::Stranger)?;
        let ephemeral =
            message.first_chunk::<{ size_of::<Ephemeral>() }>().ok_or(HandshakeError::Stranger)?;
        if !self.recordings.is_new(*ephemeral) {
            return Err(HandshakeError::Replayed);
        }
        turn.await?;
        self.write_introduction(stream, &mut noise, Role::Responder).await?;
        let introduced = self.read_introduction(stream, &mut noise, Role::Initiator).await?;
        Ok(self.establish(noise, introduced))
    }

    fn noise(&self, role: Role) -> HandshakeState {
        let build = || {
            let builder = Builder::new(PATTERN.parse()?)
                .local_private_key(self.identity.noise_private())?
                .prologue(&self.keys.prologue)?
                .psk(3, &self.keys.psk)?;
            match role {
                Role::Initiator => builder.build_initiator(),
                Role::Responder => builder.build_responder(),
            }
        };
        build().expect("snow is built with this pattern, and the keys have their lengths")
    }

    async fn write_introduction(
        &self,
        stream: &mut TcpStream,
        noise: &mut HandshakeState,
        role: Role,
    ) -> Result<(), HandshakeError> {
        let place = Place {
            role,
            noise_static: self.identity.noise_public(),
            handshake_hash: noise.get_handshake_hash(),
        };
        let payload = self.description.introduce(self.identity.signing_key(), place);
        write_message(stream, noise, &payload).await
    }

    async fn read_introduction(
        &self,
        stream: &mut TcpStream,
        noise: &mut HandshakeState,
        their_role: Role,
    ) -> Result<Introduced, HandshakeError> {
        let message = read_message(stream).await?;
        let mut hash = [0; HASH_BYTES];
        hash.copy_from_slice(noise.get_handshake_hash());
        let mut payload = [0; PRE_AUTH_BYTES_MAX];
        let bytes = noise.read_message(&message, &mut payload).map_err(|_| HandshakeError::Stranger)?;
        let noise_static = noise.get_remote_static().ok_or(HandshakeError::Stranger)?;
        let place = Place { role: their_role, noise_static, handshake_hash: &hash };
        let introduced = believe(&payload[..bytes], place)?;
        if introduced.peer.node != self.info.node {
            Ok(introduced)
        } else if introduced.peer.instance == self.info.instance {
            Err(HandshakeError::SelfConnection)
        } else {
            Err(HandshakeError::IdentityCloned)
        }
    }

    fn establish(&self, noise: HandshakeState, introduced: Introduced) -> Established {
        let state = noise.into_stateless_transport_mode().expect("all three messages are done");
        let (sealer, opener) = record::split(state);
        let codec = Codec::negotiate(&self.codecs, &introduced.codecs);
        Established { peer: introduced.peer, sealer, opener, codec }
    }

    /// Reads the responder's first record, which holds exactly one frame.
    async fn await_acceptance(
        &self,
        stream: &mut TcpStream,
        opener: &mut Opener,
    ) -> Result<(), HandshakeError> {
        let sealed = read_message(stream).await?;
        let plain_bytes = Opener::plain_bytes(sealed.len()).ok_or(HandshakeError::Stranger)?;
        let mut frames = self.decoder();
        frames
            .receive(plain_bytes, |plain| opener.open(&sealed, plain))
            .map_err(|_| HandshakeError::Stranger)?;
        let frame = frames.next()?.ok_or(FrameError::Record)?;
        match frame.kind {
            _ if frames.is_mid_frame() || frame.codec.is_some() => Err(FrameError::Record.into()),
            READY => Ok(()),
            CLOSE => Err(HandshakeError::RefusedByPeer(close_text(&frame.body))),
            kind => Err(FrameError::Kind(kind).into()),
        }
    }
}

/// Tells the initiator that the link is up.
pub(crate) async fn accept(stream: &mut TcpStream, sealer: &mut Sealer) -> Result<(), HandshakeError> {
    first_record(stream, sealer, READY, &[]).await
}

/// Tells the initiator why there is no link.
pub(crate) async fn refuse(
    stream: &mut TcpStream,
    sealer: &mut Sealer,
    reason: &str,
) -> Result<(), HandshakeError> {
    first_record(stream, sealer, CLOSE, close_body(reason)).await?;
    Ok(stream.shutdown().await?)
}

async fn first_record(
    stream: &mut TcpStream,
    sealer: &mut Sealer,
    kind: u64,
    body: &[u8],
) -> Result<(), HandshakeError> {
    let mut plain = Vec::new();
    put_header(&mut plain, kind, None, body.len(), body.len());
    plain.extend_from_slice(body);
    let mut wire = Vec::new();
    sealer.seal(&plain, &mut wire);
    Ok(stream.write_all(&wire).await?)
}

/// The body of a close frame: as much of the reason as fits, cut between characters.
pub(crate) fn close_body(reason: &str) -> &[u8] {
    let mut end = reason.len().min(CLOSE_TEXT_BYTES_MAX);
    while !reason.is_char_boundary(end) {
        end -= 1;
    }
    &reason.as_bytes()[..end]
}

/// The reason in a close frame, fit to be shown: a peer's text may hold anything.
pub(crate) fn close_text(body: &[u8]) -> String {
    let body = &body[..body.len().min(CLOSE_TEXT_BYTES_MAX)];
    String::from_utf8_lossy(body).chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

async fn read_message(stream: &mut TcpStream) -> Result<Vec<u8>, HandshakeError> {
    let mut length = [0; LENGTH_BYTES];
    stream.read_exact(&mut length).await?;
    let length = usize::from(u16::from_be_bytes(length));
    if length > PRE_AUTH_BYTES_MAX {
        return Err(HandshakeError::TooLong(length));
    }
    let mut message = vec![0; length];
    stream.read_exact(&mut message).await?;
    Ok(message)
}

async fn write_message(
    stream: &mut TcpStream,
    noise: &mut HandshakeState,
    payload: &[u8],
) -> Result<(), HandshakeError> {
    let mut wire = [0; LENGTH_BYTES + PRE_AUTH_BYTES_MAX];
    let bytes = noise
        .write_message(payload, &mut wire[LENGTH_BYTES..])
        .expect("our introduction fits PRE_AUTH_BYTES_MAX, and it is our turn");
    let length = u16::try_from(bytes).expect("at most PRE_AUTH_BYTES_MAX");
    wire[..LENGTH_BYTES].copy_from_slice(&length.to_be_bytes());
    Ok(stream.write_all(&wire[..LENGTH_BYTES + bytes]).await?)
}

/// Ways to play the handshake wrongly, for the tests of those who must notice.
#[cfg(test)]
impl LocalEnd {
    /// Introduces itself as somebody else, whose signing key it does not have.
    pub(crate) fn pretend_to_be(&mut self, other: &Identity) {
        let info = PeerInfo { node: other.node_id(), public_key: other.public_key(), ..self.info.clone() };
        self.description = SelfDescription::new(&info, &self.codecs);
    }

    pub(crate) fn forget_the_pre_shared_key(&mut self) {
        self.keys.psk.fill(0);
    }
}
