//! The work on an instance: one job, some calls, one end. Jobs decide nothing; they report.

mod import;
mod launch;
mod migration;
mod pairing;
mod rehearsal;
mod secrets;
mod snapshot;
mod usability;

use std::net::SocketAddr;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

pub use self::import::place;
pub use self::rehearsal::{Rehearsal, remembered};
pub use self::secrets::{
    API_KEY_FIELD, CHANNELS_FIELD, RETIRED_FIELD, TOKEN_FIELD, open_credentials, open_retired, open_token,
};
pub use self::snapshot::snapshot;
use super::{JobLimits, Services};
use crate::domain::{AgentId, Credentials, HostPort, Limits, Origin, Secret, Software, Timestamp, elapsed};
use crate::lifecycle::{Cause, Code, Failure, FailureKind, Job, Outcome};
use crate::runtime::{
    DataPolicy, ImageChoice, InstanceKey, InstanceSpec, InstanceState, ObservedInstance, Progress, Run, RuntimeCall,
    RuntimeError,
};
use crate::store::AgentRecord;
use crate::view::Vitals;
use crate::zeroclaw::client::GatewayError;
use crate::zeroclaw::outward;
use crate::zeroclaw::workspace::{self, Staging};

/// What a job gives the runtime beyond the runtime's own deadlines.
const ANSWER_MARGIN: Duration = Duration::from_secs(2);

/// How long all entries of a memory may take that are told to a gateway.
const TELLING: Duration = Duration::from_secs(120);

/// What a job works with: a copy, so that the actor is free meanwhile.
#[derive(Clone)]
pub struct JobInput {
    pub record: AgentRecord,
    pub port: Option<HostPort>,
    pub limits: Limits,
    pub stage: bool,
    pub token: Option<Secret<String>>,
    pub run: Option<Run>,
}

/// How a job ended, with what it learnt.
pub struct JobReport {
    pub outcome: Outcome,
    pub run: Option<Run>,
    pub token: Option<Secret<String>>,
    pub software: Option<Arc<Software>>,
}

impl From<Outcome> for JobReport {
    fn from(outcome: Outcome) -> Self {
        Self { outcome, run: None, token: None, software: None }
    }
}

type JobResult = Result<JobReport, Failure>;

/// Does a job of the runtime or the gateway, within its limit; a panic in it is a failure like others.
pub async fn run(services: Arc<Services>, job: Job, input: JobInput, cancel: CancellationToken) -> JobReport {
    let limits = &services.settings.limits;
    let limit = limit_of(job, limits, input.record.untold, |call| services.runtime.longest(call));
    if changes_instance(job) && !services.lease.is_held() {
        if let Some(why) = services.lease.refusal() {
            return failed(FailureKind::EngineRefuses, Cause::because(Code::RuntimeRefuses, why));
        }
        let cause = Cause::because(Code::RuntimeUnavailable, "the lease of the installation is not held at present");
        return failed(FailureKind::EngineAway, cause);
    }
    let work = AssertUnwindSafe(perform(&services, job, &input, &cancel)).catch_unwind();
    match timeout(limit, work).await {
        Ok(Ok(Ok(report))) => report,
        Ok(Ok(Err(failure))) => Outcome::Failed(failure).into(),
        Ok(Err(_panic)) => failed(FailureKind::Transient, Cause::because(Code::Internal, "a job panicked")),
        Err(_elapsed) => {
            let cause = Cause::because(Code::RuntimeUnavailable, format!("no answer within {} s", limit.as_secs()));
            failed(FailureKind::EngineAway, cause)
        }
    }
}

