//! Documents that are tried again: those that were set aside, and those for whose fields columns were added.

use std::sync::Arc;

use bytes::Bytes;
use entgldb_replica::id::Key;
use entgldb_replica::store::ProblemKind;

use crate::apply::applying::{Applying, Fate};
use crate::capture::{notes, rebuild};
use crate::failed::Outcome;
use crate::journal::aside::{self, Aside, Reason};
use crate::journal::commit::Stopped;
use crate::reading::proof::Verdict;
use crate::reading::standing::{Content, extra_of};
use crate::table::definition::Table;

impl Applying<'_> {
    /// Tries a document again that was set aside. Answers false if a local change that waits in the outbox comes first.
    pub(crate) fn retry(&mut self, no: i64, aside: &Aside) -> Result<bool, Stopped> {
        let Some(table) = self.watched.numbered(no).cloned() else { return Ok(true) };
        if let Ok(columns) = table.form.decode(aside.key.as_str())
            && notes::is_noted(self.step.connection, &table, &columns)?
        {
            return Ok(false);
        }
        self.prove(&table, &aside.key)?;
        if matches!(aside.reason, Reason::Collided { .. }) {
            self.colliding.entry(no).or_default().insert((aside.stamp, aside.key.clone()), aside.clone());
            return Ok(true);
        }
        match self.place(&table, &aside.key, aside.content.as_ref())? {
            Fate::Placed => {
                self.remember_place(&table, &aside.key, aside.content.clone());
                aside::remove(self.step.connection, no, &aside.key)?;
                self.step.problem(
                    &table.collection,
                    &aside.key,
                    ProblemKind::CameBack,
                    "the schema takes it now",
                );
                self.reconsider(no, &aside.key)?;
            }
            Fate::Collided => {
                self.remove_row(&table, &aside.key)?;
                let waiting = Aside { reason: Reason::Collided { blocker: None }, ..aside.clone() };
                self.colliding.entry(no).or_default().insert((aside.stamp, aside.key.clone()), waiting);
            }
            Fate::Refused(_) => {}
        }
        Ok(true)
    }

    /// Whether it is known by now what keeps one of these documents out.
    pub(crate) fn found_blocker(&self, no: i64, waiting: &[Aside]) -> Outcome<bool> {
        let is_blocked = |aside: &Aside| matches!(aside.reason, Reason::Collided { blocker: Some(_) });
        for aside in waiting.iter().filter(|aside| !is_blocked(aside)) {
            let now = aside::get(self.step.connection, self.step.names, no, &aside.key)?;
            if now.as_ref().is_some_and(is_blocked) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Applies a row's own document again, now that the table has a column for more of it. Answers false if a local change that
    /// waits in the outbox comes first.
    pub(crate) fn fill(&mut self, no: i64, key: &Key) -> Result<bool, Stopped> {
        let Some(table) = self.watched.numbered(no).cloned() else { return Ok(true) };
        let Ok(columns) = table.form.decode(key.as_str()) else { return Ok(true) };
        if extra_of(self.step.connection, no, key)?.is_none() {
            return Ok(true);
        }
        if notes::is_noted(self.step.connection, &table, &columns)? {
            return Ok(false);
        }
        self.prove(&table, key)?;
        let Some(content) = self.content_now(&table, key)? else { return Ok(true) };
        let content = Bytes::from(content);
        if matches!(self.place(&table, key, Some(&content))?, Fate::Placed) {
            self.remember_place(&table, key, Some(content));
            self.reconsider(no, key)?;
        }
        Ok(true)
    }

    /// Brings the version that stands into its place again, where the table was filled from an older copy.
    pub(crate) fn place_again(&mut self, table: &Arc<Table>, key: &Key) -> Result<(), Stopped> {
        if !matches!(self.judge(table, key)?, Verdict::OldCopy | Verdict::Gone) {
            return Ok(());
        }
        let content = match self.standing_outside(table, key)? {
            Some((row, Content::Is(content))) => Some((row, content)),
            Some((row, Content::Moved)) => match row.content {
                Some(hash) => rebuild::remembered(self.step.connection, table.no, key, hash)?
                    .map(|content| (row, Some(content))),
                None => None,
            },
            None => None,
        };
        let Some((row, content)) = content else { return Ok(()) };
        let (stamp, reason) = (row.stamp, Reason::Collided { blocker: None });
        match self.place(table, key, content.as_ref())? {
            Fate::Placed => {
                self.remember_place(table, key, content);
                aside::remove(self.step.connection, table.no, key)?;
                self.reconsider(table.no, key)?;
            }
            Fate::Collided => {
                self.remove_row(table, key)?;
                let waiting = Aside { key: key.clone(), stamp, content, reason };
                self.colliding.entry(table.no).or_default().insert((stamp, key.clone()), waiting);
            }
            Fate::Refused(_) => {}
        }
        Ok(())
    }
}
