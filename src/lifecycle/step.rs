//! One event, one life, the next life: the only place where an agent's fate is decided.

use std::sync::Arc;
use std::time::Duration;

use super::admit::{Verdict, admit};
use super::cause::{Cause, Code};
use super::event::{Command, Effect, Event, Failure, FailureKind, Job, Outcome, Sighting};
use super::phase::{InstanceRef, Life, Phase, Resume, Step, Then};
use crate::backoff::{Decision, RestartPolicy};
use crate::domain::{BootId, Exit, Timestamp, elapsed, later};

/// What a decision may depend on besides the life and the event.
#[derive(Debug, Clone)]
pub struct Context<'a> {
    pub now: Timestamp,
    /// Differs from agent to agent; spreads retries.
    pub seed: u64,
    pub restart: &'a RestartPolicy,
    pub timing: &'a Timing,
}

/// Ports tried in one attempt before it counts as failed: strangers may hold some, never this many.
const MAX_REBINDS: u8 = 50;

/// Waits that decisions set. All of it is configuration.
#[derive(Debug, Clone, PartialEq)]
pub struct Timing {
    /// Between health checks of a healthy agent.
    pub health_interval: Duration,
    /// After a missed check: soon enough to tell a hiccup from a hang.
    pub health_retry: Duration,
    /// Misses in a row that mean the gateway hangs.
    pub health_misses: u8,
    /// How long a start waits for an engine that is away before it shows as ERROR.
    pub engine_patience: Duration,
    /// How long a stop or a deletion is tried before it shows as ERROR.
    pub stop_patience: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            health_interval: Duration::from_secs(10),
            health_retry: Duration::from_secs(1),
            health_misses: 3,
            engine_patience: Duration::from_secs(300),
            stop_patience: Duration::from_secs(60),
        }
    }
}

/// What follows from an event.
#[derive(Debug, Clone, PartialEq)]
pub struct Transition {
    /// The next life, to be committed before anything else; `None` when the event changes nothing.
    pub life: Option<Life>,
    /// Why, for the event log. Present exactly when `life` is.
    pub cause: Option<Cause>,
    pub token: TokenChange,
    pub effects: Vec<Effect>,
}

/// What becomes of the held token in a transition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TokenChange {
    Keep,
    /// The attempt that begins will get another one.
    Forget,
}

impl Transition {
    const fn nothing() -> Self {
        Self { life: None, cause: None, token: TokenChange::Keep, effects: Vec::new() }
    }

    fn only(effects: Vec<Effect>) -> Self {
        Self { effects, ..Self::nothing() }
    }

    fn to(life: Life, cause: Cause, effects: Vec<Effect>) -> Self {
        Self { life: Some(life), cause: Some(cause), token: TokenChange::Keep, effects }
    }
}

/// Decides. Pure: the same arguments give the same answer. A command that [`admit`] does not let do anything, and an
/// event of an older attempt or revision, change nothing.
pub fn step(life: &Life, event: Event, context: &Context<'_>) -> Transition {
    match event {
        Event::Command(command) => match admit(&life.phase, command) {
            Verdict::Do => follow(life, command, context),
            Verdict::Already | Verdict::Refuse => Transition::nothing(),
        },
        Event::Recovered => recover(life, context),
        Event::Job { attempt, job, outcome } if attempt == life.attempt => finish(life, job, outcome, context),
        Event::Seen { revision, sighting } if revision == life.revision => see(life, sighting, context),
        // What was seen may be older than what was decided since: look again.
        Event::Seen { .. } | Event::Nudged => Transition::only(vec![Effect::Look]),
        Event::Health { attempt, alive } if attempt == life.attempt => check(life, alive, context),
        Event::TokenRefused { attempt } if attempt == life.attempt => refused(life, context),
        Event::Wake { revision } if revision == life.revision => wake(life, context),
        Event::Job { .. } | Event::Health { .. } | Event::TokenRefused { .. } | Event::Wake { .. } => {
            Transition::nothing()
        }
    }
}

