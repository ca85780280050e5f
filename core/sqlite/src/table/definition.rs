//! What the store knows of a watched table. Read again whenever the schema changes.

use std::sync::OnceLock;

use entgldb_replica::id::Collection;
use rusqlite::Connection;

use crate::failed::{Outcome, While};
use crate::fields::map::{self, Map};
use crate::quote::{identifier, identifiers, joined};
use crate::table::collation;
use crate::table::column::{Column, column_of, raw_columns};
use crate::table::key::{Encoding, KeyForm, note_sql};
use crate::table::unique::{Unique, tokens};
use crate::table::value::{Affinity, Sql, write_text};

/// A reference to another table.
#[derive(Clone, Debug)]
pub(crate) struct Reference {
    pub(crate) parent: String,
    /// SQL that finds a row whose parent is missing: any one, with its key columns.
    pub(crate) dangling: String,
    /// SQL that says whether the row with the key `?1`, `?2` ... is one.
    pub(crate) check: String,
}

/// A watched table.
#[derive(Clone, Debug)]
pub(crate) struct Table {
    /// Number of the collection, which also marks its notes in the outbox.
    pub(crate) no: i64,
    pub(crate) collection: Collection,
    /// The table's name, which another program may have changed since it was first watched.
    pub(crate) name: String,
    /// The name as an identifier.
    pub(crate) quoted: String,
    pub(crate) columns: Vec<Column>,
    /// Whether a constraint in its definition says what to do on a collision.
    pub(crate) names_conflict_policy: bool,
    /// The `CREATE TABLE` statement from its column list on.
    pub(crate) body: String,
    /// The key columns, as positions in `columns`, in the order of the primary key.
    pub(crate) key: Vec<usize>,
    pub(crate) form: KeyForm,
    pub(crate) encoding: Encoding,
    /// Whether rows with equal key columns have the same document key. Not so with collations, or if the columns do not
    /// tell 1 from 1.0.
    pub(crate) key_is_exact: bool,
    /// Unique indexes besides the key (and the key, if it is not exact).
    pub(crate) uniques: Vec<Unique>,
    pub(crate) references: Vec<Reference>,
    /// Whether the application has triggers on it.
    pub(crate) has_application_triggers: bool,
    /// `"field":` as JSON for each column, and its position, sorted by field.
    pub(crate) fields: Vec<(Vec<u8>, usize)>,
    /// Other names of fields, with their column's position, the oldest first.
    pub(crate) aliases: Vec<(String, usize)>,
    /// Fields whose columns were dropped here.
    pub(crate) gone: Vec<String>,
    /// SQL condition on the key columns `?1`, `?2` ...
    pub(crate) key_matches: String,
    /// `SELECT` of all columns of the row with the key `?1`, `?2` ...
    pub(crate) select: String,
    /// `DELETE` of that row.
    pub(crate) delete: String,
    /// Insert of a row with a value for every column, or change of the one that has its key. Made when it is first used.
    pub(crate) upsert: OnceLock<String>,
    /// Insert of a row with a value for every column. Made when it is first used.
    pub(crate) insert: OnceLock<String>,
}

/// Why a table cannot be watched.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Unwatchable {
    Missing,
    View,
    Virtual,
    NoKey,
    /// It needs this collation, which only its own application has: it can't be read or written without.
    Collation(String),
}

/// A collation of a table's indexes that this program does not have.
fn unknown_collation(connection: &Connection, table: &str) -> Outcome<Option<String>> {
    let collations: Vec<(String, bool)> = connection
        .prepare_cached(
            "SELECT x.coll, max(x.key) FROM pragma_index_list(?1) i, pragma_index_xinfo(i.name) x
             WHERE x.coll IS NOT NULL GROUP BY x.coll",
        )
        .and_then(|mut statement| {
            statement.query_map([table], |row| Ok((row.get(0)?, row.get(1)?)))?.collect()
        })
        .doing("reading a table's indexes")?;
    let is_known = |name: &str, orders: bool| {
        collation::is_built_in(name) || (!orders && collation::has(connection, name))
    };
    Ok(collations.into_iter().find(|(name, orders)| !is_known(name, *orders)).map(|(name, _)| name))
}

