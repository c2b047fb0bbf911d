//! What is done to containers: found by their labels, created, started, ended, removed.

use std::collections::BTreeMap;
use std::time::Duration;

use bollard::models::{ContainerInspectResponse, VolumeCreateRequest};
use bollard::query_parameters::{
    CreateContainerOptionsBuilder, KillContainerOptionsBuilder, ListContainersOptionsBuilder,
    RemoveContainerOptionsBuilder, RemoveVolumeOptions, StartContainerOptions, StopContainerOptionsBuilder,
    UploadToContainerOptionsBuilder,
};
use futures_util::{StreamExt, TryStreamExt, stream};

use super::engine::{CHANGE, Engine, Failure, read, there, within};
use super::observe::{self, Found, best_first};
use super::{DockerRuntime, container, image};
use crate::domain::{AgentId, InstallationId};
use crate::runtime::{
    DataPolicy, InstanceKey, InstanceSpec, InstanceState, ObservedInstance, Run, RuntimeError, RuntimeResult,
    StagedFile,
};
use crate::zeroclaw::profile::DATA_DIR;
use crate::zeroclaw::workspace;

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

    fn read(&self, inspected: ContainerInspectResponse) -> RuntimeResult<Option<Found>> {
        let mut found = observe::found(self.options.installation, self.options.reach, &self.boots, inspected)?;
        if let Some(found) = &mut found {
            found.observed.died = self.deaths.of(&found.id);
        }
        Ok(found)
    }

    pub(super) async fn get(&self, key: &InstanceKey) -> RuntimeResult<Found> {
        self.find(key).await?.ok_or(RuntimeError::NotFound)
    }

    /// All containers of the installation, or of one agent, those to go by first.
    pub(super) async fn find_all(&self, agent: Option<AgentId>) -> RuntimeResult<Vec<Found>> {
        let filter = container::owner_filter(self.options.installation, agent);
        let query = ListContainersOptionsBuilder::default().all(true).filters(&filter).build();
        let listed = read(self.engine.docker().await?.list_containers(Some(query))).await?;
        let inspect = |id: String| async move {
            // One that is gone by now is none.
            let Some(inspected) = self.engine.inspect(&id).await? else { return Ok(None) };
            self.read(inspected)
        };
        let all: Vec<Option<Found>> = stream::iter(listed.into_iter().filter_map(|container| container.id))
            .map(inspect)
            .buffer_unordered(INSPECTIONS)
            .try_collect()
            .await?;
        Ok(best_first(all.into_iter().flatten().collect()))
    }

    async fn create(&self, spec: &InstanceSpec) -> RuntimeResult<ObservedInstance> {
        let docker = self.engine.docker().await?;
        let ((), network) = tokio::try_join!(
            self.ensure_volume(&spec.key),
            self.networks.ensure(&self.engine, &self.options, &spec.key),
        )?;
        let image = self.image_for(spec).await?;
        let body = container::body(&self.options, spec, &image, &network, self.engine.cores().await?)?;
        let name = container::container_name(&spec.key.slug);
        let options = CreateContainerOptionsBuilder::default().name(&name).build();
        let id = match within(CHANGE, docker.create_container(Some(options), body)).await {
            Ok(created) => created.id,
            Err(Failure::Refused(404, why)) if why.contains("No such image") => {
                return Err(image::absent(&image, &why));
            }
            // The network went away a moment after it was looked at.
            Err(Failure::Refused(404, why)) => return Err(RuntimeError::Conflict(why)),
            Err(Failure::Refused(409, why)) => return Err(self.name_clash(&spec.key, &name, why).await?),
            Err(failure) => return Err(failure.into()),
        };
        let (found, ()) = tokio::try_join!(self.get(&spec.key), self.upload(&id, &spec.files))?;
        Ok(ObservedInstance { created_now: true, ..found.observed })
    }

    /// What the container is made from: the image's name where it still means the same content, else its id.
    async fn image_for(&self, spec: &InstanceSpec) -> RuntimeResult<String> {
        let Some(image) = &spec.image else { return Ok(self.options.image.clone()) };
        let named = there(read(self.engine.docker().await?.inspect_image(&image.name)).await)?;
        let same = named.and_then(|named| named.id).is_some_and(|id| id == image.id);
        Ok(if same { image.name.clone() } else { image.id.clone() })
    }

    /// Who has the name that our container needs.
    async fn name_clash(&self, key: &InstanceKey, name: &str, why: String) -> RuntimeResult<RuntimeError> {
        let ours = match self.engine.inspect(name).await? {
            Some(inspected) => self.read(inspected)?.is_some_and(|found| found.observed.key.agent == key.agent),
            None => true,
        };
        Ok(if ours { RuntimeError::Conflict(why) } else { RuntimeError::NotOwned(format!("the container {name}")) })
    }

    /// The engine answers a creation of what exists with what exists.
    async fn ensure_volume(&self, key: &InstanceKey) -> RuntimeResult<()> {
        let name = container::volume_name(key.agent);
        let labels = container::owner_labels(self.options.installation, key);
        let request = VolumeCreateRequest { name: Some(name.clone()), labels: Some(labels), ..Default::default() };
        let volume = within(CHANGE, self.engine.docker().await?.create_volume(request)).await?;
        if container::owned_by(self.options.installation, Some(key.agent), &volume.labels) {
            Ok(())
        } else {
            Err(RuntimeError::NotOwned(format!("the volume {name}")))
        }
    }

    /// Puts files into the data of a container that does not run.
    pub(super) async fn upload(&self, container: &str, files: &[StagedFile]) -> RuntimeResult<()> {
        if files.is_empty() {
            return Ok(());
        }
        let archive = workspace::tar(files).map_err(|error| RuntimeError::Invalid(error.to_string()))?;
        let options = UploadToContainerOptionsBuilder::default().path(DATA_DIR).build();
        let docker = self.engine.docker().await?;
        let body = bollard::body_full(archive.into());
        within(CHANGE, docker.upload_to_container(container, Some(options), body)).await?;
        Ok(())
    }

    /// Removes a container, keeping its data.
    async fn discard(&self, found: &Found) -> RuntimeResult<()> {
        let docker = self.engine.docker().await?;
        // `v` is about volumes without a name; the agent's data has one.
        let options = RemoveContainerOptionsBuilder::default().force(true).v(true).build();
        match within(CHANGE, docker.remove_container(&found.id, Some(options))).await {
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
        let Some(volume) = there(read(docker.inspect_volume(&name)).await)? else { return Ok(()) };
        if !container::owned_by(self.options.installation, Some(agent), &volume.labels) {
            // Somebody else's: ours is not there.
            return Ok(());
        }
        match within(CHANGE, docker.remove_volume(&name, None::<RemoveVolumeOptions>)).await {
            Ok(()) => Ok(()),
            Err(failure) if failure.already() => Ok(()),
            Err(failure) => Err(failure.into()),
        }
    }

    pub(super) async fn adopt_or_create(&self, spec: &InstanceSpec) -> RuntimeResult<ObservedInstance> {
        let mut reusable = None;
        for found in self.find_all(Some(spec.key.agent)).await? {
            let running = found.observed.run().is_some();
            let setup = container::setup(&self.options, container::image_name(&self.options, spec));
            let same_content = spec.image.is_none()
                || found.image.as_ref().map(|image| &image.id) == spec.image.as_ref().map(|image| &image.id);
            let fits = found.observed.spec_hash == spec.hash() && (running || (found.setup == setup && same_content));
            if fits && reusable.is_none() {
                reusable = Some(found);
            } else {
                self.discard(&found).await?;
            }
        }
        let Some(found) = reusable else { return self.create(spec).await };
        if found.observed.state == InstanceState::Created {
            // Whoever made it may not have come to stage its files; before its first start nobody has changed them.
            self.networks.ensure(&self.engine, &self.options, &spec.key).await?;
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
                within(CHANGE, docker.unpause_container(&found.id)).await?;
            }
            InstanceState::Created | InstanceState::Exited(_) => self.start_at_rest(&found).await?,
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
        self.networks.ensure(&self.engine, &self.options, &found.observed.key).await?;
        let docker = self.engine.docker().await?;
        if found.waiting {
            // The engine takes a start for done while it waits; a stop ends its waiting.
            self.end(found, Duration::ZERO).await?;
        }
        match within(START, docker.start_container(&found.id, None::<StartContainerOptions>)).await {
            Ok(()) => Ok(()),
            Err(Failure::Refused(_, message)) if port_taken(&message) => match found.port {
                Some(port) => Err(RuntimeError::PortTaken(port)),
                None => Err(RuntimeError::Conflict(message)),
            },
            Err(failure) => Err(failure.into()),
        }
    }

    pub(super) async fn end(&self, found: &Found, grace: Duration) -> RuntimeResult<()> {
        // Whole seconds are all that the engine knows; none at all would be no grace.
        let seconds = i32::try_from(grace.as_secs_f64().ceil() as i64).unwrap_or(i32::MAX);
        let options = StopContainerOptionsBuilder::default().t(seconds).build();
        let docker = self.engine.docker().await?;
        done(within(grace + STOP_MARGIN, docker.stop_container(&found.id, Some(options))).await)
    }

    pub(super) async fn kill_container(&self, key: &InstanceKey) -> RuntimeResult<()> {
        let Some(found) = self.find(key).await? else { return Ok(()) };
        if at_rest(&found) {
            return Ok(());
        }
        let options = KillContainerOptionsBuilder::default().signal("SIGKILL").build();
        let docker = self.engine.docker().await?;
        match within(STOP_MARGIN, docker.kill_container(&found.id, Some(options))).await {
            Err(Failure::Refused(409 | 500, message)) if message.contains("is not running") => Ok(()),
            answer => done(answer),
        }
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
    let query = ListContainersOptionsBuilder::default().all(true).filters(&container::any_owner()).build();
    let mut counts = BTreeMap::new();
    for listed in read(engine.docker().await?.list_containers(Some(query))).await? {
        if let Some(installation) = listed.labels.as_ref().and_then(container::installation_of) {
            *counts.entry(installation).or_default() += 1;
        }
    }
    Ok(counts)
}

/// Whether neither a process runs nor the engine is about to start one.
pub(super) fn at_rest(found: &Found) -> bool {
    !found.waiting && matches!(found.observed.state, InstanceState::Created | InstanceState::Exited(_))
}

/// The outcome of a call whose "already so" and "not there" are as good as done.
fn done(answer: Result<(), Failure>) -> RuntimeResult<()> {
    match answer {
        Err(failure) if !failure.already() => Err(failure.into()),
        Ok(()) | Err(_) => Ok(()),
    }
}

/// The engine's two ways to say that someone listens there: another container, or a process of the host.
fn port_taken(message: &str) -> bool {
    message.contains("port is already allocated") || message.contains("address already in use")
}
