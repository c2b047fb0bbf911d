//! One agent's actor: a thin shell round [`lifecycle::step`](crate::lifecycle::step()).
//!
//! Event → decide → commit → show → reply → act. The only thing a handler waits for is the store. Where a commit's outcome
//! is not known the actor ends with an error, and its supervisor rebuilds it from what the store really has.

use std::sync::Arc;
use std::time::Duration;

use ractor::{Actor, ActorProcessingErr, ActorRef, RpcReplyPort};
use tokio::task::JoinHandle;
use tokio::time::sleep;

use super::jobs::{self, Order, TOKEN_FIELD};
use super::registry::RegistryMsg;
use super::supervisor::RegistrySlot;
use super::{FeedEntry, World, ask};
use crate::domain::{AgentId, AgentSpec, ChannelKind, HostPort, Secret, Status, Timestamp};
use crate::lifecycle::{
    Cause, Code, Command, Context, Effect, Event, Failure, FailureKind, Job, Life, Outcome, Phase, Sighting,
    TokenChange, Transition, Verdict, admit, allowed, step,
};
use crate::runtime::Run;
use crate::store::{AgentRecord, Batch, LogEntry, StoreError};
use crate::vault::{Binding, Sealed};
use crate::view::{Access, AgentView};

pub enum AgentMsg {
    /// Take up the record; sent once, right after the actor began.
    Recover,
    Command(Command, Option<Box<Change>>, RpcReplyPort<Asked>),
    JobEnded {
        attempt: u64,
        job: Job,
        ended: Box<jobs::Ended>,
    },
    /// The registry gave the agent another port, or could not.
    Rebound {
        attempt: u64,
        port: Result<HostPort, Cause>,
    },
    Looked {
        revision: u64,
        sighting: Sighting,
        run: Option<Run>,
    },
    HealthChecked {
        attempt: u64,
        alive: bool,
    },
    /// There was nothing to ask: the run is not known at present.
    HealthUnknown {
        attempt: u64,
    },
    /// The engine says that something happened.
    Nudge,
    /// A message was answered with 401.
    TokenRefused {
        attempt: u64,
    },
    Wake {
        revision: u64,
    },
    /// A bug, as chaos tests have it.
    #[cfg(feature = "testkit")]
    Panic,
}

/// A change of what the agent is, already valid and sealed.
pub struct Change {
    /// Only if the agent still has this generation.
    pub if_generation: u64,
    pub spec: Arc<AgentSpec>,
    pub api_key: Option<Sealed>,
    pub channels: Option<Sealed>,
    pub channel_kinds: Vec<ChannelKind>,
}

/// The answer to a command.
#[derive(Debug, Clone)]
pub enum Asked {
    /// Committed; the view shows it.
    Done,
    /// It was so before.
    Already,
    /// Not in this status.
    Refused { status: Status, allowed: Vec<&'static str> },
    /// The spec was changed by someone else meanwhile.
    Stale,
    /// Nothing was changed: the store did not take it.
    NotStored(StoreError),
}

pub struct AgentActor;

pub struct AgentArgs {
    pub world: Arc<World>,
    pub record: AgentRecord,
    pub port: HostPort,
    pub registry: RegistrySlot,
}

pub struct AgentState {
    world: Arc<World>,
    registry: RegistrySlot,
    record: AgentRecord,
    port: HostPort,
    token: Option<Secret<String>>,
    run: Option<Run>,
    wake: Option<AbortOnDrop>,
    health: Option<AbortOnDrop>,
    looking: Looking,
}

/// One look at a time: a burst of nudges is one more look after the one under way, which may have missed them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Looking {
    No,
    Once,
    Again,
}

impl Drop for AgentState {
    /// The successor finds out what was done, and its first job waits for the end of the last one.
    fn drop(&mut self) {
        self.world.lanes.cancel(self.record.id);
    }
}

/// A timer that dies with its owner.
struct AbortOnDrop(JoinHandle<()>);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Actor for AgentActor {
    type Msg = AgentMsg;
    type State = AgentState;
    type Arguments = AgentArgs;

