//! A place in a document that merges: its registers, how two join, and what shows. See `merge` for the whole.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;

use crate::clock::{Hlc, Stamp};
use crate::id::NodeId;
use crate::json::{write_items, write_members, write_string};
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

/// A place and all under it. See the documentation of `merge`.
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

    /// The stamps of all its registers.
    pub(crate) fn stamps(&self, found: &mut BTreeSet<Stamp>) {
        let value = self.value.as_ref().map(|(stamp, _)| *stamp);
        let order = self.order.as_ref().map(|(stamp, _)| *stamp);
        found.extend([value, order, self.floor, self.removed].into_iter().flatten());
        self.children.values().for_each(|child| child.stamps(found));
    }

    /// Bytes that it takes as it is stored, or shown, at most: JSON in a string doubles with each level at worst.
    pub(crate) fn bytes_at_most(&self) -> usize {
        const REGISTERS: usize = 128;
        let text = match &self.value {
            Some((_, Value::Scalar(text))) => text.len(),
            _ => 0,
        };
        let order = self.order.iter().flat_map(|(_, order)| order).map(|step| step.bytes().len() + 8);
        let children = self.children.iter().map(|(step, child)| {
            let bytes = step.bytes().len() + child.bytes_at_most();
            if step.group() == Some(Group::Inside) { 2 * bytes } else { bytes }
        });
        REGISTERS + text + order.sum::<usize>() + children.sum::<usize>()
    }

    /// Of each author the last time at which it wrote any of its registers.
    pub(crate) fn authors(&self, found: &mut BTreeMap<NodeId, Hlc>) {
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
    pub(crate) fn write(&self, out: &mut Vec<u8>) {
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
    pub(crate) fn lost(&self, after: Option<&Self>, lost: &mut BTreeSet<Stamp>) {
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
    pub(crate) fn restamped(&self, stamp: Stamp) -> Self {
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