fn follow(life: &Life, command: Command, context: &Context<'_>) -> Transition {
    match command {
        Command::Start => begin_anew(life, Code::StartRequested, context),
        Command::Restart => {
            let transition = match &life.phase {
                Phase::Stopped | Phase::Failed { .. } => begin_anew(life, Code::RestartRequested, context),
                Phase::Pending | Phase::Starting { .. } | Phase::Running { .. } | Phase::Stopping { .. } => {
                    stop(life, Then::Restart, Code::RestartRequested, context)
                }
            };
            // Files staged without a token make the gateway print a new code.
            Transition { token: TokenChange::Forget, ..transition }
        }
        Command::Stop => stop(life, Then::Stay, Code::StopRequested, context),
        Command::Delete => stop(life, Then::Delete, Code::DeleteRequested, context),
        Command::Update { inside } => update(life, inside, context),
    }
}

/// From STOPPED straight to STARTING; from ERROR by PENDING.
fn begin_anew(life: &Life, code: Code, context: &Context<'_>) -> Transition {
    let mut next = changed(life);
    next.restarts.forgive();
    next.reason = None;
    if matches!(life.phase, Phase::Stopped) {
        return attempt(next, true, Step::Creating, context.now, Cause::new(code));
    }
    next.phase = Phase::Pending;
    let effects = timers(&next);
    Transition::to(next, Cause::new(code), effects)
}

fn stop(life: &Life, then: Then, code: Code, context: &Context<'_>) -> Transition {
    let cause = Cause::new(code);
    let mut next = changed(life);
    next.phase = Phase::Stopping { then, since: context.now, retry_at: None };
    next.reason = Some(cause.clone());
    // A stop that is under way goes on, only what follows it changes; a removal is another job.
    let under_way = matches!(&life.phase, Phase::Stopping { retry_at: None, .. }) && then != Then::Delete;
    let effects = if under_way { Vec::new() } else { vec![Effect::Run(stop_job(then))] };
    Transition::to(next, cause, effects)
}

fn update(life: &Life, inside: bool, context: &Context<'_>) -> Transition {
    let cause = Cause::new(Code::SpecChanged);
    let mut next = changed(life);
    next.generation += 1;
    match &life.phase {
        Phase::Running { .. } if inside => {
            next.phase = Phase::Stopping { then: Then::Restart, since: context.now, retry_at: None };
            next.reason = Some(cause.clone());
            Transition::to(next, cause, vec![Effect::Run(Job::Stop)])
        }
        Phase::Starting { .. } if inside => attempt(next, true, Step::Halting, context.now, cause),
        // Every way from here to a start writes the files anew. Timers are fenced by the revision: set them again.
        Phase::Pending
        | Phase::Running { .. }
        | Phase::Starting { .. }
        | Phase::Stopping { .. }
        | Phase::Stopped
        | Phase::Failed { .. } => {
            let effects = timers(&next);
            Transition::to(next, cause, effects)
        }
    }
}

/// The service was started, or the agent's actor was: what was under way is taken up again.
fn recover(life: &Life, context: &Context<'_>) -> Transition {
    match &life.phase {
        Phase::Pending => deploy(life, context),
        Phase::Starting { step: Step::BackingOff { .. }, .. } | Phase::Failed { .. } => {
            let mut effects = timers(life);
            effects.push(Effect::Look);
            Transition::only(effects)
        }
        Phase::Starting { stage, .. } => {
            // Nobody knows how far it came. Creating is idempotent and adopts what is there already.
            attempt(changed(life), *stage, Step::Creating, context.now, Cause::new(Code::ServiceRestarted))
        }
        Phase::Running { .. } => {
            // Spread over the interval, or a thousand agents are checked in one moment after each start.
            let spread = context.timing.health_interval.mul_f64((context.seed % 1000) as f64 / 1000.0);
            Transition::only(vec![Effect::Look, Effect::CheckHealth(spread)])
        }
        Phase::Stopping { then, .. } => Transition::only(vec![Effect::Run(stop_job(*then))]),
        Phase::Stopped => Transition::only(vec![Effect::Look]),
    }
}

/// PENDING → STARTING.
fn deploy(life: &Life, context: &Context<'_>) -> Transition {
    attempt(changed(life), true, Step::Creating, context.now, Cause::new(Code::Deploying))
}

