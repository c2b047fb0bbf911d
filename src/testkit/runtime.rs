//! The `ContainerRuntime` in front of the engine in memory.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::path::{Component, Path};
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use futures_util::stream::{self, BoxStream};
use futures_util::{FutureExt, StreamExt};
use tokio::sync::Notify;
use tokio::sync::broadcast::error::RecvError;
use tokio::time::{Instant, sleep};

use super::engine::{FakeEngine, Image};
use super::follower::{Follower, first_of_tail};
use super::state::{Instance, InstancePhase, State, Volume};
use crate::domain::{AgentId, Exit, InstallationId, Origin, RunId, Secret, Software};
use crate::runtime::{
    Caps, ContainerRuntime, DataPolicy, ImageChoice, InstanceKey, InstanceSpec, InstanceState, LeaseAnswer,
    LeaseRequest, LogLine, LogQuery, NetworkIsolation, ObservedInstance, Progress, Resync, RuntimeError, RuntimeResult,
    StagedFile, Usage, lease,
};

/// One installation's view of a [`FakeEngine`], with all the rules of [`ContainerRuntime`].
///
/// Each call takes the engine's pace, and its effect comes half-way through: a caller that stops waiting may have had
/// its effect or not, as in life.
#[derive(Clone)]
pub struct FakeRuntime {
    engine: FakeEngine,
    installation: InstallationId,
}

impl FakeRuntime {
    /// The view that this installation has of the engine.
    pub const fn new(engine: FakeEngine, installation: InstallationId) -> Self {
        Self { engine, installation }
    }

    /// The engine behind it.
    pub const fn engine(&self) -> &FakeEngine {
        &self.engine
    }

    /// One call: half its time, its effect, the other half.
    async fn call<T>(&self, effect: impl FnOnce(&mut State) -> RuntimeResult<T>) -> RuntimeResult<T> {
        self.engine.reach().await?;
        let half = self.engine.lock().pace.half_call;
        pass(half).await;
        self.engine.reach().await?;
        let result = effect(&mut self.engine.lock());
        pass(half).await;
        self.engine.reach().await?;
        result
    }

    async fn stopped(&self, key: &InstanceKey, grace: Duration) -> RuntimeResult<()> {
        let asked = self.call(|state| asked_to_end(state, self.installation, key)).await?;
        let Some(CommandReply { run_id, ends_in, stirred }) = asked else { return Ok(()) };
        let wait = ends_in.map_or(grace, |ends_in| ends_in.min(grace));
        let deadline = Instant::now() + wait;
        loop {
            let over = stirred.notified();
            let still_up = self.engine.lock().run_of(key.agent).is_some_and(|run| run.run_id == run_id);
            if !still_up {
                return Ok(());
            }
            tokio::select! {
                biased;
                () = over => {}
                () = tokio::time::sleep_until(deadline) => break,
            }
        }
        let obeyed = ends_in.is_some_and(|ends_in| ends_in <= grace);
        let code = if obeyed { 143 } else { 137 };
        let same = self.engine.lock().run_of(key.agent).is_some_and(|run| run.run_id == run_id);
        if same {
            self.engine.end(key.agent, Exit::with_code(code));
        }
        self.engine.reach().await
    }
}

/// A run that was asked to end.
struct CommandReply {
    run_id: RunId,
    ends_in: Option<Duration>,
    stirred: Arc<Notify>,
}

/// What is done to an instance whose machine is lost has no known end.
fn reachable(state: &mut State, key: &InstanceKey) -> RuntimeResult<()> {
    let lost = state.instances.get_mut(&key.agent).and_then(Instance::up).is_some_and(|up| up.unreachable);
    let unknown = || RuntimeError::UnknownOutcome("the machine that it runs on does not answer".into());
    (!lost).then_some(()).ok_or_else(unknown)
}

fn asked_to_end(state: &mut State, owner: InstallationId, key: &InstanceKey) -> RuntimeResult<Option<CommandReply>> {
    reachable(state, key)?;
    let Some(instance) = owned(state, owner, key)? else { return Ok(None) };
    if matches!(instance.state, InstancePhase::Starting(_)) {
        instance.state = InstancePhase::Created;
    }
    let stirred = Arc::clone(&instance.stirred);
    Ok(instance.up().map(|up| CommandReply {
        run_id: up.run.run_id.clone(),
        // A paused one hears nothing.
        ends_in: up.process.ends_in(&up.behavior).filter(|_| !up.paused),
        stirred,
    }))
}

