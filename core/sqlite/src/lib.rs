//! EntglDb's built-in store: a replica's oplog, rows and outbox in the application's own SQLite database.

mod apply;
mod aside;
mod capture;
mod collide;
mod commit;
mod compare;
mod document;
mod failed;
pub mod inspect;
mod json;
mod key;
mod names;
mod open;
mod oplog;
mod putback;
mod quote;
mod rows;
mod scan;
mod schema;
mod store;
mod table;
mod tend;
mod triggers;
mod unique;
mod value;
mod verify;
mod watch;
mod watched;

pub use failed::SqliteFailed;
pub use open::{Durability, OpenError, SqliteConfig};
pub use store::SqliteStore;
pub use verify::{Fault, Progress, Report, VerifyError, verify};
pub use watch::Waker;
