//! The demo's application: a program that reads and writes its own SQLite database by ordinary SQL. It never talks to the
//! engine, and the engine runs in another process.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::types::ValueRef;
use rusqlite::{Connection, Transaction};

use super::schema::{self, TABLES};
use crate::failure::Failure;

const BUSY_TIMEOUT: Duration = Duration::from_secs(10);

/// A shop's database, as its application has it open.
pub(super) struct Shop {
    pub(super) name: &'static str,
    pub(super) path: PathBuf,
    database: Connection,
}

/// What a table holds: equal images mean equal rows.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Image {
    pub(super) rows: u64,
    pub(super) digest: u64,
}

impl Shop {
    /// Creates the database with empty tables.
    pub(super) fn create(folder: &Path, name: &'static str) -> Result<Self, Failure> {
        let path = folder.join(format!("{name}.db"));
        let failed = |error: rusqlite::Error| broken(&path, &error);
        let database = Connection::open(&path).map_err(failed)?;
        database.busy_timeout(BUSY_TIMEOUT).map_err(failed)?;
        schema::create(&database).map_err(failed)?;
        // As the engines of the demo run: figures are for `normal`, and say so.
        database.pragma_update(None, "synchronous", "NORMAL").map_err(failed)?;
        database.pragma_update(None, "foreign_keys", true).map_err(failed)?;
        Ok(Self { name, path, database })
    }

    /// Writes in one transaction.
    pub(super) fn write(
        &mut self,
        changes: impl FnOnce(&Transaction) -> rusqlite::Result<()>,
    ) -> Result<(), Failure> {
        let all = |database: &mut Connection| {
            let transaction = database.transaction()?;
            changes(&transaction)?;
            transaction.commit()
        };
        all(&mut self.database).map_err(|error| broken(&self.path, &error))
    }

    /// Whether a query finds anything.
    pub(super) fn finds(&self, query: &str, parameter: &str) -> Result<bool, Failure> {
        let exists = |query: &str| self.database.prepare_cached(query)?.exists([parameter]);
        exists(query).map_err(|error| broken(&self.path, &error))
    }

    /// A product's price, if there is such a product.
    pub(super) fn price(&self, sku: &str) -> Result<Option<i64>, Failure> {
        use rusqlite::OptionalExtension;
        let query = "SELECT price_cents FROM products WHERE sku = ?1";
        let price = self.database.query_row(query, [sku], |row| row.get(0)).optional();
        price.map_err(|error| broken(&self.path, &error))
    }

    /// References that point to nothing.
    pub(super) fn dangling(&self) -> Result<i64, Failure> {
        let count = |query| self.database.query_row(query, [], |row| row.get(0));
        count("SELECT count(*) FROM pragma_foreign_key_check").map_err(|error| broken(&self.path, &error))
    }

    /// How many rows there are, without reading them.
    pub(super) fn rows(&self) -> Result<i64, Failure> {
        let count = |table: &&str| {
            let query = format!("SELECT count(*) FROM {table}");
            self.database.prepare_cached(&query)?.query_row([], |row| row.get(0))
        };
        let counts: rusqlite::Result<Vec<i64>> = TABLES.iter().map(count).collect();
        counts.map(|counts| counts.iter().sum()).map_err(|error| broken(&self.path, &error))
    }

    /// What each table holds, as of one moment.
    pub(super) fn images(&mut self) -> Result<Vec<Image>, Failure> {
        let all = |database: &mut Connection| -> rusqlite::Result<Vec<Image>> {
            let moment = database.transaction()?;
            TABLES.iter().map(|table| image(&moment, table)).collect()
        };
        all(&mut self.database).map_err(|error| broken(&self.path, &error))
    }
}

/// Every value of every row, with its type, in the order of the key.
fn image(database: &Connection, table: &str) -> rusqlite::Result<Image> {
    // All tables begin with the columns of their key.
    let mut statement = database.prepare_cached(&format!("SELECT * FROM {table} ORDER BY 1, 2"))?;
    let columns = statement.column_count();
    let mut rows = statement.query([])?;
    let mut hasher = DefaultHasher::new();
    let mut count = 0;
    while let Some(row) = rows.next()? {
        count += 1;
        for column in 0..columns {
            match row.get_ref(column)? {
                ValueRef::Null => 0_u8.hash(&mut hasher),
                ValueRef::Integer(integer) => (1_u8, integer).hash(&mut hasher),
                ValueRef::Real(real) => (2_u8, real.to_bits()).hash(&mut hasher),
                ValueRef::Text(text) => (3_u8, text).hash(&mut hasher),
                ValueRef::Blob(blob) => (4_u8, blob).hash(&mut hasher),
            }
        }
    }
    Ok(Image { rows: count, digest: hasher.finish() })
}

fn broken(path: &Path, error: &rusqlite::Error) -> Failure {
    Failure::run(
        format_args!("the demo's own access to {}: {error}", path.display()),
        "see that the temporary folder (TMPDIR) is on a local disk with room",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn images_are_equal_exactly_when_the_rows_are_whatever_order_they_came_in() {
        let folder = tempfile::tempdir().unwrap();
        let product = |sku: &'static str, price: i64| {
            move |shop: &Transaction| {
                shop.execute("INSERT INTO products VALUES (?1, 'x', ?2)", (sku, price)).map(drop)
            }
        };
        let mut one = Shop::create(folder.path(), "one").unwrap();
        let mut two = Shop::create(folder.path(), "two").unwrap();
        one.write(product("a", 1)).unwrap();
        one.write(product("b", 2)).unwrap();
        two.write(product("b", 2)).unwrap();
        assert_ne!(one.images().unwrap(), two.images().unwrap());
        two.write(product("a", 1)).unwrap();
        assert_eq!(one.images().unwrap(), two.images().unwrap());
        two.write(|shop| shop.execute("UPDATE products SET price_cents = 3 WHERE sku = 'a'", []).map(drop))
            .unwrap();
        let (one, two) = (one.images().unwrap(), two.images().unwrap());
        assert_eq!(one[0].rows, two[0].rows);
        assert_ne!(one[0], two[0]);
        assert_eq!(one[1..], two[1..]);
    }
}