    /// Only takes its arguments: what fails in here would be seen by nobody but the spawner.
    async fn pre_start(&self, _: ActorRef<AgentMsg>, args: AgentArgs) -> Result<AgentState, ActorProcessingErr> {
        let AgentArgs { world, record, port, registry } = args;
        let token = jobs::open_token(&world, &record);
        Ok(AgentState {
            world,
            registry,
            record,
            port,
            token,
            run: None,
            wake: None,
            health: None,
            looking: Looking::No,
        })
    }

    async fn post_start(&self, myself: ActorRef<AgentMsg>, _: &mut AgentState) -> Result<(), ActorProcessingErr> {
        Ok(myself.cast(AgentMsg::Recover)?)
    }

    async fn handle(
        &self,
        myself: ActorRef<AgentMsg>,
        message: AgentMsg,
        state: &mut AgentState,
    ) -> Result<(), ActorProcessingErr> {
        // Boxed: else every idle actor's task has room for a transition that it may make once a day.
        if let AgentMsg::Command(command, change, reply) = message {
            return Box::pin(state.command(&myself, command, change, reply)).await;
        }
        #[cfg(feature = "testkit")]
        let message = state.with_old_news(message);
        let (event, token) = state.observe(&myself, message);
        match event {
            Some(event) => Box::pin(state.advance(&myself, event, token)).await,
            None => Ok(()),
        }
    }
}

impl AgentState {
    /// Notes what a message brings besides its event: a run, a token, a port.
    fn observe(&mut self, myself: &ActorRef<AgentMsg>, message: AgentMsg) -> (Option<Event>, Option<Secret<String>>) {
        let event = match message {
            AgentMsg::Recover => Event::Recovered,
            AgentMsg::JobEnded { attempt, job, ended } => {
                let ended = *ended;
                if attempt == self.record.life.attempt {
                    self.run = ended.run.or_else(|| self.run.take());
                }
                return (Some(Event::Job { attempt, job, outcome: ended.outcome }), ended.token);
            }
            AgentMsg::Rebound { attempt, port } => {
                let outcome = match port {
                    Ok(port) => {
                        // A fact of the ledger, true for whichever attempt is under way.
                        self.port = port;
                        Outcome::Done
                    }
                    Err(cause) => Outcome::Failed(Failure { kind: FailureKind::Transient, cause }),
                };
                Event::Job { attempt, job: Job::Rebind, outcome }
            }
            AgentMsg::Looked { revision, sighting, run } => {
                if std::mem::replace(&mut self.looking, Looking::No) == Looking::Again {
                    self.look(myself.clone());
                }
                if revision == self.record.life.revision && run.is_some() && run != self.run {
                    self.run = run;
                    self.show();
                    self.miss_token(myself);
                }
                Event::Seen { revision, sighting }
            }
            AgentMsg::HealthChecked { attempt, alive } => Event::Health { attempt, alive },
            AgentMsg::HealthUnknown { attempt } => {
                if attempt == self.record.life.attempt {
                    self.act(myself, Effect::Look);
                    self.act(myself, Effect::CheckHealth(self.world.settings.timing.health_retry));
                }
                return (None, None);
            }
            AgentMsg::Nudge => Event::Nudged,
            AgentMsg::TokenRefused { attempt } => Event::TokenRefused { attempt },
            AgentMsg::Wake { revision } => {
                // The timer is over; its task would be kept by its handle.
                if revision == self.record.life.revision {
                    self.wake = None;
                }
                Event::Wake { revision }
            }
            AgentMsg::Command(command, ..) => Event::Command(command),
            #[cfg(feature = "testkit")]
            AgentMsg::Panic => panic!("an agent's actor was told to panic"),
        };
        (Some(event), None)
    }

