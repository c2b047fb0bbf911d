//! What the engine shows of a container, as the control plane sees it.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};

use bollard::models::{ContainerInspectResponse, ContainerState, ContainerStateStatusEnum as Status, PortMap};

use super::container::{self, Ownership};
use super::options::Reach;
use super::run_id::{Boot, Boots};
use crate::domain::{HostPort, ImageRef, InstallationId, Origin, Timestamp};
use crate::runtime::{Exit, InstanceState, ObservedInstance, Run, RuntimeError, RuntimeResult};
use crate::zeroclaw::profile::GATEWAY_PORT;

/// A container of ours.
#[derive(Debug, Clone)]
pub(super) struct Found {
    pub(super) id: String,
    pub(super) setup: String,
    pub(super) origin: Option<Origin>,
    /// What it was made from.
    pub(super) image: Option<ImageRef>,
    pub(super) name: String,
    /// The engine waits before it restarts it: it does not run, and a start is taken for a start of what runs.
    pub(super) waiting: bool,
    /// Its last run, if it ever ran, and where that was to be reached.
    pub(super) run_id: Option<Boot>,
    endpoint: Option<SocketAddr>,
    /// The host port that it publishes.
    pub(super) port: Option<HostPort>,
    pub(super) observed: ObservedInstance,
}

impl Found {
    /// Its last run, whether it goes on or not.
    pub(super) fn last_run(&self) -> Option<Run> {
        Some(run(&self.id, self.run_id?, self.endpoint?))
    }
}

fn run(container: &str, run_id: Boot, endpoint: SocketAddr) -> Run {
    Run { run_id: run_id.id(container), started_at: run_id.near_start(), endpoint }
}

/// Reads an inspected container; `None` where it is not ours.
///
/// # Errors
/// [`RuntimeError::Unavailable`] where the engine left out what it always tells.
pub(super) fn found(
    installation: InstallationId,
    reach: Reach,
    boots: &Boots,
    inspected: ContainerInspectResponse,
) -> RuntimeResult<Option<Found>> {
    let labels = inspected.config.as_ref().and_then(|config| config.labels.as_ref());
    let Some(Ownership { key, spec, setup, origin }) =
        labels.and_then(|labels| container::ownership(installation, labels))
    else {
        return Ok(None);
    };
    let missing = |what: &str| RuntimeError::Unavailable(format!("the engine did not tell a container's {what}"));
    let id = inspected.id.clone().ok_or_else(|| missing("id"))?;
    let state = inspected.state.clone().ok_or_else(|| missing("state"))?;
    let created_at = inspected.created.as_deref().and_then(time).ok_or_else(|| missing("age"))?;
    let run_id = last_boot(boots, &id, created_at, &state);
    let published = published(&inspected);
    let endpoint = direct(reach, &inspected).or(published);
    let run = || match (run_id, endpoint) {
        (Some(run_id), Some(endpoint)) => Ok(run(&id, run_id, endpoint)),
        _ => Err(missing("start time or address")),
    };
    let status = state.status.unwrap_or(Status::EMPTY);
    let instance_state = match status {
        Status::CREATED => InstanceState::Created,
        Status::RUNNING | Status::STOPPING => InstanceState::Running(run()?),
        Status::PAUSED => InstanceState::Paused(run()?),
        Status::RESTARTING | Status::EXITED | Status::REMOVING | Status::DEAD => InstanceState::Exited(exit(&state)),
        Status::EMPTY => return Err(missing("status")),
    };
    Ok(Some(Found {
        setup,
        origin,
        image: image(&inspected),
        name: inspected.name.as_deref().unwrap_or_default().trim_start_matches('/').to_owned(),
        waiting: status == Status::RESTARTING,
        run_id,
        endpoint,
        port: published.and_then(|address| HostPort::try_from(address.port()).ok()),
        observed: ObservedInstance {
            key,
            state: instance_state,
            engine_id: id.clone(),
            spec_hash: spec,
            died: None,
            created_now: false,
        },
        id,
    }))
}

fn image(inspected: &ContainerInspectResponse) -> Option<ImageRef> {
    let name = inspected.config.as_ref()?.image.clone()?;
    Some(ImageRef { name, id: inspected.image.clone()? })
}

