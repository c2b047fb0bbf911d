//! What the service answers instead of doing what was asked: for people in the words of the command line, for programs
//! the problem as it came.

use reqwest::StatusCode;
use serde_json::Value;

use crate::cli::output::plain;

/// An answer of the service that is no success.
#[derive(Debug, Clone)]
pub(in crate::cli) struct Refusal {
    pub(in crate::cli) status: StatusCode,
    /// The body: RFC 9457 `application/problem+json`.
    pub(in crate::cli) problem: Value,
    message: String,
}

/// Fields of bodies whose flag has another name than the field.
const FLAGS: [(&str, &str); 6] = [
    ("apiKey", "--api-key-env (or --api-key-file, --api-key-stdin)"),
    ("name", "the name"),
    ("message", "the message"),
    ("maxAgents", "--max-agents"),
    ("memoryMb", "--memory-mb"),
    ("limits", "the limits"),
];

impl Refusal {
    /// `None` for an answer that no service of this kind gives.
    pub(super) fn read(status: StatusCode, text: &str) -> Option<Self> {
        let problem: Value = serde_json::from_str(text).ok()?;
        problem["code"].as_str()?;
        Some(Self { status, message: message(&problem), problem })
    }

    /// Says it in other words; programs get the same problem.
    pub(in crate::cli) fn in_words(self, message: String) -> Self {
        Self { message, ..self }
    }

    pub(in crate::cli) fn is(&self, code: &str) -> bool {
        self.problem["code"] == code
    }

    /// The exit code: not found, tried and failed, or refused.
    pub(in crate::cli) fn exit_code(&self) -> u8 {
        match self.status {
            StatusCode::NOT_FOUND => 3,
            StatusCode::REQUEST_TIMEOUT => 1,
            status if status.is_client_error() => 4,
            _ => 1,
        }
    }
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.message)
    }
}

/// Each fault once, by the name of its flag; else the problem's sentence.
fn message(problem: &Value) -> String {
    let faults: Vec<String> = problem["errors"].as_array().into_iter().flatten().map(fault).collect();
    let mut message = match faults.as_slice() {
        [] => {
            let sentence = problem["detail"].as_str().or(problem["title"].as_str()).unwrap_or("the service refused");
            format!("{} ({})", plain(sentence), plain(problem["code"].as_str().unwrap_or_default()))
        }
        [fault] => fault.clone(),
        faults => format!("{} values are not valid:\n  {}", faults.len(), faults.join("\n  ")),
    };
    if let Some(allowed) = problem["allowed"].as_array().filter(|allowed| !allowed.is_empty()) {
        let allowed: Vec<_> = allowed.iter().filter_map(Value::as_str).map(plain).collect();
        message.push_str(&format!("\n  possible now: {}", allowed.join(", ")));
    }
    message
}

fn fault(fault: &Value) -> String {
    let detail = plain(fault["detail"].as_str().unwrap_or_default());
    match (fault["pointer"].as_str(), fault["parameter"].as_str()) {
        (Some(""), _) | (None, None) => detail,
        (Some(pointer), _) => format!("{}: {detail}", plain(&flag_of(pointer))),
        (None, Some(parameter)) => format!("{}: {detail}", plain(&dashed(parameter))),
    }
}

/// The flag of a field, by its JSON Pointer: `/providerUrl` is `--provider-url`, and what is deeper is in its file.
fn flag_of(pointer: &str) -> String {
    let mut parts = pointer.trim_start_matches('/').split('/');
    let first = parts.next().unwrap_or_default();
    let within: Vec<&str> = parts.collect();
    let known = |field: &str| FLAGS.iter().find(|(known, _)| *known == field).map(|(_, flag)| (*flag).to_owned());
    match within.as_slice() {
        [] => known(first).unwrap_or_else(|| dashed(first)),
        // Flags of their own, sent together.
        [field, ..] if first == "limits" => known(field).unwrap_or_else(|| dashed(field)),
        within => format!("{} {}", dashed(first), within.join(".")),
    }
}

/// `providerUrl` as `--provider-url`.
fn dashed(field: &str) -> String {
    let mut flag = String::from("--");
    for c in field.chars() {
        if c.is_ascii_uppercase() {
            flag.push('-');
        }
        flag.push(c.to_ascii_lowercase());
    }
    flag
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(status: StatusCode, problem: &str) -> String {
        Refusal::read(status, problem).unwrap().to_string()
    }

    #[test]
    fn each_fault_is_told_once_and_names_its_flag() {
        let one = r#"{"code":"invalid","detail":"/apiKey: is required","errors":[{"pointer":"/apiKey","detail":"is required"}]}"#;
        let one = said(StatusCode::UNPROCESSABLE_ENTITY, one);
        assert_eq!(one, "--api-key-env (or --api-key-file, --api-key-stdin): is required");
        let several = r#"{"title":"Not valid","detail":"2 fields","code":"invalid",
            "errors":[{"pointer":"/providerUrl","detail":"is no URL"},{"parameter":"limit","detail":"too large\u001b[2J"}]}"#;
        assert_eq!(
            said(StatusCode::UNPROCESSABLE_ENTITY, several),
            "2 values are not valid:\n  --provider-url: is no URL\n  --limit: too large\u{fffd}[2J"
        );
    }

    #[test]
    fn pointers_lead_to_flags() {
        for (pointer, flag) in [
            ("/temperature", "--temperature"),
            ("/memoryBackend", "--memory-backend"),
            ("/channels/telegram/botToken", "--channels telegram.botToken"),
            ("/limits/maxAgents", "--max-agents"),
            ("/limits/cpu", "--cpu"),
            ("/name", "the name"),
        ] {
            assert_eq!(flag_of(pointer), flag);
        }
    }

    #[test]
    fn what_is_possible_instead_is_told() {
        let problem = r#"{"detail":"Not now.","code":"illegal-transition","allowed":["stop","delete"]}"#;
        let said = said(StatusCode::CONFLICT, problem);
        assert_eq!(said, "Not now. (illegal-transition)\n  possible now: stop, delete");
    }

    #[test]
    fn each_kind_of_answer_has_its_exit_code() {
        let code = |status| Refusal::read(status, r#"{"code":"c","detail":"d"}"#).unwrap().exit_code();
        assert_eq!(code(StatusCode::NOT_FOUND), 3);
        assert_eq!(code(StatusCode::TOO_MANY_REQUESTS), 4);
        assert_eq!(code(StatusCode::REQUEST_TIMEOUT), 1);
        assert_eq!(code(StatusCode::BAD_GATEWAY), 1);
        assert!(Refusal::read(StatusCode::BAD_GATEWAY, "<html>").is_none());
        assert!(Refusal::read(StatusCode::NOT_FOUND, r#"{"detail":"Not Found"}"#).is_none());
    }
}
