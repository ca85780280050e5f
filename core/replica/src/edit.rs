//! Edits: what an author wrote of a document that merges, found by comparing it with the state before; and the bytes of
//! edits and states (`docs/protocol/session.proto`, `Merged`).

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use prost::Message;

use crate::clock::{Hlc, Stamp};
use crate::heads::Heads;
use crate::id::NodeId;
use crate::json::Json;
use crate::limits::{JSON_DEPTH_MAX, SEEN_AUTHORS_MAX};
use crate::merge::{Items, Merged, items, written, written_inside};
use crate::place::{Place, Shown, Value};
use crate::step::{Group, Step};
use crate::wire::generated as proto;

/// Bytes that are no edit or no state. Whoever made them is at fault; nothing was taken of them.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum MergedError {
    /// Not the message that it should be.
    #[error("not readable: {0}")]
    Unreadable(String),
    /// A field with a value that it cannot have.
    #[error("{0} has a value that it cannot have")]
    Invalid(&'static str),
    /// Nested too deeply.
    #[error("nested deeper than the limit JSON_DEPTH_MAX allows ({JSON_DEPTH_MAX})")]
    TooDeep,
}

impl Merged {
    /// What an author wrote who saw this state and leaves the document as `content` (`None`: deleted it): only the places
    /// that differ, all with `stamp`. `None` if nothing differs. Fields of the document in `json_fields` are strings that hold
    /// JSON and are looked into.
    #[must_use]
    pub fn edit(
        &self,
        content: Option<&Bytes>,
        json_fields: &BTreeSet<String>,
        stamp: Stamp,
    ) -> Option<Edited> {
        let writer = Writer { stamp, json_fields };
        let Some(content) = content else {
            return self.root.shows().then(|| self.edited(writer.removal()));
        };
        let Some(json) = Json::parse(content) else {
            let same = self.content().as_ref() == Some(content);
            return (!same).then(|| self.edited(Self::replaced(stamp, Some(content)).root));
        };
        let edited = self.edited(writer.difference(Some(&self.root), &json, 0)?);
        let is_right = |edited: &Edited| {
            let now = edited.after.content().and_then(|content| Json::parse(&content));
            now.is_some_and(|now| writer.is_same(&now, &json))
        };
        // Something old shows through where concurrent edits made one place two things. Then all of it is written anew.
        let whole = || self.edited(Place { floor: Some(stamp), ..writer.fresh(&json, 0) });
        Some(if is_right(&edited) { edited } else { whole() })
    }

    fn edited(&self, place: Place) -> Edited {
        let mut edit = Self::of(place);
        edit.root.settle(None);
        let mut after = self.clone();
        after.join(edit.clone());
        Edited { edit, after }
    }

    /// The bytes of a state, or of an edit. `own` is the stamp that is not stored: the entry's or the row's.
    #[must_use]
    pub fn encode(&self, own: Stamp) -> Bytes {
        let mut stamps = Stamps { own, others: BTreeMap::new(), order: Vec::new() };
        let has_root = self.root != Place::default() || self.heads.is_empty();
        let root = has_root.then(|| encode_place(&self.root, None, &mut stamps));
        let heads = (!self.heads.is_empty()).then(|| encode_heads(&self.heads, &mut stamps));
        proto::Merged { stamps: stamps.order, root, heads }.encode_to_vec().into()
    }

    /// Reads a state.
    ///
    /// # Errors
    /// When the bytes are none.
    pub fn decode(bytes: Bytes, own: Stamp) -> Result<Self, MergedError> {
        Self::from_proto(proto::Merged::decode(bytes).map_err(unreadable)?, own)
    }

    fn from_proto(merged: proto::Merged, own: Stamp) -> Result<Self, MergedError> {
        let mut stamps = vec![own];
        for bytes in &merged.stamps {
            stamps.push(decode_stamp(bytes).ok_or(MergedError::Invalid("stamps"))?);
        }
        let mut root = decode_place(merged.root.unwrap_or_default(), &stamps, 0)?.1;
        root.settle(None);
        let heads = merged.heads.map(|heads| decode_heads(heads, &stamps)).transpose()?;
        Ok(Self { root, heads: heads.unwrap_or_default() })
    }

