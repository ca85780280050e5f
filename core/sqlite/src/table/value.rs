//! One SQL value and one JSON value: the two directions between them (`docs/protocol/mapping.md`).

use std::borrow::Cow;

use data_encoding::BASE64;
use rusqlite::types::{ToSql, ToSqlOutput, ValueRef};

use crate::json::{self, Kind};

/// What SQLite does to a value that is stored in a column.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Affinity {
    Integer,
    Numeric,
    Real,
    Text,
    Blob,
}

impl Affinity {
    /// The affinity that SQLite gives a column of this declared type.
    pub(crate) fn of(declared: &str, strict: bool) -> Self {
        let declared = declared.to_ascii_uppercase();
        let has = |part: &str| declared.contains(part);
        if strict && declared == "ANY" {
            Self::Blob
        } else if has("INT") {
            Self::Integer
        } else if has("CHAR") || has("CLOB") || has("TEXT") {
            Self::Text
        } else if has("BLOB") || declared.is_empty() {
            Self::Blob
        } else if has("REAL") || has("FLOA") || has("DOUB") {
            Self::Real
        } else {
            Self::Numeric
        }
    }

    /// SQL that gives what such a column holds once the value of an expression is stored in it.
    pub(crate) fn stored(self, value: &str) -> String {
        match self {
            Self::Blob => value.to_owned(),
            Self::Text => format!("CASE WHEN typeof({value}) IN ('integer', 'real') THEN CAST({value} AS TEXT) ELSE {value} END"),
            // What looks like a number equals itself as one; CAST would make a number of any text.
            Self::Integer | Self::Numeric => format!(
                "CASE typeof({value}) WHEN 'text' THEN CASE WHEN CAST({value} AS NUMERIC) = {value} THEN CAST({value} AS NUMERIC) ELSE {value} END
                 WHEN 'real' THEN CASE WHEN CAST({value} AS INTEGER) = {value} THEN CAST({value} AS INTEGER) ELSE {value} END ELSE {value} END"
            ),
            Self::Real => format!(
                "CASE WHEN typeof({value}) IN ('text', 'integer') AND CAST({value} AS NUMERIC) = {value} THEN CAST({value} AS REAL) ELSE {value} END"
            ),
        }
    }

    /// Whether a value stored in such a column reads back as itself. May answer `false` for some that do.
    pub(crate) fn keeps(self, value: &Sql<'_>) -> bool {
        match (self, value) {
            (Self::Blob, _) | (_, Sql::Null | Sql::Blob(_)) | (Self::Text, Sql::Text(_)) => true,
            (Self::Integer | Self::Numeric, Sql::Integer(_)) => true,
            (Self::Integer | Self::Numeric, Sql::Real(real)) => real.is_infinite() || real.fract() != 0.0,
            // Zero with a sign loses it in the compact form in which SQLite stores whole reals.
            (Self::Real, Sql::Real(real)) => *real != 0.0 || real.is_sign_positive(),
            (_, Sql::Text(text)) => !looks_numeric(text),
            (Self::Text | Self::Real, _) => false,
        }
    }
}

/// Whether a numeric column may turn this text into a number. A superset of what SQLite does.
fn looks_numeric(text: &[u8]) -> bool {
    let text = trim_as_sqlite(text);
    let unsigned = text.strip_prefix(b"-").or_else(|| text.strip_prefix(b"+")).unwrap_or(text);
    let numeric = |byte: &u8| byte.is_ascii_digit() || matches!(byte, b'.' | b'e' | b'E' | b'+' | b'-');
    unsigned.first().is_some_and(|first| first.is_ascii_digit() || *first == b'.')
        && unsigned.iter().all(numeric)
        && std::str::from_utf8(unsigned).is_ok_and(|text| text.parse::<f64>().is_ok())
}

/// Without the blanks at both ends that SQLite passes over when it reads a number; the vertical tab is one of them.
fn trim_as_sqlite(text: &[u8]) -> &[u8] {
    let is_blank = |byte: &u8| matches!(byte, b'\t'..=b'\r' | b' ');
    let from = text.iter().position(|byte| !is_blank(byte)).unwrap_or(text.len());
    let to = text.iter().rposition(|byte| !is_blank(byte)).map_or(from, |last| last + 1);
    &text[from..to]
}

