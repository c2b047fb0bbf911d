//! The models of all agents: is each address known and does somebody listen there, and did the last message fail.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::Value;
use tokio::net::{TcpStream, lookup_host};
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::Finding;
use crate::cli::client::Client;
use crate::cli::output::{cell, plain};
use crate::domain::Provider;

/// How long a name server or a model's server may take.
const WITHIN: Duration = Duration::from_secs(5);
/// Agents that are named in one line.
const NAMED: usize = 3;

pub(super) async fn look(client: &Client, answers: bool) -> Vec<Finding> {
    if !answers {
        return Vec::new();
    }
    let agents = match client.list("/api/admin/agents").await {
        Ok(agents) => agents,
        // Not an administrator: their own will do.
        Err(_) => client.list("/api/agents").await.unwrap_or_default(),
    };
    let mut findings = reachable(&agents).await;
    findings.extend(failing(&agents));
    findings
}

/// One line for each address. It is tried from this machine; containers may have another way to it.
async fn reachable(agents: &[Value]) -> Vec<Finding> {
    let mut by_address: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for agent in agents {
        let url = agent["providerUrl"]
            .as_str()
            .or_else(|| Provider::parse(agent["provider"].as_str()?).ok().map(Provider::base_url));
        if let Some(address) = url.and_then(address_of) {
            by_address.entry(address).or_default().push(cell(&agent["slug"]));
        }
    }
    let mut tries = JoinSet::new();
    for (address, agents) in by_address {
        tries.spawn(async move { try_address(&address, &agents).await });
    }
    let mut findings = tries.join_all().await;
    findings.sort_by(|one, other| one.check.cmp(&other.check));
    findings
}

async fn try_address(address: &str, agents: &[String]) -> Finding {
    let check = format!("model {}", plain(address));
    let more = agents.len().saturating_sub(NAMED);
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    let of = format!("{}{more}", agents.iter().take(NAMED).cloned().collect::<Vec<_>>().join(", "));
    if address.starts_with("host.docker.internal:") {
        return Finding::ok(check, format!("of {of}: only containers can tell"));
    }
    let remedy = "check the agent's providerUrl, the network and firewalls";
    let addresses: Vec<_> = match timeout(WITHIN, lookup_host(address)).await {
        Ok(Ok(addresses)) => addresses.collect(),
        Ok(Err(_)) => return Finding::fail(check, format!("of {of}: the name cannot be resolved (DNS); {remedy}")),
        Err(_) => {
            return Finding::fail(check, format!("of {of}: the name server does not answer; see /etc/resolv.conf"));
        }
    };
    match timeout(WITHIN, TcpStream::connect(addresses.as_slice())).await {
        Ok(Ok(_)) => Finding::ok(check, format!("of {of}: it can be reached")),
        Ok(Err(error)) => Finding::fail(check, format!("of {of}: {error}; {remedy}")),
        Err(_) => Finding::fail(check, format!("of {of}: no answer within {} s; {remedy}", WITHIN.as_secs())),
    }
}

/// Agents that are in ERROR.
fn failing(agents: &[Value]) -> Vec<Finding> {
    let failed = agents.iter().filter(|agent| agent["status"] == "ERROR");
    let finding = |agent: &Value| {
        let (slug, reason) = (cell(&agent["slug"]), cell(&agent["statusReason"]["message"]));
        Finding::warn(format!("agent {slug}"), format!("ERROR: {reason}; see: zeroone agent explain {slug}"))
    };
    failed.map(finding).collect()
}

/// `host:port` of a URL.
fn address_of(url: &str) -> Option<String> {
    let (scheme, rest) = url.split_once("://")?;
    let authority = rest.split(['/', '?', '#']).next()?;
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    let port = match scheme {
        "https" => 443,
        "http" => 80,
        _ => return None,
    };
    let has_port = host.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok());
    Some(if has_port { host.to_owned() } else { format!("{host}:{port}") })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_leads_to_an_address() {
        for (url, address) in [
            ("https://api.openai.com/v1", Some("api.openai.com:443")),
            ("http://127.0.0.1:8080/v1", Some("127.0.0.1:8080")),
            ("http://[::1]:8080/v1", Some("[::1]:8080")),
            ("http://[::1]/v1", Some("[::1]:80")),
            ("http://user@host?x", Some("host:80")),
            ("ftp://host", None),
            ("host", None),
        ] {
            assert_eq!(address_of(url).as_deref(), address, "{url}");
        }
        assert!(Provider::ALL.iter().all(|provider| address_of(provider.base_url()).is_some()));
    }
}
