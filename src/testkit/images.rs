//! The images of the engine in memory: what their gateways are, and where these keep what they remember.

use std::collections::BTreeMap;

use super::behavior::{GatewayBehavior, GatewayFault};
use super::state::State;
use crate::domain::{AgentId, ImageRef, Profile, Software};
use crate::runtime::{ImageChoice, RuntimeError, RuntimeResult};
use crate::zeroclaw::memory::MemoryEntry;
use crate::zeroclaw::migration::layout;

/// An image, good or bad.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct FakeImage {
    /// Which family of ZeroClaw it holds.
    pub profile: Profile,
    /// The version that it says it has.
    pub version: &'static str,
    /// How its gateways behave.
    pub behavior: GatewayBehavior,
    /// Ends at once with this status, after so many starts that went well.
    pub exits: Option<(u64, i32)>,
    /// What is wrong with its gateways; `None` for what the engine says of all.
    pub fault: Option<GatewayFault>,
    /// Finds nothing of what was remembered.
    pub forgets: bool,
}

impl FakeImage {
    /// One that works.
    pub fn new(profile: Profile, version: &'static str) -> Self {
        Self { profile, version, behavior: GatewayBehavior::default(), exits: None, fault: None, forgets: false }
    }

    setters! {
        with_behavior(behavior: GatewayBehavior);
        with_exits(exits: impl Into<Option<(u64, i32)>> => exits.into());
        with_fault(fault: impl Into<Option<GatewayFault>> => fault.into());
        with_forgets(forgets: bool);
    }
}

#[derive(Debug, Default)]
pub(super) struct Images {
    starts: BTreeMap<String, u64>,
    named: BTreeMap<String, FakeImage>,
    default: Option<String>,
}

impl Images {
    pub(super) fn add(&mut self, name: &str, image: FakeImage) {
        self.default.get_or_insert_with(|| name.to_owned());
        self.named.insert(name.to_owned(), image);
    }

    pub(super) fn get(&self, name: &str) -> Option<&FakeImage> {
        self.named.get(name)
    }
}

impl State {
    pub(super) fn software(&self, choice: ImageChoice<'_>) -> RuntimeResult<Option<Software>> {
        let Some(default) = &self.images.default else { return Ok(None) };
        let name = match choice {
            ImageChoice::Default | ImageChoice::Present => default,
            ImageChoice::Named(name) => name,
            ImageChoice::Kept { known, .. } => {
                known.and_then(|known| Some(&known.image.as_ref()?.name)).unwrap_or(default)
            }
        };
        let image = self.images.get(name).ok_or_else(|| RuntimeError::Invalid(format!("there is no image {name}")))?;
        Ok(Some(Software {
            profile: image.profile,
            version: Some(image.version.into()),
            image: Some(ImageRef { name: name.into(), id: format!("id-of-{name}") }),
        }))
    }

    pub(super) fn image_of(&self, agent: AgentId) -> Option<&FakeImage> {
        self.images.get(&self.instances.get(&agent)?.image.as_ref()?.name)
    }

    /// What the image does to its gateway.
    pub(super) fn image_fault(&self, agent: AgentId) -> Option<GatewayFault> {
        self.image_of(agent)?.fault
    }

    /// Whether this start of an image goes wrong, and how.
    pub(super) fn image_exits(&mut self, agent: AgentId) -> Option<i32> {
        let name = self.instances.get(&agent)?.image.as_ref()?.name.clone();
        let (good, code) = self.images.get(&name)?.exits?;
        let starts = self.images.starts.entry(name).or_default();
        *starts += 1;
        (*starts > good).then_some(code)
    }

    fn memory_path(&self, agent: AgentId) -> String {
        let profile = self.image_of(agent).map_or(Profile::Embedded, |image| image.profile);
        format!("{}/brain.db", layout(profile).memory)
    }

    /// What an agent's gateway remembers: its database is a list in JSON.
    pub(super) fn memory(&self, agent: AgentId) -> Vec<MemoryEntry> {
        let forgets = self.image_of(agent).is_some_and(|image| image.forgets);
        let file = self.volumes.get(&agent).and_then(|volume| volume.files.get(self.memory_path(agent).as_str()));
        file.filter(|_| !forgets).and_then(|file| serde_json::from_slice(file).ok()).unwrap_or_default()
    }

    pub(super) fn remember(&mut self, agent: AgentId, entry: MemoryEntry) {
        let mut entries = self.memory(agent);
        entries.retain(|known| known.key != entry.key);
        entries.push(entry);
        let path = self.memory_path(agent);
        if let Some(volume) = self.volumes.get_mut(&agent) {
            volume.files.insert(path.into(), serde_json::to_vec(&entries).unwrap_or_default());
        }
    }
}
