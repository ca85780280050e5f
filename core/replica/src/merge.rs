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

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;

use crate::clock::{Hlc, Stamp};
use crate::heads::Heads;
use crate::id::NodeId;
use crate::json::{Json, string, write_items, write_members, write_string};
use crate::resolve::Side;
use crate::step::{GROUPS, Group, Step};

/// What was written at a place.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Value {
    /// JSON that is not looked into.
    Scalar(Bytes),
    Object,
    Array,
    /// A string that holds JSON.
    Text,
}

impl Value {
    fn shows(&self, group: Group) -> bool {
        match self {
            Self::Scalar(_) => false,
            Self::Object => group == Group::Fields,
            Self::Array => matches!(group, Group::Ids | Group::UnderscoreIds | Group::Members),
            Self::Text => group == Group::Inside,
        }
    }
}

/// What a place shows.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) enum Shown {
    #[default]
    Nothing,
    /// Its own value, which has no children to show.
    Own,
    Children(Group),
}

/// A place and all under it. See the module's documentation.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Place {
    pub(crate) floor: Option<Stamp>,
    pub(crate) value: Option<(Stamp, Value)>,
    pub(crate) removed: Option<Stamp>,
    pub(crate) order: Option<(Stamp, Vec<Step>)>,
    pub(crate) children: BTreeMap<Step, Place>,
    /// Stamps of the youngest and the oldest value at and under it. Follows from the registers, like `shown`.
    pub(crate) ages: Option<(Stamp, Stamp)>,
    pub(crate) shown: Shown,
}

impl Place {
    /// Takes the younger of each register. Both must be settled; so is the result. `above` is the youngest floor above.
    pub(crate) fn join(&mut self, other: Self, above: Option<Stamp>) {
        let floor_rises = self.floor.max(above) < other.floor;
        self.floor = self.floor.max(other.floor);
        let floor = self.floor.max(above);
        if self.value < other.value {
            self.value = other.value;
        }
        self.removed = self.removed.max(other.removed);
        if self.order < other.order {
            self.order = other.order;
        }
        for (step, mut child) in other.children {
            match self.children.entry(step) {
                Entry::Vacant(place) => {
                    child.settle(floor);
                    place.insert(child);
                }
                Entry::Occupied(mut place) => place.get_mut().join(child, floor),
            }
        }
        if floor_rises {
            self.children.values_mut().for_each(|child| child.settle(floor));
        }
        self.settle_here(above);
    }

    /// Drops what can never show again and works out what shows. `above` is the youngest floor above.
    ///
    /// Floors and the ages of values only rise, so what is dropped here would be dropped in any later state too.
    pub(crate) fn settle(&mut self, above: Option<Stamp>) {
        let floor = above.max(self.floor);
        self.children.values_mut().for_each(|child| child.settle(floor));
        self.settle_here(above);
    }

    /// The same where all children are settled.
    fn settle_here(&mut self, above: Option<Stamp>) {
        let floor = above.max(self.floor);
        if self.floor <= above {
            self.floor = None;
        }
        self.value.take_if(|(stamp, _)| Some(*stamp) < floor);
        self.order.take_if(|(stamp, _)| Some(*stamp) < floor);
        let mut ages = self.value.as_ref().map(|(stamp, _)| (*stamp, *stamp));
        let mut groups = [None; GROUPS.len()];
        let mut any_blank = false;
        for (step, child) in &self.children {
            any_blank |= child.is_blank();
            let Some((youngest, oldest)) = child.ages else { continue };
            ages = Some(ages.map_or((youngest, oldest), |(y, o)| (y.max(youngest), o.min(oldest))));
            if child.shows()
                && let Some(group) = step.group()
            {
                let group = &mut groups[group as usize];
                *group = Some(youngest).max(*group);
            }
        }
        if any_blank {
            self.children.retain(|_, child| !child.is_blank());
        }
        self.ages = ages;
        let youngest = ages.map(|(youngest, _)| youngest);
        self.removed.take_if(|stamp| Some(*stamp) < youngest.max(floor));
        self.shown = if self.removed.is_some() { Shown::Nothing } else { self.choose(&groups) };
    }

    /// What shows: the youngest of the own value and the groups of children. `groups` has the youngest stamp of each.
    fn choose(&self, groups: &[Option<Stamp>; GROUPS.len()]) -> Shown {
        let present = || GROUPS.iter().filter_map(|(group, _)| Some((groups[*group as usize]?, *group)));
        match (&self.value, present().max()) {
            (None, None) => Shown::Nothing,
            (None, Some((_, group))) => Shown::Children(group),
            (Some(_), None) => Shown::Own,
            (Some((stamp, value)), Some((at, group))) => {
                if at > *stamp || value.shows(group) {
                    return Shown::Children(group);
                }
                let shown = present().filter(|(_, group)| value.shows(*group)).max();
                shown.map_or(Shown::Own, |(_, group)| Shown::Children(group))
            }
        }
    }

    fn is_blank(&self) -> bool {
        self.floor.is_none()
            && self.value.is_none()
            && self.removed.is_none()
            && self.order.is_none()
            && self.children.is_empty()
    }

