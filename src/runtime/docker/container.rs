//! The container of an agent: what is asked of the engine for it, and the labels that make it ours.

use std::collections::HashMap;

use bollard::models::{
    ContainerCreateBody, HostConfig, HostConfigLogConfig, Mount, MountType, PortBinding, RestartPolicy,
    RestartPolicyNameEnum,
};
use data_encoding::HEXLOWER;
use sha2::{Digest, Sha256};

use super::options::{DockerOptions, Isolation};
use crate::domain::{AgentId, HostPort, InstallationId, Origin, Slug};
use crate::runtime::{InstanceKey, InstanceSpec, RuntimeError, RuntimeResult};
use crate::zeroclaw::profile::{DATA_DIR, GATEWAY_PORT};

/// ZeroClaw's user and group, set here too so that no image runs as root.
pub(super) const USER: &str = "65534:65534";

/// Far beyond what a gateway needs, far below what would hurt its machine.
const PIDS: i64 = 256;

/// The only place besides its data where a container can write; counts as its memory.
const TMPFS: &str = "rw,noexec,nosuid,nodev,size=64m,mode=1777";

/// The engine's machine, as every container knows it.
pub(super) const HOST: &str = "host.docker.internal";

/// What all labels of ours begin with.
pub(super) const LABELS: &str = "zeroone.";

const INSTALLATION: &str = "zeroone.installation";
const AGENT: &str = "zeroone.agent";
const SLUG: &str = "zeroone.slug";
const GENERATION: &str = "zeroone.generation";
const SPEC: &str = "zeroone.spec";
const SETUP: &str = "zeroone.setup";
const ORIGIN: &str = "zeroone.origin";

/// What is asked of the engine for an instance. `image` is a name or an id; `cores` is what its machine has: more than all of them cannot be asked.
///
/// # Errors
/// [`RuntimeError::Invalid`] where the host name is none.
pub(super) fn body(
    options: &DockerOptions,
    spec: &InstanceSpec,
    image: &str,
    network: &str,
    cores: Option<f64>,
) -> RuntimeResult<ContainerCreateBody> {
    let env = spec.env.iter().map(|(name, value)| format!("{name}={}", value.expose())).collect();
    let mut labels = owner_labels(options.installation, &spec.key);
    labels.insert(GENERATION.into(), spec.generation.to_string());
    labels.insert(SPEC.into(), spec.hash());
    labels.insert(SETUP.into(), setup(options, image_name(options, spec)));
    labels.extend(spec.origin.as_ref().map(|origin| (ORIGIN.to_owned(), origin.to_json())));
    labels.extend(traefik_labels(options, spec, network)?);
    Ok(ContainerCreateBody {
        image: Some(image.to_owned()),
        user: Some(USER.into()),
        cmd: Some(spec.command.clone()),
        env: Some(env),
        labels: Some(labels),
        exposed_ports: Some(vec![gateway_port()]),
        host_config: Some(host_config(options, spec, network, cores)),
        ..ContainerCreateBody::default()
    })
}

fn host_config(options: &DockerOptions, spec: &InstanceSpec, network: &str, cores: Option<f64>) -> HostConfig {
    let memory = i64::from(spec.memory_mb) * 1024 * 1024;
    let cpu = cores.map_or(spec.cpu, |cores| spec.cpu.min(cores));
    let binding = |port: HostPort| PortBinding { host_ip: Some("127.0.0.1".into()), host_port: Some(port.to_string()) };
    let rotation = [("max-size", options.log_size.clone()), ("max-file", options.log_files.to_string())];
    HostConfig {
        memory: Some(memory),
        // The same as the memory: no swap beside it.
        memory_swap: Some(memory),
        nano_cpus: Some((cpu * 1e9) as i64),
        pids_limit: Some(PIDS),
        restart_policy: Some(RestartPolicy {
            name: Some(RestartPolicyNameEnum::UNLESS_STOPPED),
            maximum_retry_count: None,
        }),
        network_mode: Some(network.to_owned()),
        port_bindings: spec.port.map(|port| HashMap::from([(gateway_port(), Some(vec![binding(port)]))])),
        extra_hosts: Some(vec![format!("{HOST}:host-gateway")]),
        mounts: Some(vec![Mount {
            target: Some(DATA_DIR.into()),
            source: Some(volume_name(spec.key.agent)),
            typ: Some(MountType::VOLUME),
            ..Mount::default()
        }]),
        // ZeroClaw as process 1 ignores SIGTERM, so that every stop would take its whole grace; behind an init it obeys.
        init: Some(true),
        cap_drop: Some(vec!["ALL".into()]),
        security_opt: Some(vec!["no-new-privileges".into()]),
        readonly_rootfs: Some(true),
        tmpfs: Some(HashMap::from([("/tmp".into(), TMPFS.into())])),
        log_config: Some(HostConfigLogConfig {
            typ: Some("json-file".into()),
            config: Some(rotation.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()),
        }),
        ..HostConfig::default()
    }
}

