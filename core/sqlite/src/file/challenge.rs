//! One engine on one file: asking the engine that the file names whether it is at work, and taking the file if it is not.
//!
//! Works through symbolic links, mounts of the folder and containers, because question and answer are in the file: the
//! question is a row, the answer is any commit of the engine that is asked.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rusqlite::Connection;

use crate::failed::{Outcome, SqliteFailed, While};
use crate::file::binding::Bound;
use crate::file::error::OpenError;
use crate::file::holder::{self, CHALLENGE, COMMITS, HOLDER, Held, Holder, TOKEN, Token};
use crate::file::identity::has_other_names;

/// How long the engine that the file names has for its answer. It looks at least four times a second.
const ANSWER_WAIT: Duration = Duration::from_secs(2);
/// How often it is looked for the answer.
const ANSWER_LOOK: Duration = Duration::from_millis(10);
/// If taking the write lock lasts longer, the engine that was asked may have waited for it too.
const LOCK_WAIT_MAX: Duration = Duration::from_millis(250);

/// Who wants a file, and until when it waits.
#[derive(Clone, Copy)]
pub(crate) struct Claimant<'a> {
    pub(crate) path: &'a Path,
    pub(crate) holder: &'a Holder,
    pub(crate) stop: &'a AtomicBool,
    /// Whether there was a log of this name before it was opened. Where there was none, nobody hears a question.
    pub(crate) had_log: bool,
}

impl Claimant<'_> {
    fn can_ask(&self) -> bool {
        self.had_log || !has_other_names(self.path)
    }
}

/// How an engine reacted to the question.
enum Reaction {
    AtWork,
    Silent,
    /// It has ended, or another one has taken the file.
    Gone,
}

/// Makes sure that no engine is at work on a file.
pub(crate) fn free(connection: &Connection, claimant: Claimant<'_>) -> Result<(), OpenError> {
    while let Some(held) = holder::read(connection)? {
        if !claimant.can_ask() {
            return Err(several_names(claimant.path, &held));
        }
        match ask(connection, &held, claimant.stop)? {
            Reaction::AtWork => return Err(in_use(claimant.path, &held)),
            Reaction::Gone => {}
            Reaction::Silent => return Ok(()),
        }
    }
    Ok(())
}

/// Claims a file for an engine. `tables` makes the engine's tables, in the transaction that claims the file.
pub(crate) fn claim(
    connection: &Connection,
    claimant: Claimant<'_>,
    mut tables: impl FnMut(&Connection) -> Outcome<()>,
) -> Result<(), OpenError> {
    let mut silent: Option<Held> = None;
    loop {
        let found = holder::read(connection)?;
        if let Some(held) = &found {
            let is_gone = claimant.holder.replaces(&held.by) || silent.as_ref() == Some(held);
            let reaction = match is_gone || !claimant.can_ask() {
                true => Reaction::Silent,
                false => ask(connection, held, claimant.stop)?,
            };
            match reaction {
                Reaction::AtWork => return Err(in_use(claimant.path, held)),
                Reaction::Gone => continue,
                Reaction::Silent if !is_gone && has_other_names(claimant.path) => {
                    return Err(several_names(claimant.path, held));
                }
                Reaction::Silent => silent = Some(held.clone()),
            }
        }
        let since = Instant::now();
        connection.execute_batch("BEGIN IMMEDIATE").doing("beginning a transaction")?;
        let took = (|| {
            if found.is_some() && since.elapsed() > LOCK_WAIT_MAX {
                silent = None;
                return Ok(false);
            }
            if holder::read(connection)? != found {
                return Ok(false);
            }
            tables(connection)?;
            take(connection, claimant.holder)?;
            connection.execute_batch("COMMIT").doing("committing")?;
            Ok::<_, SqliteFailed>(true)
        })();
        if !connection.is_autocommit() {
            // The cause is reported; a rollback that fails leaves nothing behind either.
            let _ = connection.execute_batch("ROLLBACK");
        }
        if took? {
            return Ok(());
        }
    }
}

/// The connection with which a file was claimed, bound to it.
pub(crate) fn bind(connection: Connection, claimant: Claimant<'_>) -> Result<Bound, OpenError> {
    // Whoever opens the file by a name that leads to another WAL must find the claim too. What does not get there now gets
    // there with the next checkpoint.
    connection
        .query_row("PRAGMA main.wal_checkpoint(PASSIVE)", [], |_| Ok(()))
        .doing("moving the WAL into the database")?;
    let bound = Bound::of(connection, claimant.holder.clone(), claimant.path)?;
    let mut claim = claimant.holder.claim();
    (claim.identity, claim.leaves_log) = (Some(bound.identity().clone()), false);
    drop(claim);
    Ok(bound)
}

fn in_use(path: &Path, held: &Held) -> OpenError {
    OpenError::InUse { path: path.to_owned(), by: Box::new(held.by.clone()) }
}

fn several_names(path: &Path, held: &Held) -> OpenError {
    OpenError::SeveralNames { path: path.to_owned(), by: Box::new(held.by.clone()) }
}

/// Writes this engine's name into the file. To be called in a write transaction.
fn take(connection: &Connection, holder: &Holder) -> Outcome<()> {
    let mut token = Token::default();
    getrandom::fill(&mut token).expect("the operating system gives random bytes");
    let commits: i64 = connection
        .query_row(
            "SELECT max(value) FROM main._entgldb_meta WHERE name = 'commits' AND typeof(value) = 'integer'",
            [],
            |row| row.get::<_, Option<i64>>(0),
        )
        .map(|commits| commits.map_or(1, |commits| commits.saturating_add(1)))
        .doing("reading who works on the database")?;
    holder::put(connection, TOKEN, token.as_slice())?;
    holder::put(connection, COMMITS, commits)?;
    holder::put(connection, HOLDER, holder.written()?)?;
    holder::remove(connection, &[CHALLENGE])?;
    let mut claim = holder.claim();
    (claim.token, claim.commits) = (token, commits);
    Ok(())
}

/// Asks the engine that the file names whether it is at work.
fn ask(connection: &Connection, held: &Held, stop: &AtomicBool) -> Outcome<Reaction> {
    connection.execute_batch("BEGIN IMMEDIATE").doing("beginning a transaction")?;
    let asked = holder::read(connection).and_then(|found| {
        let is_same = found.is_some_and(|found| found.token == held.token);
        if is_same {
            holder::put(connection, CHALLENGE, std::process::id())?;
            connection.execute_batch("COMMIT").doing("committing")?;
        }
        Ok(is_same)
    });
    if !connection.is_autocommit() {
        // The cause is reported; a rollback that fails leaves nothing behind either.
        let _ = connection.execute_batch("ROLLBACK");
    }
    if !asked? {
        return Ok(Reaction::Gone);
    }
    let since = Instant::now();
    loop {
        match holder::read(connection)? {
            Some(found) if found.token != held.token => return Ok(Reaction::Gone),
            // Only the engine that has the token raises the counter.
            Some(found) if found.commits != held.commits => return Ok(Reaction::AtWork),
            Some(_) if since.elapsed() > ANSWER_WAIT => return Ok(Reaction::Silent),
            Some(_) => {}
            None => return Ok(Reaction::Gone),
        }
        if stop.load(Ordering::Relaxed) {
            return Err(SqliteFailed::Stopped);
        }
        std::thread::sleep(ANSWER_LOOK);
    }
}
