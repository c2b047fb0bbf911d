//! What the engine shows of a container, as the control plane sees it.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};

use ipnet::Ipv4Net;

use super::answers::{Container, Endpoint, Network, Ports, State};
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
    /// It has an address of its own that is to be used, and this process is in no network with it.
    pub(super) detached: bool,
    networks: HashMap<String, Endpoint>,
    created_at: Timestamp,
    /// The host port that it publishes.
    pub(super) port: Option<HostPort>,
    pub(super) observed: ObservedInstance,
}

impl Found {
    /// Its last run, whether it goes on or not.
    pub(super) fn last_run(&self) -> Option<Run> {
        Some(run(&self.id, self.run_id?, self.endpoint.unwrap_or(NOWHERE)))
    }

    /// Whether all that it was made with is still there, so that it can be started again: the network by its id, since
    /// one that was made in the place of another has the same name. An engine may show the name for the id.
    pub(super) fn is_whole(&self, network: &Network) -> bool {
        let endpoint = self.networks.get(&network.name);
        endpoint.is_some_and(|endpoint| match endpoint.network_id.as_deref() {
            None | Some("") => true,
            Some(id) => id == network.id || id == network.name,
        })
    }
}

/// The address of a run that has none: a port that no connection can be made to, so that its health decides.
const NOWHERE: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

fn run(container: &str, run_id: Boot, endpoint: SocketAddr) -> Run {
    Run { run_id: run_id.id(container), started_at: run_id.near_start(), endpoint }
}

/// Reads an inspected container; `None` where it is not ours.
///
/// # Errors
/// [`RuntimeError::Failed`] where the engine left out what it always tells.
pub(super) fn found(
    installation: InstallationId,
    reach: Reach,
    boots: &Boots,
    inspected: Container,
) -> RuntimeResult<Option<Found>> {
    let labels = inspected.config.as_ref().map(|config| &config.labels);
    let Some(Ownership { key, spec, setup, origin }) =
        labels.and_then(|labels| container::ownership(installation, labels))
    else {
        return Ok(None);
    };
    let missing = |what: &str| RuntimeError::Failed(format!("the engine did not tell a container's {what}"));
    let id = inspected.id.clone().ok_or_else(|| missing("id"))?;
    let state = inspected.state.clone().ok_or_else(|| missing("state"))?;
    let created_at = inspected.created.as_deref().and_then(time).ok_or_else(|| missing("age"))?;
    let phase = phase(&state);
    let run_id = last_boot(boots, &id, created_at, phase, &state);
    let published = published(&inspected);
    let (direct, detached) = direct(reach, &inspected);
    let endpoint = direct.or(published);
    let run = || match run_id {
        Some(run_id) => Ok(run(&id, run_id, endpoint.unwrap_or(NOWHERE))),
        None => Err(missing("start time")),
    };
    let instance_state = match phase {
        Phase::Created => InstanceState::Created,
        Phase::Running => InstanceState::Running(run()?),
        Phase::Paused => InstanceState::Paused(run()?),
        Phase::Waiting | Phase::Ended => InstanceState::Exited(exit(&state)),
    };
    let networks = inspected.network_settings.as_ref().map(|settings| settings.networks.clone()).unwrap_or_default();
    Ok(Some(Found {
        setup,
        origin,
        image: image(&inspected),
        name: inspected.name.as_deref().unwrap_or_default().trim_start_matches('/').to_owned(),
        waiting: phase == Phase::Waiting,
        run_id,
        endpoint,
        detached: detached && phase == Phase::Running,
        networks,
        created_at,
        port: published.and_then(|address| HostPort::try_from(address.port()).ok()),
        observed: ObservedInstance {
            key,
            state: instance_state,
            engine_id: id.clone(),
            spec_hash: spec,
            died: None,
            created_now: false,
            data_created_now: false,
        },
        id,
    }))
}

fn image(inspected: &Container) -> Option<ImageRef> {
    let name = inspected.config.as_ref()?.image.clone()?;
    Some(ImageRef { name, id: inspected.image.clone()? })
}

/// What an engine's word for a container's state means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Created,
    Running,
    Paused,
    /// The engine waits before it restarts it.
    Waiting,
    Ended,
}

/// Docker's words, Podman's, and for any other word what the engine says beside it.
fn phase(state: &State) -> Phase {
    match state.status.to_ascii_lowercase().as_str() {
        "created" | "configured" | "initialized" => Phase::Created,
        "running" | "stopping" => Phase::Running,
        "paused" => Phase::Paused,
        "restarting" => Phase::Waiting,
        "exited" | "stopped" | "removing" | "dead" => Phase::Ended,
        _ if state.paused == Some(true) => Phase::Paused,
        _ if state.running == Some(true) => Phase::Running,
        _ => Phase::Ended,
    }
}

/// The container's own address, where it is to be used, and whether it would be if this process were in its network.
fn direct(reach: Reach, inspected: &Container) -> (Option<SocketAddr>, bool) {
    let address = match reach {
        Reach::HostPort => None,
        Reach::Container | Reach::Auto => address(inspected),
    };
    let Some(network) = address else { return (None, false) };
    let attached = attached(network);
    let used = reach == Reach::Container || attached;
    (used.then(|| SocketAddr::new(network.addr().into(), GATEWAY_PORT)), !attached)
}

