//! A peer made by hand, from `docs/protocol/transport.md` alone: so that it can be wrong in one single way.

use entgldb_net::ClusterSecret;
use hkdf::Hkdf;
use sha2::Sha256;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::common::{read_to_close, secret_bytes};

pub(crate) const PATTERN: &str = "Noise_XXpsk3_25519_AESGCM_SHA256";

/// What a handshake is made with. The defaults are right.
pub(crate) struct Recipe {
    pub(crate) pattern: &'static str,
    pub(crate) project: &'static [u8],
    pub(crate) version: u16,
    pub(crate) tag: Vec<u8>,
    pub(crate) psk: [u8; 32],
}

impl Recipe {
    pub(crate) fn right(secret: &ClusterSecret) -> Self {
        let root = Hkdf::<Sha256>::new(Some(b"entgldb/cluster/v1"), &secret_bytes(secret));
        let (mut psk, mut tag) = ([0; 32], vec![0; 16]);
        root.expand(b"entgldb/noise-psk/v1\0\0\0\0", &mut psk).unwrap();
        root.expand(b"entgldb/prologue/v1\0\0\0\0", &mut tag).unwrap();
        Self { pattern: PATTERN, project: b"entgldb\0", version: 1, tag, psk }
    }

    pub(crate) fn initiator(&self) -> snow::HandshakeState {
        let prologue = [self.project, &self.version.to_be_bytes(), &self.tag].concat();
        let builder = snow::Builder::new(self.pattern.parse().unwrap());
        let key = builder.generate_keypair().unwrap().private;
        let mut builder = builder.prologue(&prologue).unwrap().local_private_key(&key).unwrap();
        if self.pattern.contains("psk") {
            builder = builder.psk(3, &self.psk).unwrap();
        }
        builder.build_initiator().unwrap()
    }

    /// Message 1 with its length.
    pub(crate) fn hello(&self) -> Vec<u8> {
        let mut wire = [0; 200];
        let bytes = self.initiator().write_message(&[], &mut wire).unwrap();
        message(&wire[..bytes])
    }
}

pub(crate) fn message(body: &[u8]) -> Vec<u8> {
    [&u16::try_from(body.len()).unwrap().to_be_bytes()[..], body].concat()
}

/// Says it, and gives what comes back before the other side closes.
pub(crate) async fn say(stream: &mut TcpStream, words: &[u8]) -> Vec<u8> {
    // It may have been closed before we are done, which is an answer of no bytes.
    let _ = stream.write_all(words).await;
    read_to_close(stream).await
}

/// Reads one message.
pub(crate) async fn hear(stream: &mut TcpStream) -> std::io::Result<Vec<u8>> {
    let mut body = vec![0; stream.read_u16().await?.into()];
    stream.read_exact(&mut body).await?;
    Ok(body)
}
