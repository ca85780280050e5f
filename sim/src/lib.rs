//! A deterministic simulator of EntglDb clusters.
//!
//! Many replicas with simulated stores, networks and clocks run in one thread. Everything that happens comes from one
//! 64-bit seed: which nodes there are, what their applications write, which faults strike when, how long a frame is on
//! its way. So a failure is a number, and the same number gives the same failure again.
//!
//! A run has two phases. In the first, faults strike, and what must *always* hold is checked after every step. Then all is
//! healed, and within a bound of simulated time what must *finally* hold is required: everybody has everything, in the
//! same state, and it is quiet. What is checked is in `checkers/`, one file for each invariant of the design.
//!
//! ```
//! use entgldb_sim::{Options, run};
//!
//! let outcome = run(&Options::from_seed(1), false);
//! assert_eq!(outcome.violation, None);
//! ```

mod application;
mod checkers;
mod clock;
mod coverage;
mod disk;
mod ending;
mod faults;
mod mutation;
mod network;
mod node;
mod options;
mod oracle;
mod reading;
mod redelivery;
mod resolver;
mod rng;
mod run;
#[cfg(test)]
mod scenarios;
mod seen;
mod setting;
mod shrink;
mod store;
mod tamper;
mod trace;
mod traffic;
mod world;
mod writing;

pub use checkers::Violation;
pub use coverage::Coverage;
pub use mutation::Mutation;
pub use options::{Dialling, FAULTS, Fault, Load, Options, Rate, Topology};
pub use rng::PerMillion;
pub use run::{Outcome, run, run_twice};
pub use shrink::shrink;
pub use writing::Writers;