/// Lets time pass; none at all costs not even a turn.
async fn pass(time: Duration) {
    if !time.is_zero() {
        sleep(time).await;
    }
}

/// The installation's instance, if it is there.
fn owned<'a>(
    state: &'a mut State,
    owner: InstallationId,
    key: &InstanceKey,
) -> RuntimeResult<Option<&'a mut Instance>> {
    match state.instances.get_mut(&key.agent) {
        Some(instance) if instance.installation != owner => {
            Err(RuntimeError::NotOwned("an instance of another installation".into()))
        }
        found => Ok(found),
    }
}

fn created(state: &mut State, owner: InstallationId, spec: &InstanceSpec) -> RuntimeResult<ObservedInstance> {
    if let Some(instance) = owned(state, owner, &spec.key)?
        && instance.spec_hash == spec.hash()
        && (instance.image == spec.image || instance.up().is_some())
    {
        instance.origin.clone_from(&spec.origin);
        return Ok(instance.observed());
    }
    removed(state, owner, &spec.key, DataPolicy::Keep)?;
    state.tally(spec.key.agent).creates += 1;
    let instance = Instance {
        installation: owner,
        key: spec.key.clone(),
        engine_id: state.engine_id(),
        spec_hash: spec.hash(),
        image: spec.image.clone(),
        command: spec.command.clone(),
        port: spec.port,
        memory_mb: spec.memory_mb,
        origin: spec.origin.clone(),
        state: InstancePhase::Created,
        died: None,
        boots: 0,
        lines: std::collections::VecDeque::new(),
        first_line: 0,
        sampled: false,
        stirred: Arc::default(),
    };
    let observed = ObservedInstance { created_now: true, ..instance.observed() };
    state.put(instance);
    put_files(state, owner, spec.key.agent, &spec.files);
    Ok(observed)
}

fn put_files(state: &mut State, owner: InstallationId, agent: AgentId, files: &[StagedFile]) {
    let volume: &mut Volume = state.volumes.entry(agent).or_default();
    volume.installation = Some(owner);
    for file in files {
        volume.files.insert(file.path.clone(), file.content.expose().clone());
    }
}

fn removed(state: &mut State, owner: InstallationId, key: &InstanceKey, data: DataPolicy) -> RuntimeResult<bool> {
    let now = state.now();
    reachable(state, key)?;
    let found = owned(state, owner, key)?.map(|instance| instance.end(Exit::with_code(137), now));
    if found.is_some() {
        state.take(key.agent);
    }
    let ours = state.volumes.get(&key.agent).is_some_and(|volume| volume.installation == Some(owner));
    if data == DataPolicy::Remove && ours {
        state.volumes.remove(&key.agent);
    }
    Ok(found.is_some())
}

impl ContainerRuntime for FakeRuntime {
    fn caps(&self) -> Caps {
        let host_ports = self.engine.lock().host_ports;
        Caps {
            name: "fake",
            host_ports,
            enforces_cpu: false,
            enforces_memory: false,
            isolates_network: NetworkIsolation::Own,
            sees_pauses: true,
            splits_output: true,
            keeps_ended_runs: true,
            exact_log_times: true,
            kills_while_stopping: true,
            stages_at_start: false,
            carries_data: true,
            measures_usage: true,
            walls: Vec::new(),
            missing_walls: BTreeMap::new(),
            host: host_ports.then_some("host.test"),
        }
    }