/// How long a job may take. `untold`: memory waits to be told to the gateway; `longest`: what a call of the runtime may take.
fn limit_of(job: Job, limits: &JobLimits, untold: bool, longest: impl Fn(RuntimeCall) -> Duration) -> Duration {
    // No shorter than what the runtime itself waits for: its own answer says what was late, and a start that waits for
    // its turn keeps it.
    let longest = |call| longest(call) + ANSWER_MARGIN;
    match job {
        Job::Create => {
            let calls = [RuntimeCall::EnsureCreated, RuntimeCall::Kill, RuntimeCall::Stage];
            let work = calls.into_iter().map(longest).sum::<Duration>().max(limits.engine_call * 2);
            limits.prepare.max(longest(RuntimeCall::Prepare)) + work
        }
        Job::Kill => limits.engine_call.max(longest(RuntimeCall::Kill)),
        Job::Launch => limits.engine_call.max(longest(RuntimeCall::Start)),
        Job::Await => limits.engine_start + limits.engine_call,
        Job::Rebind => limits.engine_call,
        Job::Remove => (limits.engine_call * 2).max(longest(RuntimeCall::Remove)),
        Job::Stop => {
            let grace = limits.stop_grace;
            (grace + limits.engine_call).max(longest(RuntimeCall::Stop { grace }))
        }
        Job::Probe => limits.start + limits.health,
        // A token is tried, or a code is waited for and redeemed; then the gateway is asked whether it is usable.
        Job::Pair => limits.pairing * 3 + limits.health + if untold { TELLING } else { Duration::ZERO },
    }
}

/// Whether only the one control plane that holds the lease may do it.
const fn changes_instance(job: Job) -> bool {
    match job {
        Job::Kill | Job::Create | Job::Launch | Job::Stop | Job::Remove => true,
        Job::Rebind | Job::Await | Job::Probe | Job::Pair => false,
    }
}

fn failed(kind: FailureKind, cause: Cause) -> JobReport {
    Outcome::Failed(Failure { kind, cause }).into()
}

async fn perform(services: &Services, job: Job, input: &JobInput, cancel: &CancellationToken) -> JobResult {
    let key = key_of(&input.record);
    let runtime = &services.runtime;
    match job {
        Job::Create => create(services, input, cancel).await,
        Job::Launch => launch::launch(services, &key).await,
        Job::Await => launch::await_run(services, &key, cancel).await,
        Job::Probe => probe(services, input, cancel).await,
        Job::Pair => pairing::pair(services, input, cancel).await,
        Job::Kill => done(runtime.kill(&key).await),
        Job::Stop => done(runtime.stop(&key, services.settings.limits.stop_grace).await),
        Job::Remove => done(runtime.remove(&key, DataPolicy::Remove).await),
        // The registry's business: the agent asks it instead of running this.
        Job::Rebind => Ok(Outcome::Done.into()),
    }
}

pub fn key_of(record: &AgentRecord) -> InstanceKey {
    InstanceKey { agent: record.id, slug: record.slug.clone() }
}

fn done(result: Result<(), RuntimeError>) -> JobResult {
    match result {
        Ok(()) | Err(RuntimeError::NotFound) => Ok(Outcome::Done.into()),
        Err(error) => Err(runtime_failure(&error)),
    }
}

