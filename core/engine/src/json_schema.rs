//! The JSON that goes in and out, described as JSON Schema, for callers in other languages. `docs/schema/` has them as files.

use schemars::{Schema, schema_for};

use crate::answer;
use crate::config::Config;
use crate::event::Event;
use crate::import::ImportSummary;
use crate::json_command::Command;
use crate::status::Status;

/// The schemas by the names of their files in `docs/schema/`, without `.json`.
#[must_use]
pub fn json_schemas() -> Vec<(&'static str, Schema)> {
    vec![
        ("config", schema_for!(Config)),
        ("status", schema_for!(Status)),
        ("event", schema_for!(Event)),
        ("command", schema_for!(Command)),
        ("answer", schema_for!(Answers)),
    ]
}

/// What commands answer: the field is the command, its value the answer. Commands that are not here answer `{}`.
#[derive(schemars::JsonSchema)]
#[expect(dead_code, reason = "its schema is what it is for")]
struct Answers {
    peers: answer::PeersAnswer,
    members: answer::MembersAnswer,
    conflicts: answer::ConflictAnswer,
    restore: answer::RestoreAnswer,
    quarantine: answer::QuarantineAnswer,
    reconcile: answer::ReconcileAnswer,
    snapshot_export: answer::RowsAnswer,
    snapshot_import: ImportSummary,
    watch: answer::WatchAnswer,
    get: answer::DocumentAnswer,
    scan: answer::ScanAnswer,
}
