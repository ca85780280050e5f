//! Who works on a database file, as the file itself says it.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rusqlite::{Connection, OptionalExtension};
use serde::{Deserialize, Serialize};

use crate::failed::{Outcome, SqliteFailed, While, code};
use crate::file::identity::{FileId, Identity};

/// Names of the values in `_entgldb_meta` that are about this.
pub(crate) const TOKEN: &str = "token";
pub(crate) const COMMITS: &str = "commits";
pub(crate) const HOLDER: &str = "holder";
pub(crate) const CHALLENGE: &str = "challenge";

/// A random number that stands for one opening of a file by one engine.
pub(crate) type Token = [u8; 16];

/// An engine, as it is named to others that want to work on the same file. Clones are the same engine.
#[derive(Clone, Debug)]
pub struct Holder {
    by: HeldBy,
    claim: Arc<Mutex<Claim>>,
    /// Whether the store's connection gives up at once where it would wait for a lock.
    is_hasty: Arc<AtomicBool>,
}

/// What an engine writes of itself into the file that it works on.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct HeldBy {
    /// The node's identity; empty if it has none.
    pub node: String,
    /// Its label.
    pub name: String,
    /// Its process.
    pub pid: u32,
    /// Its data folder.
    pub folder: PathBuf,
    /// Which folder that is, whatever its name.
    place: Option<String>,
}

impl std::fmt::Display for HeldBy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.node.is_empty() {
            return write!(f, "an engine in process {}", self.pid);
        }
        let (short, folder) = (self.node.get(..8).unwrap_or(&self.node), self.folder.display());
        write!(f, "node {:?} ({short}), process {}, data folder {folder}", self.name, self.pid)
    }
}

/// What an engine knows of its claim on a file. Shared by its connections; whoever changes it holds SQLite's write lock.
#[derive(Debug, Default)]
pub(crate) struct Claim {
    pub(crate) token: Token,
    pub(crate) commits: i64,
    /// The files that were opened last.
    pub(crate) identity: Option<Identity>,
    /// Whether their log had no content before they were swapped: what is in it since is the new file's.
    pub(crate) leaves_log: bool,
}

impl Holder {
    /// A node with its identity and label. `folder` is its data folder, which the caller MUST keep locked against other
    /// processes: whoever finds the folder's name in a file, and has it locked, takes the earlier holder for gone.
    #[must_use]
    pub fn new(node: &str, name: &str, folder: &Path) -> Self {
        let folder = folder.canonicalize().unwrap_or_else(|_| folder.to_owned());
        let place = FileId::at(&folder).ok().flatten().map(FileId::to_text);
        let pid = std::process::id();
        let by = HeldBy { node: node.to_owned(), name: name.to_owned(), pid, folder, place };
        Self { by, claim: Arc::default(), is_hasty: Arc::default() }
    }

    /// An engine that has no folder. After an end without [`close`](crate::SqliteStore::close) the next start waits for it in
    /// vain, two seconds.
    #[must_use]
    pub fn unnamed() -> Self {
        let by = HeldBy { pid: std::process::id(), ..HeldBy::default() };
        Self { by, claim: Arc::default(), is_hasty: Arc::default() }
    }

    /// Puts the write-ahead log of the file that was open before aside, if another file is at the path now: whoever opens that
    /// one would read the log into it. To be called as soon as the store is dropped. Returns where the log is now.
    ///
    /// # Errors
    /// When it can't be renamed.
    pub fn put_stale_log_aside(&self) -> io::Result<Option<PathBuf>> {
        let before = {
            let claim = self.claim();
            claim.identity.clone().filter(|_| !claim.leaves_log)
        };
        before.map_or(Ok(None), |identity| identity.put_stale_wal_aside())
    }

    pub(crate) fn haste(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.is_hasty)
    }

    pub(crate) fn claim(&self) -> MutexGuard<'_, Claim> {
        self.claim.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn written(&self) -> Outcome<String> {
        serde_json::to_string(&self.by).map_err(|error| SqliteFailed::damaged(error.to_string()))
    }

    /// Whether the engine that wrote this is gone for certain: it had locked the folder that is locked for this one.
    pub(crate) fn replaces(&self, other: &HeldBy) -> bool {
        let HeldBy { node, folder, place, .. } = other;
        let is_same = *node == self.by.node && *folder == self.by.folder && *place == self.by.place;
        is_same && !node.is_empty() && place.is_some()
    }
}

/// What a file says of who works on it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Held {
    pub(crate) token: Token,
    pub(crate) commits: i64,
    pub(crate) by: HeldBy,
}

/// Reads who works on a file; `None` if nobody does, or no engine ever did.
pub(crate) fn read(connection: &Connection) -> Outcome<Option<Held>> {
    let Some(token) = value::<Vec<u8>>(connection, TOKEN)? else { return Ok(None) };
    // A token that is none of ours stands for an engine that nobody can be.
    let token = Token::try_from(token).unwrap_or_default();
    let commits = value::<i64>(connection, COMMITS)?.unwrap_or_default();
    // Who can't be named is only shown worse.
    let by = value::<String>(connection, HOLDER)?.and_then(|text| serde_json::from_str(&text).ok());
    Ok(Some(Held { token, commits, by: by.unwrap_or_default() }))
}

/// Reads a value of the engine's state. A table that is not there, or is damaged, has none.
fn value<T: rusqlite::types::FromSql>(connection: &Connection, name: &str) -> Outcome<Option<T>> {
    let found = connection
        .query_row("SELECT value FROM main._entgldb_meta WHERE name = ?1", [name], |row| row.get(0))
        .optional();
    match found {
        Err(rusqlite::Error::InvalidColumnType(..)) => Ok(None),
        Err(error) if code(&error) == Some(rusqlite::ErrorCode::Unknown) => Ok(None),
        found => found.doing("reading who works on the database"),
    }
}

/// Writes a value of the engine's state. To be called in a write transaction.
pub(crate) fn put(connection: &Connection, name: &str, value: impl rusqlite::ToSql) -> Outcome<()> {
    connection
        .execute("INSERT OR REPLACE INTO main._entgldb_meta VALUES(?1, ?2)", (name, value))
        .map(drop)
        .doing("noting who works on the database")
}

/// Removes values of the engine's state. To be called in a write transaction.
pub(crate) fn remove(connection: &Connection, names: &[&str]) -> Outcome<()> {
    for name in names {
        connection
            .execute("DELETE FROM main._entgldb_meta WHERE name = ?1", [name])
            .doing("noting who works on the database")?;
    }
    Ok(())
}
