//! Logs whose heads are beyond what the tables can number. An earlier version took such a head from a snapshot, signed by a
//! member that made it up, and could not open its store any more. Such a log is dropped, and everything else goes on.

use entgldb_replica::id::LogId;
use entgldb_replica::version::Seq;

use crate::failed::{Outcome, While};
use crate::file::binding::Bound;
use crate::file::connection::in_transaction;
use crate::journal::names::{Names, entry_id};

/// Where the signature over such a head was kept.
const SIGNATURE_ID: i64 = 0;

/// Drops what is kept of such logs; answers which they were.
pub(crate) fn drop_all(connection: &Bound, names: &mut Names) -> Outcome<Vec<LogId>> {
    let unnumbered = std::mem::take(&mut names.unnumbered);
    if unnumbered.is_empty() {
        return Ok(Vec::new());
    }
    in_transaction(connection, |connection| {
        for (log, no) in &unnumbered {
            let range = (entry_id(*no, Seq(0))?, entry_id(no + 1, Seq(0))?);
            for table in ["_entgldb_oplog", "_entgldb_signed"] {
                let sql = format!("DELETE FROM {table} WHERE id >= ?1 AND id < ?2");
                connection.execute(&sql, range).doing("dropping a log")?;
            }
            connection.execute("DELETE FROM _entgldb_logs WHERE no = ?1", [no]).doing("dropping a log")?;
            tracing::warn!(%log, "the head of this log was beyond any position; the log is dropped");
        }
        connection
            .execute("DELETE FROM _entgldb_signed WHERE id = ?1", [SIGNATURE_ID])
            .doing("dropping a log")?;
        Ok(())
    })?;
    Ok(unnumbered.into_iter().map(|(log, _)| log).collect())
}
