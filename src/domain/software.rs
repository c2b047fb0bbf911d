//! Which ZeroClaw an agent runs.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{AgentId, Timestamp};

/// A family of ZeroClaw's versions that behave alike from outside.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Profile {
    /// 0.1 to 0.5.
    #[serde(rename = "0.1")]
    V01,
    /// 0.6 and 0.7: as before, but some images start unpaired and as `daemon`, so that nothing is left to their defaults.
    #[serde(rename = "0.6")]
    V06,
    /// 0.8 and later: a config schema of its own, other environment variables, another place for the persona.
    #[serde(rename = "0.8")]
    V08,
    /// Our own gateway, which keeps 0.1.7's contract and runs its channels by itself.
    #[serde(rename = "embedded")]
    Embedded,
}

/// What an agent's instance is made from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Software {
    /// How it is configured and talked to.
    pub profile: Profile,
    /// Such as `0.8.7`, where it is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// `None` where the runtime has no images.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<ImageRef>,
}

impl Software {
    /// Of this family, without a version or an image.
    pub const fn new(profile: Profile) -> Self {
        Self { profile, version: None, image: None }
    }

    setters! {
        with_version(version: impl Into<String> => Some(version.into()));
        with_image(image: impl Into<Option<ImageRef>> => image.into());
    }
}

/// An image: the name that it was asked for by, and the engine's id of its content. A name may be moved to other content.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageRef {
    /// Such as `ghcr.io/example/zeroclaw:0.8.7`.
    pub name: String,
    /// Such as `sha256:…`; the same content has the same id under any name.
    pub id: String,
}

/// An exchange of what an agent runs. It is in the agent's record until it is over, so that one that was cut short goes on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Upgrade {
    /// What it ran before, and runs again if the upgrade is taken back.
    pub from: Software,
    /// What it shall run.
    pub to: Software,
    /// How far it is.
    pub stage: UpgradeStage,
    /// When it was asked for.
    pub since: Timestamp,
    /// How many entries the agent remembered before; `None` where its gateway could not tell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remembered: Option<u64>,
    /// Why it is taken back, if it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<Arc<str>>,
}

/// How far an upgrade is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", tag = "name")]
#[non_exhaustive]
pub enum UpgradeStage {
    /// The agent runs on; what it shall run is tried with a copy of its data, in this instance.
    Rehearsing {
        /// The id of the trial's instance, which is no agent.
        instance: AgentId,
    },
    /// The new version was put in the old one's place and is to prove that it works.
    Forward,
    /// The old version is put back with its data.
    Back,
}

impl UpgradeStage {
    /// Its name in the API.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Rehearsing { .. } => "rehearsing",
            Self::Forward => "forward",
            Self::Back => "back",
        }
    }
}

impl Upgrade {
    /// What the agent shall run now.
    pub const fn wanted(&self) -> &Software {
        match self.stage {
            UpgradeStage::Forward => &self.to,
            UpgradeStage::Rehearsing { .. } | UpgradeStage::Back => &self.from,
        }
    }
}

impl Profile {
    /// Every family there is.
    pub const ALL: &'static [Self] = &[Self::V01, Self::V06, Self::V08, Self::Embedded];

    /// By the name that the configuration has for it.
    ///
    /// # Errors
    /// A sentence that lists the names.
    pub fn parse(text: &str) -> Result<Self, String> {
        Self::ALL
            .iter()
            .copied()
            .find(|profile| profile.as_str() == text)
            .ok_or_else(|| "must be one of 0.1, 0.6, 0.8, embedded".into())
    }

    /// Its name in the configuration.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::V01 => "0.1",
            Self::V06 => "0.6",
            Self::V08 => "0.8",
            Self::Embedded => "embedded",
        }
    }

    /// By a version such as `0.1.7`, `v0.6.9` or `0.8.7-debian`; `None` where the text is no version. A version newer
    /// than all that were measured counts as the newest of them.
    pub fn of_version(version: &str) -> Option<Self> {
        let mut numbers = version.strip_prefix('v').unwrap_or(version).split(['.', '-', '+']);
        let major: u32 = numbers.next()?.parse().ok()?;
        let minor: u32 = numbers.next()?.parse().ok()?;
        Some(match (major, minor) {
            (0, 0..=5) => Self::V01,
            (0, 6 | 7) => Self::V06,
            _ => Self::V08,
        })
    }
}

impl fmt::Display for Profile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_back() {
        for &profile in Profile::ALL {
            assert_eq!(Profile::parse(profile.as_str()), Ok(profile));
            assert_eq!(serde_json::to_value(profile).unwrap(), profile.as_str());
        }
        assert!(Profile::parse("0.2").is_err());
    }
}
