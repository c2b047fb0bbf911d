//! How a verb ends: done, or one of five ways to fail, each with an exit code of its own for scripts.

use std::io::Write as _;
use std::process::ExitCode;

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
    /// Nobody answers at the URL.
    Unreachable(String),
}

impl Failure {
    pub(super) fn of(error: impl Into<anyhow::Error>) -> Self {
        Self::Failed(error.into())
    }

    pub(super) fn said(message: impl Into<String>) -> Self {
        Self::Failed(anyhow::Error::msg(message.into()))
    }

    const fn code(&self) -> u8 {
        match self {
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
pub(super) fn exit_code(outcome: Result<(), Failure>) -> ExitCode {
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            // A reader that went away changes nothing about the outcome.
            let _ = writeln!(std::io::stderr(), "Error: {failure}");
            ExitCode::from(failure.code())
        }
    }
}
