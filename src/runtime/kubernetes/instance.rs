//! What is done to an instance: its Secret made, its Pod started and ended, all of it removed.

use std::collections::BTreeMap;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Pod, Secret as SecretObject};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams, Preconditions};
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::{Instant, sleep, timeout};

use super::cluster::{read, write, write_if_there};
use super::objects::{self, MANAGER, ORIGIN, Recipe, image_of, name};
use super::{KubernetesRuntime, observe};
use crate::domain::{AgentId, Origin, Secret, StagedFile, Timestamp};
use crate::runtime::{
    DataPolicy, InstanceKey, InstanceSpec, InstanceState, ObservedInstance, RuntimeError, RuntimeResult, Wait,
};

/// What a node may take, beyond the grace, until it has confirmed the end of a Pod: seconds. One before 1.22 may leave it to a
/// sweep, of one a minute; and if it starts a crashed container again in the moment of the deletion, it finds out with its next
/// sync, 60 to 90 seconds later (measured: 64 and 87).
pub(super) const CONFIRMED: Duration = Duration::from_secs(110);
/// Between two looks at something that should be gone.
pub(super) const LOOK: Duration = Duration::from_millis(150);
/// Never 0: the API server would forget the Pod before its node has ended it, and a second one could run beside it.
pub(super) const AT_ONCE: Duration = Duration::from_secs(1);
/// After the first crash a node starts the container again at once: in less time than another Pod would take.
const RESTARTED: Duration = Duration::from_secs(5);
/// Somebody else changes the same objects: looked at again, but not for ever.
const TRIES: usize = 4;
/// Of each kind of work at once: more would only wait in the API server's queue, or be refused there, and each has a connection.
const AT_A_TIME: usize = 16;
/// How long a call may wait for its turn. A slow cluster takes some 20 starts a second: it is enough for 12,000.
pub(super) const QUEUE: Duration = Duration::from_secs(600);

/// Turns of those who change something: all agents may want to at the same time. Each kind has its own, so that the first
/// agents run before the last ones are created, and none ever waits for a node while it holds one.
pub(super) struct Turns {
    creating: Semaphore,
    starting: Semaphore,
    ending: Semaphore,
}

impl Default for Turns {
    fn default() -> Self {
        let turns = || Semaphore::new(AT_A_TIME);
        Self { creating: turns(), starting: turns(), ending: turns() }
    }
}

async fn turn(of: &Semaphore) -> RuntimeResult<SemaphorePermit<'_>> {
    match timeout(QUEUE, of.acquire()).await {
        Ok(Ok(turn)) => Ok(turn),
        // Nothing is wrong with the agent.
        Ok(Err(_)) | Err(_) => {
            Err(RuntimeError::Unavailable("the API server is too slow for all that is asked of it".into()))
        }
    }
}

impl KubernetesRuntime {
    /// The Pod of that name. One that is not ours is an error.
    pub(super) async fn pod(&self, agent: AgentId) -> RuntimeResult<Option<Pod>> {
        let pod = read(self.cluster.pods().get_opt(&name(agent))).await?;
        match pod {
            Some(pod) if !objects::is_of(&pod.metadata, self.options.installation) => {
                Err(RuntimeError::NotOwned(format!("the Pod {} is another installation's", name(agent))))
            }
            Some(pod) => {
                self.reflector.enter_pod(&pod);
                Ok(Some(pod))
            }
            None => Ok(None),
        }
    }

    /// The Secrets of an instance, the one that counts first.
    pub(super) async fn secrets_of(&self, agent: AgentId) -> RuntimeResult<Vec<ObjectMeta>> {
        if let Some(known) = self.reflector.secrets(agent) {
            return Ok(objects::newest_first(known));
        }
        let query = ListParams::default().labels(&objects::selector_of(self.options.installation, agent));
        let found = read(self.cluster.secrets().list_metadata(&query)).await?;
        Ok(objects::newest_first(found.items.into_iter().map(|secret| secret.metadata).collect()))
    }

    pub(super) async fn seen(&self, key: &InstanceKey) -> RuntimeResult<Option<ObservedInstance>> {
        if let Some(known) = self.reflector.instance(key.agent, Timestamp::now()) {
            return Ok(known);
        }
        if let Some(pod) = self.pod(key.agent).await? {
            return Ok(observe::of_pod(&pod, Timestamp::now()));
        }
        Ok(self.secrets_of(key.agent).await?.first().and_then(observe::of_secret))
    }