    /// Reads an edit: a state in which everything has the entry's own stamp.
    ///
    /// # Errors
    /// When the bytes are none.
    pub fn decode_edit(bytes: Bytes, own: Stamp) -> Result<Self, MergedError> {
        let merged = proto::Merged::decode(bytes).map_err(unreadable)?;
        // An author writes in its own name and at one time.
        if !merged.stamps.is_empty() {
            return Err(MergedError::Invalid("stamps"));
        }
        if let Some(heads) = &merged.heads {
            let is_version = merged.root.is_none() && heads.versions.len() == 1 && heads.answer.is_none();
            if !is_version || heads.seen.len() > SEEN_AUTHORS_MAX {
                return Err(MergedError::Invalid("heads"));
            }
        }
        let edit = Self::from_proto(merged, own)?;
        check_scalars(&edit.root)?;
        // Nobody has seen what is younger than what he wrote himself.
        let is_older = |(node, hlc): (&NodeId, &Hlc)| Stamp { hlc: *hlc, node: *node } < own;
        let has_version = edit.heads.is_empty() || edit.heads.versions.contains_key(&own);
        if !edit.heads.seen.iter().all(is_older) || !has_version {
            return Err(MergedError::Invalid("seen"));
        }
        Ok(edit)
    }
}

fn unreadable(error: prost::DecodeError) -> MergedError {
    MergedError::Unreadable(error.to_string())
}

/// What is written as JSON must be JSON. The whole document need not be.
fn check_scalars(place: &Place) -> Result<(), MergedError> {
    place.children.iter().try_for_each(|(step, child)| {
        let is_json = |text: &Bytes| matches!(Json::parse(text), Some(Json::Scalar(_) | Json::Array(_)));
        if step.item().is_some_and(|item| !is_json(&item)) {
            return Err(MergedError::Invalid("step"));
        }
        match &child.value {
            Some((_, Value::Scalar(text))) if !is_json(text) => Err(MergedError::Invalid("scalar")),
            _ => check_scalars(child),
        }
    })
}

/// What an author wrote, and the state after it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Edited {
    /// The edit: what travels.
    pub edit: Merged,
    /// The state joined with it.
    pub after: Merged,
}

/// Compares a state with what an author made of it.
struct Writer<'a> {
    stamp: Stamp,
    json_fields: &'a BTreeSet<String>,
}