async fn create(services: &Services, input: &JobInput, cancel: &CancellationToken) -> JobResult {
    let (agent, views) = (input.record.id, services.views.get(input.record.id));
    let progress: Progress = Arc::new(move |text: String| {
        tracing::info!(%agent, slug = views.as_ref().map(|v| v.record.slug.as_str()), "{text}");
    });
    let key = key_of(&input.record);
    let prepared = tokio::select! {
        biased;
        prepared = services.runtime.prepare(&key, Arc::clone(&progress)) => prepared,
        // Only the preparation is left half done; it belongs to no instance.
        () = cancel.cancelled() => return Err(superseded()),
    };
    prepared.map_err(|error| runtime_failure(&error))?;
    if input.port.is_none() && services.runtime.caps().host_ports {
        // It was made where none was needed.
        let cause = Cause::because(Code::PortTaken, "it has no port of this host yet");
        return Err(Failure { kind: FailureKind::PortTaken, cause });
    }

    let credentials = open_credentials(services, &input.record)?;
    if input.record.spec.provider.needs_key() && credentials.api_key.is_none() {
        // Only a record that was recovered can be so.
        let cause = Cause::because(Code::SecretsMissing, SUPPLY_API_KEY);
        return Err(Failure { kind: FailureKind::Permanent, cause });
    }
    let upgrade = input.record.upgrade.as_deref();
    let software = match upgrade {
        Some(upgrade) => Some(upgrade.wanted().clone()),
        None => {
            let choice = ImageChoice::Kept { key: &key_of(&input.record), known: input.record.software.as_deref() };
            services.runtime.software(choice, progress).await.map_err(|error| runtime_failure(&error))?
        }
    };
    let spec = instance_spec(services, input, &credentials, software.as_ref());
    let seen = services.runtime.ensure_created(&spec).await.map_err(|error| runtime_failure(&error))?;
    let run = seen.run().cloned();
    // A token shows that the agent ran before.
    if seen.data_created_now && input.token.is_some() {
        tracing::warn!(%agent, slug = %spec.key.slug, "the agent's data is gone: somebody removed it; it starts with an empty memory");
    }
    if run.is_none() && input.stage && !seen.created_now {
        // What has its files open, or is about to, is ended first.
        if !matches!(seen.state, InstanceState::Created | InstanceState::Exited(_)) {
            services.runtime.kill(&spec.key).await.map_err(|error| runtime_failure(&error))?;
        }
        services.runtime.stage(&spec.key, &spec.files).await.map_err(|error| runtime_failure(&error))?;
    }
    // Until what it was made from is stored; from then on the new version has written to its data.
    if let Some(upgrade) = upgrade.filter(|_| run.is_none() && input.record.software.as_deref() != software.as_ref()) {
        migration::migrate(services, &spec.key, upgrade, input.record.spec.memory_backend).await?;
    }
    let up = run.as_ref().map(|run| run.run_id.clone());
    let outcome = Outcome::Created { engine_id: seen.engine_id.into(), up };
    Ok(JobReport { run, software: software.map(Arc::new), ..outcome.into() })
}

/// What to do about a key that was lost.
const SUPPLY_API_KEY: &str = "supply apiKey by PATCH, then start the agent";

fn instance_spec(
    services: &Services,
    input: &JobInput,
    credentials: &Credentials,
    software: Option<&Software>,
) -> InstanceSpec {
    let record = &input.record;
    let profile = software.map_or(services.profile, |software| software.profile);
    // Where it reaches no such machine there is nothing to put in its place.
    let host = services.runtime.caps().host.unwrap_or("localhost");
    let token_hash = input.token.as_ref().map(workspace::token_hash);
    let inside = outward::spec_from_inside(&record.spec, host);
    let mut env = profile.env(&inside, credentials, host, services.settings.limits.answer.as_secs());
    env.extend(services.settings.proxies.env(host));
    let staging =
        Staging { host, token_hash: token_hash.as_deref(), answer_secs: services.settings.limits.answer.as_secs() };
    InstanceSpec {
        key: key_of(record),
        generation: record.state.generation,
        command: profile.command(credentials),
        env,
        files: workspace::files(profile, &inside, credentials, &staging),
        port: input.port,
        image: software.and_then(|software| software.image.clone()),
        cpu: input.limits.cpu,
        memory_mb: input.limits.memory_mb,
        own_network: false,
        host_name: services.settings.host_of(&record.slug),
        origin: Some(Arc::new(Origin {
            user: record.user,
            created_at: record.created_at,
            spec: Arc::clone(&record.spec),
            channels: record.channel_kinds.clone(),
        })),
    }
}

/// First wait between probes, and the longest: an agent that is up in milliseconds is seen in milliseconds.
const PROBE_PAUSE: Duration = Duration::from_millis(2);
const PROBE_PAUSE_MAX: Duration = Duration::from_millis(100);

/// The wait after this one: longer by a quarter, so that what was waited for is seen late by no more than a fifth of the wait.
fn longer(pause: Duration) -> Duration {
    (pause + pause / 4).min(PROBE_PAUSE_MAX)
}

/// First patience with one probe: one that was sent too early may hang, and the next one would not.
const PROBE_PATIENCE: Duration = Duration::from_millis(100);

