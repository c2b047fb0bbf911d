//! The agents' network or networks, see [`Isolation`], and who is in them.
//!
//! The engine makes a second network of the same name without a complaint, and from then on refuses the name as
//! ambiguous. So every creation is followed by a look: the oldest stays, ours of a moment ago goes.
//!
//! With [`Isolation::PerAgent`] the control plane and its proxy are members of each agent's network. That is a fact that
//! others change: a container that was recreated is in none of them. [`Networks::attach`] compares and joins what is
//! missing, with a number of calls that does not grow with the agents where nothing is; [`Networks::rejoin`] does it for
//! one agent that turns out not to be reachable.

use std::collections::{HashMap, HashSet};
use std::sync::PoisonError;
use std::time::{Duration, Instant};

use bollard::models::{Ipam, IpamConfig, NetworkConnectRequest, NetworkCreateRequest, NetworkDisconnectRequest};
use futures_util::{StreamExt, TryStreamExt, stream};
use ipnet::IpNet;
use tokio::sync::Mutex;

use super::answers::Network;
use super::container;
use super::engine::{CHANGE, Engine, change};
use super::failure::{Failure, overlaps};
use super::options::{DockerOptions, Isolation, Reach, Subnets};
use crate::domain::AgentId;
use crate::runtime::{InstanceKey, RuntimeError, RuntimeResult};

/// The bridge driver's switch for traffic between the containers of a network.
const ICC: &str = "com.docker.network.bridge.enable_icc";

/// How many subnets are tried that others turn out to use.
const SUBNET_ATTEMPTS: usize = 32;

/// Networks that are joined side by side.
const JOINS: usize = 8;

/// How soon one agent's network is joined again that does not make the agent reachable: an engine on another machine may
/// never do so.
const REJOIN_PAUSE: Duration = Duration::from_secs(10);

/// How often a network is emptied that somebody joins while it is removed.
const REMOVALS: usize = 3;

pub(super) struct Networks {
    /// Creations of this process come one after the other; those of others are what the look afterwards is for.
    creating: Mutex<()>,
    rejoined: std::sync::Mutex<HashMap<AgentId, Instant>>,
}

impl Networks {
    pub(super) fn new() -> Self {
        Self { creating: Mutex::const_new(()), rejoined: std::sync::Mutex::default() }
    }

    /// The name of the network that an agent's container is in.
    pub(super) fn name(options: &DockerOptions, agent: AgentId) -> String {
        match options.isolation {
            Isolation::Bridge => options.network.clone(),
            Isolation::PerAgent { .. } => format!("{}-{agent}", options.network),
        }
    }

    /// Makes ready what does not belong to a single agent.
    pub(super) async fn prepare(&self, engine: &Engine, options: &DockerOptions) -> RuntimeResult<()> {
        match &options.isolation {
            Isolation::Bridge => self.ensure_bridge(engine, options).await.map(drop),
            Isolation::PerAgent { .. } => Ok(()),
        }
    }

    /// Every member is in the network of every agent afterwards. A network that goes away meanwhile is none of them.
    pub(super) async fn attach(&self, engine: &Engine, options: &DockerOptions) -> RuntimeResult<()> {
        let Isolation::PerAgent { joined, .. } = &options.isolation else { return Ok(()) };
        let networks = of_agents(engine, options, None).await?;
        if networks.is_empty() {
            return Ok(());
        }
        let mut absent = Vec::new();
        for member in joined {
            let Some(container) = engine.inspect(member).await? else {
                absent.push(member.as_str());
                continue;
            };
            let endpoints = container.network_settings.map(|settings| settings.networks).unwrap_or_default();
            let mut present: HashSet<String> =
                endpoints.values().filter_map(|endpoint| endpoint.network_id.clone()).collect();
            present.extend(endpoints.into_keys());
            let mut missing = Vec::new();
            for network in &networks {
                if !present.contains(&network.id) && !present.contains(&network.name) {
                    missing.push(network.id.clone());
                }
            }
            if !missing.is_empty() {
                tracing::info!(member, networks = missing.len(), "joining the agents' networks");
            }
            let joins = missing.into_iter().map(|network| async move {
                match join(engine, &network, member).await? {
                    Joined::Yes | Joined::NoNetwork => Ok::<_, RuntimeError>(()),
                    Joined::NoMember => Err(no_member(member)),
                }
            });
            stream::iter(joins).buffer_unordered(JOINS).try_collect::<Vec<()>>().await?;
        }
        if let Some(member) = absent.first() {
            return Err(no_member(member));
        }
        Ok(())
    }

