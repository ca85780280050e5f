//! What the two ends tell each other of themselves inside the handshake, and the proof that it is them.
//!
//! The signature binds the Ed25519 identity to the Noise key, to this handshake (its hash so far), to the role in it and
//! to everything said, so that none of it can be carried over to another place.

use ed25519_dalek::{Signature, Signer, SigningKey, VerifyingKey};
use entgldb_replica::id::{NodeId, PublicKey};
use entgldb_replica::limits::FRAME_BYTES_HARD;
use prost::Message;

use crate::config::{Codec, name_is_valid};
use crate::event::PeerInfo;

const BINDING_LABEL: &[u8] = b"entgldb/noise-static/v1";

/// Which part of a handshake somebody plays.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Role {
    Initiator,
    Responder,
}

/// Where in which handshake an introduction is made.
#[derive(Clone, Copy)]
pub(crate) struct Place<'a> {
    pub(crate) role: Role,
    /// The Noise static public key of the one who introduces itself.
    pub(crate) noise_static: &'a [u8],
    /// The handshake hash before the message that carries the introduction.
    pub(crate) handshake_hash: &'a [u8],
}

/// The payload of handshake messages 2 and 3.
#[derive(Clone, PartialEq, Message)]
struct Introduction {
    /// An encoded [`Hello`], as bytes because they are signed.
    #[prost(bytes = "vec", tag = "1")]
    hello: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    signature: Vec<u8>,
}

#[derive(Clone, PartialEq, Message)]
struct Hello {
    #[prost(bytes = "vec", tag = "1")]
    public_key: Vec<u8>,
    #[prost(string, tag = "2")]
    name: String,
    #[prost(fixed64, tag = "3")]
    instance: u64,
    #[prost(uint32, tag = "4")]
    frame_bytes_max: u32,
    /// Numbers of the codecs that it decompresses; unknown ones are passed over.
    #[prost(uint32, repeated, tag = "5")]
    codecs: Vec<u32>,
}

/// Why an introduction is not believed: the peer's fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum IntroductionError {
    /// It cannot be read, or a value in it is out of its limits.
    #[error("it is malformed")]
    Malformed,
    /// The identity did not sign this Noise key for this handshake.
    #[error("its signature does not bind the identity to this handshake")]
    Signature,
}

/// What we say of ourselves; the same in every handshake but for the signature.
pub(crate) struct SelfDescription {
    pub(crate) encoded_hello: Vec<u8>,
}

impl SelfDescription {
    pub(crate) fn new(info: &PeerInfo, codecs: &[Codec]) -> Self {
        let hello = Hello {
            public_key: info.public_key.0.to_vec(),
            name: info.name.clone(),
            instance: info.instance,
            frame_bytes_max: u32::try_from(info.frame_bytes_max).expect("at most FRAME_BYTES_HARD"),
            codecs: codecs.iter().map(|codec| codec.wire().into()).collect(),
        };
        Self { encoded_hello: hello.encode_to_vec() }
    }

    /// The payload for this place, signed.
    pub(crate) fn introduce(&self, key: &SigningKey, place: Place<'_>) -> Vec<u8> {
        let signature = key.sign(&signed_bytes(place, &self.encoded_hello));
        Introduction { hello: self.encoded_hello.clone(), signature: signature.to_vec() }.encode_to_vec()
    }
}

/// A believed introduction.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Introduced {
    pub(crate) peer: PeerInfo,
    pub(crate) codecs: Vec<Codec>,
}

/// Reads and verifies the payload of a peer.
///
/// # Errors
/// When it is malformed or not signed for this place.
pub(crate) fn believe(payload: &[u8], place: Place<'_>) -> Result<Introduced, IntroductionError> {
    let introduction = Introduction::decode(payload).map_err(|_| IntroductionError::Malformed)?;
    let hello = Hello::decode(introduction.hello.as_slice()).map_err(|_| IntroductionError::Malformed)?;
    let key: [u8; 32] = hello.public_key.try_into().map_err(|_| IntroductionError::Malformed)?;
    let verifying = VerifyingKey::from_bytes(&key).map_err(|_| IntroductionError::Malformed)?;
    let signature =
        Signature::from_slice(&introduction.signature).map_err(|_| IntroductionError::Malformed)?;
    verifying
        .verify_strict(&signed_bytes(place, &introduction.hello), &signature)
        .map_err(|_| IntroductionError::Signature)?;
    let frame_bytes_max = hello.frame_bytes_max as usize;
    if !name_is_valid(&hello.name) || !(1..=FRAME_BYTES_HARD).contains(&frame_bytes_max) {
        return Err(IntroductionError::Malformed);
    }
    let public_key = PublicKey(key);
    let codec = |number: u32| u8::try_from(number).ok().and_then(Codec::from_wire);
    Ok(Introduced {
        peer: PeerInfo {
            node: NodeId::of(&public_key),
            public_key,
            name: hello.name,
            instance: hello.instance,
            frame_bytes_max,
        },
        codecs: hello.codecs.into_iter().filter_map(codec).collect(),
    })
}

/// Label, role, two fields of fixed length, and the rest: no two different places give the same bytes.
fn signed_bytes(place: Place<'_>, hello: &[u8]) -> Vec<u8> {
    let role = match place.role {
        Role::Initiator => 0,
        Role::Responder => 1,
    };
    let mut bytes = BINDING_LABEL.to_vec();
    bytes.push(role);
    bytes.extend_from_slice(place.noise_static);
    bytes.extend_from_slice(place.handshake_hash);
    bytes.extend_from_slice(hello);
    bytes
}
