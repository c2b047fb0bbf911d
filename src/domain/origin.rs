//! What an instance carries along about its agent, so that a lost store can be made anew from what runs.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::channels::ChannelKind;
use super::id::UserId;
use super::spec::AgentSpec;
use super::spec_patch::SpecPatch;
use crate::domain::Timestamp;

/// Whose agent it is and what it is to be. No secret is in it: whoever may ask the engine can read it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct Origin {
    /// Its owner.
    pub user: UserId,
    /// When its owner asked for it.
    pub created_at: Timestamp,
    /// What it is to be, without secrets.
    pub spec: Arc<AgentSpec>,
    /// Channels that it has, whose tokens are secrets.
    pub channels: Vec<ChannelKind>,
}

impl Origin {
    /// Of an agent without channels.
    pub const fn new(user: UserId, created_at: Timestamp, spec: Arc<AgentSpec>) -> Self {
        Self { user, created_at, spec, channels: Vec::new() }
    }

    setters! {
        with_channels(channels: Vec<ChannelKind>);
    }

    /// As a label of the instance has it.
    pub fn to_json(&self) -> String {
        serde_json::to_string(self).expect("plain data with string keys always has a JSON form")
    }

    /// Reads what [`Origin::to_json`] wrote. It was in other hands since, so it is checked like what a user sends; `None`
    /// for what is no origin.
    pub fn parse(text: &str) -> Option<Self> {
        let read: Self = serde_json::from_str(text).ok()?;
        let spec = SpecPatch::recheck(&read.spec).ok()?;
        Some(Self { spec: Arc::new(spec), ..read })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::Provider;

    #[test]
    fn an_origin_is_read_back_only_if_it_is_valid() {
        let origin = Origin {
            user: UserId::new(),
            created_at: "2026-11-01T00:00:00.5Z".parse().unwrap(),
            spec: Arc::new(AgentSpec { temperature: Some(0.7), ..AgentSpec::new("Ada", Provider::Openai, "m") }),
            channels: vec![ChannelKind::Slack],
        };
        let json = origin.to_json();
        assert_eq!(Origin::parse(&json), Some(origin));
        assert_eq!(Origin::parse(&json.replace("\"temperature\":0.7", "\"temperature\":9.7")), None);
        assert_eq!(Origin::parse(&json.replace("UTC", "../../etc/passwd")), None);
        assert_eq!(Origin::parse(""), None);
    }
}