    /// Plants [`Sabotage::ForgetAttemptCheck`](super::Sabotage).
    #[cfg(feature = "testkit")]
    fn with_old_news(&self, message: AgentMsg) -> AgentMsg {
        let attempt = self.record.life.attempt;
        match message {
            message if !self.world.is_sabotaged(super::Sabotage::ForgetAttemptCheck) => message,
            AgentMsg::JobEnded { job, ended, .. } => AgentMsg::JobEnded { attempt, job, ended },
            AgentMsg::Rebound { port, .. } => AgentMsg::Rebound { attempt, port },
            AgentMsg::HealthChecked { alive, .. } => AgentMsg::HealthChecked { attempt, alive },
            AgentMsg::TokenRefused { .. } => AgentMsg::TokenRefused { attempt },
            message => message,
        }
    }

    /// Plants [`Sabotage::SkipIntentCommit`](super::Sabotage): an intent that is only remembered.
    #[cfg(feature = "testkit")]
    fn forgets_to_commit(&mut self, next: &AgentRecord, effects: &[Effect]) -> bool {
        let intent = |effect: &Effect| matches!(effect, Effect::Run(Job::Create | Job::Launch));
        let skips = self.world.is_sabotaged(super::Sabotage::SkipIntentCommit) && effects.iter().any(intent);
        if skips {
            self.record = next.clone();
        }
        skips
    }

    /// A run that was taken up from a record whose token is missing or cannot be opened: healthy, and out of reach for
    /// every message. To the agent it is as if the token had been refused.
    fn miss_token(&self, myself: &ActorRef<AgentMsg>) {
        let life = &self.record.life;
        if self.token.is_none() && matches!(life.phase, Phase::Running { .. }) {
            let _ = myself.cast(AgentMsg::TokenRefused { attempt: life.attempt });
        }
    }

    fn decide(&self, event: Event) -> Transition {
        let settings = &self.world.settings;
        let context = Context {
            now: self.world.clock.now(),
            seed: self.record.id.seed(),
            restart: &settings.restart,
            timing: &settings.timing,
        };
        step(&self.record.life, event, &context)
    }

    async fn advance(
        &mut self,
        myself: &ActorRef<AgentMsg>,
        event: Event,
        token: Option<Secret<String>>,
    ) -> Result<(), ActorProcessingErr> {
        let transition = self.decide(event);
        if let (Some(life), Some(cause)) = (transition.life, transition.cause) {
            let next = self.next_record(life, transition.token, token.as_ref());
            #[cfg(feature = "testkit")]
            let skipped = self.forgets_to_commit(&next, &transition.effects);
            #[cfg(not(feature = "testkit"))]
            let skipped = false;
            let committed = if skipped { Ok(()) } else { self.commit(next, &cause).await };
            match committed {
                Ok(()) => {}
                // Somebody removed the record: nothing is left to look after.
                Err(StoreError::Rejected(crate::store::Conflict::NotFound)) => {
                    myself.stop(Some(GONE.into()));
                    return Ok(());
                }
                Err(error) => return Err(Box::new(error)),
            }
            self.show();
        }
        for effect in transition.effects {
            self.act(myself, effect);
        }
        Ok(())
    }

    async fn command(
        &mut self,
        myself: &ActorRef<AgentMsg>,
        command: Command,
        change: Option<Box<Change>>,
        reply: RpcReplyPort<Asked>,
    ) -> Result<(), ActorProcessingErr> {
        if reply.is_closed() {
            // Whoever asked has gone; commands are idempotent, so nothing is lost by not doing it.
            return Ok(());
        }
        if change.as_ref().is_some_and(|change| change.if_generation != self.record.life.generation) {
            let _ = reply.send(Asked::Stale);
            return Ok(());
        }
        match admit(&self.record.life.phase, command) {
            Verdict::Do => {}
            Verdict::Already => {
                let _ = reply.send(Asked::Already);
                return Ok(());
            }
            Verdict::Refuse => {
                let _ = reply.send(Asked::Refused {
                    status: self.record.life.status(),
                    allowed: allowed(&self.record.life.phase),
                });
                return Ok(());
            }
        }
        let transition = self.decide(Event::Command(command));
        if let (Some(life), Some(cause)) = (transition.life, transition.cause) {
            let mut next = self.next_record(life, transition.token, None);
            if let Some(change) = change {
                next.spec = change.spec;
                next.api_key = change.api_key;
                next.channels = change.channels;
                next.channel_kinds = change.channel_kinds;
            }
            match self.commit(next, &cause).await {
                Ok(()) => {}
                Err(error @ (StoreError::Busy | StoreError::Unavailable(_) | StoreError::Closed)) => {
                    // Certainly not written: the agent goes on as it was.
                    let _ = reply.send(Asked::NotStored(error));
                    return Ok(());
                }
                Err(error) => {
                    let _ = reply.send(Asked::NotStored(error.clone()));
                    return Err(Box::new(error));
                }
            }
            self.show();
        }
        let _ = reply.send(Asked::Done);
        #[cfg(feature = "testkit")]
        if command == Command::Delete && self.world.is_sabotaged(super::Sabotage::ReleasePortEarly) {
            retire(&self.world, &self.registry, self.record.id).await;
        }
        for effect in transition.effects {
            self.act(myself, effect);
        }
        Ok(())
    }

