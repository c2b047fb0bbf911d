//! The tasks of an agent's actor: jobs, observations, health checks and timers. Each reports with a message, even if it
//! panics: otherwise the actor would wait for it for ever.

use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use ractor::ActorRef;
use tokio::time::sleep;
use tokio_util::task::AbortOnDropHandle;
use tracing::Instrument as _;

use super::state::{ActorState, ObserveState};
use crate::actor::jobs::{self, HealthCheck, JobInput};
use crate::actor::protocol::{AgentMsg, GONE, RegistryMsg, RegistrySlot};
use crate::actor::{Services, ask};
use crate::domain::{AgentId, HostPort, Timestamp};
use crate::lifecycle::{Cause, Code, Effect, Failure, FailureKind, Job, Observation, Outcome, Phase};

impl ActorState {
    pub(super) fn act(&mut self, myself: &ActorRef<AgentMsg>, effect: Effect) {
        match effect {
            Effect::Run(job) => self.run_job(myself.clone(), job),
            Effect::Observe => self.start_observation(myself.clone()),
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
            run: self.run().cloned(),
        };
        let span = self.span();
        self.services.job_queues.run(self.view.record.id, move |cancel| {
            async move {
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
            }
            .instrument(span)
        });
    }

    pub(super) fn start_observation(&mut self, myself: ActorRef<AgentMsg>) {
        if self.observing != ObserveState::Idle {
            self.observing = ObserveState::RunningThenAgain;
            return;
        }
        self.observing = ObserveState::Running;
        let services = Arc::clone(&self.services);
        let (agent, revision) = (self.view.record.id, self.view.record.state.revision);
        let key = jobs::key_of(&self.view.record);
        let known = self.run().cloned();
        let unknown = AgentMsg::Observed { revision, observation: Observation::Unknown, run: None };
        self.observation = Some(self.report(myself, unknown, async move {
            let (observation, run) = jobs::observe(&services, agent, &key, known.as_ref()).await;
            AgentMsg::Observed { revision, observation, run }
        }));
    }

    fn check_health(&mut self, myself: ActorRef<AgentMsg>, delay: Duration) {
        let services = Arc::clone(&self.services);
        let (agent, attempt) = (self.view.record.id, self.view.record.state.attempt);
        let endpoint = self.run().map(|run| run.endpoint);
        let key = jobs::key_of(&self.view.record);
        let missed = AgentMsg::HealthChecked { attempt, alive: false };
        self.health = Some(self.report(myself, missed, async move {
            sleep(delay).await;
            let Some(endpoint) = endpoint else { return AgentMsg::HealthUnknown { attempt } };
            // Boxed: while it sleeps, which is nearly always, the task has no room for the check.
            match Box::pin(jobs::check_health(&services, agent, &key, endpoint)).await {
                HealthCheck::Healthy => AgentMsg::HealthChecked { attempt, alive: true },
                HealthCheck::Missed => AgentMsg::HealthChecked { attempt, alive: false },
                HealthCheck::TokenRefused => AgentMsg::TokenRefused { attempt },
                HealthCheck::Unusable(why) => AgentMsg::Unusable { attempt, why: why.into() },
            }
        }));
    }

    /// Runs `work` as a task that ends with its handle, and sends its message; the other one if it panics.
    fn report(
        &self,
        myself: ActorRef<AgentMsg>,
        if_it_panics: AgentMsg,
        work: impl Future<Output = AgentMsg> + Send + 'static,
    ) -> AbortOnDropHandle<()> {
        let services = Arc::clone(&self.services);
        let task = async move {
            let message = AssertUnwindSafe(work).catch_unwind().await.unwrap_or_else(|_panic| {
                services.counters.task_panicked();
                tracing::error!("a task of this agent panicked");
                if_it_panics
            });
            // An actor that has ended meanwhile left its work to its successor.
            let _ = myself.cast(message);
        };
        AbortOnDropHandle::new(tokio::spawn(task.instrument(self.span())))
    }

    fn wake_at(&mut self, myself: ActorRef<AgentMsg>, at: Timestamp) {
        let revision = self.view.record.state.revision;
        let delay = self.services.clock.until(at);
        self.wake = Some(AbortOnDropHandle::new(tokio::spawn(async move {
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
    from: Option<HostPort>,
) -> Result<HostPort, Cause> {
    let port = ask(&registry.load_full(), |reply| RegistryMsg::SwapPort { agent, reply }, REGISTRY_PATIENCE).await;
    let outcome = match port {
        Ok(Ok(port)) => Ok(port),
        Ok(Err(cause)) => stored_port(services, agent, from).await.ok_or(cause),
        Err(error) => {
            let cause = Cause::because(Code::Internal, format!("the registry: {error}"));
            stored_port(services, agent, from).await.ok_or(cause)
        }
    };
    if let Ok(port) = outcome {
        tracing::warn!(%port, "the agent has a new port; it had none, or another program holds it");
    }
    outcome
}

/// The port that the store has, if it differs: a swap whose answer was lost may have been committed.
async fn stored_port(services: &Services, agent: AgentId, from: Option<HostPort>) -> Option<HostPort> {
    let stored = services.store.agent(agent).await.ok().flatten()?;
    stored.port.filter(|port| Some(*port) != from)
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