/// The last run, and from when on its output counts.
fn last_boot(boots: &Boots, id: &str, created_at: Timestamp, phase: Phase, state: &State) -> Option<Boot> {
    let started_at = state.started_at.as_deref().and_then(time)?;
    if matches!(phase, Phase::Running | Phase::Paused) {
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
fn exit(state: &State) -> Exit {
    Exit {
        code: state.exit_code,
        oom: state.oom_killed == Some(true) && state.exit_code == Some(137),
        asked: false,
        reason: None,
    }
}

/// The container's address with its network's prefix. It has only one network of ours; a second one, added by an
/// operator, does no harm.
fn address(inspected: &Container) -> Option<Ipv4Net> {
    let networks = &inspected.network_settings.as_ref()?.networks;
    let home = inspected.host_config.as_ref().and_then(|host| host.network_mode.as_ref());
    let endpoint = home.and_then(|home| networks.get(home)).or_else(|| networks.values().next())?;
    Ipv4Net::new(endpoint.ip_address.as_deref()?.parse().ok()?, endpoint.ip_prefix_len?).ok()
}

/// Where the gateway's port is published: what the engine bound, or, before that, what it was asked to bind.
fn published(inspected: &Container) -> Option<SocketAddr> {
    let first = |ports: Option<&Ports>| {
        let binding = ports?.get(&container::gateway_port())?.as_ref()?.first()?;
        let ip: IpAddr =
            binding.host_ip.as_deref().and_then(|ip| ip.parse().ok()).unwrap_or(Ipv4Addr::LOCALHOST.into());
        let ip = if ip.is_unspecified() { Ipv4Addr::LOCALHOST.into() } else { ip };
        Some(SocketAddr::new(ip, binding.host_port.as_deref()?.parse().ok()?))
    };
    first(inspected.network_settings.as_ref().map(|settings| &settings.ports))
        .or_else(|| first(inspected.host_config.as_ref().map(|host| &host.port_bindings)))
}

/// Whether this process has an address in the container's own network, so that packets go there without a detour. The
/// kernel is asked which address it would send from; nothing is sent.
fn attached(network: Ipv4Net) -> bool {
    let from = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).and_then(|socket| {
        socket.connect((network.addr(), GATEWAY_PORT))?;
        socket.local_addr()
    });
    match from {
        Ok(SocketAddr::V4(local)) => network.contains(local.ip()),
        Ok(SocketAddr::V6(_)) | Err(_) => false,
    }
}

/// All containers of one agent, the one to go by first: what runs before what does not, what can be reached before what
/// cannot, the older before a copy of it.
pub(super) fn best_first(mut containers: Vec<Found>) -> Vec<Found> {
    containers.sort_by_key(|found| {
        let at_rest = matches!(found.observed.state, InstanceState::Created | InstanceState::Exited(_));
        let renamed = found.name != container::container_name(&found.observed.key.slug);
        (at_rest, found.port.is_none(), found.created_at, renamed)
    });
    containers
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{AgentId, Slug};
    use crate::runtime::InstanceKey;

    /// What the engine's `GET /containers/{id}/json` answers, cut to what is read.
    fn inspected(installation: InstallationId, state: serde_json::Value) -> Container {
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
        let exited = |code, oom| InstanceState::Exited(Exit { code: Some(code), oom, asked: false, reason: None });
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
        assert!(attached("127.0.0.9/8".parse().unwrap()));
        assert!(!attached("240.0.0.1/8".parse().unwrap()), "a reserved range that no network has");
    }

    #[test]
    fn any_word_for_a_state_is_understood() {
        let phase = |status: &str, running, paused| {
            phase(&State { status: status.into(), running: Some(running), paused: Some(paused), ..State::default() })
        };
        assert_eq!(phase("configured", false, false), Phase::Created);
        assert_eq!(phase("stopped", false, false), Phase::Ended);
        assert_eq!(phase("hibernating", true, false), Phase::Running, "whatever it is called, it runs");
        assert_eq!(phase("hibernating", true, true), Phase::Paused);
        assert_eq!(phase("improper", false, false), Phase::Ended);
        assert_eq!(phase("", false, false), Phase::Ended);
    }

    #[test]
    fn a_container_whose_network_was_replaced_is_not_whole() {
        let whole = |endpoint: serde_json::Value| {
            let network = Network { name: "net".into(), id: "n1".into(), ..Network::default() };
            let mut found = read(Reach::Auto, state("exited", 0, false));
            found.networks = serde_json::from_value(endpoint).unwrap();
            found.is_whole(&network)
        };
        assert!(whole(serde_json::json!({"net": {"NetworkID": "n1"}})));
        assert!(whole(serde_json::json!({"net": {"NetworkID": "net"}})), "an engine that shows names for ids");
        assert!(whole(serde_json::json!({"net": {}})), "it was never started");
        assert!(!whole(serde_json::json!({"net": {"NetworkID": "n0"}})));
        assert!(!whole(serde_json::json!({})) && !whole(serde_json::json!({"other": {"NetworkID": "n1"}})));
    }
}
