//! What is done to containers: found by their labels, created, started, ended, removed.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bollard::models::VolumeCreateRequest;
use bollard::query_parameters::{
    CreateContainerOptionsBuilder, KillContainerOptionsBuilder, RemoveVolumeOptions, StartContainerOptions,
    StopContainerOptionsBuilder, UploadToContainerOptionsBuilder,
};
use futures_util::{StreamExt, stream};

use super::answers::Container;
use super::engine::{CHANGE, Engine, READ, change};
use super::failure::{Failure, name_taken, port_taken};
use super::observe::{self, Found, best_first};
use super::{DockerRuntime, container};
use crate::domain::{AgentId, InstallationId};
use crate::runtime::{
    DataPolicy, InstanceKey, InstanceSpec, InstanceState, ObservedInstance, Progress, Run, RuntimeCall, RuntimeError,
    RuntimeResult, StagedFile, archive,
};
use crate::zeroclaw::profile::DATA_DIR;

/// Deadline of a start: half a second on a quiet machine, several when many start at once.
const START: Duration = Duration::from_secs(30);

/// How long a start may wait for its turn under the throttle.
const START_QUEUE: Duration = Duration::from_secs(60);

/// What a stop may take beyond its grace: the engine waits ten seconds for a process to go after SIGKILL.
const STOP_MARGIN: Duration = Duration::from_secs(15);

/// How long a removal that the engine is already busy with may take, and how often it is looked at.
const REMOVAL: Duration = Duration::from_secs(20);
const REMOVAL_POLL: Duration = Duration::from_millis(100);

/// Containers that are looked at side by side when all are listed.
const INSPECTIONS: usize = 16;

impl DockerRuntime {
    /// The container to go by. Looked up by its name first, which costs a millisecond, then by its labels.
    pub(super) async fn find(&self, key: &InstanceKey) -> RuntimeResult<Option<Found>> {
        let named = self.engine.inspect(&container::container_name(&key.slug)).await?;
        if let Some(inspected) = named {
            let found = self.read(inspected)?;
            if let Some(found) = found.filter(|found| found.observed.key.agent == key.agent) {
                return Ok(Some(found));
            }
        }
        Ok(self.find_all(Some(key.agent)).await?.into_iter().next())
    }

    fn read(&self, inspected: Container) -> RuntimeResult<Option<Found>> {
        let mut found = observe::found(self.options.installation, self.options.reach, &self.boots, inspected)?;
        if let Some(found) = &mut found {
            found.observed.died = self.exits.last_exit(&found.id);
            if let InstanceState::Exited(exit) = &mut found.observed.state {
                exit.asked = self.exits.was_asked(&found.id, exit.code);
            }
            self.boots.belongs(&found.id, found.observed.key.agent);
        }
        Ok(found)
    }

    /// What is there of an instance, brought in order first: a second container of the agent, as tools make that replace
    /// one by another, is ended before both write to one volume; an agent's network that this process was taken out of
    /// is joined again before the agent is judged by its answers.
    pub(super) async fn look(&self, key: &InstanceKey) -> RuntimeResult<Option<ObservedInstance>> {
        let suspected = self.suspects.take(key.agent);
        let found = if suspected {
            self.one_of_many(key).await.inspect_err(|_| self.suspects.put_back(key.agent))?
        } else {
            self.find(key).await?
        };
        let Some(found) = found else { return Ok(None) };
        if found.detached && self.networks.rejoin(&self.engine, &self.options, key.agent).await? {
            return Ok(self.find(key).await?.map(|found| found.observed));
        }
        Ok(Some(found.observed))
    }

    /// The container to go by, after all others of the agent that run are ended. Their data is the agent's and stays.
    async fn one_of_many(&self, key: &InstanceKey) -> RuntimeResult<Option<Found>> {
        let mut all = self.find_all(Some(key.agent)).await?.into_iter();
        let best = all.next();
        for surplus in all.filter(|found| !at_rest(found)) {
            tracing::warn!(
                agent = %key.agent, slug = %key.slug, container = surplus.id, name = surplus.name,
                "a second container of this agent runs; it is removed, the agent's data is kept"
            );
            self.discard(&surplus).await?;
        }
        Ok(best)
    }

