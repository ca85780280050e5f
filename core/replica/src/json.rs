//! JSON as a tree whose scalars keep the text they came as, so that a number or a string is never written otherwise than
//! its author wrote it.

use std::collections::BTreeMap;

use bytes::Bytes;
use serde_json::value::RawValue;

use crate::limits::JSON_DEPTH_MAX;

/// A JSON value.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Json {
    /// `null`, a boolean, a number or a string, as it was written.
    Scalar(Bytes),
    Object(BTreeMap<String, Json>),
    Array(Vec<Json>),
}

impl Json {
    /// Reads a value; `None` if it is not JSON or nested too deeply.
    pub(crate) fn parse(text: &Bytes) -> Option<Self> {
        let raw: &RawValue = serde_json::from_slice(text).ok()?;
        Self::read(text, raw, 0)
    }

    fn read(text: &Bytes, raw: &RawValue, depth: usize) -> Option<Self> {
        if depth > JSON_DEPTH_MAX {
            return None;
        }
        let raw = raw.get();
        Some(match raw.as_bytes().first()? {
            b'{' => {
                let members: BTreeMap<String, &RawValue> = serde_json::from_str(raw).ok()?;
                let read = |(name, raw)| Some((name, Self::read(text, raw, depth + 1)?));
                Self::Object(members.into_iter().map(read).collect::<Option<_>>()?)
            }
            b'[' => {
                let items: Vec<&RawValue> = serde_json::from_str(raw).ok()?;
                let read = |raw| Self::read(text, raw, depth + 1);
                Self::Array(items.into_iter().map(read).collect::<Option<_>>()?)
            }
            _ => Self::Scalar(text.slice_ref(raw.as_bytes())),
        })
    }

    /// Its bytes, as [`Json::write`] writes them.
    pub(crate) fn to_bytes(&self) -> Bytes {
        let mut out = Vec::new();
        self.write(&mut out);
        out.into()
    }

    /// Writes it without white space, members sorted by name.
    pub(crate) fn write(&self, out: &mut Vec<u8>) {
        match self {
            Self::Scalar(text) => out.extend_from_slice(text),
            Self::Object(members) => {
                let members = members.iter().map(|(name, value)| (name.as_str(), value));
                write_members(out, members, |out, value| value.write(out));
            }
            Self::Array(items) => write_items(out, items, |out, item| item.write(out)),
        }
    }
}

/// Writes an object whose members come in the order of their names.
pub(crate) fn write_members<'a, T>(
    out: &mut Vec<u8>,
    members: impl Iterator<Item = (&'a str, T)>,
    mut write: impl FnMut(&mut Vec<u8>, T),
) {
    out.push(b'{');
    for (number, (name, value)) in members.enumerate() {
        if number > 0 {
            out.push(b',');
        }
        write_string(out, name);
        out.push(b':');
        write(out, value);
    }
    out.push(b'}');
}

/// Writes an array.
pub(crate) fn write_items<T>(
    out: &mut Vec<u8>,
    items: impl IntoIterator<Item = T>,
    mut write: impl FnMut(&mut Vec<u8>, T),
) {
    out.push(b'[');
    for (number, item) in items.into_iter().enumerate() {
        if number > 0 {
            out.push(b',');
        }
        write(out, item);
    }
    out.push(b']');
}

/// Writes a string with the escapes of `docs/protocol/mapping.md`.
pub(crate) fn write_string(out: &mut Vec<u8>, text: &str) {
    serde_json::to_writer(out, text).expect("a string is always written to memory");
}

/// The text of a JSON string; `None` if the scalar is none.
pub(crate) fn string(scalar: &[u8]) -> Option<String> {
    serde_json::from_slice(scalar).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn again(text: &str) -> Option<String> {
        let mut out = Vec::new();
        Json::parse(&Bytes::copy_from_slice(text.as_bytes()))?.write(&mut out);
        Some(String::from_utf8(out).unwrap())
    }

    #[test]
    fn scalars_keep_their_text_and_members_are_sorted() {
        let text = r#" { "b" : [1.0, 1e2, "\u00e9", null] , "a\n" : {"z":18446744073709551616,"y":-0.0} } "#;
        let expected = r#"{"a\n":{"y":-0.0,"z":18446744073709551616},"b":[1.0,1e2,"\u00e9",null]}"#;
        assert_eq!(again(text).as_deref(), Some(expected));
    }

    #[test]
    fn what_is_no_json_or_too_deep_is_none() {
        assert_eq!(again("{"), None);
        assert_eq!(again("one"), None);
        let nested = |levels: usize| "[".repeat(levels) + &"]".repeat(levels);
        assert!(again(&nested(JSON_DEPTH_MAX)).is_some());
        assert_eq!(again(&nested(JSON_DEPTH_MAX + 2)), None);
    }
}
