//! The agents that faults are done to: a team made for the purpose, or agents that are there.

use std::collections::HashMap;
use std::net::Ipv4Addr;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use super::report::Seen;
use crate::cli::client::{Client, Key};
use crate::cli::outcome::Failure;
use crate::cli::output::{cell, plain};
use crate::cli::stand_in::{NAME, StandIn};
use crate::domain::AgentId;
use crate::runtime::fault::FaultInjector;

/// How long an agent may take to run for the first time, in seconds: with a cold image it takes minutes.
const RUNNING_WITHIN_SECS: u64 = 300;
/// How long the removal of a team may take.
const GONE_WITHIN: Duration = Duration::from_secs(60);
/// Between looks at what is waited for.
const LOOK: Duration = Duration::from_millis(200);

#[derive(Debug, Clone)]
pub(super) struct Member {
    pub(super) id: AgentId,
    pub(super) slug: String,
}

pub(super) struct Team {
    pub(super) members: Vec<Member>,
    /// With the key of their owner.
    pub(super) client: Client,
    own: Option<Own>,
}

/// A team that was made for the purpose and goes with it.
struct Own {
    admin: Client,
    user: String,
    model: StandIn,
}

impl Team {
    /// The caller's agents that run, at most so many.
    pub(super) async fn existing(client: &Client, most: usize) -> Result<Self, Failure> {
        let mut members = Vec::new();
        for agent in client.list("/api/agents?status=RUNNING").await?.iter().take(most) {
            members.push(member(agent)?);
        }
        if members.is_empty() {
            return Err(Failure::NotFound("no agent of yours is RUNNING".into()));
        }
        Ok(Self { members, client: client.clone(), own: None })
    }

    /// A user with so many agents and a stand-in for their model. In containers they reach it by the host's name for
    /// them, for which it listens on all addresses.
    pub(super) async fn hire(admin: &Client, count: usize, mark: u64, containers: bool) -> Result<Self, Failure> {
        let (at, host) = if containers {
            (Ipv4Addr::UNSPECIFIED, "host.docker.internal")
        } else {
            (Ipv4Addr::LOCALHOST, "127.0.0.1")
        };
        let model = StandIn::start(at).await?;
        let url = format!("http://{host}:{}/v1", model.port());
        let wanted = json!({ "email": format!("chaos-{mark:x}@localhost"), "plan": "enterprise" });
        let user = cell(&admin.post("/api/admin/users", &wanted).await?["id"]);
        let own = Own { admin: admin.clone(), user: user.clone(), model };
        let mut team = Self { members: Vec::new(), client: admin.clone(), own: Some(own) };
        match team.fill(&user, &url, count).await {
            Ok(()) => Ok(team),
            Err(failure) => {
                team.disband().await;
                Err(failure)
            }
        }
    }

    async fn fill(&mut self, user: &str, model: &str, count: usize) -> Result<(), Failure> {
        let key = self.client.post(&format!("/api/admin/users/{user}/keys"), &json!({ "name": "chaos" })).await?;
        self.client = self.client.with_key(Key { text: cell(&key["key"]), origin: "the chaos run".into() });
        for number in 1..=count {
            let body = json!({
                "name": format!("Chaos {number}"), "provider": "openai", "model": NAME, "apiKey": "sk-stand-in",
                "providerUrl": model,
            });
            self.members.push(member(&self.client.post("/api/agents", &body).await?)?);
        }
        let patience = Duration::from_secs(RUNNING_WITHIN_SECS + 10);
        for Member { id, .. } in &self.members {
            let path = format!("/api/agents/{id}/wait?status=RUNNING&timeout={RUNNING_WITHIN_SECS}");
            self.client.get_within(&path, patience).await?;
        }
        Ok(())
    }

    /// The port of their model, where it listens on all addresses.
    pub(super) fn open_to_all(&self) -> Option<u16> {
        self.own.as_ref().map(|own| &own.model).filter(|model| !model.is_local()).map(StandIn::port)
    }

    /// Whether their model repeats what it is told.
    pub(super) const fn echoes(&self) -> bool {
        self.own.is_some()
    }

    /// Waits until all is as it should be, and tells what is not by then.
    pub(super) async fn settle(
        &self,
        admin: &Client,
        injector: &dyn FaultInjector,
        within: Duration,
    ) -> Result<Seen, Failure> {
        let deadline = Instant::now() + within;
        loop {
            let seen = self.look(admin, injector).await?;
            if (seen.unsettled.is_empty() && seen.instances.is_empty()) || Instant::now() >= deadline {
                return Ok(seen);
            }
            sleep(LOOK).await;
        }
    }

    async fn look(&self, admin: &Client, injector: &dyn FaultInjector) -> Result<Seen, Failure> {
        let all = admin.list("/api/admin/agents").await?;
        let alive = injector.alive().await.map_err(Failure::of)?;
        let mut seen = Seen { shared_ports: shared_ports(&all), ..Seen::default() };
        if let Some(own) = &self.own {
            seen.heard_twice = own.model.heard_twice();
        }
        for Member { id, slug } in &self.members {
            let record = all.iter().find(|record| record["id"].as_str() == Some(&id.to_string()));
            let status = record.map_or_else(|| "gone".to_owned(), |record| cell(&record["status"]));
            if status != "RUNNING" {
                seen.unsettled.push(format!("{slug} is {status}"));
            }
            let count = alive.get(id).copied().unwrap_or_default();
            // A status that is wrong already explains why nothing runs.
            if count != 1 && (status == "RUNNING" || count > 1) {
                seen.instances.push(format!("{slug} has {count}"));
            }
        }
        Ok(seen)
    }

    /// Removes what was made. Failures are told and change nothing else.
    pub(super) async fn disband(self) {
        let Some(own) = self.own else { return };
        let deadline = Instant::now() + GONE_WITHIN;
        for Member { id, slug } in &self.members {
            if let Err(error) = self.client.delete(&format!("/api/agents/{id}")).await {
                tracing::warn!(%slug, %error, "an agent of the run could not be deleted");
            }
        }
        let path = format!("/api/admin/users/{}", own.user);
        // Refused as long as a deletion is still under way.
        while let Err(error) = own.admin.delete(&path).await {
            if Instant::now() >= deadline {
                tracing::warn!(user = plain(&own.user), %error, "the run's user could not be deleted");
                return;
            }
            sleep(LOOK).await;
        }
    }
}

fn member(record: &Value) -> Result<Member, Failure> {
    let id = record["id"].as_str().and_then(|id| id.parse().ok());
    let id = id.ok_or_else(|| Failure::said("the service's answer is no agent"))?;
    Ok(Member { id, slug: cell(&record["slug"]) })
}

fn shared_ports(agents: &[Value]) -> Vec<String> {
    let mut holders = HashMap::<u64, Vec<String>>::new();
    for agent in agents {
        if let Some(port) = agent["containerPort"].as_u64() {
            holders.entry(port).or_default().push(cell(&agent["slug"]));
        }
    }
    let shared = holders.into_iter().filter(|(_, slugs)| slugs.len() > 1);
    shared.map(|(port, slugs)| format!("{port} of {}", slugs.join(" and "))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_that_two_agents_have_is_told() {
        let agent = |slug: &str, port: Value| json!({ "slug": slug, "containerPort": port });
        let agents = [agent("a", json!(40_000)), agent("b", json!(40_001)), agent("c", json!(40_000))];
        assert_eq!(shared_ports(&agents), ["40000 of a and c"]);
        assert_eq!(shared_ports(&[agent("a", Value::Null), agent("b", Value::Null)]), Vec::<String>::new());
    }
}
