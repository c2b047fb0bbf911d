//! What is written down of an instance and of its runs, so that the next service knows them.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::domain::{AgentId, HostPort, InstallationId, Origin, Slug, Timestamp};
use crate::runtime::{Exit, InstanceSpec, RunId};

/// What is kept of an instance's spec: all but its environment and files, which hold secrets.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Record {
    pub(super) installation: InstallationId,
    pub(super) agent: AgentId,
    pub(super) slug: Slug,
    pub(super) generation: u64,
    pub(super) spec_hash: String,
    pub(super) port: Option<HostPort>,
    pub(super) memory_mb: u32,
    /// Runs before this belong to an instance that was replaced.
    pub(super) created: Timestamp,
    #[serde(default)]
    pub(super) origin: Option<Arc<Origin>>,
}

impl Record {
    pub(super) fn new(installation: InstallationId, spec: &InstanceSpec, created: Timestamp) -> Self {
        Self {
            installation,
            agent: spec.key.agent,
            slug: spec.key.slug.clone(),
            generation: spec.generation,
            spec_hash: spec.hash(),
            port: spec.port,
            memory_mb: spec.memory_mb,
            created,
            origin: spec.origin.clone(),
        }
    }
}

/// What is kept of a run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct RunRecord {
    #[serde(rename = "boot")]
    pub(super) run_id: RunId,
    /// Its end was seen, and nothing of it is left.
    #[serde(default)]
    pub(super) ended: bool,
    #[serde(default)]
    pub(super) code: Option<i32>,
    #[serde(default)]
    pub(super) oom: bool,
}

impl RunRecord {
    pub(super) const fn begun(run_id: RunId) -> Self {
        Self { run_id, ended: false, code: None, oom: false }
    }

    pub(super) const fn over(run_id: RunId, exit: &Exit) -> Self {
        Self { run_id, ended: true, code: exit.code, oom: exit.oom }
    }

    pub(super) const fn exit(&self) -> Exit {
        Exit { code: self.code, oom: self.oom, asked: false, reason: None }
    }
}
