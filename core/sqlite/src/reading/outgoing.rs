//! Reading a collection for a snapshot: rows in the order of their keys with the contents of the versions that stand.

use entgldb_replica::id::Key;
use entgldb_replica::resolve::{Document, Row};
use entgldb_replica::store::{Scan, ScanLimits};
use entgldb_replica::version::Hash;
use rusqlite::Connection;

use crate::failed::{Outcome, SqliteFailed, While};
use crate::journal::names::Names;
use crate::journal::schema;
use crate::reading::standing::{Content, Source, Standing};
use crate::table::key;
use crate::table::key::Encoding;

/// What one row of the engine's takes in a chunk beside key and content, in bytes.
const ROW_BYTES: usize = 64;

/// Reads rows as they are now. Beside them the key of a row that is not what its document says, if one ended it.
pub(crate) fn scan(
    source: &Source<'_>,
    after: Option<&Key>,
    limits: &ScanLimits,
) -> Outcome<(Scan, Option<Key>)> {
    let mut scan = Scan::default();
    let (connection, names, no) = (source.connection, source.names, source.no);
    let count = limits.rows.max(1) + 1;
    let rows = match key::encoding(connection)? {
        Encoding::Utf8 => next(connection, names, no, after, count)?,
        _ => next_in_order(connection, names, no, after, count)?,
    };
    let stated = schema::stated(connection)?.contains(&no);
    let mut bytes = 0;
    for mut standing in rows {
        if scan.documents.len() >= limits.rows.max(1) || bytes >= limits.bytes {
            scan.more = true;
            return Ok((scan, None));
        }
        if stated {
            standing.state = schema::state(connection, no, standing.key.as_str())?.map(Into::into);
        }
        let Content::Is(content) = source.content(&standing)? else {
            scan.moved = true;
            return Ok((scan, Some(standing.key)));
        };
        bytes += ROW_BYTES + standing.key.as_str().len();
        bytes += content.as_ref().map_or(0, bytes::Bytes::len);
        bytes += standing.state.as_ref().map_or(0, bytes::Bytes::len);
        let Standing { key, row, state, .. } = standing;
        scan.documents.push(Document { key, row, content, merged: state });
    }
    Ok((scan, None))
}

fn columns(names: &Names) -> &'static str {
    match names.proves {
        true => "key, hlc, author_no, hash, entry, extra, shown",
        false => "key, hlc, author_no, hash, entry, extra, NULL",
    }
}

/// The first rows after a key, in the order of the bytes of UTF-8. Only where that is the database's own order.
pub(crate) fn next(
    connection: &Connection,
    names: &Names,
    no: i64,
    after: Option<&Key>,
    count: usize,
) -> Outcome<Vec<Standing>> {
    let sql = format!(
        "SELECT {} FROM _entgldb_rows WHERE collection_no = ?1 AND key > ?2 ORDER BY key LIMIT ?3",
        columns(names)
    );
    let mut statement = connection.prepare_cached(&sql).doing("reading rows")?;
    let after = after.map(Key::as_str).unwrap_or_default();
    let mut found = statement.query((no, after, count.cast_signed())).doing("reading rows")?;
    let mut rows = Vec::new();
    while let Some(row) = found.next().doing("reading rows")? {
        rows.push(read(names, row)?);
    }
    Ok(rows)
}

/// The row of a document.
pub(crate) fn standing(
    connection: &Connection,
    names: &Names,
    no: i64,
    key: &str,
) -> Outcome<Option<Standing>> {
    let sql = format!("SELECT {} FROM _entgldb_rows WHERE collection_no = ?1 AND key = ?2", columns(names));
    let mut statement = connection.prepare_cached(&sql).doing("reading a row")?;
    let mut found = statement.query((no, key)).doing("reading a row")?;
    found.next().doing("reading a row")?.map(|row| read(names, row)).transpose()
}

fn read(names: &Names, row: &rusqlite::Row<'_>) -> Outcome<Standing> {
    let columns = || {
        let stamp = (row.get(1)?, row.get(2)?, row.get::<_, Option<[u8; 32]>>(3)?);
        Ok((Key::new(row.get_ref(0)?.as_str()?), stamp, row.get(4)?, row.get(5)?, row.get(6)?))
    };
    let (key, (hlc, author, hash), entry, extra, shown) = columns().doing("reading rows")?;
    let key = key.map_err(|error| SqliteFailed::damaged(error.to_string()))?;
    let row = Row { stamp: names.stamp(hlc, author)?, content: hash.map(Hash) };
    Ok(Standing { key, row, entry, extra, shown, state: None })
}

/// The same for databases that order text by UTF-16: every key is looked at, so a large collection in such a database is
/// slow to read.
fn next_in_order(
    connection: &Connection,
    names: &Names,
    no: i64,
    after: Option<&Key>,
    count: usize,
) -> Outcome<Vec<Standing>> {
    let mut statement = connection
        .prepare_cached("SELECT key FROM _entgldb_rows WHERE collection_no = ?1")
        .doing("reading keys")?;
    let mut found = statement.query([no]).doing("reading keys")?;
    let mut first = std::collections::BTreeSet::new();
    while let Some(row) = found.next().doing("reading keys")? {
        let key: String = row.get(0).doing("reading keys")?;
        let comes = after.is_none_or(|after| key.as_str() > after.as_str());
        if comes && (first.len() < count || first.last().is_some_and(|last| key < *last)) {
            first.insert(key);
            if first.len() > count {
                first.pop_last();
            }
        }
    }
    let row = |key: &String| standing(connection, names, no, key).transpose();
    first.iter().filter_map(row).collect()
}