impl Writer<'_> {
    /// Whether two documents say the same: strings that hold JSON may be written in two ways.
    fn is_same(&self, now: &Json, wanted: &Json) -> bool {
        let (Json::Object(now), Json::Object(wanted)) = (now, wanted) else { return now == wanted };
        let is_same = |name: &String, now: &Json, wanted: &Json| {
            let inside = |json: &Json| match json {
                Json::Scalar(text) => written_inside(text, self.stamp),
                _ => None,
            };
            now == wanted
                || (self.json_fields.contains(name) && inside(now).is_some_and(|i| Some(i) == inside(wanted)))
        };
        now.len() == wanted.len()
            && now.iter().zip(wanted).all(|((a, now), (b, wanted))| a == b && is_same(a, now, wanted))
    }

    fn removal(&self) -> Place {
        Place { removed: Some(self.stamp), ..Place::default() }
    }

    /// A whole value where something else was, or nothing. What is under it must not come back.
    fn whole(&self, before: Option<&Place>, json: &Json) -> Place {
        let floor = before.is_some_and(|before| !before.children.is_empty()).then_some(self.stamp);
        Place { floor, ..written(json, self.stamp) }
    }

    fn difference(&self, before: Option<&Place>, json: &Json, depth: usize) -> Option<Place> {
        let Some(place) = before else { return Some(self.fresh(json, depth)) };
        match (place.shown(), json) {
            (Shown::Own, Json::Scalar(text)) => {
                let same = matches!(&place.value, Some((_, Value::Scalar(now))) if now == text);
                (!same).then(|| self.whole(before, json))
            }
            (Shown::Own, Json::Object(members)) if matches!(place.value, Some((_, Value::Object))) => {
                self.members(place, members, depth)
            }
            (Shown::Children(Group::Fields), Json::Object(members)) => self.members(place, members, depth),
            (Shown::Children(Group::Inside), Json::Scalar(text)) => self.inside(place, text, json, depth),
            (shown, Json::Array(array)) => self.array(place, shown, array, json, depth),
            (Shown::Nothing, Json::Object(_)) if depth == 0 && place.children.is_empty() => {
                Some(self.fresh(json, depth))
            }
            _ if depth == 0 => {
                let floor = (!place.children.is_empty()).then_some(self.stamp);
                Some(Place { floor, ..self.fresh(json, depth) })
            }
            _ => Some(self.whole(before, json)),
        }
    }

    /// A value where nothing was.
    fn fresh(&self, json: &Json, depth: usize) -> Place {
        let mut place = written(json, self.stamp);
        if let (0, Json::Object(members)) = (depth, json) {
            for (name, value) in members.iter().filter(|(name, _)| self.json_fields.contains(*name)) {
                if let Json::Scalar(text) = value
                    && let Some(inside) = written_inside(text, self.stamp)
                {
                    place.children.insert(Step::field(name), inside);
                }
            }
        }
        place
    }

    fn members(&self, place: &Place, members: &BTreeMap<String, Json>, depth: usize) -> Option<Place> {
        let mut edit = Place::default();
        for (name, value) in members {
            let step = Step::field(name);
            let before = place.children.get(&step);
            let child = match value {
                Json::Scalar(text) if depth == 0 && self.json_fields.contains(name) => {
                    self.text_field(before, text, value)
                }
                _ => self.difference(before, value, depth + 1),
            };
            edit.children.extend(child.map(|child| (step, child)));
        }
        for (step, _) in place.group(Group::Fields) {
            if step.name().is_some_and(|name| !members.contains_key(name)) {
                edit.children.insert(step.clone(), self.removal());
            }
        }
        (!edit.children.is_empty()).then_some(edit)
    }

    /// A field of the document that is a string with JSON in it, or was one, or becomes one.
    fn text_field(&self, before: Option<&Place>, text: &Bytes, json: &Json) -> Option<Place> {
        if let Some(place) = before
            && place.shown() == Shown::Children(Group::Inside)
        {
            return self.inside(place, text, json, 1);
        }
        let difference = self.difference(before, json, 1)?;
        Some(match written_inside(text, self.stamp) {
            Some(inside) => Place { floor: difference.floor, ..inside },
            None => difference,
        })
    }

    fn inside(&self, place: &Place, text: &Bytes, json: &Json, depth: usize) -> Option<Place> {
        let Some(mut edit) = written_inside(text, self.stamp) else {
            return Some(self.whole(Some(place), json));
        };
        let inside =
            crate::json::string(text).and_then(|text| Json::parse(&Bytes::from(text.into_bytes())))?;
        let child = self.difference(place.children.get(&Step::inside()), &inside, depth + 1)?;
        edit.value = None;
        edit.children = BTreeMap::from([(Step::inside(), child)]);
        Some(edit)
    }

    fn array(&self, place: &Place, shown: Shown, array: &[Json], json: &Json, depth: usize) -> Option<Place> {
        let is_empty_array = shown == Shown::Own && matches!(place.value, Some((_, Value::Array)));
        let group = match shown {
            Shown::Children(group @ (Group::Ids | Group::UnderscoreIds | Group::Members)) => Some(group),
            _ => None,
        };
        match (items(array), group) {
            (Items::Steps(found, steps), Some(group)) if found == group => {
                self.items(place, group, &steps, depth)
            }
            (Items::Steps(group, steps), None) if is_empty_array => self.items(place, group, &steps, depth),
            (Items::None, Some(group)) if array.is_empty() => self.items(place, group, &[], depth),
            (Items::None, None) if array.is_empty() && is_empty_array => None,
            (Items::None, None) => {
                let whole = self.whole(Some(place), json);
                let now = place.value.as_ref().filter(|_| shown == Shown::Own).map(|(_, value)| value);
                (now != whole.value.as_ref().map(|(_, value)| value)).then_some(whole)
            }
            _ => Some(self.whole(Some(place), json)),
        }
    }

    fn items(&self, place: &Place, group: Group, steps: &[(Step, &Json)], depth: usize) -> Option<Place> {
        let mut edit = Place::default();
        for (step, item) in steps {
            // An item that comes back after its removal does not bring its old fields along.
            let child = self.difference(place.children.get(step), item, depth + 1);
            edit.children.extend(child.map(|child| (step.clone(), child)));
        }
        let wanted: BTreeSet<&Step> = steps.iter().map(|(step, _)| step).collect();
        for (step, _) in place.group(group) {
            if !wanted.contains(step) {
                edit.children.insert(step.clone(), self.removal());
            }
        }
        if self.order_without(place, &wanted) != steps.iter().map(|(step, _)| step).collect::<Vec<_>>() {
            edit.order = Some((self.stamp, steps.iter().map(|(step, _)| step.clone()).collect()));
        }
        if steps.is_empty() && !edit.children.is_empty() {
            // Nothing else says that there is an array still.
            edit.value = Some((self.stamp, Value::Array));
        }
        (!edit.children.is_empty() || edit.order.is_some()).then_some(edit)
    }

    /// The order in which these items would stand if none were written.
    fn order_without<'s>(&self, place: &Place, steps: &BTreeSet<&'s Step>) -> Vec<&'s Step> {
        let mut places: BTreeMap<&Step, usize> = BTreeMap::new();
        if let Some((_, order)) = &place.order {
            for (number, step) in order.iter().enumerate() {
                places.entry(step).or_insert(number);
            }
        }
        let age = |step: &Step| {
            let known = place.children.get(step).filter(|child| child.shows());
            known.and_then(Place::oldest).unwrap_or(self.stamp)
        };
        let mut order: Vec<&Step> = steps.iter().copied().collect();
        order.sort_by_key(|step| (places.get(step).copied().unwrap_or(usize::MAX), age(step), *step));
        order
    }
}

