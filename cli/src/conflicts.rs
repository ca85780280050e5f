//! `entgldb conflicts`: versions that lost against others made without knowledge of them. They are kept for a while, so
//! that nothing is ever silently gone.

use std::path::Path;

use console::style;
use entgldb::RestoreError;
use entgldb::inspect::ListedConflict;
use serde::Serialize;
use serde_json::Value;

use crate::args::{ConflictsAction, ConflictsArguments, ListArguments, RestoreArguments};
use crate::calendar::Calendar;
use crate::failure::Failure;
use crate::inspection;
use crate::output::{self, plain};
use crate::status::short;

/// A conflict as `--json` prints it.
#[derive(Debug, Serialize)]
pub(crate) struct Line {
    pub(crate) collection: String,
    pub(crate) key: String,
    /// The number of the losing version, for `restore`.
    pub(crate) version: u64,
    /// The version that stands.
    pub(crate) winner: Side,
    /// The version that is kept in the list.
    pub(crate) loser: Side,
    /// Whether it is certain. If not, a version is still to come that may show that one of the two replaced the other.
    pub(crate) certain: bool,
}

/// One of two versions.
#[derive(Debug, Serialize)]
pub(crate) struct Side {
    pub(crate) node: String,
    pub(crate) at_ms: u64,
    /// The row; `null` if it was deleted.
    pub(crate) content: Option<Value>,
}

/// What was restored, as `--json` prints it.
#[derive(Debug, Serialize)]
struct RestoredLine<'a> {
    collection: &'a str,
    key: &'a str,
    version: u64,
    /// Whether the version is a deletion: the row is gone again.
    is_deletion: bool,
}

pub(crate) fn run(arguments: &ConflictsArguments) -> Result<(), Failure> {
    match &arguments.action {
        None => show(&arguments.list),
        Some(ConflictsAction::Restore(restore)) => self::restore(&arguments.list.place.database()?, restore),
    }
}

fn show(arguments: &ListArguments) -> Result<(), Failure> {
    let lines = list(&arguments.place.database()?, arguments.limit)?;
    if arguments.json {
        return lines.iter().try_for_each(|line| Ok(output::json_line(line)?));
    }
    let calendar = Calendar::new();
    for line in &lines {
        let doubt = if line.certain { "" } else { "  (not certain until more has arrived)" };
        output::line(format_args!(
            "{}{doubt}",
            style(plain(&format!("{}/{}", line.collection, line.key))).bold()
        ))?;
        output::line(format_args!("  {} {}", style("stands").green(), in_words(&line.winner, &calendar)))?;
        let (lost, loser) = (style("lost").yellow(), in_words(&line.loser, &calendar));
        output::line(format_args!("  {lost}   {loser}  (version {})", line.version))?;
    }
    output::note(output::listed(lines.len(), "conflict", arguments.limit));
    Ok(())
}

fn restore(database: &Path, arguments: &RestoreArguments) -> Result<(), Failure> {
    let RestoreArguments { collection, key, version, json } = arguments;
    let restored = entgldb::restore(database, (collection, key), *version)
        .map_err(|error| not_restored(database, arguments, error))?;
    let (version, is_deletion) = (restored.version, restored.is_deletion);
    if *json {
        return Ok(output::json_line(&RestoredLine { collection, key, version, is_deletion })?);
    }
    let what = if is_deletion { "is deleted again" } else { "is as it was" };
    let document = format!("{collection}/{key}");
    output::line(format_args!("{} {what} in version {version}", style(plain(&document)).bold()))?;
    Ok(())
}

fn not_restored(database: &Path, arguments: &RestoreArguments, error: RestoreError) -> Failure {
    let (place, collection) = (database.display(), &arguments.collection);
    match error {
        RestoreError::NeverSynced { .. } => inspection::never_synced(database),
        RestoreError::NoVersion { .. } | RestoreError::NoSuchVersion { .. } => {
            Failure::start(error, format_args!("`entgldb conflicts {place}` lists what there is"))
        }
        RestoreError::Several { .. } => Failure::start(
            error,
            format_args!("look at them with `entgldb conflicts {place}` and name one with --version"),
        ),
        RestoreError::NoTable { .. } => Failure::start(
            error,
            format_args!("create the table {collection:?} again, or copy the content from the list"),
        ),
        RestoreError::Refused { .. } => {
            Failure::start(error, "make room for it in the table, then restore it again")
        }
        RestoreError::Open(error) => inspection::unusable(database, &error),
        RestoreError::Failed(failed) => inspection::unreadable(database, &failed),
        error => Failure::run(error, format_args!("`entgldb conflicts {place}` lists what there is")),
    }
}

/// The newest conflicts, at most `limit`.
pub(crate) fn list(database: &Path, limit: u32) -> Result<Vec<Line>, Failure> {
    let found = inspection::open(database)?.conflicts(limit as usize);
    let found = found.map_err(|error| inspection::unreadable(database, &error))?;
    Ok(found.iter().map(Line::of).collect())
}

impl Line {
    fn of(listed: &ListedConflict) -> Self {
        let conflict = &listed.conflict;
        let (winner, loser) = (&conflict.winner, &conflict.loser);
        Self {
            collection: conflict.doc.0.to_string(),
            key: conflict.doc.1.to_string(),
            version: listed.version,
            winner: Side {
                node: winner.stamp.node.to_string(),
                at_ms: winner.stamp.hlc.wall().0,
                content: winner.content.as_deref().map(output::document),
            },
            loser: Side {
                node: loser.stamp.node.to_string(),
                at_ms: loser.stamp.hlc.wall().0,
                content: loser.content.as_deref().map(output::document),
            },
            certain: conflict.missing.is_none(),
        }
    }
}

fn in_words(side: &Side, calendar: &Calendar) -> String {
    let content = match &side.content {
        Some(content) => plain(&content.to_string()).into_owned(),
        None => "deleted".to_owned(),
    };
    format!("{}  {}  {content}", calendar.local(side.at_ms), short(&side.node))
}