    fn ping(&self) -> BoxFuture<'_, RuntimeResult<()>> {
        self.call(|_| Ok(())).boxed()
    }

    fn attach(&self) -> BoxFuture<'_, RuntimeResult<()>> {
        // It costs no time: nothing is ever missing here.
        self.engine.lock().attached += 1;
        std::future::ready(Ok(())).boxed()
    }

    fn prepare<'a>(&'a self, _: &'a InstanceKey, progress: Progress) -> BoxFuture<'a, RuntimeResult<()>> {
        async move {
            let image = self.call(|state| Ok(state.image.clone())).await?;
            match image {
                Image::Present => Ok(()),
                Image::Slow(time) => {
                    for percent in [0, 50, 100] {
                        progress(format!("pulling image {percent}%"));
                        pass(time / 3).await;
                    }
                    self.call(|state| {
                        state.image = Image::Present;
                        Ok(())
                    })
                    .await
                }
                Image::Missing => Err(RuntimeError::Invalid("there is no such image".into())),
                Image::Unreachable => Err(RuntimeError::Unavailable("the registry does not answer".into())),
            }
        }
        .boxed()
    }

    fn software<'a>(&'a self, choice: ImageChoice<'a>, _: Progress) -> BoxFuture<'a, RuntimeResult<Option<Software>>> {
        self.call(move |state| state.software(choice)).boxed()
    }

    fn ensure_created<'a>(&'a self, spec: &'a InstanceSpec) -> BoxFuture<'a, RuntimeResult<ObservedInstance>> {
        async move {
            let observed = self.call(|state| created(state, self.installation, spec)).await?;
            if observed.created_now {
                self.engine.changed(spec.key.agent);
            }
            Ok(observed)
        }
        .boxed()
    }

    fn stage<'a>(&'a self, key: &'a InstanceKey, files: &'a [StagedFile]) -> BoxFuture<'a, RuntimeResult<()>> {
        self.call(move |state| {
            let instance = owned(state, self.installation, key)?.ok_or(RuntimeError::NotFound)?;
            if !matches!(instance.state, InstancePhase::Created | InstancePhase::Down(_)) {
                return Err(RuntimeError::Conflict("it runs, or is about to".into()));
            }
            put_files(state, self.installation, key.agent, files);
            Ok(())
        })
        .boxed()
    }

    fn read_data<'a>(&'a self, key: &'a InstanceKey, folder: &'a str) -> BoxFuture<'a, RuntimeResult<Vec<StagedFile>>> {
        self.call(move |state| {
            owned(state, self.installation, key)?.ok_or(RuntimeError::NotFound)?;
            let below = |path: &str| path.strip_prefix(folder).is_some_and(|rest| rest.starts_with('/'));
            let files = state.volumes.get(&key.agent).into_iter().flat_map(|volume| &volume.files);
            let file = |(path, content): (&Cow<'static, str>, &Vec<u8>)| StagedFile {
                path: path.clone(),
                content: Secret::new(content.clone()),
                mode: 0o600,
            };
            Ok(files.filter(|(path, _)| below(path)).map(file).collect())
        })
        .boxed()
    }

    fn write_data<'a>(&'a self, key: &'a InstanceKey, files: &'a [StagedFile]) -> BoxFuture<'a, RuntimeResult<()>> {
        self.call(move |state| {
            let plain = |file: &StagedFile| {
                Path::new(file.path.as_ref()).components().all(|part| matches!(part, Component::Normal(_)))
            };
            if !files.iter().all(plain) {
                return Err(RuntimeError::Invalid("a file must lie in the data folder".into()));
            }
            owned(state, self.installation, key)?.ok_or(RuntimeError::NotFound)?;
            put_files(state, self.installation, key.agent, files);
            Ok(())
        })
        .boxed()
    }

    fn start<'a>(&'a self, key: &'a InstanceKey) -> BoxFuture<'a, RuntimeResult<InstanceState>> {
        async move {
            self.call(|state| owned(state, self.installation, key)?.map(|_| ()).ok_or(RuntimeError::NotFound)).await?;
            let state = self.engine.start(key.agent)?;
            self.call(|_| Ok(())).await?;
            Ok(state)
        }
        .boxed()
    }

    fn stop<'a>(&'a self, key: &'a InstanceKey, grace: Duration) -> BoxFuture<'a, RuntimeResult<()>> {
        self.stopped(key, grace).boxed()
    }

    fn kill<'a>(&'a self, key: &'a InstanceKey) -> BoxFuture<'a, RuntimeResult<()>> {
        async move {
            let exit = Exit::with_code(137);
            let ended = self
                .call(|state| {
                    let now = state.now();
                    reachable(state, key)?;
                    Ok(owned(state, self.installation, key)?.is_some_and(|instance| instance.end(exit, now)))
                })
                .await?;
            if ended {
                self.engine.changed(key.agent);
            }
            Ok(())
        }
        .boxed()
    }

    fn remove<'a>(&'a self, key: &'a InstanceKey, data: DataPolicy) -> BoxFuture<'a, RuntimeResult<()>> {
        async move {
            let found = self.call(|state| removed(state, self.installation, key, data)).await?;
            if found {
                self.engine.told(self.installation, Resync::Instance(key.agent));
            }
            Ok(())
        }
        .boxed()
    }

    fn observe<'a>(&'a self, key: &'a InstanceKey) -> BoxFuture<'a, RuntimeResult<Option<ObservedInstance>>> {
        self.call(move |state| Ok(owned(state, self.installation, key)?.map(|instance| instance.observed()))).boxed()
    }

    fn list_owned(&self) -> BoxFuture<'_, RuntimeResult<Vec<ObservedInstance>>> {
        self.call(|state| {
            let ours = |instance: &&Instance| instance.installation == self.installation;
            Ok(state.instances.values().filter(ours).map(Instance::observed).collect())
        })
        .boxed()
    }

    fn origin<'a>(&'a self, key: &'a InstanceKey) -> BoxFuture<'a, RuntimeResult<Option<Origin>>> {
        self.call(|state| {
            let instance = owned(state, self.installation, key)?.ok_or(RuntimeError::NotFound)?;
            Ok(instance.origin.as_deref().cloned())
        })
        .boxed()
    }

    fn lease<'a>(&'a self, request: &'a LeaseRequest) -> BoxFuture<'a, RuntimeResult<LeaseAnswer>> {
        self.call(|state| {
            if state.leases_refused {
                return Err(RuntimeError::Invalid("reading a volume is not allowed (HTTP 403)".into()));
            }
            let now = state.now();
            let (written, answer) = lease::decide(state.leases.get(&self.installation), request, now);
            state.leases.extend(written.map(|record| (self.installation, record)));
            Ok(answer)
        })
        .boxed()
    }

    fn watch(&self) -> BoxStream<'static, Resync> {
        let installation = self.installation;
        // The engine is kept, so that the stream has no end.
        stream::unfold((self.engine.changes(), self.engine.clone()), move |(mut changes, engine)| async move {
            loop {
                match changes.recv().await {
                    Ok((owner, change)) if owner == installation => return Some((change, (changes, engine))),
                    Ok(_) => {}
                    Err(RecvError::Lagged(_)) => return Some((Resync::All, (changes, engine))),
                    Err(RecvError::Closed) => return None,
                }
            }
        })
        .boxed()
    }

    fn logs<'a>(
        &'a self,
        key: &'a InstanceKey,
        query: LogQuery,
    ) -> BoxFuture<'a, RuntimeResult<BoxStream<'static, RuntimeResult<LogLine>>>> {
        async move {
            let from = self
                .call(|state| {
                    let now = state.now();
                    let instance = owned(state, self.installation, key)?.ok_or(RuntimeError::NotFound)?;
                    Ok(first_of_tail(instance, &query, now))
                })
                .await?;
            let follower = Follower::new(self.engine.clone(), key.agent, query, from);
            Ok(stream::unfold(follower, Follower::next).boxed())
        }
        .boxed()
    }

    fn usage<'a>(&'a self, key: &'a InstanceKey) -> BoxFuture<'a, RuntimeResult<Usage>> {
        self.call(move |state| {
            let at = state.stamp();
            let instance = owned(state, self.installation, key)?.ok_or(RuntimeError::NotFound)?;
            if instance.up().is_none() {
                return Err(RuntimeError::Conflict("it does not run".into()));
            }
            let first = !std::mem::replace(&mut instance.sampled, true);
            Ok(Usage {
                cpu_percent: if first { 0.0 } else { 0.5 },
                memory_mb: 5.0,
                memory_limit_mb: Some(f64::from(instance.memory_mb)),
                pids: Some(1),
                network_rx_bytes: None,
                network_tx_bytes: None,
                at,
            })
        })
        .boxed()
    }
}
