//! What instances use, as the cluster's metrics server says it. Not every cluster has one.

use kube::Client;
use serde::Deserialize;

use super::cluster::read;
use super::objects::{CONTAINER, Recipe, name};
use super::{KubernetesRuntime, observe};
use crate::domain::Timestamp;
use crate::runtime::{InstanceKey, InstanceState, RuntimeError, RuntimeResult, Usage};

const API: &str = "/apis/metrics.k8s.io/v1beta1";
const MIB: f64 = 1024.0 * 1024.0;

#[derive(Deserialize)]
struct PodMetrics {
    timestamp: Timestamp,
    containers: Vec<ContainerMetrics>,
}

#[derive(Deserialize)]
struct ContainerMetrics {
    name: String,
    usage: Figures,
}

#[derive(Deserialize)]
struct Figures {
    cpu: String,
    memory: String,
}

/// Whether there is anybody who measures.
pub(super) async fn is_measured(client: &Client) -> bool {
    get::<serde_json::Value>(client, API).await.is_ok()
}

async fn get<T: serde::de::DeserializeOwned>(client: &Client, path: &str) -> RuntimeResult<T> {
    let request = http::Request::get(path).body(Vec::new());
    let request = request.map_err(|error| RuntimeError::Failed(error.to_string()))?;
    read(client.request(request)).await
}

impl KubernetesRuntime {
    pub(super) async fn measured(&self, key: &InstanceKey) -> RuntimeResult<Usage> {
        let Some(pod) = self.pod(key.agent).await? else {
            let there = !self.secrets_of(key.agent).await?.is_empty();
            return Err(if there { RuntimeError::Conflict("it does not run".into()) } else { RuntimeError::NotFound });
        };
        if !matches!(observe::state(&pod, Timestamp::now()), InstanceState::Running(_)) {
            return Err(RuntimeError::Conflict("it does not run".into()));
        }
        if !self.measured {
            return Err(RuntimeError::Failed("the cluster has no metrics server".into()));
        }
        let path = format!("{API}/namespaces/{}/pods/{}", self.options.namespace, name(key.agent));
        let figures = match get::<PodMetrics>(&self.cluster.client, &path).await {
            // It measures every quarter of a minute or so.
            Err(RuntimeError::NotFound) => return Err(RuntimeError::Failed("it has not been measured yet".into())),
            figures => figures?,
        };
        let limit = Recipe::read(&pod.metadata).map(|recipe| f64::from(recipe.memory_mb));
        let agent = figures.containers.iter().find(|container| container.name == CONTAINER);
        let read = agent.and_then(|agent| Some((quantity(&agent.usage.cpu)?, quantity(&agent.usage.memory)?)));
        let (cores, bytes) = read.ok_or_else(|| RuntimeError::Failed("its figures cannot be read".into()))?;
        Ok(Usage {
            cpu_percent: cores * 100.0,
            memory_mb: bytes / MIB,
            memory_limit_mb: limit,
            pids: None,
            network_rx_bytes: None,
            network_tx_bytes: None,
            at: figures.timestamp,
        })
    }
}

/// A number in Kubernetes' notation, such as `250m` or `12Mi`.
fn quantity(text: &str) -> Option<f64> {
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, suffix) = text.split_at(digits);
    let factor = match suffix {
        "n" => 1e-9,
        "u" => 1e-6,
        "m" => 1e-3,
        "" => 1.0,
        "k" => 1e3,
        "M" => 1e6,
        "G" => 1e9,
        "Ki" => 1024.0,
        "Mi" => MIB,
        "Gi" => MIB * 1024.0,
        _ => return None,
    };
    number.parse::<f64>().ok().map(|number| number * factor)
}

#[cfg(test)]
mod tests {
    use super::quantity;

    #[test]
    fn quantities_are_read() {
        let read = [("250m", 0.25), ("1", 1.0), ("12Mi", 12_582_912.0), ("1500000n", 0.0015), ("2Ki", 2048.0)];
        for (text, number) in read {
            assert!((quantity(text).unwrap() - number).abs() < 1e-9, "{text}");
        }
        assert_eq!(quantity("2 apples"), None);
    }
}
