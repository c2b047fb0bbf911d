//! The agents' network or networks, see [`Isolation`].
//!
//! The engine makes a second network of the same name without a complaint, and from then on refuses the name as
//! ambiguous. So every creation is followed by a look: the oldest stays, ours of a moment ago goes.

use std::collections::{HashMap, HashSet};

use bollard::models::{
    Ipam, IpamConfig, Network, NetworkConnectRequest, NetworkCreateRequest, NetworkDisconnectRequest,
};
use bollard::query_parameters::ListNetworksOptionsBuilder;
use tokio::sync::Mutex;

use super::container;
use super::engine::{CHANGE, Engine, Failure, read, within};
use super::observe;
use super::options::{DockerOptions, Isolation, Subnets};
use crate::domain::AgentId;
use crate::runtime::{InstanceKey, RuntimeError, RuntimeResult};

/// The bridge driver's switch for traffic between the containers of a network.
const ICC: &str = "com.docker.network.bridge.enable_icc";

/// How many subnets are tried that others turn out to use.
const SUBNET_ATTEMPTS: usize = 32;

pub(super) struct Networks {
    /// Creations of this process come one after the other; those of others are what the look afterwards is for.
    creating: Mutex<()>,
}

impl Networks {
    pub(super) const fn new() -> Self {
        Self { creating: Mutex::const_new(()) }
    }

    /// The name of the network that an agent's container is in.
    pub(super) fn name(options: &DockerOptions, agent: AgentId) -> String {
        match options.isolation {
            Isolation::Bridge => options.network.clone(),
            Isolation::PerAgent { .. } => format!("{}-{agent}", options.network),
        }
    }

    /// Makes ready what does not belong to a single agent: the common network, or the members of all others.
    pub(super) async fn prepare(&self, engine: &Engine, options: &DockerOptions) -> RuntimeResult<()> {
        match &options.isolation {
            Isolation::Bridge => self.ensure_bridge(engine, options).await,
            // A control plane that was made anew is in none of its agents' networks.
            Isolation::PerAgent { joined, .. } => {
                for network in of_agents(engine, options, None).await? {
                    join(engine, &network, joined).await?;
                }
                Ok(())
            }
        }
    }

    /// An agent's network exists afterwards, with everyone in it who should be; gives its name.
    pub(super) async fn ensure(
        &self,
        engine: &Engine,
        options: &DockerOptions,
        key: &InstanceKey,
    ) -> RuntimeResult<String> {
        let name = Self::name(options, key.agent);
        match &options.isolation {
            Isolation::Bridge => self.ensure_bridge(engine, options).await?,
            Isolation::PerAgent { joined, subnets } => {
                let _one_at_a_time = self.creating.lock().await;
                if named(engine, &name).await?.is_empty() {
                    let labels = container::owner_labels(options.installation, key);
                    create_in_free_subnet(engine, &name, labels, *subnets).await?;
                    keep_the_oldest(engine, &name).await?;
                }
                join(engine, &name, joined).await?;
            }
        }
        Ok(name)
    }

    /// Removes an agent's own network, if it has one.
    pub(super) async fn remove(&self, engine: &Engine, options: &DockerOptions, agent: AgentId) -> RuntimeResult<()> {
        let docker = engine.docker().await?;
        for network in of_agents(engine, options, Some(agent)).await? {
            if let Isolation::PerAgent { joined, .. } = &options.isolation {
                for member in joined {
                    let leave = NetworkDisconnectRequest { container: member.clone(), force: Some(true) };
                    // One that is not in it, or not there, answers with an error of no use; the removal tells.
                    let _ = within(CHANGE, docker.disconnect_network(&network, leave)).await;
                }
            }
            match within(CHANGE, docker.remove_network(&network)).await {
                Ok(()) => {}
                Err(failure) if failure.already() => {}
                Err(failure) => return Err(failure.into()),
            }
        }
        Ok(())
    }

    async fn ensure_bridge(&self, engine: &Engine, options: &DockerOptions) -> RuntimeResult<()> {
        let name = &options.network;
        if let Some(network) = named(engine, name).await?.first() {
            return check_isolation(network);
        }
        let _one_at_a_time = self.creating.lock().await;
        if named(engine, name).await?.is_empty() {
            let request = NetworkCreateRequest {
                name: name.clone(),
                driver: Some("bridge".into()),
                options: Some(HashMap::from([(ICC.into(), "false".into())])),
                ..NetworkCreateRequest::default()
            };
            within(CHANGE, engine.docker().await?.create_network(request)).await.map_err(not_made)?;
            keep_the_oldest(engine, name).await?;
        }
        Ok(())
    }
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
    let icc = network.options.as_ref().and_then(|options| options.get(ICC));
    if icc.map(String::as_str) == Some("false") {
        return Ok(());
    }
    Err(RuntimeError::Invalid(format!(
        "the network {} lets agents reach each other: remove it, or make it with the option {ICC}=false",
        network.name.as_deref().unwrap_or_default()
    )))
}