    pub(super) async fn get(&self, key: &InstanceKey) -> RuntimeResult<Found> {
        self.find(key).await?.ok_or(RuntimeError::NotFound)
    }

    /// All containers of the installation, or of one agent, those to go by first. In a list of all, one that cannot be
    /// read is left out, for it would hide the others.
    pub(super) async fn find_all(&self, agent: Option<AgentId>) -> RuntimeResult<Vec<Found>> {
        let listed = self.engine.containers(&container::owner_filter(self.options.installation, agent)).await?;
        let inspect = |id: String| async move {
            // One that is gone by now is none.
            match self.engine.inspect(&id).await {
                Ok(Some(inspected)) => (self.read(inspected), id),
                Ok(None) => (Ok(None), id),
                Err(error) => (Err(error), id),
            }
        };
        let mut inspected = stream::iter(listed.into_iter().filter_map(|container| container.id))
            .map(inspect)
            .buffer_unordered(INSPECTIONS);
        let mut all = Vec::new();
        while let Some((found, id)) = inspected.next().await {
            match found {
                Ok(found) => all.extend(found),
                Err(error @ (RuntimeError::Failed(_) | RuntimeError::Invalid(_))) if agent.is_none() => {
                    tracing::warn!(container = id, %error, "a container of ours cannot be read");
                }
                Err(error) => return Err(error),
            }
        }
        Ok(best_first(all))
    }

    async fn create(&self, spec: &InstanceSpec) -> RuntimeResult<ObservedInstance> {
        let docker = self.engine.docker().await?;
        let (data_created_now, network) = tokio::try_join!(
            self.ensure_volume(&spec.key),
            self.networks.ensure(&self.engine, &self.options, &spec.key, spec.own_network),
        )?;
        let image = self.image_for(spec).await?;
        let body = container::body(&self.options, spec, &image, &network.name, self.engine.cores().await?)?;
        let name = container::container_name(&spec.key.slug);
        let create = || {
            let options = CreateContainerOptionsBuilder::default().name(&name).build();
            change(CHANGE, "creating the container", docker.create_container(Some(options), body.clone()))
        };
        let mut created = create().await;
        if let Err(Failure::Refused(404, why)) = &created
            && why.to_ascii_lowercase().contains("no such image")
        {
            // Only a container that was there made the image look unnecessary.
            let progress: Progress = Arc::new(|text| tracing::info!("{text}"));
            self.images
                .ensure(&self.engine, &self.options, container::image_name(&self.options, spec), &progress)
                .await?;
            created = create().await;
        }
        let id = match created {
            Ok(created) => {
                self.engine.heed(&created.warnings);
                created.id
            }
            // The network went away a moment after it was looked at.
            Err(Failure::Refused(404, why)) => return Err(RuntimeError::Conflict(why)),
            Err(Failure::Refused(status, why)) if name_taken(status, &why) => {
                return Err(self.name_clash(&spec.key, &name, why).await?);
            }
            Err(failure) => return Err(failure.into()),
        };
        let (found, ()) = tokio::try_join!(self.get(&spec.key), self.upload(&id, &spec.files))?;
        Ok(ObservedInstance { created_now: true, data_created_now, ..found.observed })
    }

    /// What the container is made from: the image's name where it still means the same content, else its id.
    async fn image_for(&self, spec: &InstanceSpec) -> RuntimeResult<String> {
        let Some(image) = &spec.image else { return Ok(self.options.image.clone()) };
        let named = self.engine.image(&image.name).await?;
        let same = named.and_then(|named| named.id).is_some_and(|id| id == image.id);
        Ok(if same { image.name.clone() } else { image.id.clone() })
    }

