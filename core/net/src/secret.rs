//! The cluster secret: whoever has it belongs to the cluster.

use std::fmt;
use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::path::Path;

use argon2::{Algorithm, Argon2, Params, Version};
use data_encoding::BASE32_NOPAD;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use zeroize::{Zeroize, Zeroizing};

use crate::private_file::{self, PrivateFileError};
use crate::strength;

/// Shortest passphrase, in characters.
pub const PASSPHRASE_CHARS_MIN: usize = 12;

const SECRET_BYTES: usize = 32;
const CHECK_BYTES: usize = 3;
const GROUP_DIGITS: usize = 8;
/// Marks a generated secret for people and for secret scanners. The `1` is its version, and no base32 digit.
const PREFIX: &str = "entgldb1-";
const FILE_BYTES_MAX: u64 = 4096;
const COMMENT: &str = "# EntglDb cluster secret. Whoever has it can join the cluster: keep it private.\n";
const DEFAULT_CLUSTER: &str = "default";

const ARGON2_MEMORY_KIB: u32 = 64 << 10;
const ARGON2_PASSES: u32 = 3;
const ARGON2_LANES: u32 = 1;

/// The secret that the nodes of one cluster share. It never leaves the node, is wiped from memory when dropped, and
/// prints as `***`.
///
/// By default it is generated: 256 random bits, which cannot be guessed. One derived from a passphrase can: whoever
/// records a handshake can try passphrases at home, at the cost of one Argon2id each. So a passphrase should come from
/// dice or a generator; short and common ones are refused.
#[derive(Clone)]
pub struct ClusterSecret(Zeroizing<[u8; SECRET_BYTES]>);

impl ClusterSecret {
    /// A new random secret.
    ///
    /// # Panics
    /// When the operating system has no randomness: nothing secure can be done then.
    #[must_use]
    pub fn generate() -> Self {
        let mut bytes = Zeroizing::new([0; SECRET_BYTES]);
        getrandom::fill(&mut *bytes).expect("the operating system gives random bytes");
        Self(bytes)
    }

    /// Reads the text form. Case, spaces and hyphens between the digits do not matter.
    ///
    /// # Errors
    /// When it is not a generated secret, or was not copied exactly.
    pub fn parse(text: &str) -> Result<Self, SecretError> {
        let text = Zeroizing::new(text.trim().to_ascii_lowercase());
        let digits = text.strip_prefix(PREFIX).ok_or(SecretError::Malformed)?;
        let digits: Zeroizing<String> = Zeroizing::new(
            digits
                .chars()
                .filter(|c| !c.is_whitespace() && *c != '-')
                .map(|c| c.to_ascii_uppercase())
                .collect(),
        );
        let bytes =
            Zeroizing::new(BASE32_NOPAD.decode(digits.as_bytes()).map_err(|_| SecretError::Malformed)?);
        let (secret, check) = bytes.split_at_checked(SECRET_BYTES).ok_or(SecretError::Malformed)?;
        if check.len() != CHECK_BYTES {
            return Err(SecretError::Malformed);
        }
        let mut own = Zeroizing::new([0; SECRET_BYTES]);
        own.copy_from_slice(secret);
        let secret = Self(own);
        if bool::from(secret.check().ct_eq(check)) { Ok(secret) } else { Err(SecretError::WrongCheck) }
    }

    /// Derives the secret from a passphrase by Argon2id with 64 MiB, which takes about half a second. All nodes must
    /// use the same passphrase and the same cluster name; the name only keeps one table of guesses from serving
    /// against many clusters.
    ///
    /// # Errors
    /// When the passphrase is shorter than 12 characters or easy to guess.
    pub fn from_passphrase(passphrase: &str, cluster: &str) -> Result<Self, SecretError> {
        if passphrase.chars().count() < PASSPHRASE_CHARS_MIN {
            return Err(SecretError::TooShort);
        }
        if strength::is_weak(passphrase) {
            return Err(SecretError::Weak);
        }
        let salt = Sha256::new().chain_update(b"entgldb/psk-salt/v1").chain_update(cluster).finalize();
        let params = Params::new(ARGON2_MEMORY_KIB, ARGON2_PASSES, ARGON2_LANES, Some(SECRET_BYTES))
            .expect("these parameters are valid");
        let mut bytes = Zeroizing::new([0; SECRET_BYTES]);
        Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
            .hash_password_into(passphrase.as_bytes(), &salt, &mut *bytes)
            .map_err(|_| SecretError::Malformed)?;
        Ok(Self(bytes))
    }

