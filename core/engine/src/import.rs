//! Joining a snapshot from a file: the whole file is checked first, then joined piece by piece like a peer's snapshot.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crossbeam_channel::Sender;
use entgldb_replica::id::Collection;
use entgldb_replica::wire::{Chunk, Part};
use entgldb_replica::{Imported, Importing, Input};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::command::{CommandError, ask};
use crate::driver::{Driver, Message};
use crate::portable::{Exported, FileError, FilePart, Reader};

/// How often a piece is tried again that an application leaves no gap for, and how long in between.
const BUSY: (u32, Duration) = (600, Duration::from_millis(50));

/// A snapshot was not imported, or not to its end. What was joined by then stays: it is what other members wrote.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ImportError {
    /// The file is no sound snapshot. Nothing was joined.
    #[error("{path}: {reason}")]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: FileError,
    },
    /// It has none of the tables that are synced here. Nothing was joined.
    #[error("the snapshot has {}, and this node syncs {}", theirs.join(", "), ours.join(", "))]
    NothingShared {
        /// Tables of the snapshot.
        theirs: Vec<String>,
        /// Tables of the node.
        ours: Vec<String>,
    },
    /// A piece can't be joined.
    #[error("the rows of {collection:?} can't be joined: {detail}")]
    Refused {
        /// The table.
        collection: String,
        /// Why.
        detail: String,
    },
    /// An application writes without pause.
    #[error("the application writes without pause: import the snapshot again when it is quieter")]
    Busy,
    /// The node did not do it.
    #[error(transparent)]
    Command(#[from] CommandError),
}

/// What was imported.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize, JsonSchema)]
pub struct ImportSummary {
    /// Rows looked at, those of deleted documents too. Those that were here in the same or a younger version stayed.
    pub rows: u64,
    /// The tables.
    pub collections: Vec<String>,
    /// Tables of the file that are not synced here and were passed over.
    pub passed_over: Vec<String>,
    /// When the snapshot was made, in milliseconds since 1970 by the clock of the machine that made it.
    pub created_ms: u64,
}

/// What a file holds.
struct Contents {
    created_ms: u64,
    collections: BTreeSet<Collection>,
    rows: u64,
}

/// What of a collection comes next in a file.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Next {
    Heads,
    Rows,
    LastHeads,
}

/// Joins one piece.
type Join<'a> = dyn FnMut(Option<Importing>, Chunk) -> Result<(Importing, Imported), CommandError> + 'a;

/// Imports a file with what joins a piece.
pub(crate) fn import(
    file: &Path,
    ours: &BTreeSet<Collection>,
    join: &mut Join<'_>,
    on_progress: &mut dyn FnMut(Exported),
) -> Result<ImportSummary, ImportError> {
    let bad = |reason| ImportError::File { path: file.to_owned(), reason };
    let contents = check(file).map_err(bad)?;
    let names = |collections: Vec<&Collection>| collections.into_iter().map(ToString::to_string).collect();
    let shared: Vec<&Collection> = contents.collections.intersection(ours).collect();
    if shared.is_empty() {
        let theirs = names(contents.collections.iter().collect());
        return Err(ImportError::NothingShared { theirs, ours: names(ours.iter().collect()) });
    }
    let mut summary = ImportSummary {
        rows: 0,
        collections: names(shared),
        passed_over: names(contents.collections.difference(ours).collect()),
        created_ms: contents.created_ms,
    };
    let mut reader = Reader::open(file).map_err(bad)?;
    let mut importing: Option<(Collection, Importing)> = None;
    let mut seen = 0;
    loop {
        let chunk = match reader.next().map_err(bad)? {
            FilePart::Header(_) => continue,
            FilePart::End => return Ok(summary),
            FilePart::Chunk(chunk) => chunk,
        };
        let (collection, rows) = (chunk.collection.clone(), rows_of(&chunk));
        seen += rows;
        if ours.contains(&collection) {
            let begun = importing.take().filter(|(known, _)| *known == collection);
            let after = join_one(begun.map(|(_, begun)| begun), chunk, join)?;
            importing = Some((collection, after));
            summary.rows += rows;
        }
        on_progress(Exported { rows: seen, total: contents.rows });
    }
}

