//! One text for every way to write a JSON value: members sorted by name, no white space, strings with the same escapes,
//! numbers by their value.

use std::collections::BTreeMap;

use serde_json::value::RawValue;

/// Deepest nesting that is looked into.
const DEPTH_MAX: usize = 128;

/// The one text of a JSON value; of anything else, itself.
#[must_use]
pub fn canonical(content: &[u8]) -> Vec<u8> {
    parse(content).map_or_else(|| content.to_vec(), |value| value.text())
}

/// Whether a value is what a store may make of another one that can't hold all of it: members of objects may be missing, and
/// may be null where there was none.
#[must_use]
pub fn is_lossy_image(image: &[u8], of: &[u8]) -> bool {
    match (parse(image), parse(of)) {
        (Some(image), Some(of)) => is_image(&image, &of),
        _ => image == of,
    }
}

fn is_image(image: &Value, of: &Value) -> bool {
    match (image, of) {
        (Value::Object(image), Value::Object(of)) => image.iter().all(|(name, value)| match of.get(name) {
            Some(of) => is_image(value, of),
            None => *value == Value::Scalar("null".to_owned()),
        }),
        (Value::Array(image), Value::Array(of)) => {
            image.len() == of.len() && image.iter().zip(of).all(|(image, of)| is_image(image, of))
        }
        (image, of) => image == of,
    }
}

#[derive(PartialEq)]
enum Value {
    Scalar(String),
    Object(BTreeMap<String, Value>),
    Array(Vec<Value>),
}

impl Value {
    fn text(&self) -> Vec<u8> {
        let mut out = Vec::new();
        self.write(&mut out);
        out
    }

    fn write(&self, out: &mut Vec<u8>) {
        match self {
            Self::Scalar(text) => out.extend_from_slice(text.as_bytes()),
            Self::Object(members) => {
                out.push(b'{');
                for (number, (name, value)) in members.iter().enumerate() {
                    if number > 0 {
                        out.push(b',');
                    }
                    out.extend_from_slice(quoted(name).as_bytes());
                    out.push(b':');
                    value.write(out);
                }
                out.push(b'}');
            }
            Self::Array(items) => {
                out.push(b'[');
                for (number, item) in items.iter().enumerate() {
                    if number > 0 {
                        out.push(b',');
                    }
                    item.write(out);
                }
                out.push(b']');
            }
        }
    }
}

fn quoted(text: &str) -> String {
    serde_json::to_string(text).expect("text is JSON")
}

fn parse(content: &[u8]) -> Option<Value> {
    read(serde_json::from_slice(content).ok()?, 0)
}

fn read(raw: &RawValue, depth: usize) -> Option<Value> {
    if depth > DEPTH_MAX {
        return None;
    }
    let raw = raw.get();
    Some(match raw.as_bytes().first()? {
        b'{' => {
            let members: BTreeMap<String, &RawValue> = serde_json::from_str(raw).ok()?;
            let read = |(name, raw)| Some((name, read(raw, depth + 1)?));
            Value::Object(members.into_iter().map(read).collect::<Option<_>>()?)
        }
        b'[' => {
            let items: Vec<&RawValue> = serde_json::from_str(raw).ok()?;
            Value::Array(items.into_iter().map(|raw| read(raw, depth + 1)).collect::<Option<_>>()?)
        }
        b'"' => Value::Scalar(quoted(&serde_json::from_str::<String>(raw).ok()?)),
        b'-' | b'0'..=b'9' => Value::Scalar(number(raw)),
        _ => Value::Scalar(raw.to_owned()),
    })
}

/// A number by its value: its digits without zeros around them, and a power of ten. Exact, however long it is.
fn number(raw: &str) -> String {
    let (sign, rest) = raw.strip_prefix('-').map_or(("", raw), |rest| ("-", rest));
    let (mantissa, exponent) = rest.split_once(['e', 'E']).unwrap_or((rest, "0"));
    let (whole, part) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let Ok(exponent) = exponent.parse::<i64>() else { return raw.to_owned() };
    let digits = format!("{whole}{part}");
    let significant = digits.trim_start_matches('0').trim_end_matches('0');
    if significant.is_empty() {
        return "0".to_owned();
    }
    let zeros = digits.len() - digits.trim_end_matches('0').len();
    let Some(power) = exponent.checked_add(zeros as i64).and_then(|p| p.checked_sub(part.len() as i64))
    else {
        return raw.to_owned();
    };
    match power {
        0 => format!("{sign}{significant}"),
        power => format!("{sign}{significant}e{power}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(json: &str) -> String {
        String::from_utf8(canonical(json.as_bytes())).unwrap()
    }

    #[test]
    fn one_value_has_one_text_however_it_is_written() {
        for (one, other) in [
            (r#"{"b":1,"a":[1.0,2e0]}"#, r#"{ "a": [1, 2], "b": 1.00 }"#),
            (r#""A\/é""#, r#""\u0041/\u00e9""#),
            ("100", "1e2"),
            ("0.10", "1E-1"),
            ("-0.0", "0"),
            ("18446744073709551617", "18446744073709551617.0"),
        ] {
            assert_eq!(text(one), text(other));
        }
    }

    #[test]
    fn other_values_have_other_texts() {
        for (one, other) in [
            ("1", "-1"),
            ("1", "10"),
            ("1", "\"1\""),
            ("[1,2]", "[2,1]"),
            ("{}", "[]"),
            (r#"{"a":1}"#, r#"{"a":1,"b":null}"#),
            ("9007199254740993", "9007199254740992"),
            ("0.1", "0.10000000000000001"),
        ] {
            assert_ne!(text(one), text(other));
        }
        assert_eq!(canonical(b"{"), b"{", "what is no JSON is itself");
    }

    #[test]
    fn a_lossy_image_lacks_members_or_has_nulls_and_nothing_else() {
        let of = br#"{"a":1,"b":{"c":2,"d":[1]}}"#;
        for image in [r#"{"a":1.0}"#, r#"{"b":{"d":[1]},"a":1,"new":null}"#, "{}"] {
            assert!(is_lossy_image(image.as_bytes(), of), "{image}");
        }
        for image in [r#"{"a":2}"#, r#"{"new":1}"#, r#"{"b":{"d":[1,2]}}"#, "[]", "null"] {
            assert!(!is_lossy_image(image.as_bytes(), of), "{image}");
        }
    }
}