    /// Joins the network of one agent that is not reachable in it. `false`, and nothing done, where that was tried a
    /// moment ago.
    pub(super) async fn rejoin(&self, engine: &Engine, options: &DockerOptions, agent: AgentId) -> RuntimeResult<bool> {
        let Isolation::PerAgent { joined, .. } = &options.isolation else { return Ok(false) };
        {
            let mut rejoined = self.rejoined.lock().unwrap_or_else(PoisonError::into_inner);
            rejoined.retain(|_, at| at.elapsed() < REJOIN_PAUSE);
            if rejoined.contains_key(&agent) {
                return Ok(false);
            }
            rejoined.insert(agent, Instant::now());
        }
        let name = Self::name(options, agent);
        for member in joined {
            // One that is absent keeps nobody else out.
            join(engine, &name, member).await?;
        }
        Ok(true)
    }

    /// An agent's network exists afterwards, with every member in it. `own`: not the one that agents share.
    pub(super) async fn ensure(
        &self,
        engine: &Engine,
        options: &DockerOptions,
        key: &InstanceKey,
        own: bool,
    ) -> RuntimeResult<Network> {
        // A service that reaches agents by their own address is a member of their common network alone.
        let own = own && options.reach != Reach::Container;
        let (joined, subnets) = match &options.isolation {
            Isolation::Bridge if own => return ensure_own(engine, options, key).await,
            Isolation::Bridge => return self.ensure_bridge(engine, options).await,
            Isolation::PerAgent { joined, subnets } => (joined, *subnets),
        };
        let name = Self::name(options, key.agent);
        let network = match named(engine, &name).await?.into_iter().next() {
            Some(network) => network,
            None => {
                let _one_at_a_time = self.creating.lock().await;
                if named(engine, &name).await?.is_empty() {
                    let labels = container::owner_labels(options.installation, key);
                    create_in_free_subnet(engine, &name, labels, subnets).await?;
                }
                keep_the_oldest(engine, &name).await?
            }
        };
        for member in joined {
            match join(engine, &network.id, member).await? {
                Joined::Yes => {}
                Joined::NoMember => return Err(no_member(member)),
                Joined::NoNetwork => return Err(RuntimeError::Conflict(format!("the network {name} was removed"))),
            }
        }
        Ok(network)
    }

    /// Removes an agent's own network, if it has one.
    pub(super) async fn remove(&self, engine: &Engine, options: &DockerOptions, agent: AgentId) -> RuntimeResult<()> {
        let docker = engine.docker().await?;
        for network in of_agents(engine, options, Some(agent)).await? {
            let mut attempts = REMOVALS;
            loop {
                leave(engine, options, &network.id).await?;
                attempts -= 1;
                match change(CHANGE, "removing the network", docker.remove_network(&network.id)).await {
                    Ok(()) => break,
                    Err(failure) if failure.already() => break,
                    // A member joined it a moment ago, on its round over all networks.
                    Err(Failure::Refused(403 | 409 | 500, why)) if attempts > 0 && why.contains("active endpoints") => {
                    }
                    Err(failure) => return Err(failure.into()),
                }
            }
        }
        Ok(())
    }

    async fn ensure_bridge(&self, engine: &Engine, options: &DockerOptions) -> RuntimeResult<Network> {
        let name = &options.network;
        if let Some(network) = named(engine, name).await?.into_iter().next() {
            check_isolation(&network)?;
            return Ok(network);
        }
        let _one_at_a_time = self.creating.lock().await;
        if let Some(network) = named(engine, name).await?.into_iter().next() {
            return Ok(network);
        }
        let request = NetworkCreateRequest {
            name: name.clone(),
            driver: Some("bridge".into()),
            options: Some(HashMap::from([(ICC.into(), "false".into())])),
            ..NetworkCreateRequest::default()
        };
        let docker = engine.docker().await?;
        match change(CHANGE, "creating the network", docker.create_network(request)).await {
            Ok(_) => {}
            // Some engines allow a name only once, and another process was faster.
            Err(Failure::Refused(409, why)) if why.contains("exist") || why.contains("already used") => {}
            Err(failure) => return Err(not_made(failure)),
        }
        keep_the_oldest(engine, name).await
    }
}