    fn next_record(&self, life: Life, change: TokenChange, token: Option<&Secret<String>>) -> AgentRecord {
        let mut next = self.record.clone();
        let paired = matches!(life.phase, Phase::Running { .. });
        next.life = life;
        next.updated_at = self.world.clock.now();
        if change == TokenChange::Forget {
            next.token = None;
        } else if let Some(token) = token.filter(|token| paired && Some(*token) != self.token.as_ref()) {
            let binding = Binding::agent(next.id, TOKEN_FIELD);
            next.token = Some(self.world.vault.seal(&binding, token.expose().as_bytes()));
        }
        next
    }

    async fn commit(&mut self, next: AgentRecord, cause: &Cause) -> Result<(), StoreError> {
        let entry = LogEntry {
            seq: next.life.revision,
            time: next.updated_at,
            from: self.record.life.status(),
            to: next.life.status(),
            cause: cause.code.as_str().to_owned(),
            attempt: next.life.attempt,
            detail: cause.detail.as_ref().map(|detail| detail.to_string()),
        };
        self.world.store.commit(Batch::update_agent(&next, Some(&entry))).await?;
        tracing::info!(
            agent = %next.id, slug = %next.slug, attempt = entry.attempt,
            from = %entry.from, to = %entry.to, cause = %entry.cause, detail = entry.detail,
            "transition"
        );
        if next.token != self.record.token {
            self.token = jobs::open_token(&self.world, &next);
        }
        if !matches!(next.life.phase, Phase::Running { .. } | Phase::Starting { .. }) {
            self.run = None;
        }
        self.record = next;
        let fed = FeedEntry { agent: self.record.id, user: self.record.user, entry };
        // Nobody listening is fine.
        let _ = self.world.feed.send(Arc::new(fed));
        Ok(())
    }

    /// Puts the view in its place.
    fn show(&self) {
        let running = matches!(self.record.life.phase, Phase::Running { .. });
        let access = match (&self.run, &self.token) {
            (Some(run), Some(token)) if running => Some(Arc::new(Access {
                endpoint: run.endpoint,
                token: token.clone(),
                attempt: self.record.life.attempt,
            })),
            _ => None,
        };
        self.world.views.put(AgentView { record: self.record.clone(), port: self.port, access });
    }

    fn act(&mut self, myself: &ActorRef<AgentMsg>, effect: Effect) {
        match effect {
            Effect::Run(job) => self.run_job(myself.clone(), job),
            Effect::Look => self.look(myself.clone()),
            Effect::CheckHealth(delay) => self.check_health(myself.clone(), delay),
            Effect::WakeAt(at) => self.wake_at(myself.clone(), at),
            Effect::End => myself.stop(Some(GONE.into())),
        }
    }

