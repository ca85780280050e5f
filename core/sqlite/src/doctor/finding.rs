//! What a diagnosis says, and how much it matters.

use serde::Serialize;

/// How much a finding matters.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Weight {
    /// Worth knowing. Sync works.
    Advice,
    /// Sync works, but something of it will not be as expected: rows that stay here, ids that collide.
    Warning,
    /// Sync can't work until this is changed.
    Blocks,
}

/// One thing to know about a database or a table before it is synced.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Finding {
    /// A name for scripts. It never changes its meaning.
    pub code: &'static str,
    /// How much it matters.
    pub weight: Weight,
    /// What was found.
    pub what: String,
    /// What to do about it.
    pub advice: String,
}

impl Finding {
    pub(super) fn blocks(code: &'static str, what: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { code, weight: Weight::Blocks, what: what.into(), advice: advice.into() }
    }

    pub(super) fn warning(code: &'static str, what: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { code, weight: Weight::Warning, what: what.into(), advice: advice.into() }
    }

    pub(super) fn advice(code: &'static str, what: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { code, weight: Weight::Advice, what: what.into(), advice: advice.into() }
    }
}

/// Whether any of them keeps sync from working.
pub(super) fn any_blocks(findings: &[Finding]) -> bool {
    findings.iter().any(|finding| finding.weight == Weight::Blocks)
}
