//! A column of a watched table: what SQL and documents call it, and what it holds where a document says nothing.

use rusqlite::Connection;

use crate::failed::{Outcome, While};
use crate::fields::map::Map;
use crate::table::value::{Affinity, Sql, write_json};

/// A column whose value travels: every one that is not generated.
#[derive(Clone, Debug)]
pub(crate) struct Column {
    /// What SQL calls it.
    pub(crate) name: String,
    /// What documents call it, on every node and for good.
    pub(crate) field: String,
    pub(crate) affinity: Affinity,
    /// Zero if it was there at the first watch, else its place in the order in which columns were added.
    pub(crate) added: i64,
    /// The default as an SQL expression.
    pub(crate) default: Option<String>,
    /// What it holds, as JSON, in the row of a document that does not have its field: the same on every node. `None` if nothing
    /// says so; then a row keeps what it has.
    pub(crate) absent: Option<Vec<u8>>,
    /// `absent` is what a migration filled in, which the table's definition does not say.
    pub(crate) is_filled: bool,
    /// Whether a migration has given each row a value of its own, which no document says.
    pub(crate) is_computed: bool,
    /// Whether it is declared to hold JSON, which merges inside.
    pub(crate) is_json: bool,
}

/// A column as the schema has it.
#[derive(Clone, Debug)]
pub(crate) struct RawColumn {
    pub(crate) name: String,
    pub(crate) declared: String,
    default: Option<String>,
    not_null: bool,
    pub(super) position_in_key: i64,
    pub(crate) generated: bool,
}

/// The columns of a table.
pub(crate) fn raw_columns(connection: &Connection, table: &str) -> Outcome<Vec<RawColumn>> {
    read_columns(connection, table).doing("reading a table's columns")
}

fn read_columns(connection: &Connection, table: &str) -> rusqlite::Result<Vec<RawColumn>> {
    let mut statement = connection.prepare(
        "SELECT name, type, dflt_value, pk, hidden, \"notnull\" FROM pragma_table_xinfo(?1) WHERE hidden <> 1 ORDER BY cid",
    )?;
    let rows = statement.query_map([table], |row| {
        Ok(RawColumn {
            name: row.get(0)?,
            declared: row.get(1)?,
            default: row.get(2)?,
            not_null: row.get(5)?,
            position_in_key: row.get(3)?,
            generated: row.get::<_, i64>(4)? > 1,
        })
    })?;
    rows.collect()
}

/// A column with its field.
pub(super) fn column_of(connection: &Connection, raw: &RawColumn, strict: bool, map: &Map) -> Column {
    let affinity = Affinity::of(&raw.declared, strict);
    let known = map.of_column(&raw.name);
    let fill = known.and_then(|field| field.known_fill.as_ref().or(field.fill.as_ref()));
    let default = raw.default.as_deref().and_then(|default| constant_default(connection, affinity, default));
    let is_computed = known.is_some_and(|field| field.is_computed);
    let absent = match (default, fill) {
        (Some(default), _) => Some(default),
        (None, Some(fill)) => Some(fill.clone().into_bytes()),
        (None, None) if is_computed => None,
        (None, None) => (raw.default.is_none() && !raw.not_null).then(|| b"null".to_vec()),
    };
    Column {
        name: raw.name.clone(),
        field: known.map_or_else(|| raw.name.clone(), |field| field.field.clone()),
        affinity,
        added: known.map_or(0, |field| field.added),
        is_filled: absent.is_some() && raw.default.is_none() && fill.is_some(),
        absent,
        is_computed,
        is_json: raw.declared.to_ascii_uppercase().contains("JSON"),
        default: raw.default.clone(),
    }
}

/// The value of a constant default, as a column holds it, as JSON. The clock's functions are not constant.
fn constant_default(connection: &Connection, affinity: Affinity, default: &str) -> Option<Vec<u8>> {
    let bare = default.trim().trim_start_matches(['+', '-', '(', ' ']);
    let constant = bare.starts_with(|c: char| c.is_ascii_digit() || matches!(c, '\'' | '.'))
        || ["null", "true", "false"].iter().any(|word| bare.eq_ignore_ascii_case(word))
        || bare.starts_with("x'")
        || bare.starts_with("X'");
    if !constant {
        return None;
    }
    let sql = format!("SELECT {}", affinity.stored(&format!("({default})")));
    // An expression that does not work outside of its table is no constant.
    let value = connection.query_row(&sql, [], |row| Ok(Sql::from(row.get_ref(0)?).into_owned())).ok()?;
    let mut out = Vec::new();
    write_json(&mut out, value.as_ref());
    Some(out)
}
