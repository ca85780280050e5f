//! Fields whose columns were dropped here: their values stay in what this node passes on.

use entgldb_replica::id::{Key, sha256};
use rusqlite::{Connection, OptionalExtension};

use crate::failed::{Outcome, While};
use crate::journal::names::Names;
use crate::journal::oplog;
use crate::reading::standing::extra_of;
use crate::table::definition::Table;
use crate::table::document::Extra;

/// All that a row's document has and its row cannot hold. Whoever compares a row with a document, or makes a document of it, asks
/// here: who leaves the dropped fields out finds a change where there is none.
pub(crate) fn beside(
    connection: &Connection,
    names: &Names,
    table: &Table,
    key: &Key,
) -> Outcome<Option<Extra>> {
    carried(connection, names, table, key, extra_of(connection, table.no, key)?)
}

/// What is kept beside a row, with the fields that only the row's entry still has because their columns were dropped.
pub(crate) fn carried(
    connection: &Connection,
    names: &Names,
    table: &Table,
    key: &Key,
    extra: Option<Extra>,
) -> Outcome<Option<Extra>> {
    if table.gone.is_empty() {
        return Ok(extra);
    }
    let row: Option<(Option<i64>, Option<[u8; 32]>)> = connection
        .prepare_cached("SELECT entry, hash FROM _entgldb_rows WHERE collection_no = ?1 AND key = ?2")
        .and_then(|mut statement| {
            statement.query_row((table.no, key.as_str()), |row| Ok((row.get(0)?, row.get(1)?))).optional()
        })
        .doing("reading a row's entry")?;
    let Some((Some(entry), Some(hash))) = row else { return Ok(extra) };
    let Some(version) = oplog::entry_at(connection, names, entry)? else { return Ok(extra) };
    let Some(content) = version.content().filter(|content| sha256(content) == hash) else { return Ok(extra) };
    Ok(Extra::with_gone(extra, table, &content))
}

/// Keeps the fields of a document that have no column any more beside its row, so that they outlive its entry. To be called in a
/// write transaction.
pub(crate) fn keep(
    connection: &Connection,
    table: &Table,
    key: &Key,
    kept: Option<Extra>,
    content: &[u8],
) -> Outcome<()> {
    let extra = Extra::with_gone(kept.clone(), table, content);
    if extra == kept {
        return Ok(());
    }
    connection
        .prepare_cached("UPDATE _entgldb_rows SET extra = ?1 WHERE collection_no = ?2 AND key = ?3")
        .and_then(|mut update| update.execute((extra.map(|extra| extra.to_text()), table.no, key.as_str())))
        .doing("keeping a field without a column")?;
    connection
        .prepare_cached("UPDATE _entgldb_collections SET has_extras = 1 WHERE no = ?1 AND NOT has_extras")
        .and_then(|mut update| update.execute([table.no]))
        .doing("keeping a field without a column")?;
    Ok(())
}

/// Keeps such fields of the next `count` rows after `after`, in the order of keys. Returns the last key, or `None` at the end.
/// To be called in a write transaction.
pub(crate) fn keep_slice(
    connection: &Connection,
    names: &Names,
    table: &Table,
    after: &str,
    count: usize,
) -> Outcome<Option<String>> {
    let mut statement = connection
        .prepare_cached(
            "SELECT key, entry, hash, extra FROM _entgldb_rows WHERE collection_no = ?1 AND key > ?2 AND hash IS NOT NULL AND entry IS NOT NULL
             ORDER BY key LIMIT ?3",
        )
        .doing("looking for fields without a column")?;
    let found = statement.query_map((table.no, after, count.cast_signed()), |row| {
        Ok((
            row.get::<_, String>(0)?,
            row.get::<_, i64>(1)?,
            row.get::<_, [u8; 32]>(2)?,
            row.get::<_, Option<String>>(3)?,
        ))
    });
    let found: Vec<_> = found.and_then(Iterator::collect).doing("looking for fields without a column")?;
    for (key, entry, hash, extra) in &found {
        let (Ok(key), Some(version)) = (Key::new(key), oplog::entry_at(connection, names, *entry)?) else {
            continue;
        };
        if let Some(content) = version.content().filter(|content| sha256(content) == *hash) {
            let extra = extra.as_deref().and_then(Extra::from_text);
            keep(connection, table, &key, extra, &content)?;
        }
    }
    Ok(found.last().filter(|_| found.len() == count).map(|(key, ..)| key.clone()))
}