    pub(super) async fn adopt_or_create(&self, spec: &InstanceSpec) -> RuntimeResult<ObservedInstance> {
        let agent = spec.key.agent;
        let (hash, image) = (spec.hash(), image_of(&self.options, spec.image.as_ref()));
        let turn = turn(&self.turns.creating).await?;
        let pod = self.pod(agent).await?;
        let secrets = self.secrets_of(agent).await?;
        let (newest, older) = match secrets.split_first() {
            Some((newest, older)) => (Some(newest), older),
            None => (None, &[][..]),
        };
        let seen = pod.as_ref().and_then(|pod| observe::of_pod(pod, Timestamp::now()));
        let running = seen.as_ref().is_some_and(|seen| seen.run().is_some());
        let recipe = newest.and_then(Recipe::read).filter(|recipe| recipe.spec_hash == hash);
        let fits = recipe.is_some_and(|recipe| running || recipe.image == image)
            && seen.as_ref().is_none_or(|seen| seen.spec_hash == hash);
        let data_created_now = self.claim(agent).await?;
        if let Some(newest) = newest.filter(|_| fits) {
            self.drop_secrets(older).await?;
            let found = seen.or_else(|| observe::of_secret(newest));
            let found = found.ok_or_else(|| RuntimeError::Failed("the instance's Secret is damaged".into()))?;
            return Ok(ObservedInstance { data_created_now, ..found });
        }
        if pod.is_some() {
            drop(turn);
            self.end(&spec.key, AT_ONCE).await?;
        }
        let recipe = Recipe::of(&self.options, spec);
        let made = self.put_secret(agent, &recipe, spec.origin.as_ref(), &objects::content(spec)).await?;
        self.drop_secrets(&secrets).await?;
        let found = observe::of_secret(&made.metadata);
        let found = found.ok_or_else(|| RuntimeError::Failed("the cluster changed the instance's Secret".into()))?;
        Ok(ObservedInstance { created_now: true, data_created_now, ..found })
    }

    /// The place of its data is there afterwards; says whether this made it.
    pub(super) async fn claim(&self, agent: AgentId) -> RuntimeResult<bool> {
        let claims = self.cluster.claims();
        if read(claims.get_metadata_opt(&name(agent))).await?.is_some() {
            return Ok(false);
        }
        // Applied, not created: at a quota the creation of what exists is refused for the quota.
        let claim = Patch::Apply(objects::claim(&self.options, agent)?);
        write(claims.patch(&name(agent), &PatchParams::apply(MANAGER).force(), &claim)).await?;
        Ok(true)
    }

    async fn put_secret(
        &self,
        agent: AgentId,
        recipe: &Recipe,
        origin: Option<&std::sync::Arc<Origin>>,
        content: &BTreeMap<String, Secret<Vec<u8>>>,
    ) -> RuntimeResult<SecretObject> {
        let secret = objects::secret(&self.options, agent, recipe, origin, content)?;
        let made = write(self.cluster.secrets().create(&PostParams::default(), &secret)).await?;
        self.reflector.enter_secret(&made.metadata);
        Ok(made)
    }

    async fn drop_secrets(&self, secrets: &[ObjectMeta]) -> RuntimeResult<()> {
        for meta in secrets {
            let name = meta.name.as_deref().unwrap_or_default();
            write_if_there(self.cluster.secrets().delete(name, &exactly(meta, None))).await?;
            self.reflector.forget_secret(meta);
        }
        Ok(())
    }

    pub(super) async fn replace_files(&self, key: &InstanceKey, files: &[StagedFile]) -> RuntimeResult<()> {
        let turn = turn(&self.turns.creating).await?;
        let secrets = self.secrets_of(key.agent).await?;
        let newest = secrets.first().ok_or(RuntimeError::NotFound)?;
        if let Some(seen) = self.pod(key.agent).await?.and_then(|pod| observe::of_pod(&pod, Timestamp::now())) {
            match seen.state {
                // The next start makes another Pod.
                InstanceState::Exited(_) => {
                    drop(turn);
                    self.end(key, AT_ONCE).await?;
                }
                state => return Err(RuntimeError::Conflict(format!("it is not at rest: {}", in_words(&state)))),
            }
        }
        let recipe = Recipe::read(newest).ok_or(RuntimeError::NotFound)?;
        let whole = read(self.cluster.secrets().get(newest.name.as_deref().unwrap_or_default())).await?;
        let origin = origin(newest).map(std::sync::Arc::new);
        let mut content: BTreeMap<_, _> =
            whole.data.unwrap_or_default().into_iter().map(|(key, value)| (key, Secret::new(value.0))).collect();
        objects::put_files(&mut content, files);
        self.put_secret(key.agent, &recipe, origin.as_ref(), &content).await?;
        self.drop_secrets(&secrets).await
    }

