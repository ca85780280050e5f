//! What a unique index makes unique, in SQL that finds the rows which another row would collide with.

use std::borrow::Cow;

use rusqlite::{Connection, OptionalExtension};

use crate::quote::{identifier, joined};
use crate::table::value::Affinity;

/// A unique index (or the primary key, where equal keys need not be the same key).
#[derive(Clone, Debug)]
pub(crate) struct Unique {
    /// The table's name as an identifier.
    table: String,
    /// How to recognise the index in the schema; `None` if it belongs to the table's definition and cannot be dropped.
    pub(crate) created: Option<Created>,
    /// What is unique together.
    terms: Vec<Term>,
    /// The rows that a partial index covers.
    predicate: Option<String>,
    /// The columns that it has to do with.
    columns: Vec<Column>,
}

/// An index that was made by `CREATE INDEX`.
#[derive(Clone, Debug)]
pub(crate) struct Created {
    pub(crate) name: String,
    /// Where its row is in the schema. Only `VACUUM` moves it.
    pub(crate) rowid: i64,
}

/// One part of what an index makes unique.
#[derive(Clone, Debug)]
struct Term {
    /// A quoted column, or an expression in parentheses.
    sql: String,
    collation: String,
    is_column: bool,
    /// Whether it may compare values inside.
    compares: bool,
}

/// A column of the table.
#[derive(Clone, Debug)]
struct Column {
    name: String,
    quoted: String,
    affinity: Affinity,
    /// What `OR REPLACE` puts in the place of NULL, as a literal: after the triggers before the write have run.
    instead_of_null: Option<String>,
}

impl Unique {
    /// Reads an index. `None` for an index in a form this code does not understand.
    pub(crate) fn read(connection: &Connection, table: &str, index: &str) -> rusqlite::Result<Option<Self>> {
        // The key of a table without rowid is not in the schema.
        let listed: Option<(i64, Option<String>)> = connection
            .query_row(
                "SELECT rowid, sql FROM main.sqlite_schema WHERE type = 'index' AND name = ?1",
                [index],
                |row| Ok((row.get(0)?, row.get(1)?)),
            )
            .optional()?;
        let (rowid, sql) = listed.map_or((None, None), |(rowid, sql)| (Some(rowid), sql));
        let columns = columns(connection, table)?;
        let parts = sql.as_deref().map(|sql| definition(sql, &columns));
        let mut statement = connection.prepare(
            "SELECT seqno, cid, name, coll FROM pragma_index_xinfo(?1) WHERE key = 1 ORDER BY seqno",
        )?;
        let mut rows = statement.query([index])?;
        let mut terms = Vec::new();
        while let Some(row) = rows.next()? {
            let (position, name): (u32, Option<String>) = (row.get(0)?, row.get(2)?);
            let position = position as usize;
            let is_column = name.is_some();
            let sql = match (name, &parts) {
                (Some(name), _) => identifier(&name),
                (None, Some(Some((expressions, _)))) if position < expressions.len() => {
                    format!("({})", expressions[position])
                }
                _ => return Ok(None),
            };
            let compares = !is_column && compares(&sql);
            terms.push(Term { sql, collation: identifier(&row.get::<_, String>(3)?), is_column, compares });
        }
        let partial: bool = connection.query_row(
            "SELECT count(*) FROM pragma_index_list(?1) WHERE name = ?2 AND partial",
            [table, index],
            |row| row.get(0),
        )?;
        let predicate = match parts {
            Some(Some((_, predicate))) => predicate,
            _ => None,
        };
        if partial != predicate.is_some() {
            return Ok(None);
        }
        let texts: Vec<&String> = terms.iter().map(|term| &term.sql).chain(&predicate).collect();
        let columns = columns
            .into_iter()
            .filter(|column| texts.iter().any(|text| has_name(text, &column.name)))
            .collect();
        let created = rowid.zip(sql).map(|(rowid, _)| Created { name: index.to_owned(), rowid });
        Ok(Some(Self { table: identifier(table), created, terms, predicate, columns }))
    }

