//! The application of one node: it writes real SQL over a connection of its own.

use std::cell::RefCell;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use fastrand::Rng;
use rusqlite::config::DbConfig;
use rusqlite::functions::FunctionFlags;
use rusqlite::{Connection, ErrorCode};

use super::accounts::{Accounts, Image};
use super::mix::{Class, KeyKind, Mix};
use super::shape::{Column, Holds, Moment, Shape, TABLE};

/// Bytes that make a row too large where the limit is small.
const LARGE_BYTES: usize = 900;

/// Rows that are there before the first watch where there are many.
const MANY_ROWS: usize = 300;
/// Values of every type, as SQL.
const ANYTHING: [&str; 9] =
    ["1", "1.0", "-0.5", "9007199254740993", "'1'", "''", "x'00ff'", "zeroblob(40)", "'a \u{1F600} b'"];

/// A statement is cut in the trace beyond this.
const NOTE_CHARACTERS_MAX: usize = 600;

/// What happened, in order.
pub type Trace = Rc<RefCell<Vec<String>>>;

/// See the module's documentation.
pub struct App {
    pub node: usize,
    path: PathBuf,
    mix: Rc<Mix>,
    connection: Option<Connection>,
    rng: Rng,
    plan: Rc<Vec<Moment>>,
    first: Shape,
    /// How many moments of the plan have been carried out here.
    pub migrated: usize,
    pub accounts: Rc<RefCell<Accounts>>,
    pub trace: Trace,
    /// The node's wall clock, for the triggers.
    pub clock: Arc<AtomicU64>,
}

impl App {
    pub fn new(
        node: usize,
        path: PathBuf,
        mix: Rc<Mix>,
        plan: Rc<Vec<Moment>>,
        shared: (Rc<RefCell<Accounts>>, Trace),
        rng: Rng,
    ) -> Self {
        let (accounts, trace) = shared;
        let first = Shape::first(&mix);
        let clock = Arc::new(AtomicU64::new(0));
        Self { node, path, mix, connection: None, rng, plan, first, migrated: 0, accounts, trace, clock }
    }

    /// Opens its database, which need not be there.
    pub fn open(&mut self) {
        let connection = Connection::open(&self.path).expect("the application opens its database");
        let clock = self.clock.clone();
        // The triggers take the write time from here, so that it is the run's and not the machine's.
        connection
            .create_scalar_function("julianday", 1, FunctionFlags::SQLITE_INNOCUOUS, move |_| {
                let ms = clock.load(Ordering::Relaxed) as f64 + 0.5;
                Ok(ms / 86_400_000.0 + 2_440_587.5)
            })
            .expect("a function of the application's");
        self.connection = Some(connection);
    }

    pub fn close(&mut self) {
        self.connection = None;
    }

    pub fn connection(&self) -> &Connection {
        self.connection.as_ref().expect("the application has its database open")
    }

    pub fn shape(&self) -> &Shape {
        match self.migrated.checked_sub(1) {
            Some(last) => &self.plan[last].shape,
            None => &self.first,
        }
    }

    /// Whether the application is not in the middle of a migration.
    pub fn is_open(&self) -> bool {
        self.migrated == 0 || self.plan[self.migrated - 1].is_open
    }

    pub fn has_to_migrate(&self) -> bool {
        self.migrated < self.plan.len()
    }

    fn note(&self, what: &str) {
        let what: String = what.chars().take(NOTE_CHARACTERS_MAX).collect();
        self.trace.borrow_mut().push(format!("    app {}: {what}", self.node));
    }

    /// Makes its table, empty.
    pub fn create(&mut self) {
        let sql = format!("{} {}", self.first.create(TABLE), self.first.create_rest());
        self.connection().execute_batch(&sql).expect("the application makes its table");
    }

