//! The table of the application: how it is defined at each moment, and the schema changes that lead from one to the next.

use fastrand::Rng;

use super::accounts::FIRST_ADDED_FIELD;
use super::mix::{Class, KeyKind, Mix};

/// The table's name.
pub const TABLE: &str = "t";

/// What a column holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Holds {
    /// Values that the application writes once each.
    Writes,
    /// A few values, unique by an index.
    Unique,
    /// A number that the application's trigger raises.
    Count,
    /// Values of every type, the same ones again and again.
    Anything,
}

/// A column besides the key.
#[derive(Clone, Debug)]
pub struct Column {
    pub name: String,
    /// The same number through all renames.
    pub field: usize,
    pub holds: Holds,
    pub default: Option<String>,
    /// The type where that is not what the column holds.
    pub kind: Option<&'static str>,
    pub is_not_null: bool,
}

/// The table at one moment.
#[derive(Clone, Debug)]
pub struct Shape {
    pub key: KeyKind,
    pub columns: Vec<Column>,
    pub has_index: bool,
    pub has_trigger: bool,
}

impl Shape {
    pub fn first(mix: &Mix) -> Self {
        let column = |name: &str, field, holds, default: Option<&str>| Column {
            name: name.into(),
            field,
            holds,
            default: default.map(Into::into),
            kind: None,
            is_not_null: false,
        };
        let mut columns = vec![
            column("a", 0, Holds::Writes, None),
            column("b", 1, Holds::Writes, Some("seed")),
            column("c", 2, Holds::Writes, None),
        ];
        if mix.has(Class::Unique) {
            columns.push(column("u", 3, Holds::Unique, None));
        }
        if mix.has(Class::Triggers) {
            columns.push(column("n", 4, Holds::Count, Some("0")));
        }
        if mix.has(Class::Types) {
            columns.push(column("m", 5, Holds::Anything, None));
        }
        Self {
            key: mix.key,
            columns,
            has_index: mix.has(Class::Unique),
            has_trigger: mix.has(Class::Triggers),
        }
    }

    /// The columns that hold unique values.
    pub fn writes(&self) -> impl Iterator<Item = &Column> {
        self.columns.iter().filter(|column| column.holds == Holds::Writes)
    }

    pub fn key_columns(&self) -> &'static [&'static str] {
        if self.key == KeyKind::Composite { &["k", "k2"] } else { &["k"] }
    }

    /// An expression for the key as the engine writes it.
    pub fn key_text(&self) -> &'static str {
        if self.key == KeyKind::Composite { "json_array(k, k2)" } else { "CAST(k AS TEXT)" }
    }

    /// Whether rows have a number, so that a single value can be written in place.
    pub fn has_rowid(&self) -> bool {
        self.key != KeyKind::WithoutRowid
    }

    fn names(&self) -> String {
        let columns = self.columns.iter().map(|column| column.name.as_str());
        self.key_columns().iter().copied().chain(columns).collect::<Vec<_>>().join(", ")
    }

    pub fn create(&self, table: &str) -> String {
        let key = match self.key {
            KeyKind::Text | KeyKind::WithoutRowid => "k TEXT PRIMARY KEY NOT NULL",
            KeyKind::Integer => "k INTEGER PRIMARY KEY",
            KeyKind::NoCase => "k TEXT COLLATE NOCASE PRIMARY KEY NOT NULL",
            KeyKind::Composite => "k TEXT NOT NULL, k2 INTEGER NOT NULL",
        };
        let columns: String = self.columns.iter().map(|column| format!(", {}", declared(column))).collect();
        let end = if self.key == KeyKind::Composite { ", PRIMARY KEY(k, k2)" } else { "" };
        let kind = if self.has_rowid() { "" } else { " WITHOUT ROWID" };
        format!("CREATE TABLE {table}({key}{columns}{end}){kind};")
    }

    /// The index and the trigger.
    pub fn create_rest(&self) -> String {
        let mut sql = String::new();
        if self.has_index
            && let Some(column) = self.columns.iter().find(|column| column.holds == Holds::Unique)
        {
            sql += &format!(" CREATE UNIQUE INDEX unique_u ON {TABLE}({});", column.name);
        }
        if self.has_trigger {
            let same: Vec<String> =
                self.key_columns().iter().map(|key| format!("{key} = NEW.{key}")).collect();
            sql += &format!(
                " CREATE TRIGGER counted AFTER UPDATE OF {} ON {TABLE} BEGIN UPDATE {TABLE} SET n = n + 1 WHERE {}; END;",
                self.columns[0].name,
                same.join(" AND ")
            );
        }
        sql
    }
}

