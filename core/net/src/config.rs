//! What a transport is told at its start, and the constants that only this crate needs.

use std::net::SocketAddr;
use std::time::Duration;

use entgldb_replica::limits;

/// Records in one direction after which its key is replaced.
pub(crate) const REKEY_EVERY_RECORDS: u64 = 1 << 20;
/// Most addresses of one name that a dial tries.
pub(crate) const DIAL_ADDRESSES_MAX: usize = 8;
/// Refused strangers that are reported as events in one second; all are counted.
pub(crate) const REFUSED_EVENTS_PER_SECOND: u32 = 8;
/// Longest reason in a close frame, in bytes of UTF-8; a longer one is cut.
pub(crate) const CLOSE_TEXT_BYTES_MAX: usize = 256;
/// What one waiting frame costs of the in-flight budget beside its body: a small question may take as much work as a large
/// page, so a peer has a few thousand frames waiting at most.
pub(crate) const FRAME_COST_BYTES: usize = 4 << 10;

/// A way to compress frames.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
#[non_exhaustive]
pub enum Codec {
    /// Every node has it.
    Brotli,
    /// Better and faster than brotli on batches of documents: used whenever both ends have it.
    Zstd,
}

impl Codec {
    pub(crate) const fn wire(self) -> u8 {
        match self {
            Self::Brotli => 1,
            Self::Zstd => 2,
        }
    }

    pub(crate) const fn from_wire(number: u8) -> Option<Self> {
        match number {
            1 => Some(Self::Brotli),
            2 => Some(Self::Zstd),
            _ => None,
        }
    }

    /// The best codec that both ends have.
    pub(crate) fn negotiate(ours: &[Self], theirs: &[Self]) -> Option<Self> {
        [Self::Zstd, Self::Brotli].into_iter().find(|codec| ours.contains(codec) && theirs.contains(codec))
    }
}

/// The deadlines of a transport. The defaults are the named limits; tests shorten them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Timing {
    /// The whole handshake; also the time to connect to one address.
    pub handshake: Duration,
    /// The time between two handshakes of one address that are answered, beyond a second's worth at once.
    pub handshake_every: Duration,
    /// Silence of ours after which we tell the peers that we are alive. The same, or at least well below `drop_after`,
    /// on all nodes.
    pub ping_after: Duration,
    /// Silence of a peer, or standstill of what we write to it, after which the link is dropped.
    pub drop_after: Duration,
    /// Time for a frame that has begun to arrive; one that goes on at `FRAME_BYTES_PER_SECOND` may take longer.
    pub frame: Duration,
    /// Time to deliver what is queued and the parting word when a link is closed.
    pub close: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            handshake: Duration::from_millis(limits::HANDSHAKE_MS),
            handshake_every: Duration::from_secs(1) / limits::HANDSHAKES_PER_SECOND,
            ping_after: Duration::from_millis(limits::PING_AFTER_MS),
            drop_after: Duration::from_millis(limits::DROP_AFTER_MS),
            frame: Duration::from_millis(limits::FRAME_MS),
            close: Duration::from_millis(1_000),
        }
    }
}

/// What a transport is started with.
#[derive(Clone, Debug)]
pub struct NetConfig {
    /// Where to listen; port 0 lets the system choose. `None`: this node only dials.
    pub listen: Option<SocketAddr>,
    /// The label that peers show for this node: at most `NAME_BYTES_MAX` bytes, no control characters. Not an identity.
    pub name: String,
    /// A random number of this process start: tells a link to ourselves from a copy of our identity.
    pub instance: u64,
    /// Largest frame body that we take, in bytes; peers are told. At most `FRAME_BYTES_HARD`.
    pub frame_bytes_max: usize,
    /// Bytes of frames that are taken from one peer in a second, counted as they are once decompressed. A peer that
    /// sends more is read more slowly. At least 1.
    pub link_bytes_per_second: usize,
    /// What we can decompress. Brotli is always there, named or not.
    pub codecs: Vec<Codec>,
    /// Deadlines.
    pub timing: Timing,
}

impl NetConfig {
    /// The defaults for a node of this label: it does not listen.
    #[must_use]
    pub fn new(name: &str, instance: u64) -> Self {
        Self {
            listen: None,
            name: name.to_owned(),
            instance,
            frame_bytes_max: limits::FRAME_BYTES_DEFAULT,
            link_bytes_per_second: limits::LINK_BYTES_PER_SECOND,
            codecs: vec![Codec::Zstd, Codec::Brotli],
            timing: Timing::default(),
        }
    }

    pub(crate) fn check(&self) -> Result<(), ConfigError> {
        if !(1..=limits::FRAME_BYTES_HARD).contains(&self.frame_bytes_max) {
            return Err(ConfigError::FrameBytes(self.frame_bytes_max));
        }
        if self.link_bytes_per_second == 0 {
            return Err(ConfigError::LinkRate);
        }
        if !name_is_valid(&self.name) {
            return Err(ConfigError::Name);
        }
        Ok(())
    }

    pub(crate) fn codecs_with_brotli(&self) -> Vec<Codec> {
        let mut codecs = self.codecs.clone();
        if !codecs.contains(&Codec::Brotli) {
            codecs.push(Codec::Brotli);
        }
        codecs
    }
}

pub(crate) fn name_is_valid(name: &str) -> bool {
    name.len() <= limits::NAME_BYTES_MAX && !name.chars().any(char::is_control)
}

/// A configuration that no transport can have: the caller's fault, nothing was started.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// `frame_bytes_max` is 0 or over the hard limit.
    #[error("frame_bytes_max is {0}; it must be 1 to {max} (FRAME_BYTES_HARD)", max = limits::FRAME_BYTES_HARD)]
    FrameBytes(usize),
    /// `link_bytes_per_second` is 0.
    #[error("link_bytes_per_second is 0: nothing would ever be read")]
    LinkRate,
    /// The label is too long or has a control character.
    #[error("a node's name has at most {max} bytes (NAME_BYTES_MAX) and no control characters", max = limits::NAME_BYTES_MAX)]
    Name,
}
