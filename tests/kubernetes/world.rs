//! What every test has: a namespace and an installation of its own.

use std::path::PathBuf;
use std::time::Duration;

use serde_json::Value;
use tokio::time::Instant;
use zeroone::domain::InstallationId;
use zeroone::runtime::kubernetes::{KubernetesOptions, KubernetesRuntime, Reach};

use crate::cluster::{self, ACTS, Cluster, ZEROONE};

/// Longer than anything takes on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(90);
/// Between two looks at a condition.
const LOOK: Duration = Duration::from_millis(100);

pub(crate) struct World {
    pub(crate) namespace: String,
    pub(crate) installation: InstallationId,
}

impl World {
    pub(crate) async fn new() -> Self {
        let installation = InstallationId::new();
        let namespace = format!("t-{installation}");
        cluster::ok(&["kubectl", "create", "namespace", &namespace]);
        let world = Self { namespace, installation };
        // Made by a controller; no Pod can be made before.
        until("the account of its Pods", async || world.kubectl(&["get", "serviceaccount", "default"]).ok()).await;
        world
    }

    pub(crate) fn options(&self) -> KubernetesOptions {
        KubernetesOptions::new(ACTS, ZEROONE, self.installation)
            .with_kubeconfig(Cluster::kubeconfig())
            .with_namespace(self.namespace.clone())
            // There is a way from here to the cluster's Pods.
            .with_reach(Reach::Pod)
    }

    pub(crate) async fn runtime(&self) -> KubernetesRuntime {
        KubernetesRuntime::open(self.options()).await.unwrap()
    }

    pub(crate) fn kubectl(&self, arguments: &[&str]) -> Result<String, String> {
        cluster::tried(&[&["kubectl", "--namespace", &self.namespace], arguments].concat())
    }

    pub(crate) fn get(&self, what: &[&str]) -> Value {
        let text = self.kubectl(&[&["get", "--output", "json"], what].concat()).unwrap();
        serde_json::from_str(&text).unwrap()
    }

    /// The names of what there is of a kind.
    pub(crate) fn names(&self, kind: &str) -> Vec<String> {
        let list = self.get(&[kind]);
        let items = list["items"].as_array().unwrap().iter();
        items.map(|item| item["metadata"]["name"].as_str().unwrap().to_owned()).collect()
    }

    /// Pods, Secrets and claims of agents.
    pub(crate) fn left(&self) -> Vec<String> {
        let kinds = ["pods", "secrets", "persistentvolumeclaims"].into_iter().flat_map(|kind| self.names(kind));
        kinds.filter(|name| name.starts_with("zc-")).collect()
    }

    /// The folder of this machine that the cluster made a claim's volume of.
    pub(crate) fn volume(&self, claim: &str) -> PathBuf {
        let claim = self.get(&["persistentvolumeclaim", claim]);
        let volume = self.get(&["persistentvolume", claim["spec"]["volumeName"].as_str().unwrap()]);
        volume["spec"]["hostPath"]["path"].as_str().unwrap().into()
    }

    /// The container of the agent of a Pod, by the node's engine.
    pub(crate) fn container(&self, pod: &str) -> Option<String> {
        let of = |label: &str, value: &str| format!("label=io.kubernetes.{label}={value}");
        let found = cluster::ok(&[
            "docker",
            "ps",
            "--quiet",
            "--filter",
            &of("pod.name", pod),
            "--filter",
            &of("pod.namespace", &self.namespace),
            "--filter",
            &of("container.name", "agent"),
        ]);
        found.lines().next().map(str::to_owned)
    }

    pub(crate) async fn end(&self) {
        // Pods first and at once: a namespace would give each its grace.
        let _ = self.kubectl(&["delete", "pods", "--all", "--grace-period=1", "--wait=false"]);
        let _ = cluster::tried(&["kubectl", "delete", "namespace", &self.namespace, "--wait=false"]);
    }
}

/// Repeats `look` until it answers.
pub(crate) async fn until<T>(what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(seen) = look().await {
            return seen;
        }
        assert!(Instant::now() < deadline, "never happened: {what}");
        tokio::time::sleep(LOOK).await;
    }
}
