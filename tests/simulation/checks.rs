//! Each check can fail: shown a history that is wrong in one place, it is named, and no other is.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use zeroone::control::{DeliveryError, FeedEntry};
use zeroone::domain::{AgentId, Plan, RunId, Status, Timestamp, UserId};
use zeroone::internal::lifecycle::{Phase, Step};
use zeroone::runtime::{ContainerRuntime, ObservedInstance};
use zeroone::store::{LogEntry, Snapshot};
use zeroone::testkit::{self, Delivery, EPOCH, Guard, Inspector, Invariant, Tally, TestPlane, Violation, Wish, check};
use zeroone::vault::Sealed;
use zeroone::view::{Cause, Code};

/// What is to be seen of a control plane that is well.
struct Shown {
    world: TestPlane,
    agent: AgentId,
    snapshot: Snapshot,
    observed: Vec<ObservedInstance>,
}

impl Shown {
    async fn new() -> Self {
        let world = testkit::plane(1, Plan::Pro).await;
        let agent = world.running("Ada").await.id();
        let snapshot = world.plane.store().load().await.expect("a store in memory can be read");
        let observed = world.fakes.engine().all();
        Self { world, agent, snapshot, observed }
    }

    fn revision(&self) -> u64 {
        self.snapshot.agents[0].record.state.revision
    }

    fn fed(&self, seq: u64, (from, to): (Status, Status), cause: &str, time: Timestamp) -> FeedEntry {
        let mut entry = LogEntry::new(from, &self.snapshot.agents[0].record, &Cause::new(Code::Paired));
        (entry.seq, entry.time, entry.to, entry.cause, entry.attempt) = (seq, time, to, cause.into(), 1);
        FeedEntry::new(self.agent, self.world.user, entry)
    }

    /// A phase other than the stored one.
    fn with_phase(mut self, phase: Phase) -> Self {
        self.snapshot.agents[0].record.state.phase = phase;
        self
    }
}

fn at(secs: u64) -> Timestamp {
    EPOCH.checked_add(Duration::from_secs(secs)).expect("no end of time")
}

/// What is found wrong with a history that breaks `invariant`.
async fn broken(invariant: Invariant) -> Vec<Violation> {
    let shown = Shown::new().await;
    let mut inspector = Inspector::new().with_secret("hush");
    let stranger = UserId::from_bytes([9; 16]);
    match invariant {
        Invariant::IntentFirst | Invariant::OneOperation => {
            let runtime = shown.world.fakes.runtime();
            let guard = Guard::new(runtime, shown.world.plane.store().clone(), CancellationToken::new());
            let key = &shown.observed[0].key;
            let (first, second) = tokio::join!(guard.kill(key), guard.kill(key));
            assert!(first.is_ok() && second.is_ok());
            return guard.violations();
        }
        Invariant::RunsAreRecorded | Invariant::OneInstance | Invariant::SeatsApart | Invariant::QuotaHeld => {
            at_one_moment(&mut inspector, shown, invariant);
        }
        Invariant::CreatesAreKept => {
            inspector.created(AgentId::from_bytes([9; 16]));
            inspector.step(&shown.snapshot, &shown.observed);
        }
        Invariant::UsersApart => inspector.listed(stranger, &shown.world.plane.agents(None, None, 9, &[])),
        Invariant::OthersUntouched => {
            inspector.others(&shown.observed);
            inspector.others(&[]);
        }
        Invariant::DataIsKept => {
            inspector.created(shown.agent);
            inspector.data(&[shown.agent]);
            inspector.data(&[]);
        }
        Invariant::SecretsSealed => inspector.told(None, "it said: hush!"),
        Invariant::NoncesApart => {
            inspector.step(&shown.snapshot, &shown.observed);
            let mut shown = shown;
            let sealed = shown.snapshot.agents[0].record.api_key.as_mut().expect("it has a key");
            let mut bytes = sealed.as_bytes().to_vec();
            *bytes.last_mut().expect("a tag") ^= 1;
            *sealed = Sealed::from_bytes(&bytes).expect("it is long enough");
            inspector.step(&shown.snapshot, &shown.observed);
        }
        Invariant::ReadersGoForward => {
            let mut page = shown.world.plane.agents(None, None, 9, &[]);
            inspector.shown(&page);
            let mut older = (*page.agents[0]).clone();
            older.record.state.revision -= 1;
            page.agents = vec![Arc::new(older)];
            inspector.shown(&page);
        }
        Invariant::AtMostOnce => inspector.message(shown.agent, "hi", 2, None),
        Invariant::OrderIsKept => [2, 1].into_iter().for_each(|number| inspector.sent_on(shown.agent, number)),
        Invariant::OneRunListens => {
            let read = |run_id: &str| Delivery::new(EPOCH, RunId(run_id.into()), "");
            inspector.read(shown.agent, &[read("old"), read("new"), read("old")]);
        }
        Invariant::TokensWork => inspector.answered(shown.agent, &Err(DeliveryError::Gone)),
        Invariant::RestartsCostNothing => {
            let mut after = Tally::default();
            after.pairings = 1;
            inspector.service_restarted(shown.agent, &Tally::default(), &after);
        }
        Invariant::CommitsAreKept
        | Invariant::Edges
        | Invariant::AbsenceIsNoDeath
        | Invariant::NewsOfThisRun
        | Invariant::WaitsAreKept
        | Invariant::RestartsBudgeted => in_the_feed(&mut inspector, shown, invariant),
        Invariant::Own(name) => {
            let mut inspector = inspector.with_invariant(name, |_| Err("never".into()));
            inspector.step(&shown.snapshot, &shown.observed);
            return inspector.violations();
        }
        Invariant::NothingStuck | Invariant::IntentIsFact | Invariant::NoLeftovers | Invariant::WishesHold => {
            at_rest(&mut inspector, shown, invariant);
        }
        other => panic!("no history that breaks {other:?}"),
    }
    inspector.violations()
}

