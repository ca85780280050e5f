//! The durable journal: entries, signed heads, and reading them.

use bytes::Bytes;
use entgldb_replica::clock::{Hlc, Stamp};
use entgldb_replica::entry::{Entry, Op, SignedHead};
use entgldb_replica::id::{DocId, Key, LogId};
use entgldb_replica::limits::{PAGE_BYTES_TARGET, PAGE_ENTRIES_TARGET};
use entgldb_replica::resolve::Version;
use entgldb_replica::store::{Appended, ReadLimits, Stored};
use entgldb_replica::version::{Hash, Head, Seq};
use rusqlite::{Connection, OptionalExtension, Row};

use crate::failed::{Outcome, SqliteFailed, While};
use crate::journal::names::{LogEnd, Names, entry_id, seq_of};

/// Appends entries to a log and keeps the signature over them. To be called in a write transaction.
pub(crate) fn append(connection: &Connection, names: &mut Names, appended: &Appended) -> Outcome<LogEnd> {
    let end = names.log(connection, &appended.log)?;
    let mut last = end;
    let mut insert = connection
        .prepare_cached("INSERT INTO _entgldb_oplog(id, hlc, replaces_hlc, replaces_author_no, op, key, hash, payload) VALUES(?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)")
        .doing("appending entries")?;
    for linked in &appended.entries {
        let entry = linked.entry();
        if entry.seq != last.head.seq.next() {
            return Err(SqliteFailed::damaged(format!(
                "entry {:?} of {} does not come next",
                entry.seq, appended.log
            )));
        }
        let (replaces_hlc, replaces_author) = match &entry.replaces {
            Some(stamp) => (Some(stamp.hlc.0.cast_signed()), Some(names.author(connection, &stamp.node)?)),
            None => (None, None),
        };
        let hash = linked.hash().0;
        insert
            .execute((
                entry_id(end.no, entry.seq)?,
                entry.hlc.0.cast_signed(),
                replaces_hlc,
                replaces_author,
                entry.op as u8,
                entry.key.as_str(),
                hash.as_slice(),
                &*entry.payload,
            ))
            .doing("appending entries")?;
        last = LogEnd { head: linked.head(), hlc: entry.hlc, ..end };
    }
    sign(connection, end.no, &appended.signed)?;
    put_end(connection, names, &appended.log, last)?;
    Ok(last)
}

/// Keeps where a log ends and begins now.
fn put_end(connection: &Connection, names: &mut Names, log: &LogId, end: LogEnd) -> Outcome<()> {
    connection
        .prepare_cached(
            "UPDATE _entgldb_logs SET seq = ?1, hash = ?2, hlc = ?3, floor = ?4, floor_hlc = ?5 WHERE no = ?6",
        )
        .and_then(|mut update| {
            update.execute((
                end.head.seq.0.cast_signed(),
                end.head.hash.0.as_slice(),
                end.hlc.0.cast_signed(),
                end.floor.0.cast_signed(),
                end.floor_hlc.0.cast_signed(),
                end.no,
            ))
        })
        .doing("moving a log's head")?;
    names.logs.insert(log.clone(), end);
    Ok(())
}

/// Goes on from a head that a snapshot stands for. To be called in a write transaction.
pub(crate) fn adopt(
    connection: &Connection,
    names: &mut Names,
    log: &LogId,
    signed: &SignedHead,
) -> Outcome<()> {
    let end = names.log(connection, log)?;
    if signed.head.seq <= end.head.seq {
        return Err(SqliteFailed::damaged(format!("a snapshot's head of {log} is not beyond the one here")));
    }
    sign(connection, end.no, signed)?;
    let (head, hlc) = (signed.head, signed.hlc);
    put_end(connection, names, log, LogEnd { no: end.no, head, hlc, floor: head.seq, floor_hlc: hlc })
}

/// Marks what of a log is forgotten. To be called in a write transaction.
pub(crate) fn forget(connection: &Connection, names: &mut Names, log: &LogId, floor: Seq) -> Outcome<()> {
    let end = names.log(connection, log)?;
    let signed = signed_until(connection, names, log, floor)?.filter(|signed| signed.head.seq == floor);
    match signed {
        Some(signed) if floor > end.floor => {
            put_end(connection, names, log, LogEnd { floor, floor_hlc: signed.hlc, ..end })
        }
        Some(_) => Ok(()),
        None => Err(SqliteFailed::damaged(format!("no signed head of {log} stands at {floor:?}"))),
    }
}

fn sign(connection: &Connection, log_no: i64, signed: &SignedHead) -> Outcome<()> {
    let id = entry_id(log_no, signed.head.seq)?;
    connection
        .prepare_cached(
            "INSERT OR REPLACE INTO _entgldb_signed(id, hlc, hash, signature) VALUES(?1, ?2, ?3, ?4)",
        )
        .and_then(|mut insert| {
            insert.execute((
                id,
                signed.hlc.0.cast_signed(),
                signed.head.hash.0.as_slice(),
                signed.signature.as_slice(),
            ))
        })
        .doing("keeping a signature")?;
    Ok(())
}

