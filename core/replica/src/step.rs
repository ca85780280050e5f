//! Steps from a place in a document that merges to one under it.

use bytes::Bytes;

/// One step from a place to one under it: a byte that says what sort of step it is, and what it leads to. Kept as it
/// travels and is stored.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct Step(Bytes);

/// Sorts of steps, and how a place shows its children.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Group {
    /// Members of an object, by name.
    Fields,
    /// Items of an array by their `id`, as JSON.
    Ids,
    /// Items of an array by their `_id`, as JSON.
    UnderscoreIds,
    /// Items of an array by themselves, as JSON.
    Members,
    /// The JSON inside of a string.
    Inside,
}

/// All groups and the bytes that their steps begin with.
pub(crate) const GROUPS: [(Group, u8); 5] = [
    (Group::Fields, b'.'),
    (Group::Ids, b'#'),
    (Group::UnderscoreIds, b'_'),
    (Group::Members, b'='),
    (Group::Inside, b'~'),
];

impl Step {
    pub(crate) fn new(group: Group, text: &[u8]) -> Self {
        let (_, tag) = GROUPS[group as usize];
        Self([&[tag], text].concat().into())
    }

    pub(crate) fn field(name: &str) -> Self {
        Self::new(Group::Fields, name.as_bytes())
    }

    pub(crate) fn inside() -> Self {
        Self::new(Group::Inside, b"")
    }

    /// Takes a step from bytes; `None` if they are none.
    pub(crate) fn from_bytes(bytes: Bytes) -> Option<Self> {
        let step = Self(bytes);
        let text = step.0.get(1..)?;
        let is_step = match step.group()? {
            Group::Fields => std::str::from_utf8(text).is_ok(),
            Group::Inside => text.is_empty(),
            Group::Ids | Group::UnderscoreIds | Group::Members => !text.is_empty(),
        };
        is_step.then_some(step)
    }

    pub(crate) fn bytes(&self) -> &Bytes {
        &self.0
    }

    /// What an item is told apart by, as JSON.
    pub(crate) fn item(&self) -> Option<Bytes> {
        let is_item = matches!(self.group()?, Group::Ids | Group::UnderscoreIds | Group::Members);
        is_item.then(|| self.0.slice(1..))
    }

    /// The name of a member.
    pub(crate) fn name(&self) -> Option<&str> {
        if self.group()? != Group::Fields {
            return None;
        }
        std::str::from_utf8(&self.0[1..]).ok()
    }

    pub(crate) fn group(&self) -> Option<Group> {
        let tag = self.0.first()?;
        GROUPS.iter().find(|(_, known)| known == tag).map(|(group, _)| *group)
    }
}
