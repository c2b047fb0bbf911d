//! A life in a world that does everything at the wrong moment: jobs that report after they were superseded, events of
//! older attempts, a clock that jumps, a service that is restarted between any two events. After each step the world
//! checks what must always hold ([`World::check`]); at the end it becomes kind, or unkind for good, and the agent must
//! settle either way.

mod world;

use proptest::prelude::*;
use proptest::sample::{Index, select};

use self::world::World;
use super::*;

/// One thing that happens. What it is about is picked from what is pending when it does.
#[derive(Debug, Clone)]
enum Act {
    Command(Command),
    /// The job under way ends.
    Finish(Report),
    /// A job that was superseded ends all the same.
    Ghost(Index, Report),
    /// A job of an older attempt ends.
    Stale {
        job: Job,
        behind: u64,
        report: Report,
    },
    Timer,
    StaleTimer {
        behind: u64,
    },
    /// A look at the engine that was begun, possibly long ago, comes back.
    Look(Index, Observation),
    Nudge,
    Health(bool),
    StaleHealth {
        behind: u64,
        alive: bool,
    },
    TokenRefused {
        behind: u64,
    },
    /// The service, or the agent's actor, ends and begins again.
    Reboot,
    Pass {
        millis: u64,
    },
    Jump {
        millis: i64,
    },
}

/// How a job ends.
#[derive(Debug, Clone, Copy)]
enum Report {
    Good,
    /// Good, and Create finds the instance up.
    Up(u8),
    Bad(FailureKind),
    /// With another job's outcome.
    Nonsense(u8),
}

impl Report {
    fn outcome(self, job: Job) -> Outcome {
        match (self, job) {
            (Self::Up(n), Job::Create) => created(Some(&format!("b{n}"))),
            // An engine that takes its time: the run is there with the step after.
            (Self::Up(n), Job::Launch) if n % 2 == 1 => Outcome::Accepted { why: "busy".into() },
            (Self::Up(n), Job::Launch | Job::Await) => launched(&format!("b{n}")),
            (Self::Good, Job::Create) => created(None),
            (Self::Good, Job::Launch | Job::Await) => launched("b0"),
            (Self::Good | Self::Up(_), Job::Pair) => Outcome::Paired(Code::Paired),
            (Self::Good | Self::Up(_), Job::Kill | Job::Rebind | Job::Probe | Job::Stop | Job::Remove) => Outcome::Done,
            (Self::Bad(FailureKind::EngineAway), _) => failure(FailureKind::EngineAway, Code::RuntimeUnavailable),
            (Self::Bad(FailureKind::EngineRefuses), _) => failure(FailureKind::EngineRefuses, Code::RuntimeRefuses),
            (Self::Bad(kind), Job::Probe) => failure(kind, Code::HealthTimeout),
            (Self::Bad(kind), Job::Pair) => failure(kind, Code::PairingTimeout),
            (Self::Bad(kind), _) => failure(kind, Code::StartFailed),
            (Self::Nonsense(n), _) => {
                let outcomes = [Outcome::Done, created(None), launched("b0"), Outcome::Paired(Code::Paired)];
                outcomes[usize::from(n) % outcomes.len()].clone()
            }
        }
    }
}

fn report() -> impl Strategy<Value = Report> {
    prop_oneof![
        40 => Just(Report::Good),
        2 => (0..3_u8).prop_map(Report::Up),
        3 => Just(Report::Bad(FailureKind::Transient)),
        2 => Just(Report::Bad(FailureKind::EngineAway)),
        1 => Just(Report::Bad(FailureKind::EngineRefuses)),
        1 => Just(Report::Bad(FailureKind::PortTaken)),
        1 => Just(Report::Bad(FailureKind::Permanent)),
        1 => (0..4_u8).prop_map(Report::Nonsense),
    ]
}

fn command() -> impl Strategy<Value = Command> {
    prop_oneof![
        4 => Just(Command::Start),
        3 => Just(Command::Stop),
        2 => Just(Command::Restart),
        1 => Just(Command::Delete),
        2 => any::<bool>().prop_map(|inside| Command::Update { inside }),
    ]
}

fn job() -> impl Strategy<Value = Job> {
    select(vec![
        Job::Kill,
        Job::Create,
        Job::Rebind,
        Job::Launch,
        Job::Await,
        Job::Probe,
        Job::Pair,
        Job::Stop,
        Job::Remove,
    ])
}

fn observation() -> impl Strategy<Value = Observation> {
    prop_oneof![
        4 => (0..3_u8).prop_map(|n| up(&format!("b{n}"))),
        2 => (0..140_i32).prop_map(down),
        1 => Just(Observation::Down(Exit { code: None, oom: true, asked: false, reason: None })),
        1 => Just(Observation::Absent),
        1 => (0..3_u8).prop_map(|n| paused(&format!("b{n}"))),
        2 => Just(Observation::Unknown),
    ]
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        4 => command().prop_map(Act::Command),
        30 => report().prop_map(Act::Finish),
        3 => (any::<Index>(), report()).prop_map(|(which, report)| Act::Ghost(which, report)),
        2 => (job(), 1..4_u64, report()).prop_map(|(job, behind, report)| Act::Stale { job, behind, report }),
        10 => Just(Act::Timer),
        1 => (1..4_u64).prop_map(|behind| Act::StaleTimer { behind }),
        8 => (any::<Index>(), observation()).prop_map(|(which, observation)| Act::Look(which, observation)),
        3 => Just(Act::Nudge),
        6 => any::<bool>().prop_map(Act::Health),
        1 => (1..4_u64, any::<bool>()).prop_map(|(behind, alive)| Act::StaleHealth { behind, alive }),
        2 => (0..3_u64).prop_map(|behind| Act::TokenRefused { behind }),
        2 => Just(Act::Reboot),
        4 => (0..100_000_u64).prop_map(|millis| Act::Pass { millis }),
        1 => (-4_000_000..4_000_000_i64).prop_map(|millis| Act::Jump { millis }),
    ]
}

proptest! {
    #[test]
    fn whatever_happens_in_whatever_order_nothing_is_stuck_and_nothing_is_forgotten(
        acts in prop::collection::vec(act(), 1..150),
        healthy: bool,
    ) {
        let mut world = World::new();
        for act in acts {
            if world.ended {
                break;
            }
            world.happen(act.clone()).map_err(|wrong| TestCaseError::fail(format!("{act:?}: {wrong}")))?;
        }
        world.settle(healthy).map_err(TestCaseError::fail)?;
    }
}