    /// Who has the name that our container needs.
    async fn name_clash(&self, key: &InstanceKey, name: &str, why: String) -> RuntimeResult<RuntimeError> {
        Ok(match self.engine.inspect(name).await? {
            // Ours of a moment ago, which the next attempt adopts.
            Some(inspected)
                if self.read(inspected.clone())?.is_some_and(|found| found.observed.key.agent == key.agent) =>
            {
                RuntimeError::Conflict(why)
            }
            Some(_) => RuntimeError::NotOwned(format!(
                "the container {name} has the name that this agent's container needs; rename or remove it"
            )),
            None => RuntimeError::Failed(format!(
                "the engine says that the name {name} is in use, and shows no container of that name ({why}); restarting \
                 the engine clears it"
            )),
        })
    }

    /// The engine answers a creation of what exists with what exists. `true`: it did not exist.
    async fn ensure_volume(&self, key: &InstanceKey) -> RuntimeResult<bool> {
        let name = container::volume_name(key.agent);
        let is_new = self.engine.volume(&name).await?.is_none();
        let labels = container::owner_labels(self.options.installation, key);
        let request = VolumeCreateRequest { name: Some(name.clone()), labels: Some(labels), ..Default::default() };
        let docker = self.engine.docker().await?;
        let volume = change(CHANGE, "creating the volume", docker.create_volume(request)).await?;
        if container::owned_by(self.options.installation, Some(key.agent), &volume.labels) {
            Ok(is_new)
        } else {
            Err(RuntimeError::NotOwned(format!("the volume {name}")))
        }
    }

    /// Puts files into the data of a container.
    pub(super) async fn upload(&self, container: &str, files: &[StagedFile]) -> RuntimeResult<()> {
        if files.is_empty() {
            return Ok(());
        }
        let archive = archive::tar(files).map_err(|error| RuntimeError::Invalid(error.to_string()))?;
        let options = UploadToContainerOptionsBuilder::default().path(DATA_DIR).build();
        let docker = self.engine.docker().await?;
        let body = bollard::body_full(archive.into());
        change(CHANGE, "writing files into the container", docker.upload_to_container(container, Some(options), body))
            .await?;
        Ok(())
    }

    /// Removes a container, keeping its data.
    async fn discard(&self, found: &Found) -> RuntimeResult<()> {
        match self.engine.remove_container("removing the container", &found.id).await {
            Ok(()) => {}
            Err(failure) if failure.already() => {}
            Err(Failure::Refused(409, message)) if message.contains("already in progress") => {}
            Err(failure) => return Err(failure.into()),
        }
        let gone = async {
            while self.engine.inspect(&found.id).await?.is_some() {
                tokio::time::sleep(REMOVAL_POLL).await;
            }
            Ok(())
        };
        let late = || RuntimeError::UnknownOutcome("the engine is still removing the container".into());
        tokio::time::timeout(REMOVAL, gone).await.map_err(|_| late())?
    }

    async fn discard_volume(&self, agent: AgentId) -> RuntimeResult<()> {
        let docker = self.engine.docker().await?;
        let name = container::volume_name(agent);
        let Some(volume) = self.engine.volume(&name).await? else { return Ok(()) };
        if !container::owned_by(self.options.installation, Some(agent), &volume.labels) {
            // Somebody else's: ours is not there.
            return Ok(());
        }
        match change(CHANGE, "removing the volume", docker.remove_volume(&name, None::<RemoveVolumeOptions>)).await {
            Ok(()) => Ok(()),
            Err(failure) if failure.already() => Ok(()),
            Err(failure) => Err(failure.into()),
        }
    }

