//! Documents that the application's own function decides on.
//!
//! Where a collection has a [`Resolver`], every version of a document says what its author had seen of it. So each node knows
//! the same set of versions that nobody has seen and replaced, and evaluates the function over it: any function that
//! answers the same to the same question makes all nodes end with the same document. All nodes must have the same
//! function. One that has none, or another, shows another content until the document is written again; it loses no version.
//!
//! What the function answers is no write: nobody signs it and it does not travel. A write of the application replaces all
//! versions that it saw.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use bytes::Bytes;

use crate::id::{Collection, DocId, Key};
use crate::json::Json;
use crate::limits::{JSON_DEPTH_MAX, PAYLOAD_BYTES_HARD};
use crate::merge::Merged;
use crate::resolve::Side;

/// A resolver gave no answer that can stand. The youngest version stands instead, on every node alike.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ResolverFailed(pub String);

type Function = dyn Fn(&Collection, &Key, &[Side]) -> Result<Option<Bytes>, ResolverFailed> + Send + Sync;

/// A function that makes one document of several versions that were made without knowledge of each other.
///
/// It gets two or more versions, the oldest first, and answers the content; `None` deletes the document. It must be *pure*: the answer
/// must follow from the arguments alone (no clock, no randomness, no order of a hash map, no state), and be the same in every
/// version of the program and on every machine of the cluster. [`crate::check_laws`] helps to test that.
///
/// A content is one of the versions' as it is, or JSON, which is stored without white space and with members sorted.
#[derive(Clone)]
pub struct Resolver(Arc<Function>);

impl fmt::Debug for Resolver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Resolver({:p})", Arc::as_ptr(&self.0))
    }
}

/// Two are the same if they are clones of one.
impl PartialEq for Resolver {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for Resolver {}

impl Resolver {
    /// A resolver that always has an answer.
    pub fn new(
        function: impl Fn(&Collection, &Key, &[Side]) -> Option<Bytes> + Send + Sync + 'static,
    ) -> Self {
        Self::fallible(move |collection, key, sides| Ok(function(collection, key, sides)))
    }

    /// A resolver that may fail. It must fail on the same versions on every node.
    pub fn fallible(
        function: impl Fn(&Collection, &Key, &[Side]) -> Result<Option<Bytes>, ResolverFailed>
        + Send
        + Sync
        + 'static,
    ) -> Self {
        Self(Arc::new(function))
    }

    /// The version with the greatest number in this field stands; of several the youngest, and the youngest of all if none
    /// has a number there. A deletion has none.
    #[must_use]
    pub fn greatest(field: &str) -> Self {
        let field = field.to_owned();
        Self::new(move |_, _, sides| {
            let number = |side: &Side| number(side.content.as_ref()?, &field);
            let greatest = sides.iter().max_by(|a, b| match (number(a), number(b)) {
                (Some(a), Some(b)) => a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)),
                (a, b) => a.is_some().cmp(&b.is_some()),
            });
            greatest.and_then(|side| side.content.clone())
        })
    }

    /// All fields of all versions. Where two have the same field, objects are united likewise, arrays have the items of both
    /// (the older version's first, equal ones once), and of anything else the youngest stands. So nothing that was added is lost, and
    /// what one of them removed stays if another has it; a deletion loses against any document. A document that is no object
    /// stands or falls as a whole.
    #[must_use]
    pub fn union() -> Self {
        Self::new(|_, _, sides| {
            let documents = sides.iter().filter_map(|side| side.content.as_ref());
            let youngest = documents.clone().next_back()?;
            let parsed: Option<Vec<Json>> = documents.map(Json::parse).collect();
            let Some(united) = parsed.and_then(|parsed| parsed.into_iter().reduce(unite)) else {
                return Some(youngest.clone());
            };
            let mut out = Vec::new();
            united.write(&mut out);
            Some(out.into())
        })
    }

    /// What it makes of these versions, two or more, the oldest first.
    ///
    /// # Errors
    /// When it fails, or answers what no document can be.
    pub fn resolve(&self, doc: &DocId, sides: &[Side]) -> Result<Option<Bytes>, ResolverFailed> {
        let Some(answer) = (self.0)(&doc.0, &doc.1, sides)? else { return Ok(None) };
        if sides.iter().any(|side| side.content.as_ref() == Some(&answer)) {
            return Ok(Some(answer));
        }
        if answer.len() > PAYLOAD_BYTES_HARD {
            let (len, max) = (answer.len(), PAYLOAD_BYTES_HARD);
            return Err(ResolverFailed(format!(
                "the answer has {len} bytes; PAYLOAD_BYTES_HARD allows {max}"
            )));
        }
        let Some(json) = Json::parse(&answer) else {
            let max = JSON_DEPTH_MAX;
            return Err(ResolverFailed(format!(
                "the answer is no JSON, or nested deeper than JSON_DEPTH_MAX allows ({max})"
            )));
        };
        let mut out = Vec::with_capacity(answer.len());
        json.write(&mut out);
        Ok(Some(out.into()))
    }
}

/// A number as far as it can be compared: roughly, and exactly if it is an integer.
fn number(content: &Bytes, field: &str) -> Option<(f64, i128)> {
    let Some(Json::Object(members)) = Json::parse(content) else { return None };
    let Some(Json::Scalar(text)) = members.get(field) else { return None };
    let text = std::str::from_utf8(text).ok()?;
    Some((text.parse().ok()?, text.parse().unwrap_or_default()))
}