/// Entries of a log after a position, in order, within limits.
pub(crate) fn read(
    connection: &Connection,
    names: &Names,
    log: &LogId,
    after: Seq,
    limits: &ReadLimits,
) -> Outcome<Vec<Stored>> {
    let Some(end) = names.logs.get(log) else { return Ok(Vec::new()) };
    let mut statement = connection
        .prepare_cached("SELECT id, hlc, replaces_hlc, replaces_author_no, op, key, payload, hash FROM _entgldb_oplog WHERE id > ?1 AND id <= ?2 ORDER BY id LIMIT ?3")
        .doing("reading a log")?;
    if after < end.floor {
        // What is left of entries below the floor leads nowhere.
        return Ok(Vec::new());
    }
    let last = entry_id(end.no, end.head.seq)?;
    let first = entry_id(end.no, after.min(end.head.seq))?;
    let mut rows = statement.query((first, last, limits.entries.cast_signed())).doing("reading a log")?;
    let (mut found, mut bytes) = (Vec::new(), 0);
    while let Some(row) = rows.next().doing("reading a log")? {
        let stored = stored(names, row)?;
        bytes += stored.entry.payload.len();
        if stored.entry.hlc > limits.until || (bytes > limits.bytes && !found.is_empty()) {
            break;
        }
        found.push(stored);
    }
    Ok(found)
}

/// Entries between two numbers, both left out; a page at a time.
pub(crate) fn page(connection: &Connection, names: &Names, after: i64, before: i64) -> Outcome<Vec<Stored>> {
    let mut statement = connection
        .prepare_cached(
            "SELECT id, hlc, replaces_hlc, replaces_author_no, op, key, payload, hash FROM _entgldb_oplog
             WHERE id > ?1 AND id < ?2 ORDER BY id",
        )
        .doing("reading a log")?;
    let mut rows = statement.query((after, before)).doing("reading a log")?;
    let (mut found, mut bytes) = (Vec::new(), 0);
    while let Some(row) = rows.next().doing("reading a log")? {
        let stored = stored(names, row)?;
        bytes += stored.entry.payload.len();
        found.push(stored);
        if bytes >= PAGE_BYTES_TARGET || found.len() >= PAGE_ENTRIES_TARGET {
            break;
        }
    }
    Ok(found)
}

fn stored(names: &Names, row: &Row<'_>) -> Outcome<Stored> {
    let columns = || {
        let key = row.get_ref(5)?.as_str()?;
        let payload = Bytes::copy_from_slice(row.get_ref(6)?.as_bytes()?);
        let numbers = (row.get::<_, i64>(0)?, row.get::<_, i64>(1)?, row.get::<_, i64>(4)?.cast_unsigned());
        let replaces = (row.get::<_, Option<i64>>(2)?, row.get::<_, Option<i64>>(3)?);
        Ok((numbers, replaces, Key::new(key), payload, Hash(row.get(7)?)))
    };
    let ((id, hlc, op), replaces, key, payload, hash) = columns().doing("reading a log")?;
    let replaces = match replaces {
        (Some(hlc), Some(author)) => Some(names.stamp(hlc, author)?),
        _ => None,
    };
    let op = Op::from_number(op)
        .ok_or_else(|| SqliteFailed::damaged(format!("entry {id} has the operation {op}")))?;
    let key = key.map_err(|error| SqliteFailed::damaged(format!("entry {id}: {error}")))?;
    let entry = Entry { seq: seq_of(id), hlc: Hlc(hlc.cast_unsigned()), replaces, op, key, payload };
    Ok(Stored { entry, hash })
}

/// The time of one entry.
fn hlc_at(connection: &Connection, id: i64) -> Outcome<Option<Hlc>> {
    connection
        .prepare_cached("SELECT hlc FROM _entgldb_oplog WHERE id = ?1")
        .and_then(|mut statement| statement.query_row([id], |row| row.get::<_, i64>(0)).optional())
        .map(|hlc| hlc.map(|hlc| Hlc(hlc.cast_unsigned())))
        .doing("reading an entry")
}

/// The last position of a log whose entry is not later than `hlc`, or its floor. Times never fall within a log.
pub(crate) fn last_at(connection: &Connection, end: &LogEnd, hlc: Hlc) -> Outcome<Seq> {
    if end.hlc <= hlc {
        return Ok(end.head.seq);
    }
    let (mut not_later, mut later) = (end.floor.0, end.head.seq.0);
    while later - not_later > 1 {
        let middle = not_later + (later - not_later) / 2;
        match hlc_at(connection, entry_id(end.no, Seq(middle))?)? {
            Some(found) if found > hlc => later = middle,
            _ => not_later = middle,
        }
    }
    Ok(Seq(not_later))
}

