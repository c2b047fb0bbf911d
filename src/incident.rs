//! Incidents: what went wrong with an agent, and how long it took to be well again.
//!
//! Nothing is kept for this. An agent's timeline has every committed transition, and an incident is a way to read it:
//! [`Reading`] takes the entries one by one, in order, and says when an incident began, went on and ended.
//!
//! ```text
//! RUNNING ─ exited ─► back-off ─ retry-due ─► instance-started ─► instance-healthy ─► paired ─► RUNNING
//!           detected            (not always)  started             healthy             paired, recovered
//! ```
//! A model that gives no answer is an incident of its own, during which the agent stays RUNNING, until the model answers again.
//! What users ask for is no incident; a stop or a deletion that comes in the middle of one ends it, and so says nothing
//! about how long a recovery takes. A timeline is bounded: of what began before its oldest entry only the rest is told.

mod recoveries;

use serde::Serialize;

use crate::domain::{Status, Timestamp};
use crate::lifecycle::Code;
use crate::store::LogEntry;

pub use recoveries::{BOUNDS, Recoveries, Recovery};

/// What brought it about: few enough to count by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Kind {
    /// The instance ended by itself, or by a signal.
    Exit,
    /// It was out of memory.
    Oom,
    /// Its gateway did not answer.
    Probe,
    /// Token or pairing were refused.
    Token,
    /// The engine, or the machine under it, could not do what it was told.
    Engine,
    /// Somebody removed or restarted the instance behind the service's back.
    Operator,
    /// The agent runs, and its model gave no answer.
    Model,
    /// The service itself: its keys, its bugs.
    Service,
}

impl Kind {
    /// All kinds, in the order of their declaration.
    pub const ALL: &'static [Self] =
        &[Self::Exit, Self::Oom, Self::Probe, Self::Token, Self::Engine, Self::Operator, Self::Model, Self::Service];

    /// The name in the API and in labels of metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Exit => "exit",
            Self::Oom => "oom",
            Self::Probe => "probe",
            Self::Token => "token",
            Self::Engine => "engine",
            Self::Operator => "operator",
            Self::Model => "model",
            Self::Service => "service",
        }
    }

    /// The kind of trouble that a transition's code tells of; `None` where all goes as it should.
    const fn of(code: Code) -> Option<Self> {
        Some(match code {
            Code::Exited => Self::Exit,
            Code::OomKilled => Self::Oom,
            Code::HealthLost | Code::HealthTimeout | Code::Unusable => Self::Probe,
            Code::TokenRefused
            | Code::PairingTimeout
            | Code::PairingRefused
            | Code::PairingLocked
            | Code::PairingDisabled => Self::Token,
            Code::NoFreePort
            | Code::StartFailed
            | Code::CannotRun
            | Code::NoCapacity
            | Code::RuntimeUnavailable
            | Code::RuntimeRefuses
            | Code::StopTimeout
            | Code::DeleteTimeout => Self::Engine,
            Code::EndedOutside | Code::InstanceGone | Code::RestartedOutside => Self::Operator,
            Code::ModelFailed => Self::Model,
            // A crash loop has a root; one whose root nobody knows any more is at least a failure of its own.
            Code::CrashLoop | Code::SecretsUnreadable | Code::SecretsMissing | Code::Internal => Self::Service,
            // One missed check may be a hiccup: only several in a row are trouble.
            Code::HealthMissed | Code::HealthBack | Code::EndpointMoved | Code::ModelBack => return None,
            // It is no trouble before it lasts too long, which is told by what follows.
            Code::EngineBusy => return None,
            // The agent gets another port at once. If there is none, or the start fails, that is the trouble.
            Code::PortTaken => return None,
            Code::Created
            | Code::StartRequested
            | Code::StopRequested
            | Code::RestartRequested
            | Code::DeleteRequested
            | Code::SpecChanged
            | Code::Deploying
            | Code::InstanceCreated
            | Code::InstanceStarted
            | Code::InstanceHealthy
            | Code::Paired
            | Code::TokenValid
            | Code::Stopped
            | Code::Recovered
            | Code::ServiceRestarted
            | Code::Importing
            | Code::UpgradeRequested
            | Code::UpgradeRefused
            | Code::UpgradeStarted
            | Code::Upgraded
            | Code::UpgradeFailed
            | Code::RolledBack
            | Code::RetryDue => return None,
        })
    }
}

/// How an incident stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// It goes on.
    Open,
    /// The agent is RUNNING again.
    Recovered,
    /// A stop or a deletion was asked for before it was.
    Abandoned,
}

impl State {
    /// The name in the API.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Recovered => "recovered",
            Self::Abandoned => "abandoned",
        }
    }
}

