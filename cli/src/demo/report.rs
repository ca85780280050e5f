//! What the demo shows: a story in stages, each claim with its check mark. A claim that does not hold ends the demo.

use std::fmt;
use std::time::Instant;

use console::style;
use serde_json::{Value, json};

use crate::failure::{Exit, Failure};
use crate::output;

/// Prints for people or as JSON lines, and counts what was checked.
pub(super) struct Report {
    json: bool,
    stage: u32,
    checks: u32,
    start: Instant,
}

impl Report {
    pub(super) fn new(json: bool) -> Self {
        Self { json, stage: 0, checks: 0, start: Instant::now() }
    }

    /// Says what this is.
    pub(super) fn title(&self, title: &str, subtitle: &str) -> Result<(), Failure> {
        if self.json {
            return Ok(());
        }
        output::line(format_args!("\n{}\n{}", style(title).bold(), style(subtitle).dim()))?;
        Ok(())
    }

    /// Begins a stage.
    pub(super) fn stage(&mut self, title: &str) -> Result<(), Failure> {
        self.stage += 1;
        if !self.json {
            output::line(format_args!("\n{} {}", style(self.stage).cyan().bold(), style(title).bold()))?;
        }
        Ok(())
    }

    /// Tells what somebody does.
    pub(super) fn story(&self, who: &str, what: impl fmt::Display) -> Result<(), Failure> {
        if !self.json {
            output::line(format_args!("    {} {what}", style(format!("{who:12}")).cyan()))?;
        }
        Ok(())
    }

    /// Makes a claim.
    ///
    /// # Errors
    /// When it does not hold.
    pub(super) fn check(&mut self, claim: impl fmt::Display, holds: bool) -> Result<(), Failure> {
        self.checks += 1;
        if self.json {
            output::json_line(&json!({ "stage": self.stage, "claim": claim.to_string(), "holds": holds }))?;
        } else {
            let mark = if holds { style("✓").green() } else { style("✗").red() };
            output::line(format_args!("  {} {claim}", mark.bold()))?;
        }
        if holds {
            return Ok(());
        }
        Err(Failure::new(
            Exit::CheckFailed,
            format_args!("the demo claims what is not so: {claim}"),
            "run it again with --keep, then look at the logs, and report it",
        ))
    }

    /// Shows a measurement, with its fields for programs.
    pub(super) fn figure(&self, what: &str, figure: &str, mut fields: Value) -> Result<(), Failure> {
        if self.json {
            fields["stage"] = self.stage.into();
            return Ok(output::json_line(&fields)?);
        }
        output::line(format_args!("    {what:20} {}", style(figure).bold()))?;
        Ok(())
    }

    /// Says that all is well.
    pub(super) fn end(&self) -> Result<(), Failure> {
        let seconds = self.start.elapsed().as_secs_f64();
        if self.json {
            return Ok(output::json_line(
                &json!({ "result": "passed", "checks": self.checks, "seconds": seconds }),
            )?);
        }
        let passed = style(format!("All {} claims checked", self.checks)).green().bold();
        output::line(format_args!("\n{passed} in {seconds:.1} s."))?;
        Ok(())
    }
}
