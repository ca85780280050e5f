//! Documents that are set aside: their entries and rows are as everywhere, but the application's table does not hold
//! them, because its schema refuses them or because they collide with a younger row.

use bytes::Bytes;
use entgldb_replica::clock::{Stamp, WallMillis};
use entgldb_replica::id::Key;
use rusqlite::{Connection, OptionalExtension, Row};

use crate::failed::{Outcome, SqliteFailed, While};
use crate::journal::names::Names;

/// A document that is set aside.
#[derive(Clone, Debug)]
pub(crate) struct Aside {
    pub(crate) key: Key,
    pub(crate) stamp: Stamp,
    /// What it would be in the table; `None` for a delete that the application's triggers refuse.
    pub(crate) content: Option<Bytes>,
    /// Why.
    pub(crate) reason: Reason,
}

/// Why a document is set aside.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Reason {
    /// The schema refuses it. The table still has the version before, whose content has this hash, if there was one.
    Refused { message: String, table_hash: Option<[u8; 32]> },
    /// It collides with a younger row, whose key is known unless the index cannot be looked into.
    Collided { blocker: Option<Key> },
}

impl Reason {
    pub(crate) fn message(&self) -> String {
        match self {
            Self::Refused { message, .. } => message.clone(),
            Self::Collided { blocker: Some(blocker) } => {
                format!("a younger row, {blocker:?}, has the same value in a unique column")
            }
            Self::Collided { blocker: None } => "a younger row has the same value in a unique column".into(),
        }
    }
}

const COLUMNS: &str = "key, hlc, author_no, content, collided, blocker, message, table_hash";

/// Whether anything is set aside.
pub(crate) fn any(connection: &Connection) -> Outcome<bool> {
    connection
        .prepare_cached("SELECT EXISTS(SELECT 1 FROM _entgldb_set_aside)")
        .and_then(|mut statement| statement.query_row([], |row| row.get(0)))
        .doing("looking at what is set aside")
}

/// Sets a document aside, in the place of an older version that was.
pub(crate) fn put(
    connection: &Connection,
    names: &Names,
    no: i64,
    aside: &Aside,
    wall: WallMillis,
) -> Outcome<()> {
    let (collided, blocker, hash) = match &aside.reason {
        Reason::Refused { table_hash, .. } => (false, None, *table_hash),
        Reason::Collided { blocker } => (true, blocker.as_ref().map(Key::as_str), None),
    };
    let author = names
        .known_author(&aside.stamp.node)
        .ok_or_else(|| SqliteFailed::damaged("an author has no number"))?;
    connection
        .prepare_cached(
            "INSERT INTO _entgldb_set_aside(collection_no, key, hlc, author_no, content, collided, blocker, message, table_hash, noted_at)
             VALUES(?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10) ON CONFLICT(collection_no, key) DO UPDATE SET hlc = excluded.hlc,
             author_no = excluded.author_no, content = excluded.content, collided = excluded.collided,
             blocker = excluded.blocker, message = excluded.message, table_hash = excluded.table_hash",
        )
        .and_then(|mut statement| {
            statement.execute((
                no,
                aside.key.as_str(),
                aside.stamp.hlc.0.cast_signed(),
                author,
                aside.content.as_deref(),
                collided,
                blocker,
                aside.reason.message(),
                hash.as_ref().map(<[u8; 32]>::as_slice),
                wall.0.cast_signed(),
            ))
        })
        .doing("setting a document aside")?;
    Ok(())
}

/// Forgets that a document was set aside. Answers whether it was.
pub(crate) fn remove(connection: &Connection, no: i64, key: &Key) -> Outcome<bool> {
    connection
        .prepare_cached("DELETE FROM _entgldb_set_aside WHERE collection_no = ?1 AND key = ?2")
        .and_then(|mut statement| statement.execute((no, key.as_str())))
        .map(|removed| removed > 0)
        .doing("taking a document back")
}

/// The document with this key, if it is set aside.
pub(crate) fn get(connection: &Connection, names: &Names, no: i64, key: &Key) -> Outcome<Option<Aside>> {
    let sql = format!("SELECT {COLUMNS} FROM _entgldb_set_aside WHERE collection_no = ?1 AND key = ?2");
    connection
        .prepare_cached(&sql)
        .and_then(|mut statement| {
            statement.query_row((no, key.as_str()), |row| Ok(read(names, row))).optional()
        })
        .doing("reading what is set aside")?
        .transpose()
}

/// Those that a certain row keeps out.
pub(crate) fn blocked_by(
    connection: &Connection,
    names: &Names,
    no: i64,
    blocker: &Key,
) -> Outcome<Vec<Aside>> {
    let sql = format!("SELECT {COLUMNS} FROM _entgldb_set_aside WHERE collection_no = ?1 AND blocker = ?2");
    list(connection, names, &sql, (no, blocker.as_str()))
}

/// Has all that collided looked at again: the schema has changed, and perhaps nothing is in their way any more. To be called in a
/// write transaction.
pub(crate) fn forget_blockers(connection: &Connection) -> Outcome<()> {
    connection
        .execute("UPDATE _entgldb_set_aside SET blocker = NULL WHERE blocker IS NOT NULL", [])
        .map(drop)
        .doing("looking at what is set aside")
}

/// Those that wait for a change of the schema, or whose blocker is not known, after `after` in key order.
pub(crate) fn waiting(
    connection: &Connection,
    names: &Names,
    no: i64,
    after: &str,
    count: usize,
) -> Outcome<Vec<Aside>> {
    let sql = format!(
        "SELECT {COLUMNS} FROM _entgldb_set_aside WHERE collection_no = ?1 AND key > ?2 AND (NOT collided OR blocker IS NULL)
         ORDER BY key LIMIT ?3"
    );
    list(connection, names, &sql, (no, after, count.cast_signed()))
}

fn list<P: rusqlite::Params>(
    connection: &Connection,
    names: &Names,
    sql: &str,
    params: P,
) -> Outcome<Vec<Aside>> {
    let mut statement = connection.prepare_cached(sql).doing("reading what is set aside")?;
    let mut rows = statement.query(params).doing("reading what is set aside")?;
    let mut found = Vec::new();
    while let Some(row) = rows.next().doing("reading what is set aside")? {
        found.push(read(names, row)?);
    }
    Ok(found)
}

fn read(names: &Names, row: &Row<'_>) -> Outcome<Aside> {
    let columns = || {
        let content: Option<Vec<u8>> = row.get(3)?;
        let reason = if row.get(4)? {
            (None, row.get::<_, Option<String>>(5)?, String::new())
        } else {
            (Some(row.get::<_, Option<[u8; 32]>>(7)?), None, row.get(6)?)
        };
        Ok((row.get::<_, String>(0)?, row.get(1)?, row.get(2)?, content, reason))
    };
    let (key, hlc, author, content, reason) = columns().doing("reading what is set aside")?;
    let key_of = |key: &str| Key::new(key).map_err(|error| SqliteFailed::damaged(error.to_string()));
    Ok(Aside {
        key: key_of(&key)?,
        stamp: names.stamp(hlc, author)?,
        content: content.map(Bytes::from),
        reason: match reason {
            (Some(table_hash), _, message) => Reason::Refused { message, table_hash },
            (None, blocker, _) => Reason::Collided { blocker: blocker.as_deref().map(key_of).transpose()? },
        },
    })
}
