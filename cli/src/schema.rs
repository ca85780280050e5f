//! `entgldb schema`: what documents call the columns of the synced tables, and what other members have that this node lacks.

use std::path::Path;

use console::style;
use entgldb::inspect::{FieldInfo, LackingField, TableFields};
use entgldb::{AliasError, register_alias};
use serde::Serialize;
use serde_json::{Value, json};

use crate::args::{Alias, SchemaArguments};
use crate::failure::Failure;
use crate::inspection;
use crate::output::{self, plain};

/// A table as `--json` prints it.
#[derive(Serialize)]
struct Line {
    table: String,
    /// What it is called here, if it was renamed.
    renamed_to: Option<String>,
    fields: Vec<FieldLine>,
    /// What members or their rows have and this node's table lacks.
    lacking: Vec<LackingLine>,
}

#[derive(Serialize)]
struct FieldLine {
    field: String,
    /// `null` if the column was dropped here.
    column: Option<String>,
    declared: String,
    aliases: Vec<String>,
    /// The value for rows that do not have the field, where a migration filled it in.
    fill: Option<Value>,
}

#[derive(Serialize)]
struct LackingLine {
    field: String,
    declared: Option<String>,
    members: Vec<String>,
    rows: u64,
}

pub(crate) fn run(arguments: &SchemaArguments) -> Result<(), Failure> {
    let database = &arguments.place.database()?;
    if let Some(alias) = &arguments.alias {
        return register(arguments, database, alias);
    }
    let tables = inspection::open(database)?.fields();
    let tables = tables.map_err(|error| inspection::unreadable(database, &error))?;
    let lines: Vec<Line> = tables.into_iter().map(Line::of).collect();
    if arguments.json {
        return lines.iter().try_for_each(|line| Ok(output::json_line(line)?));
    }
    for line in &lines {
        line.print()?;
    }
    if lines.is_empty() {
        output::note(format_args!(
            "no table of {} has been synced with this version yet",
            database.display()
        ));
    }
    Ok(())
}

fn register(arguments: &SchemaArguments, database: &Path, alias: &Alias) -> Result<(), Failure> {
    let Alias { table, old, new } = alias;
    register_alias(database, table, old, new).map_err(|error| match &error {
        AliasError::NeverSynced { .. } => inspection::never_synced(database),
        AliasError::Open(error) => inspection::unusable(database, error),
        AliasError::Failed(failed) => inspection::unreadable(database, failed),
        _ => Failure::start(&error, "`entgldb schema DB` shows the tables, their columns and fields"),
    })?;
    if arguments.json {
        output::json_line(&json!({ "table": table, "old": old, "column": new }))?;
    } else if old.eq_ignore_ascii_case(new) {
        output::note(format_args!("{table}.{new} is a column of its own."));
    } else {
        output::note(format_args!(
            "{table}.{new} is the column that was called {old}; other nodes hear of it when this node is connected."
        ));
    }
    Ok(())
}

impl Line {
    fn of(table: TableFields) -> Self {
        let field = |field: FieldInfo| FieldLine {
            field: field.field,
            column: field.column,
            declared: field.declared,
            aliases: field.aliases,
            fill: field.fill.map(|fill| output::document(fill.as_bytes())),
        };
        let lacking = |lacking: LackingField| LackingLine {
            field: lacking.field,
            declared: lacking.declared,
            members: lacking.members,
            rows: lacking.rows,
        };
        Self {
            table: table.collection.as_str().to_owned(),
            renamed_to: table.renamed_to,
            fields: table.fields.into_iter().map(field).collect(),
            lacking: table.lacking.into_iter().map(lacking).collect(),
        }
    }

    fn print(&self) -> Result<(), Failure> {
        let renamed =
            self.renamed_to.as_ref().map(|name| format!("  (called {name} here)")).unwrap_or_default();
        output::line(format_args!("{}{}", style(plain(&self.table)).bold(), plain(&renamed)))?;
        for field in &self.fields {
            let mut text = format!("{}  {}", field.field, field.declared);
            match &field.column {
                None => text.push_str("  dropped here; its values are passed on"),
                Some(column) if *column != field.field => text.push_str(&format!("  column {column}")),
                Some(_) => {}
            }
            let others: Vec<&str> = field
                .aliases
                .iter()
                .map(String::as_str)
                .filter(|name| Some(*name) != field.column.as_deref())
                .collect();
            if !others.is_empty() {
                text.push_str(&format!("  also called {}", others.join(", ")));
            }
            if let Some(fill) = &field.fill {
                text.push_str(&format!("  {fill} where rows do not have it"));
            }
            output::line(format_args!("  {}", plain(&text)))?;
        }
        for lacking in &self.lacking {
            let declared = lacking.declared.as_deref().unwrap_or_default();
            let text = format!(
                "{}  {declared}  no column here; {} of the rows, {} of the members have it",
                lacking.field,
                lacking.rows,
                lacking.members.len()
            );
            output::line(format_args!("  {} {}", style("lacks").yellow(), plain(&text)))?;
        }
        Ok(())
    }
}