fn unite(older: Json, younger: Json) -> Json {
    match (older, younger) {
        (Json::Object(mut older), Json::Object(younger)) => {
            for (name, value) in younger {
                let united = match older.remove(&name) {
                    Some(before) => unite(before, value),
                    None => value,
                };
                older.insert(name, united);
            }
            Json::Object(older)
        }
        (Json::Array(mut older), Json::Array(younger)) => {
            for item in younger {
                if !older.contains(&item) {
                    older.push(item);
                }
            }
            Json::Array(older)
        }
        (_, younger) => younger,
    }
}

/// The resolvers of collections.
pub(crate) type Resolvers = BTreeMap<Collection, Resolver>;

impl Merged {
    /// Asks a resolver what to make of versions that nobody has replaced, if there are several. Without a resolver the
    /// youngest stands.
    ///
    /// # Errors
    /// When the resolver has no answer that can stand. The youngest stands.
    pub fn resolve(&mut self, doc: &DocId, resolver: Option<&Resolver>) -> Result<(), ResolverFailed> {
        self.heads.answer = None;
        let sides = if self.heads.is_empty() { Vec::new() } else { self.sides() };
        if let (Some(resolver), 2..) = (resolver, sides.len()) {
            self.heads.answer = Some(resolver.resolve(doc, &sides)?);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::{Hlc, Stamp};
    use crate::id::NodeId;

    fn doc() -> DocId {
        (Collection::new("t").unwrap(), Key::new("k").unwrap())
    }

    fn sides(contents: &[Option<&'static str>]) -> Vec<Side> {
        let side = |(time, content): (u64, &Option<&'static str>)| Side {
            stamp: Stamp { hlc: Hlc(time), node: NodeId([1; 32]) },
            content: content.map(Bytes::from),
        };
        (1..).zip(contents).map(side).collect()
    }

    fn answer(
        resolver: &Resolver,
        contents: &[Option<&'static str>],
    ) -> Result<Option<String>, ResolverFailed> {
        let answer = resolver.resolve(&doc(), &sides(contents))?;
        Ok(answer.map(|content| String::from_utf8(content.to_vec()).unwrap()))
    }

    #[test]
    fn the_greatest_number_stands_and_the_youngest_of_equal_ones() {
        let resolver = Resolver::greatest("n");
        let cases: [(&[Option<&'static str>], Option<&str>); 6] = [
            (&[Some(r#"{"n":3}"#), Some(r#"{"n":20}"#), Some(r#"{"n":1}"#)], Some(r#"{"n":20}"#)),
            (
                &[Some(r#"{"n":9007199254740993}"#), Some(r#"{"n":9007199254740992}"#)],
                Some(r#"{"n":9007199254740993}"#),
            ),
            (&[Some(r#"{"n":1.5}"#), Some(r#"{"n":-2}"#)], Some(r#"{"n":1.5}"#)),
            (&[Some(r#"{"n":1,"a":1}"#), Some(r#"{"n":1,"a":2}"#)], Some(r#"{"n":1,"a":2}"#)),
            (&[Some(r#"{"n":-1}"#), None, Some("no json")], Some(r#"{"n":-1}"#)),
            (&[Some("{}"), None], None),
        ];
        for (contents, expected) in cases {
            assert_eq!(answer(&resolver, contents).unwrap().as_deref(), expected, "{contents:?}");
        }
    }

    #[test]
    fn a_union_has_all_that_any_version_has() {
        let resolver = Resolver::union();
        let cases: [(&[Option<&'static str>], Option<&str>); 5] = [
            (
                &[Some(r#"{"a":1,"tags":[2,1],"o":{"x":1}}"#), Some(r#"{"a":2,"tags":[1,3],"o":{"y":1}}"#)],
                Some(r#"{"a":2,"o":{"x":1,"y":1},"tags":[2,1,3]}"#),
            ),
            (&[Some(r#"{"a":[1]}"#), Some(r#"{"a":2}"#)], Some(r#"{"a":2}"#)),
            (&[Some(r#"{"a":1}"#), None], Some(r#"{"a":1}"#)),
            (&[None, Some("no json"), Some(r#"{"a":1}"#)], Some(r#"{"a":1}"#)),
            (&[None, None], None),
        ];
        for (contents, expected) in cases {
            assert_eq!(answer(&resolver, contents).unwrap().as_deref(), expected, "{contents:?}");
        }
    }

    #[test]
    fn an_answer_is_stored_in_one_way_and_what_is_no_document_is_refused() {
        let says = |text: &'static str| Resolver::new(move |_, _, _| Some(text.into()));
        let contents = [Some(r#"{ "as": "written" }"#), Some("no json")];
        assert_eq!(answer(&says(r#"{"b" : 1, "a":2}"#), &contents).unwrap().unwrap(), r#"{"a":2,"b":1}"#);
        for own in contents.into_iter().flatten() {
            assert_eq!(answer(&says(own), &contents).unwrap().unwrap(), own, "a version is kept as it is");
        }
        assert!(answer(&says("{"), &contents).is_err());
        let deep: &'static str = Box::leak("[".repeat(100).into_boxed_str());
        assert!(answer(&says(deep), &contents).is_err());
        let large = Resolver::new(|_, _, _| Some(format!("\"{}\"", "x".repeat(PAYLOAD_BYTES_HARD)).into()));
        assert!(answer(&large, &contents).unwrap_err().to_string().contains("PAYLOAD_BYTES_HARD"));
    }
}
