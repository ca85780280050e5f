//! The small numbers that stand for nodes, collections and logs in the tables, kept in memory.
//!
//! Whoever rolls a transaction back that may have given out numbers must call [`Names::load`] again.

use std::collections::HashMap;

use entgldb_replica::clock::{Hlc, Stamp};
use entgldb_replica::fingerprint::{Fingerprint, Tally};
use entgldb_replica::id::{Collection, Incarnation, LogId, NodeId, PublicKey};
use entgldb_replica::limits::SEQ_MAX;
use entgldb_replica::version::{Hash, Head, Seq};
use rusqlite::Connection;

use crate::failed::{Outcome, SqliteFailed, While};
use crate::journal::schema;

/// Bits of an entry's number that hold its position in the log.
const SEQ_BITS: u32 = 40;

/// Number of an entry in the oplog: its log's number and its position.
pub(crate) fn entry_id(log_no: i64, seq: Seq) -> Outcome<i64> {
    match i64::try_from(seq.0) {
        Ok(seq) if seq < 1 << SEQ_BITS && log_no < 1 << (63 - SEQ_BITS) => Ok(log_no << SEQ_BITS | seq),
        _ => Err(SqliteFailed::damaged("more entries or logs than the tables can number")),
    }
}

/// The position in an entry's number.
pub(crate) fn seq_of(entry_id: i64) -> Seq {
    Seq((entry_id & ((1 << SEQ_BITS) - 1)).cast_unsigned())
}

/// The log's number in an entry's number.
pub(crate) fn log_of(entry_id: i64) -> i64 {
    entry_id >> SEQ_BITS
}

/// A log: its number and its end.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LogEnd {
    pub(crate) no: i64,
    pub(crate) head: Head,
    pub(crate) hlc: Hlc,
    /// Position of the last entry that is forgotten, and its time; zero if none is.
    pub(crate) floor: Seq,
    pub(crate) floor_hlc: Hlc,
}

/// All numbers given out.
#[derive(Default, Debug)]
pub(crate) struct Names {
    authors: HashMap<NodeId, i64>,
    author_ids: HashMap<i64, NodeId>,
    pub(crate) public_keys: Vec<PublicKey>,
    collections: HashMap<Collection, i64>,
    collection_names: HashMap<i64, Collection>,
    pub(crate) tallies: HashMap<Collection, Tally>,
    pub(crate) logs: HashMap<LogId, LogEnd>,
    /// Whether the tables say what the application's tables show. Those of an earlier version do not.
    pub(crate) proves: bool,
    /// Logs whose heads are beyond what can be numbered, with their numbers. They count as not there.
    pub(crate) unnumbered: Vec<(LogId, i64)>,
}

impl Names {
    /// Reads all of them.
    pub(crate) fn load(connection: &Connection) -> Outcome<Self> {
        let mut names = Self::default();
        let forgets = schema::forgets(connection)?;
        names.load_authors(connection)?;
        names.load_collections(connection, forgets)?;
        names.load_logs(connection, forgets)?;
        names.proves = schema::format(connection)?.is_some_and(|format| format >= 4);
        Ok(names)
    }

    fn load_authors(&mut self, connection: &Connection) -> Outcome<()> {
        let mut statement = connection
            .prepare("SELECT no, node_id, public_key FROM _entgldb_authors ORDER BY no")
            .doing("reading the authors")?;
        let rows = statement
            .query_map([], |row| Ok((row.get(0)?, NodeId(row.get(1)?), row.get::<_, Option<[u8; 32]>>(2)?)))
            .doing("reading the authors")?;
        for row in rows {
            let (no, node, key) = row.doing("reading the authors")?;
            self.authors.insert(node, no);
            self.author_ids.insert(no, node);
            self.public_keys.extend(key.map(PublicKey));
        }
        Ok(())
    }

    fn load_collections(&mut self, connection: &Connection, forgets: bool) -> Outcome<()> {
        let count = if forgets { "row_count" } else { "0" };
        let mut statement = connection
            .prepare(&format!("SELECT no, name, fingerprint, {count} FROM _entgldb_collections"))
            .doing("reading the collections")?;
        let rows = statement
            .query_map([], |row| {
                let tally = (row.get::<_, [u8; 32]>(2)?, row.get::<_, i64>(3)?);
                Ok((row.get(0)?, row.get::<_, String>(1)?, tally))
            })
            .doing("reading the collections")?;
        for row in rows {
            let (no, name, (fingerprint, rows)) = row.doing("reading the collections")?;
            let collection =
                Collection::new(&name).map_err(|error| SqliteFailed::damaged(error.to_string()))?;
            self.collections.insert(collection.clone(), no);
            self.collection_names.insert(no, collection.clone());
            let fingerprint = Fingerprint::from_bytes(fingerprint);
            self.tallies.insert(collection, Tally { fingerprint, rows: rows.cast_unsigned() });
        }
        Ok(())
    }

