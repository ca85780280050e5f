//! Reading collections out of a store for a snapshot in a file, also beside a running engine.

use std::collections::BTreeSet;

use entgldb_replica::clock::Stamp;
use entgldb_replica::entry::SignedHead;
use entgldb_replica::id::{Collection, Key, LogId, NodeId, PublicKey};
use entgldb_replica::member::{Member, members};
use entgldb_replica::store::{Scan, ScanLimits};
use rusqlite::Connection;

use crate::failed::{Outcome, SqliteFailed, While};
use crate::inspect::Inspector;
use crate::journal::aside;
use crate::journal::names::Names;
use crate::journal::note;
use crate::journal::oplog;
use crate::journal::schema;
use crate::reading::outgoing;
use crate::reading::standing::Source;
use crate::table::definition::Table;
use crate::table::key;

/// Rows of members read at once.
const MEMBERS_AT_ONCE: usize = 256;

/// A log's head as its author signed it, with the author's key.
pub type KnownHead = (LogId, PublicKey, SignedHead);

/// A member in the list.
#[derive(Clone, PartialEq, Debug)]
pub struct ListedMember {
    /// The member.
    pub node: NodeId,
    /// What it said of itself; or what it had said, if it was removed.
    pub member: Member,
    /// When that was written, and by whom: by itself, or by who removed it.
    pub said: Stamp,
    /// Entries held here of what it syncs that it has not said to hold, and that are kept for it.
    pub waiting: u64,
}

impl Inspector {
    /// The tables that are watched: those that have the engine's triggers.
    ///
    /// # Errors
    /// When the store can't be read.
    pub fn watched_tables(&mut self) -> Result<BTreeSet<Collection>, SqliteFailed> {
        self.names = Names::load(&self.connection)?;
        let mut statement = self
            .connection
            .prepare("SELECT substr(name, 17) FROM main.sqlite_schema WHERE type = 'trigger' AND name LIKE '\\_entgldb\\_insert\\_%' ESCAPE '\\'")
            .doing("looking for triggers")?;
        let numbers = statement.query_map([], |row| row.get::<_, String>(0));
        let numbers: Vec<String> = numbers.and_then(Iterator::collect).doing("looking for triggers")?;
        let watched = numbers.iter().filter_map(|number| number.parse().ok());
        watched.map(|no| self.names.collection(no).cloned()).collect()
    }

    /// Whose store this is; `None` before its first commit.
    ///
    /// # Errors
    /// When the store can't be read.
    pub fn owner(&mut self) -> Result<Option<NodeId>, SqliteFailed> {
        Ok(schema::get::<[u8; 32]>(&self.connection, "owner")?.map(NodeId))
    }

    /// Whether a part of a snapshot is here, so that rows may be ahead of the heads.
    ///
    /// # Errors
    /// When the store can't be read.
    pub fn is_joining(&mut self) -> Result<bool, SqliteFailed> {
        self.names = Names::load(&self.connection)?;
        Ok(schema::forgets(&self.connection)? && note::is_joining(&self.connection, &self.names)?)
    }

    /// How many rows a collection has, those of deleted documents too.
    ///
    /// # Errors
    /// When the store can't be read.
    pub fn rows(&mut self, collection: &Collection) -> Result<u64, SqliteFailed> {
        self.names = Names::load(&self.connection)?;
        Ok(self.names.tallies.get(collection).map_or(0, |tally| tally.rows))
    }

    /// The signed heads of a collection's logs. Rows that are read after this hold all that they cover.
    ///
    /// # Errors
    /// When the store can't be read.
    pub fn heads(&mut self, collection: &Collection) -> Result<Vec<KnownHead>, SqliteFailed> {
        self.consistently(|inspector| {
            let (connection, names) = (&inspector.connection, &inspector.names);
            let mut found = Vec::new();
            for (log, end) in names.logs.iter().filter(|(log, _)| log.collection == *collection) {
                let key = names.public_keys.iter().find(|key| NodeId::of(key) == log.author);
                let signed = oplog::signed_until(connection, names, log, end.head.seq)?;
                let signed = signed.filter(|signed| signed.head == end.head);
                found.extend(key.zip(signed).map(|(key, signed)| (log.clone(), *key, signed)));
            }
            found.sort_by(|a, b| a.0.cmp(&b.0));
            Ok(found)
        })
    }

    /// Rows of a collection in the order of their keys, as [`Store::scan`](entgldb_replica::store::Store::scan) gives
    /// them. A row with a change that was not captured yet ends it.
    ///
    /// # Errors
    /// When the store can't be read.
    pub fn scan(
        &mut self,
        collection: &Collection,
        after: Option<&Key>,
        limits: &ScanLimits,
    ) -> Result<Scan, SqliteFailed> {
        self.consistently(|inspector| {
            let (connection, names) = (&inspector.connection, &inspector.names);
            let Some(no) = names.known_collection(collection) else { return Ok(Scan::default()) };
            let table = inspector.table(no, collection)?;
            let anything_aside = aside::any(connection)?;
            let source = Source { connection, names, collection, no, table: table.as_ref(), anything_aside };
            Ok(outgoing::scan(&source, after, limits)?.0)
        })
    }

    fn table(&self, no: i64, collection: &Collection) -> Outcome<Option<Table>> {
        if collection == members() {
            return Ok(None);
        }
        let encoding = key::encoding(&self.connection)?;
        Ok(Table::read(&self.connection, no, collection, encoding)?.ok())
    }

    /// All members that the store knows of.
    ///
    /// # Errors
    /// When the store can't be read.
    pub fn members(&mut self) -> Result<Vec<ListedMember>, SqliteFailed> {
        if !schema::forgets(&self.connection)? {
            return Ok(Vec::new());
        }
        let (mut found, mut after) = (Vec::new(), None);
        loop {
            let limits = ScanLimits { rows: MEMBERS_AT_ONCE, bytes: usize::MAX };
            let scan = self.scan(members(), after.as_ref(), &limits)?;
            for document in &scan.documents {
                let member = document.content.as_ref().and_then(Member::decode);
                let Some((node, member)) = document.key.as_str().parse().ok().zip(member) else { continue };
                let said = document.row.stamp;
                // Nobody but the member itself says that it is there.
                if said.node == node || member.removed {
                    let waiting = waiting(&self.names, node, &member);
                    found.push(ListedMember { node, member, said, waiting });
                }
            }
            match scan.documents.last() {
                Some(last) if scan.more => after = Some(last.key.clone()),
                _ => return Ok(found),
            }
        }
    }

    /// Reads as of one moment.
    fn consistently<T>(&mut self, work: impl FnOnce(&Self) -> Outcome<T>) -> Outcome<T> {
        let connection: &Connection = &self.connection;
        connection.execute_batch("BEGIN").doing("beginning to read")?;
        let done = Names::load(connection).and_then(|names| {
            self.names = names;
            work(self)
        });
        let ended = self.connection.execute_batch("COMMIT").doing("ending to read");
        let done = done?;
        ended.map(|()| done)
    }
}

fn waiting(names: &Names, node: NodeId, member: &Member) -> u64 {
    if member.removed {
        return 0;
    }
    let wanted = names.logs.iter().filter(|(log, _)| {
        let wrote_it = log.author == node && log.incarnation == member.incarnation;
        !wrote_it && member.interests.contains(&log.collection)
    });
    let lacks = |(log, end): (&LogId, &crate::journal::names::LogEnd)| {
        let held = member.acknowledged.get(log).copied().unwrap_or_default();
        end.head.seq.0.saturating_sub(held.0)
    };
    wanted.map(lacks).sum()
}