/// The gateway's port inside, as the engine writes it.
pub(super) fn gateway_port() -> String {
    format!("{GATEWAY_PORT}/tcp")
}

/// The container's name. People may rename it; its labels are what it is found by.
pub(super) fn container_name(slug: &Slug) -> String {
    format!("zeroclaw-{slug}")
}

/// The data's name: by the agent's id, since a slug may be used again after its agent was deleted and its data kept.
pub(super) fn volume_name(agent: AgentId) -> String {
    format!("zeroclaw-{agent}")
}

/// A digest of what the installation's settings put into a container: image, network, hardening. A container made with
/// other settings is replaced when it is not running.
pub(super) fn setup(options: &DockerOptions, image: &str) -> String {
    let isolation = match &options.isolation {
        Isolation::Bridge => "bridge",
        Isolation::PerAgent { .. } => "per-agent",
    };
    let traefik = options.traefik.as_ref().map(|traefik| (traefik.entrypoint.as_str(), traefik.resolver.as_str()));
    let settings = format!(
        "{:?}",
        (image, &options.network, isolation, traefik, &options.log_size, options.log_files, USER, PIDS, TMPFS)
    );
    HEXLOWER.encode(&Sha256::digest(settings)[..8])
}

/// The name of the image that an instance is made from.
pub(super) fn image_name<'a>(options: &'a DockerOptions, spec: &'a InstanceSpec) -> &'a str {
    spec.image.as_ref().map_or(&options.image, |image| &image.name)
}

/// The label of what belongs to the installation and to none of its agents.
pub(super) fn installation_label(installation: InstallationId) -> HashMap<String, String> {
    HashMap::from([(INSTALLATION.into(), installation.to_string())])
}

/// The labels of everything that belongs to an agent: container, volume, network.
pub(super) fn owner_labels(installation: InstallationId, key: &InstanceKey) -> HashMap<String, String> {
    HashMap::from([
        (INSTALLATION.into(), installation.to_string()),
        (AGENT.into(), key.agent.to_string()),
        (SLUG.into(), key.slug.to_string()),
    ])
}

/// The engine's filter for what belongs to an installation, or to one agent of it.
pub(super) fn owner_filter(installation: InstallationId, agent: Option<AgentId>) -> String {
    let mut labels = vec![format!("{INSTALLATION}={installation}")];
    labels.extend(agent.map(|agent| format!("{AGENT}={agent}")));
    serde_json::json!({ "label": labels }).to_string()
}

/// What the labels of a container say.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Ownership {
    pub(super) key: InstanceKey,
    pub(super) spec: String,
    pub(super) setup: String,
    pub(super) origin: Option<Origin>,
}

/// `None` where the labels are not those of this installation.
pub(super) fn ownership(installation: InstallationId, labels: &HashMap<String, String>) -> Option<Ownership> {
    if !owned_by(installation, None, labels) {
        return None;
    }
    let key = InstanceKey { agent: labels.get(AGENT)?.parse().ok()?, slug: Slug::parse(labels.get(SLUG)?).ok()? };
    let label = |name| labels.get(name).cloned().unwrap_or_default();
    let origin = labels.get(ORIGIN).and_then(|origin| Origin::parse(origin));
    Some(Ownership { key, spec: label(SPEC), setup: label(SETUP), origin })
}

/// The filter for the events of an installation's containers.
pub(super) fn event_filter(installation: InstallationId, actions: &[&str]) -> String {
    serde_json::json!({
        "label": [format!("{INSTALLATION}={installation}")], "type": ["container"], "event": actions,
    })
    .to_string()
}

/// The filter for what belongs to any installation, and whose it is.
pub(super) fn any_owner() -> String {
    serde_json::json!({ "label": [INSTALLATION] }).to_string()
}

pub(super) fn installation_of(labels: &HashMap<String, String>) -> Option<InstallationId> {
    labels.get(INSTALLATION)?.parse().ok()
}

/// Whether a thing with these labels belongs to this installation, and to the agent where one is named.
pub(super) fn owned_by(installation: InstallationId, agent: Option<AgentId>, labels: &HashMap<String, String>) -> bool {
    let says = |name, value: String| labels.get(name).is_some_and(|label| *label == value);
    says(INSTALLATION, installation.to_string()) && agent.is_none_or(|agent| says(AGENT, agent.to_string()))
}

/// The agent that an event's attributes name; they hold the container's labels.
pub(super) fn agent_of(attributes: &HashMap<String, String>) -> Option<AgentId> {
    attributes.get(AGENT)?.parse().ok()
}

