//! Documents that merge: the state behind one, and how two states join.
//!
//! A document is a tree. At each place stand up to four registers, each with the stamp of the edit that wrote it:
//!
//! - `value`: a scalar, or that an object or array is here;
//! - `floor`: everything at and under this place that is older is gone (somebody saw it and replaced it);
//! - `removed`: this place was removed. It does so only if nothing under it is younger: an edit wins over a removal that
//!   did not know of it, and brings back the whole of what it edited, not a fragment;
//! - `order`: the sequence of an array's items.
//!
//! Two states join by taking the younger of each register. That commutes, is associative and idempotent by construction,
//! so any two nodes with the same edits have the same state, and the document is a pure function of it: the youngest
//! write decides whether a place is a scalar, an object or an array. What can never show again is pruned at once.
//!
//! Items of an array are told apart by their `id` or `_id` if all are objects that have one, or by their value if all are
//! distinct scalars; any other array is a scalar here. Items stand in the order that was last written; those it does not
//! name follow, oldest first. (The idea is that of a state-based map of last-writer-wins registers: Shapiro et al., "A
//! comprehensive study of convergent and commutative replicated data types", 2011.)

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;

use crate::clock::{Hlc, Stamp};
use crate::heads::Heads;
use crate::id::NodeId;
use crate::json::{Json, string};
use crate::place::{Place, Value};
use crate::resolve::Side;
use crate::step::{Group, Step};

/// How an array's items are told apart.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Items<'a> {
    /// In no way: the array is one value. An empty array is one too, but fits every way.
    None,
    /// By these steps, in the array's order.
    Steps(Group, Vec<(Step, &'a Json)>),
}

/// Finds out how an array's items can be told apart.
pub(crate) fn items(array: &[Json]) -> Items<'_> {
    let by = |group: Group, step: &dyn Fn(&Json) -> Option<Step>| {
        let steps: Option<Vec<(Step, &Json)>> = array.iter().map(|item| Some((step(item)?, item))).collect();
        let steps = steps?;
        let distinct: BTreeSet<&Step> = steps.iter().map(|(step, _)| step).collect();
        (distinct.len() == steps.len()).then_some(Items::Steps(group, steps))
    };
    fn named<'a>(item: &'a Json, name: &str) -> Option<&'a Bytes> {
        match item {
            Json::Object(members) => match members.get(name) {
                Some(Json::Scalar(id)) if !matches!(&**id, b"null" | b"true" | b"false") => Some(id),
                _ => None,
            },
            _ => None,
        }
    }
    let member = |item: &Json| match item {
        Json::Scalar(text) => Some(Step::new(Group::Members, text)),
        _ => None,
    };
    if array.is_empty() {
        return Items::None;
    }
    by(Group::Ids, &|item| named(item, "id").map(|id| Step::new(Group::Ids, id)))
        .or_else(|| {
            by(Group::UnderscoreIds, &|item| named(item, "_id").map(|id| Step::new(Group::UnderscoreIds, id)))
        })
        .or_else(|| by(Group::Members, &member))
        .unwrap_or(Items::None)
}

/// The registers of one edit that writes a whole value at a place where nothing was.
pub(crate) fn written(json: &Json, stamp: Stamp) -> Place {
    let mut place = Place::default();
    let value = match json {
        Json::Scalar(text) => Value::Scalar(text.clone()),
        Json::Object(members) => {
            let child = |(name, value): (&String, &Json)| (Step::field(name), written(value, stamp));
            place.children = members.iter().map(child).collect();
            Value::Object
        }
        Json::Array(array) => match items(array) {
            Items::Steps(_, steps) => {
                // All items have the same age: without an order they would stand in that of their steps.
                if !steps.is_sorted_by(|(a, _), (b, _)| a < b) {
                    place.order = Some((stamp, steps.iter().map(|(step, _)| step.clone()).collect()));
                }
                let child = |(step, item): (Step, &Json)| (step, written(item, stamp));
                place.children = steps.into_iter().map(child).collect();
                Value::Array
            }
            Items::None if array.is_empty() => Value::Array,
            Items::None => Value::Scalar(json.to_bytes()),
        },
    };
    place.value = Some((stamp, value));
    place
}

/// The same for a string that holds JSON, if it does.
pub(crate) fn written_inside(text: &Bytes, stamp: Stamp) -> Option<Place> {
    let inside = Json::parse(&Bytes::from(string(text)?.into_bytes()))?;
    if matches!(inside, Json::Scalar(_)) {
        return None;
    }
    let children = BTreeMap::from([(Step::inside(), written(&inside, stamp))]);
    Some(Place { value: Some((stamp, Value::Text)), children, ..Place::default() })
}