    pub(super) async fn adopt_or_create(&self, spec: &InstanceSpec) -> RuntimeResult<ObservedInstance> {
        let (mut reusable, hash) = (None, spec.hash());
        for found in self.find_all(Some(spec.key.agent)).await? {
            let running = found.observed.run().is_some();
            let setup = container::setup(&self.options, container::image_name(&self.options, spec));
            let same_content = spec.image.is_none()
                || found.image.as_ref().map(|image| &image.id) == spec.image.as_ref().map(|image| &image.id);
            let fits = found.observed.spec_hash == hash && (running || (found.setup == setup && same_content));
            if fits && found.port == spec.port && reusable.is_none() {
                reusable = Some(found);
            } else {
                self.discard(&found).await?;
            }
        }
        let Some(found) = reusable else { return self.create(spec).await };
        if !at_rest(&found) {
            return Ok(found.observed);
        }
        let network = self.networks.ensure(&self.engine, &self.options, &spec.key, spec.own_network).await?;
        if !found.is_whole(&network) {
            tracing::info!(agent = %spec.key.agent, slug = %spec.key.slug, "the container lost its network; it is created again on its data");
            self.discard(&found).await?;
            return self.create(spec).await;
        }
        if found.observed.state == InstanceState::Created {
            // Its creator may not have come to stage its files; before its first start they are unchanged.
            self.upload(&found.id, &spec.files).await?;
        }
        Ok(found.observed)
    }

    pub(super) async fn run(&self, key: &InstanceKey) -> RuntimeResult<Run> {
        let found = self.get(key).await?;
        match &found.observed.state {
            InstanceState::Running(run) => return Ok(run.clone()),
            InstanceState::Paused(_) => {
                let docker = self.engine.docker().await?;
                let unpaused = change(CHANGE, "unpausing the container", docker.unpause_container(&found.id)).await;
                self.unless_it_runs(key, unpaused).await?;
            }
            // The engine here shows no others.
            InstanceState::Created
            | InstanceState::Exited(_)
            | InstanceState::Starting(_)
            | InstanceState::Ending(_)
            | InstanceState::Unreachable(_) => self.start_at_rest(&found).await?,
        }
        // It may have ended at once: a run all the same, whose end shows when it is looked at.
        let lost = || RuntimeError::UnknownOutcome("the container shows no run after its start".into());
        self.get(key).await?.last_run().ok_or_else(lost)
    }

    async fn start_at_rest(&self, found: &Found) -> RuntimeResult<()> {
        let queue = tokio::time::timeout(START_QUEUE, self.starts.acquire()).await;
        let Ok(Ok(_turn)) = queue else {
            return Err(RuntimeError::Capacity("too many instances are being started".into()));
        };
        self.networks.ensure(&self.engine, &self.options, &found.observed.key, false).await?;
        let docker = self.engine.docker().await?;
        if found.waiting {
            // The engine takes a start for done while it waits; a stop ends its waiting.
            self.end(found, Duration::ZERO).await?;
        }
        match change(START, "starting the container", docker.start_container(&found.id, None::<StartContainerOptions>))
            .await
        {
            Ok(()) => Ok(()),
            Err(Failure::Refused(304, _)) => Ok(()),
            Err(Failure::Refused(_, message)) if port_taken(&message) => match found.port {
                Some(port) => Err(RuntimeError::PortTaken(port)),
                None => Err(RuntimeError::Conflict(message)),
            },
            Err(Failure::Refused(404, message)) if self.engine.inspect(&found.id).await?.is_some() => {
                // The container is there, so a part of it is not: its network, its image, a mount. It cannot be mended.
                // Without it the next attempt makes another one on the same data.
                self.discard(found).await?;
                Err(RuntimeError::Conflict(format!("the container lost a part and is created again: {message}")))
            }
            answer => self.unless_it_runs(&found.observed.key, answer).await,
        }
    }

    /// What was refused because another call has done it is done.
    async fn unless_it_runs(&self, key: &InstanceKey, answer: Result<(), Failure>) -> RuntimeResult<()> {
        match answer {
            Err(failure) if failure.in_another_state() => match self.get(key).await?.observed.state {
                InstanceState::Running(_) => Ok(()),
                _ => Err(failure.into()),
            },
            answer => Ok(answer?),
        }
    }