/// The hash of one entry.
pub(crate) fn hash_at(
    connection: &Connection,
    names: &Names,
    log: &LogId,
    seq: Seq,
) -> Outcome<Option<Hash>> {
    let Some(end) = names.logs.get(log).filter(|end| seq >= end.floor) else { return Ok(None) };
    // A position that no entry can have holds none.
    let Ok(id) = entry_id(end.no, seq) else { return Ok(None) };
    // At the floor the signature is left of the entry.
    let sql = if seq == end.floor {
        "SELECT hash FROM _entgldb_signed WHERE id = ?1"
    } else {
        "SELECT hash FROM _entgldb_oplog WHERE id = ?1"
    };
    connection
        .prepare_cached(sql)
        .and_then(|mut statement| statement.query_row([id], |row| row.get(0)).optional())
        .map(|hash| hash.map(Hash))
        .doing("reading an entry's hash")
}

/// The version of a document with a stamp.
pub(crate) fn version(
    connection: &Connection,
    names: &Names,
    doc: &DocId,
    stamp: &Stamp,
) -> Outcome<Option<Version>> {
    match entry_of(connection, names, doc, stamp)? {
        Some(id) => entry_at(connection, names, id),
        None => Ok(None),
    }
}

/// The number of the entry that made the version of a document with a stamp.
pub(crate) fn entry_of(
    connection: &Connection,
    names: &Names,
    doc: &DocId,
    stamp: &Stamp,
) -> Outcome<Option<i64>> {
    let ends: Vec<LogEnd> = names.logs_of(&stamp.node, &doc.0).copied().collect();
    for end in ends {
        let last = last_at(connection, &end, stamp.hlc)?;
        let before = last_at(connection, &end, Hlc(stamp.hlc.0.saturating_sub(1)))?;
        if last > before
            && let Some(id) = find(connection, entry_id(end.no, before)?, entry_id(end.no, last)?, &doc.1)?
        {
            return Ok(Some(id));
        }
    }
    Ok(None)
}

fn find(connection: &Connection, after: i64, last: i64, key: &Key) -> Outcome<Option<i64>> {
    connection
        .prepare_cached(
            "SELECT id FROM _entgldb_oplog WHERE id > ?1 AND id <= ?2 AND key = ?3 ORDER BY id DESC LIMIT 1",
        )
        .and_then(|mut statement| {
            statement.query_row((after, last, key.as_str()), |row| row.get(0)).optional()
        })
        .doing("looking for a version")
}

/// The version that one entry made.
pub(crate) fn entry_at(connection: &Connection, names: &Names, id: i64) -> Outcome<Option<Version>> {
    let mut statement = connection
        .prepare_cached("SELECT id, hlc, replaces_hlc, replaces_author_no, op, key, payload, hash FROM _entgldb_oplog WHERE id = ?1")
        .doing("reading an entry")?;
    let mut rows = statement.query([id]).doing("reading an entry")?;
    let Some(row) = rows.next().doing("reading an entry")? else { return Ok(None) };
    let Stored { entry, .. } = stored(names, row)?;
    Ok(Some(Version::of(&entry)))
}

/// The signed head of a log nearest to a position, on the side that `sql` says.
fn signed(
    connection: &Connection,
    names: &Names,
    log: &LogId,
    seq: Seq,
    sql: &str,
) -> Outcome<Option<SignedHead>> {
    let Some(end) = names.logs.get(log) else { return Ok(None) };
    let (first, last) = (entry_id(end.no, Seq(1))?, entry_id(end.no, end.head.seq)?);
    let at = entry_id(end.no, seq.min(end.head.seq.next()))?;
    connection
        .prepare_cached(sql)
        .and_then(|mut statement| {
            statement
                .query_row((at, first, last), |row| {
                    let head = Head { seq: seq_of(row.get(0)?), hash: Hash(row.get(2)?) };
                    let hlc = Hlc(row.get::<_, i64>(1)?.cast_unsigned());
                    Ok(SignedHead { head, hlc, signature: row.get(3)? })
                })
                .optional()
        })
        .doing("reading a signature")
}

/// The last signed head at or before a position.
pub(crate) fn signed_until(
    connection: &Connection,
    names: &Names,
    log: &LogId,
    seq: Seq,
) -> Outcome<Option<SignedHead>> {
    let sql = "SELECT id, hlc, hash, signature FROM _entgldb_signed WHERE id <= ?1 AND id BETWEEN ?2 AND ?3 ORDER BY id DESC LIMIT 1";
    signed(connection, names, log, seq, sql)
}

/// The first signed head at or after a position.
pub(crate) fn signed_from(
    connection: &Connection,
    names: &Names,
    log: &LogId,
    seq: Seq,
) -> Outcome<Option<SignedHead>> {
    let sql = "SELECT id, hlc, hash, signature FROM _entgldb_signed WHERE id >= ?1 AND id BETWEEN ?2 AND ?3 ORDER BY id LIMIT 1";
    signed(connection, names, log, seq, sql)
}
