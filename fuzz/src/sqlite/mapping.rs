//! Target `mapping`: documents of other nodes, put into tables and captured again.
//!
//! Input: which table, the key's length and the key, the document.

use std::cell::RefCell;

use entgldb_replica::id::Key;
use entgldb_sqlite::fuzzing::{Put, Shelf};

/// One table for each form of a key and each affinity.
const TABLES: [&str; 6] = [
    "CREATE TABLE t(id INTEGER PRIMARY KEY, a TEXT, b REAL, c BLOB, d NUMERIC, e)",
    "CREATE TABLE t(id TEXT PRIMARY KEY, a INTEGER DEFAULT 5, b TEXT DEFAULT 'x', c REAL) WITHOUT ROWID",
    "CREATE TABLE t(a INTEGER, b TEXT, c REAL, d, PRIMARY KEY(b, a))",
    "CREATE TABLE t(id INT PRIMARY KEY, a ANY, b TEXT NOT NULL DEFAULT '') STRICT",
    "CREATE TABLE t(id BLOB PRIMARY KEY, a TEXT COLLATE NOCASE UNIQUE, b INTEGER GENERATED ALWAYS AS (length(a)))",
    "CREATE TABLE t(id NUMERIC PRIMARY KEY, \"a b\" TEXT, \"q\"\"\" REAL, z BOOLEAN CHECK(z < 5)) WITHOUT ROWID",
];

thread_local! {
    static SHELVES: RefCell<[Option<Shelf>; TABLES.len()]> = const { RefCell::new([const { None }; TABLES.len()]) };
}

/// A document that a table takes is captured as the very bytes that came, under the key it came with.
///
/// # Panics
/// When that does not hold: it would be an echo, or a loss.
pub fn check(data: &[u8]) {
    let [table, key_bytes, rest @ ..] = data else { return };
    let Some((key, document)) = rest.split_at_checked((*key_bytes).into()) else { return };
    let Some(key) = std::str::from_utf8(key).ok().and_then(|key| Key::new(key).ok()) else { return };
    let table = usize::from(*table) % TABLES.len();
    let put = SHELVES.with_borrow_mut(|shelves| {
        shelves[table].get_or_insert_with(|| Shelf::new(TABLES[table])).put(&key, document)
    });
    let Put::Row { content, has_extra, is_exact, key: row_key } = put else { return };
    assert_eq!(
        String::from_utf8_lossy(&content),
        String::from_utf8_lossy(document),
        "captured as something else"
    );
    assert!(!(is_exact && has_extra), "a document that the row alone gives again needs nothing beside it");
    assert_eq!(row_key.as_deref(), Some(key.as_str()), "it would be captured under another key");
}
