//! What instances use, as the cluster's metrics server says it. Not every cluster has one.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use kube::Client;
use serde::Deserialize;
use tokio::sync::Mutex;
use tokio::time::Instant;

use super::KubernetesRuntime;
use super::cluster::read;
use super::objects::{CONTAINER, Recipe, name};
use crate::domain::Timestamp;
use crate::runtime::{InstanceKey, InstanceState, RuntimeError, RuntimeResult, Usage};

const API: &str = "/apis/metrics.k8s.io/v1beta1";
const MIB: f64 = 1024.0 * 1024.0;

/// How long a list counts: servers measure every quarter of a minute or so.
const FRESH: Duration = Duration::from_secs(15);

/// The figures of all Pods of the namespace, asked for at once: agents are measured every few seconds, and there are many.
#[derive(Clone, Default)]
pub(super) struct Metrics(Arc<Mutex<Option<Listed>>>);

struct Listed {
    at: Instant,
    pods: HashMap<String, PodMetrics>,
}

#[derive(Deserialize)]
struct MetricsList {
    items: Vec<PodMetrics>,
}

#[derive(Deserialize)]
struct PodMetrics {
    metadata: Named,
    timestamp: Timestamp,
    containers: Vec<ContainerMetrics>,
}

#[derive(Deserialize)]
struct Named {
    name: String,
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
        let seen = self.seen(key).await?.ok_or(RuntimeError::NotFound)?;
        if !matches!(seen.state, InstanceState::Running(_)) {
            return Err(RuntimeError::Conflict("it does not run".into()));
        }
        let Some(metrics) = &self.metrics else {
            return Err(RuntimeError::Failed("the cluster has no metrics server".into()));
        };
        let secrets = self.secrets_of(key.agent).await?;
        let limit = secrets.first().and_then(Recipe::read).map(|recipe| f64::from(recipe.memory_mb));
        let path = format!("{API}/namespaces/{}/pods", self.options.namespace);
        let (client, metrics, pod) = (self.cluster.client.clone(), metrics.clone(), name(key.agent));
        // A task of its own: whoever asked first may not have the time to wait for all.
        let asked = tokio::spawn(async move { metrics.of(&client, &path, &pod, limit).await });
        asked.await.unwrap_or_else(|error| Err(RuntimeError::Failed(error.to_string())))
    }
}

impl Metrics {
    async fn of(&self, client: &Client, path: &str, pod: &str, limit: Option<f64>) -> RuntimeResult<Usage> {
        let mut listed = self.0.lock().await;
        if listed.as_ref().is_none_or(|listed| listed.at.elapsed() >= FRESH) {
            let list: MetricsList = get(client, path).await?;
            let pods = list.items.into_iter().map(|pod| (pod.metadata.name.clone(), pod)).collect();
            *listed = Some(Listed { at: Instant::now(), pods });
        }
        let figures = listed.as_ref().and_then(|listed| listed.pods.get(pod));
        // One that has just begun has not been measured yet.
        let figures = figures.ok_or_else(|| RuntimeError::Failed("it has not been measured yet".into()))?;
        figures.usage(limit).ok_or_else(|| RuntimeError::Failed("its figures cannot be read".into()))
    }
}

impl PodMetrics {
    fn usage(&self, memory_limit_mb: Option<f64>) -> Option<Usage> {
        let agent = self.containers.iter().find(|container| container.name == CONTAINER)?;
        Some(Usage {
            cpu_percent: quantity(&agent.usage.cpu)? * 100.0,
            memory_mb: quantity(&agent.usage.memory)? / MIB,
            memory_limit_mb,
            pids: None,
            network_rx_bytes: None,
            network_tx_bytes: None,
            at: self.timestamp,
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
    use super::*;

    #[test]
    fn figures_of_a_list_are_read() {
        let list = r#"{"kind":"PodMetricsList","metadata":{},"items":[{"metadata":{"name":"zc-1","namespace":"n"},
            "timestamp":"2026-01-01T00:00:00Z","window":"15s","containers":[
            {"name":"other","usage":{"cpu":"1","memory":"1Gi"}},{"name":"agent","usage":{"cpu":"12m","memory":"5Mi"}}]}]}"#;
        let list: MetricsList = serde_json::from_str(list).unwrap();
        let usage = list.items[0].usage(Some(256.0)).unwrap();
        assert!((usage.cpu_percent - 1.2).abs() < 1e-9 && (usage.memory_mb - 5.0).abs() < 1e-9);
        assert_eq!(usage.memory_limit_mb, Some(256.0));
    }

    #[test]
    fn quantities_are_read() {
        let read = [("250m", 0.25), ("1", 1.0), ("12Mi", 12_582_912.0), ("1500000n", 0.0015), ("2Ki", 2048.0)];
        for (text, number) in read {
            assert!((quantity(text).unwrap() - number).abs() < 1e-9, "{text}");
        }
        assert_eq!(quantity("2 apples"), None);
    }
}