/// A network for one agent alone, beside the one that the others share.
async fn ensure_own(engine: &Engine, options: &DockerOptions, key: &InstanceKey) -> RuntimeResult<Network> {
    let name = format!("{}-{}", options.network, key.agent);
    if named(engine, &name).await?.is_empty() {
        let request = NetworkCreateRequest {
            name: name.clone(),
            driver: Some("bridge".into()),
            labels: Some(container::owner_labels(options.installation, key)),
            ..NetworkCreateRequest::default()
        };
        let docker = engine.docker().await?;
        change(CHANGE, "creating the network", docker.create_network(request)).await.map_err(not_made)?;
    }
    keep_the_oldest(engine, &name).await
}

fn no_member(member: &str) -> RuntimeError {
    RuntimeError::Failed(format!(
        "the container {member}, which docker.joined names, does not exist on this engine; start it, or correct the name"
    ))
}

/// Where all address pools are in use, the engine says 404: that is no word about an instance.
fn not_made(failure: Failure) -> RuntimeError {
    match failure {
        Failure::Refused(404, why) => RuntimeError::Capacity(why),
        failure => failure.into(),
    }
}

/// A network that someone else made must keep agents apart too.
fn check_isolation(network: &Network) -> RuntimeResult<()> {
    if network.options.get(ICC).is_some_and(|option| option == "false") {
        return Ok(());
    }
    Err(RuntimeError::Invalid(format!(
        "the network {} lets agents reach each other: remove it, or make it with the option {ICC}=false; on an engine \
         that knows no such option, as Podman, set docker.isolation = \"per-agent\"",
        network.name
    )))
}

/// The networks of exactly this name, the oldest first.
async fn named(engine: &Engine, name: &str) -> RuntimeResult<Vec<Network>> {
    let filter = serde_json::json!({ "name": [name] }).to_string();
    let mut networks = engine.networks(Some(&filter)).await?;
    // The engine's filter also finds names that merely contain this one.
    networks.retain(|network| network.name == name && !network.id.is_empty());
    networks.sort_by(|a, b| (&a.created, &a.id).cmp(&(&b.created, &b.id)));
    Ok(networks)
}

/// The networks that belong to agents of ours, or to one of them.
async fn of_agents(engine: &Engine, options: &DockerOptions, agent: Option<AgentId>) -> RuntimeResult<Vec<Network>> {
    let mut networks = engine.networks(Some(&container::owner_filter(options.installation, agent))).await?;
    networks.retain(|network| container::owned_by(options.installation, agent, &network.labels));
    Ok(networks)
}

async fn keep_the_oldest(engine: &Engine, name: &str) -> RuntimeResult<Network> {
    let docker = engine.docker().await?;
    let mut networks = named(engine, name).await?.into_iter();
    let oldest = networks.next();
    for network in networks {
        // Empty since a moment ago; where it is not, somebody else has taken it up and looks after it.
        let _ = change(CHANGE, "removing the network", docker.remove_network(&network.id)).await;
    }
    oldest.ok_or_else(|| RuntimeError::Conflict(format!("the network {name} was removed")))
}

