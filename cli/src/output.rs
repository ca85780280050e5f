//! What goes where: results on standard output, words for people on standard error.

use std::borrow::Cow;
use std::fmt;
use std::io::{self, Write};

use serde::Serialize;
use serde_json::Value;

/// Prints a line of a result.
pub(crate) fn line(text: impl fmt::Display) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    writeln!(stdout, "{text}")?;
    stdout.flush()
}

/// Prints a value as one JSON object on a line of its own.
pub(crate) fn json_line(value: &impl Serialize) -> io::Result<()> {
    let mut text = serde_json::to_string(value).map_err(io::Error::other)?;
    text.push('\n');
    let mut stdout = io::stdout().lock();
    stdout.write_all(text.as_bytes())?;
    stdout.flush()
}

/// Tells people something that is no result.
pub(crate) fn note(text: impl fmt::Display) {
    // Where standard error can't be written to, nobody can be told.
    let _ = writeln!(io::stderr().lock(), "{text}");
}

/// A document as JSON. One that is none, which only a damaged file can hold, is shown as text.
pub(crate) fn document(content: &[u8]) -> Value {
    serde_json::from_slice(content).unwrap_or_else(|_| String::from_utf8_lossy(content).into_owned().into())
}

/// The last words of a list that shows at most `limit` of the newest.
pub(crate) fn listed(shown: usize, noun: &str, limit: u32) -> String {
    match count(shown as u64, noun) {
        all if shown < limit as usize => all,
        newest => format!("The newest {newest}; --limit shows more."),
    }
}

/// Text from elsewhere, safe to show: what a terminal would obey is written out.
pub(crate) fn plain(text: &str) -> Cow<'_, str> {
    if !text.contains(char::is_control) {
        return Cow::Borrowed(text);
    }
    let shown =
        text.chars().map(|c| if c.is_control() { c.escape_default().to_string() } else { c.to_string() });
    Cow::Owned(shown.collect())
}

/// A number with its thousands apart: `20,000`.
pub(crate) fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() * 4 / 3 + 1);
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A count with its noun: `1 peer`, `2,000 peers`.
pub(crate) fn count(number: u64, noun: &str) -> String {
    let number_text = thousands(number);
    match (number, noun.strip_suffix('y')) {
        (1, _) => format!("{number_text} {noun}"),
        (_, Some(stem)) => format!("{number_text} {stem}ies"),
        _ => format!("{number_text} {noun}s"),
    }
}

/// An age or a delay in the unit that people would use.
pub(crate) fn span_of_ms(ms: u64) -> String {
    match ms {
        0..1_000 => format!("{ms} ms"),
        1_000..120_000 => format!("{} s", ms / 1_000),
        120_000..7_200_000 => format!("{} min", ms / 60_000),
        7_200_000..172_800_000 => format!("{} h", ms / 3_600_000),
        _ => format!("{} days", ms / 86_400_000),
    }
}

/// A size in bytes as people would say it.
pub(crate) fn size_of_bytes(bytes: u64) -> String {
    #[expect(clippy::cast_precision_loss, reason = "shown with one digit")]
    let number = bytes as f64;
    match bytes {
        0..1_000 => format!("{bytes} B"),
        1_000..1_000_000 => format!("{:.1} kB", number / 1e3),
        1_000_000..1_000_000_000 => format!("{:.1} MB", number / 1e6),
        _ => format!("{:.1} GB", number / 1e9),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_read_as_people_write_them() {
        assert_eq!(thousands(0), "0");
        assert_eq!(thousands(999), "999");
        assert_eq!(thousands(20_000), "20,000");
        assert_eq!(thousands(1_234_567), "1,234,567");
        assert_eq!(count(1, "entry"), "1 entry");
        assert_eq!(count(0, "peer"), "0 peers");
        assert_eq!(count(1_200, "entry"), "1,200 entries");
    }

    #[test]
    fn text_from_elsewhere_cannot_move_the_cursor() {
        assert_eq!(plain("Caffè latte"), "Caffè latte");
        assert_eq!(plain("a\u{1b}[2Jb\nc"), "a\\u{1b}[2Jb\\nc");
    }

    #[test]
    fn spans_and_sizes_use_the_fitting_unit() {
        assert_eq!(span_of_ms(12), "12 ms");
        assert_eq!(span_of_ms(4_200), "4 s");
        assert_eq!(span_of_ms(180_000), "3 min");
        assert_eq!(span_of_ms(86_400_000), "24 h");
        assert_eq!(span_of_ms(3 * 86_400_000), "3 days");
        assert_eq!(size_of_bytes(12), "12 B");
        assert_eq!(size_of_bytes(1_540_000), "1.5 MB");
    }
}