/// The networks of exactly this name, the oldest first.
async fn named(engine: &Engine, name: &str) -> RuntimeResult<Vec<Network>> {
    let filter = HashMap::from([("name", vec![name])]);
    let options = ListNetworksOptionsBuilder::default().filters(&filter).build();
    let mut networks = read(engine.docker().await?.list_networks(Some(options))).await?;
    // The engine's filter also finds names that merely contain this one.
    networks.retain(|network| network.name.as_deref() == Some(name));
    networks.sort_by(|a, b| (&a.created, &a.id).cmp(&(&b.created, &b.id)));
    Ok(networks)
}

/// The names of the networks that belong to agents of ours, or to one of them.
async fn of_agents(engine: &Engine, options: &DockerOptions, agent: Option<AgentId>) -> RuntimeResult<Vec<String>> {
    let filter = container::owner_filter(options.installation, agent);
    let query = ListNetworksOptionsBuilder::default().filters(&filter).build();
    let networks = read(engine.docker().await?.list_networks(Some(query))).await?;
    let ours = networks
        .into_iter()
        .filter(|network| container::owned_by(options.installation, agent, &observe::labels(network.labels.clone())));
    Ok(ours.filter_map(|network| network.id).collect())
}

async fn keep_the_oldest(engine: &Engine, name: &str) -> RuntimeResult<()> {
    let docker = engine.docker().await?;
    for network in named(engine, name).await?.into_iter().skip(1) {
        // Empty since a moment ago; where it is not, somebody else has taken it up and looks after it.
        if let Some(id) = network.id {
            let _ = within(CHANGE, docker.remove_network(&id)).await;
        }
    }
    Ok(())
}

/// The first subnet that nobody has. The engine knows of routes that its list of networks does not show, so that one
/// which looks free may be refused.
async fn create_in_free_subnet(
    engine: &Engine,
    name: &str,
    labels: HashMap<String, String>,
    subnets: Subnets,
) -> RuntimeResult<()> {
    let docker = engine.docker().await?;
    let networks = read(docker.list_networks(None)).await?;
    let configs = networks.into_iter().filter_map(|network| network.ipam?.config).flatten();
    let taken: HashSet<String> = configs.filter_map(|config| config.subnet).collect();
    for subnet in subnets.iter().filter(|subnet| !taken.contains(subnet)).take(SUBNET_ATTEMPTS) {
        let range = IpamConfig { subnet: Some(subnet), ..IpamConfig::default() };
        let request = NetworkCreateRequest {
            name: name.to_owned(),
            driver: Some("bridge".into()),
            ipam: Some(Ipam { config: Some(vec![range]), ..Ipam::default() }),
            labels: Some(labels.clone()),
            ..NetworkCreateRequest::default()
        };
        match within(CHANGE, docker.create_network(request)).await {
            Ok(_) => return Ok(()),
            Err(Failure::Refused(403 | 400, message)) if message.contains("overlap") => {}
            Err(failure) => return Err(failure.into()),
        }
    }
    Err(RuntimeError::Capacity("no free subnet is left for another agent's network".into()))
}

async fn join(engine: &Engine, network: &str, members: &[String]) -> RuntimeResult<()> {
    let docker = engine.docker().await?;
    for member in members {
        let request = NetworkConnectRequest { container: member.clone(), endpoint_config: None };
        match within(CHANGE, docker.connect_network(network, request)).await {
            Ok(()) => {}
            Err(Failure::Refused(403 | 409 | 500, message)) if message.contains("already exists in network") => {}
            Err(Failure::Refused(404, message)) => {
                return Err(RuntimeError::Invalid(format!("{member} cannot join the agents' networks: {message}")));
            }
            Err(failure) => return Err(failure.into()),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_a_free_address_pool_there_is_no_room() {
        let why = "could not find an available, non-overlapping IPv4 address pool among the defaults";
        assert_eq!(not_made(Failure::Refused(404, why.into())), RuntimeError::Capacity(why.into()));
        assert_eq!(not_made(Failure::Away("gone".into())), Failure::Away("gone".into()).into());
    }
}