    /// What its table shows.
    pub fn image(&self) -> Image {
        let shape = self.shape();
        let columns: String = shape.columns.iter().map(|column| format!(", {}", shown(column))).collect();
        let sql = format!("SELECT {}{columns} FROM {TABLE}", shape.key_text());
        let mut statement = self.connection().prepare(&sql).expect("the application reads its table");
        let read = |row: &rusqlite::Row<'_>| {
            let values = shape.columns.iter().enumerate();
            let values = values.map(|(at, column)| Ok((column.field, row.get::<_, Option<String>>(at + 1)?)));
            Ok((row.get::<_, String>(0)?, values.collect::<rusqlite::Result<_>>()?))
        };
        let rows = statement.query_map([], read).expect("the application reads its table");
        rows.collect::<rusqlite::Result<_>>().expect("the application reads its table")
    }

    /// Makes its table as the last migration leaves it.
    pub fn create_last(&mut self) {
        self.migrated = self.plan.len();
        let sql = format!("{} {}", self.shape().create(TABLE), self.shape().create_rest());
        self.connection().execute_batch(&sql).expect("the application makes its table");
    }

    /// Fills its table.
    pub fn fill(&mut self) {
        let rows: Vec<String> = (0..MANY_ROWS)
            .map(|number| {
                let key = self.key_of_many(number).join(", ");
                format!("({key}, '{}')", self.value())
            })
            .collect();
        let keys = self.shape().key_columns().join(", ");
        let column = self.column();
        self.execute(&format!("INSERT INTO {TABLE}({keys}, {column}) VALUES {}", rows.join(", ")));
    }

    /// Writes something, if it may now.
    pub fn write(&mut self) {
        if !self.is_open() {
            return;
        }
        let count = if self.rng.u8(..5) == 0 { self.rng.usize(2..4) } else { 1 };
        let statements: Vec<String> = (0..count).map(|_| self.draw()).collect();
        self.execute(&statements.join("; "));
    }

    /// Carries out statements in one transaction, and accounts for what they did.
    fn execute(&mut self, sql: &str) {
        let run = |sql: &str| self.connection().execute_batch(sql);
        run("BEGIN IMMEDIATE").expect("nobody holds the database locked");
        let before = self.image();
        match run(sql) {
            Ok(()) => {}
            Err(error) if error.sqlite_error_code() == Some(ErrorCode::ConstraintViolation) => {
                self.note(&format!("{sql} -- refused: {error}"));
                return run("ROLLBACK").expect("the application rolls back");
            }
            Err(error) => panic!("the application's own write fails: {sql}: {error}"),
        }
        let after = self.image();
        run("COMMIT").expect("the application commits");
        self.note(sql);
        self.accounts.borrow_mut().transaction(self.node, &before, &after);
    }

    /// Writes something of which no trigger hears.
    pub fn write_silently(&mut self) {
        if !self.is_open() {
            return;
        }
        if self.shape().has_rowid() && self.rng.bool() {
            return self.write_in_place();
        }
        let sql = if self.rng.u8(..3) == 0 { self.insert("INSERT") } else { self.update() };
        let switch = |app: &Self, on| {
            app.connection()
                .set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_TRIGGER, on)
                .expect("triggers are switched");
        };
        self.note("without triggers:");
        switch(self, false);
        self.execute(&sql);
        switch(self, true);
    }

    /// Overwrites a value where it is, as `sqlite3_blob_write` does.
    fn write_in_place(&mut self) {
        let before = self.image();
        let writes: Vec<(usize, String)> =
            self.shape().writes().map(|column| (column.field, column.name.clone())).collect();
        let (field, name) = writes[self.rng.usize(..writes.len())].clone();
        let may: Vec<&String> = before
            .iter()
            .filter(|(_, row)| row[&field].as_ref().is_some_and(|value| value.len() == 7))
            .map(|(doc, _)| doc)
            .collect();
        if may.is_empty() {
            return;
        }
        let doc = may[self.rng.usize(..may.len())];
        let sql = format!("SELECT rowid FROM {TABLE} WHERE {} = ?1", self.shape().key_text());
        let rowid: i64 =
            self.connection().query_row(&sql, [doc], |row| row.get(0)).expect("the row is there");
        let value = self.accounts.borrow_mut().fresh();
        let mut blob = self
            .connection()
            .blob_open("main", TABLE, &name, rowid, false)
            .expect("the value can be written in place");
        blob.write_at(value.as_bytes(), 0).expect("the value can be written in place");
        drop(blob);
        self.note(&format!("in place: {doc}.{name} = {value}"));
        self.accounts.borrow_mut().transaction(self.node, &before, &self.image());
    }

    /// Makes a row larger than a small limit allows.
    pub fn write_large(&mut self) {
        if !self.is_open() {
            return;
        }
        let (column, value, key) = (self.column(), self.value(), self.key());
        let padding = "x".repeat(LARGE_BYTES);
        let matches = self.matches(&key);
        self.execute(&format!("UPDATE {TABLE} SET {column} = '{value}{padding}' WHERE {matches}"));
    }

    /// Writes every row as it is, so that the engine looks at it.
    pub fn touch(&mut self) {
        let key = self.shape().key_columns()[0];
        self.connection()
            .execute_batch(&format!("UPDATE {TABLE} SET {key} = {key}"))
            .expect("the application touches its rows");
        self.note("touches all rows");
    }

    /// Carries out the next moment of the migrations.
    pub fn migrate(&mut self) {
        if !self.has_to_migrate() {
            return;
        }
        let moment = self.plan[self.migrated].clone();
        let before = self.is_open().then(|| self.image());
        let result = self.connection().execute_batch(&moment.sql);
        if let Err(error) = result {
            panic!("the application's migration fails: {}: {error}", moment.sql);
        }
        self.note(&format!("migration {}: {}", self.migrated, moment.sql));
        self.migrated += 1;
        let mut accounts = self.accounts.borrow_mut();
        accounts.dropped_fields.extend(moment.drops);
        if moment.empties {
            accounts
                .dropped(self.node, &before.expect("a table is not dropped in the middle of a migration"));
        }
    }

    fn draw(&mut self) -> String {
        let changes_keys = self.mix.has(Class::KeyChange);
        match self.rng.u8(..20) {
            0..=4 => self.insert("INSERT"),
            5..=11 => self.update(),
            12..=14 => self.upsert(),
            15 | 16 if changes_keys => self.insert("INSERT OR REPLACE"),
            17 if changes_keys => self.change_key(),
            15..=17 => self.update(),
            _ => {
                let key = self.key();
                format!("DELETE FROM {TABLE} WHERE {}", self.matches(&key))
            }
        }
    }

    fn value(&mut self) -> String {
        self.accounts.borrow_mut().fresh()
    }

    fn column(&mut self) -> String {
        let names: Vec<String> = self.shape().writes().map(|column| column.name.clone()).collect();
        names[self.rng.usize(..names.len())].clone()
    }

    /// The key of one of many rows, as SQL.
    fn key_of_many(&self, number: usize) -> Vec<String> {
        match self.mix.key {
            KeyKind::Integer => vec![(number + 100).to_string()],
            KeyKind::Composite => vec!["'m'".into(), number.to_string()],
            _ => vec![format!("'m{number:03}'")],
        }
    }

    /// The values of a key, as SQL.
    fn key(&mut self) -> Vec<String> {
        if self.mix.has(Class::Many) && self.rng.u8(..4) == 0 {
            let number = self.rng.usize(..MANY_ROWS);
            return self.key_of_many(number);
        }
        let number = self.rng.usize(..5);
        match self.mix.key {
            KeyKind::Text | KeyKind::WithoutRowid => vec![format!("'k{number}'")],
            KeyKind::Integer => vec![(number + 1).to_string()],
            KeyKind::NoCase => vec![["'ka'", "'KA'", "'kb'", "'KB'", "'kc'"][number].into()],
            KeyKind::Composite => vec![["'ka'", "'kb'"][number % 2].into(), (number / 2).to_string()],
        }
    }

    fn matches(&self, key: &[String]) -> String {
        let columns = self.shape().key_columns().iter().zip(key);
        columns.map(|(column, value)| format!("{column} = {value}")).collect::<Vec<_>>().join(" AND ")
    }

    /// Columns and values of a row: at least one value is new.
    fn values(&mut self) -> Vec<(String, String)> {
        let columns: Vec<Column> = self.shape().columns.clone();
        let must = self.column();
        let mut values = Vec::new();
        for column in columns {
            match column.holds {
                Holds::Writes if column.name == must || column.is_not_null || self.rng.bool() => {
                    values.push((column.name, format!("'{}'", self.value())));
                }
                Holds::Unique if self.rng.u8(..3) > 0 => {
                    values.push((column.name, format!("'u{}'", self.rng.u8(..4))));
                }
                Holds::Anything if self.rng.bool() => {
                    values.push((column.name, ANYTHING[self.rng.usize(..ANYTHING.len())].to_owned()));
                }
                _ => {}
            }
        }
        values
    }

    fn insert(&mut self, verb: &str) -> String {
        let (key, values) = (self.key(), self.values());
        let columns = self.shape().key_columns().iter().map(|name| (*name).to_owned());
        let names: Vec<String> = columns.chain(values.iter().map(|(name, _)| name.clone())).collect();
        let values: Vec<String> = key.into_iter().chain(values.into_iter().map(|(_, value)| value)).collect();
        format!("{verb} INTO {TABLE}({}) VALUES({})", names.join(", "), values.join(", "))
    }

    fn upsert(&mut self) -> String {
        let insert = self.insert("INSERT");
        let (column, value) = (self.column(), self.value());
        let key = self.shape().key_columns().join(", ");
        format!("{insert} ON CONFLICT({key}) DO UPDATE SET {column} = '{value}'")
    }

    fn update(&mut self) -> String {
        let (column, value, key) = (self.column(), self.value(), self.key());
        let mut set = format!("{column} = '{value}'");
        let unique = self.shape().columns.iter().find(|column| column.holds == Holds::Unique);
        if let Some(unique) = unique.map(|column| column.name.clone())
            && self.rng.u8(..3) == 0
        {
            set += &format!(", {unique} = 'u{}'", self.rng.u8(..4));
        }
        let anything = self.shape().columns.iter().find(|column| column.holds == Holds::Anything);
        if let Some(anything) = anything.map(|column| column.name.clone())
            && self.rng.bool()
        {
            set += &format!(", {anything} = {}", ANYTHING[self.rng.usize(..ANYTHING.len())]);
        }
        format!("UPDATE {TABLE} SET {set} WHERE {}", self.matches(&key))
    }

    fn change_key(&mut self) -> String {
        let (column, value, from, to) = (self.column(), self.value(), self.key(), self.key());
        let columns = self.shape().key_columns().iter().zip(&to);
        let set: Vec<String> = columns.map(|(name, value)| format!("{name} = {value}")).collect();
        format!("UPDATE {TABLE} SET {}, {column} = '{value}' WHERE {}", set.join(", "), self.matches(&from))
    }

    /// Compacts the file.
    pub fn vacuum(&self) {
        self.connection().execute_batch("VACUUM").expect("the application compacts its file");
        self.note("compacts the file");
    }

    /// Puts a copy of the file as it is now somewhere else.
    pub fn back_up(&self, to: &Path) {
        self.connection()
            .execute("VACUUM INTO ?1", [to.to_str().expect("a path of text")])
            .expect("the application makes a backup");
        self.note("makes a backup");
    }
}

/// An expression that tells the values of a column apart.
fn shown(column: &Column) -> String {
    match column.holds {
        Holds::Anything => format!("quote({})", column.name),
        _ => format!("CAST({} AS TEXT)", column.name),
    }
}