    fn load_logs(&mut self, connection: &Connection, forgets: bool) -> Outcome<()> {
        let floor = if forgets { "floor, floor_hlc" } else { "0, 0" };
        let mut statement = connection
            .prepare(&format!(
                "SELECT no, author_no, incarnation, collection_no, seq, hash, hlc, {floor} FROM _entgldb_logs"
            ))
            .doing("reading the logs")?;
        let mut rows = statement.query([]).doing("reading the logs")?;
        while let Some(row) = rows.next().doing("reading the logs")? {
            let read = || {
                let head = Head { seq: Seq(row.get::<_, i64>(4)?.cast_unsigned()), hash: Hash(row.get(5)?) };
                let hlc = |column| row.get::<_, i64>(column).map(|hlc| Hlc(hlc.cast_unsigned()));
                let floor = Seq(row.get::<_, i64>(7)?.cast_unsigned());
                let end = LogEnd { no: row.get(0)?, head, hlc: hlc(6)?, floor, floor_hlc: hlc(8)? };
                Ok((row.get(1)?, row.get::<_, i64>(2)?, row.get(3)?, end))
            };
            let (author, incarnation, collection, end) = read().doing("reading the logs")?;
            let log = LogId {
                author: self.node(author)?,
                incarnation: Incarnation(incarnation.cast_unsigned()),
                collection: self.collection(collection)?.clone(),
            };
            if end.head.seq.0 > SEQ_MAX {
                self.unnumbered.push((log, end.no));
            } else {
                self.logs.insert(log, end);
            }
        }
        Ok(())
    }

    /// The node with a number.
    pub(crate) fn node(&self, no: i64) -> Outcome<NodeId> {
        self.author_ids
            .get(&no)
            .copied()
            .ok_or_else(|| SqliteFailed::damaged(format!("there is no author {no}")))
    }

    /// The stamp of a time and a node's number.
    pub(crate) fn stamp(&self, hlc: i64, author_no: i64) -> Outcome<Stamp> {
        Ok(Stamp { hlc: Hlc(hlc.cast_unsigned()), node: self.node(author_no)? })
    }

    /// The collection with a number.
    pub(crate) fn collection(&self, no: i64) -> Outcome<&Collection> {
        let missing = || SqliteFailed::damaged(format!("there is no collection {no}"));
        self.collection_names.get(&no).ok_or_else(missing)
    }

    /// The number of a node, if it has one.
    pub(crate) fn known_author(&self, node: &NodeId) -> Option<i64> {
        self.authors.get(node).copied()
    }

    /// The number of a collection, if it has one.
    pub(crate) fn known_collection(&self, collection: &Collection) -> Option<i64> {
        self.collections.get(collection).copied()
    }

    /// The number of a node, given now if it has none.
    pub(crate) fn author(&mut self, connection: &Connection, node: &NodeId) -> Outcome<i64> {
        if let Some(no) = self.authors.get(node) {
            return Ok(*no);
        }
        connection
            .execute("INSERT INTO _entgldb_authors(node_id) VALUES(?1)", [node.0])
            .doing("noting an author")?;
        let no = connection.last_insert_rowid();
        self.authors.insert(*node, no);
        self.author_ids.insert(no, *node);
        Ok(no)
    }

    /// Keeps a node's public key.
    pub(crate) fn keep_public_key(&mut self, connection: &Connection, key: &PublicKey) -> Outcome<()> {
        let no = self.author(connection, &NodeId::of(key))?;
        connection
            .execute("UPDATE _entgldb_authors SET public_key = ?1 WHERE no = ?2", (key.0, no))
            .doing("noting an author's key")?;
        Ok(())
    }

    /// The number of a collection, given now if it has none.
    pub(crate) fn collection_no(&mut self, connection: &Connection, collection: &Collection) -> Outcome<i64> {
        if let Some(no) = self.collections.get(collection) {
            return Ok(*no);
        }
        let empty = Tally::default();
        connection
            .execute(
                "INSERT INTO _entgldb_collections(name, fingerprint) VALUES(?1, ?2)",
                (collection.as_str(), empty.fingerprint.to_bytes()),
            )
            .doing("noting a collection")?;
        let no = connection.last_insert_rowid();
        self.collections.insert(collection.clone(), no);
        self.collection_names.insert(no, collection.clone());
        self.tallies.insert(collection.clone(), empty);
        Ok(no)
    }

    /// The end of a log, which is numbered now if it is new.
    pub(crate) fn log(&mut self, connection: &Connection, log: &LogId) -> Outcome<LogEnd> {
        if let Some(end) = self.logs.get(log) {
            return Ok(*end);
        }
        let author = self.author(connection, &log.author)?;
        let collection = self.collection_no(connection, &log.collection)?;
        connection
            .execute(
                "INSERT INTO _entgldb_logs(author_no, incarnation, collection_no, seq, hash, hlc) VALUES(?1, ?2, ?3, 0, ?4, 0)",
                (author, log.incarnation.0.cast_signed(), collection, Hash::default().0),
            )
            .doing("noting a log")?;
        let end = LogEnd {
            no: connection.last_insert_rowid(),
            head: Head::default(),
            hlc: Hlc::default(),
            floor: Seq(0),
            floor_hlc: Hlc::default(),
        };
        self.logs.insert(log.clone(), end);
        Ok(end)
    }

    /// The logs of an author in a collection (one for each birth of its oplog), with their numbers.
    pub(crate) fn logs_of<'a>(
        &'a self,
        author: &'a NodeId,
        collection: &'a Collection,
    ) -> impl Iterator<Item = &'a LogEnd> {
        let of = move |log: &LogId| log.author == *author && log.collection == *collection;
        self.logs.iter().filter(move |(log, _)| of(log)).map(|(_, end)| end)
    }
}
