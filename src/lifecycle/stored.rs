//! How a state is written. There the run stands beside the phase, as it did from the first version on: stores of every version
//! can be read, and what is written now can be read by the versions before this one.

use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::cause::{Cause, FailedModel};
use super::phase::{AfterStop, AgentState, Phase, RetryTarget, Step};
use crate::backoff::Restarts;
use crate::domain::{RunId, Timestamp};

#[derive(Serialize, Deserialize)]
struct StoredState {
    phase: StoredPhase,
    generation: u64,
    attempt: u64,
    revision: u64,
    restart_count: u64,
    restarts: Restarts,
    reason: Option<Cause>,
    instance: Option<StoredInstance>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    failed_model: Option<Arc<FailedModel>>,
}

#[derive(Serialize, Deserialize)]
struct StoredInstance {
    /// Empty where it is not known.
    engine_id: Arc<str>,
    #[serde(rename = "boot")]
    run_id: Option<RunId>,
}

#[derive(Serialize, Deserialize)]
enum StoredPhase {
    Pending,
    Starting { step: StoredStep, stage: bool, rebinds: u8, away_since: Option<Timestamp> },
    Running { misses: u8 },
    Stopping { then: AfterStop, since: Timestamp, retry_at: Option<Timestamp> },
    Stopped,
    Failed { resume: RetryTarget, retry_at: Option<Timestamp> },
}

#[derive(Serialize, Deserialize)]
enum StoredStep {
    #[serde(rename = "Halting")]
    Killing,
    Creating,
    Rebinding,
    Launching,
    Awaiting,
    Probing,
    Pairing,
    BackingOff {
        until: Timestamp,
        #[serde(rename = "halt")]
        kill: bool,
    },
}

impl Serialize for AgentState {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        StoredState::from(self.clone()).serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for AgentState {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        StoredState::deserialize(deserializer).map(Self::from)
    }
}

impl From<AgentState> for StoredState {
    fn from(state: AgentState) -> Self {
        let run_id = state.run_id().cloned();
        let known = state.engine_id.is_some() || run_id.is_some();
        let instance = known.then(|| StoredInstance { engine_id: state.engine_id.unwrap_or_default(), run_id });
        Self {
            phase: state.phase.into(),
            generation: state.generation,
            attempt: state.attempt,
            revision: state.revision,
            restart_count: state.restart_count,
            restarts: state.restarts,
            reason: state.reason,
            instance,
            failed_model: state.failed_model,
        }
    }
}

impl From<StoredState> for AgentState {
    fn from(stored: StoredState) -> Self {
        let (engine_id, run_id) = match stored.instance {
            Some(StoredInstance { engine_id, run_id }) => (Some(engine_id).filter(|id| !id.is_empty()), run_id),
            None => (None, None),
        };
        let phase = stored.phase.about(run_id.as_ref());
        Self {
            leftover: run_id.filter(|_| phase.run_id().is_none()),
            phase,
            generation: stored.generation,
            attempt: stored.attempt,
            revision: stored.revision,
            restart_count: stored.restart_count,
            restarts: stored.restarts,
            reason: stored.reason,
            engine_id,
            failed_model: stored.failed_model,
        }
    }
}

impl StoredPhase {
    /// The phase of a state whose run is this one.
    fn about(self, run_id: Option<&RunId>) -> Phase {
        match self {
            Self::Pending => Phase::Pending,
            Self::Starting { step, stage, rebinds, away_since } => {
                Phase::Starting { step: step.about(run_id), stage, rebinds, away_since }
            }
            Self::Running { misses } => match run_id {
                Some(run_id) => Phase::Running { run_id: run_id.clone(), misses },
                None => Phase::Starting { step: Self::LOST, stage: false, rebinds: 0, away_since: None },
            },
            Self::Stopping { then, since, retry_at } => Phase::Stopping { then, since, retry_at },
            Self::Stopped => Phase::Stopped,
            Self::Failed { resume, retry_at } => Phase::Failed { resume, retry_at },
        }
    }

    /// Where to go on if the run is missing from a phase that is about one. No version is known to have written that; a step that
    /// takes up whatever runs is a better answer to it than a store that cannot be opened.
    const LOST: Step = Step::Creating;
}

impl StoredStep {
    fn about(self, run_id: Option<&RunId>) -> Step {
        match (self, run_id) {
            (Self::Killing, _) => Step::Killing,
            (Self::Creating, _) => Step::Creating,
            (Self::Rebinding, _) => Step::Rebinding,
            (Self::Launching, _) => Step::Launching,
            (Self::Awaiting, _) => Step::Awaiting,
            (Self::Probing, Some(run_id)) => Step::Probing { run_id: run_id.clone() },
            (Self::Pairing, Some(run_id)) => Step::Pairing { run_id: run_id.clone() },
            (Self::Probing | Self::Pairing, None) => StoredPhase::LOST,
            (Self::BackingOff { until, kill }, _) => Step::BackingOff { until, kill },
        }
    }
}

impl From<Phase> for StoredPhase {
    fn from(phase: Phase) -> Self {
        match phase {
            Phase::Pending => Self::Pending,
            Phase::Starting { step, stage, rebinds, away_since } => {
                Self::Starting { step: step.into(), stage, rebinds, away_since }
            }
            Phase::Running { run_id: _, misses } => Self::Running { misses },
            Phase::Stopping { then, since, retry_at } => Self::Stopping { then, since, retry_at },
            Phase::Stopped => Self::Stopped,
            Phase::Failed { resume, retry_at } => Self::Failed { resume, retry_at },
        }
    }
}

impl From<Step> for StoredStep {
    fn from(step: Step) -> Self {
        match step {
            Step::Killing => Self::Killing,
            Step::Creating => Self::Creating,
            Step::Rebinding => Self::Rebinding,
            Step::Launching => Self::Launching,
            Step::Awaiting => Self::Awaiting,
            Step::Probing { run_id: _ } => Self::Probing,
            Step::Pairing { run_id: _ } => Self::Pairing,
            Step::BackingOff { until, kill } => Self::BackingOff { until, kill },
        }
    }
}