fn declared(column: &Column) -> String {
    let kind = match column.holds {
        Holds::Count => "INTEGER",
        Holds::Anything => "",
        Holds::Writes | Holds::Unique => "TEXT",
    };
    let kind = column.kind.unwrap_or(kind);
    if column.is_not_null {
        return format!("{} {kind} NOT NULL", column.name);
    }
    match &column.default {
        Some(default) if column.holds == Holds::Count => format!("{} {kind} DEFAULT {default}", column.name),
        Some(default) => format!("{} {kind} DEFAULT '{default}'", column.name),
        None => format!("{} {kind}", column.name),
    }
}

/// One step of the application's migrations, which is one transaction, or one statement without.
#[derive(Clone, Debug)]
pub struct Moment {
    pub sql: String,
    /// The table afterwards.
    pub shape: Shape,
    /// Whether the application writes after this; not in the middle of a migration in several steps.
    pub is_open: bool,
    /// The field that it drops.
    pub drops: Option<usize>,
    /// Whether it removes all rows.
    pub empties: bool,
}

/// The migrations of a run, the same for all nodes.
pub fn plan(mix: &Mix, rng: &mut Rng) -> Vec<Moment> {
    let mut planner = Planner { shape: Shape::first(mix), moments: Vec::new(), added: 0 };
    planner.shape = Shape::first(mix);
    let all = [
        Class::AddColumn,
        Class::DropColumn,
        Class::RenameColumn,
        Class::Rebuild,
        Class::RebuildSteps,
        Class::DropTable,
        Class::RenameTable,
        Class::Retype,
        Class::NotNull,
    ];
    let mut wanted: Vec<Class> = all.into_iter().filter(|class| mix.has(*class)).collect();
    rng.shuffle(&mut wanted);
    for class in wanted {
        match class {
            Class::AddColumn => planner.add(rng),
            Class::DropColumn => planner.drop(rng),
            Class::RenameColumn => planner.rename(rng),
            Class::Rebuild => planner.rebuild(rng, false),
            Class::RebuildSteps => planner.rebuild(rng, true),
            Class::Retype => planner.retype(rng),
            Class::NotNull => planner.not_null(rng),
            Class::DropTable => planner.drop_table(rng),
            _ => planner.rename_table(),
        }
    }
    planner.moments
}

struct Planner {
    shape: Shape,
    moments: Vec<Moment>,
    added: usize,
}

impl Planner {
    fn push(&mut self, sql: String, is_open: bool) -> &mut Moment {
        let shape = self.shape.clone();
        self.moments.push(Moment { sql, shape, is_open, drops: None, empties: false });
        self.moments.last_mut().expect("it was pushed just now")
    }

    fn new_column(&mut self, rng: &mut Rng) -> Column {
        self.added += 1;
        let default = rng.bool().then(|| "fill".to_owned());
        let name = format!("d{}", self.added);
        let field = FIRST_ADDED_FIELD + self.added;
        Column { name, field, holds: Holds::Writes, default, kind: None, is_not_null: false }
    }

    fn add(&mut self, rng: &mut Rng) {
        let column = self.new_column(rng);
        let sql = format!("ALTER TABLE {TABLE} ADD COLUMN {}", declared(&column));
        self.shape.columns.push(column);
        self.push(sql, true);
    }

    fn drop(&mut self, rng: &mut Rng) {
        let may_go: Vec<usize> = (1..self.shape.columns.len())
            .filter(|at| self.shape.columns[*at].holds != Holds::Count)
            .collect();
        let at = may_go[rng.usize(..may_go.len())];
        let column = self.shape.columns.remove(at);
        let mut sql = format!("ALTER TABLE {TABLE} DROP COLUMN {};", column.name);
        if column.holds == Holds::Unique && std::mem::take(&mut self.shape.has_index) {
            if rng.bool() {
                sql = format!("BEGIN IMMEDIATE; DROP INDEX unique_u; {sql} COMMIT");
            } else {
                self.push("DROP INDEX unique_u".into(), true);
            }
        }
        self.push(sql, true).drops = Some(column.field);
    }

