//! The replication state machine of EntglDb.
//!
//! # Model
//!
//! A *node* captures what its application changes as [entries](entry::Entry) of *logs*, one for each author, birth of its
//! oplog, and collection. Logs are hash-chained and their heads signed by the author, so that any node may pass them on
//! and none can alter them. A [vector](version::Vector) says exactly which prefixes a node holds. Nodes that hold the same
//! entries have the same [rows](resolve::Row), because rows are the join of entries by their [stamps](clock::Stamp).
//!
//! This crate is that and nothing else: no clock, no socket, no thread, no file, no randomness of its own. Time, frames and
//! seeds come in as arguments; frames to send and addresses to dial go out as values. The one effect inside a step is the
//! [`Store`](store::Store), because its order relative to the state matters. So the same inputs give the same outputs, and
//! what a schedule can break is found by a simulation.
//!
//! # The loop
//!
//! ```
//! use entgldb_replica::{Input, Output, Replica, StoreFailed, clock::Now, store::Store};
//!
//! /// One turn: something happened; what is to be done?
//! fn turn<S: Store>(replica: &mut Replica<S>, now: Now, input: Input) -> Result<(), StoreFailed<S::Error>> {
//!     for output in replica.handle(now, input)? {
//!         match output {
//!             Output::Send { link, kind, body, .. } => { /* hand the frame to the transport */ }
//!             Output::Dial { target } => { /* dial; later LinkUp or DialFailed */ }
//!             Output::Close { link, reason } => { /* close the link */ }
//!             Output::Event(event) => { /* tell people */ }
//!         }
//!     }
//!     // Sleep until replica.next_wake() or the next input, whichever is first; a sleep that ended is Input::Tick.
//!     Ok(())
//! }
//! ```
//!
//! # Contract
//!
//! - One thread owns a replica and its store.
//! - [`Input::LinkUp`] MUST be given only for a peer that was authenticated; frames of a link MUST be given in order.
//! - Outputs MUST be carried out in order. A frame that can't be sent means that the link is closed
//!   ([`Input::LinkDown`]); what was lost is sent again on the next one.
//! - After an error of [`Replica::handle`] the replica MUST be dropped. What is durable is opened again.
//! - A seed MUST NOT be used for two new oplogs.

mod apply;
mod asking;
mod blocked;
mod bounds;
pub mod clock;
mod conflicts;
mod contract;
mod copies;
pub mod custom;
mod edit;
pub mod entry;
pub mod event;
mod exchange;
pub mod fingerprint;
mod flow;
mod follow;
mod giver;
mod heads;
pub mod id;
mod joining;
mod json;
mod keeping;
mod laws;
mod ledger;
pub mod limits;
mod meeting;
pub mod member;
pub mod merge;
mod oplog;
mod outgoing;
mod page;
mod peers;
mod place;
mod replica;
pub mod resolve;
mod retain;
mod sending;
mod session;
mod snapshot;
mod states;
mod step;
pub mod store;
mod taking;
mod vectors;
pub mod version;
mod violation;
mod waiting;
pub mod wire;

pub use blocked::BlockedPeer;
pub use contract::{Config, Input, Link, Mark, Output, PeerStatus, Status, StoreFailed};
pub use edit::MergedError;
pub use exchange::{Imported, Importing};
pub use laws::{LawBroken, check_laws};
pub use oplog::RunError;
pub use peers::{TargetStatus, TooManyPeers};
pub use replica::Replica;

// The store in memory of the tests beside the sources serves the tests within them too; it names this crate from outside.
#[cfg(test)]
extern crate self as entgldb_replica;
#[cfg(test)]
#[allow(dead_code, unreachable_pub, missing_docs, reason = "the tests beside the sources use more of it")]
#[path = "../tests/mesh/memory.rs"]
mod testing;
