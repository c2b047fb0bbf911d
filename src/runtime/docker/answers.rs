//! What the engine answers, cut to what is used. Whatever is missing, `null` or unknown is left open, and the reader
//! decides what that means for the one thing that it belongs to.

use std::collections::HashMap;

use serde::{Deserialize, Deserializer};

/// One of a list of containers, volumes or networks.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(super) struct Listed {
    pub(super) id: Option<String>,
    #[serde(deserialize_with = "or_default")]
    pub(super) labels: HashMap<String, String>,
}

/// `GET /containers/{id}/json`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(super) struct Container {
    pub(super) id: Option<String>,
    pub(super) created: Option<String>,
    pub(super) name: Option<String>,
    /// The id of the image that it was made from.
    pub(super) image: Option<String>,
    pub(super) state: Option<State>,
    pub(super) config: Option<Config>,
    pub(super) host_config: Option<HostConfig>,
    pub(super) network_settings: Option<NetworkSettings>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(super) struct State {
    #[serde(deserialize_with = "or_default")]
    pub(super) status: String,
    pub(super) running: Option<bool>,
    pub(super) paused: Option<bool>,
    #[serde(deserialize_with = "lenient")]
    pub(super) exit_code: Option<i32>,
    #[serde(rename = "OOMKilled")]
    pub(super) oom_killed: Option<bool>,
    pub(super) started_at: Option<String>,
    pub(super) finished_at: Option<String>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(super) struct Config {
    /// The image's name when the container was made.
    pub(super) image: Option<String>,
    #[serde(deserialize_with = "or_default")]
    pub(super) labels: HashMap<String, String>,
}

pub(super) type Ports = HashMap<String, Option<Vec<Binding>>>;

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(super) struct HostConfig {
    pub(super) network_mode: Option<String>,
    #[serde(deserialize_with = "or_default")]
    pub(super) port_bindings: Ports,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(super) struct Binding {
    pub(super) host_ip: Option<String>,
    pub(super) host_port: Option<String>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(super) struct NetworkSettings {
    #[serde(deserialize_with = "or_default")]
    pub(super) ports: Ports,
    #[serde(deserialize_with = "or_default")]
    pub(super) networks: HashMap<String, Endpoint>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(super) struct Endpoint {
    #[serde(rename = "NetworkID")]
    pub(super) network_id: Option<String>,
    #[serde(rename = "IPAddress")]
    pub(super) ip_address: Option<String>,
    #[serde(rename = "IPPrefixLen", deserialize_with = "lenient")]
    pub(super) ip_prefix_len: Option<u8>,
}

/// One of `GET /networks`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(super) struct Network {
    #[serde(deserialize_with = "or_default")]
    pub(super) name: String,
    #[serde(deserialize_with = "or_default")]
    pub(super) id: String,
    #[serde(deserialize_with = "or_default")]
    pub(super) created: String,
    #[serde(deserialize_with = "or_default")]
    pub(super) labels: HashMap<String, String>,
    #[serde(deserialize_with = "or_default")]
    pub(super) options: HashMap<String, String>,
    #[serde(rename = "IPAM")]
    pub(super) ipam: Option<Ipam>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(super) struct Ipam {
    #[serde(deserialize_with = "or_default")]
    pub(super) config: Vec<IpamRange>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(super) struct IpamRange {
    pub(super) subnet: Option<String>,
}

/// `GET /volumes/{name}`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(super) struct Volume {
    #[serde(deserialize_with = "or_default")]
    pub(super) labels: HashMap<String, String>,
}

/// `GET /images/{name}/json`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(super) struct Image {
    pub(super) id: Option<String>,
    pub(super) config: Option<Config>,
}

/// `GET /info`: what the engine's machine is and can do.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(super) struct Info {
    #[serde(rename = "NCPU", deserialize_with = "lenient")]
    pub(super) cpus: Option<u32>,
    pub(super) memory_limit: Option<bool>,
    #[serde(rename = "CpuCfsQuota")]
    pub(super) cpu_quota: Option<bool>,
}

/// `GET /version`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(super) struct Version {
    pub(super) api_version: Option<String>,
}

/// One of `GET /events`. Docker and Podman have words of their own for what happened.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(super) struct Event {
    #[serde(rename = "Action", deserialize_with = "or_default")]
    pub(super) action: String,
    #[serde(rename = "Actor", deserialize_with = "or_default")]
    pub(super) actor: Actor,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(super) struct Actor {
    #[serde(rename = "ID", deserialize_with = "or_default")]
    pub(super) id: String,
    #[serde(rename = "Attributes", deserialize_with = "or_default")]
    pub(super) attributes: HashMap<String, String>,
}

/// `GET /containers/{id}/stats`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(super) struct Stats {
    pub(super) read: Option<String>,
    #[serde(deserialize_with = "or_default")]
    pub(super) cpu_stats: CpuStats,
    #[serde(deserialize_with = "or_default")]
    pub(super) memory_stats: MemoryStats,
    #[serde(deserialize_with = "or_default")]
    pub(super) pids_stats: PidsStats,
    #[serde(deserialize_with = "or_default")]
    pub(super) networks: HashMap<String, NetworkStats>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(super) struct CpuStats {
    #[serde(deserialize_with = "or_default")]
    pub(super) cpu_usage: CpuUsage,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(super) struct CpuUsage {
    #[serde(deserialize_with = "lenient")]
    pub(super) total_usage: Option<u64>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(super) struct MemoryStats {
    #[serde(deserialize_with = "lenient")]
    pub(super) usage: Option<u64>,
    #[serde(deserialize_with = "lenient")]
    pub(super) limit: Option<u64>,
    #[serde(deserialize_with = "or_default")]
    pub(super) stats: HashMap<String, u64>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(super) struct PidsStats {
    #[serde(deserialize_with = "lenient")]
    pub(super) current: Option<u64>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(super) struct NetworkStats {
    #[serde(deserialize_with = "lenient")]
    pub(super) rx_bytes: Option<u64>,
    #[serde(deserialize_with = "lenient")]
    pub(super) tx_bytes: Option<u64>,
}

/// The entries of a list that can be read. One that cannot is no reason to lose the others.
pub(super) fn readable<T: serde::de::DeserializeOwned>(list: Vec<serde_json::Value>, what: &str) -> Vec<T> {
    let read = |value| match serde_json::from_value(value) {
        Ok(entry) => Some(entry),
        Err(error) => {
            tracing::debug!(what, %error, "an entry of the engine's list cannot be read; it is left out");
            None
        }
    };
    list.into_iter().filter_map(read).collect()
}

/// `null`, and what has another type, is as if it were missing.
fn or_default<'de, D: Deserializer<'de>, T: Default + serde::de::DeserializeOwned>(from: D) -> Result<T, D::Error> {
    let value = serde_json::Value::deserialize(from)?;
    Ok(serde_json::from_value(value).unwrap_or_default())
}

/// A number, a number in quotes, or nothing.
fn lenient<'de, D: Deserializer<'de>, T: serde::de::DeserializeOwned + std::str::FromStr>(
    from: D,
) -> Result<Option<T>, D::Error> {
    Ok(match serde_json::Value::deserialize(from)? {
        serde_json::Value::String(text) => text.parse().ok(),
        other => serde_json::from_value(other).ok(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_odd_answer_keeps_what_can_be_read() {
        let text = r#"{"Id": "abc", "State": {"Status": "improper", "ExitCode": "3", "OOMKilled": null},
            "Config": {"Labels": null}, "NetworkSettings": {"Ports": [], "Networks": {"a": {"IPPrefixLen": -1}}}}"#;
        let container: Container = serde_json::from_str(text).unwrap();
        let state = container.state.unwrap();
        assert_eq!((state.status.as_str(), state.exit_code, state.oom_killed), ("improper", Some(3), None));
        let settings = container.network_settings.unwrap();
        assert!(settings.ports.is_empty() && settings.networks["a"].ip_prefix_len.is_none());
    }

    #[test]
    fn one_odd_entry_does_not_spoil_a_list() {
        let list =
            serde_json::from_str(r#"[{"Id": "a"}, "odd", {"Id": 7}, {"Id": "b", "Labels": {"x": "y"}}]"#).unwrap();
        let ids: Vec<_> = readable::<Listed>(list, "containers").into_iter().filter_map(|entry| entry.id).collect();
        assert_eq!(ids, ["a", "b"]);
    }
}