    fn rename(&mut self, rng: &mut Rng) {
        let may: Vec<usize> = (0..self.shape.columns.len())
            .filter(|at| self.shape.columns[*at].holds == Holds::Writes)
            .collect();
        let column = &mut self.shape.columns[may[rng.usize(..may.len())]];
        let new = format!("{}_new", column.name);
        let sql = format!("ALTER TABLE {TABLE} RENAME COLUMN {} TO {new}", column.name);
        column.name = new;
        self.push(sql, true);
    }

    fn rebuild(&mut self, rng: &mut Rng, in_steps: bool) {
        let names = self.shape.names();
        if rng.bool() {
            let column = self.new_column(rng);
            self.shape.columns.push(column);
        }
        self.build_again(rng, in_steps, &names, &names);
    }

    /// Another type for the column of every type, in which its values may look other.
    fn retype(&mut self, rng: &mut Rng) {
        let Some(column) = self.shape.columns.iter_mut().find(|column| column.holds == Holds::Anything)
        else {
            return;
        };
        column.kind = Some(["TEXT", "INTEGER", "REAL", "BLOB"][rng.usize(..4)]);
        let names = self.shape.names();
        self.build_again(rng, false, &names, &names);
    }

    /// A column without a default that must not be NULL: what other nodes know of a row lacks it.
    fn not_null(&mut self, rng: &mut Rng) {
        let names = self.shape.names();
        let column = Column { default: None, is_not_null: true, ..self.new_column(rng) };
        let (into, from) = (format!("{names}, {}", column.name), format!("{names}, 'filled'"));
        self.shape.columns.push(column);
        self.build_again(rng, false, &into, &from);
    }

    /// Makes the table again with `into` copied from `from`.
    fn build_again(&mut self, rng: &mut Rng, in_steps: bool, into: &str, from: &str) {
        let (names, values) = (into, from);
        let copy = |from: &str, to: &str| format!("INSERT INTO {to}({names}) SELECT {values} FROM {from};");
        let rename = |from: &str, to: &str| format!("ALTER TABLE {from} RENAME TO {to};");
        let rest = self.shape.create_rest();
        let steps = if rng.bool() {
            vec![
                format!("{} {}", self.shape.create("t_new"), copy(TABLE, "t_new")),
                format!("DROP TABLE {TABLE};"),
                rename("t_new", TABLE),
                rest,
            ]
        } else {
            // Indexes and triggers would go along with the old table and keep their names.
            let index = if self.shape.has_index { "DROP INDEX unique_u;" } else { "" };
            let trigger = if self.shape.has_trigger { "DROP TRIGGER counted;" } else { "" };
            vec![
                format!("{index} {trigger} {}", rename(TABLE, "t_old")),
                format!("{} {}", self.shape.create(TABLE), copy("t_old", TABLE)),
                "DROP TABLE t_old;".into(),
                rest,
            ]
        };
        if !in_steps {
            self.push(format!("BEGIN IMMEDIATE; {} COMMIT", steps.concat()), true);
            return;
        }
        let last = steps.len() - 1;
        for (at, sql) in steps.into_iter().enumerate() {
            self.push(format!("BEGIN IMMEDIATE; {sql} COMMIT"), at == last);
        }
    }

    fn drop_table(&mut self, rng: &mut Rng) {
        let (drop, create) = (format!("DROP TABLE {TABLE};"), self.shape.create(TABLE));
        let rest = self.shape.create_rest();
        if rng.bool() {
            let sql = format!("BEGIN IMMEDIATE; {drop} {create} {rest} COMMIT");
            self.push(sql, true).empties = true;
        } else {
            self.push(drop, false).empties = true;
            self.push(format!("{create} {rest}"), true);
        }
    }

    fn rename_table(&mut self) {
        self.push(format!("ALTER TABLE {TABLE} RENAME TO t_away"), false);
        self.push(format!("ALTER TABLE t_away RENAME TO {TABLE}"), true);
    }
}