    /// An SQL condition on a row of the table: it collides with the row that `other` selects (what may stand in a `FROM`
    /// clause, with exactly one row and all columns of the table).
    pub(crate) fn collides_with(&self, other: &str) -> String {
        let other = format!("{other} AS {}", self.table);
        let equal = |Term { sql, collation, .. }: &Term| {
            format!("{sql} = (SELECT {sql} FROM {other}) COLLATE {collation}")
        };
        let mut conditions: Vec<String> = self.terms.iter().map(equal).collect();
        if let Some(predicate) = &self.predicate {
            conditions.push(format!("({predicate}) AND (SELECT ({predicate}) FROM {other})"));
        }
        conditions.join(" AND ")
    }

    /// An SQL condition on a row of the table, in a trigger: it may collide with the row that is going to be written.
    ///
    /// Whether a partial index covers the new row is not asked: `NEW` does not show a number that SQLite has still to draw.
    pub(crate) fn collides_with_new(&self) -> String {
        let equal = |term: &Term| format!("{} = {} COLLATE {}", term.sql, self.of_new(term), term.collation);
        let mut conditions: Vec<String> = self.terms.iter().map(equal).collect();
        conditions.extend(self.predicate.iter().map(|predicate| format!("({predicate})")));
        conditions.join(" AND ")
    }

    /// What a term is of the row that is going to be written. In a query of its own, so that names are looked for in the
    /// trigger's `NEW` first and then further out, whatever tables stand in `FROM`.
    fn of_new(&self, term: &Term) -> String {
        let columns: Vec<&Column> =
            self.columns.iter().filter(|column| has_name(&term.sql, &column.name)).collect();
        if term.is_column {
            return format!("(SELECT {})", joined(columns.iter().map(|column| column.of_new()), ""));
        }
        let of_row = |value: &dyn Fn(&Column) -> String| {
            let values = columns.iter().map(|column| format!("{} AS {}", value(column), column.quoted));
            // An index may be on nothing but a constant.
            let values = if columns.is_empty() { "NULL".to_owned() } else { joined(values, ", ") };
            format!("(SELECT {} FROM (SELECT {values}) AS {})", term.sql, self.table)
        };
        let plain = of_row(&Column::of_new);
        let typed: Vec<String> = columns.iter().filter_map(|column| column.is_of_type()).collect();
        if !term.compares || typed.is_empty() {
            return plain;
        }
        // `NEW` has no affinity, so it would compare otherwise than the column does; `CAST` gives it one. It must not change
        // a value that is not of the column's type.
        format!("CASE WHEN {} THEN {} ELSE {plain} END", typed.join(" AND "), of_row(&Column::cast))
    }

    /// A `SELECT` of NULL for each column that the index has to do with: where a name leads to that a column lacks.
    pub(crate) fn nulls(&self) -> String {
        let nulls = self.columns.iter().map(|column| format!("NULL AS {}", column.quoted));
        // An index may be on nothing but a constant.
        let nulls = joined(nulls, ", ");
        format!("SELECT {}", if nulls.is_empty() { "NULL" } else { &nulls })
    }
}

impl Column {
    /// The value in the row that is going to be written.
    fn of_new(&self) -> String {
        match &self.instead_of_null {
            Some(literal) => format!("coalesce(NEW.{}, {literal})", self.quoted),
            None => format!("NEW.{}", self.quoted),
        }
    }

    /// The value with the column's affinity.
    fn cast(&self) -> String {
        match self.affinity {
            Affinity::Blob => self.of_new(),
            Affinity::Text => format!("CAST({} AS TEXT)", self.of_new()),
            Affinity::Integer | Affinity::Numeric => format!("CAST({} AS NUMERIC)", self.of_new()),
            Affinity::Real => format!("CAST({} AS REAL)", self.of_new()),
        }
    }

    /// A condition: [`Column::cast`] does not change the value. `None` if it never does.
    fn is_of_type(&self) -> Option<String> {
        let types = match self.affinity {
            Affinity::Blob => return None,
            Affinity::Text => "'text', 'null'",
            Affinity::Integer | Affinity::Numeric => "'integer', 'real', 'null'",
            Affinity::Real => "'real', 'null'",
        };
        Some(format!("(SELECT typeof({})) IN ({types})", self.of_new()))
    }
}

/// Whether an expression is a number, a text or a blob, perhaps with signs and parentheses.
fn is_literal(expression: &str) -> bool {
    tokens(expression).into_iter().all(|(_, token)| {
        token.starts_with(['\'', '(', ')', '+', '-', '.'])
            || token.starts_with(|first: char| first.is_ascii_digit())
            || token.eq_ignore_ascii_case("x")
    })
}

