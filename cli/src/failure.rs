//! How a command ends when it does not end well: an exit code, a line that says what and where, a line that says what
//! to do.

use std::fmt;
use std::io::{self, Write};
use std::process::ExitCode;

/// The exit codes other than success; `docs/cli.md` and `--help` explain them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exit {
    /// A check failed.
    CheckFailed = 1,
    /// It could not start.
    CannotStart = 3,
    /// It failed while it ran.
    Failed = 4,
    /// It was interrupted before it was done.
    Interrupted = 130,
}

/// Why a command ends without success.
#[derive(Debug)]
pub(crate) struct Failure {
    exit: Option<Exit>,
    what: String,
    advice: String,
}

impl Failure {
    /// A failure with what happened and what to do about it; either may be empty if it has been said already.
    pub(crate) fn new(exit: Exit, what: impl fmt::Display, advice: impl fmt::Display) -> Self {
        Self { exit: Some(exit), what: one_line(&what.to_string()), advice: one_line(&advice.to_string()) }
    }

    /// The command could not start.
    pub(crate) fn start(what: impl fmt::Display, advice: impl fmt::Display) -> Self {
        Self::new(Exit::CannotStart, what, advice)
    }

    /// It failed while it ran.
    pub(crate) fn run(what: impl fmt::Display, advice: impl fmt::Display) -> Self {
        Self::new(Exit::Failed, what, advice)
    }

    /// A check failed, and what is wrong has been shown.
    pub(crate) fn shown(exit: Exit) -> Self {
        Self { exit: Some(exit), what: String::new(), advice: String::new() }
    }

    /// Somebody pressed Ctrl-C.
    pub(crate) fn interrupted() -> Self {
        Self::new(Exit::Interrupted, "interrupted", "")
    }

    /// What happened, for people.
    #[cfg(test)]
    pub(crate) fn what(&self) -> &str {
        &self.what
    }

    /// Prints the lines on standard error and gives the exit code.
    pub(crate) fn report(&self) -> ExitCode {
        let mut stderr = io::stderr().lock();
        // Where standard error can't be written to, nobody can be told.
        if !self.what.is_empty() {
            let _ = writeln!(stderr, "{} {}", console::style("error:").for_stderr().red().bold(), self.what);
        }
        if !self.advice.is_empty() {
            let _ = writeln!(stderr, "{} {}", console::style("try:").for_stderr().cyan().bold(), self.advice);
        }
        self.exit.map_or(ExitCode::SUCCESS, |exit| ExitCode::from(exit as u8))
    }
}

/// Only writes to standard output are converted without more words: whoever read it is gone, or its disk is full.
impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        if error.kind() == io::ErrorKind::BrokenPipe {
            // `entgldb conflicts shop.db | head` has all that it wanted.
            return Self { exit: None, what: String::new(), advice: String::new() };
        }
        Self::run(
            format_args!("cannot write to standard output: {error}"),
            "redirect it to where there is room",
        )
    }
}

/// A message of several lines would break the promise of one line each.
fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_of_several_lines_become_one() {
        let failure = Failure::start("first\n   second", "do\tthis");
        assert_eq!(failure.what, "first second");
        assert_eq!(failure.advice, "do this");
    }

    #[test]
    fn a_reader_that_has_enough_is_no_failure() {
        let failure = Failure::from(io::Error::from(io::ErrorKind::BrokenPipe));
        assert_eq!((failure.exit, failure.what()), (None, ""));
        assert_eq!(Failure::from(io::Error::other("full")).exit, Some(Exit::Failed));
    }
}