    pub(super) async fn launch(&self, key: &InstanceKey) -> RuntimeResult<InstanceState> {
        let (mut again, mut tries) = (Duration::ZERO, 0);
        while tries < TRIES {
            let turn = turn(&self.turns.starting).await?;
            let secrets = self.secrets_of(key.agent).await?;
            let newest = secrets.first().ok_or(RuntimeError::NotFound)?;
            if let Some(pod) = self.pod(key.agent).await? {
                let state = observe::state(&pod, Timestamp::now());
                match &state {
                    InstanceState::Running(_) | InstanceState::Unreachable(_) => return Ok(state),
                    InstanceState::Starting(wait) if !wait.stuck && !is_going(&pod) => return Ok(state),
                    InstanceState::Exited(_) if observe::is_restarted(&pod) && again < RESTARTED => {
                        again += LOOK;
                        drop(turn);
                        sleep(LOOK).await;
                        continue;
                    }
                    // A new Pod is tried at once; the old one would wait for minutes before it is tried again.
                    _ => {
                        drop(turn);
                        self.end(key, AT_ONCE).await?;
                    }
                }
            }
            tries += 1;
            self.free_volume(key.agent).await?;
            self.claim(key.agent).await?;
            let pod = objects::pod(&self.options, key.agent, newest)?;
            match write(self.cluster.pods().create(&PostParams::default(), &pod)).await {
                Ok(made) => {
                    self.reflector.enter_pod(&made);
                    let why = "the cluster has accepted it".into();
                    return Ok(InstanceState::Starting(Wait { since: Timestamp::now(), why, stuck: false }));
                }
                // Another call was faster, or the last Pod was not gone.
                Err(RuntimeError::Conflict(_)) => {}
                Err(error) => return Err(error),
            }
        }
        Err(RuntimeError::Conflict("others start or end it at the same time".into()))
    }

    /// Its Pod is gone afterwards, confirmed by its node.
    pub(super) async fn end(&self, key: &InstanceKey, grace: Duration) -> RuntimeResult<()> {
        let (agent, pods) = (key.agent, self.cluster.pods());
        let turn = turn(&self.turns.ending).await?;
        let Some(pod) = self.pod(agent).await? else { return Ok(()) };
        let seconds = u32::try_from(grace.max(AT_ONCE).as_millis().div_ceil(1000)).unwrap_or(u32::MAX);
        write_if_there(pods.delete(&name(agent), &exactly(&pod.metadata, Some(seconds)))).await?;
        drop(turn);
        let deadline = Instant::now() + Duration::from_secs(seconds.into()) + CONFIRMED;
        let uid = pod.metadata.uid.as_deref();
        loop {
            // While the watch shows it, it is there; that it is gone only the API server itself can say.
            if self.reflector.has_pod(agent, uid) != Some(true) {
                let found = read(pods.get_opt(&name(agent))).await?;
                if found.is_none_or(|found| found.metadata.uid.as_deref() != uid) {
                    self.reflector.forget_pod(&pod.metadata);
                    return Ok(());
                }
            }
            if Instant::now() >= deadline {
                let why = "no node has confirmed that it ended; if the node is lost for good, remove the Node";
                return Err(RuntimeError::UnknownOutcome(why.into()));
            }
            sleep(LOOK).await;
        }
    }

    pub(super) async fn kill_it(&self, key: &InstanceKey) -> RuntimeResult<()> {
        self.end(key, AT_ONCE).await
    }

    pub(super) async fn discard(&self, key: &InstanceKey, data: DataPolicy) -> RuntimeResult<()> {
        self.kill_it(key).await?;
        self.end_carriers(key.agent).await?;
        self.drop_secrets(&self.secrets_of(key.agent).await?).await?;
        if data == DataPolicy::Keep {
            return Ok(());
        }
        let claims = self.cluster.claims();
        let Some(claim) = read(claims.get_metadata_opt(&name(key.agent))).await? else { return Ok(()) };
        if !objects::is_of(&claim.metadata, self.options.installation) {
            return Err(RuntimeError::NotOwned("its volume is another installation's".into()));
        }
        write_if_there(claims.delete(&name(key.agent), &exactly(&claim.metadata, None))).await?;
        // Kept by the cluster until no Pod uses it, which is so already.
        let gone = async {
            while read(claims.get_metadata_opt(&name(key.agent))).await?.is_some() {
                sleep(LOOK).await;
            }
            Ok(())
        };
        timeout(CONFIRMED, gone)
            .await
            .unwrap_or_else(|_| Err(RuntimeError::UnknownOutcome("the cluster has yet to remove its volume".into())))
    }
}

pub(super) fn origin(meta: &ObjectMeta) -> Option<Origin> {
    Origin::parse(meta.annotations.as_ref()?.get(ORIGIN)?)
}

fn is_going(pod: &Pod) -> bool {
    pod.metadata.deletion_timestamp.is_some()
}

/// A deletion of this very object, never of one that has its name by now.
pub(super) fn exactly(meta: &ObjectMeta, grace: Option<u32>) -> DeleteParams {
    let preconditions = Some(Preconditions { uid: meta.uid.clone(), resource_version: None });
    DeleteParams { grace_period_seconds: grace, preconditions, ..DeleteParams::default() }
}

fn in_words(state: &InstanceState) -> &'static str {
    match state {
        InstanceState::Created | InstanceState::Exited(_) => "nothing runs",
        InstanceState::Starting(_) => "it starts",
        InstanceState::Running(_) | InstanceState::Paused(_) => "it runs",
        InstanceState::Ending(_) => "it ends",
        InstanceState::Unreachable(_) => "its node is lost",
    }
}