/// An SQL value.
#[derive(Clone, PartialEq, Debug)]
pub(crate) enum Sql<'a> {
    Null,
    Integer(i64),
    Real(f64),
    /// Usually UTF-8, but SQLite does not insist.
    Text(Cow<'a, [u8]>),
    Blob(Cow<'a, [u8]>),
}

impl<'a> Sql<'a> {
    pub(crate) fn as_ref(&self) -> ValueRef<'_> {
        match self {
            Self::Null => ValueRef::Null,
            Self::Integer(integer) => ValueRef::Integer(*integer),
            Self::Real(real) => ValueRef::Real(*real),
            Self::Text(text) => ValueRef::Text(text),
            Self::Blob(blob) => ValueRef::Blob(blob),
        }
    }

    /// Whether a value is another one, or what a column of another type makes of it: 1, 1.0 and '1' are the same.
    pub(crate) fn is_same_by_cast(&self, other: &Self) -> bool {
        let number = |text: &[u8]| std::str::from_utf8(trim_as_sqlite(text)).ok()?.parse::<f64>().ok();
        match (self, other) {
            (Self::Integer(a), Self::Real(b)) | (Self::Real(b), Self::Integer(a)) => *a as f64 == *b,
            (Self::Integer(a), Self::Text(b)) | (Self::Text(b), Self::Integer(a)) => {
                itoa::Buffer::new().format(*a).as_bytes() == &**b || number(b) == Some(*a as f64)
            }
            (Self::Real(a), Self::Text(b)) | (Self::Text(b), Self::Real(a)) => number(b) == Some(*a),
            (Self::Text(a), Self::Blob(b)) | (Self::Blob(b), Self::Text(a)) => a == b,
            (a, b) => a == b,
        }
    }

    pub(crate) fn text(text: &'a str) -> Self {
        Self::Text(Cow::Borrowed(text.as_bytes()))
    }

    pub(crate) fn into_owned(self) -> Sql<'static> {
        match self {
            Self::Null => Sql::Null,
            Self::Integer(integer) => Sql::Integer(integer),
            Self::Real(real) => Sql::Real(real),
            Self::Text(text) => Sql::Text(Cow::Owned(text.into_owned())),
            Self::Blob(blob) => Sql::Blob(Cow::Owned(blob.into_owned())),
        }
    }
}

impl<'a> From<ValueRef<'a>> for Sql<'a> {
    fn from(value: ValueRef<'a>) -> Self {
        match value {
            ValueRef::Null => Self::Null,
            ValueRef::Integer(integer) => Self::Integer(integer),
            ValueRef::Real(real) => Self::Real(real),
            ValueRef::Text(text) => Self::Text(Cow::Borrowed(text)),
            ValueRef::Blob(blob) => Self::Blob(Cow::Borrowed(blob)),
        }
    }
}

impl ToSql for Sql<'_> {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(ToSqlOutput::Borrowed(self.as_ref()))
    }
}

