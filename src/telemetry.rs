//! Log lines of the service: to stderr, as text for people and as JSON for machines.

use std::fmt;
use std::io::IsTerminal as _;

use tracing::span::Record;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::field::RecordFields;
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::fmt::format::{JsonFields, Writer};
use tracing_subscriber::fmt::{FormatFields, FormattedFields};

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
        let lines = lines.fmt_fields(SpanFields(JsonFields::new()));
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

/// The fields of a span, as an object of JSON. The library's own formatter reads and writes all of them again when some are
/// added, which is twice for each request.
struct SpanFields(JsonFields);

impl<'a> FormatFields<'a> for SpanFields {
    fn format_fields<R: RecordFields>(&self, writer: Writer<'a>, fields: R) -> fmt::Result {
        self.0.format_fields(writer, fields)
    }

    fn add_fields(&self, known: &'a mut FormattedFields<Self>, fields: &Record<'_>) -> fmt::Result {
        let mut more = String::new();
        self.0.format_fields(Writer::new(&mut more), fields)?;
        add_members(&mut known.fields, more);
        Ok(())
    }
}

/// Puts the members of one object at the end of another. Of two with one name, readers take the later.
fn add_members(object: &mut String, more: String) {
    let members = more.strip_prefix('{').filter(|members| *members != "}");
    match (object.strip_suffix('}'), members) {
        (_, None) => {}
        (Some(before), Some(members)) if before.len() > 1 => {
            object.truncate(before.len());
            object.push(',');
            object.push_str(members);
        }
        _ => *object = more,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_are_added_to_an_object() {
        for (object, more, both) in [
            ("", r#"{"a":1}"#, r#"{"a":1}"#),
            ("{}", r#"{"a":1}"#, r#"{"a":1}"#),
            (r#"{"a":1}"#, "{}", r#"{"a":1}"#),
            (r#"{"a":{}}"#, r#"{"b":"}","c":{}}"#, r#"{"a":{},"b":"}","c":{}}"#),
        ] {
            let mut object = object.to_owned();
            add_members(&mut object, more.to_owned());
            assert_eq!(object, both);
        }
    }

    #[test]
    fn what_is_known_of_a_span_later_is_in_its_lines() {
        #[derive(Clone, Default)]
        struct Kept(std::sync::Arc<std::sync::Mutex<Vec<u8>>>);
        impl std::io::Write for Kept {
            fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
                self.0.lock().unwrap().write(bytes)
            }
            fn flush(&mut self) -> std::io::Result<()> {
                Ok(())
            }
        }
        let kept = Kept::default();
        let writer = kept.clone();
        let subscriber = tracing_subscriber::fmt().json().fmt_fields(SpanFields(JsonFields::new()));
        let subscriber = subscriber.with_writer(move || writer.clone()).finish();
        tracing::subscriber::with_default(subscriber, || {
            let span =
                tracing::info_span!("request", id = "a\"b", user = tracing::field::Empty, key = tracing::field::Empty);
            let _entered = span.enter();
            tracing::record_all!(span, user = %"u}", key = None::<&str>);
            span.record("key", "k");
            tracing::info!("answered");
        });
        let line: serde_json::Value = serde_json::from_slice(&kept.0.lock().unwrap()).unwrap();
        let span = serde_json::json!({ "name": "request", "id": "a\"b", "user": "u}", "key": "k" });
        assert_eq!(line["span"], span, "{line}");
    }

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