/// Whether an expression may compare values, or a `CASE` in it.
fn compares(expression: &str) -> bool {
    let words = ["in", "is", "between", "case"];
    tokens(expression).into_iter().any(|(_, token)| {
        matches!(token, "=" | "<" | ">" | "!") || words.iter().any(|word| token.eq_ignore_ascii_case(word))
    })
}

fn columns(connection: &Connection, table: &str) -> rusqlite::Result<Vec<Column>> {
    let strict: bool = connection.query_row(
        "SELECT strict FROM pragma_table_list WHERE schema = 'main' AND name = ?1",
        [table],
        |row| row.get(0),
    )?;
    let mut statement = connection.prepare(
        "SELECT name, type, CASE WHEN \"notnull\" THEN dflt_value END FROM pragma_table_xinfo(?1) WHERE hidden <> 1",
    )?;
    let rows = statement.query_map([table], |row| {
        let (name, declared, default): (String, String, Option<String>) =
            (row.get(0)?, row.get(1)?, row.get(2)?);
        Ok(Column {
            quoted: identifier(&name),
            name,
            affinity: Affinity::of(&declared, strict),
            // A default that differs from row to row is not known beforehand.
            instead_of_null: default.filter(|default| is_literal(default)),
        })
    })?;
    rows.collect()
}

/// Whether SQL has a name in it.
fn has_name(sql: &str, name: &str) -> bool {
    tokens(sql).into_iter().any(|(_, token)| is_name(token, name))
}

/// The terms and the `WHERE` of a `CREATE INDEX` statement.
fn definition(sql: &str, columns: &[Column]) -> Option<(Vec<String>, Option<String>)> {
    let (mut terms, mut predicate) = (Vec::new(), None);
    let (mut depth, mut from, mut closed) = (0usize, 0, None);
    for (at, token) in tokens(sql) {
        match token {
            "(" => {
                depth += 1;
                if depth == 1 && closed.is_none() {
                    from = at + 1;
                }
            }
            ")" | "," if depth == 1 && closed.is_none() => {
                terms.push(part(&sql[from..at], columns));
                from = at + 1;
                if token == ")" {
                    depth = 0;
                    closed = Some(at);
                }
            }
            ")" => depth = depth.checked_sub(1)?,
            word if depth == 0
                && closed.is_some()
                && predicate.is_none()
                && word.eq_ignore_ascii_case("where") =>
            {
                predicate = Some(part(&sql[at + word.len()..], columns));
            }
            _ => {}
        }
    }
    closed.map(|_| (terms, predicate))
}

/// An index term or condition on its own: without `ASC` or `DESC` behind it (a `COLLATE` may stay: the outer one that
/// follows is the same), without comments around it, and with texts in the quotes of texts. In an index SQLite takes `"x"`
/// for a text if there is no such column; in a trigger only if the application has not switched that off.
fn part(text: &str, columns: &[Column]) -> String {
    let mut tokens = tokens(text);
    if let Some((_, last)) = tokens.last()
        && tokens.len() > 1
        && (last.eq_ignore_ascii_case("asc") || last.eq_ignore_ascii_case("desc"))
    {
        tokens.pop();
    }
    let mut out = String::with_capacity(text.len());
    let mut from = tokens.first().map_or(text.len(), |(at, _)| *at);
    for (place, (at, token)) in tokens.iter().enumerate() {
        out.push_str(&text[from..*at]);
        let next = tokens.get(place + 1).map_or("", |(_, next)| *next);
        let before = place.checked_sub(1).map_or("", |before| tokens[before].1);
        let may_be_text = token.starts_with('"') && !matches!(next, "(" | ".") && before != ".";
        if may_be_text && columns.iter().all(|column| !is_name(token, &column.name)) {
            out.push_str(&format!("'{}'", name(token).replace('\'', "''")));
        } else {
            out.push_str(token);
        }
        from = at + token.len();
    }
    out
}

/// Whether a token is a name: that one.
pub(crate) fn is_name(token: &str, other: &str) -> bool {
    !token.starts_with('\'') && name(token).eq_ignore_ascii_case(other)
}

/// What a token names: the token without the quotes of names.
pub(crate) fn name(token: &str) -> Cow<'_, str> {
    let inner = |close: usize| token.get(1..token.len().saturating_sub(close)).unwrap_or(token);
    match token.as_bytes().first() {
        Some(b'"') if token.len() > 1 => Cow::Owned(inner(1).replace("\"\"", "\"")),
        Some(b'`') if token.len() > 1 => Cow::Owned(inner(1).replace("``", "`")),
        Some(b'[') if token.len() > 1 => Cow::Borrowed(inner(1)),
        _ => Cow::Borrowed(token),
    }
}

