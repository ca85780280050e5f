//! How long history is kept.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

const MS_PER_HOUR: f64 = 3_600_000.0;
/// The word for a history that never goes.
const FOREVER: &str = "forever";

/// How long history is kept after all members hold it. In JSON and on the command line a number of hours, such as `24` or
/// `0.5`, or `forever`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Retention {
    /// For so many milliseconds.
    Milliseconds(u64),
    /// Nothing is ever forgotten.
    Forever,
}

/// Not a time that history can be kept for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("it must be a number of hours from 0.0003 (a second) to 876000 (a hundred years), or \"forever\"")]
pub struct NotARetention;

impl Retention {
    /// The shortest: a second.
    pub const LEAST: Self = Self::Milliseconds(1_000);
    const MOST_HOURS: f64 = 876_000.0;

    /// So many hours, which need not be whole.
    ///
    /// # Errors
    /// When they are less than a second or more than a hundred years. Zero is no retention: it could mean both "nothing"
    /// and "for ever".
    pub fn hours(hours: f64) -> Result<Self, NotARetention> {
        if !(0.000_27..=Self::MOST_HOURS).contains(&hours) {
            return Err(NotARetention);
        }
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "checked just before")]
        let ms = (hours * MS_PER_HOUR).round() as u64;
        Ok(Self::Milliseconds(ms.max(1_000)))
    }

    /// As the replica wants it.
    pub(crate) fn ms(self) -> Option<u64> {
        match self {
            Self::Milliseconds(ms) => Some(ms),
            Self::Forever => None,
        }
    }

    fn as_hours(ms: u64) -> f64 {
        #[expect(clippy::cast_precision_loss, reason = "a hundred years of milliseconds are exact")]
        let ms = ms as f64;
        ms / MS_PER_HOUR
    }
}

impl Default for Retention {
    fn default() -> Self {
        Self::Milliseconds(entgldb_replica::limits::RETENTION_MS)
    }
}

impl fmt::Display for Retention {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Milliseconds(ms) => write!(f, "{}", Self::as_hours(*ms)),
            Self::Forever => f.write_str(FOREVER),
        }
    }
}

impl FromStr for Retention {
    type Err = NotARetention;

    fn from_str(text: &str) -> Result<Self, NotARetention> {
        match text {
            FOREVER => Ok(Self::Forever),
            hours => Self::hours(hours.parse().map_err(|_| NotARetention)?),
        }
    }
}

impl JsonSchema for Retention {
    fn schema_name() -> Cow<'static, str> {
        "Retention".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "How long history is kept after all members hold it: hours, or \"forever\".",
            "anyOf": [
                { "type": "number", "minimum": 0.000_27, "maximum": Self::MOST_HOURS },
                { "const": FOREVER },
            ],
        })
    }
}

impl Serialize for Retention {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Milliseconds(ms) => serializer.serialize_f64(Self::as_hours(*ms)),
            Self::Forever => serializer.serialize_str(FOREVER),
        }
    }
}

impl<'de> Deserialize<'de> for Retention {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Written {
            Hours(f64),
            Word(String),
        }
        let read = match Written::deserialize(deserializer) {
            Ok(Written::Hours(hours)) => Self::hours(hours),
            Ok(Written::Word(word)) if word == FOREVER => Ok(Self::Forever),
            _ => Err(NotARetention),
        };
        read.map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hours_need_not_be_whole_and_survive_being_written() {
        for text in ["24", "0.5", "0.001", "forever", "876000"] {
            let read: Retention = text.parse().unwrap();
            assert_eq!(read.to_string(), text);
            let json = serde_json::to_string(&read).unwrap();
            assert_eq!(serde_json::from_str::<Retention>(&json).unwrap(), read);
        }
        assert_eq!(serde_json::from_str::<Retention>("24").unwrap(), Retention::default());
    }

    #[test]
    fn zero_is_refused_since_it_could_mean_nothing_and_for_ever() {
        for text in ["0", "-1", "0.0001", "NaN", "inf", "1e9", "never", ""] {
            assert_eq!(text.parse::<Retention>(), Err(NotARetention), "{text}");
        }
        assert!(serde_json::from_str::<Retention>("0").is_err());
        assert!(serde_json::from_str::<Retention>("\"24\"").is_err());
    }
}