fn finish(life: &Life, job: Job, outcome: Outcome, context: &Context<'_>) -> Transition {
    match (&life.phase, outcome) {
        (Phase::Starting { step, .. }, outcome) if job_of(step) == Some(job) => match outcome {
            Outcome::Failed(failure) => start_failed(life, failure, context),
            outcome => advance(life, job, outcome, context),
        },
        (Phase::Stopping { then, .. }, Outcome::Done) if job == stop_job(*then) => stopped(life, *then, context),
        (Phase::Stopping { then, since, .. }, Outcome::Failed(failure)) if job == stop_job(*then) => {
            stop_failed(life, *then, *since, failure, context)
        }
        // A job that was superseded, or a clean-up whose outcome matters to nobody.
        (
            Phase::Pending
            | Phase::Starting { .. }
            | Phase::Running { .. }
            | Phase::Stopping { .. }
            | Phase::Stopped
            | Phase::Failed { .. },
            _,
        ) => Transition::nothing(),
    }
}

const fn job_of(step: &Step) -> Option<Job> {
    match step {
        Step::Halting => Some(Job::Halt),
        Step::Creating => Some(Job::Create),
        Step::Rebinding => Some(Job::Rebind),
        Step::Launching => Some(Job::Launch),
        Step::Probing => Some(Job::Probe),
        Step::Pairing => Some(Job::Pair),
        Step::BackingOff { .. } => None,
    }
}

const fn stop_job(then: Then) -> Job {
    match then {
        Then::Stay | Then::Restart => Job::Stop,
        Then::Delete => Job::Remove,
    }
}

/// A step of a start went well: on to the next.
fn advance(life: &Life, job: Job, outcome: Outcome, context: &Context<'_>) -> Transition {
    let mut next = changed(life);
    let (to, cause) = match (job, outcome) {
        (Job::Halt | Job::Rebind, Outcome::Done) => (Step::Creating, Cause::new(Code::Deploying)),
        (Job::Create, Outcome::Created { engine_id, up }) => {
            let to = if up.is_some() { Step::Probing } else { Step::Launching };
            next.instance = Some(Arc::new(InstanceRef { engine_id, boot: up }));
            (to, Cause::new(Code::InstanceCreated))
        }
        (Job::Launch, Outcome::Launched { boot }) => {
            set_boot(&mut next, boot);
            (Step::Probing, Cause::new(Code::InstanceStarted))
        }
        (Job::Probe, Outcome::Done) => (Step::Pairing, Cause::new(Code::InstanceHealthy)),
        (Job::Pair, Outcome::Paired(code)) => {
            next.phase = Phase::Running { misses: 0 };
            next.reason = None;
            next.restarts.running(context.now);
            let effects = vec![Effect::CheckHealth(context.timing.health_interval)];
            return Transition::to(next, Cause::new(code), effects);
        }
        // An outcome that its job cannot have: a bug in the jobs, shown rather than guessed about.
        (Job::Halt | Job::Create | Job::Rebind | Job::Launch | Job::Probe | Job::Pair | Job::Stop | Job::Remove, _) => {
            let cause = Cause::because(Code::Internal, "a job ended with another job's outcome");
            return give_up(changed(life), None, cause);
        }
    };
    let effects = job_of(&to).map(Effect::Run).into_iter().collect();
    if let Phase::Starting { step, .. } = &mut next.phase {
        *step = to;
    }
    Transition::to(next, cause, effects)
}

fn start_failed(life: &Life, failure: Failure, context: &Context<'_>) -> Transition {
    let Phase::Starting { step, stage, rebinds, since } = &life.phase else { return Transition::nothing() };
    match failure.kind {
        FailureKind::PortTaken if *rebinds < MAX_REBINDS => {
            let mut next = changed(life);
            next.phase = Phase::Starting { step: Step::Rebinding, stage: *stage, rebinds: rebinds + 1, since: *since };
            return Transition::to(next, failure.cause, vec![Effect::Run(Job::Rebind)]);
        }
        FailureKind::EngineAway => return engine_away(life, *stage, *since, failure.cause, context),
        FailureKind::Permanent => return give_up(changed(life), None, failure.cause),
        FailureKind::Transient | FailureKind::PortTaken => {}
    }
    // Nothing is left to halt where the run ended by itself or was never begun.
    let over = matches!(failure.cause.code, Code::Exited | Code::OomKilled | Code::InstanceGone);
    let halt = !over && matches!(step, Step::Halting | Step::Launching | Step::Probing | Step::Pairing);
    let token = if pairing_is_lost(failure.cause.code) { TokenChange::Forget } else { TokenChange::Keep };
    let mut next = changed(life);
    let transition = match next.restarts.failed_to_start(context.now, context.restart, context.seed) {
        Decision::Again(delay) => back_off(next, true, halt, delay, failure.cause, context),
        Decision::GiveUp(rest) => rest_after(next, rest, &failure.cause, context),
    };
    Transition { token, ..transition }
}