/// The name of a table in the schema's own spelling, and whether it is strict.
pub(crate) fn find(connection: &Connection, name: &str) -> Outcome<Result<(String, bool), Unwatchable>> {
    let mut statement = connection
        .prepare("SELECT name, type, strict FROM pragma_table_list WHERE schema = 'main' AND name = ?1 COLLATE NOCASE")
        .doing("looking for a table")?;
    let mut rows = statement.query([name]).doing("looking for a table")?;
    let Some(row) = rows.next().doing("looking for a table")? else { return Ok(Err(Unwatchable::Missing)) };
    let read = || Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?, row.get::<_, bool>(2)?));
    let (name, kind, strict) = read().doing("looking for a table")?;
    Ok(match kind.as_str() {
        "table" => Ok((name, strict)),
        "view" => Err(Unwatchable::View),
        _ => Err(Unwatchable::Virtual),
    })
}

/// The table of a collection: the one of that name, or the one that it was renamed to.
pub(crate) fn find_watched(
    connection: &Connection,
    no: i64,
    collection: &Collection,
) -> Outcome<Result<(String, bool), Unwatchable>> {
    let found = find(connection, collection.as_str())?;
    if found.is_err()
        && let Some(renamed) = map::renamed_table(connection, no)?
    {
        return find(connection, &renamed);
    }
    Ok(found)
}

impl Table {
    /// Reads a table's definition, and what is known of its fields.
    pub(crate) fn read(
        connection: &Connection,
        no: i64,
        collection: &Collection,
        encoding: Encoding,
    ) -> Outcome<Result<Self, Unwatchable>> {
        let map = Map::read(connection, no)?;
        Self::read_with(connection, (no, collection), &map, encoding)
    }

    /// Reads a table's definition with these fields.
    pub(crate) fn read_with(
        connection: &Connection,
        (no, collection): (i64, &Collection),
        map: &Map,
        encoding: Encoding,
    ) -> Outcome<Result<Self, Unwatchable>> {
        let (name, strict) = match find_watched(connection, no, collection)? {
            Ok(found) => found,
            Err(unwatchable) => return Ok(Err(unwatchable)),
        };
        let raw = raw_columns(connection, &name)?;
        let mut keyed: Vec<(i64, usize)> = Vec::new();
        let mut columns = Vec::new();
        for column in raw.iter().filter(|column| !column.generated) {
            if column.position_in_key > 0 {
                keyed.push((column.position_in_key, columns.len()));
            }
            columns.push(column_of(connection, column, strict, map));
        }
        if keyed.is_empty() {
            return Ok(Err(Unwatchable::NoKey));
        }
        if let Some(collation) = unknown_collation(connection, &name)? {
            return Ok(Err(Unwatchable::Collation(collation)));
        }
        keyed.sort_unstable();
        let key: Vec<usize> = keyed.into_iter().map(|(_, position)| position).collect();
        let aliases = aliases_of(&columns, map);
        let gone = map.fields.iter().filter(|field| field.column.is_none());
        let gone = gone.map(|field| field.field.clone()).collect();
        let read = Self::assemble(connection, (no, collection, &name), columns, key, encoding);
        Ok(Ok(Self { aliases, gone, ..read.doing("reading a table")? }))
    }

    fn assemble(
        connection: &Connection,
        (no, collection, name): (i64, &Collection, &str),
        columns: Vec<Column>,
        key: Vec<usize>,
        encoding: Encoding,
    ) -> rusqlite::Result<Self> {
        let indexes = Indexes::read(connection, name, key.len())?;
        let affinities: Vec<Affinity> = key.iter().map(|position| columns[*position].affinity).collect();
        let form = match affinities.as_slice() {
            [Affinity::Text] => KeyForm::Text,
            [Affinity::Integer] => KeyForm::Integer { rowid: indexes.key.is_none() },
            _ => KeyForm::Array(affinities.clone()),
        };
        let key_is_exact = indexes.key_is_binary
            && (indexes.key.is_none() || affinities.iter().all(|affinity| *affinity != Affinity::Blob));
        let mut uniques = indexes.uniques;
        if !key_is_exact && let Some(index) = &indexes.key {
            uniques.extend(Unique::read(connection, name, index)?);
        }
        let quoted = identifier(name);
        let body = body(connection, name)?;
        let child_key: Vec<String> =
            key.iter().map(|position| format!("child.{}", identifier(&columns[*position].name))).collect();
        let key_matches = key_condition(&columns, &key, key_is_exact);
        let select = format!(
            "SELECT {} FROM main.{quoted} WHERE {key_matches}",
            identifiers(columns.iter().map(|column| &*column.name))
        );
        Ok(Self {
            no,
            delete: format!("DELETE FROM main.{quoted} WHERE {key_matches}"),
            upsert: OnceLock::new(),
            insert: OnceLock::new(),
            collection: collection.clone(),
            name: name.to_owned(),
            aliases: Vec::new(),
            gone: Vec::new(),
            names_conflict_policy: tokens(&body)
                .iter()
                .any(|(_, word)| word.eq_ignore_ascii_case("conflict")),
            body,
            fields: sorted_fields(&columns),
            references: references(connection, name, &child_key)?,
            has_application_triggers: has_application_triggers(connection, name)?,
            quoted,
            columns,
            key,
            form,
            encoding,
            key_is_exact,
            uniques,
            key_matches,
            select,
        })
    }

