//! Document keys and key columns: the two directions between them, and the form in which triggers note a key.
//!
//! A single key column of text or integer affinity gives its text as the key. Any other primary key gives a compact JSON
//! array of its columns in declared order. A key that would not come back as itself from the table is refused, never
//! altered: two documents must not become one row.

use std::borrow::Cow;

use data_encoding::HEXUPPER;
use entgldb_replica::id::Key;
use rusqlite::Connection;
use rusqlite::types::ValueRef;

use crate::failed::{Outcome, While};
use crate::json;
use crate::table::value::{Affinity, Sql, from_json, write_json};

/// How a table's primary key becomes a document key.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum KeyForm {
    /// One column of text affinity: its text.
    Text,
    /// One column of integer affinity: its decimal digits, or the text of what else it holds. If it is the rowid it
    /// holds nothing else.
    Integer {
        /// Whether the column is the rowid.
        rowid: bool,
    },
    /// Anything else: a JSON array.
    Array(Vec<Affinity>),
}

/// How the database stores text, which shows in what triggers note.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Encoding {
    Utf8,
    Utf16Little,
    Utf16Big,
}

/// How the database stores text.
pub(crate) fn encoding(connection: &Connection) -> Outcome<Encoding> {
    let name: String =
        connection.query_row("PRAGMA encoding", [], |row| row.get(0)).doing("reading the encoding")?;
    Ok(match name.as_str() {
        "UTF-16le" => Encoding::Utf16Little,
        "UTF-16be" => Encoding::Utf16Big,
        _ => Encoding::Utf8,
    })
}

impl KeyForm {
    /// The document key of a row, or why it has none.
    pub(crate) fn encode(&self, columns: &[ValueRef<'_>]) -> Result<Key, String> {
        if columns.iter().any(|column| matches!(column, ValueRef::Null)) {
            return Err("a column of its primary key is NULL".into());
        }
        let text = match (self, columns) {
            (Self::Array(_), columns) => {
                let mut out = vec![b'['];
                for (position, column) in columns.iter().enumerate() {
                    if position > 0 {
                        out.push(b',');
                    }
                    write_json(&mut out, *column);
                }
                out.push(b']');
                Cow::Owned(String::from_utf8(out).map_err(|_| "its key is not UTF-8".to_owned())?)
            }
            (_, [ValueRef::Integer(integer)]) => Cow::Owned(integer.to_string()),
            (_, [ValueRef::Text(text)]) => {
                Cow::Borrowed(std::str::from_utf8(text).map_err(|_| "its key is not UTF-8".to_owned())?)
            }
            (_, [ValueRef::Real(real)]) if real.is_finite() => {
                Cow::Owned(ryu::Buffer::new().format_finite(*real).to_owned())
            }
            _ => return Err("its key is neither text nor a number".into()),
        };
        let key = Key::new(&text).map_err(|error| format!("its key cannot travel: {error}"))?;
        if matches!(columns, [ValueRef::Integer(_)]) && !matches!(self, Self::Array(_)) {
            return Ok(key);
        }
        let back = self.decode(&text)?;
        if back.iter().map(Sql::as_ref).eq(columns.iter().copied()) {
            Ok(key)
        } else {
            Err("its key does not read back as itself".into())
        }
    }

    /// The key columns of a document, or why no row can have this key.
    pub(crate) fn decode<'a>(&self, key: &'a str) -> Result<Vec<Sql<'a>>, String> {
        match self {
            Self::Text => Ok(vec![Sql::text(key)]),
            Self::Integer { rowid } => integer_column(key, *rowid).map(|column| vec![column]),
            Self::Array(affinities) => array_columns(key, affinities),
        }
    }
}

