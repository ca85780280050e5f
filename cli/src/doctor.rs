//! `entgldb doctor`: a database looked over before its first sync.

use std::collections::BTreeSet;

use console::style;
use entgldb::doctor::{Diagnosis, DoctorOptions, Finding, TableDiagnosis, TableKind, Weight};
use entgldb::{Config, RepairError, Repaired, node_runs};
use serde::Serialize;

use crate::args::DoctorArguments;
use crate::failure::{Exit, Failure};
use crate::inspection;
use crate::output::{self, count, plain, size_of_bytes};
use crate::terminal::Terminal;

/// What `--json` prints.
#[derive(Serialize)]
struct Object<'a> {
    #[serde(flatten)]
    diagnosis: &'a Diagnosis,
    /// Whether a process runs the node of this database now.
    node_runs: bool,
    /// What `--repair` did.
    #[serde(skip_serializing_if = "Option::is_none")]
    repaired: Option<Mended<'a>>,
}

/// What was repaired, as `--json` prints it.
#[derive(Serialize)]
struct Mended<'a> {
    damage: &'a [String],
    from_scratch: bool,
    tables: &'a [String],
}

impl<'a> Mended<'a> {
    fn of(repaired: &'a Repaired) -> Self {
        let Repaired { damage, from_scratch, tables, .. } = repaired;
        Self { damage, from_scratch: *from_scratch, tables }
    }
}

pub(crate) fn run(arguments: &DoctorArguments) -> Result<(), Failure> {
    let database = &arguments.place.database;
    let repaired = if arguments.repair { Some(repair(arguments)?) } else { None };
    let payload_bytes_max = Config::new(database, "").payload_bytes_max;
    let options = DoctorOptions { watch: arguments.watch.clone(), payload_bytes_max };
    let bar = Terminal::new().bar("looking at tables", 0);
    let found = entgldb::doctor(database, &options, &mut |_, number, of| {
        bar.set_length(of as u64);
        bar.set_position(number as u64);
    });
    bar.finish_and_clear();
    let diagnosis = found.map_err(|error| inspection::unusable(database, &error))?;
    let held_by = diagnosis.engine.as_ref().and_then(|engine| engine.data_dir.as_deref());
    let node_runs = node_runs(&arguments.place.data_dir()) || held_by.is_some_and(node_runs);
    if arguments.json {
        output::json_line(&Object {
            diagnosis: &diagnosis,
            node_runs,
            repaired: repaired.as_ref().map(Mended::of),
        })?;
    } else {
        if let Some(repaired) = &repaired {
            print_repaired(repaired)?;
        }
        print(&diagnosis, node_runs)?;
    }
    if diagnosis.ready { Ok(()) } else { Err(Failure::shown(Exit::CheckFailed)) }
}

fn repair(arguments: &DoctorArguments) -> Result<Repaired, Failure> {
    let (database, data_dir) = (&arguments.place.database, arguments.place.data_dir());
    if node_runs(&data_dir) {
        return Err(Failure::start(
            format_args!("the node of {} runs", database.display()),
            "stop it (Ctrl-C or SIGTERM), then repair",
        ));
    }
    entgldb::repair(database).map_err(|error| match error {
        RepairError::NeverSynced { .. } => inspection::never_synced(database),
        RepairError::OwnFile { .. } => Failure::start(error, "name the database that your program uses"),
        RepairError::Open(error) => inspection::unusable(database, &error),
        RepairError::Failed(failed) => inspection::unreadable(database, &failed),
        error => Failure::run(error, "repair it again: what was done stays"),
    })
}

fn print_repaired(repaired: &Repaired) -> Result<(), Failure> {
    for damage in &repaired.damage {
        output::line(format_args!("{}  {}", style("damage").yellow(), plain(damage)))?;
    }
    let done = if repaired.damage.is_empty() {
        "Nothing was damaged.".to_owned()
    } else if repaired.from_scratch {
        "Repaired: the engine's tables were made again; history comes back from the other members.".to_owned()
    } else {
        format!("Repaired: {} made again.", count(repaired.tables.len() as u64, "table"))
    };
    Ok(output::line(style(done).green())?)
}

