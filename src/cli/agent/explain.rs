//! `agent explain` in sentences: what is, why, what is tried next and when, what to do; then the last of its log.

use serde_json::Value;

use crate::cli::output::{cell, plain, second};
use crate::domain::Timestamp;

/// The whole page. `name` is what the user calls the agent.
pub(super) fn page(name: &str, explanation: &Value, now: Timestamp) -> Vec<String> {
    let mut lines = sentences(name, explanation, now);
    if let Some(unknown) = explanation["unknownSince"].as_str() {
        lines.push(format!("The engine has said nothing about it since {}.", second(unknown)));
    }
    let (attempt, restarts) = (cell(&explanation["attempt"]), cell(&explanation["restarts"]));
    lines.push(format!("Starts so far: {attempt}. Restarts after failures: {restarts}."));
    let error = &explanation["lastError"];
    if error.is_object() {
        let detail = error["detail"].as_str().map_or_else(String::new, |detail| format!(": {}", plain(detail)));
        let (time, from, to) = (second(&cell(&error["time"])), cell(&error["from"]), cell(&error["to"]));
        let way = if from == to { from } else { format!("{from} → {to}") };
        lines.push(format!("Last failure: {time} {way}, {}{detail}", cell(&error["cause"])));
    }
    let allowed = cell(&explanation["allowed"]).replace(',', ", ");
    if !allowed.is_empty() {
        lines.push(format!("Possible now: {allowed}."));
    }
    let log = explanation["lastLogLines"].as_array().map_or(&[][..], Vec::as_slice);
    if !log.is_empty() {
        lines.push(String::new());
        lines.push("The last lines of its log:".into());
        lines.extend(log.iter().map(|line| format!("  {}", log_line(line)).trim_end().to_owned()));
    }
    lines
}

/// Status and cause, next step, remedy: one line each. Also what a `--wait` that fails says.
pub(super) fn sentences(name: &str, explanation: &Value, now: Timestamp) -> Vec<String> {
    let text = |member: &str| explanation[member].as_str().map(plain);
    let because = text("because").unwrap_or_default();
    let mut lines = vec![format!("{} is {}: {}.", plain(name), cell(&explanation["status"]), bare(&because))];
    if let Some(next) = text("next") {
        let at = explanation["nextAt"].as_str().map_or_else(String::new, |at| when(at, now));
        lines.push(format!("Next: {}{at}.", bare(&next)));
    }
    if let Some(remedy) = text("remedy") {
        lines.push(format!("What to do: {}.", bare(&remedy.replace("AGENT", name))));
    }
    lines
}

/// One line of a log. A gateway's own time stamp is enough.
pub(super) fn log_line(line: &Value) -> String {
    let text = plain(line["text"].as_str().unwrap_or_default());
    let stamped = text.split_whitespace().next().is_some_and(|first| first.parse::<Timestamp>().is_ok());
    if stamped { text } else { format!("{}  {text}", second(line["time"].as_str().unwrap_or_default())) }
}

fn bare(sentence: &str) -> &str {
    sentence.trim_end_matches(['.', ' '])
}

/// ` at 13:45:46Z (in 8 s)`.
fn when(at: &str, now: Timestamp) -> String {
    let Ok(time) = at.parse::<Timestamp>() else { return format!(" at {}", plain(at)) };
    let secs = (time.as_second() - now.as_second()).max(0);
    format!(" at {} (in {secs} s)", second(at))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_cause_comes_first_and_then_what_happens_and_what_to_do() {
        let explanation = json!({
            "status": "ERROR", "because": "the image cannot be pulled.", "next": "it is tried again by itself",
            "nextAt": "2026-01-02T03:04:05.678Z", "remedy": "run `zeroone agent update AGENT`", "attempt": 3, "restarts": 2,
            "lastError": { "time": "2026-01-02T03:04:01Z", "from": "STARTING", "to": "ERROR", "cause": "cannot-run", "detail": "no" },
            "allowed": ["start", "delete"],
            "lastLogLines": [
                { "time": "2026-01-02T03:04:00.1Z", "text": "2026-01-02T03:04:00.1Z  INFO up" },
                { "time": "2026-01-02T03:04:00.1Z", "text": "\u{1b}bye" }
            ]
        });
        let now = "2026-01-02T03:03:57Z".parse().unwrap();
        let expected = "\
ada is ERROR: the image cannot be pulled.
Next: it is tried again by itself at 2026-01-02T03:04:05Z (in 8 s).
What to do: run `zeroone agent update ada`.
Starts so far: 3. Restarts after failures: 2.
Last failure: 2026-01-02T03:04:01Z STARTING → ERROR, cannot-run: no
Possible now: start, delete.

The last lines of its log:
  2026-01-02T03:04:00.1Z  INFO up
  2026-01-02T03:04:00Z  \u{fffd}bye";
        assert_eq!(page("ada", &explanation, now).join("\n"), expected);
        assert_eq!(sentences("ada", &explanation, now).len(), 3);
    }

    #[test]
    fn what_needs_nothing_says_so_shortly() {
        let explanation =
            json!({ "status": "STOPPED", "because": "a stop was asked for", "next": "nothing", "nextAt": null });
        let lines = sentences("ada", &explanation, Timestamp::UNIX_EPOCH);
        assert_eq!(lines, ["ada is STOPPED: a stop was asked for.", "Next: nothing."]);
    }
}
