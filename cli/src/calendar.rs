//! Times for people, in the machine's time zone. SQLite, which is here anyway, knows calendar and zone.

use rusqlite::Connection;

/// Writes times as people read them.
pub(crate) struct Calendar(Option<Connection>);

impl Calendar {
    pub(crate) fn new() -> Self {
        Self(Connection::open_in_memory().ok())
    }

    /// A time in milliseconds since 1970 as local date and time.
    pub(crate) fn local(&self, at_ms: u64) -> String {
        let query = "SELECT strftime('%Y-%m-%d %H:%M:%f', ?1 / 1000.0, 'unixepoch', 'localtime')";
        let text = self.0.as_ref().and_then(|calendar| {
            let at_ms = i64::try_from(at_ms).ok()?;
            calendar.query_row(query, [at_ms], |row| row.get(0)).ok()
        });
        text.unwrap_or_else(|| format!("{at_ms} ms since 1970"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_has_its_date_and_milliseconds_and_one_beyond_the_calendar_is_still_told() {
        let calendar = Calendar::new();
        let text = calendar.local(1_000_000_000_123);
        assert!(text.starts_with("2001-09-0") && text.ends_with(".123"), "{text}");
        assert_eq!(calendar.local(u64::MAX), format!("{} ms since 1970", u64::MAX));
    }
}
