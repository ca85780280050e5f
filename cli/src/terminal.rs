//! Standard error as people see it: lines, bars below them on a terminal, and the log between, none of which may tear
//! another.

use std::fmt;
use std::io::{self, Write};
use std::time::Duration;

use console::Term;
use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use tracing_subscriber::fmt::MakeWriter;

use crate::output;

const BAR: &str = "  {msg} {bar:30.cyan/dim} {human_pos} of {human_len} {elapsed:>4}";
const REDRAWS_PER_SECOND: u8 = 10;

/// Standard error. Clones write to the same one.
#[derive(Clone)]
pub(crate) struct Terminal {
    bars: MultiProgress,
    attended: bool,
}

impl Terminal {
    /// With bars if somebody watches, without if it goes into a file.
    pub(crate) fn new() -> Self {
        let attended = Term::stderr().is_term();
        let target = if attended {
            ProgressDrawTarget::term(Term::stderr(), REDRAWS_PER_SECOND)
        } else {
            ProgressDrawTarget::hidden()
        };
        Self { bars: MultiProgress::with_draw_target(target), attended }
    }

    /// Whether somebody watches.
    pub(crate) fn attended(&self) -> bool {
        self.attended
    }

    /// Prints a line, above the bars.
    pub(crate) fn say(&self, line: impl fmt::Display) {
        self.bars.suspend(|| output::note(line));
    }

    /// A bar for long work that counts, above what is there.
    pub(crate) fn bar(&self, message: impl Into<std::borrow::Cow<'static, str>>, total: u64) -> ProgressBar {
        let bar = self.bars.insert(0, ProgressBar::new(total));
        bar.set_style(ProgressStyle::with_template(BAR).expect("the template is correct"));
        bar.set_message(message);
        bar
    }

    /// One line at the bottom whose text changes.
    pub(crate) fn bottom_line(&self, text: &'static str) -> ProgressBar {
        let line = self.bars.add(ProgressBar::no_length());
        line.set_style(
            ProgressStyle::with_template("{spinner:.dim} {msg:.dim}").expect("the template is correct"),
        );
        line.set_message(text);
        line.enable_steady_tick(Duration::from_secs(1));
        line
    }
}

/// For the log.
impl<'a> MakeWriter<'a> for Terminal {
    type Writer = LogLine<'a>;

    fn make_writer(&'a self) -> LogLine<'a> {
        LogLine(self)
    }
}

/// Writes one event of the log, which comes as one buffer.
pub(crate) struct LogLine<'a>(&'a Terminal);

impl Write for LogLine<'_> {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.0.bars.suspend(|| io::stderr().lock().write_all(line))?;
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
