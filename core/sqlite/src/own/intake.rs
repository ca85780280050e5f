//! Where changes of the application's come in: a connection of its own, so that nobody waits for the store's thread.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use entgldb_replica::id::{Collection, DocId, Key};
use rusqlite::{Connection, OpenFlags, OptionalExtension};

use super::documents;
use super::store::Keeps;
use crate::failed::{Outcome, SqliteFailed, While};
use crate::file::binding::Bound;
use crate::file::change::FileChange;
use crate::file::config::Durability;
use crate::file::connection::{self, in_transaction, prepare_intake};
use crate::file::error::OpenError;
use crate::file::holder::{Holder, Token};

/// What was done to a document, as a note says it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Recorded {
    /// Look where the document is kept what it is now.
    Look,
    /// It has this content.
    Put(Bytes),
    /// It is gone.
    Gone,
}

impl Recorded {
    pub(super) const LOOK: i64 = 0;
    pub(super) const PUT: i64 = 1;
    pub(super) const GONE: i64 = 2;
}

/// A document, what was done to it, and when, in milliseconds since 1970.
pub type RecordedDoc = (DocId, Recorded, u64);

/// Takes changes in, durably. One thread at a time uses it; every call may wait for the store's own writes.
pub struct Intake {
    connection: Bound,
    keeps: Keeps,
    path: PathBuf,
    durability: Durability,
    stop: Arc<AtomicBool>,
    holder: Holder,
    /// The store's claim on the file that this is connected to.
    token: Token,
}

impl std::fmt::Debug for Intake {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Intake").field("keeps", &self.keeps).finish_non_exhaustive()
    }
}

impl Intake {
    /// Opens the intake of a file that an [`OwnStore`](super::OwnStore) has open for the same `holder`. `stop` makes a wait for
    /// it give up.
    ///
    /// # Errors
    /// When the file can't be used.
    pub fn open(
        path: &Path,
        keeps: Keeps,
        durability: Durability,
        stop: Arc<AtomicBool>,
        holder: &Holder,
    ) -> Result<Self, OpenError> {
        let token = holder.claim().token;
        let connection = connect(path, durability, &stop, holder)?;
        Ok(Self { connection, keeps, path: path.to_owned(), durability, stop, holder: holder.clone(), token })
    }

    /// Goes on with the file that the store has opened meanwhile. A file that is at the path and that the store has not
    /// claimed yet is not touched.
    fn follow(&mut self) -> Outcome<()> {
        let token = self.holder.claim().token;
        if token != self.token {
            self.connection = match connect(&self.path, self.durability, &self.stop, &self.holder) {
                Ok(connection) => connection,
                Err(OpenError::Failed(failed)) => return Err(failed),
                Err(_) => return Err(SqliteFailed::FileChanged(FileChange::Missing { leaves_wal: false })),
            };
            self.token = token;
        }
        self.connection.look_at_path()
    }

    /// Takes changes in as one unit. Where the documents are in the file, they are written too.
    ///
    /// # Errors
    /// When it is not certain that they are durable. Nothing is in the file then, unless the machine failed.
    pub fn record(&mut self, changes: &[RecordedDoc]) -> Result<(), SqliteFailed> {
        if changes.is_empty() {
            return Ok(());
        }
        self.follow()?;
        let keeps = self.keeps;
        in_transaction(&self.connection, |connection| {
            let mut first = None;
            for (doc, recorded, at) in changes {
                let no = number(connection, &doc.0)?;
                if keeps == Keeps::Documents {
                    let content = match recorded {
                        Recorded::Put(content) => Some(content),
                        Recorded::Gone => None,
                        Recorded::Look => continue,
                    };
                    documents::put(connection, no, &doc.1, content)?;
                    note(connection, (no, doc.1.as_str()), &Recorded::Look, *at, &mut first)?;
                } else {
                    note(connection, (no, doc.1.as_str()), recorded, *at, &mut first)?;
                }
            }
            Ok(())
        })
    }