fn traefik_labels(options: &DockerOptions, spec: &InstanceSpec, network: &str) -> RuntimeResult<Vec<(String, String)>> {
    let (Some(traefik), Some(host)) = (&options.traefik, &spec.host_name) else { return Ok(Vec::new()) };
    // The rule is an expression: nothing but a host name may get into it.
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-');
    if host.is_empty() || host.len() > 253 || !host.bytes().all(plain) {
        return Err(RuntimeError::Invalid("the agent's host name must be a DNS name".into()));
    }
    let name = container_name(&spec.key.slug);
    let router = format!("traefik.http.routers.{name}");
    Ok(vec![
        ("traefik.enable".into(), "true".into()),
        ("traefik.docker.network".into(), network.to_owned()),
        (format!("{router}.rule"), format!("Host(`{host}`)")),
        (format!("{router}.entrypoints"), traefik.entrypoint.clone()),
        (format!("{router}.tls"), "true".into()),
        (format!("{router}.tls.certresolver"), traefik.resolver.clone()),
        (format!("{router}.service"), name.clone()),
        (format!("traefik.http.services.{name}.loadbalancer.server.port"), GATEWAY_PORT.to_string()),
    ])
}

#[cfg(test)]
mod tests {
    use super::super::options::Traefik;
    use super::*;

    fn spec(host_name: Option<&str>) -> InstanceSpec {
        InstanceSpec {
            key: InstanceKey { agent: AgentId::new(), slug: Slug::parse("my-agent").unwrap() },
            generation: 3,
            command: vec!["gateway".into()],
            env: vec![("API_KEY".into(), "sk-1".into())],
            files: vec![],
            port: HostPort::try_from(40_001).ok(),
            cpu: 0.5,
            memory_mb: 128,
            image: None,
            own_network: false,
            host_name: host_name.map(Into::into),
            origin: None,
        }
    }

    fn options() -> DockerOptions {
        let traefik = Traefik { entrypoint: "websecure".into(), resolver: "letsencrypt".into() };
        DockerOptions { traefik: Some(traefik), ..DockerOptions::new(InstallationId::new()) }
    }

    #[test]
    fn labels_tell_whose_it_is() {
        let options = options();
        let spec = spec(None);
        let labels = body(&options, &spec, "img", "net", None).unwrap().labels.unwrap();
        let ours = ownership(options.installation, &labels).unwrap();
        assert_eq!(
            ours,
            Ownership {
                key: spec.key.clone(),
                spec: spec.hash(),
                setup: setup(&options, &options.image),
                origin: None
            }
        );
        assert_eq!(labels[GENERATION], "3");
        assert_eq!(agent_of(&labels), Some(spec.key.agent));
        assert!(owned_by(options.installation, Some(spec.key.agent), &labels));
        assert!(!owned_by(options.installation, Some(AgentId::new()), &labels));
        assert_eq!(ownership(InstallationId::new(), &labels), None, "another installation's");
        assert_eq!(ownership(options.installation, &HashMap::new()), None, "a stranger's");
        assert!(!labels.keys().any(|name| name.starts_with("traefik")), "no host name, no route");
    }

    #[test]
    fn a_host_name_becomes_a_route_and_nothing_else() {
        let labels = body(&options(), &spec(Some("my-agent.example.org")), "img", "net", None).unwrap().labels.unwrap();
        assert_eq!(labels["traefik.http.routers.zeroclaw-my-agent.rule"], "Host(`my-agent.example.org`)");
        assert_eq!(labels["traefik.http.routers.zeroclaw-my-agent.entrypoints"], "websecure");
        assert_eq!(labels["traefik.http.routers.zeroclaw-my-agent.tls.certresolver"], "letsencrypt");
        assert_eq!(labels["traefik.http.services.zeroclaw-my-agent.loadbalancer.server.port"], "42617");
        for host in ["", "a`) || Host(`b", "a b", "ä.example"] {
            assert!(matches!(body(&options(), &spec(Some(host)), "img", "net", None), Err(RuntimeError::Invalid(_))));
        }
    }

    #[test]
    fn no_more_cores_are_asked_for_than_there_are() {
        let cpus = |cores| {
            let host =
                body(&options(), &InstanceSpec { cpu: 2.0, ..spec(None) }, "img", "net", cores).unwrap().host_config;
            host.unwrap().nano_cpus.unwrap()
        };
        assert_eq!((cpus(None), cpus(Some(4.0)), cpus(Some(1.0))), (2_000_000_000, 2_000_000_000, 1_000_000_000));
    }

    #[test]
    fn other_settings_are_another_setup() {
        let options = options();
        let other = DockerOptions { network: "another".into(), ..options.clone() };
        assert_eq!(setup(&options, "a"), setup(&options.clone(), "a"));
        assert_ne!(setup(&options, "a"), setup(&options, "b"));
        assert_ne!(setup(&options, "a"), setup(&other, "a"));
    }
}