/// Whether only a new code can help: staging without a token makes the gateway print one.
const fn pairing_is_lost(code: Code) -> bool {
    matches!(code, Code::TokenRefused | Code::PairingTimeout | Code::PairingRefused | Code::PairingLocked)
}

/// The engine is away: wait for it without counting against the agent, as long as patience lasts.
fn engine_away(life: &Life, stage: bool, since: Timestamp, cause: Cause, context: &Context<'_>) -> Transition {
    let waited = elapsed(since, context.now);
    if waited >= context.timing.engine_patience {
        return give_up(changed(life), Some(later(context.now, context.restart.rest)), cause);
    }
    let mut next = changed(life);
    let step = Step::BackingOff { until: later(context.now, patience(waited)), halt: false };
    next.phase = Phase::Starting { step, stage, rebinds: 0, since };
    next.reason = Some(cause.clone());
    let effects = timers(&next);
    Transition::to(next, cause, effects)
}

/// ERROR, with what is left of the instance halted.
fn give_up(mut next: Life, retry_at: Option<Timestamp>, cause: Cause) -> Transition {
    next.phase = Phase::Failed { resume: Resume::Start, retry_at };
    next.reason = Some(cause.clone());
    let mut effects = vec![Effect::Run(Job::Halt)];
    effects.extend(timers(&next));
    Transition::to(next, cause, effects)
}

/// The restart budget is spent.
fn rest_after(next: Life, rest: Duration, cause: &Cause, context: &Context<'_>) -> Transition {
    give_up(next, Some(later(context.now, rest)), Cause::because(Code::CrashLoop, cause.message()))
}

/// A run ended, or has to be ended, that nobody asked to end.
fn died(life: &Life, stage: bool, halt: bool, cause: Cause, context: &Context<'_>) -> Transition {
    let mut next = changed(life);
    next.restart_count += 1;
    match next.restarts.died(context.now, context.restart, context.seed) {
        Decision::Again(delay) => back_off(next, stage, halt, delay, cause, context),
        Decision::GiveUp(rest) => rest_after(next, rest, &cause, context),
    }
}

/// Begins the next attempt after `delay`, at once if it is zero. The reason stays visible meanwhile.
fn back_off(
    mut next: Life,
    stage: bool,
    halt: bool,
    delay: Duration,
    cause: Cause,
    context: &Context<'_>,
) -> Transition {
    next.reason = Some(cause.clone());
    if delay.is_zero() {
        return attempt(next, stage, first_step(halt), context.now, cause);
    }
    let step = Step::BackingOff { until: later(context.now, delay), halt };
    next.phase = Phase::Starting { step, stage, rebinds: 0, since: context.now };
    let effects = timers(&next);
    Transition::to(next, cause, effects)
}

const fn first_step(halt: bool) -> Step {
    if halt { Step::Halting } else { Step::Creating }
}

/// A new attempt: what belongs to older ones is stale from here on.
fn attempt(mut next: Life, stage: bool, step: Step, since: Timestamp, cause: Cause) -> Transition {
    next.attempt += 1;
    let effects = job_of(&step).map(Effect::Run).into_iter().collect();
    next.phase = Phase::Starting { step, stage, rebinds: 0, since };
    Transition::to(next, cause, effects)
}

fn stopped(life: &Life, then: Then, context: &Context<'_>) -> Transition {
    let mut next = changed(life);
    clear_boot(&mut next);
    let cause = Cause::new(Code::Stopped);
    match then {
        Then::Stay => {
            next.phase = Phase::Stopped;
            next.reason = Some(cause.clone());
            Transition::to(next, cause, Vec::new())
        }
        Then::Restart => {
            next.reason = None;
            next.restarts.forgive();
            attempt(next, true, Step::Creating, context.now, cause)
        }
        // The record went with the instance: nothing is left to commit.
        Then::Delete => Transition::only(vec![Effect::End]),
    }
}

