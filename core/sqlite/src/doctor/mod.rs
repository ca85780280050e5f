//! Looking a database over before it is synced: which tables can be watched, which can't and why, and what of the file, the
//! disk and the clock will be in the way. Reads only, and leaves nothing behind, not even an empty `-wal`.

mod engine;
mod file;
mod finding;
mod rows;
mod table;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use entgldb_replica::limits::INTEREST_MAX;
use serde::Serialize;

use crate::file::error::OpenError;
use crate::file::quiet::{self, Quiet};
use crate::table::key::encoding;
pub use engine::EngineFacts;
pub use file::FileFacts;
use finding::any_blocks;
pub use finding::{Finding, Weight};
use table::Asked;
pub use table::{TableDiagnosis, TableKind};

/// What a database is looked over for.
#[derive(Clone, Debug)]
pub struct DoctorOptions {
    /// The tables that are to be synced. If none is named, all ordinary tables are asked about.
    pub watch: Vec<String>,
    /// Largest document, in bytes.
    pub payload_bytes_max: usize,
}

/// What was found in a database.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Diagnosis {
    /// The file.
    pub database: PathBuf,
    /// Whether nothing keeps any of the tables that were asked about from being synced.
    pub ready: bool,
    /// Facts about the file.
    pub file: FileFacts,
    /// What the engine's tables say, if the database was synced before.
    pub engine: Option<EngineFacts>,
    /// What there is to say of the database as a whole.
    pub findings: Vec<Finding>,
    /// The tables, ordered by name.
    pub tables: Vec<TableDiagnosis>,
}

/// Looks a database over. `on_table` is called before each table, with its name, which one it is, and how many there are.
///
/// # Errors
/// When there is no such file, it is no SQLite database, or it can't be read.
pub fn doctor(
    path: &Path,
    options: &DoctorOptions,
    on_table: &mut dyn FnMut(&str, usize, usize),
) -> Result<Diagnosis, OpenError> {
    quiet::read(path, |quiet| look(path, quiet, options, on_table))
}

fn look(
    path: &Path,
    quiet: &Quiet,
    options: &DoctorOptions,
    on_table: &mut dyn FnMut(&str, usize, usize),
) -> Result<Diagnosis, OpenError> {
    let connection = &quiet.connection;
    let facts = file::facts(path, quiet)?;
    let engine = engine::look(connection)?;
    let mut findings = file::findings(path, &facts, engine.is_some());
    let engine = engine.map(|(facts, of_engine)| {
        findings.extend(of_engine);
        facts
    });
    let watched = engine::watched(connection)?;
    let names = table::names(connection)?;
    let asked = Asked {
        watch: &options.watch,
        payload_bytes_max: options.payload_bytes_max,
        encoding: encoding(connection)?,
        watched: &watched,
    };
    let mut tables = Vec::new();
    for (number, (name, kind)) in names.iter().enumerate() {
        on_table(name, number, names.len());
        tables.push(table::look(connection, (name, *kind), &asked)?);
    }
    for name in &options.watch {
        if !names.iter().any(|(there_is, _)| there_is.eq_ignore_ascii_case(name)) {
            tables.push(table::missing(name, &names));
        }
    }
    findings.extend(together(&tables, options));
    findings.sort_by_key(|finding| std::cmp::Reverse(finding.weight));
    let ready = !any_blocks(&findings) && tables.iter().all(|table| table.watchable || !table.asked);
    Ok(Diagnosis { database: path.to_owned(), ready, file: facts, engine, findings, tables })
}

/// What there is to say of the tables together.
fn together(tables: &[TableDiagnosis], options: &DoctorOptions) -> Vec<Finding> {
    let mut found = Vec::new();
    let asked = tables.iter().filter(|table| table.asked && table.watchable).count();
    if asked > INTEREST_MAX {
        let what = format!("{asked} tables could be watched; the limit INTEREST_MAX allows {INTEREST_MAX}");
        let advice = "name those that are to be synced with --watch";
        found.push(if options.watch.is_empty() {
            Finding::warning("too_many_tables", what, advice)
        } else {
            Finding::blocks("too_many_tables", what, advice)
        });
    }
    if tables.iter().all(|table| table.kind != TableKind::Table) {
        found.push(Finding::blocks(
            "no_tables",
            "it has no tables",
            "let the application create its tables first",
        ));
    }
    let mut spellings: BTreeMap<String, Vec<&str>> = BTreeMap::new();
    for table in tables.iter().filter(|table| table.kind == TableKind::Table) {
        spellings.entry(table.name.to_lowercase()).or_default().push(&table.name);
    }
    for names in spellings.values().filter(|names| names.len() > 1) {
        found.push(Finding::advice(
            "case_differs",
            format!("tables whose names differ only in case: {}", names.join(", ")),
            "they are different collections; other kinds of database may take them for one",
        ));
    }
    found
}
