//! States of documents that merge or that a resolver decides on, on their way through a step.

use std::collections::BTreeSet;

use bytes::Bytes;

use crate::clock::Stamp;
use crate::custom::Resolvers;
use crate::entry::{Entry, Op};
use crate::id::{Collection, DocId};
use crate::limits::{EDIT_SPARE_BYTES, SEEN_AUTHORS_MAX};
use crate::merge::Merged;
use crate::resolve::{Row, Side, Version};
use crate::store::Store;

/// Bytes that an edit may have, for the bytes of the document that it leaves. A larger one is written as a whole document:
/// a unit of edits must fit a frame, and a frame has this much room beside the largest document.
pub(crate) fn edit_bytes_max(content_bytes: usize) -> usize {
    (2 * content_bytes + (1 << 10)).min(content_bytes + EDIT_SPARE_BYTES)
}

/// What a version takes beside its content and the authors that it names, and what each of these takes.
const VERSION_BYTES: usize = 64;
const AUTHOR_BYTES: usize = 44;

/// Which collections have states.
#[derive(Clone, Copy)]
pub(crate) struct States<'a> {
    /// Those whose documents this node writes so that they merge.
    pub(crate) merging: &'a BTreeSet<Collection>,
    /// Those whose documents a resolver decides on.
    pub(crate) custom: &'a Resolvers,
    /// Those in which the store has a state of some document.
    pub(crate) stated: &'a BTreeSet<Collection>,
}

/// What a local change is written as.
pub(crate) struct Written {
    pub(crate) op: Op,
    pub(crate) payload: Bytes,
    /// The document's state after it, if it has one.
    pub(crate) after: Option<Merged>,
}

/// A document on its way through the joining of entries.
pub(crate) struct Current {
    pub(crate) before: Option<Row>,
    pub(crate) now: Option<Row>,
    pub(crate) content: Option<Bytes>,
    /// Its state, if it merges; read with its first entry.
    pub(crate) state: Option<Merged>,
    pub(crate) is_read: bool,
    /// Whether the state is another one than before.
    pub(crate) is_joined: bool,
    /// How much work it is to look through the state, about; zero as long as that is not known.
    pub(crate) weight: usize,
    /// The youngest edit of those that were joined into it without a look at what they hide.
    pub(crate) unlooked: Option<Side>,
}

impl Current {
    pub(crate) fn of(row: Option<Row>) -> Self {
        let (content, state, unlooked) = (None, None, None);
        let (is_read, is_joined) = (false, false);
        Self { before: row, now: row, content, state, is_read, is_joined, weight: 0, unlooked }
    }
}

impl States<'_> {
    /// The state of a document; `None` if it has none and none is to be kept.
    pub(crate) fn read<S: Store>(
        &self,
        store: &mut S,
        doc: &DocId,
        row: Option<&Row>,
    ) -> Result<Option<Merged>, S::Error> {
        if self.stated.contains(&doc.0)
            && let Some(row) = row
            && let Some(bytes) = store.merged(std::slice::from_ref(doc))?.pop().flatten()
            && let Ok(state) = Merged::decode(bytes, row.stamp)
        {
            return Ok(Some(state));
        }
        if !self.merging.contains(&doc.0) {
            return Ok(None);
        }
        base_of(store, doc, row).map(Some)
    }

    /// Whether what is written here of the documents of a collection may be larger than the documents.
    pub(crate) fn adds_to(&self, collection: &Collection) -> bool {
        self.merging.contains(collection)
            || self.custom.contains_key(collection)
            || self.stated.contains(collection)
    }

    /// What a local change is written as. `None` if it changes nothing but the way in which the document is written.
    pub(crate) fn write<S: Store>(
        &self,
        store: &mut S,
        (doc, row): (&DocId, Option<&Row>),
        state: Option<Merged>,
        content: Option<&Bytes>,
        stamp: Stamp,
    ) -> Result<Option<Written>, S::Error> {
        let is_custom = self.custom.contains_key(&doc.0);
        let state = match state {
            None if is_custom => Some(base_of(store, doc, row)?),
            state => state,
        };
        // A node that has no resolver must say as well what it has seen: nobody could tell otherwise.
        if let Some(state) = &state
            && (is_custom || state.has_heads())
        {
            return Ok(Some(write_version(state, content, stamp)));
        }
        Ok(self.write_merging(store, doc, state, content, stamp))
    }

    fn write_merging<S: Store>(
        &self,
        store: &S,
        doc: &DocId,
        state: Option<Merged>,
        content: Option<&Bytes>,
        stamp: Stamp,
    ) -> Option<Written> {
        let merging = self.merging.contains(&doc.0);
        if merging && let Some(state) = &state {
            match state.edit(content, &store.json_fields(&doc.0), stamp) {
                Some(edited) => {
                    let payload = edited.edit.encode(stamp);
                    if payload.len() <= edit_bytes_max(content.map_or(0, Bytes::len)) {
                        return Some(Written { op: Op::Edit, payload, after: Some(edited.after) });
                    }
                }
                None if content.is_some() => return None,
                None => {}
            }
        }
        Some(whole(state, content, stamp))
    }
}

/// A version that replaces all of the document.
pub(crate) fn whole(state: Option<Merged>, content: Option<&Bytes>, stamp: Stamp) -> Written {
    let after = state.map(|mut state| {
        state.join(Merged::replaced(stamp, content));
        state
    });
    let op = if content.is_some() { Op::Put } else { Op::Delete };
    Written { op, payload: content.cloned().unwrap_or_default(), after }
}

/// A version of a document that a resolver decides on.
fn write_version(state: &Merged, content: Option<&Bytes>, stamp: Stamp) -> Written {
    let bytes = content.map_or(0, Bytes::len);
    let room = edit_bytes_max(bytes).saturating_sub(bytes + VERSION_BYTES);
    let version = state.version(content.cloned(), stamp, SEEN_AUTHORS_MAX.min(room / AUTHOR_BYTES));
    let payload = version.encode(stamp);
    let mut after = state.clone();
    after.join(version);
    Written { op: Op::Edit, payload, after: Some(after) }
}

fn base_of<S: Store>(store: &mut S, doc: &DocId, row: Option<&Row>) -> Result<Merged, S::Error> {
    let version = match row {
        Some(row) => store.version(doc, &row.stamp)?,
        None => None,
    };
    Ok(base(row, version))
}

/// The state that a document has by its row alone: the version that stands, written as a whole.
pub(crate) fn base(row: Option<&Row>, version: Option<Version>) -> Merged {
    let Some(row) = row else { return Merged::default() };
    let content = version.and_then(|version| version.content());
    Merged::replaced(row.stamp, content.as_ref())
}

/// What an entry says as a state. An edit that can't be read says nothing, on every node.
pub(crate) fn said(entry: &Entry, stamp: Stamp) -> Merged {
    match entry.op {
        Op::Put => Merged::replaced(stamp, Some(&entry.payload)),
        Op::Delete => Merged::replaced(stamp, None),
        Op::Edit => Merged::decode_edit(entry.payload.clone(), stamp).unwrap_or_default(),
    }
}
