//! An agent's memory and workspace as its owner's: taken out, brought in, copied.
//!
//! A new agent with data from elsewhere is stored at rest, gets its data, and is started only then. Until it is, nobody was
//! told of it: one that is cut short is removed, by the call itself or by the next start of the service.

use std::sync::Arc;

use tokio::sync::oneshot;
use tokio::time::timeout;

use super::ControlPlane;
use super::handle::{AgentHandle, CommandError};
use super::new_agent::{CreateError, NewAgent};
use crate::actor::{UpgradeStep, key_of, place, remembered, snapshot};
use crate::domain::{AgentSpec, Channels, Credentials, Software, StagedFile, UserId};
use crate::lifecycle::{AgentState, Cause, Code, Command, Phase};
use crate::runtime::{ImageChoice, RuntimeError};
use crate::zeroclaw::bundle::{Bundle, BundleError};
use crate::zeroclaw::migration::{belongs, layout};

/// Why nothing was exported, imported or cloned.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DataError {
    /// The agent was deleted, or the service ends.
    #[error("the agent is gone")]
    Gone,
    /// The archive is no export of an agent, or holds nothing that the version of new agents can read.
    #[error("the archive {0}")]
    Bundle(#[from] BundleError),
    /// The new agent could not be recorded.
    #[error(transparent)]
    Create(#[from] CreateError),
    /// The engine could not do it, or does not answer.
    #[error(transparent)]
    Runtime(#[from] RuntimeError),
    /// A command to the new agent failed after it got its data; the agent is kept, and stopped.
    #[error(transparent)]
    Command(#[from] CommandError),
    /// The data could not be put into the new agent, which is removed again.
    #[error("the data could not be brought in: {0}")]
    NotPlaced(String),
}

impl ControlPlane {
    /// A new agent with this data. Its spec is the caller's; the memory is brought to whatever version new agents run. One
    /// whose model needs a key that is missing stays at rest until it has one.
    ///
    /// # Errors
    /// See [`DataError`]; nothing is left then.
    pub async fn import_agent(&self, user: UserId, new: NewAgent, bundle: &Bundle) -> Result<AgentHandle, DataError> {
        let _turn = self.shared.services.transfers.acquire().await.map_err(|_closed| DataError::Gone)?;
        self.bring_in(user, new, bundle).await
    }

    async fn bring_in(&self, user: UserId, new: NewAgent, bundle: &Bundle) -> Result<AgentHandle, DataError> {
        let software = self.software_of_new_agents().await?;
        let profile = software.as_ref().map_or(self.shared.services.profile, |software| software.profile);
        let (files, untold) = bundle.files_for(profile)?;
        let runnable = !new.spec.provider.needs_key() || new.credentials.api_key.is_some();
        let importing =
            AgentState { phase: Phase::Stopped, reason: Some(Cause::new(Code::Importing)), ..AgentState::new() };
        let agent = self.create_as(user, new, importing, untold).await?;
        match agent.fill(software.as_ref(), files).await {
            Ok(()) => {}
            Err(why) => {
                let _ = agent.delete().await;
                return Err(why);
            }
        }
        if runnable {
            agent.start().await?;
        } else {
            let view = agent.view().ok_or(DataError::Gone)?;
            let cause = Cause::because(Code::SecretsMissing, SUPPLY_KEY);
            let step = UpgradeStep { upgrade: None, untold: view.record.untold, cause };
            agent.step(&view, Command::Update { inside: false }, step).await?;
        }
        Ok(agent)
    }

    async fn software_of_new_agents(&self) -> Result<Option<Software>, DataError> {
        let asked = self
            .shared
            .services
            .runtime
            .software(ImageChoice::Default, Arc::new(|text: String| tracing::info!("{text}")));
        let late = |_| RuntimeError::Unavailable("the image was not fetched in time".into());
        Ok(timeout(self.shared.services.settings.limits.prepare, asked).await.map_err(late)??)
    }

    /// Removes agents whose import the service was stopped in the middle of: nobody was told of them.
    pub(super) fn remove_half_imported(&self) {
        for id in self.shared.services.views.ids() {
            let agent = AgentHandle::new(Self { _alive: None, ..self.clone() }, id);
            if agent.is_being_imported() {
                self.shared.services.tasks.spawn(async move {
                    tracing::warn!(agent = %agent.id(), "an import was cut short; its agent is removed");
                    if let Err(error) = agent.delete().await {
                        tracing::warn!(agent = %agent.id(), %error, "it could not be removed");
                    }
                });
            }
        }
    }
}

const SUPPLY_KEY: &str = "an export holds no secrets: supply apiKey by PATCH, then start the agent";

impl AgentHandle {
    /// Whether its data is not there yet. Nobody was told of it.
    pub fn is_being_imported(&self) -> bool {
        let importing = |cause: &Cause| cause.code == Code::Importing;
        let view = self.view();
        view.is_some_and(|view| {
            let state = &view.record.state;
            state.phase == Phase::Stopped && state.reason.as_ref().is_some_and(importing)
        })
    }

    /// The agent's workspace and memory, as they are at one moment, while it goes on.
    ///
    /// # Errors
    /// [`RuntimeError::NotFound`] before its instance was ever created, [`RuntimeError::Conflict`] where it writes all the
    /// time.
    pub async fn export(&self) -> Result<Bundle, DataError> {
        let services = &self.plane.shared.services;
        let _turn = services.transfers.acquire().await.map_err(|_closed| DataError::Gone)?;
        self.bundle().await
    }

    async fn bundle(&self) -> Result<Bundle, DataError> {
        let services = &self.plane.shared.services;
        let view = self.view().ok_or(DataError::Gone)?;
        let record = &view.record;
        let software = record.software.as_deref();
        let profile = software.map_or(services.profile, |software| software.profile);
        // What a gateway cannot tell is in the files all the same.
        let entries = match remembered(services, &view).await {
            Some(entries) => entries.ok(),
            None => None,
        };
        let wanted = move |path: &str| belongs(profile, path);
        let files = snapshot(services, &key_of(record), layout(profile).roots, &wanted).await?;
        let files = databases_made_whole(files).await?;
        let version = software.and_then(|software| software.version.clone());
        Ok(Bundle::new(profile, version, AgentSpec::clone(&record.spec), entries, &files, services.clock.now()))
    }

    /// A new agent of the same owner with this one's key, workspace and memory, and with the configuration of `new`; without
    /// channels, since two agents cannot share one bot.
    ///
    /// # Errors
    /// See [`DataError`]; nothing is left then.
    pub async fn duplicate(&self, new: NewAgent) -> Result<Self, DataError> {
        let services = &self.plane.shared.services;
        let _turn = services.transfers.acquire().await.map_err(|_closed| DataError::Gone)?;
        let view = self.view().ok_or(DataError::Gone)?;
        let bundle = self.bundle().await?;
        let api_key = self.credentials().and_then(|credentials| credentials.api_key);
        let new = NewAgent { credentials: Credentials { api_key, channels: Channels::default() }, ..new };
        self.plane.bring_in(view.record.user, new, &bundle).await
    }

    /// Puts the data in, in the agent's turn: a command that comes meanwhile waits for it.
    async fn fill(&self, software: Option<&Software>, files: Vec<StagedFile>) -> Result<(), DataError> {
        let view = self.view().ok_or(DataError::Gone)?;
        let (services, software) = (Arc::clone(&self.plane.shared.services), software.cloned());
        let (ended, end) = oneshot::channel();
        self.plane.shared.services.job_queues.run(self.id(), move |_cancel| async move {
            let placed = place(&services, &view.record, view.port, software.as_ref(), &files);
            let within = services.settings.limits.prepare;
            let placed = timeout(within, placed).await.map_err(|_| "no answer in time".to_owned());
            let _ = ended.send(placed.and_then(|placed| placed.map_err(|failure| failure.cause.message())));
        });
        end.await.unwrap_or_else(|_| Err("the service ends".into())).map_err(DataError::NotPlaced)
    }
}

#[cfg(feature = "gateway")]
async fn databases_made_whole(files: Vec<StagedFile>) -> Result<Vec<StagedFile>, DataError> {
    let whole = tokio::task::spawn_blocking(|| crate::zeroclaw::database::made_whole(files)).await;
    whole.map_err(|_| RuntimeError::Failed("the copy of the agent's memory cannot be read".into()).into())
}

/// Without SQLite in the program a database goes with its log.
#[cfg(not(feature = "gateway"))]
async fn databases_made_whole(files: Vec<StagedFile>) -> Result<Vec<StagedFile>, DataError> {
    Ok(files)
}
