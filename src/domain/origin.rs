//! What an instance carries along about its agent, so that a lost store can be made anew from what runs.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::channels::ChannelKind;
use super::field::Problems;
use super::id::UserId;
use super::spec::{AgentSpec, SpecDraft};
use crate::domain::Timestamp;

/// Whose agent it is and what it is to be. No secret is in it: whoever may ask the engine can read it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Origin {
    pub user: UserId,
    pub created_at: Timestamp,
    pub spec: Arc<AgentSpec>,
    /// Channels that it has, whose tokens are secrets.
    pub channels: Vec<ChannelKind>,
}

impl Origin {
    pub fn to_json(&self) -> String {
        serde_json::to_string(self).expect("plain data with string keys always has a JSON form")
    }

    /// Reads what [`Origin::to_json`] wrote. It was in other hands since, so it is checked like what a user sends; `None`
    /// for what is no origin.
    pub fn parse(text: &str) -> Option<Self> {
        let read: Self = serde_json::from_str(text).ok()?;
        let spec = SpecDraft::from(&*read.spec).check(&mut Problems::default())?;
        Some(Self { spec: Arc::new(spec), ..read })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_carried_along_is_read_again_if_it_is_valid() {
        let draft = SpecDraft {
            name: Some("Ada".into()),
            provider: Some("openai".into()),
            model: Some("m".into()),
            ..SpecDraft::default()
        };
        let origin = Origin {
            user: UserId::new(),
            created_at: "2026-11-01T00:00:00.5Z".parse().unwrap(),
            spec: Arc::new(draft.check(&mut Problems::default()).unwrap()),
            channels: vec![ChannelKind::Slack],
        };
        let json = origin.to_json();
        assert_eq!(Origin::parse(&json), Some(origin));
        assert_eq!(Origin::parse(&json.replace("\"temperature\":0.7", "\"temperature\":9.7")), None);
        assert_eq!(Origin::parse(&json.replace("UTC", "../../etc/passwd")), None);
        assert_eq!(Origin::parse(""), None);
    }
}