    /// The text form, for `keygen`: whoever sees it can join the cluster. Of a secret that came from a passphrase it is
    /// the generated secret that means the same.
    #[must_use]
    pub fn to_text(&self) -> Zeroizing<String> {
        let mut bytes = Zeroizing::new(self.0.to_vec());
        bytes.extend_from_slice(&self.check());
        let mut digits = BASE32_NOPAD.encode(&bytes);
        let mut text = Zeroizing::new(String::with_capacity(PREFIX.len() + digits.len() * 9 / 8));
        text.push_str(PREFIX);
        for (place, digit) in digits.chars().enumerate() {
            if place > 0 && place % GROUP_DIGITS == 0 {
                text.push('-');
            }
            text.push(digit.to_ascii_lowercase());
        }
        digits.zeroize();
        text
    }

    /// Writes the secret to a new file, with its final permissions from the first moment: only its owner can read it. A file,
    /// or a link of that name, that is there is left alone.
    ///
    /// # Errors
    /// When the file is there, or can't be written. No half of it is left.
    pub fn write_new_file(&self, path: &Path) -> io::Result<()> {
        let mut options = OpenOptions::new();
        options.write(true).create_new(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let mut file = options.open(path)?;
        let text = self.to_text();
        let lines = [COMMENT, text.as_str(), "\n"];
        let written = lines.iter().try_for_each(|line| file.write_all(line.as_bytes()));
        let written = written.and_then(|()| file.sync_all());
        if written.is_err() {
            // A half-written secret helps nobody; the first error is the one to report.
            let _ = fs::remove_file(path);
        }
        written
    }

    /// Reads a secret file. It holds either a generated secret, or the lines `passphrase: ...` and, if it is not
    /// "default", `cluster: ...`. Empty lines and lines that begin with `#` are passed over.
    ///
    /// # Errors
    /// When the file cannot be read, others can read it too, or what it holds is no secret.
    pub fn read_file(path: &Path) -> Result<Self, SecretError> {
        let text = private_file::read(path, FILE_BYTES_MAX)?;
        let (mut generated, mut passphrase, mut cluster) = (None, None, None);
        for line in text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')) {
            let (place, value) = match line.split_once(':') {
                Some((name, value)) if name.trim() == "passphrase" => (&mut passphrase, value.trim()),
                Some((name, value)) if name.trim() == "cluster" => (&mut cluster, value.trim()),
                _ => (&mut generated, line),
            };
            if place.replace(value).is_some() {
                return Err(SecretError::Malformed);
            }
        }
        match (generated, passphrase, cluster) {
            (Some(text), None, None) => Self::parse(text),
            (None, Some(passphrase), cluster) => {
                Self::from_passphrase(passphrase, cluster.unwrap_or(DEFAULT_CLUSTER))
            }
            _ => Err(SecretError::Malformed),
        }
    }

    pub(crate) fn bytes(&self) -> &[u8; SECRET_BYTES] {
        &self.0
    }

    fn check(&self) -> [u8; CHECK_BYTES] {
        let digest =
            Sha256::new().chain_update(b"entgldb/secret-check/v1").chain_update(self.0.as_slice()).finalize();
        let mut check = [0; CHECK_BYTES];
        check.copy_from_slice(&digest[..CHECK_BYTES]);
        check
    }
}

