//! `entgldb verify`: everything that can be checked, without changing anything. The node may run meanwhile.

use std::path::Path;

use console::style;
use entgldb::{Fault, Progress, Report, VerifyError};
use serde_json::json;

use crate::args::VerifyArguments;
use crate::failure::{Exit, Failure};
use crate::inspection;
use crate::output::{self, count, plain};
use crate::terminal::Terminal;

pub(crate) fn run(arguments: &VerifyArguments) -> Result<(), Failure> {
    let terminal = Terminal::new();
    let bar = terminal.bar("verifying", 0);
    let report = check(&arguments.place.database()?, |progress| {
        bar.set_length(progress.total.max(progress.done));
        bar.set_position(progress.done);
    });
    bar.finish_and_clear();
    let report = report?;
    if arguments.json {
        print_json(&report)?;
    } else {
        print(&report)?;
    }
    if report.is_clean() { Ok(()) } else { Err(Failure::shown(Exit::CheckFailed)) }
}

/// Verifies the store in a database.
pub(crate) fn check(database: &Path, mut on_progress: impl FnMut(Progress)) -> Result<Report, Failure> {
    entgldb::verify(database, &mut on_progress).map_err(|error| match error {
        VerifyError::NotAStore => inspection::never_synced(database),
        VerifyError::Open(error) => inspection::unusable(database, &error),
        VerifyError::Failed(failed) => inspection::unreadable(database, &failed),
        error => Failure::run(error, "run it with --json to see how far it came"),
    })
}

/// A line for each fault and note, and the counts as the last one.
fn print_json(report: &Report) -> Result<(), Failure> {
    for fault in &report.faults {
        output::json_line(&json!({ "fault": fault }))?;
    }
    for note in &report.notes {
        output::json_line(&json!({ "note": note }))?;
    }
    output::json_line(&json!({
        "clean": report.is_clean(), "faults": report.faults_total, "notes": report.notes_total,
        "logs": report.logs, "entries": report.entries, "signatures": report.signatures,
        "rows": report.rows, "table_rows": report.table_rows,
    }))?;
    Ok(())
}

fn print(report: &Report) -> Result<(), Failure> {
    for fault in &report.faults {
        output::line(format_args!("{} {}", style("fault").red().bold(), plain(&in_words(fault))))?;
    }
    and_more(report.faults_total, report.faults.len(), "fault")?;
    for note in &report.notes {
        output::line(format_args!("{}  {}", style("note").yellow(), plain(note)))?;
    }
    and_more(report.notes_total, report.notes.len(), "note")?;
    output::line(format_args!(
        "Checked {} in {}, {}, {} and {} of tables.",
        count(report.entries, "entry"),
        count(report.logs, "log"),
        count(report.signatures, "signature"),
        count(report.rows, "document"),
        count(report.table_rows, "row"),
    ))?;
    let verdict = match report.faults_total {
        0 => style("No fault.".to_owned()).green().bold(),
        faults => style(format!("{}.", count(faults, "fault"))).red().bold(),
    };
    output::line(verdict)?;
    Ok(())
}

fn and_more(total: u64, shown: usize, noun: &str) -> Result<(), Failure> {
    match total.saturating_sub(shown as u64) {
        0 => Ok(()),
        more => Ok(output::line(format_args!("... and {}", count(more, &format!("more {noun}"))))?),
    }
}

/// Where it is, and what is wrong.
fn in_words(fault: &Fault) -> String {
    let mut place = Vec::new();
    match (&fault.log, fault.seq) {
        (Some(log), Some(seq)) => place.push(format!("log {log}, entry {seq}")),
        (Some(log), None) => place.push(format!("log {log}")),
        (None, _) => {}
    }
    match (&fault.collection, &fault.key) {
        (Some(collection), Some(key)) => place.push(format!("{collection}/{key}")),
        (Some(collection), None) => place.push(collection.clone()),
        (None, _) => {}
    }
    if place.is_empty() { fault.what.clone() } else { format!("{}: {}", place.join(", "), fault.what) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_says_where_it_is_as_far_as_that_is_known() {
        let mut fault = Fault { what: "wrong hash".to_owned(), ..Fault::default() };
        assert_eq!(in_words(&fault), "wrong hash");
        fault.log = Some("a/1/items".to_owned());
        fault.seq = Some(7);
        assert_eq!(in_words(&fault), "log a/1/items, entry 7: wrong hash");
        fault.collection = Some("items".to_owned());
        fault.key = Some("k".to_owned());
        assert_eq!(in_words(&fault), "log a/1/items, entry 7, items/k: wrong hash");
    }
}
