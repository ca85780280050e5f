//! The log, for those who look for the cause of something: on standard error, off unless asked for.

use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;

use crate::failure::Failure;
use crate::terminal::Terminal;

/// Starts the log with a level or filters.
pub(crate) fn start(filters: &str, terminal: &Terminal) -> Result<(), Failure> {
    let filter = parse(filters).ok_or_else(|| {
        Failure::start(
            format_args!("--log {filters:?} is no level and no filter"),
            "use off, error, warn, info, debug or trace, or filters such as info,entgldb_net=debug",
        )
    })?;
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(terminal.clone())
        .with_ansi(terminal.attended() && console::colors_enabled_stderr())
        .init();
    Ok(())
}

/// The library would take a mistyped level for the name of a module, and stay silent.
fn parse(filters: &str) -> Option<EnvFilter> {
    let plausible = |part: &str| part.contains('=') || part.parse::<LevelFilter>().is_ok();
    if !filters.split(',').all(plausible) {
        return None;
    }
    EnvFilter::builder().parse(filters).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_and_filters_are_taken_and_a_mistyped_level_is_not() {
        assert!(parse("debug").is_some());
        assert!(parse("info,entgldb_net=debug").is_some());
        assert!(parse("debgu").is_none());
        assert!(parse("entgldb_net=loud").is_none());
    }
}
