//! Documents that are tried again: those that were set aside, and those for whose fields columns were added.

use bytes::Bytes;
use entgldb_replica::id::Key;
use entgldb_replica::store::ProblemKind;

use crate::apply::applying::{Applying, Fate};
use crate::capture::notes;
use crate::capture::outbox::extra_of;
use crate::journal::aside::{self, Aside, Reason};
use crate::journal::commit::Stopped;

impl Applying<'_> {
    /// Tries a document again that was set aside. A local change that waits in the outbox comes first.
    pub(crate) fn retry(&mut self, no: i64, aside: &Aside) -> Result<(), Stopped> {
        let Some(table) = self.watched.numbered(no).cloned() else { return Ok(()) };
        if let Ok(columns) = table.form.decode(aside.key.as_str())
            && notes::is_noted(self.step.connection, &table, &columns)?
        {
            return Ok(());
        }
        if matches!(aside.reason, Reason::Collided { .. }) {
            self.colliding.entry(no).or_default().insert((aside.stamp, aside.key.clone()), aside.clone());
            return Ok(());
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
            }
            Fate::Collided => {
                self.remove_row(&table, &aside.key)?;
                let waiting = Aside { reason: Reason::Collided { blocker: None }, ..aside.clone() };
                self.colliding.entry(no).or_default().insert((aside.stamp, aside.key.clone()), waiting);
            }
            Fate::Refused(_) => {}
        }
        Ok(())
    }

    /// Applies a row's own document again, now that the table has a column for more of it.
    pub(crate) fn fill(&mut self, no: i64, key: &Key) -> Result<(), Stopped> {
        let Some(table) = self.watched.numbered(no).cloned() else { return Ok(()) };
        let Ok(columns) = table.form.decode(key.as_str()) else { return Ok(()) };
        if notes::is_noted(self.step.connection, &table, &columns)?
            || extra_of(self.step.connection, no, key)?.is_none()
        {
            return Ok(());
        }
        let Some(content) = self.content_now(&table, key)? else { return Ok(()) };
        let content = Bytes::from(content);
        if matches!(self.place(&table, key, Some(&content))?, Fate::Placed) {
            self.remember_place(&table, key, Some(content));
        }
        Ok(())
    }
}
