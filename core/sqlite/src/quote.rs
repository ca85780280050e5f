//! The one way by which a name gets into SQL.

/// A name as an SQL identifier, whatever characters it has.
#[must_use]
pub(crate) fn identifier(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// Names as a list of SQL identifiers.
pub(crate) fn identifiers<'a>(names: impl IntoIterator<Item = &'a str>) -> String {
    joined(names.into_iter().map(identifier), ", ")
}

/// Pieces of SQL with something between them.
pub(crate) fn joined(pieces: impl IntoIterator<Item = String>, between: &str) -> String {
    pieces.into_iter().collect::<Vec<_>>().join(between)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_is_in_a_name_sqlite_takes_it_as_one_name() {
        let connection = rusqlite::Connection::open_in_memory().unwrap();
        for name in
            ["a", "a b", "a\"b", "\"", "a\"; DROP TABLE x; --", "[a]", "`a`", "'a'", "ä\u{202e}é", "select"]
        {
            let quoted = identifier(name);
            connection.execute_batch(&format!("CREATE TABLE {quoted}({quoted} TEXT)")).unwrap();
            let found: String = connection
                .query_row("SELECT name FROM sqlite_schema WHERE type = 'table' AND name = ?1", [name], |r| {
                    r.get(0)
                })
                .unwrap();
            assert_eq!(found, name);
            connection.execute_batch(&format!("DROP TABLE {quoted}")).unwrap();
        }
    }
}
