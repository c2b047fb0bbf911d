//! Creating an agent, and changing what it is.

use std::sync::Arc;

use super::handle::{AgentHandle, CommandError, CommandOutcome};
use super::{ACTOR_PATIENCE, ControlPlane};
use crate::actor::{
    API_KEY_FIELD, AskError, CHANNELS_FIELD, Change, CreateRefusal, Creation, Denied, IdempotencyClaim, RETIRED_FIELD,
    RegistryMsg, ask, open_credentials, open_retired,
};
use crate::audit;
use crate::domain::{AgentId, AgentSpec, Channels, Credentials, Secret, Slug, UserId};
use crate::ledger::{Refusal, SlugRequest};
use crate::lifecycle::{AgentState, Command};
use crate::store::{AgentRecord, StoreError};
use crate::vault::{Binding, Sealed};

/// Former secrets that are remembered: more than an agent's kept output can hold, unless they change by the minute.
const MAX_RETIRED: usize = 16;

/// An agent to be; valid by construction.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct NewAgent {
    /// Given by callers who must find the agent again after a crash; a new one by default. Where there are cells it gets the
    /// number of this one ([`AgentId::in_cell`]).
    pub id: AgentId,
    /// What it is to be.
    pub spec: AgentSpec,
    /// Its secrets in clear text; they are sealed before they are stored.
    pub credentials: Credentials,
    /// Exactly this slug, or none at all; `None` for one made from the name.
    pub slug: Option<Slug>,
    /// Recorded in the same transaction as the agent.
    pub idempotency: Option<IdempotencyClaim>,
}

impl NewAgent {
    /// With a new id, a slug made from the name, and no idempotency key.
    pub fn new(spec: AgentSpec, credentials: Credentials) -> Self {
        Self { id: AgentId::new(), spec, credentials, slug: None, idempotency: None }
    }

    setters! {
        with_id(id: AgentId);
        with_slug(slug: impl Into<Option<Slug>> => slug.into());
        with_idempotency(idempotency: impl Into<Option<IdempotencyClaim>> => idempotency.into());
    }
}

/// A change: what is `None` stays.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct AgentPatch {
    /// Only if the agent still has this generation.
    pub if_generation: Option<u64>,
    /// The whole specification in place of the present one.
    pub spec: Option<AgentSpec>,
    /// `Some(None)` takes the key away.
    pub api_key: Option<Option<Secret<String>>>,
    /// All channels in place of the present ones.
    pub channels: Option<Channels>,
}

impl AgentPatch {
    setters! {
        with_if_generation(if_generation: impl Into<Option<u64>> => if_generation.into());
        with_spec(spec: AgentSpec => Some(spec));
        with_api_key(api_key: impl Into<Option<Secret<String>>> => Some(api_key.into()));
        with_channels(channels: Channels => Some(channels));
    }
}