/// Waits until the gateway is healthy.
async fn probe(services: &Services, input: &JobInput, cancel: &CancellationToken) -> JobResult {
    let endpoint = endpoint_of(input)?;
    let limits = &services.settings.limits;
    let deadline = Instant::now() + limits.start;
    let (mut pause, mut patience) = (PROBE_PAUSE, PROBE_PATIENCE.min(limits.health));
    loop {
        let last = tokio::select! {
            biased;
            answer = services.gateway.health(endpoint, patience) => answer,
            () = cancel.cancelled() => return Err(superseded()),
        };
        let trouble = match last {
            Ok(report) if report.healthy() => {
                let now = services.clock.now();
                services.views.update_vitals(input.record.id, |vitals| vitals.last_health_at = Some(now));
                return Ok(Outcome::Done.into());
            }
            Ok(report) => format!("status {}", report.status),
            Err(error) => error.to_string(),
        };
        if Instant::now() + pause >= deadline {
            let cause = Cause::because(Code::HealthTimeout, trouble);
            return Err(Failure { kind: FailureKind::Transient, cause });
        }
        tokio::select! {
            biased;
            () = sleep(pause) => {}
            () = cancel.cancelled() => return Err(superseded()),
        }
        pause = longer(pause);
        patience = (patience * 2).min(limits.health);
    }
}

fn endpoint_of(input: &JobInput) -> Result<SocketAddr, Failure> {
    input.run.as_ref().map(|run| run.endpoint).ok_or_else(no_endpoint)
}

fn no_endpoint() -> Failure {
    Failure { kind: FailureKind::Transient, cause: Cause::because(Code::Internal, "the run is not known") }
}

fn superseded() -> Failure {
    Failure { kind: FailureKind::Transient, cause: Cause::because(Code::Internal, "superseded") }
}

fn gateway_failure(error: &GatewayError) -> Failure {
    Failure { kind: FailureKind::Transient, cause: Cause::because(Code::HealthTimeout, error.to_string()) }
}

/// Asks a gateway until it answers, for this long: for questions that change nothing, so that they may be asked again.
async fn answer_within<T, A>(within: Duration, mut ask: impl FnMut() -> A) -> Result<T, Failure>
where
    A: Future<Output = Result<T, GatewayError>>,
{
    let deadline = Instant::now() + within;
    let mut pause = PROBE_PAUSE;
    loop {
        match ask().await {
            Ok(answer) => return Ok(answer),
            Err(error) if Instant::now() + pause >= deadline => return Err(gateway_failure(&error)),
            Err(_) => sleep(pause).await,
        }
        pause = longer(pause);
    }
}

/// What an engine's error means for an agent.
fn runtime_failure(error: &RuntimeError) -> Failure {
    let (kind, code) = match error {
        RuntimeError::PortTaken(_) => (FailureKind::PortTaken, Code::PortTaken),
        RuntimeError::Invalid(_) | RuntimeError::NotOwned(_) => (FailureKind::Permanent, Code::CannotRun),
        RuntimeError::Unavailable(_) | RuntimeError::UnknownOutcome(_) => {
            (FailureKind::EngineAway, Code::RuntimeUnavailable)
        }
        RuntimeError::Capacity(_) => (FailureKind::Transient, Code::NoCapacity),
        RuntimeError::NotFound | RuntimeError::Conflict(_) | RuntimeError::Failed(_) => {
            (FailureKind::Transient, Code::StartFailed)
        }
    };
    Failure { kind, cause: Cause::because(code, error.to_string()) }
}

