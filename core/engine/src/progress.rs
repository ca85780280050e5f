//! Which progress of long work is reported, and what is reported only when it is done.

use std::collections::{BTreeMap, BTreeSet};

use entgldb_replica::PeerStatus;
use entgldb_replica::id::NodeId;

use crate::event::{Event, TABLE_PROBLEM};
use crate::status::{TableState, TableStatus};

/// See the module's documentation.
#[derive(Debug, Default)]
pub(crate) struct Progress {
    /// Tables that are looked through, and how many rows they have to look at.
    looking: BTreeMap<String, u64>,
    /// Tables that wait.
    waiting: BTreeSet<String>,
    /// Peers whose entries are all here.
    caught_up: BTreeSet<NodeId>,
}

impl Progress {
    /// The events that tell what became of the tables since the last time.
    pub(crate) fn follow(&mut self, tables: &[TableStatus]) -> Vec<Event> {
        let mut events = Vec::new();
        let mut looking = BTreeMap::new();
        for table in tables.iter().filter(|table| table.state == TableState::LookingThrough) {
            let (done, of) =
                (table.rows_looked_through, table.rows_looked_through + table.rows_to_look_through);
            if of == 0 {
                continue;
            }
            looking.insert(table.name.clone(), of);
            events.push(Event::LookingThrough { table: table.name.clone(), done, of });
        }
        for (table, of) in std::mem::replace(&mut self.looking, looking) {
            if !self.looking.contains_key(&table) {
                events.push(Event::LookingThrough { table, done: of, of });
            }
        }
        let mut waiting = BTreeSet::new();
        for table in tables.iter().filter(|table| table.state == TableState::Waiting) {
            if !self.waiting.contains(&table.name) {
                events.push(Event::Problem {
                    collection: table.name.clone(),
                    key: String::new(),
                    kind: TABLE_PROBLEM,
                    message: table.reason.clone().unwrap_or_default(),
                });
            }
            waiting.insert(table.name.clone());
        }
        self.waiting = waiting;
        events
    }

    /// Whether tables were looked through when they were looked at last.
    pub(crate) fn is_looking(&self) -> bool {
        !self.looking.is_empty()
    }

    /// All entries of a peer are here. Nobody is told yet.
    pub(crate) fn caught_up(&mut self, node: NodeId) {
        self.caught_up.insert(node);
    }

    /// Whether there is a peer of which nobody was told.
    pub(crate) fn holds_any(&self) -> bool {
        !self.caught_up.is_empty()
    }

    /// Those that may be told of: who is gone, or has more by now, will be caught up with again.
    pub(crate) fn release(&mut self, peers: &[PeerStatus]) -> Vec<NodeId> {
        let is_level = |node: &NodeId| peers.iter().any(|peer| peer.node == *node && peer.behind == 0);
        std::mem::take(&mut self.caught_up).into_iter().filter(is_level).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(state: TableState, done: u64, left: u64) -> TableStatus {
        let reason = (state == TableState::Waiting).then(|| "it was dropped".to_owned());
        let synced = TableStatus::synced("t");
        TableStatus { state, reason, rows_looked_through: done, rows_to_look_through: left, ..synced }
    }

    #[test]
    fn the_last_word_on_a_table_that_is_looked_through_is_that_it_is_done() {
        let told = |done| vec![Event::LookingThrough { table: "t".to_owned(), done, of: 10 }];
        let mut progress = Progress::default();
        assert_eq!(progress.follow(&[table(TableState::LookingThrough, 0, 10)]), told(0));
        assert_eq!(progress.follow(&[table(TableState::LookingThrough, 4, 6)]), told(4));
        assert!(progress.is_looking());
        assert_eq!(progress.follow(&[table(TableState::Synced, 0, 0)]), told(10));
        assert!(progress.follow(&[table(TableState::Synced, 0, 0)]).is_empty() && !progress.is_looking());
    }

    #[test]
    fn that_a_table_waits_is_told_once_and_again_if_it_was_back() {
        let mut progress = Progress::default();
        let waits = [table(TableState::Waiting, 0, 0)];
        assert_eq!(progress.follow(&waits).len(), 1);
        assert!(progress.follow(&waits).is_empty());
        assert!(progress.follow(&[table(TableState::Synced, 0, 0)]).is_empty());
        assert_eq!(progress.follow(&waits).len(), 1);
    }
}
