//! What a command costs that changes nothing: to the agent's actor and back.
//!
//! `cargo bench --bench mailbox`; the floor is the same round trip to an actor that only answers.

use std::time::Duration;

use divan::Bencher;
use divan::counter::ItemsCount;
use ractor::{Actor, ActorProcessingErr, ActorRef, RpcReplyPort};
use tokio::runtime::Runtime;
use zeroone::control::{AgentHandle, Clock, CommandOutcome, NewUser, Settings};
use zeroone::domain::{Plan, Status};
use zeroone::testkit::{self, FakeDisk, Fakes, new_agent};

fn main() {
    divan::main();
}

/// Longer than a fake engine takes to stop anything.
const PATIENCE: Duration = Duration::from_secs(30);

/// Callers who wait for their answers at the same time.
const CALLERS: [usize; 2] = [1, 64];

struct Answering;

struct Ask(RpcReplyPort<()>);

impl Actor for Answering {
    type Msg = Ask;
    type State = ();
    type Arguments = ();

    async fn pre_start(&self, _: ActorRef<Ask>, (): ()) -> Result<(), ActorProcessingErr> {
        Ok(())
    }

    async fn handle(&self, _: ActorRef<Ask>, Ask(reply): Ask, (): &mut ()) -> Result<(), ActorProcessingErr> {
        Ok(reply.send(())?)
    }
}

/// As the service has it: a work-stealing scheduler, and callers who are tasks.
fn runtime() -> Runtime {
    tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime")
}

fn round_trips<T: Clone + Send + Sync + 'static, F: Future<Output = ()> + Send + 'static>(
    bencher: Bencher<'_, '_>,
    runtime: &Runtime,
    callers: usize,
    to: T,
    ask: fn(T) -> F,
) {
    bencher.counter(ItemsCount::new(callers)).bench_local(|| {
        runtime.block_on(async {
            let calls: Vec<_> = (0..callers).map(|_| tokio::spawn(ask(to.clone()))).collect();
            for call in calls {
                call.await.expect("no panic");
            }
        });
    });
}

#[divan::bench(args = CALLERS)]
fn floor(bencher: Bencher<'_, '_>, callers: usize) {
    let runtime = runtime();
    let (actor, _) = runtime.block_on(Actor::spawn(None, Answering, ())).expect("an actor");
    round_trips(bencher, &runtime, callers, actor, |actor: ActorRef<Ask>| async move {
        #[expect(clippy::disallowed_macros, reason = "a deadline would be a part of what is measured")]
        ractor::call!(actor, Ask).expect("an answer");
    });
}

#[divan::bench(args = CALLERS)]
fn command(bencher: Bencher<'_, '_>, callers: usize) {
    let runtime = runtime();
    let agent = runtime.block_on(stopped_agent());
    round_trips(bencher, &runtime, callers, agent, |agent: AgentHandle| async move {
        assert_eq!(agent.stop().await, Ok(CommandOutcome::Unchanged));
    });
}

async fn stopped_agent() -> AgentHandle {
    let fakes = Fakes::with_clock(1, Clock::System);
    let plane = testkit::start(&fakes, &FakeDisk::new(), Settings::default()).await.expect("it comes up");
    let user = NewUser::new("ada@example.com", Plan::Free);
    let user = plane.create_user(user).await.expect("a new store takes a user").id;
    let agent = plane.create_agent(user, new_agent("Ada")).await.expect("a first agent");
    agent.stop().await.expect("it follows");
    agent.wait(&[Status::Stopped], PATIENCE).await.expect("it stops");
    agent
}