fn stop_failed(life: &Life, then: Then, since: Timestamp, failure: Failure, context: &Context<'_>) -> Transition {
    let mut next = changed(life);
    let waited = elapsed(since, context.now);
    let cause = if waited < context.timing.stop_patience {
        let retry_at = Some(later(context.now, patience(waited)));
        next.phase = Phase::Stopping { then, since, retry_at };
        failure.cause
    } else {
        let (resume, code) = match then {
            Then::Stay => (Resume::Stop, Code::StopTimeout),
            Then::Restart => (Resume::Start, Code::StopTimeout),
            Then::Delete => (Resume::Delete, Code::DeleteTimeout),
        };
        next.phase = Phase::Failed { resume, retry_at: Some(later(context.now, context.restart.rest)) };
        Cause::because(code, failure.cause.message())
    };
    next.reason = Some(cause.clone());
    let effects = timers(&next);
    Transition::to(next, cause, effects)
}

/// What the engine shows against what is wanted.
fn see(life: &Life, sighting: Sighting, context: &Context<'_>) -> Transition {
    match (&life.phase, sighting) {
        // An engine that is away says nothing about the agent.
        (_, Sighting::Unknown) => Transition::nothing(),

        (Phase::Running { .. }, Sighting::Down(exit)) => died(life, false, false, exit_cause(&exit), context),
        // What is made anew gets its files anew, too.
        (Phase::Running { .. }, Sighting::Absent) => died(life, true, false, Cause::new(Code::InstanceGone), context),
        (Phase::Running { .. }, Sighting::Up { boot }) if life.boot() != Some(&boot) => {
            restarted_outside(life, boot, context)
        }
        // There, but deaf for too long.
        (Phase::Running { misses }, Sighting::Up { .. } | Sighting::Paused)
            if *misses >= context.timing.health_misses =>
        {
            died(life, false, true, Cause::new(Code::HealthLost), context)
        }
        (Phase::Running { .. }, Sighting::Up { .. } | Sighting::Paused) => Transition::nothing(),

        // The run that is being probed is over: no need to wait for the probe's deadline.
        (Phase::Starting { step: Step::Probing | Step::Pairing, .. }, Sighting::Down(exit)) => {
            let cause = exit_cause(&exit);
            start_failed(life, Failure { kind: FailureKind::Transient, cause }, context)
        }
        (Phase::Starting { step: Step::Probing | Step::Pairing, .. }, Sighting::Absent) => {
            let cause = Cause::new(Code::InstanceGone);
            start_failed(life, Failure { kind: FailureKind::Transient, cause }, context)
        }
        (Phase::Starting { step: Step::Probing | Step::Pairing, .. }, Sighting::Up { boot })
            if life.boot() != Some(&boot) =>
        {
            restarted_outside(life, boot, context)
        }
        // The other steps find out by themselves, and the jobs of these know their run.
        (Phase::Starting { .. }, _) => Transition::nothing(),

        // Down by intent, up in fact: somebody started it by hand, or an old stop was lost.
        (Phase::Stopped | Phase::Failed { .. }, Sighting::Up { .. } | Sighting::Paused) => {
            Transition::only(vec![Effect::Run(Job::Halt)])
        }
        (Phase::Stopped | Phase::Failed { .. }, Sighting::Absent | Sighting::Down(_)) => Transition::nothing(),

        (Phase::Pending | Phase::Stopping { .. }, _) => Transition::nothing(),
    }
}

/// Another run than the one we know: somebody, or the engine's own policy, restarted it. It counts as a restart all the
/// same, or a crash loop under such a policy would never end.
fn restarted_outside(life: &Life, boot: BootId, context: &Context<'_>) -> Transition {
    let cause = Cause::new(Code::RestartedOutside);
    let mut next = changed(life);
    next.restart_count += 1;
    set_boot(&mut next, boot);
    match next.restarts.died(context.now, context.restart, context.seed) {
        // It runs already: no reason to wait.
        Decision::Again(_) => {
            next.reason = Some(cause.clone());
            attempt(next, false, Step::Probing, context.now, cause)
        }
        Decision::GiveUp(rest) => rest_after(next, rest, &cause, context),
    }
}

