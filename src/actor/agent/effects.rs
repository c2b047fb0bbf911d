//! What an agent's actor has others do: jobs, looks, health checks and timers, each a task that reports by message.

use std::sync::Arc;
use std::time::Duration;

use ractor::ActorRef;
use tokio::task::JoinHandle;
use tokio::time::sleep;

use super::{ActorState, AgentMsg, GONE};
use crate::actor::jobs::{self, JobInput};
use crate::actor::registry::RegistryMsg;
use crate::actor::supervisor::RegistrySlot;
use crate::actor::{Services, ask};
use crate::domain::{AgentId, HostPort, Timestamp};
use crate::lifecycle::{Cause, Code, Effect, Failure, FailureKind, Job, Outcome, Phase};

/// One look at a time: a burst of nudges is one more look after the one under way, which may have missed them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ObserveState {
    No,
    Once,
    Again,
}

/// A timer that dies with its owner.
pub(super) struct AbortOnDrop(JoinHandle<()>);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl ActorState {
    pub(super) fn act(&mut self, myself: &ActorRef<AgentMsg>, effect: Effect) {
        match effect {
            Effect::Run(job) => self.run_job(myself.clone(), job),
            Effect::Observe => self.look(myself.clone()),
            Effect::CheckHealth(delay) => self.check_health(myself.clone(), delay),
            Effect::WakeAt(at) => self.wake_at(myself.clone(), at),
            Effect::End => myself.stop(Some(GONE.into())),
        }
    }

    fn run_job(&self, myself: ActorRef<AgentMsg>, job: Job) {
        let attempt = self.view.record.state.attempt;
        let services = Arc::clone(&self.services);
        let registry = Arc::clone(&self.registry);
        let input = JobInput {
            stage: matches!(self.view.record.state.phase, Phase::Starting { stage: true, .. }),
            limits: services.accounts.limits_of(self.view.record.user),
            record: self.view.record.clone(),
            port: self.view.port,
            token: self.token.clone(),
            run: self.run.clone(),
        };
        self.services.job_queues.run(self.view.record.id, move |cancel| async move {
            let agent = input.record.id;
            let message = if job == Job::Rebind {
                AgentMsg::Rebound { attempt, port: rebind(&services, &registry, agent, input.port).await }
            } else {
                let mut report = jobs::run(Arc::clone(&services), job, input, cancel).await;
                if job == Job::Remove && report.outcome == Outcome::Done {
                    report.outcome = retire(&services, &registry, agent).await;
                }
                AgentMsg::JobEnded { attempt, job, report: Box::new(report) }
            };
            // An actor that has ended meanwhile left its work to its successor.
            let _ = myself.cast(message);
        });
    }

    pub(super) fn look(&mut self, myself: ActorRef<AgentMsg>) {
        if self.observing != ObserveState::No {
            self.observing = ObserveState::Again;
            return;
        }
        self.observing = ObserveState::Once;
        let services = Arc::clone(&self.services);
        let (agent, revision) = (self.view.record.id, self.view.record.state.revision);
        let key = jobs::key_of(&self.view.record);
        tokio::spawn(async move {
            let (observation, run) = jobs::look(&services, agent, &key).await;
            let _ = myself.cast(AgentMsg::Observed { revision, observation, run });
        });
    }

    fn check_health(&mut self, myself: ActorRef<AgentMsg>, delay: Duration) {
        let services = Arc::clone(&self.services);
        let (agent, attempt) = (self.view.record.id, self.view.record.state.attempt);
        let endpoint = self.run.as_ref().map(|run| run.endpoint);
        let key = jobs::key_of(&self.view.record);
        self.health = Some(AbortOnDrop(tokio::spawn(async move {
            sleep(delay).await;
            let Some(endpoint) = endpoint else {
                let _ = myself.cast(AgentMsg::HealthUnknown { attempt });
                return;
            };
            // Boxed: while it sleeps, which is nearly always, the task has no room for the check.
            let alive = Box::pin(jobs::check_health(&services, agent, &key, endpoint)).await;
            let _ = myself.cast(AgentMsg::HealthChecked { attempt, alive });
        })));
    }

    fn wake_at(&mut self, myself: ActorRef<AgentMsg>, at: Timestamp) {
        let revision = self.view.record.state.revision;
        let delay = self.services.clock.until(at);
        self.wake = Some(AbortOnDrop(tokio::spawn(async move {
            sleep(delay).await;
            let _ = myself.cast(AgentMsg::Wake { revision });
        })));
    }
}

/// How long the registry may take: it waits for nothing but the store.
const REGISTRY_PATIENCE: Duration = Duration::from_secs(10);

async fn rebind(
    services: &Services,
    registry: &RegistrySlot,
    agent: AgentId,
    from: HostPort,
) -> Result<HostPort, Cause> {
    let port = ask(&registry.load_full(), |reply| RegistryMsg::SwapPort { agent, reply }, REGISTRY_PATIENCE).await;
    let outcome = match port {
        Ok(Ok(port)) => Ok(port),
        Ok(Err(cause)) => swapped_all_the_same(services, agent, from).await.ok_or(cause),
        Err(error) => {
            let cause = Cause::because(Code::Internal, format!("the registry: {error}"));
            swapped_all_the_same(services, agent, from).await.ok_or(cause)
        }
    };
    if let Ok(port) = outcome {
        tracing::warn!(%agent, %port, at = %services.clock.now(), "the port was taken by someone else; the agent has another one now");
    }
    outcome
}

/// The port that the store has, if it is another one: a swap whose answer was lost may have been committed.
async fn swapped_all_the_same(services: &Services, agent: AgentId, from: HostPort) -> Option<HostPort> {
    let stored = services.store.agent(agent).await.ok().flatten()?;
    Some(stored.port).filter(|port| *port != from)
}

/// Removes the record; the outcome of the deletion depends on it.
pub(super) async fn retire(services: &Services, registry: &RegistrySlot, agent: AgentId) -> Outcome {
    let asked = ask(&registry.load_full(), |reply| RegistryMsg::Retire { agent, reply }, REGISTRY_PATIENCE).await;
    let trouble = match asked {
        Ok(Ok(())) => {
            services.views.remove(agent);
            services.recoveries.forget(agent);
            return Outcome::Done;
        }
        Ok(Err(error)) => error.to_string(),
        Err(error) => format!("the registry: {error}"),
    };
    Outcome::Failed(Failure { kind: FailureKind::Transient, cause: Cause::because(Code::Internal, trouble) })
}
