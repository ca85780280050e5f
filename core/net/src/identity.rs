//! A node's own keys: Ed25519 to sign what it writes, and X25519 for the handshake. They are independent keys.

use std::fmt;
use std::path::{Path, PathBuf};

use data_encoding::BASE32_NOPAD;
use ed25519_dalek::SigningKey;
use entgldb_replica::id::{NodeId, PublicKey};
use sha2::{Digest, Sha256};
use snow::params::DHChoice;
use snow::resolvers::{CryptoResolver, DefaultResolver};
use zeroize::Zeroizing;

use crate::private_file::{self, PrivateFileError};

const KEY_BYTES: usize = 32;
const CHECK_BYTES: usize = 5;
const FILE_BYTES_MAX: u64 = 4096;
const FILE_TITLE: &str = "entgldb identity 1";

/// Who a node is. Wiped from memory when dropped; prints only the public part.
///
/// Two nodes must never run with the same identity: a copy of the file is a copy of the node, and its peers will see it.
#[derive(Clone)]
pub struct Identity {
    signing: SigningKey,
    noise_private: Zeroizing<[u8; KEY_BYTES]>,
    noise_public: [u8; KEY_BYTES],
}

impl Identity {
    /// New random keys.
    ///
    /// # Panics
    /// When the operating system has no randomness: nothing secure can be done then.
    #[must_use]
    pub fn generate() -> Self {
        let mut keys = [Zeroizing::new([0; KEY_BYTES]), Zeroizing::new([0; KEY_BYTES])];
        for key in &mut keys {
            getrandom::fill(&mut **key).expect("the operating system gives random bytes");
        }
        let [signing, noise] = keys;
        Self::from_keys(&signing, noise)
    }

    fn from_keys(signing: &[u8; KEY_BYTES], noise_private: Zeroizing<[u8; KEY_BYTES]>) -> Self {
        let mut noise = DefaultResolver.resolve_dh(&DHChoice::Curve25519).expect("snow is built with X25519");
        noise.set(&*noise_private);
        let noise_public = noise.pubkey().try_into().expect("an X25519 public key has 32 bytes");
        Self { signing: SigningKey::from_bytes(signing), noise_private, noise_public }
    }

    /// Reads the identity file, or creates one with new keys if there is none. Its folder must exist. The caller sees
    /// to it that only one process does this at a time, as with the node's other files.
    ///
    /// # Errors
    /// When the file cannot be read or written, others have access to it, or it is damaged. An existing file is never
    /// overwritten: without it the node would become another one.
    pub fn load_or_create(path: &Path) -> Result<Self, IdentityError> {
        match private_file::read(path, FILE_BYTES_MAX) {
            Ok(text) => Self::decode(&text).ok_or_else(|| IdentityError::Damaged { path: path.to_owned() }),
            Err(error) if error.is_missing() => {
                let identity = Self::generate();
                private_file::create(path, &identity.encode())?;
                Ok(identity)
            }
            Err(error) => Err(error.into()),
        }
    }

    /// The node's identity, which all its peers know it by.
    #[must_use]
    pub fn node_id(&self) -> NodeId {
        NodeId::of(&self.public_key())
    }

    /// The public key that [`Identity::node_id`] is the hash of.
    #[must_use]
    pub fn public_key(&self) -> PublicKey {
        PublicKey(self.signing.verifying_key().to_bytes())
    }

    /// The key that signs what this node writes.
    #[must_use]
    pub fn signing_key(&self) -> &SigningKey {
        &self.signing
    }

    pub(crate) fn noise_private(&self) -> &[u8; KEY_BYTES] {
        &self.noise_private
    }

    pub(crate) fn noise_public(&self) -> &[u8; KEY_BYTES] {
        &self.noise_public
    }

    fn encode(&self) -> Zeroizing<String> {
        let signing = Zeroizing::new(BASE32_NOPAD.encode(&*Zeroizing::new(self.signing.to_bytes())));
        let noise = Zeroizing::new(BASE32_NOPAD.encode(&*self.noise_private));
        let check = BASE32_NOPAD.encode(&self.check());
        Zeroizing::new(format!(
            "{FILE_TITLE}\nsigning {}\nnoise {}\ncheck {check}\n",
            signing.as_str(),
            noise.as_str()
        ))
    }

    fn decode(text: &str) -> Option<Self> {
        let mut lines = text.lines();
        if lines.next() != Some(FILE_TITLE) {
            return None;
        }
        let mut field = |name: &str| {
            let value = lines.next()?.strip_prefix(name)?.strip_prefix(' ')?;
            Some(Zeroizing::new(BASE32_NOPAD.decode(value.as_bytes()).ok()?))
        };
        let (signing, noise, check) = (field("signing")?, field("noise")?, field("check")?);
        let key = |bytes: &[u8]| Some(Zeroizing::new(<[u8; KEY_BYTES]>::try_from(bytes).ok()?));
        let identity = Self::from_keys(&*key(&signing)?, key(&noise)?);
        (identity.check().as_slice() == check.as_slice()).then_some(identity)
    }

    /// Tells a damaged file from a whole one; over public keys, so that it says nothing of the private ones.
    fn check(&self) -> [u8; CHECK_BYTES] {
        let digest = Sha256::new()
            .chain_update(b"entgldb/identity-check/v1")
            .chain_update(self.public_key().0)
            .chain_update(self.noise_public)
            .finalize();
        let mut check = [0; CHECK_BYTES];
        check.copy_from_slice(&digest[..CHECK_BYTES]);
        check
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Identity({})", self.node_id().short())
    }
}

/// Why there is no identity to run with. Nothing was changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum IdentityError {
    /// The file is not whole.
    #[error("{path} is damaged: restore it from a backup, or remove it and become a new node", path = .path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
    },
    /// The file cannot be used.
    #[error(transparent)]
    File(#[from] PrivateFileError),
}
