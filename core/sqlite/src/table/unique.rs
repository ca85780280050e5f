//! What a unique index makes unique, in SQL that finds the rows which another row would collide with.

use rusqlite::Connection;

use crate::quote::identifier;

/// A unique index (or the primary key, where equal keys need not be the same key).
#[derive(Clone, Debug)]
pub(crate) struct Unique {
    /// What is unique together.
    terms: Vec<Term>,
    /// The rows that a partial index covers.
    predicate: Option<String>,
}

/// One part of what an index makes unique.
#[derive(Clone, Debug)]
struct Term {
    /// A quoted column, or an expression in parentheses.
    sql: String,
    collation: String,
    is_column: bool,
}

impl Unique {
    /// Reads an index. `None` for an index in a form this code does not understand.
    pub(crate) fn read(connection: &Connection, index: &str) -> rusqlite::Result<Option<Self>> {
        let sql: Option<String> = connection.query_row(
            "SELECT sql FROM sqlite_schema WHERE type = 'index' AND name = ?1",
            [index],
            |row| row.get(0),
        )?;
        let parts = sql.as_deref().map(definition);
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
            terms.push(Term { sql, collation: identifier(&row.get::<_, String>(3)?), is_column });
        }
        let partial: bool = connection
            .query_row("SELECT count(*) FROM sqlite_schema s, pragma_index_list(s.tbl_name) l WHERE s.name = ?1 AND l.name = ?1 AND l.partial", [index], |row| row.get(0))?;
        let predicate = match parts {
            Some(Some((_, predicate))) => predicate,
            _ => None,
        };
        Ok((partial == predicate.is_some()).then_some(Self { terms, predicate }))
    }

    /// Whether the index's terms may have to do with a column.
    pub(crate) fn mentions(&self, column: &str) -> bool {
        let column = column.to_lowercase();
        let mut texts = self.terms.iter().map(|term| &term.sql).chain(&self.predicate);
        texts.any(|text| text.to_lowercase().contains(&column))
    }

    /// An SQL condition on a row of the table: it collides with the row that `other` selects (what may stand in a `FROM`
    /// clause, with exactly one row and all columns of the table). `column` gives the value of one column of that row
    /// without a query, where there is such a way.
    pub(crate) fn collides_with(&self, other: &str, column: Option<&str>) -> String {
        let equal = |Term { sql, collation, is_column }: &Term| match column {
            Some(prefix) if *is_column => format!("{sql} = {prefix}{sql} COLLATE {collation}"),
            _ => format!("{sql} = (SELECT {sql} FROM {other}) COLLATE {collation}"),
        };
        let mut conditions: Vec<String> = self.terms.iter().map(equal).collect();
        if let Some(predicate) = &self.predicate {
            conditions.push(format!("({predicate}) AND (SELECT ({predicate}) FROM {other})"));
        }
        conditions.join(" AND ")
    }
}

/// The terms and the `WHERE` of a `CREATE INDEX` statement.
fn definition(sql: &str) -> Option<(Vec<String>, Option<String>)> {
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
                terms.push(without_order(&sql[from..at]).to_owned());
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
                predicate = Some(sql[at + word.len()..].trim().to_owned());
            }
            _ => {}
        }
    }
    closed.map(|_| (terms, predicate))
}

/// An index term without `ASC` or `DESC` behind it. A `COLLATE` may stay: the outer one that follows is the same.
fn without_order(term: &str) -> &str {
    let term = term.trim();
    match tokens(term).pop() {
        Some((at, word))
            if at > 0 && (word.eq_ignore_ascii_case("asc") || word.eq_ignore_ascii_case("desc")) =>
        {
            term[..at].trim_end()
        }
        _ => term,
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
        let (terms, predicate) = definition(
            r#"CREATE UNIQUE INDEX "a (where" ON t ("b,c" COLLATE NOCASE DESC, lower(d || ')'), -- x,y
               substr(e, 1, 2) asc) WHERE f IS NOT NULL AND (g > 1)"#,
        )
        .unwrap();
        assert_eq!(
            terms,
            [r#""b,c" COLLATE NOCASE"#, "lower(d || ')')", "-- x,y\n               substr(e, 1, 2)"]
        );
        assert_eq!(predicate.as_deref(), Some("f IS NOT NULL AND (g > 1)"));
        assert_eq!(definition("CREATE UNIQUE INDEX i ON t(a)").unwrap(), (vec!["a".to_owned()], None));
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
        let unique = Unique::read(&connection, "i").unwrap().unwrap();
        let sql =
            format!("SELECT k FROM t WHERE {}", unique.collides_with("(SELECT ?1 AS a, ?2 AS b)", None));
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