fn print(found: &Diagnosis, node_runs: bool) -> Result<(), Failure> {
    let file = &found.file;
    output::line(format_args!("{}  {}", style(found.database.display()).bold(), file_in_words(found)))?;
    if let Some(engine) = &found.engine {
        let node = engine.node.as_deref().map_or("an unknown node".to_owned(), |node| format!("node {node}"));
        let pending = engine.pending.map(|pending| format!(", {} to capture", count(pending, "write")));
        let runs = if node_runs { "which runs now" } else { "which does not run" };
        output::line(format_args!("  synced by {node}, {runs}{}", pending.unwrap_or_default()))?;
    } else if file.in_use {
        output::line("  another program has it open, or left a journal when it ended")?;
    }
    let mut advised = BTreeSet::new();
    for finding in &found.findings {
        print_finding("  ", finding, &mut advised)?;
    }
    let width = found.tables.iter().map(|table| plain(&table.name).chars().count()).max().unwrap_or(0);
    let (asked, others): (Vec<_>, Vec<_>) = found.tables.iter().partition(|table| table.asked);
    for table in &asked {
        print_table(table, width, &mut advised)?;
    }
    for table in others.iter().filter(|table| table.kind == TableKind::Table) {
        output::line(format_args!("{}  {}", style("not named").dim(), plain(&table.name)))?;
    }
    for table in others.iter().filter(|table| table.kind != TableKind::Table) {
        let what = if table.kind == TableKind::View { "a view" } else { "part of a virtual table" };
        output::line(format_args!("{}  {} ({what})", style("not synced").dim(), plain(&table.name)))?;
    }
    output::line(verdict(found, &asked))?;
    Ok(())
}

fn file_in_words(found: &Diagnosis) -> String {
    let file = &found.file;
    let mut text = format!(
        "{}, journal mode {}, {}, pages of {}",
        size_of_bytes(file.bytes),
        file.journal_mode,
        file.encoding,
        size_of_bytes(file.page_bytes)
    );
    if let Some(free) = file.free_bytes {
        text = format!("{text}, {} free on its disk", size_of_bytes(free));
    }
    format!("{text} (SQLite {})", file.sqlite)
}

fn print_table(table: &TableDiagnosis, width: usize, advised: &mut BTreeSet<String>) -> Result<(), Failure> {
    let worst = table.findings.iter().map(|finding| finding.weight).max();
    let mark = match worst {
        Some(Weight::Blocks) => style("no  ").red().bold(),
        Some(Weight::Warning) => style("yes!").yellow().bold(),
        _ => style("yes ").green().bold(),
    };
    let mut facts = Vec::new();
    facts.extend(table.rows.map(|rows| count(rows, "row")));
    if !table.key.is_empty() {
        facts.push(format!("key {}", plain(&table.key.join(", "))));
    }
    if table.watched {
        facts.push("watched".to_owned());
    }
    output::line(format_args!("{mark} {:width$}  {}", plain(&table.name), facts.join(", ")))?;
    table.findings.iter().try_for_each(|finding| print_finding("       ", finding, advised))
}

/// The same advice is given once.
fn print_finding(indent: &str, finding: &Finding, advised: &mut BTreeSet<String>) -> Result<(), Failure> {
    let mark = match finding.weight {
        Weight::Blocks => style("x").red().bold(),
        Weight::Warning => style("!").yellow().bold(),
        Weight::Advice => style("-").dim(),
    };
    output::line(format_args!("{indent}{mark} {}", plain(&finding.what)))?;
    if advised.insert(finding.advice.clone()) {
        output::line(format_args!("{indent}  {} {}", style("try:").cyan(), plain(&finding.advice)))?;
    }
    Ok(())
}

fn verdict(found: &Diagnosis, asked: &[&TableDiagnosis]) -> String {
    let watchable = asked.iter().filter(|table| table.watchable).count();
    let tables = format!("{watchable} of {} can be synced.", count(asked.len() as u64, "table"));
    if found.ready {
        style(tables).green().bold().to_string()
    } else {
        style(tables).red().bold().to_string()
    }
}
