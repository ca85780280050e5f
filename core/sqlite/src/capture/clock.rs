//! The time of a write, as triggers note it.

use rusqlite::Connection;

use crate::failed::{Outcome, While};

/// Milliseconds since 1970, in words that SQLite has always known.
pub(crate) const NOW: &str = "CAST((julianday('now') - 2440587.5) * 86400000 AS INTEGER)";

/// SQL of the write time now.
pub(crate) fn now_sql() -> &'static str {
    NOW
}

/// The time that triggers would note now.
pub(crate) fn now_ms(connection: &Connection) -> Outcome<u64> {
    connection
        .prepare_cached(&format!("SELECT {NOW}"))
        .and_then(|mut statement| statement.query_row([], |row| row.get::<_, i64>(0)))
        .map(|now| now.max(0).cast_unsigned())
        .doing("reading the time")
}