/// The tokens of SQL with their offsets: words, single signs, and quoted text as a whole. Comments are left out.
pub(crate) fn tokens(sql: &str) -> Vec<(usize, &str)> {
    let bytes = sql.as_bytes();
    let (mut found, mut at) = (Vec::new(), 0);
    while at < bytes.len() {
        let rest = &sql[at..];
        let end = match bytes[at] {
            quote @ (b'\'' | b'"' | b'`') => quoted_end(bytes, at, quote),
            b'[' => rest.find(']').map_or(bytes.len(), |end| at + end + 1),
            b'-' if rest.starts_with("--") => {
                at = rest.find('\n').map_or(bytes.len(), |end| at + end + 1);
                continue;
            }
            b'/' if rest.starts_with("/*") => {
                at = rest.find("*/").map_or(bytes.len(), |end| at + end + 2);
                continue;
            }
            byte if byte.is_ascii_whitespace() => {
                at += 1;
                continue;
            }
            byte if is_word(byte) => at + bytes[at..].iter().take_while(|byte| is_word(**byte)).count(),
            _ => at + 1,
        };
        found.push((at, &sql[at..end]));
        at = end;
    }
    found
}

fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || byte >= 0x80
}

fn quoted_end(bytes: &[u8], from: usize, quote: u8) -> usize {
    let mut at = from + 1;
    while at < bytes.len() {
        if bytes[at] == quote {
            if bytes.get(at + 1) != Some(&quote) {
                return at + 1;
            }
            at += 1;
        }
        at += 1;
    }
    bytes.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_index_definition_is_taken_apart_whatever_is_quoted_in_it() {
        let column = |name: &str| Column {
            name: name.to_owned(),
            quoted: identifier(name),
            affinity: Affinity::Text,
            instead_of_null: None,
        };
        let columns = [column("b,c"), column("D"), column("h \"i\"")];
        let (terms, predicate) = definition(
            r#"CREATE UNIQUE INDEX "a (where" ON t ("b,c" COLLATE NOCASE DESC, lower("d" || ')'), -- x,y
               substr(e, 1, 2) /* z */ asc, `q` -- last
               ) WHERE f IS NOT NULL AND (g > "it's") AND "t"."x" = "h ""i""" -- end"#,
            &columns,
        )
        .unwrap();
        assert_eq!(terms, [r#""b,c" COLLATE NOCASE"#, r#"lower("d" || ')')"#, "substr(e, 1, 2)", "`q`"]);
        assert_eq!(predicate.as_deref(), Some(r#"f IS NOT NULL AND (g > 'it''s') AND "t"."x" = "h ""i""""#));
        assert_eq!(definition("CREATE UNIQUE INDEX i ON t(a)", &[]).unwrap(), (vec!["a".to_owned()], None));
    }

    #[test]
    fn the_condition_finds_exactly_the_rows_that_collide() {
        let connection = rusqlite::Connection::open_in_memory().unwrap();
        connection
            .execute_batch(
                "CREATE TABLE t(k INTEGER PRIMARY KEY, a TEXT, b INTEGER);
                 CREATE UNIQUE INDEX i ON t(lower(a), b COLLATE BINARY DESC) WHERE b > 10;
                 INSERT INTO t VALUES (1, 'Ann', 5), (2, 'ANN', 11), (3, 'Bob', 11)",
            )
            .unwrap();
        let unique = Unique::read(&connection, "t", "i").unwrap().unwrap();
        let sql = format!("SELECT k FROM t WHERE {}", unique.collides_with("(SELECT ?1 AS a, ?2 AS b)"));
        let find = |a: &str, b: i64| -> Vec<i64> {
            let mut statement = connection.prepare(&sql).unwrap();
            let rows = statement.query_map((a, b), |row| row.get(0)).unwrap();
            rows.map(Result::unwrap).collect()
        };
        assert_eq!(find("ann", 11), [2]);
        assert_eq!(find("ann", 5), [0i64; 0]);
        assert_eq!(find("bob", 11), [3]);
        assert_eq!(find("carl", 11), [0i64; 0]);
    }
}