    /// The column for a member of a document, and how well the name fits: another name of a field, the younger the better, or the
    /// field's own, or one that differs in capitals only, which SQLite does not tell apart.
    pub(crate) fn column_for(&self, member: &str) -> Option<(usize, usize)> {
        if let Some(position) = self.columns.iter().position(|column| column.field == member) {
            return Some((position, 1));
        }
        if let Some(age) = self.aliases.iter().position(|(alias, _)| alias == member) {
            return Some((self.aliases[age].1, age + 2));
        }
        let same = |name: &str| name.eq_ignore_ascii_case(member);
        let of_field = self.columns.iter().position(|column| same(&column.field));
        let of_alias = || self.aliases.iter().find(|(alias, _)| same(alias)).map(|(_, position)| *position);
        of_field.or_else(of_alias).map(|position| (position, 0))
    }

    /// The same table with columns that are called otherwise in documents.
    pub(crate) fn with_columns(&self, columns: Vec<Column>) -> Self {
        Self { fields: sorted_fields(&columns), columns, ..self.clone() }
    }

    /// The table and a row with only these columns, which are sorted.
    pub(crate) fn only<'r>(&self, row: &[Sql<'r>], columns: &[usize]) -> (Self, Vec<Sql<'r>>) {
        let place = |position: &usize| columns.binary_search(position).ok();
        let named = |(name, position): &(String, usize)| Some((name.clone(), place(position)?));
        let table = Self {
            columns: columns.iter().map(|position| self.columns[*position].clone()).collect(),
            fields: self
                .fields
                .iter()
                .filter_map(|(name, position)| Some((name.clone(), place(position)?)))
                .collect(),
            key: self.key.iter().filter_map(place).collect(),
            aliases: self.aliases.iter().filter_map(named).collect(),
            ..self.clone()
        };
        (table, columns.iter().map(|position| row[*position].clone()).collect())
    }

    /// The key columns, quoted.
    pub(crate) fn key_columns(&self) -> Vec<String> {
        self.key.iter().map(|position| identifier(&self.columns[*position].name)).collect()
    }

    /// SQL that notes the key of `row` (`NEW.`, `OLD.` or nothing) as one value.
    pub(crate) fn key_note(&self, row: &str) -> String {
        note_sql(row, &self.key_columns())
    }
}

/// What the indexes of a table make unique.
struct Indexes {
    /// The index behind the primary key; `None` if that is the rowid.
    key: Option<String>,
    key_is_binary: bool,
    uniques: Vec<Unique>,
}

impl Indexes {
    fn read(connection: &Connection, table: &str, key_columns: usize) -> rusqlite::Result<Self> {
        let mut found = Self { key: None, key_is_binary: true, uniques: Vec::new() };
        let mut statement = connection
            .prepare("SELECT name, origin FROM pragma_index_list(?1) WHERE \"unique\" ORDER BY seq")?;
        let mut rows = statement.query([table])?;
        while let Some(row) = rows.next()? {
            let (name, origin): (String, String) = (row.get(0)?, row.get(1)?);
            if origin == "pk" {
                let binary: i64 = connection.query_row(
                    "SELECT count(*) FROM pragma_index_xinfo(?1) WHERE key = 1 AND coll = 'BINARY'",
                    [&name],
                    |row| row.get(0),
                )?;
                found.key_is_binary = binary == key_columns.cast_signed() as i64;
                found.key = Some(name);
            } else {
                found.uniques.extend(Unique::read(connection, table, &name)?);
            }
        }
        Ok(found)
    }
}

/// The other names of the columns' fields.
fn aliases_of(columns: &[Column], map: &Map) -> Vec<(String, usize)> {
    let mut aliases = Vec::new();
    for (position, column) in columns.iter().enumerate() {
        for name in map.names_of(&column.field) {
            // A name that is a field of its own here is no other's.
            if columns.iter().all(|other| other.field != name) {
                aliases.push((name.to_owned(), position));
            }
        }
    }
    aliases
}

