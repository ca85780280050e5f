//! Ways into the parts of this crate that read what others wrote, for fuzzers and for tests with misbehaving peers. No
//! part of the public interface: it may change at any time.

use std::net::SocketAddr;

use bytes::Bytes;
use ed25519_dalek::SigningKey;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::codec;
use crate::config::{Codec, NetConfig};
use crate::event::PeerInfo;
use crate::frame::{self, FrameDecoder, FrameError};
use crate::handshake::{self, Established, HandshakeError, LocalEnd};
use crate::identity::Identity;
use crate::introduction::{IntroductionError, Place, Role, SelfDescription, believe};
use crate::record::{LENGTH_BYTES, Opener, PLAIN_BYTES_MAX, Sealer};
use crate::secret::ClusterSecret;

/// A frame as it was on the wire.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RawFrame {
    /// Its type.
    pub kind: u64,
    /// How its body is compressed.
    pub codec: Option<Codec>,
    /// Bytes of the body once decompressed, as declared.
    pub raw_bytes: usize,
    /// The body as it came.
    pub body: Bytes,
}

/// Cuts a stream of bytes into frames, as a link does behind its encryption.
pub struct Frames(FrameDecoder);

impl Frames {
    /// For bodies up to `frame_bytes_max` bytes, plain or in one of the codecs.
    #[must_use]
    pub fn new(frame_bytes_max: usize, codecs: &[Codec]) -> Self {
        Self(FrameDecoder::new(frame_bytes_max, codecs.to_vec()))
    }

    /// Takes bytes in.
    pub fn receive(&mut self, bytes: &[u8]) {
        let copied: Result<(), std::convert::Infallible> = self.0.receive(bytes.len(), |room| {
            room.copy_from_slice(bytes);
            Ok(())
        });
        let Ok(()) = copied;
    }

    /// The next complete frame.
    ///
    /// # Errors
    /// When the bytes break a rule.
    pub fn next_frame(&mut self) -> Result<Option<RawFrame>, FrameError> {
        Ok(self.0.next()?.map(|frame| RawFrame {
            kind: frame.kind,
            codec: frame.codec,
            raw_bytes: frame.raw_bytes,
            body: frame.body,
        }))
    }

    /// Whether a frame has begun and is not complete.
    #[must_use]
    pub fn is_mid_frame(&self) -> bool {
        self.0.is_mid_frame()
    }
}

/// The bytes of a frame with this body, which is sent as it is.
#[must_use]
pub fn frame(kind: u64, codec: Option<Codec>, raw_bytes: usize, body: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    frame::put_header(&mut out, kind, codec, raw_bytes, body.len());
    out.extend_from_slice(body);
    out
}

/// Compresses a body; `None` if that does not make it smaller.
#[must_use]
pub fn compress(codec: Codec, body: &[u8]) -> Option<Vec<u8>> {
    codec::compress(codec, body)
}

/// Decompresses a body to exactly `raw_bytes`.
///
/// # Errors
/// When it does not decompress to that.
pub fn decompress(codec: Codec, body: &[u8], raw_bytes: usize) -> Result<Bytes, FrameError> {
    codec::decompress(codec, body, raw_bytes)
}

/// The reason in a close frame, as it is shown to people.
#[must_use]
pub fn close_text(body: &[u8]) -> String {
    handshake::close_text(body)
}

fn place<'a>(is_initiator: bool, noise_static: &'a [u8; 32], handshake_hash: &'a [u8; 32]) -> Place<'a> {
    let role = if is_initiator { Role::Initiator } else { Role::Responder };
    Place { role, noise_static, handshake_hash }
}

/// Reads and verifies an introduction made at this place of a handshake.
///
/// # Errors
/// When it is not believed.
pub fn believe_introduction(
    payload: &[u8],
    is_initiator: bool,
    noise_static: &[u8; 32],
    handshake_hash: &[u8; 32],
) -> Result<(PeerInfo, Vec<Codec>), IntroductionError> {
    let introduced = believe(payload, place(is_initiator, noise_static, handshake_hash))?;
    Ok((introduced.peer, introduced.codecs))
}

/// An introduction with any hello, rightly signed for this place.
#[must_use]
pub fn sign_introduction(
    hello: Vec<u8>,
    signing_key: &[u8; 32],
    is_initiator: bool,
    noise_static: &[u8; 32],
    handshake_hash: &[u8; 32],
) -> Vec<u8> {
    let place = place(is_initiator, noise_static, handshake_hash);
    SelfDescription { encoded_hello: hello }.introduce(&SigningKey::from_bytes(signing_key), place)
}

/// The hello that a node of this configuration makes.
#[must_use]
pub fn hello(config: &NetConfig, identity: &Identity) -> Vec<u8> {
    let info = PeerInfo {
        node: identity.node_id(),
        public_key: identity.public_key(),
        name: config.name.clone(),
        instance: config.instance,
        frame_bytes_max: config.frame_bytes_max,
    };
    SelfDescription::new(&info, &config.codecs_with_brotli()).encoded_hello
}

/// A member of the cluster that is played byte by byte.
pub struct Member {
    /// The connection.
    pub stream: TcpStream,
    sealer: Sealer,
    opener: Opener,
}

impl Member {
    /// Connects and passes the handshake as a good node does.
    ///
    /// # Errors
    /// When the other side does not accept it.
    pub async fn connect(
        address: SocketAddr,
        config: &NetConfig,
        secret: &ClusterSecret,
        identity: &Identity,
    ) -> Result<Self, HandshakeError> {
        let mut stream = TcpStream::connect(address).await?;
        let local = LocalEnd::new(config, secret, identity);
        let Established { sealer, opener, .. } = local.initiate(&mut stream).await?;
        Ok(Self { stream, sealer, opener })
    }

    /// The records that carry these bytes.
    pub fn seal(&mut self, plain: &[u8]) -> Vec<u8> {
        let mut wire = Vec::new();
        for piece in plain.chunks(PLAIN_BYTES_MAX) {
            self.sealer.seal(piece, &mut wire);
        }
        wire
    }

    /// Seals these bytes and sends them.
    ///
    /// # Errors
    /// When the connection is gone.
    pub async fn send(&mut self, plain: &[u8]) -> std::io::Result<()> {
        let wire = self.seal(plain);
        self.stream.write_all(&wire).await
    }

    /// The plaintext of the next record; `None` when the stream has ended, or does not open.
    pub async fn receive(&mut self) -> Option<Vec<u8>> {
        let mut length = [0; LENGTH_BYTES];
        self.stream.read_exact(&mut length).await.ok()?;
        let mut sealed = vec![0; u16::from_be_bytes(length).into()];
        self.stream.read_exact(&mut sealed).await.ok()?;
        let mut plain = vec![0; Opener::plain_bytes(sealed.len())?];
        self.opener.open(&sealed, &mut plain).ok()?;
        Some(plain)
    }
}
