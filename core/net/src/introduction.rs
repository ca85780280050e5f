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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const STATIC: [u8; 32] = [1; 32];
    const HASH: [u8; 32] = [2; 32];
    const HERE: Place<'_> = Place { role: Role::Initiator, noise_static: &STATIC, handshake_hash: &HASH };

    fn key(seed: u8) -> SigningKey {
        SigningKey::from_bytes(&[seed; 32])
    }

    fn info(key: &SigningKey) -> PeerInfo {
        let public_key = PublicKey(key.verifying_key().to_bytes());
        let node = NodeId::of(&public_key);
        PeerInfo { node, public_key, name: "till".to_owned(), instance: 7, frame_bytes_max: 4096 }
    }

    fn description(key: &SigningKey) -> SelfDescription {
        SelfDescription::new(&info(key), &[Codec::Zstd, Codec::Brotli])
    }

    /// A payload with this content, rightly signed.
    fn payload(change: impl FnOnce(&mut Hello)) -> Vec<u8> {
        let mut hello = Hello::decode(description(&key(1)).encoded_hello.as_slice()).unwrap();
        change(&mut hello);
        SelfDescription { encoded_hello: hello.encode_to_vec() }.introduce(&key(1), HERE)
    }

    #[test]
    fn a_true_introduction_is_believed_as_it_was_made() {
        let believed = believe(&description(&key(1)).introduce(&key(1), HERE), HERE).unwrap();
        assert_eq!(believed, Introduced { peer: info(&key(1)), codecs: vec![Codec::Zstd, Codec::Brotli] });
    }

    #[test]
    fn a_signature_by_another_key_or_for_another_place_is_refused() {
        let forged = description(&key(1)).introduce(&key(2), HERE);
        assert_eq!(believe(&forged, HERE), Err(IntroductionError::Signature));
        let payload = description(&key(1)).introduce(&key(1), HERE);
        for elsewhere in [
            Place { role: Role::Responder, ..HERE },
            Place { noise_static: &HASH, ..HERE },
            Place { handshake_hash: &STATIC, ..HERE },
        ] {
            assert_eq!(believe(&payload, elsewhere), Err(IntroductionError::Signature));
        }
    }

    #[test]
    fn a_changed_name_is_noticed() {
        let payload = description(&key(1)).introduce(&key(1), HERE);
        let mut introduction = Introduction::decode(payload.as_slice()).unwrap();
        let at = introduction.hello.windows(4).position(|bytes| bytes == b"till").unwrap();
        introduction.hello[at] = b'b';
        assert_eq!(believe(&introduction.encode_to_vec(), HERE), Err(IntroductionError::Signature));
    }

    #[test]
    fn values_out_of_their_limits_are_refused_even_when_signed() {
        let changes: [fn(&mut Hello); 6] = [
            |hello| hello.name = "x".repeat(65),
            |hello| hello.name = "a\u{7}b".to_owned(),
            |hello| hello.frame_bytes_max = 0,
            |hello| hello.frame_bytes_max = FRAME_BYTES_HARD as u32 + 1,
            |hello| hello.public_key = vec![0; 31],
            |hello| hello.public_key.clear(),
        ];
        for (number, change) in changes.into_iter().enumerate() {
            assert_eq!(believe(&payload(change), HERE), Err(IntroductionError::Malformed), "change {number}");
        }
        // A key of small order, for which anything would be a signature.
        let weak = payload(|hello| hello.public_key = [&[1][..], &[0; 31]].concat());
        assert_eq!(believe(&weak, HERE), Err(IntroductionError::Signature));
    }

    #[test]
    fn codecs_of_the_future_are_passed_over() {
        let payload = payload(|hello| hello.codecs = vec![0, 9, 1, 300, u32::MAX]);
        assert_eq!(believe(&payload, HERE).unwrap().codecs, vec![Codec::Brotli]);
    }

    proptest! {
        #[test]
        fn any_bytes_are_an_introduction_of_nobody(payload in prop::collection::vec(any::<u8>(), 0..600)) {
            prop_assert!(believe(&payload, HERE).is_err());
        }

        #[test]
        fn a_payload_with_a_flipped_bit_is_refused(at in any::<prop::sample::Index>(), bit in 0u8..8) {
            let mut payload = description(&key(1)).introduce(&key(1), HERE);
            let at = at.index(payload.len());
            payload[at] ^= 1 << bit;
            prop_assert!(believe(&payload, HERE).is_err());
        }
    }
}
