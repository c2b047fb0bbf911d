//! How many agents a user has, and which agent has which slug and port: pure bookkeeping, without clock or I/O.
//!
//! One ledger knows all agents of an installation, and one owner asks it, one question after the other: so "is there
//! room" and "take it" are one step, and a thousand creates at once can't get past a quota. The store is the truth; the
//! ledger is rebuilt from it at boot. A claim is made before its commit and released if that fails; what is given up is
//! released after its commit, and after the engine confirmed that nothing uses it any more.

mod ports;

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use self::ports::Ports;
use crate::domain::{AgentId, HostPort, Limits, PortRange, Slug, Timestamp, UserId};

/// Quotas, slugs and ports of all agents.
#[derive(Debug)]
pub struct Ledger {
    claims: HashMap<AgentId, Claim>,
    slugs: HashMap<Slug, AgentId>,
    /// None where agents take no ports of the host.
    ports: Option<Ports>,
    used: HashMap<UserId, u32>,
}

/// What an agent holds.
#[derive(Debug)]
struct Claim {
    user: UserId,
    allocation: Allocation,
}

/// An agent's place in the installation: shared with no other agent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Allocation {
    pub slug: Slug,
    /// None where the engine needs none.
    pub port: Option<HostPort>,
}

/// The slug that an agent would have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SlugRequest {
    /// This one or none: the user chose it.
    Exact(Slug),
    /// This one, with a suffix if it is taken: it was made from the agent's name.
    Suggested(Slug),
}

/// Why something can't be had. Nothing was changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error("the plan allows {limit} agents, {used} are there")]
    Quota { limit: u32, used: u32 },
    #[error("the slug is taken")]
    SlugTaken,
    #[error("no host port is free")]
    NoFreePort,
    #[error("the agent has no allocation")]
    NotAllocated,
}

/// Why stored claims can't all be true: the store contradicts itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Clash {
    #[error("the agent is there twice")]
    Agent,
    #[error("its slug belongs to agent {0}")]
    Slug(AgentId),
    #[error("port {0} belongs to another agent")]
    Port(HostPort),
}

impl Ledger {
    /// An empty one that gives out these ports, if agents take any. What was claimed before may lie outside of them and
    /// stays where it is.
    pub fn new(ports: Option<PortRange>) -> Self {
        Self { claims: HashMap::new(), slugs: HashMap::new(), ports: ports.map(Ports::of), used: HashMap::new() }
    }

    /// The same, with a first port that differs from installation to installation.
    #[must_use]
    pub fn beginning_at(mut self, seed: u64) -> Self {
        if let Some(ports) = &mut self.ports {
            ports.begin_at(seed);
        }
        self
    }

    /// Takes up a stored claim. Quotas are not asked: what was granted stays granted, whatever became of the plan.
    ///
    /// # Errors
    /// Another claim holds what this one says is its own; it is not taken up.
    pub fn restore(&mut self, agent: AgentId, user: UserId, slug: Slug, port: Option<HostPort>) -> Result<(), Clash> {
        let Entry::Vacant(claim) = self.claims.entry(agent) else { return Err(Clash::Agent) };
        let owner = match self.slugs.entry(slug.clone()) {
            Entry::Vacant(owner) => owner,
            Entry::Occupied(owner) => return Err(Clash::Slug(*owner.get())),
        };
        if let (Some(ports), Some(port)) = (&mut self.ports, port)
            && !ports.hold(port)
        {
            return Err(Clash::Port(port));
        }
        owner.insert(agent);
        claim.insert(Claim { user, allocation: Allocation { slug, port } });
        *self.used.entry(user).or_default() += 1;
        Ok(())
    }