/// The container's own address, where it is to be used.
fn direct(reach: Reach, inspected: &ContainerInspectResponse) -> Option<SocketAddr> {
    let (ip, prefix) = match reach {
        Reach::HostPort => return None,
        Reach::Container | Reach::Auto => address(inspected)?,
    };
    (reach == Reach::Container || attached(ip, prefix)).then(|| SocketAddr::new(ip.into(), GATEWAY_PORT))
}

/// The last run, and from when on its output counts.
fn last_boot(boots: &Boots, id: &str, created_at: Timestamp, state: &ContainerState) -> Option<Boot> {
    let started_at = state.started_at.as_deref().and_then(time)?;
    let goes_on = matches!(state.status, Some(Status::RUNNING | Status::STOPPING | Status::PAUSED));
    if goes_on {
        let run_id = Boot::of_running(created_at, started_at, state.finished_at.as_deref().and_then(time));
        boots.remember(id, run_id);
        return Some(run_id);
    }
    Some(boots.recall(id, started_at).unwrap_or_else(|| Boot::of_ended(created_at, started_at)))
}

/// The engine's times; its zero, the year 1, stands for never.
pub(super) fn time(text: &str) -> Option<Timestamp> {
    text.parse::<Timestamp>().ok().filter(|time| time.as_second() > 0)
}

/// An OOM kill is not forgotten when the container runs again, so it counts only for an end by SIGKILL.
fn exit(state: &ContainerState) -> Exit {
    let code = state.exit_code.and_then(|code| i32::try_from(code).ok());
    Exit { code, oom: state.oom_killed == Some(true) && code == Some(137) }
}

/// The container's address in a network, with that network's prefix length. It has only one network of ours; a second
/// one, added by hand, does no harm.
fn address(inspected: &ContainerInspectResponse) -> Option<(Ipv4Addr, u8)> {
    let networks = inspected.network_settings.as_ref()?.networks.as_ref()?;
    let home = inspected.host_config.as_ref().and_then(|host| host.network_mode.as_ref());
    let endpoint = home.and_then(|home| networks.get(home)).or_else(|| networks.values().next())?;
    let ip = endpoint.ip_address.as_deref()?.parse().ok()?;
    let prefix = endpoint.ip_prefix_len.and_then(|length| u8::try_from(length).ok())?;
    Some((ip, prefix))
}

/// Where the gateway's port is published: what the engine bound, or, before that, what it was asked to bind.
fn published(inspected: &ContainerInspectResponse) -> Option<SocketAddr> {
    let first = |ports: Option<&PortMap>| {
        let binding = ports?.get(&container::gateway_port())?.as_ref()?.first()?;
        let ip: IpAddr =
            binding.host_ip.as_deref().and_then(|ip| ip.parse().ok()).unwrap_or(Ipv4Addr::LOCALHOST.into());
        let ip = if ip.is_unspecified() { Ipv4Addr::LOCALHOST.into() } else { ip };
        Some(SocketAddr::new(ip, binding.host_port.as_deref()?.parse().ok()?))
    };
    first(inspected.network_settings.as_ref().and_then(|settings| settings.ports.as_ref()))
        .or_else(|| first(inspected.host_config.as_ref().and_then(|host| host.port_bindings.as_ref())))
}

/// Whether this process has an address in the container's own network, so that packets go there without a detour. The
/// kernel is asked which address it would send from; nothing is sent.
fn attached(ip: Ipv4Addr, prefix: u8) -> bool {
    let from = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).and_then(|socket| {
        socket.connect((ip, GATEWAY_PORT))?;
        socket.local_addr()
    });
    match from {
        Ok(SocketAddr::V4(local)) => same_network(*local.ip(), ip, prefix),
        Ok(SocketAddr::V6(_)) | Err(_) => false,
    }
}

fn same_network(a: Ipv4Addr, b: Ipv4Addr, prefix: u8) -> bool {
    let mask = u32::MAX.checked_shl(32 - u32::from(prefix.min(32))).unwrap_or(0);
    u32::from(a) & mask == u32::from(b) & mask
}

/// All containers of one agent, the one to go by first: what runs before what does not, then the one of the right name.
pub(super) fn best_first(mut containers: Vec<Found>) -> Vec<Found> {
    containers.sort_by_key(|found| {
        let at_rest = matches!(found.observed.state, InstanceState::Created | InstanceState::Exited(_));
        (at_rest, found.name != container::container_name(&found.observed.key.slug))
    });
    containers
}

