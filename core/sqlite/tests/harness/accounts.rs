//! What users wrote, and what became of it in their own sight: the facts that the oracle judges by.
//!
//! Every value that an application writes is one of its own, `w` and six digits. Around each transaction the table is read,
//! so whatever a statement did (also to rows that it displaced) is known from the rows themselves.

use std::collections::{BTreeMap, BTreeSet};

/// Fields of columns that a migration adds are numbered from here on.
pub const FIRST_ADDED_FIELD: usize = 10;

/// The rows of a table by the keys of their documents: values by field.
pub type Image = BTreeMap<String, BTreeMap<usize, Option<String>>>;

/// A value that a user wrote, in its document.
pub type Written = (String, u64);

/// How a value came.
#[derive(Clone, Copy, Debug)]
pub struct Origin {
    pub node: usize,
    pub field: usize,
    pub event: u64,
}

/// How a user took a value away knowingly: the user's own table showed it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum How {
    /// Another value took its place.
    Overwritten,
    /// Its row was deleted.
    Deleted,
    /// All rows went with their table, which need not count as a write.
    Dropped,
}

/// A user's write that took a value away knowingly.
#[derive(Clone, Copy, Debug)]
struct Superseded {
    node: usize,
    event: u64,
    how: How,
}

/// See the module's documentation.
#[derive(Default, Debug)]
pub struct Accounts {
    last_id: u64,
    event: u64,
    pub written: BTreeMap<Written, Origin>,
    superseded: BTreeMap<Written, Vec<Superseded>>,
    /// Taken away by a user of a state that was put back since.
    superseded_once: BTreeSet<Written>,
    /// Gone with a file that was put back.
    pub excused: BTreeSet<Written>,
    /// How often each node's users changed each document.
    pub changes: BTreeMap<(usize, String), u64>,
    pub dropped_fields: BTreeSet<usize>,
    /// The last transaction of a user that deleted a document.
    deleted: BTreeMap<String, u64>,
    /// What was among the documents set aside at some time.
    pub set_aside: BTreeSet<Written>,
}

impl Accounts {
    /// A value that was never written before.
    pub fn fresh(&mut self) -> String {
        self.last_id += 1;
        format!("w{:06}", self.last_id)
    }

    /// The number of the next transaction.
    pub fn now(&self) -> u64 {
        self.event
    }

    /// Takes note of what a transaction of a user did.
    pub fn transaction(&mut self, node: usize, before: &Image, after: &Image) {
        self.account(node, before, after, false);
    }

    /// The file of a node is a copy of one with these rows.
    pub fn copied(&mut self, node: usize, rows: &Image) {
        for doc in rows.keys() {
            *self.changes.entry((node, doc.clone())).or_default() += 1;
        }
    }

    /// All rows went with their table.
    pub fn dropped(&mut self, node: usize, before: &Image) {
        self.account(node, before, &Image::new(), true);
    }

    fn account(&mut self, node: usize, before: &Image, after: &Image, is_dropped: bool) {
        self.event += 1;
        let event = self.event;
        let docs: BTreeSet<&String> = before.keys().chain(after.keys()).collect();
        for doc in docs {
            if before.get(doc) == after.get(doc) {
                continue;
            }
            *self.changes.entry((node, doc.clone())).or_default() += 1;
            if !after.contains_key(doc) {
                self.deleted.insert(doc.clone(), event);
            }
            let (old, new) = (ids(before.get(doc)), ids(after.get(doc)));
            let how = match (is_dropped, after.contains_key(doc)) {
                (true, _) => How::Dropped,
                (false, true) => How::Overwritten,
                (false, false) => How::Deleted,
            };
            for id in old.keys().filter(|id| !new.contains_key(*id)) {
                let superseded = Superseded { node, event, how };
                self.superseded.entry((doc.clone(), *id)).or_default().push(superseded);
            }
            for (id, field) in new.iter().filter(|(id, _)| !old.contains_key(*id)) {
                let origin = Origin { node, field: *field, event };
                self.written.entry((doc.clone(), *id)).or_insert(origin);
            }
        }
    }

    /// Whether a value of a field that came later went with its row, which a user of the old schema deleted: there it did not show.
    pub fn went_unseen(&self, (doc, _): &Written, origin: &Origin) -> bool {
        origin.field >= FIRST_ADDED_FIELD && self.deleted.get(doc).is_some_and(|event| *event > origin.event)
    }

    /// Whether some user took the value away who saw it.
    pub fn was_superseded(&self, written: &Written) -> bool {
        self.superseded.contains_key(written) || self.superseded_once.contains(written)
    }

    /// Whether some user took the value away who saw it, in this way, with a write that was not put back.
    pub fn is_superseded(&self, written: &Written, how: How) -> bool {
        self.superseded.get(written).is_some_and(|by| by.iter().any(|write| write.how == how))
    }

    /// The file of a node was put back to how it was before this transaction: what was written in it since may be gone.
    pub fn put_back(&mut self, node: usize, event: u64) {
        let gone = self.written.iter().filter(|(_, origin)| origin.node == node && origin.event > event);
        self.excused.extend(gone.map(|(written, _)| written.clone()));
        for (written, by) in &mut self.superseded {
            let count = by.len();
            by.retain(|write| write.node != node || write.event <= event);
            if by.len() < count {
                self.superseded_once.insert(written.clone());
            }
        }
        self.superseded.retain(|_, by| !by.is_empty());
    }
}

/// The users' values in a row, with their fields.
pub fn ids(row: Option<&BTreeMap<usize, Option<String>>>) -> BTreeMap<u64, usize> {
    let values = row.into_iter().flatten().filter_map(|(field, value)| Some((*field, value.as_deref()?)));
    values.filter_map(|(field, value)| Some((id_of(value)?, field))).collect()
}

/// The number of a value that a user wrote, if it is one.
pub fn id_of(value: &str) -> Option<u64> {
    value.strip_prefix('w')?.get(..6)?.parse().ok()
}

/// The users' values in the text of a document.
pub fn ids_in(document: &[u8]) -> BTreeSet<u64> {
    let text = String::from_utf8_lossy(document);
    text.split('"').filter_map(id_of).collect()
}