/// Why no agent was created. Nothing is left of it then, unless the outcome is unknown.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum CreateError {
    /// The user has as many as their plan or their own limits allow.
    #[error("the plan allows {limit} agents, and {used} exist")]
    Quota {
        /// How many agents the user may have.
        limit: u32,
        /// How many there are.
        used: u32,
    },
    /// Another agent has exactly the slug that was asked for.
    #[error("the slug is taken")]
    SlugTaken,
    /// All host ports that agents may get are in use.
    #[error("no port is free")]
    NoFreePort,
    /// The user does not exist, is suspended, or is being deleted.
    #[error("no such user")]
    NoSuchUser,
    /// The embedder's own rule said no.
    #[error(transparent)]
    Denied(#[from] Denied),
    /// The store did not take it; the outcome is unknown where that error says so.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The registry did not answer: the outcome is unknown.
    #[error("the registry: {0}")]
    Registry(#[from] AskError),
}

impl CreateError {
    /// Why the registry made none.
    pub(super) fn refused(refusal: CreateRefusal) -> Self {
        match refusal {
            CreateRefusal::Ledger(Refusal::Quota { limit, used }) => Self::Quota { limit, used },
            CreateRefusal::Ledger(Refusal::SlugTaken) => Self::SlugTaken,
            // An allocation is missing only where one is to be changed.
            CreateRefusal::Ledger(Refusal::NoFreePort | Refusal::NotAllocated) => Self::NoFreePort,
            CreateRefusal::NoSuchUser => Self::NoSuchUser,
            CreateRefusal::Denied(denied) => Self::Denied(denied),
            CreateRefusal::Store(error) => Self::Store(error),
        }
    }
}

impl ControlPlane {
    /// Creates an agent: stored when this answers; the deployment goes on by itself. Dropped before it answers, it may have
    /// made the agent or not: [`ControlPlane::agent`] tells by [`NewAgent::id`].
    ///
    /// # Errors
    /// See [`CreateError`].
    pub async fn create_agent(&self, user: UserId, new: NewAgent) -> Result<AgentHandle, CreateError> {
        self.create_as(user, new, AgentState::new(), false).await
    }

    /// Creates an agent in this state. `untold`: entries of its memory will wait in its data.
    pub(super) async fn create_as(
        &self,
        user: UserId,
        new: NewAgent,
        state: AgentState,
        untold: bool,
    ) -> Result<AgentHandle, CreateError> {
        let NewAgent { id, spec, credentials, slug, idempotency } = new;
        let id = id.in_cell(self.cell());
        let (slug, wish) = match slug {
            Some(slug) => (slug.clone(), SlugRequest::Exact(slug)),
            None => {
                let slug = Slug::suggest(&spec.name);
                (slug.clone(), SlugRequest::Suggested(slug))
            }
        };
        let record = AgentRecord {
            api_key: credentials.api_key.as_ref().map(|key| self.seal_key(id, key)),
            channels: self.seal_channels(id, &credentials.channels),
            channel_kinds: credentials.channels.kinds(),
            untold,
            state,
            ..AgentRecord::new(id, user, slug, self.shared.services.clock.now(), Arc::new(spec))
        };
        let creation = Box::new(Creation { record, slug: wish, idempotency, adopted: false, acting: audit::current() });
        let registry = self.shared.registry.load_full();
        let view = ask(&registry, |reply| RegistryMsg::Create { creation, reply }, ACTOR_PATIENCE)
            .await?
            .map_err(CreateError::refused)?;
        Ok(AgentHandle::new(self.clone(), view.record.id))
    }

    fn seal_key(&self, agent: AgentId, key: &Secret<String>) -> Sealed {
        self.shared.services.vault.seal(&Binding::agent(agent, API_KEY_FIELD), key.expose().as_bytes())
    }

    fn seal_channels(&self, agent: AgentId, channels: &Channels) -> Option<Sealed> {
        (!channels.is_empty()).then(|| {
            let json = Secret::new(channels.expose_json().to_string().into_bytes());
            self.shared.services.vault.seal(&Binding::agent(agent, CHANNELS_FIELD), json.expose())
        })
    }
}

impl AgentHandle {
    /// Secrets that the agent had and has no more, the newest last.
    pub fn retired_secrets(&self) -> Vec<Secret<String>> {
        self.view().map(|view| open_retired(&self.plane.shared.services, &view.record)).unwrap_or_default()
    }

    /// What of these credentials is not the agent's already. Some that cannot be read are news: they are replaced.
    fn news(
        &self,
        record: &AgentRecord,
        api_key: Option<Option<Secret<String>>>,
        channels: Option<Channels>,
    ) -> AgentPatch {
        let before = open_credentials(&self.plane.shared.services, record).ok();
        let before = before.as_ref();
        AgentPatch {
            api_key: api_key.filter(|key| before.is_none_or(|before| before.api_key != *key)),
            channels: channels.filter(|channels| before.is_none_or(|before| before.channels != *channels)),
            ..AgentPatch::default()
        }
    }

    /// What the agent's former secrets are after this change.
    fn retire(
        &self,
        record: &AgentRecord,
        api_key: &Option<Option<Secret<String>>>,
        channels: &Option<Channels>,
    ) -> Option<Sealed> {
        let before = open_credentials(&self.plane.shared.services, record).unwrap_or_default();
        let after = Credentials {
            api_key: api_key.clone().unwrap_or_else(|| before.api_key.clone()),
            channels: channels.clone().unwrap_or_else(|| before.channels.clone()),
        };
        let gone: Vec<&Secret<String>> =
            before.secrets().filter(|secret| !after.secrets().any(|kept| kept == *secret)).collect();
        if gone.is_empty() {
            return record.retired.clone();
        }
        let mut retired = open_retired(&self.plane.shared.services, record);
        retired.retain(|known| !gone.contains(&known));
        retired.extend(gone.into_iter().cloned());
        let newest = &retired[retired.len().saturating_sub(MAX_RETIRED)..];
        let texts: Vec<&String> = newest.iter().map(Secret::expose).collect();
        let json = Secret::new(serde_json::to_vec(&texts).unwrap_or_default());
        Some(self.plane.shared.services.vault.seal(&Binding::agent(record.id, RETIRED_FIELD), json.expose()))
    }

    /// Changes what the agent is; one that runs is restarted if it must see the change. [`CommandOutcome::Unchanged`] where it is so
    /// already.
    ///
    /// # Errors
    /// See [`CommandError`].
    pub async fn update(&self, patch: AgentPatch) -> Result<CommandOutcome, CommandError> {
        let view = self.view().ok_or(CommandError::Gone)?;
        let record = &view.record;
        let AgentPatch { if_generation, spec, api_key, channels } = patch;
        let stale = if_generation.is_some_and(|wanted| wanted != record.state.generation);
        let patch = AgentPatch { if_generation, spec, ..self.news(record, api_key, channels) };
        let same_spec = patch.spec.as_ref().is_none_or(|spec| *spec == *record.spec);
        if !stale && same_spec && patch.api_key.is_none() && patch.channels.is_none() {
            // A restart for nothing would lose messages.
            return Ok(CommandOutcome::Unchanged);
        }
        let spec = patch.spec.map_or_else(|| Arc::clone(&record.spec), Arc::new);
        let inside = record.spec.differs_inside(&spec) || patch.api_key.is_some() || patch.channels.is_some();
        let api_key = match &patch.api_key {
            Some(key) => key.as_ref().map(|key| self.plane.seal_key(record.id, key)),
            None => record.api_key.clone(),
        };
        let (channels, channel_kinds) = match &patch.channels {
            Some(channels) => (self.plane.seal_channels(record.id, channels), channels.kinds()),
            None => (record.channels.clone(), record.channel_kinds.clone()),
        };
        // Built on what this view shows: if the agent was changed since, it is refused rather than half undone.
        let if_generation = patch.if_generation.unwrap_or(record.state.generation);
        let retired = self.retire(record, &patch.api_key, &patch.channels);
        let change = Change { spec, api_key, channels, channel_kinds, retired, upgrade: None };
        self.command(Command::Update { inside }, Some(Box::new(change)), Some(if_generation)).await
    }
}
