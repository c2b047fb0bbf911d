//! How the Kubernetes runtime is set up.

use std::path::PathBuf;

use crate::domain::{InstallationId, Profile};

/// Settings of a [`KubernetesRuntime`](super::KubernetesRuntime); [`KubernetesOptions::new`] has the defaults.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct KubernetesOptions {
    /// Which cluster, from outside of it; empty: what `KUBECONFIG` or `~/.kube/config` name.
    pub kubeconfig: PathBuf,
    /// Where the agents are. It should hold nothing else: whoever may create Pods in it can read its Secrets.
    pub namespace: String,
    /// ZeroClaw's image, as the nodes pull it.
    pub image: String,
    /// zeroone's own image: before an agent starts, it puts the agent's files into its volume.
    pub stage_image: String,
    /// How every image's ZeroClaw behaves; `None`: each image's tag tells.
    pub profile: Option<Profile>,
    /// Of the agents' volumes; empty: the cluster's default class.
    pub storage_class: String,
    /// Of each agent's volume, e.g. `1Gi`.
    pub storage: String,
    /// Processor time that the scheduler counts for each agent, in Kubernetes' notation, e.g. `25m`. The plan is the limit.
    pub request_cpu: String,
    /// The same for memory, e.g. `32Mi`.
    pub request_memory: String,
    /// Runs agents in a sandbox that the cluster has, such as gVisor's; empty: as it runs everything.
    pub runtime_class: String,
    /// How the control plane talks to gateways.
    pub reach: Reach,
    /// Whose Pods these are. All others are left alone.
    pub installation: InstallationId,
}

/// How the control plane talks to a gateway.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Reach {
    /// In the cluster by the Pod's address, from outside by port forwarding.
    Auto,
    /// The Pod's own address, which this machine has a way to.
    Pod,
    /// Through the API server: for development, since all traffic of all agents goes through it.
    PortForward,
}

impl KubernetesOptions {
    /// The defaults, for agents in the namespace `zeroone-agents` of the cluster that the environment names.
    pub fn new(image: impl Into<String>, stage_image: impl Into<String>, installation: InstallationId) -> Self {
        Self {
            kubeconfig: PathBuf::new(),
            namespace: "zeroone-agents".into(),
            image: image.into(),
            stage_image: stage_image.into(),
            profile: None,
            storage_class: String::new(),
            storage: "1Gi".into(),
            request_cpu: "25m".into(),
            request_memory: "32Mi".into(),
            runtime_class: String::new(),
            reach: Reach::Auto,
            installation,
        }
    }

    setters! {
        with_kubeconfig(kubeconfig: impl Into<PathBuf> => kubeconfig.into());
        with_namespace(namespace: impl Into<String> => namespace.into());
        with_profile(profile: impl Into<Option<Profile>> => profile.into());
        with_storage_class(storage_class: impl Into<String> => storage_class.into());
        with_storage(storage: impl Into<String> => storage.into());
        with_request_cpu(request_cpu: impl Into<String> => request_cpu.into());
        with_request_memory(request_memory: impl Into<String> => request_memory.into());
        with_runtime_class(runtime_class: impl Into<String> => runtime_class.into());
        with_installation(installation: InstallationId);
        with_reach(reach: Reach);
    }
}