/// Writes an SQL value as JSON. The same value always gives the same bytes.
pub(crate) fn write_json(out: &mut Vec<u8>, value: ValueRef<'_>) {
    match value {
        ValueRef::Null => out.extend_from_slice(b"null"),
        ValueRef::Integer(integer) => out.extend_from_slice(itoa::Buffer::new().format(integer).as_bytes()),
        ValueRef::Real(real) if real.is_finite() => {
            out.extend_from_slice(ryu::Buffer::new().format_finite(real).as_bytes());
        }
        ValueRef::Real(real) => {
            out.extend_from_slice(if real > 0.0 { br#"{"$real":"inf"}"# } else { br#"{"$real":"-inf"}"# });
        }
        ValueRef::Text(text) => match std::str::from_utf8(text) {
            Ok(valid) if !text.contains(&0) => write_text(out, valid),
            _ => write_base64(out, "$text", text),
        },
        ValueRef::Blob(blob) => write_base64(out, "$blob", blob),
    }
}

fn write_base64(out: &mut Vec<u8>, tag: &str, bytes: &[u8]) {
    out.extend_from_slice(b"{\"");
    out.extend_from_slice(tag.as_bytes());
    out.extend_from_slice(b"\":\"");
    out.extend_from_slice(BASE64.encode(bytes).as_bytes());
    out.extend_from_slice(b"\"}");
}

/// Writes a JSON string with the fewest escapes that JSON allows.
pub(crate) fn write_text(out: &mut Vec<u8>, text: &str) {
    out.push(b'"');
    let bytes = text.as_bytes();
    let mut from = 0;
    for (at, byte) in bytes.iter().enumerate() {
        if *byte >= 0x20 && *byte != b'"' && *byte != b'\\' {
            continue;
        }
        out.extend_from_slice(&bytes[from..at]);
        from = at + 1;
        match byte {
            b'"' => out.extend_from_slice(b"\\\""),
            b'\\' => out.extend_from_slice(b"\\\\"),
            0x08 => out.extend_from_slice(b"\\b"),
            0x0c => out.extend_from_slice(b"\\f"),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            b'\t' => out.extend_from_slice(b"\\t"),
            control => out.extend_from_slice(format!("\\u{control:04x}").as_bytes()),
        }
    }
    out.extend_from_slice(&bytes[from..]);
    out.push(b'"');
}

/// The SQL value for a checked JSON value, or why there is none.
pub(crate) fn from_json(raw: &str, kind: Kind) -> Result<Sql<'_>, String> {
    Ok(match kind {
        Kind::Null => Sql::Null,
        Kind::True => Sql::Integer(1),
        Kind::False => Sql::Integer(0),
        Kind::Integer => Sql::Integer(
            raw.parse().map_err(|_| format!("the integer {raw} does not fit a signed 64-bit column"))?,
        ),
        Kind::Real => Sql::Real(raw.parse().map_err(|_| format!("{raw} is no number"))?),
        Kind::Text { escaped } => match json::unescaped(raw, escaped) {
            Cow::Borrowed(text) => Sql::Text(Cow::Borrowed(text.as_bytes())),
            Cow::Owned(text) => Sql::Text(Cow::Owned(text.into_bytes())),
        },
        Kind::Array => Sql::Text(Cow::Owned(json::compact(raw).into_bytes())),
        Kind::Object => match tagged(raw) {
            Some(value) => value,
            None => Sql::Text(Cow::Owned(json::compact(raw).into_bytes())),
        },
    })
}

/// A value that JSON has no form of its own for.
fn tagged(raw: &str) -> Option<Sql<'static>> {
    let fields = json::fields(raw.as_bytes()).ok()?;
    let [field] = fields.as_slice() else { return None };
    let Kind::Text { escaped } = field.kind else { return None };
    let text = json::unescaped(field.raw, escaped);
    match (&*field.name, &*text) {
        ("$blob", encoded) => Some(Sql::Blob(Cow::Owned(BASE64.decode(encoded.as_bytes()).ok()?))),
        ("$text", encoded) => Some(Sql::Text(Cow::Owned(BASE64.decode(encoded.as_bytes()).ok()?))),
        ("$real", "inf") => Some(Sql::Real(f64::INFINITY)),
        ("$real", "-inf") => Some(Sql::Real(f64::NEG_INFINITY)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn any_sql() -> impl Strategy<Value = Sql<'static>> {
        prop_oneof![
            Just(Sql::Null),
            any::<i64>().prop_map(Sql::Integer),
            any::<f64>().prop_filter("SQLite has no NaN", |real| !real.is_nan()).prop_map(Sql::Real),
            any::<String>().prop_map(|text| Sql::Text(Cow::Owned(text.into_bytes()))),
            prop::collection::vec(any::<u8>(), 0..20).prop_map(|bytes| Sql::Text(Cow::Owned(bytes))),
            prop::collection::vec(any::<u8>(), 0..20).prop_map(|bytes| Sql::Blob(Cow::Owned(bytes))),
            "[ \t-\r+-]?[0-9]{1,3}(\\.[0-9]*)?(e[0-9])?[ \t-\ra-]?"
                .prop_map(|text| Sql::Text(Cow::Owned(text.into_bytes()))),
        ]
    }

    fn json_of(value: &Sql<'_>) -> String {
        let mut out = Vec::new();
        write_json(&mut out, value.as_ref());
        String::from_utf8(out).unwrap()
    }

    proptest! {
        #[test]
        fn every_sql_value_comes_back_exactly(value in any_sql()) {
            let document = format!("{{\"a\":{}}}", json_of(&value));
            let fields = json::fields(document.as_bytes()).unwrap();
            let back = from_json(fields[0].raw, fields[0].kind).unwrap();
            prop_assert_eq!(json_of(&back), json_of(&value));
            prop_assert_eq!(back, value);
        }

        #[test]
        fn what_a_column_is_said_to_keep_reads_back_the_same(value in any_sql()) {
            let connection = rusqlite::Connection::open_in_memory().unwrap();
            connection.execute_batch("CREATE TABLE t(a INTEGER, b NUMERIC, c REAL, d TEXT, e BLOB)").unwrap();
            for (column, declared) in [("a", "INTEGER"), ("b", "NUMERIC"), ("c", "REAL"), ("d", "TEXT"), ("e", "BLOB")] {
                connection.execute("DELETE FROM t", []).unwrap();
                connection.execute(&format!("INSERT INTO t({column}) VALUES(?1)"), [&value]).unwrap();
                let back = connection
                    .query_row(&format!("SELECT {column} FROM t"), [], |row| Ok(Sql::from(row.get_ref(0)?).into_owned()))
                    .unwrap();
                if Affinity::of(declared, false).keeps(&value) {
                    prop_assert_eq!(json_of(&back), json_of(&value), "in {}", declared);
                }
            }
        }
    }

    #[test]
    fn a_default_is_known_as_the_column_will_hold_it() {
        let connection = rusqlite::Connection::open_in_memory().unwrap();
        let defaults =
            ["0", "'0'", "1.0", "'1.50'", "'abc'", "x'00'", "NULL", "-5", "'1e3'", "0.5", "''", "' 7 '"];
        for default in defaults {
            connection
                .execute_batch(&format!(
                    "DROP TABLE IF EXISTS t; CREATE TABLE t(k, a INTEGER DEFAULT {default}, b NUMERIC DEFAULT {default},
                     c REAL DEFAULT {default}, d TEXT DEFAULT {default}, e BLOB DEFAULT {default}); INSERT INTO t(k) VALUES(1)"
                ))
                .unwrap();
            for (column, declared) in
                [("a", "INTEGER"), ("b", "NUMERIC"), ("c", "REAL"), ("d", "TEXT"), ("e", "BLOB")]
            {
                let get = |sql: &str| {
                    let value =
                        connection.query_row(sql, [], |row| Ok(Sql::from(row.get_ref(0)?).into_owned()));
                    json_of(&value.unwrap())
                };
                let known =
                    get(&format!("SELECT {}", Affinity::of(declared, false).stored(&format!("({default})"))));
                assert_eq!(known, get(&format!("SELECT {column} FROM t")), "{default} in {declared}");
            }
        }
    }

    #[test]
    fn reals_are_always_told_apart_from_integers() {
        for (real, text) in [
            (1.0, "1.0"),
            (-0.0, "-0.0"),
            (1e15, "1000000000000000.0"),
            (1e16, "1e16"),
            (0.1, "0.1"),
            (1e-5, "0.00001"),
            (1e-6, "1e-6"),
        ] {
            assert_eq!(json_of(&Sql::Real(real)), text);
        }
        assert_eq!(json_of(&Sql::Real(f64::INFINITY)), r#"{"$real":"inf"}"#);
    }

    #[test]
    fn values_that_only_documents_have_become_sql_values() {
        assert_eq!(from_json("true", Kind::True), Ok(Sql::Integer(1)));
        assert_eq!(from_json("[1, 2]", Kind::Array), Ok(Sql::text("[1,2]")));
        assert_eq!(from_json(r#"{"a": 1}"#, Kind::Object), Ok(Sql::text(r#"{"a":1}"#)));
        assert_eq!(from_json(r#"{"$blob": "!"}"#, Kind::Object), Ok(Sql::text(r#"{"$blob":"!"}"#)));
        assert!(from_json("18446744073709551615", Kind::Integer).is_err());
    }
}
