//! The key schedule: what is derived from a cluster secret.
//!
//! Every use has its own label, so that nothing derived for one use says anything about another. Each label ends with an
//! epoch number, for rotation of the secret; there is only epoch 0 as yet. `entgldb/beacon/v1` is reserved.

use hkdf::Hkdf;
use sha2::Sha256;
use zeroize::Zeroizing;

use crate::secret::ClusterSecret;

const ROOT_SALT: &[u8] = b"entgldb/cluster/v1";
const PSK_LABEL: &[u8] = b"entgldb/noise-psk/v1";
const PROLOGUE_LABEL: &[u8] = b"entgldb/prologue/v1";
const PROJECT: &[u8] = b"entgldb";
const WIRE_VERSION: u16 = 1;
const EPOCH: u32 = 0;
const PROLOGUE_TAG_BYTES: usize = 16;

/// What a handshake needs of the cluster secret.
pub(crate) struct HandshakeKeys {
    /// The pre-shared key that is mixed in at message 3.
    pub(crate) psk: Zeroizing<[u8; 32]>,
    /// Known only to those who have the secret: without it, message 1 already fails.
    pub(crate) prologue: Zeroizing<Vec<u8>>,
}

impl HandshakeKeys {
    pub(crate) fn derive(secret: &ClusterSecret) -> Self {
        let root = Hkdf::<Sha256>::new(Some(ROOT_SALT), secret.bytes());
        let mut psk = Zeroizing::new([0; 32]);
        expand(&root, PSK_LABEL, &mut *psk);
        let mut tag = Zeroizing::new([0; PROLOGUE_TAG_BYTES]);
        expand(&root, PROLOGUE_LABEL, &mut *tag);
        let prologue = Zeroizing::new([PROJECT, &[0], &WIRE_VERSION.to_be_bytes(), &*tag].concat());
        Self { psk, prologue }
    }
}

fn expand(root: &Hkdf<Sha256>, label: &[u8], out: &mut [u8]) {
    root.expand_multi_info(&[label, &EPOCH.to_be_bytes()], out).expect("HKDF gives up to 8,160 bytes");
}

#[cfg(test)]
mod tests {
    use data_encoding::HEXLOWER;

    use super::*;

    #[test]
    fn the_keys_of_a_secret_are_the_documented_ones() {
        let secret = ClusterSecret::from_passphrase("marble otter window fifteen", "shop").unwrap();
        let keys = HandshakeKeys::derive(&secret);
        // Golden values: a change of them would lock running clusters out.
        assert_eq!(
            HEXLOWER.encode(&*keys.psk),
            "e20cbf5e4eb7e280da70f7bc01e7b604fd5483572de007333dfd7f31e535639b"
        );
        assert_eq!(HEXLOWER.encode(&keys.prologue), "656e74676c6462000001d34f99b6fa0f61d98d41b0dc21637851");
    }

    #[test]
    fn different_secrets_share_nothing_but_the_public_part_of_the_prologue() {
        let (one, two) = (
            HandshakeKeys::derive(&ClusterSecret::generate()),
            HandshakeKeys::derive(&ClusterSecret::generate()),
        );
        assert_ne!(one.psk, two.psk);
        assert_eq!(one.prologue[..10], two.prologue[..10]);
        assert_ne!(one.prologue[10..], two.prologue[10..]);
    }
}
