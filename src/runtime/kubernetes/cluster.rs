//! The way to the API server: each call within a deadline of ours, each answer as an error of the trait.

use std::future::Future;
use std::time::Duration;

use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod, Secret};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Api, Client, Config, Error};

use super::options::KubernetesOptions;
use crate::runtime::{RuntimeError, RuntimeResult};

/// The longest that the API server may take for an answer. The client has no such limit of its own: a call to one that is
/// stopped would hang for ever.
pub(super) const CALL: Duration = Duration::from_secs(10);
const CONNECT: Duration = Duration::from_secs(5);

/// Quotas are refusals like those for want of a permission; only their text tells them apart.
const OVER_QUOTA: &str = "exceeded quota";

#[derive(Clone)]
pub(super) struct Cluster {
    pub(super) client: Client,
    pub(super) namespace: String,
    /// This process is a Pod itself.
    pub(super) inside: bool,
}

impl Cluster {
    /// In a cluster as the Pod's service account, else as the options, `KUBECONFIG` or `~/.kube/config` say.
    pub(super) async fn open(options: &KubernetesOptions) -> RuntimeResult<Self> {
        let unusable = |error: &dyn std::fmt::Display| {
            RuntimeError::Invalid(format!("no cluster can be used: {error}; set KUBECONFIG, or run it in a cluster"))
        };
        let named = !options.kubeconfig.as_os_str().is_empty();
        let inside = !named && in_cluster();
        let mut config = if inside {
            Config::incluster().map_err(|error| unusable(&error))?
        } else {
            let read = if named { Kubeconfig::read_from(&options.kubeconfig) } else { Kubeconfig::read() };
            let file = read.map_err(|error| unusable(&error))?;
            let options = KubeConfigOptions::default();
            Config::from_custom_kubeconfig(file, &options).await.map_err(|error| unusable(&error))?
        };
        config.connect_timeout = Some(CONNECT);
        // It repeats what is not idempotent. Whoever calls us tries again, when it is time.
        config.default_retry = false;
        let client = Client::try_from(config).map_err(|error| unusable(&error))?;
        Ok(Self { client, namespace: options.namespace.clone(), inside })
    }

    pub(super) fn pods(&self) -> Api<Pod> {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    pub(super) fn secrets(&self) -> Api<Secret> {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    pub(super) fn claims(&self) -> Api<PersistentVolumeClaim> {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    pub(super) fn leases(&self) -> Api<Lease> {
        Api::namespaced(self.client.clone(), &self.namespace)
    }
}

/// Whether this process is a Pod with a service account.
pub fn in_cluster() -> bool {
    std::env::var_os("KUBERNETES_SERVICE_HOST").is_some()
        && std::path::Path::new("/var/run/secrets/kubernetes.io/serviceaccount/token").exists()
}

/// A call that changes nothing: one without an answer says only that nobody answers.
pub(super) async fn read<T>(call: impl Future<Output = Result<T, Error>>) -> RuntimeResult<T> {
    match tokio::time::timeout(CALL, call).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(Error::Api(status))) => Err(refusal(status.code, &status.message)),
        Ok(Err(error)) => Err(RuntimeError::Unavailable(error.to_string())),
        Err(_) => Err(RuntimeError::Unavailable(format!("no answer within {} s", CALL.as_secs()))),
    }
}

/// A call that changes something: without an answer it may have been carried out.
pub(super) async fn write<T>(call: impl Future<Output = Result<T, Error>>) -> RuntimeResult<T> {
    match tokio::time::timeout(CALL, call).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(Error::Api(status))) if status.code == 504 => Err(RuntimeError::UnknownOutcome(status.message.clone())),
        Ok(Err(Error::Api(status))) => Err(refusal(status.code, &status.message)),
        Ok(Err(error)) => Err(RuntimeError::UnknownOutcome(error.to_string())),
        Err(_) => Err(RuntimeError::UnknownOutcome(format!("no answer within {} s", CALL.as_secs()))),
    }
}

/// The same, where it is fine that the object is not there.
pub(super) async fn write_if_there<T>(call: impl Future<Output = Result<T, Error>>) -> RuntimeResult<()> {
    match write(call).await {
        Ok(_) | Err(RuntimeError::NotFound) => Ok(()),
        // The precondition: what has the name now is another object.
        Err(RuntimeError::Conflict(_)) => Ok(()),
        Err(error) => Err(error),
    }
}

fn refusal(code: u16, message: &str) -> RuntimeError {
    let message = message.to_owned();
    match code {
        404 => RuntimeError::NotFound,
        409 => RuntimeError::Conflict(message),
        403 if message.contains(OVER_QUOTA) => RuntimeError::Capacity(message),
        403 => RuntimeError::Invalid(format!("{message}; grant it in deploy/kubernetes/agents/role.yaml")),
        400 | 422 => RuntimeError::Invalid(message),
        503 | 504 => RuntimeError::Unavailable(message),
        _ => RuntimeError::Failed(message),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_refusal_has_its_meaning() {
        use RuntimeError as E;
        let quota =
            "pods \"zc-1\" is forbidden: exceeded quota: agents, requested: pods=1, used: pods=1, limited: pods=1";
        assert!(matches!(refusal(403, quota), E::Capacity(why) if why == quota));
        assert!(matches!(refusal(403, "pods is forbidden"), E::Invalid(why) if why.contains("role.yaml")));
        assert_eq!(refusal(404, "x"), E::NotFound);
        assert_eq!(refusal(409, "x"), E::Conflict("x".into()));
        assert_eq!(refusal(422, "x"), E::Invalid("x".into()));
        assert_eq!(refusal(503, "x"), E::Unavailable("x".into()));
        assert_eq!(refusal(429, "x"), E::Failed("x".into()));
        assert_eq!(refusal(500, "x"), E::Failed("x".into()));
    }
}