fn integer_column(key: &str, rowid: bool) -> Result<Sql<'_>, String> {
    if let Ok(integer) = key.parse::<i64>()
        && itoa::Buffer::new().format(integer) == key
    {
        return Ok(Sql::Integer(integer));
    }
    if rowid {
        return Err(format!("the key {key:?} is no integer, and this table's key must be one"));
    }
    if let Ok(real) = key.parse::<f64>()
        && real.is_finite()
        && ryu::Buffer::new().format_finite(real) == key
        && Affinity::Integer.keeps(&Sql::Real(real))
    {
        return Ok(Sql::Real(real));
    }
    let text = Sql::text(key);
    if Affinity::Integer.keeps(&text) { Ok(text) } else { Err(changed_by_column(key)) }
}

fn array_columns<'a>(key: &'a str, affinities: &[Affinity]) -> Result<Vec<Sql<'a>>, String> {
    let wrong = || {
        format!("the key {key:?} is no compact JSON array of this table's {} key columns", affinities.len())
    };
    let elements = json::elements(key).map_err(|_| wrong())?;
    if elements.len() != affinities.len() {
        return Err(wrong());
    }
    let mut columns = Vec::with_capacity(elements.len());
    let mut again = vec![b'['];
    for ((raw, kind), affinity) in elements.into_iter().zip(affinities) {
        let column = from_json(raw, kind)?;
        if column == Sql::Null || !affinity.keeps(&column) {
            return Err(changed_by_column(key));
        }
        if again.len() > 1 {
            again.push(b',');
        }
        write_json(&mut again, column.as_ref());
        columns.push(column);
    }
    again.push(b']');
    if again == key.as_bytes() { Ok(columns) } else { Err(wrong()) }
}

fn changed_by_column(key: &str) -> String {
    format!("the key {key:?} would not read back as itself from this table's key columns")
}

/// SQL that notes the key columns of `row` (`NEW`, `OLD`, or nothing) as one value, without loss. `columns` are quoted.
pub(crate) fn note_sql(row: &str, columns: &[String]) -> String {
    if let [column] = columns {
        return format!("{row}{column}");
    }
    let parts = columns.iter().map(|column| {
        let column = format!("{row}{column}");
        format!(
            "CASE typeof({column}) WHEN 'text' THEN 'T' || hex({column}) WHEN 'blob' THEN 'B' || hex({column}) ELSE quote({column}) END"
        )
    });
    crate::quote::joined(parts, " || ',' || ")
}

/// Reads what [`note_sql`] wrote for `count` key columns.
pub(crate) fn read_note(noted: ValueRef<'_>, count: usize, encoding: Encoding) -> Option<Vec<Sql<'static>>> {
    if count == 1 {
        return Some(vec![Sql::from(noted).into_owned()]);
    }
    let ValueRef::Text(text) = noted else { return None };
    let columns: Vec<_> = std::str::from_utf8(text)
        .ok()?
        .split(',')
        .map(|part| read_part(part, encoding))
        .collect::<Option<_>>()?;
    (columns.len() == count).then_some(columns)
}

fn read_part(part: &str, encoding: Encoding) -> Option<Sql<'static>> {
    let bytes = |hex: &str| HEXUPPER.decode(hex.as_bytes()).ok();
    match part.split_at_checked(1)? {
        ("T", hex) => Some(Sql::Text(Cow::Owned(utf8(bytes(hex)?, encoding)))),
        ("B", hex) => Some(Sql::Blob(Cow::Owned(bytes(hex)?))),
        _ if part == "NULL" => Some(Sql::Null),
        _ => match part.parse::<i64>() {
            Ok(integer) => Some(Sql::Integer(integer)),
            Err(_) => part.parse::<f64>().ok().map(Sql::Real),
        },
    }
}

