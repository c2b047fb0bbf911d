//! An agent's data, read and written by a Pod of our own image beside the agent or in its absence: `zeroone carry`.
//!
//! Its first container stages the agent's files, as that of the agent's Pod does, so the data is what the agent would find.
//! It is reached like a gateway, at the same port, so no permission and no network policy is needed for it. It ends after a
//! while without a request, also when its control plane was killed; what has ended is removed as soon as that is seen.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::{ListParams, PostParams};
use rand::RngCore as _;
use sha2::{Digest as _, Sha256};
use tokio::sync::OwnedMutexGuard;
use tokio::time::{Instant, sleep};

use super::cluster::{Cluster, read, write, write_if_there};
use super::instance::{AT_ONCE, CONFIRMED, LOOK, exactly};
use super::transfer;
use super::{KubernetesRuntime, objects, observe};
use crate::domain::{AgentId, Secret, StagedFile, Timestamp};
use crate::runtime::{InstanceKey, InstanceState, RuntimeError, RuntimeResult};

/// Until it answers: an image may have to be fetched and a volume to be attached.
const READY: Duration = Duration::from_secs(180);
/// For so long one that has answered is taken to be there. It ends by itself after more than that without a request.
const USED: Duration = Duration::from_secs(40);

/// Those that this process has made, one for each agent at most. Whoever uses one holds it meanwhile.
#[derive(Default)]
pub(super) struct Carriers(Mutex<HashMap<AgentId, Arc<tokio::sync::Mutex<Option<Carrier>>>>>);

pub(super) struct Carrier {
    pod: String,
    /// The files that it has staged.
    secret: String,
    token: Secret<String>,
    at: SocketAddr,
    used: Instant,
}

impl Carriers {
    fn of(&self, agent: AgentId) -> Arc<tokio::sync::Mutex<Option<Carrier>>> {
        Arc::clone(self.0.lock().unwrap_or_else(PoisonError::into_inner).entry(agent).or_default())
    }

    fn known(&self, agent: AgentId) -> Option<Arc<tokio::sync::Mutex<Option<Carrier>>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(&agent).cloned()
    }

    fn forget(&self, agent: AgentId) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&agent);
    }
}

impl KubernetesRuntime {
    pub(super) async fn read_files(&self, key: &InstanceKey, folder: &str) -> RuntimeResult<Vec<StagedFile>> {
        let mut kept = self.carrier(key.agent).await?;
        let Some(carrier) = kept.as_mut() else { return Err(RuntimeError::NotFound) };
        let files = transfer::get(carrier.at, &carrier.token, folder).await;
        carrier.used = Instant::now();
        files
    }

    pub(super) async fn write_files(&self, key: &InstanceKey, files: &[StagedFile]) -> RuntimeResult<()> {
        let archive = crate::runtime::archive::tar(files).map_err(|error| RuntimeError::Invalid(error.to_string()))?;
        let mut kept = self.carrier(key.agent).await?;
        let Some(carrier) = kept.as_mut() else { return Err(RuntimeError::NotFound) };
        let done = transfer::put(carrier.at, &carrier.token, archive).await;
        carrier.used = Instant::now();
        done
    }

    /// One that answers, made if need be.
    async fn carrier(&self, agent: AgentId) -> RuntimeResult<OwnedMutexGuard<Option<Carrier>>> {
        let mut kept = self.carriers.of(agent).lock_owned().await;
        let secrets = self.secrets_of(agent).await?;
        let Some(newest) = secrets.first() else {
            self.carriers.forget(agent);
            return Err(RuntimeError::NotFound);
        };
        let secret = newest.name.clone().unwrap_or_default();
        if let Some(carrier) = kept.as_ref() {
            let fits = carrier.secret == secret && carrier.used.elapsed() < USED;
            if fits && transfer::answers(carrier.at, &carrier.token).await {
                return Ok(kept);
            }
        }
        self.dismiss(&mut kept).await?;
        let mut token = [0; 32];
        rand::rng().fill_bytes(&mut token);
        let token = Secret::new(data_encoding::HEXLOWER.encode(&token));
        let hash = data_encoding::HEXLOWER.encode(&Sha256::digest(token.expose()));
        // A volume may be attached to one node at a time.
        let beside = self.pod(agent).await?.is_some_and(|pod| pod.spec.is_some_and(|spec| spec.node_name.is_some()));
        self.claim(agent).await?;
        let pod = objects::carrier(&self.options, agent, newest, &hash, beside)?;
        let made = write(self.cluster.pods().create(&PostParams::default(), &pod)).await?;
        let name = made.metadata.name.clone().unwrap_or_default();
        match self.carrier_answers(&name, &token).await {
            Ok(at) => {
                *kept = Some(Carrier { pod: name, secret, token, at, used: Instant::now() });
                Ok(kept)
            }
            Err(error) => {
                let _ = end(&self.cluster, &made).await;
                Err(error)
            }
        }
    }