fn check(life: &Life, alive: bool, context: &Context<'_>) -> Transition {
    let Phase::Running { misses } = &life.phase else { return Transition::nothing() };
    let timing = context.timing;
    if alive {
        let effects = vec![Effect::CheckHealth(timing.health_interval)];
        if *misses == 0 {
            return Transition::only(effects);
        }
        let mut next = changed(life);
        next.phase = Phase::Running { misses: 0 };
        next.reason = None;
        return Transition::to(next, Cause::new(Code::HealthBack), effects);
    }
    let mut effects = vec![Effect::CheckHealth(timing.health_retry)];
    let missed = misses.saturating_add(1).min(timing.health_misses);
    if missed >= timing.health_misses {
        // Before anything is killed: is it the agent that is away, or the engine?
        effects.insert(0, Effect::Look);
    }
    if missed == *misses {
        return Transition::only(effects);
    }
    let mut next = changed(life);
    let cause = Cause::new(Code::HealthMissed);
    next.phase = Phase::Running { misses: missed };
    next.reason = Some(cause.clone());
    Transition::to(next, cause, effects)
}

/// The token that the record holds is not taken any more. The run is up: only the pairing is done again.
fn refused(life: &Life, context: &Context<'_>) -> Transition {
    match &life.phase {
        Phase::Running { .. } => {
            let cause = Cause::new(Code::TokenRefused);
            let mut next = changed(life);
            next.reason = Some(cause.clone());
            attempt(next, false, Step::Pairing, context.now, cause)
        }
        Phase::Pending | Phase::Starting { .. } | Phase::Stopping { .. } | Phase::Stopped | Phase::Failed { .. } => {
            Transition::nothing()
        }
    }
}

fn wake(life: &Life, context: &Context<'_>) -> Transition {
    match &life.phase {
        Phase::Pending => deploy(life, context),
        Phase::Starting { step: Step::BackingOff { halt, .. }, stage, since, .. } => {
            let cause = Cause::new(Code::RetryDue);
            // The series goes on: an engine that stays away must run into the end of patience.
            attempt(changed(life), *stage, first_step(*halt), *since, cause)
        }
        Phase::Stopping { then, since, retry_at: Some(_) } => {
            let mut next = changed(life);
            next.phase = Phase::Stopping { then: *then, since: *since, retry_at: None };
            Transition::to(next, Cause::new(Code::RetryDue), vec![Effect::Run(stop_job(*then))])
        }
        Phase::Failed { resume: Resume::Start, .. } => {
            let mut next = changed(life);
            next.restarts.rested();
            next.phase = Phase::Pending;
            let effects = timers(&next);
            Transition::to(next, Cause::new(Code::RetryDue), effects)
        }
        Phase::Failed { resume: Resume::Stop, .. } => stop(life, Then::Stay, Code::RetryDue, context),
        Phase::Failed { resume: Resume::Delete, .. } => stop(life, Then::Delete, Code::RetryDue, context),
        Phase::Starting { .. } | Phase::Stopping { .. } | Phase::Running { .. } | Phase::Stopped => {
            Transition::nothing()
        }
    }
}

/// The timer that a life needs, for when it is taken up or its revision moved on.
fn timers(life: &Life) -> Vec<Effect> {
    match &life.phase {
        Phase::Pending => vec![Effect::WakeAt(Timestamp::MIN)],
        Phase::Starting { .. }
        | Phase::Running { .. }
        | Phase::Stopping { .. }
        | Phase::Stopped
        | Phase::Failed { .. } => life.next_attempt_at().map(Effect::WakeAt).into_iter().collect(),
    }
}

fn changed(life: &Life) -> Life {
    let mut next = life.clone();
    next.revision += 1;
    next
}

fn set_boot(life: &mut Life, boot: BootId) {
    let engine_id = life.instance.as_ref().map_or_else(|| Arc::from(""), |i| Arc::clone(&i.engine_id));
    life.instance = Some(Arc::new(InstanceRef { engine_id, boot: Some(boot) }));
}

fn clear_boot(life: &mut Life) {
    if let Some(instance) = &life.instance {
        life.instance = Some(Arc::new(InstanceRef { engine_id: Arc::clone(&instance.engine_id), boot: None }));
    }
}

fn exit_cause(exit: &Exit) -> Cause {
    match (exit.oom, exit.code) {
        (true, _) => Cause::new(Code::OomKilled),
        (false, Some(code)) if code > 128 => {
            Cause::because(Code::Exited, format!("signal {} (exit code {code})", code - 128))
        }
        (false, Some(code)) => Cause::because(Code::Exited, format!("exit code {code}")),
        (false, None) => Cause::new(Code::Exited),
    }
}

/// The wait before something outside is tried again: a quarter of what was waited already, so that it grows by itself.
fn patience(waited: Duration) -> Duration {
    (waited / 4).clamp(Duration::from_millis(200), Duration::from_secs(5))
}