fn sorted_fields(columns: &[Column]) -> Vec<(Vec<u8>, usize)> {
    let mut order: Vec<usize> = (0..columns.len()).collect();
    order.sort_by(|a, b| columns[*a].field.as_bytes().cmp(columns[*b].field.as_bytes()));
    let prefix = |position: usize| {
        let mut name = Vec::new();
        write_text(&mut name, &columns[position].field);
        name.push(b':');
        (name, position)
    };
    order.into_iter().map(prefix).collect()
}

/// Where equality of SQL is not equality of keys, the first comparison finds the row by its index and the others make sure.
fn key_condition(columns: &[Column], key: &[usize], exact: bool) -> String {
    let condition = |(number, position): (usize, &usize)| {
        let (column, number) = (identifier(&columns[*position].name), number + 1);
        if exact {
            format!("{column} = ?{number}")
        } else {
            format!(
                "{column} = ?{number} AND {column} = ?{number} COLLATE BINARY AND typeof({column}) = typeof(?{number})"
            )
        }
    };
    joined(key.iter().enumerate().map(condition), " AND ")
}

fn body(connection: &Connection, table: &str) -> rusqlite::Result<String> {
    let sql: String = connection.query_row(
        "SELECT sql FROM main.sqlite_schema WHERE type = 'table' AND name = ?1",
        [table],
        |row| row.get(0),
    )?;
    let from = tokens(&sql).into_iter().find(|(_, token)| *token == "(").map_or(sql.len(), |(at, _)| at);
    Ok(sql[from..].to_owned())
}

fn has_application_triggers(connection: &Connection, table: &str) -> rusqlite::Result<bool> {
    connection.query_row(
        "SELECT EXISTS(SELECT 1 FROM main.sqlite_schema WHERE type = 'trigger' AND tbl_name = ?1 COLLATE NOCASE
         AND substr(name, 1, 9) <> '_entgldb_')",
        [table],
        |row| row.get(0),
    )
}

/// The child's columns, and the parent's where they are named.
type ColumnPairs = Vec<(String, Option<String>)>;

fn references(
    connection: &Connection,
    table: &str,
    child_key: &[String],
) -> rusqlite::Result<Vec<Reference>> {
    let mut statement = connection.prepare(
        "SELECT id, \"table\", \"from\", \"to\" FROM pragma_foreign_key_list(?1) ORDER BY id, seq",
    )?;
    let mut rows = statement.query([table])?;
    let mut found: Vec<(i64, String, ColumnPairs)> = Vec::new();
    while let Some(row) = rows.next()? {
        let (id, pair) = (row.get(0)?, (row.get(2)?, row.get(3)?));
        match found.last_mut() {
            Some((last, _, pairs)) if *last == id => pairs.push(pair),
            _ => found.push((id, row.get(1)?, vec![pair])),
        }
    }
    let mut references = Vec::new();
    for (_, parent, pairs) in found {
        references.extend(reference(connection, table, child_key, parent, &pairs)?);
    }
    Ok(references)
}

/// `None` if the parent does not exist or the columns do not pair up: SQLite would not enforce it either.
fn reference(
    connection: &Connection,
    table: &str,
    child_key: &[String],
    parent: String,
    pairs: &[(String, Option<String>)],
) -> rusqlite::Result<Option<Reference>> {
    let mut statement =
        connection.prepare("SELECT name FROM pragma_table_info(?1) WHERE pk > 0 ORDER BY pk")?;
    let parent_key: Vec<String> =
        statement.query_map([&parent], |row| row.get(0))?.collect::<Result<_, _>>()?;
    let mut conditions = Vec::new();
    let mut present = Vec::new();
    for (position, (from, to)) in pairs.iter().enumerate() {
        let Some(to) = to.as_ref().or(parent_key.get(position)) else { return Ok(None) };
        conditions.push(format!("parent.{} = child.{}", identifier(to), identifier(from)));
        present.push(format!("child.{} IS NOT NULL", identifier(from)));
    }
    let exists: bool = connection.query_row(
        "SELECT EXISTS(SELECT 1 FROM pragma_table_list WHERE schema = 'main' AND name = ?1 COLLATE NOCASE)",
        [&parent],
        |row| row.get(0),
    )?;
    let dangling = format!(
        "SELECT {} FROM main.{} AS child WHERE {} AND NOT EXISTS (SELECT 1 FROM main.{} AS parent WHERE {})",
        child_key.join(", "),
        identifier(table),
        present.join(" AND "),
        identifier(&parent),
        conditions.join(" AND ")
    );
    let of_key =
        child_key.iter().enumerate().map(|(number, column)| format!(" AND {column} = ?{}", number + 1));
    let check = format!("{dangling}{}", joined(of_key, ""));
    Ok(exists.then_some(Reference { parent, dangling, check }))
}