/// One incident. The times are in order; those of start, health and pairing belong to the last attempt, and a step that
/// an attempt did not need, such as the start of what was restarted from outside, has none.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Incident {
    /// Of the entry that it was found with; grows along an agent's incidents.
    pub seq: u64,
    /// What brought it about.
    pub kind: Kind,
    /// What exactly, as in the timeline.
    pub code: String,
    /// What the timeline's entry says beyond the code, without secrets.
    pub detail: Option<String>,
    /// The code with which the instance ended, 128 and more for a signal; `None` if it did not end.
    pub exit_code: Option<i32>,
    /// How it stands, as far as the entries go.
    pub state: State,
    /// The attempt that it ended with, or that is under way.
    pub attempt: u64,
    /// The first sign of it: for a gateway that hangs, the first check that it missed.
    pub detected_at: Timestamp,
    /// When the last wait before an attempt began.
    pub back_off_at: Option<Timestamp>,
    /// When the instance was started.
    pub started_at: Option<Timestamp>,
    /// When its gateway first answered.
    pub healthy_at: Option<Timestamp>,
    /// When the gateway gave a new token.
    pub paired_at: Option<Timestamp>,
    /// When the agent was RUNNING again, or the incident was abandoned; `None` while it is open.
    pub ended_at: Option<Timestamp>,
}

/// All incidents of a timeline, oldest first. `entries` are in order.
pub fn incidents(entries: &[LogEntry]) -> Vec<Incident> {
    let mut reading = Reading::default();
    let mut all: Vec<Incident> = entries.iter().filter_map(|entry| reading.take(entry)).collect();
    all.extend(reading.open);
    all
}

/// A timeline, read up to some entry.
#[derive(Debug, Clone, Default)]
pub struct Reading {
    open: Option<Incident>,
    /// The first check of a row that was missed, and no incident yet.
    suspect_since: Option<Timestamp>,
    /// Attempt of the entry before: unless it grew, a failure is followed by a wait.
    attempt: Option<u64>,
}

impl Reading {
    /// Reads the next entry; gives the incident that it ends.
    pub fn take(&mut self, entry: &LogEntry) -> Option<Incident> {
        let before = self.attempt.replace(entry.attempt);
        let code = Code::parse(&entry.cause);
        let ended = self.model_incident_ended(code, entry);
        let root = entry.root.as_deref().and_then(Code::parse).or(code);
        if let Some(kind) = root.and_then(Kind::of) {
            self.trouble(kind, entry, before);
        } else {
            self.progress(code, entry, before);
        }
        self.suspect_since = match code {
            Some(Code::HealthMissed) => self.suspect_since.or(Some(entry.time)),
            _ => None,
        };
        let state = match (entry.to, code) {
            // A failed model leaves the agent RUNNING.
            (Status::Running, _) if self.open.as_ref().is_some_and(|open| open.kind == Kind::Model) => return None,
            (Status::Running, _) => State::Recovered,
            (Status::Stopped, _) | (_, Some(Code::StopRequested | Code::DeleteRequested)) => State::Abandoned,
            (Status::Pending | Status::Starting | Status::Stopping | Status::Error, _) => return ended,
        };
        let Some(incident) = self.open.take() else { return ended };
        let paired_at = (state == State::Recovered).then_some(entry.time);
        Some(Incident { state, attempt: entry.attempt, paired_at, ended_at: Some(entry.time), ..incident })
    }

    /// An incident of the model ends when it answers, and is of no account any more when the agent is not RUNNING: what
    /// comes then is another incident.
    fn model_incident_ended(&mut self, code: Option<Code>, entry: &LogEntry) -> Option<Incident> {
        let state = match (code, entry.to) {
            (Some(Code::ModelBack), _) => State::Recovered,
            (_, Status::Running) => return None,
            _ => State::Abandoned,
        };
        let incident = self.open.take_if(|open| open.kind == Kind::Model)?;
        Some(Incident { state, attempt: entry.attempt, ended_at: Some(entry.time), ..incident })
    }

    /// Whether nothing is wrong, so that the rest of the timeline can be read without what came before.
    pub const fn is_blank(&self) -> bool {
        self.open.is_none() && self.suspect_since.is_none()
    }

    fn trouble(&mut self, kind: Kind, entry: &LogEntry, before: Option<u64>) {
        let detected_at = self.suspect_since.unwrap_or(entry.time).min(entry.time);
        let incident = self.open.get_or_insert_with(|| Incident {
            seq: entry.seq,
            kind,
            code: entry.root.clone().unwrap_or_else(|| entry.cause.clone()),
            detail: entry.detail.clone(),
            exit_code: entry.exit_code,
            state: State::Open,
            attempt: entry.attempt,
            detected_at,
            back_off_at: None,
            started_at: None,
            healthy_at: None,
            paired_at: None,
            ended_at: None,
        });
        incident.attempt = entry.attempt;
        if kind == Kind::Model {
            // A model may fail in one way after another: the newest one is what there is to do something about.
            incident.detail.clone_from(&entry.detail);
        }
        (incident.started_at, incident.healthy_at) = (None, None);
        let waits = kind != Kind::Model && before == Some(entry.attempt) && entry.cause != Code::PortTaken.as_str();
        incident.back_off_at = waits.then_some(entry.time);
    }

    fn progress(&mut self, code: Option<Code>, entry: &LogEntry, before: Option<u64>) {
        let Some(incident) = &mut self.open else { return };
        incident.attempt = entry.attempt;
        if before.is_some_and(|before| before != entry.attempt) {
            // Another attempt: what the one before came to is void.
            (incident.started_at, incident.healthy_at) = (None, None);
        }
        match code {
            Some(Code::InstanceStarted) => incident.started_at = Some(entry.time),
            Some(Code::InstanceHealthy) => incident.healthy_at = Some(entry.time),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests;
