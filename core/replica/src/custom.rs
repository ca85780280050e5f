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
/// version of the program and on every machine of the cluster. `check_laws` helps to test that.
///
/// A content is one of the versions' as it is, or JSON, which is stored without white space and with members sorted.
///
/// ```
/// use entgldb_replica::check_laws;
/// use entgldb_replica::custom::Resolver;
/// use entgldb_replica::id::{Collection, Key};
///
/// // A booking that was made stays; of several the oldest.
/// let first_come = Resolver::new(|_, _, sides| sides.iter().find_map(|side| side.content.clone()));
///
/// let doc = (Collection::new("bookings")?, Key::new("room 1, 9:00")?);
/// let samples = [Some(r#"{"by":"Ada"}"#.into()), Some(r#"{"by":"Grace"}"#.into()), None];
/// check_laws(&first_come, &doc, &samples)?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
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
            Some(united.to_bytes())
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
        Ok(Some(json.to_bytes()))
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
    use crate::limits::SEEN_AUTHORS_MAX;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

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

    fn at(time: u64, node: u8) -> Stamp {
        Stamp { hlc: Hlc(time), node: NodeId([node; 32]) }
    }

    fn version(state: &Merged, text: &'static str, stamp: Stamp) -> Merged {
        state.version(Some(text.into()), stamp, SEEN_AUTHORS_MAX)
    }

    fn joined<'a>(states: impl IntoIterator<Item = &'a Merged>) -> Merged {
        let mut all = Merged::default();
        states.into_iter().for_each(|state| all.join(state.clone()));
        all
    }

    fn stamps(state: &Merged) -> Vec<Stamp> {
        state.sides().iter().map(|side| side.stamp).collect()
    }

    #[test]
    fn a_version_replaces_what_its_author_saw_and_nothing_else() {
        let first = version(&Merged::default(), "1", at(1, 1));
        let (left, right) = (version(&first, "2", at(2, 1)), version(&first, "3", at(3, 2)));
        let both = joined([&left, &right, &first]);
        assert_eq!(stamps(&both), [at(2, 1), at(3, 2)]);
        assert_eq!(both.content().unwrap(), "3", "without a resolver the youngest shows");
        let last = version(&both, "4", at(4, 3));
        assert_eq!(stamps(&joined([&last, &both])), [at(4, 3)]);
        let late = joined([&last, &right]);
        assert_eq!(stamps(&joined([&late, &left, &first])), [at(4, 3)], "what comes late was seen");
    }

    #[test]
    fn whole_writes_stand_beside_versions_as_the_last_of_them() {
        let (old, new) = (Merged::replaced(at(1, 1), Some(&"1".into())), Merged::replaced(at(5, 2), None));
        let seen = version(&old, "2", at(3, 3));
        assert_eq!(stamps(&joined([&old, &seen])), [at(3, 3)]);
        assert_eq!(stamps(&joined([&new, &seen, &old])), [at(3, 3), at(5, 2)]);
        let all = joined([&new, &seen]);
        assert_eq!(stamps(&joined([&version(&all, "3", at(6, 1)), &all])), [at(6, 1)]);
    }

    #[test]
    fn an_author_with_room_for_few_names_still_replaces_all_that_it_saw() {
        let versions: Vec<Merged> =
            (1..30).map(|n| version(&Merged::default(), "1", at(n, u8::try_from(n).unwrap()))).collect();
        let all = joined(&versions);
        for room in [0, 1, 5, 40] {
            let last = all.version(Some("2".into()), at(40, 50), room);
            assert!(last.heads.seen.len() <= room);
            assert_eq!(stamps(&joined([&all, &last])), [at(40, 50)], "room for {room}");
            let beside = version(&Merged::default(), "3", at(35, 60));
            assert_eq!(stamps(&joined([&last, &all, &beside])), [at(35, 60), at(40, 50)]);
        }
    }

    #[test]
    fn bytes_that_claim_too_much_are_refused() {
        let state = joined([
            &version(&Merged::default(), "1", at(1, 1)),
            &version(&Merged::default(), "2", at(2, 2)),
        ]);
        let edit = version(&state, "3", at(3, 3));
        let bytes = edit.encode(at(3, 3));
        assert_eq!(Merged::decode_edit(bytes.clone(), at(3, 3)), Ok(edit.clone()));
        assert!(Merged::decode_edit(bytes, at(1, 3)).is_err(), "it cannot have seen what is younger");
        assert!(Merged::decode_edit(state.encode(at(2, 2)), at(2, 2)).is_err(), "a state is no edit");
        let mut until = edit.clone();
        until.heads.seen_until = Hlc(3);
        assert!(Merged::decode_edit(until.encode(at(3, 3)), at(3, 3)).is_err(), "it has not seen itself");
        let mut mixed = edit;
        mixed.join(Merged::replaced(at(3, 3), None));
        assert!(Merged::decode_edit(mixed.encode(at(3, 3)), at(3, 3)).is_err(), "it is one or the other");
    }

    #[test]
    fn an_answer_is_kept_with_the_state_until_something_changes() {
        let mut state = joined([
            &version(&Merged::default(), "1", at(1, 1)),
            &version(&Merged::default(), "2", at(2, 2)),
        ]);
        let three = Resolver::new(|_, _, _| Some("3".into()));
        state.resolve(&doc(), Some(&three)).unwrap();
        let again = Merged::decode(state.encode(at(2, 2)), at(2, 2)).unwrap();
        assert_eq!((again.content().unwrap(), &again), (Bytes::from("3"), &state));
        let none = Resolver::fallible(|_, _, _| Err(ResolverFailed("no".into())));
        assert!(state.resolve(&doc(), Some(&none)).is_err());
        assert_eq!(state.content().unwrap(), "2", "the youngest stands");
        state.resolve(&doc(), Some(&three)).unwrap();
        state.join(version(&state, "4", at(4, 1)));
        assert_eq!(state.content().unwrap(), "4");
    }

    /// What happens: node `at` of four writes something of its own sort, or takes an author's entries up to one.
    #[derive(Clone, Debug)]
    enum Deed {
        Write(usize, Option<u8>),
        Take { to: usize, entry: usize },
    }

    fn deed() -> impl Strategy<Value = Deed> {
        prop_oneof![
            2 => (0usize..4, prop::option::weighted(0.8, any::<u8>())).prop_map(|(node, n)| Deed::Write(node, n)),
            3 => (0usize..4, 0usize..32).prop_map(|(to, entry)| Deed::Take { to, entry }),
        ]
    }

    /// An entry, what its author knew, and whether it is a version for a resolver.
    struct Written {
        stamp: Stamp,
        said: Merged,
        known: BTreeSet<usize>,
        is_version: bool,
    }

    /// Nodes 0 and 1 have a resolver, node 2 writes whole documents, node 3 merges.
    fn carry_out(deeds: &[Deed], merging: bool) -> Vec<Written> {
        let mut copies: Vec<(Merged, BTreeSet<usize>)> = vec![Default::default(); 4];
        let mut entries: Vec<Written> = Vec::new();
        for (time, deed) in (1..).zip(deeds) {
            match deed {
                Deed::Write(node, content) => {
                    let node = if *node == 3 && !merging { 2 } else { *node };
                    let stamp = at(time, u8::try_from(node).unwrap());
                    let content = content.map(|n| Bytes::from(format!("{{\"n{}\":{n}}}", n % 3)));
                    let (state, known) = &mut copies[node];
                    let is_version = node < 2 || state.has_heads();
                    let said = match node {
                        _ if is_version => state.version(content.clone(), stamp, SEEN_AUTHORS_MAX),
                        3 => match state.edit(content.as_ref(), &BTreeSet::new(), stamp) {
                            Some(edited) => edited.edit,
                            None => continue,
                        },
                        _ => Merged::replaced(stamp, content.as_ref()),
                    };
                    state.join(said.clone());
                    assert_eq!(state.content(), content, "an author sees what it wrote");
                    entries.push(Written { stamp, said, known: known.clone(), is_version });
                    known.insert(entries.len() - 1);
                }
                Deed::Take { to, entry } => {
                    let Some(author) = entries.get(*entry).map(|entry| entry.stamp.node) else { continue };
                    // Logs come without gaps.
                    for (number, written) in entries[..=*entry].iter().enumerate() {
                        if written.stamp.node == author && copies[*to].1.insert(number) {
                            copies[*to].0.join(written.said.clone());
                        }
                    }
                }
            }
        }
        entries
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(400))]

        #[test]
        fn in_whatever_order_and_groups_versions_come_the_bytes_are_the_same(
            deeds in prop::collection::vec(deed(), 0..32),
            merging in any::<bool>(),
            seed in any::<u64>(),
        ) {
            let entries = carry_out(&deeds, merging);
            let mut straight = joined(entries.iter().map(|entry| &entry.said));
            let mut rng = fastrand::Rng::with_seed(seed);
            let mut shuffled: Vec<&Merged> = entries.iter().chain(&entries).map(|entry| &entry.said).collect();
            rng.shuffle(&mut shuffled);
            let mut groups = vec![Merged::default(); 3];
            for said in shuffled {
                let group = &mut groups[rng.usize(..3)];
                group.join(said.clone());
                // Nodes ask their resolvers as entries come.
                group.resolve(&doc(), Some(&Resolver::union())).unwrap();
            }
            let mut all = joined(&groups);
            all.resolve(&doc(), Some(&Resolver::union())).unwrap();
            straight.resolve(&doc(), Some(&Resolver::union())).unwrap();
            prop_assert_eq!(all.content(), straight.content());
            let own = straight.newest().unwrap_or(at(0, 0));
            prop_assert_eq!(all.encode(own), straight.encode(own));
            prop_assert_eq!(Merged::decode(all.encode(own), own).unwrap(), straight);
        }

        #[test]
        fn the_versions_that_stand_are_exactly_those_that_nobody_knew(
            deeds in prop::collection::vec(deed(), 0..32),
        ) {
            let entries = carry_out(&deeds, false);
            let all = joined(entries.iter().map(|entry| &entry.said));
            // Of whole writes the last one stands for all of them.
            let last = entries.iter().rposition(|entry| !entry.is_version);
            let known = |number: usize| entries.iter().any(|other| other.is_version && other.known.contains(&number));
            let stands = |number: &usize| !known(*number) && (entries[*number].is_version || last == Some(*number));
            let wanted: Vec<Stamp> =
                (0..entries.len()).filter(stands).map(|number| entries[number].stamp).collect();
            prop_assert_eq!(stamps(&all), wanted);
        }

        #[test]
        fn arbitrary_claims_of_what_was_seen_still_commute(
            claims in prop::collection::vec((1u64..6, 0u8..3, 0u64..4, prop::collection::vec(0u64..6, 3)), 0..7),
            seed in any::<u64>(),
        ) {
            let claim = |(time, node, until, seen): (u64, u8, u64, Vec<u64>)| {
                let mut said = version(&Merged::default(), "1", at(time, node));
                said.heads.seen = (0..).zip(seen).map(|(node, time)| (at(0, node).node, Hlc(time))).collect();
                said.heads.seen_until = Hlc(until);
                Merged::decode_edit(said.encode(at(time, node)), at(time, node)).unwrap_or_default()
            };
            let mut claims: Vec<Merged> = claims.into_iter().map(claim).collect();
            let straight = joined(&claims);
            fastrand::Rng::with_seed(seed).shuffle(&mut claims);
            let (one, two) = claims.split_at(claims.len() / 2);
            prop_assert_eq!(joined([&joined(two), &joined(one), &joined(two)]), straight);
        }
    }
}