/// Asks the engine what there is of the instance, whose run was `known` so far.
pub async fn observe(
    services: &Services,
    agent: AgentId,
    key: &InstanceKey,
    known: Option<&Run>,
) -> (crate::lifecycle::Observation, Option<Run>) {
    use crate::lifecycle::Observation;
    // In its turn: after a gap every agent is observed, and the engine must not be asked for all of them at once.
    let permit = services.engine_calls.acquire().await;
    let seen = timeout(services.settings.limits.engine_call, services.runtime.observe(key)).await;
    drop(permit);
    let lost = matches!(&seen, Ok(Ok(Some(ObservedInstance { state: InstanceState::Unreachable(_), .. }))));
    let answered = matches!(seen, Ok(Ok(_)));
    let (now, mut found_again) = (services.clock.now(), false);
    services.views.update_vitals(agent, |vitals| found_again = note_look(vitals, answered, lost, now));
    match seen {
        Ok(Ok(None)) => (Observation::Absent, None),
        Ok(Ok(Some(seen))) => match seen.state {
            InstanceState::Created => (Observation::Down(crate::domain::Exit::default()), None),
            InstanceState::Running(run) => {
                let same = known.filter(|known| known.run_id == run.run_id);
                let moved = same.is_some_and(|known| found_again || known.endpoint != run.endpoint);
                (Observation::Up { run_id: run.run_id.clone(), died: seen.died, moved }, Some(run))
            }
            // There, and answers nobody.
            InstanceState::Paused(run) | InstanceState::Ending(run) => {
                (Observation::Paused { run_id: run.run_id.clone() }, Some(run))
            }
            // The run that was known is over, or the engine would not begin one.
            InstanceState::Starting(_) => (Observation::Down(seen.died.unwrap_or_default()), None),
            InstanceState::Exited(exit) => (Observation::Down(exit), None),
            InstanceState::Unreachable(_) => (Observation::Unknown, None),
        },
        Ok(Err(_)) | Err(_) => (Observation::Unknown, None),
    }
}

/// Notes whether the engine `answered`, and whether it has `lost` the instance's machine. True where it has found a machine
/// again that was lost.
fn note_look(vitals: &mut Vitals, answered: bool, lost: bool, now: Timestamp) -> bool {
    // One on a lost machine is as unknown as one whose engine does not answer.
    let known = answered && !lost;
    let found_again = known && vitals.lost;
    vitals.lost = lost || (vitals.lost && !answered);
    vitals.unknown_since = if known { None } else { vitals.unknown_since.or(Some(now)) };
    found_again
}

/// How a health check ended.
pub enum HealthCheck {
    Healthy,
    Missed,
    TokenRefused,
    /// Why no message would be answered.
    Unusable(String),
}