    /// A document that is in the file.
    ///
    /// # Errors
    /// When the file can't be read.
    pub fn get(&mut self, collection: &Collection, key: &Key) -> Result<Option<Bytes>, SqliteFailed> {
        self.follow()?;
        self.connection
            .prepare_cached(
                "SELECT d.content FROM _entgldb_documents d JOIN _entgldb_collections c ON c.no = d.collection_no
                 WHERE c.name = ?1 AND d.key = ?2",
            )
            .and_then(|mut statement| {
                let read = |row: &rusqlite::Row<'_>| row.get::<_, Vec<u8>>(0);
                statement.query_row((collection.as_str(), key.as_str()), read).optional()
            })
            .map(|content| content.map(Bytes::from))
            .doing("reading a document")
    }

    /// Documents that are in the file and whose keys begin with a prefix, in the order of the keys' bytes.
    ///
    /// # Errors
    /// When the file can't be read.
    pub fn scan(
        &mut self,
        collection: &Collection,
        prefix: &str,
        after: Option<&Key>,
        limit: usize,
    ) -> Result<Vec<(Key, Bytes)>, SqliteFailed> {
        self.follow()?;
        let mut statement = self
            .connection
            .prepare_cached(
                "SELECT d.key, d.content FROM _entgldb_documents d WHERE d.collection_no = (SELECT no FROM
                 _entgldb_collections WHERE name = ?1) AND d.key >= ?2 AND d.key > ?3 ORDER BY d.key LIMIT ?4",
            )
            .doing("reading documents")?;
        let after = after.map_or("", Key::as_str);
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let mut rows =
            statement.query((collection.as_str(), prefix, after, limit)).doing("reading documents")?;
        let mut found = Vec::new();
        while let Some(row) = rows.next().doing("reading documents")? {
            let read = || Ok((row.get_ref(0)?.as_str()?.to_owned(), row.get::<_, Vec<u8>>(1)?));
            let (key, content) = read().doing("reading documents")?;
            if !key.starts_with(prefix) {
                break;
            }
            let key = Key::new(&key).map_err(|error| SqliteFailed::damaged(error.to_string()))?;
            found.push((key, content.into()));
        }
        Ok(found)
    }
}

fn connect(
    path: &Path,
    durability: Durability,
    stop: &Arc<AtomicBool>,
    holder: &Holder,
) -> Result<Bound, OpenError> {
    let mut connection = connection::open_file(path, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
    prepare_intake(&mut connection, durability, Arc::clone(stop))?;
    Ok(Bound::of(connection, holder.clone(), path)?)
}

fn number(connection: &Connection, collection: &Collection) -> Outcome<i64> {
    connection
        .prepare_cached("SELECT no FROM _entgldb_collections WHERE name = ?1")
        .and_then(|mut statement| statement.query_row([collection.as_str()], |row| row.get(0)).optional())
        .doing("looking for a collection")?
        .ok_or_else(|| SqliteFailed::damaged(format!("the collection {collection} has no number")))
}

/// Notes one change. `first` is the first note of the same unit, once there is one. To be called in a write transaction.
pub(super) fn note(
    connection: &Connection,
    (no, key): (i64, &str),
    recorded: &Recorded,
    at_ms: u64,
    first: &mut Option<i64>,
) -> Outcome<()> {
    connection
        .prepare_cached("INSERT INTO _entgldb_outbox(tbl, key, at) VALUES(?1, ?2, ?3)")
        .and_then(|mut insert| insert.execute((no, key, at_ms.cast_signed())))
        .doing("noting a change")?;
    let id = connection.last_insert_rowid();
    let first = *first.get_or_insert(id);
    let (kind, content) = match recorded {
        Recorded::Look => (Recorded::LOOK, None),
        Recorded::Put(content) => (Recorded::PUT, Some(&**content)),
        Recorded::Gone => (Recorded::GONE, None),
    };
    connection
        .prepare_cached("INSERT INTO _entgldb_recorded(id, first, kind, content) VALUES(?1, ?2, ?3, ?4)")
        .and_then(|mut insert| insert.execute((id, first, kind, content)))
        .doing("noting a change")?;
    Ok(())
}

pub(super) fn now_ms() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_millis()).unwrap_or(u64::MAX)
}