fn at_one_moment(inspector: &mut Inspector, mut shown: Shown, invariant: Invariant) {
    match invariant {
        Invariant::RunsAreRecorded => shown.snapshot.agents.clear(),
        Invariant::OneInstance => shown.observed.push(shown.observed[0].clone()),
        Invariant::SeatsApart => {
            let mut twin = shown.snapshot.agents[0].clone();
            twin.record.id = AgentId::from_bytes([9; 16]);
            // Sealed for the other one: a twin with secrets would be wrong in two places.
            twin.record.slug = zeroone::domain::Slug::parse("twin").expect("a slug");
            shown.snapshot.agents.push(twin);
        }
        _ => shown.snapshot.users[0].limits = Some(Plan::Pro.limits().with_max_agents(0)),
    }
    inspector.step(&shown.snapshot, &shown.observed);
}

fn in_the_feed(inspector: &mut Inspector, shown: Shown, invariant: Invariant) {
    const UP: (Status, Status) = (Status::Starting, Status::Running);
    const DOWN: (Status, Status) = (Status::Running, Status::Starting);
    let tally = Tally::default();
    let mut fed = |seq, edge, cause: &str, secs| {
        inspector.fed(&shown.fed(seq, edge, cause, at(secs)), &tally);
    };
    match invariant {
        Invariant::CommitsAreKept => {
            fed(shown.revision() + 1, UP, "paired", 0);
            inspector.step(&shown.snapshot, &shown.observed);
        }
        Invariant::Edges => fed(1, (Status::Stopped, Status::Running), "paired", 0),
        Invariant::AbsenceIsNoDeath => fed(1, DOWN, "runtime-unavailable", 0),
        Invariant::NewsOfThisRun => {
            fed(1, UP, "paired", 0);
            fed(2, DOWN, "token-refused", 1);
        }
        Invariant::RestartsBudgeted => {
            for n in 0..11 {
                fed(2 * n + 1, UP, "paired", n);
                fed(2 * n + 2, DOWN, "exited", n);
            }
        }
        _ => {
            let revision = shown.revision();
            let backing_off = Step::BackingOff { until: at(60), kill: false };
            let phase = Phase::Starting { step: backing_off, stage: false, rebinds: 0, away_since: None };
            let shown = shown.with_phase(phase);
            let early = shown.fed(revision + 1, (Status::Starting, Status::Starting), "retry-due", at(59));
            inspector.step(&shown.snapshot, &shown.observed);
            inspector.fed(&early, &tally);
        }
    }
}