    /// Whether it shows anything.
    pub(crate) fn shows(&self) -> bool {
        self.shown != Shown::Nothing
    }

    /// What it shows.
    pub(crate) fn shown(&self) -> Shown {
        self.shown
    }

    /// The children that show in a group.
    pub(crate) fn group(&self, group: Group) -> impl Iterator<Item = (&Step, &Self)> {
        self.children.iter().filter(move |(step, child)| step.group() == Some(group) && child.shows())
    }

    /// Stamp of the oldest value at or under it.
    pub(crate) fn oldest(&self) -> Option<Stamp> {
        self.ages.map(|(_, oldest)| oldest)
    }

    /// The youngest stamp of all its registers.
    pub(crate) fn newest(&self) -> Option<Stamp> {
        let value = self.value.as_ref().map(|(stamp, _)| *stamp);
        let order = self.order.as_ref().map(|(stamp, _)| *stamp);
        let own = value.max(order).max(self.floor).max(self.removed);
        self.children.values().map(Self::newest).fold(own, Option::max)
    }

    /// Of each author the last time at which it wrote any of its registers.
    fn authors(&self, found: &mut BTreeMap<NodeId, Hlc>) {
        let value = self.value.as_ref().map(|(stamp, _)| *stamp);
        let order = self.order.as_ref().map(|(stamp, _)| *stamp);
        for stamp in [value, order, self.floor, self.removed].into_iter().flatten() {
            let hlc = found.entry(stamp.node).or_default();
            *hlc = stamp.hlc.max(*hlc);
        }
        self.children.values().for_each(|child| child.authors(found));
    }

    /// An array's items in the order in which they show.
    pub(crate) fn sequence(&self, group: Group) -> Vec<(&Step, &Self)> {
        let mut items: Vec<(&Step, &Self)> = self.group(group).collect();
        let mut places: BTreeMap<&Step, usize> = BTreeMap::new();
        if let Some((_, order)) = &self.order {
            for (place, step) in order.iter().enumerate() {
                places.entry(step).or_insert(place);
            }
        }
        let place = |step: &Step| places.get(step).copied().unwrap_or(usize::MAX);
        items.sort_by_cached_key(|(step, child)| (place(step), child.oldest(), (*step).clone()));
        items
    }

    /// Writes what it shows as JSON. Must not be called if it shows nothing.
    fn write(&self, out: &mut Vec<u8>) {
        match (self.shown, &self.value) {
            (Shown::Children(Group::Fields), _) => {
                let fields =
                    self.group(Group::Fields).filter_map(|(step, child)| Some((step.name()?, child)));
                write_members(out, fields, |out, child| child.write(out));
            }
            (Shown::Children(Group::Inside), _) => {
                let mut inside = Vec::new();
                if let Some((_, child)) = self.group(Group::Inside).next() {
                    child.write(&mut inside);
                }
                write_string(out, &String::from_utf8_lossy(&inside));
            }
            (Shown::Children(group), _) => {
                write_items(out, self.sequence(group), |out, (_, child)| child.write(out));
            }
            (Shown::Own, Some((_, Value::Scalar(text)))) => out.extend_from_slice(text),
            (Shown::Own, Some((_, Value::Object))) => out.extend_from_slice(b"{}"),
            (Shown::Own, Some((_, Value::Array))) => out.extend_from_slice(b"[]"),
            (Shown::Own, Some((_, Value::Text))) => out.extend_from_slice(b"\"\""),
            (Shown::Own | Shown::Nothing, _) => out.extend_from_slice(b"null"),
        }
    }

    /// Stamps of values and removals that show here and not in `after`, the state that this one became.
    fn lost(&self, after: Option<&Self>, lost: &mut BTreeSet<Stamp>) {
        let Some(after) = after.filter(|after| after.shows() || !self.shows()) else {
            return self.values(lost);
        };
        if let Some((stamp, value)) = &self.value
            && after.value.as_ref().is_none_or(|(_, other)| other != value)
        {
            lost.insert(*stamp);
        }
        if let Some(stamp) = self.removed
            && after.removed.is_none()
        {
            lost.insert(stamp);
        }
        for (step, child) in &self.children {
            child.lost(after.children.get(step), lost);
        }
    }

    fn values(&self, found: &mut BTreeSet<Stamp>) {
        found.extend(self.value.as_ref().map(|(stamp, _)| *stamp));
        self.children.values().for_each(|child| child.values(found));
    }

    /// The same with another stamp in all registers.
    fn restamped(&self, stamp: Stamp) -> Self {
        Self {
            floor: self.floor.map(|_| stamp),
            value: self.value.as_ref().map(|(_, value)| (stamp, value.clone())),
            removed: self.removed.map(|_| stamp),
            order: self.order.as_ref().map(|(_, order)| (stamp, order.clone())),
            children: self
                .children
                .iter()
                .map(|(step, child)| (step.clone(), child.restamped(stamp)))
                .collect(),
            ages: None,
            shown: Shown::Nothing,
        }
    }
}

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
            Items::None => {
                let mut text = Vec::new();
                json.write(&mut text);
                Value::Scalar(text.into())
            }
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
