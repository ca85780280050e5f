//! Before anything is replaced: the proof that it is as the engine left it.

use std::collections::{HashMap, HashSet};

use entgldb_replica::clock::{Hlc, Stamp, WallMillis};
use entgldb_replica::id::{DocId, Key, NodeId};
use entgldb_replica::resolve::{Conflict, Row, Side};
use entgldb_replica::store::{Commit, ProblemKind, RowWrite};

use crate::apply::applying::Applying;
use crate::capture::{noted, progress, scan};
use crate::failed::Outcome;
use crate::journal::commit::Stopped;
use crate::journal::{conflicts, schema};
use crate::reading::outgoing;
use crate::reading::proof::{Verdict, Witness};
use crate::reading::standing::{Content, Source};
use crate::table::definition::Table;

impl Applying<'_> {
    /// Stops the step if a row that it changes or deletes is not as the engine left it, with all such rows.
    ///
    /// A document that is new here is looked at when it is inserted: that it meets no row is proof enough, and costs nothing.
    pub(super) fn prove_all(&mut self, commit: &Commit) -> Result<(), Stopped> {
        let mut found: Vec<DocId> = Vec::new();
        let mut held: HashMap<i64, HashSet<Key>> = HashMap::new();
        for table in scan::first_watched(self.step.connection, self.watched)? {
            held.insert(table.no, noted::keys(self.step.connection, &table)?);
        }
        for write in commit.rows.iter().filter(|write| write.apply.is_some()) {
            let Some(table) = self.watched.table(&write.doc.0).cloned() else { continue };
            if held.get(&table.no).is_some_and(|keys| keys.contains(&write.doc.1)) {
                // It was written since the table is watched, and waits for the first copies of the table.
                return Err(Stopped::OutboxMoved);
            }
            if self.is_proven_by_insert(write) {
                continue;
            }
            match self.judge(&table, &write.doc.1)? {
                Verdict::Found => found.push(write.doc.clone()),
                Verdict::CannotTravel { content, noted_at } => {
                    let winner = Side { stamp: write.row.stamp, content: write.apply.clone().flatten() };
                    let loser = Side { stamp: stamp_of(commit.owner.0, noted_at), content };
                    self.keep_untravelled(&write.doc, winner, loser)?;
                }
                Verdict::AsLeft | Verdict::Gone | Verdict::OldCopy | Verdict::OtherSchema(_) => {}
            }
        }
        if found.is_empty() { Ok(()) } else { Err(Stopped::Found(found)) }
    }

    /// Whether a write is a plain insert, which fails if it meets a row. Triggers of the application may have made that row in
    /// this very step, so where there are any it is looked at before.
    pub(super) fn is_proven_by_insert(&self, write: &RowWrite) -> bool {
        let is_put = write.apply.as_ref().is_some_and(Option::is_some);
        is_put && write.before.is_none() && !self.watched.has_application_triggers
    }

    pub(super) fn judge(&self, table: &Table, key: &Key) -> Outcome<Verdict> {
        let Ok(columns) = table.form.decode(key.as_str()) else { return Ok(Verdict::AsLeft) };
        let witness = Witness {
            connection: self.step.connection,
            names: self.step.names,
            anything_aside: self.step.anything_aside,
            after_migration: progress::is_migrated(self.step.connection, table)?,
        };
        witness.judge(table, key, &columns)
    }

    /// Stops the step if a row is not as the engine left it.
    pub(super) fn prove(&self, table: &Table, key: &Key) -> Result<(), Stopped> {
        match self.judge(table, key)? {
            Verdict::Found => Err(Stopped::Found(vec![(table.collection.clone(), key.clone())])),
            _ => Ok(()),
        }
    }

    /// The same for a row that has to give way to another one. What can't travel there is kept beside the version that stands.
    pub(super) fn prove_to_evict(&mut self, table: &Table, key: &Key) -> Result<(), Stopped> {
        match self.judge(table, key)? {
            Verdict::Found => Err(Stopped::Found(vec![(table.collection.clone(), key.clone())])),
            Verdict::CannotTravel { content, noted_at } => {
                let owner: Option<[u8; 32]> = schema::get(self.step.connection, "owner")?;
                let Some(owner) = owner else { return Ok(()) };
                let loser = Side { stamp: stamp_of(NodeId(owner), noted_at), content };
                let winner = match self.standing_outside(table, key)? {
                    Some((row, Content::Is(content))) => Side { stamp: row.stamp, content },
                    Some((row, Content::Moved)) => Side { stamp: row.stamp, content: None },
                    None => Side { stamp: loser.stamp, content: None },
                };
                Ok(self.keep_untravelled(&(table.collection.clone(), key.clone()), winner, loser)?)
            }
            _ => Ok(()),
        }
    }

    /// The version of a document that stands, and its content as far as that is kept outside of the table.
    pub(super) fn standing_outside(&self, table: &Table, key: &Key) -> Outcome<Option<(Row, Content)>> {
        let (connection, names) = (self.step.connection, &*self.step.names);
        let Some(standing) = outgoing::standing(connection, names, table.no, key.as_str())? else {
            return Ok(None);
        };
        let (collection, anything_aside) = (&table.collection, self.step.anything_aside);
        let source = Source { connection, names, collection, no: table.no, table: None, anything_aside };
        Ok(Some((standing.row, source.content(&standing)?)))
    }

    /// Keeps what the application wrote and what could not travel, because a version from elsewhere takes its place.
    fn keep_untravelled(&mut self, doc: &DocId, winner: Side, loser: Side) -> Outcome<()> {
        let doc = doc.clone();
        let message = "it could not travel, and a version from another node has taken its place: it is in the conflict list";
        self.step.problem(&doc.0, &doc.1, ProblemKind::NotCaptured, message);
        let conflict = Conflict { doc, winner, loser, missing: None };
        conflicts::put(self.step.connection, self.step.names, &conflict, self.step.wall)
    }
}

/// The stamp that a local change would have got.
fn stamp_of(node: NodeId, noted_at: i64) -> Stamp {
    let noted = WallMillis(noted_at.max(0).cast_unsigned());
    Stamp { hlc: Hlc::from_wall(noted), node }
}