fn at_rest(inspector: &mut Inspector, mut shown: Shown, invariant: Invariant) {
    match invariant {
        Invariant::NothingStuck => shown = shown.with_phase(Phase::Pending),
        Invariant::IntentIsFact => shown.observed.clear(),
        Invariant::NoLeftovers => shown.snapshot.agents.clear(),
        _ => inspector.wished(shown.agent, Wish::Stop, shown.revision()),
    }
    inspector.at_rest(&shown.snapshot, &shown.observed);
}

#[tokio::test(start_paused = true)]
async fn every_check_can_fail() {
    for &invariant in Invariant::ALL {
        let found = broken(invariant).await;
        assert!(found.iter().any(|violation| violation.invariant == invariant), "{invariant:?}: {found:?}");
        let guarded = matches!(invariant, Invariant::IntentFirst | Invariant::OneOperation);
        assert!(guarded || found.len() == 1, "{invariant:?} alone is broken: {found:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_invariant_of_ones_own_is_asked_with_the_others_and_keeps_what_it_saw() {
    let world = testkit::plane(1, Plan::Pro).await;
    let runtime = world.fakes.runtime();
    let mut seen = Vec::new();
    let mut inspector = Inspector::new().with_invariant("no agent is added", move |moment| {
        seen.push((moment.snapshot.agents.len(), moment.instances.len(), moment.at_rest));
        if seen.iter().any(|it| it.0 != seen[0].0) { Err(format!("{seen:?}")) } else { Ok(()) }
    });
    world.running("Ada").await;
    assert_eq!(inspector.check(&world.plane, &*runtime, true).await, Ok(Vec::new()));
    world.running("Bob").await;
    let found = inspector.check(&world.plane, &*runtime, false).await.expect("both can be read");
    let told: Vec<String> = found.iter().map(ToString::to_string).collect();
    assert_eq!(told, ["no agent is added: [(1, 1, false), (1, 1, true), (2, 2, false)]"]);
}

/// All transitions of a fleet that is hit by faults, with their times.
async fn history(seed: u64) -> Vec<String> {
    let world = testkit::plane(seed, Plan::Pro).await;
    let agents = [world.running("Ada").await, world.running("Bob").await];
    for _ in 0..4 {
        for agent in &agents {
            world.fakes.engine().crash(agent.id());
        }
        tokio::time::sleep(Duration::from_secs(40)).await;
    }
    let mut told = Vec::new();
    for agent in agents {
        let entries = agent.events(0, usize::MAX).await.expect("the store answers");
        told.extend(entries.iter().map(|entry| format!("{} {entry:?}", agent.id())));
    }
    told
}

#[test]
fn a_seed_gives_its_history_again_to_the_nanosecond() {
    let run = |seed| {
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        runtime.enable_all().start_paused(true).build().expect("a runtime").block_on(history(seed))
    };
    for seed in 0..5 {
        let first = run(seed);
        assert!(first.len() > 10, "{first:?}");
        assert_eq!(first, run(seed), "seed {seed}");
    }
    assert_ne!(run(1), run(2));
}

#[tokio::test(start_paused = true)]
async fn a_wait_that_lasts_too_long_is_found_and_one_in_time_is_not() {
    for (late, expected) in [(0, 0), (1, 1)] {
        let shown = Shown::new().await;
        let revision = shown.revision();
        let step = Step::BackingOff { until: at(60), kill: false };
        let shown = shown.with_phase(Phase::Starting { step, stage: false, rebinds: 0, away_since: None });
        let mut inspector = Inspector::new();
        inspector.new_life(EPOCH);
        inspector.step(&shown.snapshot, &shown.observed);
        let due = shown.fed(revision + 1, (Status::Starting, Status::Starting), "retry-due", at(60 + late));
        inspector.fed(&due, &Tally::default());
        assert_eq!(inspector.violations().len(), expected, "{late} s late");
    }
}

#[tokio::test(start_paused = true)]
async fn a_control_plane_that_is_well_breaks_nothing() {
    let shown = Shown::new().await;
    assert_eq!(check(&shown.world.plane, &*shown.world.fakes.runtime(), true).await, Ok(Vec::new()));
}
