//! What the tables of `zeroone agent` show: by default what fits 80 columns, with `-o wide` ids and all else.

use serde_json::{Value, json};

use crate::cli::outcome::Failure;
use crate::cli::output::{Column, Output, cell, plain, second};
use crate::domain::Timestamp;

const AGENTS: [Column; 6] = [
    ("SLUG", "slug"),
    ("STATUS", "status"),
    ("PROVIDER", "provider"),
    ("MODEL", "model"),
    ("RESTARTS", "restarts"),
    ("NAME", "name"),
];
const AGENTS_WIDE: [Column; 9] = [
    ("ID", "id"),
    ("SLUG", "slug"),
    ("STATUS", "status"),
    ("PROVIDER", "provider"),
    ("MODEL", "model"),
    ("RESTARTS", "restarts"),
    ("CREATED", "createdAt"),
    ("NAME", "name"),
    ("REASON", "statusReason"),
];
const INCIDENTS: [Column; 6] = [
    ("DETECTED", "detectedAt"),
    ("CAUSE", "cause"),
    ("EXIT", "exitCode"),
    ("STATE", "state"),
    ("TOOK", "took"),
    ("DETAIL", "detail"),
];
const INCIDENTS_WIDE: [Column; 9] = [
    ("DETECTED", "detectedAt"),
    ("CAUSE", "cause"),
    ("EXIT", "exitCode"),
    ("STATE", "state"),
    ("STARTED", "startedAt"),
    ("HEALTHY", "healthyAt"),
    ("PAIRED", "pairedAt"),
    ("TOOK", "took"),
    ("DETAIL", "detail"),
];
const EVENTS: [Column; 4] = [("TIME", "time"), ("STATUS", "to"), ("CAUSE", "cause"), ("DETAIL", "detail")];
const EVENTS_WIDE: [Column; 7] = [
    ("SEQ", "seq"),
    ("TIME", "time"),
    ("FROM", "from"),
    ("TO", "to"),
    ("ATTEMPT", "attempt"),
    ("CAUSE", "cause"),
    ("DETAIL", "detail"),
];

pub(super) fn agents(output: Output, rows: &[Value]) -> Result<(), Failure> {
    if output.wide { output.many(&AGENTS_WIDE, rows) } else { output.many(&AGENTS, rows) }
}

pub(super) fn events(output: Output, rows: &[Value]) -> Result<(), Failure> {
    if output.wide { output.many(&EVENTS_WIDE, rows) } else { output.many(&EVENTS, rows) }
}

/// One event of a timeline that is followed.
pub(super) fn event(output: Output, event: &Value) -> String {
    let detail = event["detail"].as_str().map_or_else(String::new, |detail| format!("  {}", plain(detail)));
    let status = cell(&event["to"]);
    let padding = " ".repeat("STARTING".len().saturating_sub(status.len()));
    let (time, cause) = (second(&cell(&event["time"])), cell(&event["cause"]));
    format!("{time}  {}{padding}  {cause}{detail}", output.status(&status))
}

pub(super) fn incidents(output: Output, rows: &[Value]) -> Result<(), Failure> {
    if output.json {
        return output.many(&INCIDENTS, rows);
    }
    let rows: Vec<Value> = rows.iter().map(with_time_taken).collect();
    if output.wide { output.many(&INCIDENTS_WIDE, &rows) } else { output.many(&INCIDENTS, &rows) }
}

/// How long it took until it was RUNNING again.
fn with_time_taken(incident: &Value) -> Value {
    let time = |member: &str| incident[member].as_str()?.parse::<Timestamp>().ok();
    let mut row = incident.clone();
    if let (Some(from), Some(to)) = (time("detectedAt"), time("pairedAt")) {
        row["took"] = json!(format!("{:.1} s", to.duration_since(from).as_secs_f64().max(0.0)));
    }
    row
}

/// One sample of `agent stats --follow`.
pub(super) fn usage(usage: &Value) -> String {
    let number = |member: &str| usage[member].as_f64().unwrap_or_default();
    format!(
        "{}  cpu {:.1} %  memory {:.1} MiB  processes {}",
        second(&cell(&usage["at"])),
        number("cpuPercent"),
        number("memoryMb"),
        cell(&usage["pids"])
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_incident_tells_how_long_it_took() {
        let incident = json!({ "detectedAt": "2026-01-02T03:04:05Z", "pairedAt": "2026-01-02T03:04:06.53Z" });
        assert_eq!(with_time_taken(&incident)["took"], "1.5 s");
        assert_eq!(with_time_taken(&json!({ "detectedAt": "2026-01-02T03:04:05Z" }))["took"], Value::Null);
    }
}
