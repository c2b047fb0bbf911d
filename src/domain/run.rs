//! Runs of an instance: which one it is and how it ended.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// Which run of which instance: changes with every start, whoever starts it.
///
/// Docker: container id and start time; process: kernel boot, pid and start time.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct RunId(pub Arc<str>);

impl fmt::Display for RunId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// How a run ended.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Exit {
    /// Exit status; 128 + n for signal n; `None` where nobody could see it.
    pub code: Option<i32>,
    /// The kernel killed it because its memory limit was reached.
    pub oom: bool,
    /// The engine was asked to end it, e.g. by `docker stop`, and says so.
    #[serde(default)]
    pub asked: bool,
    /// Why the engine ended it, in its own word, e.g. `Evicted`; none where it ended by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<Arc<str>>,
}

impl Exit {
    /// An end with this status.
    pub const fn with_code(code: i32) -> Self {
        Self { code: Some(code), oom: false, asked: false, reason: None }
    }

    setters! {
        with_oom(oom: bool);
        with_asked(asked: bool);
        with_reason(reason: impl Into<Arc<str>> => Some(reason.into()));
    }
}