/// Whether the gateway answers; notes when it did, and what the instance uses. Now and then also whether it is usable.
pub async fn check_health(services: &Services, agent: AgentId, key: &InstanceKey, at: SocketAddr) -> HealthCheck {
    let limits = &services.settings.limits;
    let alive = services.gateway.health(at, limits.health).await.is_ok_and(|report| report.healthy());
    if !alive {
        return HealthCheck::Missed;
    }
    let usage = if services.runtime.caps().measures_usage {
        let _permit = services.engine_calls.acquire().await;
        timeout(limits.health, services.runtime.usage(key)).await.ok().and_then(Result::ok)
    } else {
        None
    };
    let now = services.clock.now();
    let mut deep = false;
    services.views.update_vitals(agent, |vitals| {
        vitals.last_health_at = Some(now);
        if usage.is_some() {
            vitals.usage = usage;
        }
        deep = vitals.usable_at.is_none_or(|at| elapsed(at, now) >= limits.usability_interval);
    });
    if deep { usability::check(services, agent, at).await } else { HealthCheck::Healthy }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [Job; 9] =
        [Job::Kill, Job::Create, Job::Rebind, Job::Launch, Job::Await, Job::Probe, Job::Pair, Job::Stop, Job::Remove];

    /// Limits of which each sum is another one.
    fn limits() -> JobLimits {
        JobLimits {
            prepare: Duration::from_secs(1000),
            engine_call: Duration::from_secs(5),
            engine_start: Duration::from_secs(400),
            start: Duration::from_secs(30),
            pairing: Duration::from_secs(15),
            health: Duration::from_secs(2),
            stop_grace: Duration::from_secs(6),
            ..JobLimits::default()
        }
    }

    #[test]
    fn job_has_the_time_of_its_parts_and_no_less_than_the_runtime_takes_for_its_calls() {
        let limit = |job, runtime: u64| limit_of(job, &limits(), false, |_| Duration::from_secs(runtime)).as_secs();
        // By a runtime that is quick, and by one that needs half an hour for each call.
        let wanted =
            [(5, 1802), (1010, 7208), (5, 5), (5, 1802), (405, 405), (32, 32), (47, 47), (11, 1802), (10, 1802)];
        for (job, wanted) in ALL.into_iter().zip(wanted) {
            assert_eq!((limit(job, 1), limit(job, 1800)), wanted, "{job:?}");
        }
        let telling = limit_of(Job::Pair, &limits(), true, |_| Duration::ZERO);
        assert_eq!(telling, Duration::from_secs(47) + TELLING, "a memory is told after the pairing");
        // A stop is given its grace by the runtime as well.
        let graces = std::cell::Cell::new(None);
        limit_of(Job::Stop, &limits(), false, |call| {
            graces.set(Some(call));
            Duration::ZERO
        });
        assert!(matches!(graces.get(), Some(RuntimeCall::Stop { grace }) if grace == limits().stop_grace));
    }

    #[test]
    fn only_what_changes_an_instance_needs_the_lease() {
        let needs: Vec<_> = ALL.into_iter().filter(|job| changes_instance(*job)).collect();
        assert_eq!(needs, [Job::Kill, Job::Create, Job::Launch, Job::Stop, Job::Remove]);
    }

    #[test]
    fn pauses_grow_by_a_quarter_up_to_the_longest() {
        let mut pauses = vec![PROBE_PAUSE];
        while pauses.len() < 30 {
            pauses.push(longer(pauses[pauses.len() - 1]));
        }
        assert_eq!(pauses[..3].iter().map(Duration::as_micros).collect::<Vec<_>>(), [2000, 2500, 3125]);
        assert!(pauses.is_sorted());
        assert_eq!(pauses[29], PROBE_PAUSE_MAX);
    }

    #[test]
    fn lost_machine_stays_lost_until_the_engine_shows_it_again() {
        let at = |second| Timestamp::from_second(second).unwrap();
        // Whether the engine answers, whether it has lost the machine; then: found again, lost, unknown since.
        let story = [
            ((true, false), (false, false, None)),
            ((false, false), (false, false, Some(1))),
            ((false, false), (false, false, Some(1))),
            ((true, false), (false, false, None)),
            ((true, true), (false, true, Some(4))),
            ((false, false), (false, true, Some(4))),
            ((true, true), (false, true, Some(4))),
            ((true, false), (true, false, None)),
            ((true, false), (false, false, None)),
        ];
        let mut vitals = Vitals::default();
        for (second, ((answers, lost), wanted)) in (0..).zip(story) {
            let found_again = note_look(&mut vitals, answers, lost, at(second));
            let (found, lost, since) = wanted;
            assert_eq!((found_again, vitals.lost, vitals.unknown_since), (found, lost, since.map(at)), "at {second}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn question_is_asked_again_until_there_is_an_answer_or_no_time() {
        let within = Duration::from_secs(15);
        let asked = std::cell::Cell::new(0);
        let some_time_away = || async {
            asked.set(asked.get() + 1);
            if asked.get() < 100 { Err(GatewayError::TimedOut) } else { Ok("yes") }
        };
        assert_eq!(answer_within(within, some_time_away).await, Ok("yes"));
        assert_eq!(asked.get(), 100);

        let began = Instant::now();
        let never = || async { Err::<(), _>(GatewayError::NotSent("connection refused".into())) };
        let failure = answer_within(within, never).await.unwrap_err();
        assert_eq!((failure.kind, failure.cause.code), (FailureKind::Transient, Code::HealthTimeout));
        assert!(failure.cause.message().contains("connection refused"), "{}", failure.cause.message());
        let took = began.elapsed();
        assert!(took < within && took >= within - PROBE_PAUSE_MAX, "{took:?}");
    }
}
