//! `entgldb status`: how a node is doing, from the file that it keeps up to date.

use std::time::{SystemTime, UNIX_EPOCH};

use console::style;
use entgldb::{
    BlockedHealth, PeerHealth, Retention, State, Status, StatusError, TableState, TableStatus, TargetHealth,
    read_status,
};

use crate::args::StatusArguments;
use crate::failure::{Exit, Failure};
use crate::output::{self, count, plain, size_of_bytes, span_of_ms, thousands};

const SHORT_ID: usize = 8;

pub(crate) fn run(arguments: &StatusArguments) -> Result<(), Failure> {
    let status = read(&arguments.place.data_dir())?;
    if arguments.json {
        output::json_line(&status)?;
    } else {
        print(&status)?;
    }
    match status.state {
        State::Running => Ok(()),
        State::Recovering | State::Failed | State::Stopped => Err(Failure::shown(Exit::CheckFailed)),
    }
}

/// What the node reported last.
pub(crate) fn read(data_dir: &std::path::Path) -> Result<Status, Failure> {
    read_status(data_dir).map_err(|error| match error {
        StatusError::NeverRan { .. } => Failure::start(
            format_args!("no node has run with the data folder {}", data_dir.display()),
            "start one with `entgldb sync`, or name the right database or --data-dir",
        ),
        error => {
            Failure::start(error, "it is written anew as soon as the node runs: start it with `entgldb sync`")
        }
    })
}

fn print(status: &Status) -> Result<(), Failure> {
    let row = |label: &str, value: &str| {
        output::line(format_args!("{} {value}", style(format!("{label:10}")).dim()))
    };
    row("node", &format!("{}  {}", style(&status.name).bold(), status.node))?;
    row("state", &state_in_words(status))?;
    row("database", &format!("{} ({})", status.database.display(), size_of_bytes(status.database_bytes)))?;
    row("tables", &status.collections.join(", "))?;
    for table in status.tables.iter().filter(|table| table.state != TableState::Synced) {
        row("table", &table_in_words(table))?;
    }
    if !is_over(status) {
        row("listens", status.listen.as_deref().unwrap_or("no"))?;
    }
    row("history", &format!("{} in {}", count(status.entries, "entry"), count(status.logs, "log")))?;
    row("kept", &kept_in_words(status))?;
    if let Some(snapshot) = status.snapshot.as_ref().filter(|_| !is_over(status)) {
        let rows = count(snapshot.rows, "row");
        row("snapshot", &format!("of {} is coming in: {rows} so far", snapshot.collection))?;
    }
    row(if is_over(status) { "last run" } else { "this run" }, &run_in_words(status))?;
    if let Some(error) = &status.last_error {
        row("last error", &style(error).yellow().to_string())?;
    }
    if status.problems > 0 {
        row(
            "problems",
            &style(format!("{}; see entgldb problems", count(status.problems, "problem")))
                .yellow()
                .to_string(),
        )?;
    }
    for peer in &status.peers {
        row("peer", &peer_in_words(peer, is_capturing(status)))?;
    }
    for blocked in &status.blocked {
        row("blocked", &blocked_in_words(blocked))?;
    }
    for target in status.targets.iter().filter(|target| !target.linked && !is_over(status)) {
        row("peer", &target_in_words(target))?;
    }
    Ok(())
}

fn is_over(status: &Status) -> bool {
    status.state == State::Stopped
}

fn state_in_words(status: &Status) -> String {
    match status.state {
        State::Running if status.backlog => {
            format!("{}, capturing (process {})", style("running").green(), status.pid)
        }
        State::Running => format!("{} (process {})", style("running").green(), status.pid),
        State::Recovering => {
            format!("{} (process {})", style("opening the database again").yellow(), status.pid)
        }
        State::Failed => style("failed").red().to_string(),
        State::Stopped => format!("{} for about {}", style("stopped").red(), age(status.at_ms)),
    }
}

/// How long history is kept, and how much of it went.
fn kept_in_words(status: &Status) -> String {
    let kept = match status.retention_hours {
        Retention::Forever => "for ever".to_owned(),
        Retention::Milliseconds(ms) => format!("{} after all members hold it", span_of_ms(ms)),
    };
    match status.forgotten {
        0 => kept,
        forgotten => format!("{kept}; {} forgotten", count(forgotten, "entry")),
    }
}

