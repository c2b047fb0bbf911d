//! How a verb ends: done, or one of five ways to fail, each with an exit code of its own for scripts.

use std::io::Write as _;
use std::process::ExitCode;

use serde_json::{Value, json};

use super::client::Refusal;
use super::output::escaped;

/// Why a verb did not do what it was asked.
#[derive(Debug)]
pub(super) enum Failure {
    /// It was tried and went wrong.
    Failed(anyhow::Error),
    /// The command line cannot be meant.
    Usage(String),
    NotFound(String),
    /// The service said no: a missing right, a full quota, a field that is not valid, a wrong status.
    Refused(String),
    /// Nobody answers at the URL, or something that is not this service.
    Unreachable(String),
    /// The service said no, in its own words.
    Service(Box<Refusal>),
}

impl Failure {
    pub(super) fn of(error: impl Into<anyhow::Error>) -> Self {
        Self::Failed(error.into())
    }

    pub(super) fn said(message: impl Into<String>) -> Self {
        Self::Failed(anyhow::Error::msg(message.into()))
    }

    /// The refusal of the service, where it is one of this code.
    pub(super) fn refusal(&self, code: &str) -> Option<&Refusal> {
        match self {
            Self::Service(refusal) if refusal.is(code) => Some(refusal),
            _ => None,
        }
    }

    /// The same failure in other words; its kind and the service's problem stay.
    pub(super) fn in_words(self, message: String) -> Self {
        match self {
            Self::Service(refusal) => Self::Service(Box::new(refusal.in_words(message))),
            Self::Failed(_) => Self::said(message),
            Self::Usage(_) => Self::Usage(message),
            Self::NotFound(_) => Self::NotFound(message),
            Self::Refused(_) => Self::Refused(message),
            Self::Unreachable(_) => Self::Unreachable(message),
        }
    }

    /// For programs: the service's problem as it came, or one of the command line's own.
    fn problem(&self) -> Value {
        let (code, title, retryable) = match self {
            Self::Service(refusal) => return refusal.problem.clone(),
            Self::Failed(_) => ("failed", "Failed", false),
            Self::Usage(_) => ("usage", "Not a command as it should be", false),
            Self::NotFound(_) => ("not-found", "Not found", false),
            Self::Refused(_) => ("refused", "Refused", false),
            Self::Unreachable(_) => ("not-reachable", "The service cannot be reached", true),
        };
        // No `status`: no service has answered with one.
        json!({
            "type": "about:blank", "title": title, "code": code, "detail": self.to_string(), "retryable": retryable
        })
    }

    fn code(&self) -> u8 {
        match self {
            Self::Service(refusal) => refusal.exit_code(),
            Self::Failed(_) => 1,
            Self::Usage(_) => 2,
            Self::NotFound(_) => 3,
            Self::Refused(_) => 4,
            Self::Unreachable(_) => 5,
        }
    }
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Failed(error) => write!(f, "{error:#}"),
            Self::Usage(message) | Self::NotFound(message) | Self::Refused(message) | Self::Unreachable(message) => {
                f.write_str(message)
            }
            Self::Service(refusal) => refusal.fmt(f),
        }
    }
}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        Self::Failed(error)
    }
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        Self::of(error)
    }
}

/// Tells what went wrong, on stderr, and makes the exit code of it.
pub(super) fn exit_code(outcome: Result<(), Failure>, json: bool) -> ExitCode {
    let Err(failure) = outcome else { return ExitCode::SUCCESS };
    let text = match serde_json::to_string_pretty(&failure.problem()) {
        Ok(problem) if json => escaped(&problem),
        _ => format!("Error: {failure}"),
    };
    // A reader that went away changes nothing about the outcome.
    let _ = writeln!(std::io::stderr(), "{text}");
    ExitCode::from(failure.code())
}
