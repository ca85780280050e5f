//! The application beside a store: it writes documents, several in a transaction, over several collections.

use std::rc::Rc;

use bytes::Bytes;
use entgldb_replica::id::{Collection, DocId, Key};
use serde_json::{Value, json};

use crate::disk::Disk;
use crate::options::{Fault, Options};
use crate::rng::Rng;
use crate::writing::Writers;

/// One node's application.
#[derive(Debug)]
pub(crate) struct Application {
    node: usize,
    options: Rc<Options>,
    collections: Vec<Collection>,
    rng: Rng,
    transactions: u64,
}

impl Application {
    pub(crate) fn new(options: Rc<Options>, node: usize, collections: Vec<Collection>) -> Self {
        let rng = Rng::of(options.seed, "application", node as u64);
        Self { node, options, collections, rng, transactions: 0 }
    }

    /// Transactions so far.
    pub(crate) fn transactions(&self) -> u64 {
        self.transactions
    }

    pub(crate) fn next_transaction(&mut self) -> u64 {
        self.transactions += 1;
        self.transactions
    }

    /// What it writes next: documents with their new content, `None` for a delete. Each document once.
    pub(crate) fn transaction(&mut self, disk: &Disk) -> Vec<(DocId, Option<Bytes>)> {
        let number = self.next_transaction();
        let count = self.rng.between(1, self.options.load.transaction_documents);
        let mut changes: Vec<(DocId, Option<Bytes>)> = Vec::new();
        for position in 0..count {
            let key = format!("k{}", self.rng.below(self.options.load.keys));
            let collection = self.rng.pick(&self.collections).clone();
            let doc = (collection, Key::new(&key).expect("a short key"));
            if changes.iter().any(|(known, _)| *known == doc) {
                continue;
            }
            if self.rng.chance(self.options.load.delete) {
                if disk.docs.contains_key(&doc) {
                    changes.push((doc, None));
                }
                continue;
            }
            let content = match disk.docs.get(&doc) {
                Some(before) if self.options.merging != Writers::None => self.change(before, number),
                _ => self.content(number, position),
            };
            changes.push((doc, Some(content)));
        }
        changes
    }

    /// A part of a document that was read before: what applications do whose documents merge.
    fn change(&mut self, before: &Bytes, number: u64) -> Bytes {
        let Ok(Value::Object(mut document)) = serde_json::from_slice(before) else {
            return self.content(number, 0);
        };
        let field = ["a", "b", "c", "lines"][self.rng.index(4)];
        match self.rng.below(8) {
            0 => drop(document.remove(field)),
            1..=3 if field == "lines" => {
                let lines = document.entry(field).or_insert_with(|| json!([]));
                if let Value::Array(lines) = lines {
                    let place = self.rng.index(lines.len() + 1);
                    if place < lines.len() && self.rng.coin() {
                        lines.remove(place);
                    } else {
                        lines.insert(place, json!({"id": format!("{}-{number}", self.node), "qty": 1}));
                    }
                }
            }
            4 if field != "lines" => {
                drop(document.insert(field.to_owned(), json!({"by": self.node, "n": number})))
            }
            _ if field != "lines" => drop(document.insert(field.to_owned(), number.into())),
            _ => drop(document.insert("p".to_owned(), number.into())),
        }
        Value::Object(document).to_string().into()
    }

    fn content(&mut self, transaction: u64, position: u64) -> Bytes {
        let load = &self.options.load;
        if self.rng.chance(load.same) {
            return format!("{{\"same\":{}}}", self.rng.below(2)).into();
        }
        let poison = if self.rng.chance(self.options.chance(Fault::Poison)) { "!" } else { "" };
        let mut content = format!("{poison}{{\"by\":{},\"n\":{transaction},\"p\":{position}}}", self.node);
        // Most documents are small; a few are as large as they may be.
        let size = load.document_bytes >> self.rng.below(8);
        let size = usize::try_from(size).unwrap_or(0);
        content.extend(std::iter::repeat_n('.', size.saturating_sub(content.len())));
        content.into()
    }
}
