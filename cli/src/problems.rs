//! `entgldb problems`: rows that the application's table does not take, and local changes that can't be synced; then the
//! peers that are blocked. The rows are set aside and tried again; nothing else waits for them.

use std::path::Path;

use console::style;
use entgldb::inspect::ListedProblem;
use entgldb::{BlockedHealth, listed_problem_kind, read_status};
use serde::Serialize;
use serde_json::{Value, json};

use crate::args::ListArguments;
use crate::calendar::Calendar;
use crate::failure::Failure;
use crate::inspection;
use crate::output::{self, plain};
use crate::status::blocked_in_words;

/// A problem as `--json` prints it.
#[derive(Serialize)]
struct Line {
    collection: String,
    key: String,
    kind: &'static str,
    message: String,
    noted_ms: u64,
    /// The row that is set aside; `null` for a change that can't be synced.
    content: Option<Value>,
}

pub(crate) fn run(arguments: &ListArguments) -> Result<(), Failure> {
    let database = &arguments.place.database()?;
    let found = inspection::open(database)?.problems(arguments.limit as usize);
    let found = found.map_err(|error| inspection::unreadable(database, &error))?;
    let lines: Vec<Line> = found.iter().map(Line::of).collect();
    let blocked = blocked(&arguments.place.data_dir());
    if arguments.json {
        lines.iter().try_for_each(output::json_line)?;
        return blocked.iter().try_for_each(|blocked| Ok(output::json_line(&json!({ "blocked": blocked }))?));
    }
    for blocked in &blocked {
        output::line(format_args!("blocked: {}", blocked_in_words(blocked)))?;
    }
    let calendar = Calendar::new();
    for line in &lines {
        let document = document(&line.collection, &line.key);
        output::line(format_args!("{}  {}", style(plain(&document)).bold(), in_words(line.kind)))?;
        output::line(format_args!("  {}  {}", calendar.local(line.noted_ms), plain(&line.message)))?;
        if let Some(content) = &line.content {
            output::line(format_args!("  {}", plain(&content.to_string())))?;
        }
    }
    output::note(output::listed(lines.len(), "problem", arguments.limit));
    Ok(())
}

/// Peers of the node that runs on this database with which nothing gets past a fault. None if no node runs with that data
/// folder.
fn blocked(data_dir: &Path) -> Vec<BlockedHealth> {
    // That no node runs is no problem of the database's.
    read_status(data_dir).map(|status| status.blocked).unwrap_or_default()
}

impl Line {
    fn of(problem: &ListedProblem) -> Self {
        let content = problem.version.as_ref().and_then(|(_, content)| content.as_deref());
        Self {
            collection: problem.collection.to_string(),
            key: problem.key.clone(),
            kind: listed_problem_kind(problem),
            message: problem.message.clone(),
            noted_ms: problem.noted.0,
            content: content.map(output::document),
        }
    }
}

/// What a problem is about: a document, or a whole table.
pub(crate) fn document(collection: &str, key: &str) -> String {
    if key.is_empty() { collection.to_owned() } else { format!("{collection}/{key}") }
}

/// A kind of problem as people would say it.
pub(crate) fn in_words(kind: &str) -> &str {
    match kind {
        "not_captured" => "a change can't be synced",
        "set_aside" => "this database does not take the row; it is set aside and tried again",
        "collided" => "the row collides with a younger one and is set aside",
        "came_back" => "a row that was set aside is back",
        "schema" => "the table's schema",
        "table" => "a table is not synced now, or not as a whole",
        "dangling" => "a row refers to one that is gone",
        other => other,
    }
}