    pub(super) async fn end(&self, found: &Found, grace: Duration) -> RuntimeResult<()> {
        // Whole seconds are all that the engine knows; none at all would be no grace.
        let seconds = i32::try_from(grace.as_secs_f64().ceil() as i64).unwrap_or(i32::MAX);
        let options = StopContainerOptionsBuilder::default().t(seconds).build();
        let docker = self.engine.docker().await?;
        done(
            change(grace + STOP_MARGIN, "stopping the container", docker.stop_container(&found.id, Some(options)))
                .await,
        )
    }

    pub(super) async fn kill_container(&self, key: &InstanceKey) -> RuntimeResult<()> {
        let Some(found) = self.find(key).await? else { return Ok(()) };
        if at_rest(&found) {
            return Ok(());
        }
        let options = KillContainerOptionsBuilder::default().signal("SIGKILL").build();
        let docker = self.engine.docker().await?;
        done(change(STOP_MARGIN, "killing the container", docker.kill_container(&found.id, Some(options))).await)
    }

    pub(super) async fn clear(&self, key: &InstanceKey, data: DataPolicy) -> RuntimeResult<()> {
        for found in self.find_all(Some(key.agent)).await? {
            self.discard(&found).await?;
        }
        self.networks.remove(&self.engine, &self.options, key.agent).await?;
        match data {
            DataPolicy::Keep => Ok(()),
            DataPolicy::Remove => self.discard_volume(key.agent).await,
        }
    }
}

/// Who has containers on this engine, and how many.
pub(super) async fn installations(engine: &Engine) -> RuntimeResult<BTreeMap<InstallationId, usize>> {
    let mut counts = BTreeMap::new();
    for listed in engine.containers(&container::any_owner()).await? {
        if let Some(installation) = container::installation_of(&listed.labels) {
            *counts.entry(installation).or_default() += 1;
        }
    }
    Ok(counts)
}

/// The worst case of each call: its own deadlines, in the order in which they may be used up.
pub(super) fn longest(call: RuntimeCall, pull: Duration) -> Duration {
    let create = READ * 4 + CHANGE * 5;
    match call {
        RuntimeCall::Prepare => READ * 4 + CHANGE + pull,
        RuntimeCall::EnsureCreated => READ + (CHANGE + REMOVAL) + create,
        RuntimeCall::Stage => READ + CHANGE,
        RuntimeCall::Start => READ * 4 + START_QUEUE + CHANGE * 2 + STOP_MARGIN + START,
        RuntimeCall::Stop { grace } => READ * 2 + grace + STOP_MARGIN,
        RuntimeCall::Kill => READ * 2 + STOP_MARGIN,
        RuntimeCall::Remove => READ * 3 + (CHANGE + REMOVAL) + CHANGE * 3,
        RuntimeCall::Observe => READ * 3 + CHANGE,
    }
}

/// Whether neither a process runs nor the engine is about to start one.
pub(super) fn at_rest(found: &Found) -> bool {
    !found.waiting && matches!(found.observed.state, InstanceState::Created | InstanceState::Exited(_))
}

/// The outcome of a call that ends a container: "already so", "not there" and an end by itself are as good as done.
fn done(answer: Result<(), Failure>) -> RuntimeResult<()> {
    match answer {
        Err(failure) if !(failure.already() || failure.ended_by_itself()) => Err(failure.into()),
        Ok(()) | Err(_) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_is_given_more_than_its_parts_take() {
        let pull = Duration::from_secs(600);
        assert!(longest(RuntimeCall::Start, pull) > START_QUEUE + START, "a start keeps its place in the queue");
        assert!(longest(RuntimeCall::Prepare, pull) > pull);
        assert!(longest(RuntimeCall::Remove, pull) > CHANGE + REMOVAL);
        let grace = Duration::from_secs(7);
        assert!(longest(RuntimeCall::Stop { grace }, pull) > grace + STOP_MARGIN);
    }
}
