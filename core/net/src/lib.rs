//! The links of EntglDb: TCP connections between the nodes of a cluster, authenticated and encrypted by Noise, that
//! carry opaque frames. This crate knows nothing of documents, logs or sync.
//!
//! # Model
//!
//! A [`Transport`] listens, dials, and keeps [links](entgldb_replica::id::LinkId). To become a link, a connection must
//! pass a handshake in which both ends show that they have the [`ClusterSecret`] and that they are who they say
//! ([`Identity`]). What happens is told to a sink as [`NetEvent`]s. On the way in:
//!
//! ```text
//! TCP -> records (AES-256-GCM) -> frames -> decompressed -> in-flight budget -> sink
//! ```
//!
//! and on the way out the same backwards, from a bounded queue per link. Layout byte by byte:
//! `docs/protocol/transport.md`.
//!
//! # Contract
//!
//! - The sink must return at once. It is bounded by the permits that come with the frames: when the owner holds
//!   `IN_FLIGHT_BYTES_MAX` worth of them, nothing more is read from any peer until some are dropped.
//! - One link holds at most `LINK_IN_FLIGHT_BYTES_MAX` of that, and is read at no more than its rate, so that a member that
//!   floods holds up nobody but itself.
//! - A send queue that is full is not waited for: [`Transport::send`] says so, and the owner closes that link, which
//!   catches up on its next one.
//! - A link ends at the first thing that is wrong with it. There is no resynchronisation; peers dial again.
//!
//! # Example
//!
//! ```
//! use std::sync::{Arc, mpsc};
//! use entgldb_net::{ClusterSecret, Frame, Identity, NetConfig, NetEvent, Transport};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let runtime = tokio::runtime::Runtime::new()?;
//! let secret = ClusterSecret::generate();
//! let start = |name: &str, listen: Option<&str>| {
//!     let (events, received) = mpsc::channel();
//!     let mut config = NetConfig::new(name, 1);
//!     config.listen = listen.map(|address| address.parse().unwrap());
//!     let sink = Arc::new(move |event| drop(events.send(event)));
//!     Transport::start(runtime.handle(), &config, &secret, &Identity::generate(), sink).map(|net| (net, received))
//! };
//! let (till, _) = start("till", Some("127.0.0.1:0"))?;
//! let (office, events) = start("office", None)?;
//! office.dial(till.local_address().unwrap().to_string());
//! if let NetEvent::LinkUp { link, peer, .. } = events.recv()? {
//!     assert_eq!(peer.name, "till");
//!     office.send(link, Frame { kind: 16, body: "hello".into(), compress: false })?;
//! }
//! runtime.block_on(office.shutdown());
//! # Ok(())
//! # }
//! ```

mod admission;
mod budget;
mod codec;
mod config;
mod descriptors;
mod dialer;
mod event;
mod frame;
// Fuzzers and tests of other crates reach the readers of hostile bytes through this.
#[doc(hidden)]
pub mod fuzzing;
mod handshake;
mod identity;
mod introduction;
mod link;
mod listener;
#[cfg(test)]
mod misbehaviour;
mod pace;
mod private_file;
mod reader;
mod record;
mod recordings;
mod schedule;
mod secret;
mod shared;
mod strength;
mod traffic;
mod transport;
mod writer;

pub use budget::InFlight;
pub use config::{Codec, ConfigError, NetConfig, Timing};
pub use event::{CloseReason, DialError, Frame, NetEvent, PeerInfo, SendError};
pub use frame::FrameError;
pub use handshake::HandshakeError;
pub use identity::{Identity, IdentityError};
pub use introduction::IntroductionError;
pub use private_file::PrivateFileError;
pub use secret::{ClusterSecret, PASSPHRASE_CHARS_MIN, SecretError};
pub use shared::Sink;
pub use traffic::Traffic;
pub use transport::{Bound, StartError, Transport};