/// The state of a document that merges, or that a resolver decides on. Equal for all nodes with the same entries.
///
/// It is two states side by side: what was written of the document as a whole or field by field, and the versions of authors
/// whose collection has a resolver (`custom`). Each joins for itself, so both do. The first counts as one more
/// version beside the others for as long as nobody has seen and replaced all of it.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Merged {
    pub(crate) root: Place,
    pub(crate) heads: Heads,
}

impl Merged {
    pub(crate) fn of(root: Place) -> Self {
        Self { root, heads: Heads::default() }
    }

    /// The state after a write of a whole document, or a delete, that replaces everything older.
    #[must_use]
    pub fn replaced(stamp: Stamp, content: Option<&Bytes>) -> Self {
        let root = match content {
            Some(content) => {
                let place = Json::parse(content).map(|json| written(&json, stamp));
                let opaque =
                    || Place { value: Some((stamp, Value::Scalar(content.clone()))), ..Place::default() };
                Place { floor: Some(stamp), ..place.unwrap_or_else(opaque) }
            }
            None => Place { floor: Some(stamp), removed: Some(stamp), ..Place::default() },
        };
        let mut merged = Self::of(root);
        merged.root.settle(None);
        merged
    }

    /// Joins another state into this one.
    pub fn join(&mut self, other: Self) {
        self.root.join(other.root, None);
        self.heads.join(other.heads);
    }

    /// The document as JSON; `None` if it is removed, or never was. Of several versions that nobody has replaced it is what
    /// the resolver made of them ([`Merged::resolve`]), or the youngest if none was asked.
    #[must_use]
    pub fn content(&self) -> Option<Bytes> {
        if self.heads.is_empty() {
            return self.whole();
        }
        let mut sides = self.sides();
        match &self.heads.answer {
            Some(answer) if sides.len() > 1 => answer.clone(),
            _ => sides.pop().and_then(|side| side.content),
        }
    }

    fn whole(&self) -> Option<Bytes> {
        if !self.root.shows() {
            return None;
        }
        let mut out = Vec::new();
        self.root.write(&mut out);
        Some(out.into())
    }

    /// Whether this, a version, names another one as seen. If not it may have replaced it all the same, for want of room.
    pub(crate) fn names(&self, stamp: &Stamp) -> bool {
        self.heads.seen.get(&stamp.node).is_some_and(|hlc| stamp.hlc <= *hlc)
    }

    /// What was written of the document without regard for a resolver.
    pub(crate) fn without_heads(&self) -> Self {
        Self::of(self.root.clone())
    }

    /// Whether a resolver decides on the document: somebody wrote a version of it for one.
    #[must_use]
    pub fn has_heads(&self) -> bool {
        !self.heads.is_empty()
    }

    /// The versions that nobody has seen and replaced, oldest first. At most one unless a resolver decides on the document.
    #[must_use]
    pub fn sides(&self) -> Vec<Side> {
        let mut sides: Vec<Side> = self.heads.sides().collect();
        let mut authors = BTreeMap::new();
        self.root.authors(&mut authors);
        let is_seen = |(node, hlc): (&NodeId, &Hlc)| self.heads.has_seen(&Stamp { hlc: *hlc, node: *node });
        if let Some(stamp) = self.root.newest()
            && !authors.iter().all(is_seen)
        {
            sides.push(Side { stamp, content: self.whole() });
        }
        sides.sort_unstable_by(|a, b| (a.stamp, &a.content).cmp(&(b.stamp, &b.content)));
        sides
    }

    /// The version that an author makes of the document who sees this state. It replaces all that there is to be seen, and
    /// names at most `authors_max` authors to say so.
    #[must_use]
    pub fn version(&self, content: Option<Bytes>, stamp: Stamp, authors_max: usize) -> Self {
        let mut authors = BTreeMap::new();
        self.root.authors(&mut authors);
        let heads = self.heads.replaced_by(&authors, stamp, content, authors_max);
        Self { root: Place::default(), heads }
    }

    /// Stamp of the youngest edit that left a trace; `None` if there was none.
    #[must_use]
    pub fn newest(&self) -> Option<Stamp> {
        self.root.newest().max(self.heads.versions.last_key_value().map(|(stamp, _)| *stamp))
    }

    /// Stamps of edits of which something showed here and does not in `after`, the state that this one became.
    #[must_use]
    pub fn lost_in(&self, after: &Self) -> BTreeSet<Stamp> {
        let mut lost = BTreeSet::new();
        self.root.lost(Some(&after.root), &mut lost);
        lost
    }

    /// The document as it would be had `edit` come last of all.
    #[must_use]
    pub fn preferring(&self, edit: &Self, last: Stamp) -> Option<Bytes> {
        let mut preferred = self.clone();
        let mut edit = edit.root.restamped(last);
        edit.settle(None);
        preferred.join(Self::of(edit));
        preferred.content()
    }
}