fn utf8(bytes: Vec<u8>, encoding: Encoding) -> Vec<u8> {
    let unit = match encoding {
        Encoding::Utf8 => return bytes,
        Encoding::Utf16Little => u16::from_le_bytes,
        Encoding::Utf16Big => u16::from_be_bytes,
    };
    let units: Vec<u16> = bytes.chunks_exact(2).map(|pair| unit([pair[0], pair[1]])).collect();
    String::from_utf16_lossy(&units).into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encoded(form: &KeyForm, columns: &[Sql<'_>]) -> Result<String, String> {
        let columns: Vec<_> = columns.iter().map(Sql::as_ref).collect();
        form.encode(&columns).map(|key| key.as_str().to_owned())
    }

    #[test]
    fn keys_take_their_simplest_form_and_come_back() {
        let integer = KeyForm::Integer { rowid: false };
        let array = KeyForm::Array(vec![Affinity::Integer, Affinity::Text, Affinity::Blob]);
        let cases: [(&KeyForm, Vec<Sql<'_>>, &str); 6] = [
            (&KeyForm::Text, vec![Sql::text("a b")], "a b"),
            (&integer, vec![Sql::Integer(i64::MIN)], "-9223372036854775808"),
            (&integer, vec![Sql::Real(1.5)], "1.5"),
            (&integer, vec![Sql::text("x")], "x"),
            (
                &array,
                vec![Sql::Integer(7), Sql::text("a\"b"), Sql::Blob(vec![1].into())],
                r#"[7,"a\"b",{"$blob":"AQ=="}]"#,
            ),
            (&KeyForm::Array(vec![Affinity::Real]), vec![Sql::Real(1.0)], "[1.0]"),
        ];
        for (form, columns, key) in cases {
            assert_eq!(encoded(form, &columns).as_deref(), Ok(key));
            assert_eq!(form.decode(key).unwrap(), columns);
        }
    }

    #[test]
    fn a_key_that_the_table_would_change_is_refused() {
        let rowid = KeyForm::Integer { rowid: true };
        for key in ["007", "+1", "1.0", "abc", "9223372036854775808", ""] {
            assert!(rowid.decode(key).is_err(), "{key}");
        }
        for key in ["007", "1.0", " 1", "1e3"] {
            assert!(KeyForm::Integer { rowid: false }.decode(key).is_err(), "{key}");
        }
        let pair = KeyForm::Array(vec![Affinity::Integer, Affinity::Text]);
        for key in [
            "[1,2]",
            "[\"1\",\"a\"]",
            "[1, \"a\"]",
            "[1]",
            "[1,\"a\",2]",
            "[null,\"a\"]",
            "1",
            "[1,\"\\u0061\"]",
        ] {
            assert!(pair.decode(key).is_err(), "{key}");
        }
    }

    #[test]
    fn a_row_without_a_usable_key_says_why() {
        assert!(encoded(&KeyForm::Text, &[Sql::Null]).unwrap_err().contains("NULL"));
        assert!(encoded(&KeyForm::Text, &[Sql::text("")]).unwrap_err().contains("empty"));
        assert!(encoded(&KeyForm::Text, &[Sql::text("a\0b")]).unwrap_err().contains("0000"));
        assert!(
            encoded(&KeyForm::Text, &[Sql::text(&"k".repeat(1025))]).unwrap_err().contains("KEY_BYTES_MAX")
        );
        assert!(encoded(&KeyForm::Text, &[Sql::Blob(vec![1].into())]).is_err());
    }

    #[test]
    fn a_noted_key_reads_back_exactly() {
        let connection = rusqlite::Connection::open_in_memory().unwrap();
        let values = [
            Sql::Null,
            Sql::Integer(i64::MIN),
            Sql::Real(0.1),
            Sql::Real(1e300),
            Sql::Real(f64::NEG_INFINITY),
            Sql::text("it's, ä\0!"),
            Sql::text(""),
            Sql::Blob(vec![0, 255].into()),
        ];
        for a in &values {
            for b in &values {
                let sql = format!(
                    "SELECT {} FROM (SELECT ?1 AS a, ?2 AS b)",
                    note_sql("", &["a".into(), "b".into()])
                );
                let back = connection
                    .query_row(&sql, [a, b], |row| Ok(read_note(row.get_ref(0)?, 2, Encoding::Utf8).unwrap()))
                    .unwrap();
                assert_eq!(back, [a.clone(), b.clone()]);
            }
        }
    }
}
