//! Plans and what they allow.

use serde::{Deserialize, Serialize};

/// What a user pays for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Plan {
    /// 3 agents of half a core and 128 MiB each.
    Free,
    /// 20 agents of a core and 256 MiB each.
    Pro,
    /// As many agents as there is room for, of two cores and 512 MiB each.
    Enterprise,
}

impl Plan {
    /// A plan by its name.
    ///
    /// # Errors
    /// A sentence that lists the plans.
    pub fn parse(text: &str) -> Result<Self, String> {
        match text {
            "free" => Ok(Self::Free),
            "pro" => Ok(Self::Pro),
            "enterprise" => Ok(Self::Enterprise),
            _ => Err("must be one of free, pro, enterprise".into()),
        }
    }

    /// Its name in the API.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Free => "free",
            Self::Pro => "pro",
            Self::Enterprise => "enterprise",
        }
    }

    /// What the plan gives where nothing else was agreed on.
    pub const fn limits(self) -> Limits {
        match self {
            Self::Free => Limits { max_agents: Some(3), cpu: 0.5, memory_mb: 128 },
            Self::Pro => Limits { max_agents: Some(20), cpu: 1.0, memory_mb: 256 },
            Self::Enterprise => Limits { max_agents: None, cpu: 2.0, memory_mb: 512 },
        }
    }
}

/// How many agents a user may have, and how much each of them may take.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct Limits {
    /// `None`: as many as there are ports.
    pub max_agents: Option<u32>,
    /// Cores an agent may use, e.g. 0.5.
    pub cpu: f64,
    /// Memory of an agent in MiB.
    pub memory_mb: u32,
}

impl Limits {
    setters! {
        with_max_agents(max_agents: impl Into<Option<u32>> => max_agents.into());
        with_cpu(cpu: f64);
        with_memory_mb(memory_mb: u32);
    }
}