/// Labels of a network or volume, which the engine leaves out where there are none.
pub(super) fn labels(labels: Option<HashMap<String, String>>) -> HashMap<String, String> {
    labels.unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{AgentId, Slug};
    use crate::runtime::InstanceKey;

    /// What the engine's `GET /containers/{id}/json` answers, cut to what is read.
    fn inspected(installation: InstallationId, state: serde_json::Value) -> ContainerInspectResponse {
        let key = InstanceKey { agent: AgentId::new(), slug: Slug::parse("a").unwrap() };
        let mut labels = container::owner_labels(installation, &key);
        labels.insert("zeroone.spec".into(), "hash".into());
        let binding = serde_json::json!({"42617/tcp": [{"HostIp": "127.0.0.1", "HostPort": "40001"}]});
        serde_json::from_value(serde_json::json!({
            "Id": "abc",
            "Created": "2026-11-22T19:53:05Z",
            "Name": "/zeroclaw-a",
            "State": state,
            "Config": {"Labels": labels},
            "HostConfig": {"NetworkMode": "net", "PortBindings": binding},
            "NetworkSettings": {
                "Ports": binding,
                "Networks": {"net": {"IPAddress": "127.0.0.9", "IPPrefixLen": 8}},
            },
        }))
        .unwrap()
    }

    fn state(status: &str, exit_code: i64, oom: bool) -> serde_json::Value {
        serde_json::json!({
            "Status": status, "ExitCode": exit_code, "OOMKilled": oom, "StartedAt": "2026-11-22T19:53:05.568689149Z",
            "FinishedAt": "0001-01-01T00:00:00Z",
        })
    }

    fn read(reach: Reach, state: serde_json::Value) -> Found {
        let (ours, boots) = (InstallationId::new(), Boots::default());
        assert!(found(InstallationId::new(), reach, &boots, inspected(ours, state.clone())).unwrap().is_none());
        found(ours, reach, &boots, inspected(ours, state)).unwrap().unwrap()
    }

    #[test]
    fn a_running_container_has_a_boot_and_an_endpoint() {
        let time = |text: &str| text.parse::<Timestamp>().unwrap();
        let created_at = time("2026-11-22T19:53:05Z");
        let run_id = Boot::of_running(created_at, time("2026-11-22T19:53:05.568689149Z"), None);
        for (reach, endpoint) in [
            (Reach::Container, "127.0.0.9:42617"),
            (Reach::HostPort, "127.0.0.1:40001"),
            // The loopback stands for a network that this process is in.
            (Reach::Auto, "127.0.0.9:42617"),
        ] {
            let found = read(reach, state("running", 0, true));
            let run = Run { run_id: run_id.id("abc"), started_at: created_at, endpoint: endpoint.parse().unwrap() };
            assert_eq!(found.observed.state, InstanceState::Running(run));
            assert_eq!(found.port.map(HostPort::get), Some(40_001));
        }
    }

    #[test]
    fn an_end_is_told_with_its_reason() {
        let exited = |code, oom| InstanceState::Exited(Exit { code: Some(code), oom });
        assert_eq!(read(Reach::Auto, state("exited", 137, true)).observed.state, exited(137, true));
        assert_eq!(read(Reach::Auto, state("exited", 1, true)).observed.state, exited(1, false), "an older OOM kill");
        let waiting = read(Reach::Auto, state("restarting", 1, false));
        assert_eq!((waiting.observed.state, waiting.waiting), (exited(1, false), true));
        assert_eq!(read(Reach::Auto, state("created", 0, false)).observed.state, InstanceState::Created);
    }

    #[test]
    fn what_never_started_has_no_time() {
        assert_eq!(time("0001-01-01T00:00:00Z"), None);
        assert_eq!(time(""), None);
    }

    #[test]
    fn only_a_network_of_ours_is_reached_directly() {
        let ip = |text: &str| text.parse().unwrap();
        assert!(attached(ip("127.0.0.9"), 8));
        assert!(!same_network(ip("192.168.1.5"), ip("172.18.0.2"), 16));
        assert!(same_network(ip("172.18.0.1"), ip("172.18.0.2"), 16));
        assert!(same_network(ip("1.2.3.4"), ip("5.6.7.8"), 0));
    }
}