    async fn carrier_answers(&self, name: &str, token: &Secret<String>) -> RuntimeResult<SocketAddr> {
        let deadline = Instant::now() + READY;
        let mut why = String::new();
        while Instant::now() < deadline {
            let pod = read(self.cluster.pods().get(name)).await?;
            match observe::state(&pod, Timestamp::now()) {
                InstanceState::Running(run) => {
                    let at = match &self.forwards {
                        Some(forwards) => forwards.address(&self.cluster, name, &run.run_id).await?,
                        None => run.endpoint,
                    };
                    if transfer::answers(at, token).await {
                        return Ok(at);
                    }
                    why = "it does not answer".into();
                }
                InstanceState::Starting(wait) if !wait.stuck => why = wait.why.to_string(),
                InstanceState::Starting(wait) => return Err(no_carrier(&wait.why)),
                state => return Err(no_carrier(&format!("it has ended: {state:?}"))),
            }
            sleep(LOOK).await;
        }
        Err(no_carrier(&why))
    }

    async fn dismiss(&self, kept: &mut Option<Carrier>) -> RuntimeResult<()> {
        let Some(carrier) = kept.take() else { return Ok(()) };
        if let Some(forwards) = &self.forwards {
            forwards.close(&carrier.pod);
        }
        match read(self.cluster.pods().get_opt(&carrier.pod)).await? {
            Some(pod) => end(&self.cluster, &pod).await,
            None => Ok(()),
        }
    }

    /// Before a start: the agent may be put on another node, and the volume must be free for it. One in use is let finish.
    pub(super) async fn free_volume(&self, agent: AgentId) -> RuntimeResult<()> {
        match self.carriers.known(agent).map(tokio::sync::Mutex::try_lock_owned) {
            Some(Ok(mut kept)) => self.dismiss(&mut kept).await,
            Some(Err(_)) | None => Ok(()),
        }
    }

    /// Before the volume is removed: a cluster keeps it for as long as a Pod uses it.
    pub(super) async fn end_carriers(&self, agent: AgentId) -> RuntimeResult<()> {
        let mut kept = self.carriers.of(agent).lock_owned().await;
        self.dismiss(&mut kept).await?;
        self.carriers.forget(agent);
        // From the API server's memory: else it reads all Pods of the namespace for it.
        let theirs = ListParams::default().match_any().labels(&format!(
            "{},{}",
            objects::selector_of(self.options.installation, agent),
            objects::CARRIER
        ));
        let deadline = Instant::now() + CONFIRMED;
        loop {
            let found = read(self.cluster.pods().list(&theirs)).await?;
            if found.items.is_empty() {
                return Ok(());
            }
            for pod in found.items.iter().filter(|pod| pod.metadata.deletion_timestamp.is_none()) {
                end(&self.cluster, pod).await?;
            }
            if Instant::now() >= deadline {
                return Err(RuntimeError::UnknownOutcome("a Pod that reads its data has yet to end".into()));
            }
            sleep(LOOK).await;
        }
    }
}

fn no_carrier(why: &str) -> RuntimeError {
    RuntimeError::Failed(format!("the Pod that reaches its data did not start: {why}"))
}

async fn end(cluster: &Cluster, pod: &Pod) -> RuntimeResult<()> {
    let seconds = u32::try_from(AT_ONCE.as_secs()).ok();
    let name = pod.metadata.name.as_deref().unwrap_or_default();
    write_if_there(cluster.pods().delete(name, &exactly(&pod.metadata, seconds))).await
}

pub(super) fn is_one(meta: &ObjectMeta) -> bool {
    meta.labels.as_ref().is_some_and(|labels| labels.contains_key(objects::CARRIER))
}

/// Removes one that has ended, whoever made it.
pub(super) async fn tidy(cluster: &Cluster, pod: &Pod) {
    let ended = pod.status.as_ref().is_some_and(|s| matches!(s.phase.as_deref(), Some("Succeeded" | "Failed")));
    if ended
        && pod.metadata.deletion_timestamp.is_none()
        && let Err(error) = end(cluster, pod).await
    {
        tracing::debug!(%error, "a Pod that has carried data cannot be removed yet");
    }
}