    /// Gives an agent its allocation. One that has one keeps it, whatever is asked for.
    ///
    /// # Errors
    /// The user's quota is used up, the slug is taken, or no port is free.
    pub fn claim(
        &mut self,
        agent: AgentId,
        user: UserId,
        limits: &Limits,
        wish: SlugRequest,
        now: Timestamp,
    ) -> Result<Allocation, Refusal> {
        if let Some(claim) = self.claims.get(&agent) {
            return Ok(claim.allocation.clone());
        }
        let used = self.used(user);
        if let Some(limit) = limits.max_agents
            && used >= limit
        {
            return Err(Refusal::Quota { limit, used });
        }
        let slug = self.free_slug(agent, wish).ok_or(Refusal::SlugTaken)?;
        let port = match &mut self.ports {
            Some(ports) => Some(ports.take(now).ok_or(Refusal::NoFreePort)?),
            None => None,
        };
        let allocation = Allocation { slug: slug.clone(), port };
        self.slugs.insert(slug, agent);
        self.claims.insert(agent, Claim { user, allocation: allocation.clone() });
        self.used.insert(user, used + 1);
        Ok(allocation)
    }

    /// Takes everything back that the agent holds. Does nothing for one that holds nothing.
    pub fn release(&mut self, agent: AgentId) {
        let Some(Claim { user, allocation }) = self.claims.remove(&agent) else { return };
        self.slugs.remove(&allocation.slug);
        if let (Some(ports), Some(port)) = (&mut self.ports, allocation.port) {
            ports.free(port);
        }
        if let Entry::Occupied(mut used) = self.used.entry(user) {
            *used.get_mut() -= 1;
            if *used.get() == 0 {
                used.remove();
            }
        }
    }

    /// Another port for an agent whose own is used by another program, or that has none yet. The old one is not given out
    /// for `PORT_QUARANTINE`.
    ///
    /// # Errors
    /// No other port is free, or the agent has no allocation.
    pub fn swap_port(&mut self, agent: AgentId, now: Timestamp) -> Result<HostPort, Refusal> {
        let claim = self.claims.get_mut(&agent).ok_or(Refusal::NotAllocated)?;
        let ports = self.ports.as_mut().ok_or(Refusal::NoFreePort)?;
        ports.skip_neighbours();
        let port = ports.take(now).ok_or(Refusal::NoFreePort)?;
        if let Some(old) = claim.allocation.port.replace(port) {
            ports.quarantine(old, now);
        }
        Ok(port)
    }

    /// Takes a swap back that could not be committed. `false`, and nothing done, if the agent is gone or another one
    /// holds the old port by now, which takes longer than a commit: the quarantine must have ended first.
    pub fn unswap_port(&mut self, agent: AgentId, back_to: Option<HostPort>) -> bool {
        let (Some(claim), Some(ports)) = (self.claims.get_mut(&agent), &mut self.ports) else { return false };
        if claim.allocation.port == back_to {
            return true;
        }
        if back_to.is_some_and(|port| !ports.hold(port)) {
            return false;
        }
        if let Some(port) = std::mem::replace(&mut claim.allocation.port, back_to) {
            ports.free(port);
        }
        true
    }

    /// How many agents the user has.
    pub fn used(&self, user: UserId) -> u32 {
        self.used.get(&user).copied().unwrap_or_default()
    }

    pub fn allocation(&self, agent: AgentId) -> Option<&Allocation> {
        self.claims.get(&agent).map(|claim| &claim.allocation)
    }

    fn free_slug(&self, agent: AgentId, wish: SlugRequest) -> Option<Slug> {
        let free = |slug: &Slug| !self.slugs.contains_key(slug);
        match wish {
            SlugRequest::Exact(slug) => Some(slug).filter(free),
            SlugRequest::Suggested(slug) if free(&slug) => Some(slug),
            SlugRequest::Suggested(slug) => {
                // Short first; the whole of it is as unique as the agent.
                let unique = format!("{:016x}", agent.seed());
                [4, 8, 16].iter().map(|digits| slug.with_suffix(&unique[unique.len() - digits..])).find(free)
            }
        }
    }
}

/// All ports there are.
impl Default for Ledger {
    fn default() -> Self {
        Self::new(Some(PortRange::default()))
    }
}

#[cfg(test)]
mod tests;
