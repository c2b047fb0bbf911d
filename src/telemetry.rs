//! Log lines of the service: to stderr, as text for people and as JSON for machines.

use std::io::IsTerminal as _;

use tracing_subscriber::EnvFilter;

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
    EnvFilter::try_new(level)
        .map_err(|_| "must be error, warn, info, debug, trace, or filters such as info,zeroone::store=debug".into())
}