/// The first subnet that is free. The engine knows of routes that its list of networks does not show, so that one which
/// looks free may be refused.
async fn create_in_free_subnet(
    engine: &Engine,
    name: &str,
    labels: HashMap<String, String>,
    subnets: Subnets,
) -> RuntimeResult<()> {
    let docker = engine.docker().await?;
    let networks = engine.networks(None).await?;
    let ranges = networks.into_iter().filter_map(|network| network.ipam).flat_map(|ipam| ipam.config);
    let taken: Vec<IpNet> = ranges.filter_map(|range| range.subnet?.parse().ok()).collect();
    let overlapping = |subnet: &IpNet| taken.iter().any(|taken| taken.contains(subnet) || subnet.contains(taken));
    for subnet in subnets.iter().map(IpNet::from).filter(|subnet| !overlapping(subnet)).take(SUBNET_ATTEMPTS) {
        let range = IpamConfig { subnet: Some(subnet.to_string()), ..IpamConfig::default() };
        let request = NetworkCreateRequest {
            name: name.to_owned(),
            driver: Some("bridge".into()),
            ipam: Some(Ipam { config: Some(vec![range]), ..Ipam::default() }),
            labels: Some(labels.clone()),
            ..NetworkCreateRequest::default()
        };
        match change(CHANGE, "creating the network", docker.create_network(request)).await {
            Ok(_) => return Ok(()),
            Err(Failure::Refused(400 | 403 | 409 | 500, message)) if overlaps(&message) => {}
            Err(failure) => return Err(not_made(failure)),
        }
    }
    Err(RuntimeError::Capacity("no free subnet is left for another agent's network".into()))
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Joined {
    Yes,
    /// The network is not there.
    NoNetwork,
    /// The container is not there.
    NoMember,
}

async fn join(engine: &Engine, network: &str, member: &str) -> RuntimeResult<Joined> {
    let docker = engine.docker().await?;
    let request = NetworkConnectRequest { container: member.to_owned(), endpoint_config: None };
    let joined = change(CHANGE, "connecting to the network", docker.connect_network(network, request)).await;
    outcome_of_join(joined)
}

fn outcome_of_join(joined: Result<(), Failure>) -> RuntimeResult<Joined> {
    match joined {
        Ok(()) => Ok(Joined::Yes),
        Err(Failure::Refused(_, why))
            if why.contains("already exists in network") || why.contains("already connected") =>
        {
            Ok(Joined::Yes)
        }
        Err(Failure::Refused(404, why)) if why.to_ascii_lowercase().contains("no such container") => {
            Ok(Joined::NoMember)
        }
        Err(Failure::Refused(404, why)) if why.contains("no container with") => Ok(Joined::NoMember),
        Err(Failure::Refused(404, _)) => Ok(Joined::NoNetwork),
        Err(failure) => Err(failure.into()),
    }
}

/// Takes the members out of a network.
async fn leave(engine: &Engine, options: &DockerOptions, network: &str) -> RuntimeResult<()> {
    let Isolation::PerAgent { joined, .. } = &options.isolation else { return Ok(()) };
    let docker = engine.docker().await?;
    for member in joined {
        let request = NetworkDisconnectRequest { container: member.clone(), force: Some(true) };
        // One that is not in it, or not there, answers with an error of no use; the removal tells.
        let _ = change(CHANGE, "leaving the network", docker.disconnect_network(network, request)).await;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_a_free_address_pool_there_is_no_capacity() {
        let why = "could not find an available, non-overlapping IPv4 address pool among the defaults";
        assert_eq!(not_made(Failure::Refused(404, why.into())), RuntimeError::Capacity(why.into()));
        assert_eq!(not_made(Failure::Away("gone".into())), Failure::Away("gone".into()).into());
    }

    #[test]
    fn a_join_tells_a_missing_network_from_a_missing_container() {
        let joined = |status, why: &str| outcome_of_join(Err(Failure::refused(status, why)));
        assert_eq!(joined(404, "network zeroone-net-x not found"), Ok(Joined::NoNetwork));
        assert_eq!(joined(404, "unable to find network with name or ID x: network not found"), Ok(Joined::NoNetwork));
        assert_eq!(joined(404, "No such container: traefik"), Ok(Joined::NoMember));
        assert_eq!(
            joined(404, "no container with name or ID \"traefik\" found: no such container"),
            Ok(Joined::NoMember)
        );
        assert_eq!(joined(403, "endpoint with name traefik already exists in network x"), Ok(Joined::Yes));
        assert!(joined(500, "of the moment").is_err());
    }

    #[test]
    fn networks_of_others_must_keep_agents_apart() {
        let network = |options: &[(&str, &str)]| Network {
            options: options.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
            ..Network::default()
        };
        assert!(check_isolation(&network(&[(ICC, "false")])).is_ok());
        // Podman's option is about traffic between networks.
        for open in [&[][..], &[(ICC, "true")], &[("isolate", "true")]] {
            assert!(matches!(check_isolation(&network(open)), Err(RuntimeError::Invalid(_))));
        }
    }
}