    fn run_job(&self, myself: ActorRef<AgentMsg>, job: Job) {
        let attempt = self.record.life.attempt;
        let world = Arc::clone(&self.world);
        let registry = Arc::clone(&self.registry);
        let order = Order {
            stage: matches!(self.record.life.phase, Phase::Starting { stage: true, .. }),
            limits: world.accounts.limits_of(self.record.user),
            record: self.record.clone(),
            port: self.port,
            token: self.token.clone(),
            run: self.run.clone(),
        };
        self.world.lanes.run(self.record.id, move |cancel| async move {
            let agent = order.record.id;
            let message = if job == Job::Rebind {
                AgentMsg::Rebound { attempt, port: rebind(&world, &registry, agent).await }
            } else {
                let mut ended = jobs::run(Arc::clone(&world), job, order, cancel).await;
                if job == Job::Remove && ended.outcome == Outcome::Done {
                    ended.outcome = retire(&world, &registry, agent).await;
                }
                AgentMsg::JobEnded { attempt, job, ended: Box::new(ended) }
            };
            // An actor that has ended meanwhile left its work to its successor.
            let _ = myself.cast(message);
        });
    }

    fn look(&mut self, myself: ActorRef<AgentMsg>) {
        if self.looking != Looking::No {
            self.looking = Looking::Again;
            return;
        }
        self.looking = Looking::Once;
        let world = Arc::clone(&self.world);
        let (agent, revision) = (self.record.id, self.record.life.revision);
        let key = jobs::key_of(&self.record);
        tokio::spawn(async move {
            let (sighting, run) = jobs::look(&world, agent, &key).await;
            let _ = myself.cast(AgentMsg::Looked { revision, sighting, run });
        });
    }

    fn check_health(&mut self, myself: ActorRef<AgentMsg>, delay: Duration) {
        let world = Arc::clone(&self.world);
        let (agent, attempt) = (self.record.id, self.record.life.attempt);
        let endpoint = self.run.as_ref().map(|run| run.endpoint);
        let key = jobs::key_of(&self.record);
        self.health = Some(AbortOnDrop(tokio::spawn(async move {
            sleep(delay).await;
            let Some(endpoint) = endpoint else {
                let _ = myself.cast(AgentMsg::HealthUnknown { attempt });
                return;
            };
            // Boxed: while it sleeps, which is nearly always, the task has no room for the check.
            let alive = Box::pin(jobs::check_health(&world, agent, &key, endpoint)).await;
            let _ = myself.cast(AgentMsg::HealthChecked { attempt, alive });
        })));
    }

    fn wake_at(&mut self, myself: ActorRef<AgentMsg>, at: Timestamp) {
        let revision = self.record.life.revision;
        let delay = self.world.clock.until(at);
        self.wake = Some(AbortOnDrop(tokio::spawn(async move {
            sleep(delay).await;
            let _ = myself.cast(AgentMsg::Wake { revision });
        })));
    }
}

/// The reason with which an actor ends when its agent is gone: the one end that is not repaired.
pub const GONE: &str = "gone";

/// How long the registry may take: it waits for nothing but the store.
const REGISTRY_PATIENCE: Duration = Duration::from_secs(10);

async fn rebind(world: &World, registry: &RegistrySlot, agent: AgentId) -> Result<HostPort, Cause> {
    let port = ask(&registry.load_full(), |reply| RegistryMsg::SwapPort { agent, reply }, REGISTRY_PATIENCE).await;
    let outcome = match port {
        Ok(Ok(port)) => Ok(port),
        Ok(Err(cause)) => Err(cause),
        Err(error) => Err(Cause::because(Code::Internal, format!("the registry: {error}"))),
    };
    if let Ok(port) = outcome {
        tracing::warn!(%agent, %port, at = %world.clock.now(), "the port was taken by someone else; the agent has another one now");
    }
    outcome
}

/// Removes the record; the outcome of the deletion depends on it.
async fn retire(world: &World, registry: &RegistrySlot, agent: AgentId) -> Outcome {
    let asked = ask(&registry.load_full(), |reply| RegistryMsg::Retire { agent, reply }, REGISTRY_PATIENCE).await;
    let trouble = match asked {
        Ok(Ok(())) => {
            world.views.remove(agent);
            return Outcome::Done;
        }
        Ok(Err(error)) => error.to_string(),
        Err(error) => format!("the registry: {error}"),
    };
    Outcome::Failed(Failure { kind: FailureKind::Transient, cause: Cause::because(Code::Internal, trouble) })
}
