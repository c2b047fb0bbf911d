//! Log lines of the service: to stderr, as text for people and as JSON for machines.

use std::io::IsTerminal as _;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;

use crate::config::{Log, LogFormat};

/// Sends this process's log to stderr. To be called once, by a program; a library that embeds the control plane has a
/// subscriber of its own, which then stays.
pub fn init(log: &Log) {
    let filter = filter(&log.level).unwrap_or_default();
    let terminal = std::io::stderr().is_terminal();
    let json = match log.format {
        LogFormat::Auto => !terminal,
        LogFormat::Text => false,
        LogFormat::Json => true,
    };
    let to_stderr = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    if json {
        let lines = to_stderr.json().flatten_event(true).with_current_span(true).with_span_list(false);
        let _ = tracing::subscriber::set_global_default(lines.finish());
    } else {
        let _ = tracing::subscriber::set_global_default(to_stderr.with_ansi(terminal).finish());
    }
}

/// Reads filters such as `info,zeroone::store=debug`.
///
/// # Errors
/// A sentence that shows the form.
pub(crate) fn filter(level: &str) -> Result<EnvFilter, String> {
    const FORM: &str = "must be error, warn, info, debug, trace, off, or filters such as info,zeroone::store=debug";
    // The library takes a single word that is no level for the name of a module, so that a typo would silence the log.
    let words = level.split(',').map(str::trim).filter(|word| !word.contains(['=', '[', ']', '{', '}']));
    let unknown = words.into_iter().find(|word| word.parse::<LevelFilter>().is_err() || word.is_empty());
    if unknown.is_some() {
        return Err(FORM.into());
    }
    EnvFilter::try_new(level).map_err(|_| FORM.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_level_that_is_none_is_refused() {
        for level in ["info", "WARN", "off", "info,zeroone::store=debug", "zeroone=trace", "warn,zeroone[agent]=debug"]
        {
            assert!(filter(level).is_ok(), "{level}");
        }
        for level in ["loud", "", "info,", "zeroone", "info,loud", "zeroone=loud", "info;debug", "7up"] {
            assert!(filter(level).is_err_and(|form| form.contains("must be error")), "{level}");
        }
    }
}