/// The stamps of a state, each stored once.
struct Stamps {
    own: Stamp,
    others: BTreeMap<Stamp, u32>,
    order: Vec<Vec<u8>>,
}

impl Stamps {
    /// Zero for none, one for the own stamp.
    fn number(&mut self, stamp: Option<Stamp>) -> u32 {
        let Some(stamp) = stamp else { return 0 };
        if stamp == self.own {
            return 1;
        }
        let next = u32::try_from(self.order.len()).expect("a document has fewer stamps than bytes") + 2;
        *self.others.entry(stamp).or_insert_with(|| {
            self.order.push(encode_stamp(&stamp));
            next
        })
    }
}

fn encode_place(place: &Place, step: Option<&Step>, stamps: &mut Stamps) -> proto::MergedPlace {
    let (scalar, kind) = match &place.value {
        Some((_, Value::Scalar(text))) => (text.clone(), 0),
        Some((_, Value::Object)) => (Bytes::new(), 1),
        Some((_, Value::Array)) => (Bytes::new(), 2),
        Some((_, Value::Text)) => (Bytes::new(), 3),
        None => (Bytes::new(), 0),
    };
    proto::MergedPlace {
        step: step.map(|step| step.bytes().clone()).unwrap_or_default(),
        floor: stamps.number(place.floor),
        written: stamps.number(place.value.as_ref().map(|(stamp, _)| *stamp)),
        scalar,
        kind,
        removed: stamps.number(place.removed),
        ordered: stamps.number(place.order.as_ref().map(|(stamp, _)| *stamp)),
        order: place.order.iter().flat_map(|(_, order)| order).map(|step| step.bytes().clone()).collect(),
        children: place
            .children
            .iter()
            .map(|(step, child)| encode_place(child, Some(step), stamps))
            .collect(),
    }
}

fn encode_stamp(stamp: &Stamp) -> Vec<u8> {
    [&stamp.hlc.0.to_be_bytes()[..], &stamp.node.0].concat()
}

fn decode_stamp(bytes: &[u8]) -> Option<Stamp> {
    let (hlc, node) = bytes.split_first_chunk()?;
    Some(Stamp { hlc: Hlc(u64::from_be_bytes(*hlc)), node: NodeId(node.try_into().ok()?) })
}

fn encode_heads(heads: &Heads, stamps: &mut Stamps) -> proto::Heads {
    let version = |stamp: u32, content: &Option<Bytes>| proto::HeadVersion {
        stamp,
        deleted: content.is_none(),
        content: content.clone().unwrap_or_default(),
    };
    proto::Heads {
        seen: heads.seen.iter().map(|(node, hlc)| encode_stamp(&Stamp { hlc: *hlc, node: *node })).collect(),
        seen_until: heads.seen_until.0,
        versions: heads
            .versions
            .iter()
            .map(|(stamp, content)| version(stamps.number(Some(*stamp)), content))
            .collect(),
        answer: heads.answer.as_ref().map(|answer| version(0, answer)),
    }
}

fn decode_heads(heads: proto::Heads, stamps: &[Stamp]) -> Result<Heads, MergedError> {
    let content = |version: proto::HeadVersion| match (version.deleted, version.content) {
        (false, content) => Ok(Some(content)),
        (true, content) if content.is_empty() => Ok(None),
        (true, _) => Err(MergedError::Invalid("deleted")),
    };
    let mut decoded = Heads { seen_until: Hlc(heads.seen_until), ..Heads::default() };
    for bytes in &heads.seen {
        let stamp = decode_stamp(bytes).ok_or(MergedError::Invalid("seen"))?;
        if decoded.seen.last_key_value().is_some_and(|(last, _)| *last >= stamp.node) {
            return Err(MergedError::Invalid("seen"));
        }
        decoded.seen.insert(stamp.node, stamp.hlc);
    }
    for version in heads.versions {
        let number = (version.stamp as usize).checked_sub(1);
        let stamp = number.and_then(|number| stamps.get(number)).ok_or(MergedError::Invalid("stamp"))?;
        if decoded.versions.insert(*stamp, content(version)?).is_some() {
            return Err(MergedError::Invalid("versions"));
        }
    }
    // What was seen is no head.
    if decoded.versions.keys().any(|stamp| decoded.has_seen(stamp)) {
        return Err(MergedError::Invalid("seen"));
    }
    decoded.answer = heads.answer.map(content).transpose()?;
    Ok(decoded)
}