impl fmt::Debug for ClusterSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// Why something is not a usable cluster secret. No message holds any part of it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SecretError {
    /// Not the text of a secret.
    #[error(
        "this is not a cluster secret: expected one made by `entgldb keygen` ({PREFIX}...), or in a file a line `passphrase: ...`"
    )]
    Malformed,
    /// The check digits do not fit: a typing error.
    #[error("the check digits of this cluster secret do not fit: it was not copied exactly")]
    WrongCheck,
    /// The passphrase is too short.
    #[error("a passphrase needs at least {PASSPHRASE_CHARS_MIN} characters; better use `entgldb keygen`")]
    TooShort,
    /// The passphrase is common, or made of repetitions and sequences.
    #[error("this passphrase is easy to guess; take several random words, or use `entgldb keygen`")]
    Weak,
    /// The file cannot be used.
    #[error(transparent)]
    File(#[from] PrivateFileError),
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(bytes: u8) -> Zeroizing<String> {
        ClusterSecret(Zeroizing::new([bytes; SECRET_BYTES])).to_text()
    }

    #[test]
    fn a_generated_secret_survives_its_text_form_however_it_is_typed() {
        let secret = ClusterSecret::generate();
        let text = secret.to_text();
        let spaced = text.replace("-", " - ").replace("entgldb1 - ", "entgldb1-");
        for typed in [text.to_string(), text.to_uppercase(), format!("  {}\n", *text), spaced] {
            assert_eq!(ClusterSecret::parse(&typed).unwrap().bytes(), secret.bytes(), "{typed:?}");
        }
        assert_ne!(ClusterSecret::generate().bytes(), secret.bytes());
    }

    #[test]
    fn every_single_wrong_digit_and_every_exchange_of_neighbours_is_found() {
        let text = ClusterSecret::generate().to_text();
        let digits: Vec<usize> =
            (PREFIX.len()..text.len()).filter(|at| text.as_bytes()[*at] != b'-').collect();
        for &at in &digits {
            let mut wrong = text.to_string();
            let other = if &text[at..=at] == "q" { "r" } else { "q" };
            wrong.replace_range(at..=at, other);
            assert!(matches!(ClusterSecret::parse(&wrong), Err(SecretError::WrongCheck)), "{wrong}");
        }
        for pair in digits.windows(2) {
            let mut bytes = text.as_bytes().to_vec();
            bytes.swap(pair[0], pair[1]);
            let wrong = String::from_utf8(bytes).unwrap();
            assert!(wrong == *text || ClusterSecret::parse(&wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn what_is_no_secret_is_told_apart_from_a_typing_error() {
        let whole = text(7);
        let digits = &whole[PREFIX.len()..];
        for malformed in ["", "hello", digits, &whole[..whole.len() - 8], "entgldb1-", "entgldb1-0189"] {
            assert!(matches!(ClusterSecret::parse(malformed), Err(SecretError::Malformed)), "{malformed:?}");
        }
    }

    #[test]
    fn a_passphrase_gives_the_same_secret_everywhere_and_another_for_another_cluster() {
        let derive = |passphrase, cluster| ClusterSecret::from_passphrase(passphrase, cluster).unwrap();
        let secret = derive("marble otter window fifteen", "shop");
        // A golden value: a change of it would lock running clusters out.
        assert_eq!(
            *secret.to_text(),
            "entgldb1-rectlqpq-qcl4u5ba-iqkjdej6-ktmqdgbh-eygkgdkp-hmboyh3i-an2iwtyi"
        );
        assert_ne!(secret.bytes(), derive("marble otter window fifteen", "shop 2").bytes());
        let again = ClusterSecret::parse(&secret.to_text()).unwrap();
        assert_eq!(again.bytes(), secret.bytes());
    }

    #[test]
    fn short_and_common_passphrases_are_refused_with_the_reason() {
        let refused = |passphrase| ClusterSecret::from_passphrase(passphrase, "shop").unwrap_err();
        assert!(matches!(refused("x7Kq-92mf-L"), SecretError::TooShort));
        assert!(matches!(refused("äöüäöüäöüäö"), SecretError::TooShort));
        assert!(matches!(refused("password1234"), SecretError::Weak));
    }

    #[test]
    fn neither_the_secret_nor_an_error_about_it_prints_any_of_it() {
        let secret = ClusterSecret::generate();
        assert_eq!(format!("{secret:?}"), "***");
        let mut wrong = secret.to_text().to_string();
        let last = wrong.pop().unwrap();
        wrong.push(if last == 'a' { 'b' } else { 'a' });
        let error = ClusterSecret::parse(&wrong).unwrap_err();
        let said = format!("{error} {error:?}");
        assert!(wrong.split('-').skip(1).all(|group| !said.contains(group)), "{said}");
    }
}
