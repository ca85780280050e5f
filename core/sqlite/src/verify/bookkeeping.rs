//! Verifying what is neither a document nor an entry: the engine's own tables and triggers, and its clock.

use std::time::{SystemTime, UNIX_EPOCH};

use entgldb_replica::clock::Hlc;

use crate::capture::triggers::{self, Installed};
use crate::failed::{Outcome, While};
use crate::file::error::FORMAT;
use crate::journal::note;
use crate::journal::schema;
use crate::table::definition::Table;
use crate::verify::{Check, Fault};

/// How far the clock may be ahead of all entries and of this machine's time, in milliseconds: a machine's time may have
/// been set back since.
const AHEAD_MAX_MS: u64 = 24 * 3_600_000;

impl Check<'_> {
    /// The engine's tables are made as this version makes them.
    pub(crate) fn engine_tables(&mut self) -> Outcome<()> {
        let (wanted, found) = (schema::wanted()?, schema::definitions(self.connection())?);
        for (name, sql) in &wanted {
            if !found.contains(&(name.clone(), sql.clone())) {
                self.bookkeeping_fault(format!("the engine's table {name} is not as the engine makes it"));
            }
        }
        Ok(())
    }

    /// The engine's state has the names that this version gives its values, and the format.
    pub(crate) fn state(&mut self) -> Outcome<()> {
        if schema::get::<i64>(self.connection(), "format")? != Some(FORMAT) {
            self.bookkeeping_fault("the engine's tables do not say their format".to_owned());
        }
        let mut statement = self
            .inspector
            .connection
            .prepare("SELECT name FROM _entgldb_meta")
            .doing("reading the engine's state")?;
        let names = statement.query_map([], |row| row.get::<_, String>(0));
        let names: Vec<String> = names.and_then(Iterator::collect).doing("reading the engine's state")?;
        drop(statement);
        for name in names.iter().filter(|name| !schema::NAMES.contains(&name.as_str())) {
            self.bookkeeping_fault(format!("the engine's state has a value {name:?} that no engine writes"));
        }
        Ok(())
    }

    /// What the replica has noted for itself is as it was written.
    pub(crate) fn notes(&mut self) -> Outcome<()> {
        if !schema::forgets(self.connection())? {
            return Ok(());
        }
        for note in note::all(self.connection())?.into_iter().filter(|note| !note.is_sound) {
            self.bookkeeping_fault(format!("the engine's note {:?} was altered", note.name));
        }
        if self.is_joining {
            self.report.note(
                "a snapshot is coming in: its rows are here before their history counts as held".into(),
            );
        }
        Ok(())
    }

    /// The clock is not behind any entry, nor ahead of all of them and of the time.
    pub(crate) fn clock(&mut self) -> Outcome<()> {
        let clock: Option<i64> = schema::get(self.connection(), "clock")?;
        let clock = Hlc(clock.unwrap_or_default().cast_unsigned());
        let latest = self.names.logs.values().map(|end| end.hlc).max().unwrap_or_default();
        if clock < latest {
            self.bookkeeping_fault("the clock is behind an entry's time".to_owned());
        }
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
        let known = latest.wall().0.max(u64::try_from(now).unwrap_or(u64::MAX));
        if clock.wall().0 > known.saturating_add(AHEAD_MAX_MS) {
            self.bookkeeping_fault("the clock is ahead of every entry and of the time".to_owned());
        }
        Ok(())
    }

    /// The triggers note every change.
    pub(crate) fn triggers(&mut self, table: &Table) -> Outcome<()> {
        let what = match triggers::check(self.connection(), table)? {
            Installed::Unchanged => return Ok(()),
            Installed::Renewed => {
                self.report.note(format!(
                    "the triggers of {:?} will be renewed at the next start",
                    table.collection
                ));
                return Ok(());
            }
            Installed::Displacing => {
                self.report.note(format!(
                    "the triggers of {:?} do not note all rows that unique indexes displace: at the next start they will \
                     be made again, and such rows are looked for",
                    table.collection
                ));
                return Ok(());
            }
            Installed::Anew => {
                "the table's triggers are not as the engine makes them: changes may have gone unnoticed until \
                                the next start, which looks the whole table through"
            }
        };
        self.report.fault(Fault {
            collection: Some(table.collection.as_str().to_owned()),
            what: what.to_owned(),
            ..Fault::default()
        });
        Ok(())
    }

    fn bookkeeping_fault(&mut self, what: String) {
        self.report.fault(Fault { what, ..Fault::default() });
    }
}