fn decode_step(bytes: &Bytes) -> Result<Step, MergedError> {
    Step::from_bytes(bytes.clone()).ok_or(MergedError::Invalid("step"))
}

fn decode_place(
    place: proto::MergedPlace,
    stamps: &[Stamp],
    depth: usize,
) -> Result<(Bytes, Place), MergedError> {
    if depth > JSON_DEPTH_MAX + 1 {
        return Err(MergedError::TooDeep);
    }
    let stamp = |number: u32| match number {
        0 => Ok(None),
        number => stamps.get(number as usize - 1).copied().map(Some).ok_or(MergedError::Invalid("stamp")),
    };
    let value = match place.kind {
        0 => Value::Scalar(place.scalar),
        1 => Value::Object,
        2 => Value::Array,
        3 => Value::Text,
        _ => return Err(MergedError::Invalid("kind")),
    };
    let order: Vec<Step> = place.order.iter().map(decode_step).collect::<Result<_, _>>()?;
    let mut decoded = Place {
        floor: stamp(place.floor)?,
        value: stamp(place.written)?.map(|stamp| (stamp, value)),
        removed: stamp(place.removed)?,
        order: stamp(place.ordered)?.map(|stamp| (stamp, order)),
        ..Place::default()
    };
    for child in place.children {
        let (step, child) = decode_place(child, stamps, depth + 1)?;
        if decoded.children.insert(decode_step(&step)?, child).is_some() {
            return Err(MergedError::Invalid("children"));
        }
    }
    Ok((place.step, decoded))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn at(time: u64, node: u8) -> Stamp {
        Stamp { hlc: Hlc(time), node: NodeId([node; 32]) }
    }

    fn json(text: &str) -> Bytes {
        Bytes::copy_from_slice(text.as_bytes())
    }

    fn none() -> BTreeSet<String> {
        BTreeSet::new()
    }

    /// A document that a node sees and edits.
    #[derive(Clone, Default)]
    struct Copy(Merged);

    impl Copy {
        fn of(text: &str) -> Self {
            let mut copy = Self::default();
            copy.set(at(1, 1), text);
            copy
        }

        fn set(&mut self, stamp: Stamp, text: &str) -> Merged {
            self.write(stamp, Some(text)).expect("it is another document")
        }

        fn write(&mut self, stamp: Stamp, text: Option<&str>) -> Option<Merged> {
            let edited = self.0.edit(text.map(json).as_ref(), &none(), stamp)?;
            self.0 = edited.after;
            // What travels are bytes.
            Some(Merged::decode_edit(edited.edit.encode(stamp), stamp).unwrap())
        }

        fn take(&mut self, edit: &Merged) {
            self.0.join(edit.clone());
        }

        fn text(&self) -> Option<String> {
            self.0.content().map(|content| String::from_utf8(content.to_vec()).unwrap())
        }
    }

    /// Two nodes edit `from` apart; what both have once they meet.
    fn apart(from: &str, older: Option<&str>, younger: Option<&str>) -> Option<String> {
        let (mut a, mut b) = (Copy::of(from), Copy::of(from));
        let (edit_a, edit_b) = (a.write(at(5, 2), older), b.write(at(6, 3), younger));
        edit_b.iter().for_each(|edit| a.take(edit));
        edit_a.iter().for_each(|edit| b.take(edit));
        assert_eq!(a.0, b.0);
        a.text()
    }

    #[test]
    fn edits_of_different_fields_both_stay() {
        let merged = apart(
            r#"{"name":"tea","price":1,"stock":9}"#,
            Some(r#"{"name":"tea","price":2,"stock":9}"#),
            Some(r#"{"name":"tea","price":1,"stock":8,"note":"low"}"#),
        );
        assert_eq!(merged.as_deref(), Some(r#"{"name":"tea","note":"low","price":2,"stock":8}"#));
    }

    #[test]
    fn of_two_edits_of_one_field_the_younger_stays_and_the_older_is_named_as_lost() {
        let (older, younger) = (r#"{"price":2,"x":1}"#, r#"{"price":3,"x":0}"#);
        assert_eq!(
            apart(r#"{"price":1,"x":0}"#, Some(older), Some(younger)).as_deref(),
            Some(r#"{"price":3,"x":1}"#)
        );
        let mut a = Copy::of(r#"{"price":1,"x":0}"#);
        let mut b = a.clone();
        a.set(at(5, 2), older);
        let (edit, before) = (b.set(at(6, 3), younger), a.0.clone());
        a.take(&edit);
        assert_eq!(before.lost_in(&a.0), BTreeSet::from([at(5, 2)]));
        let kept = a.0.preferring(&before, at(9, 9)).unwrap();
        assert_eq!(kept, json(older), "the losing version is the whole document as it was");
    }

    #[test]
    fn a_removed_field_stays_removed_unless_somebody_edited_it() {
        let from = r#"{"a":{"x":1,"y":1},"b":1}"#;
        let removed = r#"{"b":1}"#;
        assert_eq!(
            apart(from, Some(removed), Some(r#"{"a":{"x":1,"y":1},"b":2}"#)).as_deref(),
            Some(r#"{"b":2}"#)
        );
        assert_eq!(
            apart(from, Some(removed), Some(r#"{"a":{"x":2,"y":1},"b":1}"#)).as_deref(),
            Some(r#"{"a":{"x":2,"y":1},"b":1}"#),
            "an edit wins over an older removal and brings back the whole"
        );
        assert_eq!(
            apart(from, Some(r#"{"a":{"x":2,"y":1},"b":1}"#), Some(removed)).as_deref(),
            Some(removed),
            "a removal wins over an older edit"
        );
    }

    #[test]
    fn a_document_that_is_removed_and_edited_apart_is_whole_or_gone() {
        let from = r#"{"id":1,"name":"tea","price":1}"#;
        let edited = r#"{"id":1,"name":"tea","price":2}"#;
        assert_eq!(apart(from, None, Some(edited)).as_deref(), Some(edited));
        assert_eq!(apart(from, Some(edited), None), None);
        let mut copy = Copy::of(from);
        copy.write(at(5, 1), None).unwrap();
        copy.set(at(6, 1), r#"{"id":1}"#);
        assert_eq!(copy.text().as_deref(), Some(r#"{"id":1}"#), "nothing old comes back with a new one");
    }

    #[test]
    fn items_with_an_id_merge_one_by_one() {
        let merged = apart(
            r#"{"lines":[{"id":1,"qty":1},{"id":2,"qty":1}]}"#,
            Some(r#"{"lines":[{"id":1,"qty":5},{"id":2,"qty":1},{"id":"n","qty":1}]}"#),
            Some(r#"{"lines":[{"id":3,"qty":1},{"id":1,"qty":1}]}"#),
        );
        let expected = r#"{"lines":[{"id":3,"qty":1},{"id":1,"qty":5},{"id":"n","qty":1}]}"#;
        assert_eq!(merged.as_deref(), Some(expected));
    }

    #[test]
    fn members_of_a_set_are_added_and_removed_apart() {
        let merged =
            apart(r#"{"tags":["a","b"]}"#, Some(r#"{"tags":["b","c"]}"#), Some(r#"{"tags":["a","b","d"]}"#));
        assert_eq!(merged.as_deref(), Some(r#"{"tags":["b","c","d"]}"#));
        let emptied = apart(r#"{"tags":["a"]}"#, Some(r#"{"tags":[]}"#), Some(r#"{"tags":["a","x"]}"#));
        assert_eq!(emptied.as_deref(), Some(r#"{"tags":["x"]}"#));
    }

    #[test]
    fn an_array_whose_items_cannot_be_told_apart_is_one_value() {
        let merged =
            apart(r#"{"a":[1,1],"b":0}"#, Some(r#"{"a":[1,1,2],"b":0}"#), Some(r#"{"a":[3,3],"b":1}"#));
        assert_eq!(merged.as_deref(), Some(r#"{"a":[3,3],"b":1}"#));
    }

    #[test]
    fn the_youngest_write_decides_what_a_place_is() {
        let from = r#"{"p":{"x":1,"y":1}}"#;
        assert_eq!(
            apart(from, Some(r#"{"p":7}"#), Some(r#"{"p":{"x":2,"y":1}}"#)).as_deref(),
            Some(r#"{"p":{"x":2}}"#),
            "what the older one replaced stays replaced"
        );
        assert_eq!(
            apart(from, Some(r#"{"p":{"x":2,"y":1}}"#), Some(r#"{"p":7}"#)).as_deref(),
            Some(r#"{"p":7}"#)
        );
    }

    #[test]
    fn json_in_a_text_column_merges_inside() {
        let fields = BTreeSet::from(["data".to_owned()]);
        let content = |inside: &str| json(&format!(r#"{{"data":{},"id":1}}"#, serde_json::json!(inside)));
        let first = Merged::default().edit(Some(&content(r#"{"a": 1, "b": 1}"#)), &fields, at(1, 1)).unwrap();
        let mut state = first.after;
        let edit = |inside: &str, stamp| state.edit(Some(&content(inside)), &fields, stamp).map(|e| e.edit);
        assert_eq!(edit(r#"{"b":1,"a":1}"#, at(2, 1)), None, "the same, written otherwise");
        let (one, two) =
            (edit(r#"{"a":2,"b":1}"#, at(2, 1)).unwrap(), edit(r#"{"a":1,"b":2}"#, at(3, 2)).unwrap());
        state.join(one);
        state.join(two);
        assert_eq!(state.content(), Some(content(r#"{"a":2,"b":2}"#)));
    }

    #[test]
    fn a_whole_write_hides_what_is_older_and_not_what_is_younger() {
        let mut copy = Copy::of(r#"{"a":1,"b":1}"#);
        let mut other = copy.clone();
        let edit = other.set(at(9, 2), r#"{"a":1,"b":2}"#);
        copy.take(&Merged::replaced(at(5, 3), Some(&json(r#"{"c":1}"#))));
        assert_eq!(copy.text().as_deref(), Some(r#"{"c":1}"#));
        copy.take(&edit);
        assert_eq!(copy.text().as_deref(), Some(r#"{"b":2,"c":1}"#));
        copy.take(&Merged::replaced(at(10, 3), None));
        assert_eq!(copy.text(), None);
        let text = json("no json");
        copy.take(&Merged::replaced(at(11, 3), Some(&text)));
        assert_eq!(copy.0.content(), Some(text));
    }

    #[test]
    fn an_edit_with_another_stamp_or_a_scalar_that_is_no_json_is_refused() {
        let mut copy = Copy::of(r#"{"a":1}"#);
        let edit = copy.set(at(5, 1), r#"{"a":2}"#);
        let forged = edit.encode(at(6, 1));
        assert_eq!(Merged::decode_edit(forged, at(6, 1)), Err(MergedError::Invalid("stamps")));
        let place =
            proto::MergedPlace { step: json(".a"), written: 1, scalar: json("1,"), ..Default::default() };
        let root = proto::MergedPlace { children: vec![place], ..Default::default() };
        let bytes = proto::Merged { root: Some(root), ..Default::default() }.encode_to_vec();
        assert_eq!(Merged::decode_edit(bytes.into(), at(6, 1)), Err(MergedError::Invalid("scalar")));
    }

    /// What applications do to documents, without regard for how it will be merged.
    fn document() -> impl Strategy<Value = serde_json::Value> {
        let scalar = prop_oneof![
            Just(serde_json::Value::Null),
            any::<bool>().prop_map(Into::into),
            (0i64..4).prop_map(Into::into),
            "[ab\"]{0,2}".prop_map(Into::into),
        ];
        let id = prop_oneof![(0i64..3).prop_map(serde_json::Value::from), "[xy]".prop_map(Into::into)];
        let value = scalar.prop_recursive(3, 12, 4, move |inner| {
            let item =
                (id.clone(), inner.clone()).prop_map(|(id, value)| serde_json::json!({"id": id, "v": value}));
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Into::into),
                prop::collection::vec(item, 0..4).prop_map(Into::into),
                prop::collection::vec((0i64..5).prop_map(serde_json::Value::from), 0..5).prop_map(Into::into),
                prop::collection::btree_map("[abc]", inner, 0..4)
                    .prop_map(|members| serde_json::Value::Object(members.into_iter().collect())),
            ]
        });
        prop::collection::btree_map("[abcd]", value, 0..5)
            .prop_map(|members| serde_json::Value::Object(members.into_iter().collect()))
    }

    /// What happens: node `at` of three writes, deletes, or takes what another has.
    #[derive(Clone, Debug)]
    enum Deed {
        Write(usize, serde_json::Value),
        Replace(usize, serde_json::Value),
        Delete(usize),
        Take { to: usize, edit: usize },
    }

    fn deed() -> impl Strategy<Value = Deed> {
        prop_oneof![
            5 => (0usize..3, document()).prop_map(|(node, document)| Deed::Write(node, document)),
            1 => (0usize..3, document()).prop_map(|(node, document)| Deed::Replace(node, document)),
            1 => (0usize..3).prop_map(Deed::Delete),
            6 => (0usize..3, 0usize..64).prop_map(|(to, edit)| Deed::Take { to, edit }),
        ]
    }

    /// All edits that come of these deeds, and the nodes' states at the end.
    fn edits(deeds: &[Deed]) -> (Vec<Merged>, Vec<Copy>) {
        let mut copies = vec![Copy::default(); 3];
        let mut edits: Vec<Merged> = Vec::new();
        for (time, deed) in (1..).zip(deeds) {
            let edit = match deed {
                Deed::Write(node, document) => {
                    let edit = copies[*node].write(at(time, *node as u8), Some(&document.to_string()));
                    let now: serde_json::Value =
                        serde_json::from_slice(&copies[*node].0.content().unwrap()).unwrap();
                    assert_eq!(now, *document, "an author sees what it wrote");
                    edit
                }
                Deed::Replace(node, document) => {
                    let content = json(&document.to_string());
                    let edit = Merged::replaced(at(time, *node as u8), Some(&content));
                    copies[*node].take(&edit);
                    Some(edit)
                }
                Deed::Delete(node) => {
                    let edit = copies[*node].write(at(time, *node as u8), None);
                    assert_eq!(copies[*node].text(), None);
                    edit
                }
                Deed::Take { to, edit } => {
                    if let Some(edit) = edits.get(*edit) {
                        copies[*to].take(&edit.clone());
                    }
                    None
                }
            };
            edits.extend(edit);
        }
        (edits, copies)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(400))]

        #[test]
        fn in_whatever_order_and_groups_edits_come_the_bytes_are_the_same(
            deeds in prop::collection::vec(deed(), 0..24),
            seed in any::<u64>(),
        ) {
            let (edits, copies) = edits(&deeds);
            let mut straight = Merged::default();
            edits.iter().for_each(|edit| straight.join(edit.clone()));
            let mut rng = fastrand::Rng::with_seed(seed);
            let mut shuffled: Vec<Merged> = edits.iter().chain(&edits).cloned().collect();
            rng.shuffle(&mut shuffled);
            // Groups: halves joined on their own, then with each other.
            let mut groups = vec![Merged::default(); 3];
            for edit in shuffled {
                groups[rng.usize(..3)].join(edit);
            }
            let mut joined = Merged::default();
            groups.into_iter().for_each(|group| joined.join(group));
            prop_assert_eq!(joined.content(), straight.content());
            let own = straight.newest().unwrap_or(at(0, 0));
            prop_assert_eq!(joined.encode(own), straight.encode(own));
            // The nodes that took only some of them end equal too.
            for mut copy in copies {
                edits.iter().for_each(|edit| copy.take(edit));
                prop_assert_eq!(&copy.0, &straight);
            }
            let again = Merged::decode(straight.encode(own), own).unwrap();
            prop_assert_eq!(again, straight);
        }

        #[test]
        fn what_only_one_of_two_authors_touched_is_as_that_author_left_it(
            from in document(),
            deeds in prop::collection::btree_map("[a-h]", (any::<bool>(), document()), 0..8),
        ) {
            // Each top-level field is edited by one of them at most.
            let mut copies = [Copy::of(&from.to_string()), Copy::of(&from.to_string())];
            let mut expected = from.clone();
            let mut wanted = [from.clone(), from];
            for (name, (who, value)) in &deeds {
                expected[name] = value.clone();
                wanted[usize::from(*who)][name] = value.clone();
            }
            let [one, two] = [0, 1].map(|i| copies[i].write(at(5 + i as u64, 2), Some(&wanted[i].to_string())));
            one.iter().for_each(|edit| copies[1].take(edit));
            two.iter().for_each(|edit| copies[0].take(edit));
            for copy in copies {
                let now: serde_json::Value = serde_json::from_str(&copy.text().unwrap()).unwrap();
                prop_assert_eq!(&now, &expected);
            }
        }

        #[test]
        fn arbitrary_bytes_never_panic_and_what_they_say_still_commutes(
            one in prop::collection::vec(any::<u8>(), 0..80),
            two in prop::collection::vec(any::<u8>(), 0..80),
        ) {
            let one = Merged::decode_edit(one.into(), at(5, 1)).unwrap_or_default();
            let two = Merged::decode_edit(two.into(), at(6, 2)).unwrap_or_default();
            let (mut a, mut b) = (one.clone(), two.clone());
            a.join(two);
            b.join(one);
            prop_assert_eq!(a.content(), b.content());
            prop_assert_eq!(a, b);
        }
    }
}