fn run_in_words(status: &Status) -> String {
    let traffic = &status.traffic;
    let mut text = format!("{} captured, {} applied", thousands(status.captured), thousands(status.applied));
    if status.conflicts > 0 {
        text = format!("{text}, {}", style(count(status.conflicts, "conflict")).yellow());
    }
    format!(
        "{text}, {} in, {} out",
        size_of_bytes(traffic.wire_bytes_in),
        size_of_bytes(traffic.wire_bytes_out)
    )
}

/// Whether rows that are in the tables are still to be captured: nothing is in sync before.
pub(crate) fn is_capturing(status: &Status) -> bool {
    status.backlog || status.tables.iter().any(|table| table.state == TableState::LookingThrough)
}

fn table_in_words(table: &TableStatus) -> String {
    let name = style(plain(&table.name)).bold();
    match table.state {
        TableState::Synced => format!("{name}  synced"),
        TableState::LookingThrough => {
            let of = table.rows_looked_through + table.rows_to_look_through;
            format!(
                "{name}  looking through: {} of {}",
                thousands(table.rows_looked_through),
                count(of, "row")
            )
        }
        TableState::Waiting => {
            format!("{name}  {}", style(plain(table.reason.as_deref().unwrap_or("waiting"))).yellow())
        }
    }
}

/// A linked peer in a few words.
pub(crate) fn peer_in_words(peer: &PeerHealth, is_capturing: bool) -> String {
    let state = match (peer.behind, peer.ahead) {
        _ if peer.collections.as_ref().is_some_and(Vec::is_empty) => {
            style("shares no table").yellow().to_string()
        }
        (0, 0) if is_capturing => style("rows are still to be captured").yellow().to_string(),
        (0, 0) => style("in sync").green().to_string(),
        (0, ahead) => format!("{} to send", count(ahead, "entry")),
        (behind, 0) => format!("{} to receive", count(behind, "entry")),
        (behind, ahead) => format!("{} to receive, {} to send", count(behind, "entry"), thousands(ahead)),
    };
    let mut text = format!("{} ({})  linked, {state}", style(&peer.name).bold(), short(&peer.node));
    if let Some(at_ms) = peer.in_sync_ms.filter(|_| peer.behind + peer.ahead > 0) {
        text = format!("{text}, in sync {} ago", age(at_ms));
    }
    if peer.skew_ms.unsigned_abs() >= 1_000 {
        text = format!("{text}, its clock is {} off", span_of_ms(peer.skew_ms.unsigned_abs()));
    }
    if peer.waiting_logs > 0 {
        let refused = format!("it refuses {}", count(peer.waiting_logs, "log"));
        text = format!("{text}, {}", style(refused).red());
    }
    text
}

/// A peer with which nothing gets past a fault, in a few words.
pub(crate) fn blocked_in_words(blocked: &BlockedHealth) -> String {
    let at = blocked.entry.as_ref().map_or(String::new(), |entry| format!(" at {}", plain(entry)));
    let what = match blocked.ends {
        0 => "linked, but not all gets through for".to_owned(),
        ends => format!("{ends} links ended{at} in"),
    };
    format!(
        "{} ({})  {what} {}: {}",
        style(plain(&blocked.name)).bold(),
        short(&blocked.node),
        age(blocked.since_ms),
        style(plain(&blocked.reason)).red()
    )
}

/// An address that leads to no link now, in a few words.
pub(crate) fn target_in_words(target: &TargetHealth) -> String {
    let reason = target.error.as_deref().unwrap_or("not linked yet");
    format!("{}  {}", style(&target.target).bold(), style(reason).yellow())
}

/// The begin of an identity, enough for people.
pub(crate) fn short(node: &str) -> &str {
    node.get(..SHORT_ID).unwrap_or(node)
}

fn age(at_ms: u64) -> String {
    let now_ms = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
    span_of_ms(u64::try_from(now_ms).unwrap_or(u64::MAX).saturating_sub(at_ms))
}
