//! Metrics in the form that a scraper asks for: OpenMetrics, or Prometheus' older text format 0.0.4.
//!
//! Our registry writes OpenMetrics. The older format differs in names (a counter's family has its `_total`), has no
//! units and no end mark (nor exemplars, which we do not write); older scrapers read nothing else.

/// The type of OpenMetrics.
pub(super) const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
/// The type of the older text format.
pub(super) const TEXT: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Metrics written as OpenMetrics, with their type, in the form that `accept` prefers. `None` where it takes neither.
pub(super) fn in_form(accept: Option<&str>, open_metrics: String) -> Option<(&'static str, String)> {
    match preferred(accept)? {
        Form::OpenMetrics => Some((OPEN_METRICS, open_metrics)),
        Form::Text => Some((TEXT, as_text(&open_metrics))),
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    OpenMetrics,
    Text,
}

/// Without a wish it is OpenMetrics, as it always was.
fn preferred(accept: Option<&str>) -> Option<Form> {
    let Some(accept) = accept.filter(|accept| !accept.trim().is_empty()) else { return Some(Form::OpenMetrics) };
    let (mut open, mut text) = (0.0_f32, 0.0_f32);
    for range in accept.split(',') {
        let mut parts = range.split(';').map(|part| part.trim().to_ascii_lowercase());
        let kind = parts.next().unwrap_or_default();
        let quality = parts.find_map(|part| part.strip_prefix("q=").map(|q| q.parse().unwrap_or(0.0))).unwrap_or(1.0);
        match kind.as_str() {
            "application/openmetrics-text" => open = open.max(quality),
            "text/plain" | "text/*" => text = text.max(quality),
            // Whoever takes anything, a browser or curl, takes what there always was.
            "*/*" | "application/*" => open = open.max(quality * 0.999),
            _ => {}
        }
    }
    match (open > 0.0, text > 0.0) {
        (false, false) => None,
        _ if open >= text => Some(Form::OpenMetrics),
        _ => Some(Form::Text),
    }
}

/// OpenMetrics as the older format.
fn as_text(open_metrics: &str) -> String {
    let mut text = String::with_capacity(open_metrics.len());
    let mut counters: Vec<&str> = Vec::new();
    for line in open_metrics.lines() {
        if let Some(name) = line.strip_prefix("# TYPE ").and_then(|rest| rest.strip_suffix(" counter")) {
            counters.push(name);
        }
    }
    for line in open_metrics.lines() {
        let mut words = line.splitn(4, ' ');
        match (words.next(), words.next(), words.next(), words.next()) {
            (Some("#"), Some("EOF" | "UNIT"), ..) => continue,
            (Some("#"), Some(what @ ("TYPE" | "HELP")), Some(name), rest) => {
                let total = if counters.contains(&name) { "_total" } else { "" };
                let kind = rest.unwrap_or_default();
                let kind =
                    if what == "TYPE" && matches!(kind, "info" | "stateset" | "unknown") { "untyped" } else { kind };
                text.push_str(&format!("# {what} {name}{total} {kind}\n"));
            }
            _ => {
                text.push_str(line);
                text.push('\n');
            }
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_wish_decides() {
        let kind = |accept| in_form(accept, String::new()).map(|(kind, _)| kind);
        for open in [
            None,
            Some(""),
            Some("*/*"),
            Some("application/openmetrics-text; version=1.0.0,text/plain;version=0.0.4;q=0.5"),
            Some("text/plain;q=0.3, application/openmetrics-text;q=0.4"),
        ] {
            assert_eq!(kind(open), Some(OPEN_METRICS), "{open:?}");
        }
        for text in [
            "text/plain; version=0.0.4",
            "text/plain",
            "text/*",
            "text/plain;version=0.0.4;q=1,*/*;q=0.1",
            "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;q=0.7,text/plain;version=0.0.4;q=0.3",
        ] {
            assert_eq!(kind(Some(text)), Some(TEXT), "{text}");
        }
        assert_eq!(kind(Some("application/json")), None);
        assert_eq!(kind(Some("text/plain;q=0")), None);
    }

    #[test]
    fn counters_keep_their_suffix_and_units_and_the_end_are_left_out() {
        let open = "# HELP a_requests Requests answered.\n# TYPE a_requests counter\na_requests_total{x=\"a # b\"} 3\n\
                    # HELP b_seconds Time.\n# TYPE b_seconds gauge\n# UNIT b_seconds seconds\nb_seconds 1\n# EOF\n";
        let text = "# HELP a_requests_total Requests answered.\n# TYPE a_requests_total counter\na_requests_total{x=\"a # b\"} 3\n\
                    # HELP b_seconds Time.\n# TYPE b_seconds gauge\nb_seconds 1\n";
        assert_eq!(as_text(open), text);
    }
}
