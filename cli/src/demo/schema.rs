//! The demo's application database: a small shop, as somebody might have it already. Nothing in it knows of EntglDb.

use rusqlite::Connection;

/// The tables, parents first.
pub(super) const TABLES: [&str; 4] = ["products", "customers", "orders", "order_lines"];

const SCHEMA: &str = "
    PRAGMA journal_mode = WAL;
    CREATE TABLE products (
        sku         TEXT PRIMARY KEY,
        name        TEXT NOT NULL,
        price_cents INTEGER NOT NULL CHECK (price_cents >= 0)
    );
    CREATE TABLE customers (
        id   TEXT PRIMARY KEY,
        name TEXT NOT NULL,
        city TEXT
    );
    CREATE TABLE orders (
        id        TEXT PRIMARY KEY,
        customer  TEXT NOT NULL REFERENCES customers (id),
        placed_at TEXT NOT NULL DEFAULT CURRENT_TIMESTAMP
    );
    CREATE TABLE order_lines (
        order_id TEXT NOT NULL REFERENCES orders (id),
        line     INTEGER NOT NULL,
        sku      TEXT NOT NULL REFERENCES products (sku),
        quantity INTEGER NOT NULL,
        PRIMARY KEY (order_id, line)
    );
";

/// Creates the tables in an empty database.
pub(super) fn create(database: &Connection) -> rusqlite::Result<()> {
    database.execute_batch(SCHEMA)
}