fn join_one(
    mut importing: Option<Importing>,
    chunk: Chunk,
    join: &mut Join<'_>,
) -> Result<Importing, ImportError> {
    let collection = chunk.collection.to_string();
    for _ in 0..BUSY.0 {
        let (after, joined) = join(importing, chunk.clone())?;
        match joined {
            Imported::Joined => return Ok(after),
            Imported::Refused(detail) => return Err(ImportError::Refused { collection, detail }),
            Imported::Busy => {}
        }
        importing = Some(after);
        std::thread::sleep(BUSY.1);
    }
    Err(ImportError::Busy)
}

fn rows_of(chunk: &Chunk) -> u64 {
    match &chunk.part {
        Part::Rows(rows) => rows.len() as u64,
        Part::Heads(_) | Part::Held(_) => 0,
    }
}

/// Reads a whole file: every checksum, every signature, and that each collection is complete.
fn check(file: &Path) -> Result<Contents, FileError> {
    let mut reader = Reader::open(file)?;
    let mut contents: Option<Contents> = None;
    // The collection that is not complete yet, and what of it comes next.
    let mut begun: Option<(Collection, Next)> = None;
    loop {
        let at = reader.at();
        let damaged = |what: String| FileError::Damaged { at, what };
        let out_of_order = || damaged("it does not come next".to_owned());
        match (reader.next()?, &mut contents) {
            (FilePart::Header(header), None) => {
                contents =
                    Some(Contents { created_ms: header.created_ms, collections: BTreeSet::new(), rows: 0 });
            }
            (FilePart::Chunk(chunk), Some(contents)) => {
                let is_begun = begun.is_some();
                let (known, next) = begun.take().unwrap_or((chunk.collection.clone(), Next::Heads));
                let is_again = !is_begun && contents.collections.contains(&known);
                if known != chunk.collection || is_again {
                    return Err(out_of_order());
                }
                contents.collections.insert(known.clone());
                contents.rows += rows_of(&chunk);
                let after = match (&chunk.part, next) {
                    (Part::Heads(heads), Next::Heads | Next::LastHeads) => {
                        for (log, key, signed) in heads {
                            let verified = signed.verify(log, key);
                            verified.map_err(|error| damaged(format!("the head of {log}: {error}")))?;
                        }
                        if next == Next::Heads { Some(Next::Rows) } else { None }
                    }
                    (Part::Rows(_), Next::Rows) => Some(Next::LastHeads),
                    _ => return Err(out_of_order()),
                };
                let after = if chunk.last { after } else { Some(next) };
                begun = after.map(|after| (known, after));
            }
            (FilePart::End, Some(_)) if begun.is_none() => {
                return contents.ok_or_else(|| damaged("it has no header".to_owned()));
            }
            _ => return Err(out_of_order()),
        }
    }
}

/// Imports a file into the database of a node that runs.
pub(crate) fn into_running(
    to_driver: &Sender<Message>,
    file: &Path,
    on_progress: &mut dyn FnMut(Exported),
) -> Result<ImportSummary, ImportError> {
    let ours = ask(to_driver, Driver::collections)?;
    let mut join =
        |importing, chunk| ask(to_driver, move |driver: &mut Driver| driver.join(importing, chunk))?;
    let summary = import(file, &ours, &mut join, on_progress)?;
    ask(to_driver, |driver: &mut Driver| driver.input(Input::SyncNow))?;
    Ok(summary)
}

impl Driver {
    fn collections(&mut self) -> BTreeSet<Collection> {
        let watched = self.replica.as_mut().map(|replica| replica.store().collections().to_vec());
        watched.unwrap_or_default().into_iter().collect()
    }

    fn join(
        &mut self,
        importing: Option<Importing>,
        chunk: Chunk,
    ) -> Result<(Importing, Imported), CommandError> {
        let now = self.clocks.now();
        let replica = self.replica.as_mut().ok_or(CommandError::StoreFailed)?;
        let mut importing = importing.unwrap_or_else(|| replica.importing(chunk.collection.clone()));
        let mut out = Vec::new();
        let imported = match replica.import(now, &mut importing, chunk, &mut out) {
            Ok(imported) => imported,
            Err(failed) => {
                self.store_failed(&failed.0);
                return Err(CommandError::StoreFailed);
            }
        };
        self.carry_out(out);
        Ok((importing, imported))
    }
}
